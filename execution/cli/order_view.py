"""How an order of the ledger looks on a terminal and in JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from rich.text import Text

from execution.cli.output import clock, number, out, status, table
from execution.ledger import LoadedOrder
from execution.ledger.reader import Rejection
from schemas.order import ChildOrder, Fill, ParentOrder, Role, totals

_LIST = ("created", "order", "signal", "strategy", "venue", "symbol", "side", "filled", "average", "status", "reason")


def summary(order: LoadedOrder | Rejection) -> dict[str, Any]:
    """The order in one flat object."""
    if isinstance(order, Rejection):
        event = order.event
        return {
            "order_id": event.order_id,
            "signal_id": event.signal_id,
            "strategy_id": event.strategy_id,
            "exchange": event.exchange,
            "symbol": event.symbol,
            "side": event.side,
            "quantity": event.quantity,
            "filled_quantity": event.filled_quantity,
            "average_price": event.average_price,
            "status": event.status.value,
            "reason": None if event.reason is msgspec.UNSET else event.reason,
            "created_at": event.timestamp,
            "updated_at": event.timestamp,
        }
    parent, sums = order.parent, totals(child for child in order.children if child.role is Role.ENTRY)
    return {
        "order_id": parent.order_id,
        "signal_id": parent.signal_id,
        "strategy_id": parent.strategy_id,
        "exchange": parent.exchange,
        "symbol": parent.symbol,
        "side": parent.side,
        "quantity": parent.quantity,
        "filled_quantity": sums.filled,
        "average_price": None if sums.average_price is None else round(sums.average_price, 12),
        "status": parent.status.value,
        "reason": parent.reason,
        "created_at": parent.created_at,
        "updated_at": parent.updated_at,
    }


def document(order: LoadedOrder | Rejection) -> dict[str, Any]:
    """All records of the order."""
    if isinstance(order, Rejection):
        return {"order": summary(order), "children": [], "fills": []}
    return {"order": summary(order) | _record(order.parent), "children": order.children, "fills": order.fills}


def print_list(rows: Iterable[dict[str, Any]]) -> None:
    """Summaries as a table."""
    table(_LIST, [_row(row) for row in rows])


def print_order(order: LoadedOrder | Rejection) -> None:
    """One order with its children and fills."""
    for name, value in summary(order).items():
        if value is not None:
            out.print(Text(f"{name:<16} ", style="dim").append_text(_shown(name, value)))
    if isinstance(order, Rejection):
        return
    parent = order.parent
    for name, value in _terms(order).items():
        out.print(Text(f"{name:<16} ", style="dim").append(value))
    if parent.ignored_fields:
        out.print(Text(f"{'ignored':<16} ", style="dim").append(", ".join(parent.ignored_fields)))
    if order.children:
        out.print()
        table(
            ("child", "venue", "venue order", "type", "price", "filled", "state", "updated", "reason"),
            [_child(child) for child in order.children],
        )
    if order.fills:
        out.print()
        table(("trade", "child", "price", "quantity", "fee", "time"), [_fill(fill) for fill in order.fills])


def _record(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__struct_fields__}


def _terms(order: LoadedOrder) -> dict[str, str]:
    parent = order.parent
    terms = {
        "order_type": f"{parent.order_type} {parent.time_in_force}{' post-only' if parent.post_only else ''}",
        "price": number(parent.price),
        "algorithm": " ".join(
            [parent.algorithm, *(f"{name}={value}" for name, value in parent.algorithm_params.items())]
        ),
        "venues": ", ".join(parent.venues),
        "trigger": _trigger(parent),
        "take_profit": number(parent.take_profit),
        "stop_loss": number(parent.stop_loss),
        "exits": _exits(order) if parent.has_bracket else "",
        "max_slippage": f"{number(parent.max_slippage_bps)} bps" if parent.max_slippage_bps is not None else "",
        "arrival": number(parent.arrival),
        "waits because": parent.waiting or "",
        "notes": "; ".join(parent.notes),
        "expires_at": clock(parent.expires_at, day=True) if parent.expires_at else "",
        "cancel": (parent.cancel_reason or "requested") if parent.cancel_requested else "",
        "paused": "yes" if parent.paused else "",
        "events": str(parent.sequence),
    }
    return {name: value for name, value in terms.items() if value}


def _trigger(parent: ParentOrder) -> str:
    """What a stop waits for, or when it fired."""
    trigger = parent.trigger
    if trigger is None:
        return ""
    holder = "the venue" if trigger.native else f"the service, by the {trigger.source}"
    if trigger.fired_at is not None:
        return f"reached at {number(trigger.fired_price)}, {clock(trigger.fired_at, day=True)}"
    return f"{number(trigger.price) or f'active from {number(trigger.activation)}'}, watched by {holder}"


def _exits(order: LoadedOrder) -> str:
    """How far a bracket's position has been closed."""
    closed = totals(child for child in order.children if child.role is Role.EXIT).filled
    ended = order.parent.protection_ended
    return f"{number(closed) or 0} closed" + (f", ended: {ended}" if ended else "")


def _row(row: dict[str, Any]) -> list[str | Text]:
    return [
        clock(row["created_at"], day=True),
        row["order_id"],
        row["signal_id"],
        row["strategy_id"] or "",
        row["exchange"] or "",
        row["symbol"] or "",
        str(row["side"] or ""),
        f"{number(row['filled_quantity'])}/{number(row['quantity']) or '?'}",
        number(row["average_price"]),
        status(row["status"]),
        row["reason"] or "",
    ]


def _shown(name: str, value: Any) -> Text:
    if name == "status":
        return status(value)
    if name.endswith("_at"):
        return Text(clock(value, day=True))
    return Text(number(value) if name.startswith(("quantity", "filled", "average")) else str(value))


def _child(child: ChildOrder) -> list[str | Text]:
    return [
        child.child_id,
        child.venue,
        child.venue_order_id or "",
        str(child.order_type),
        number(child.price) or (f"at {number(child.stop_price)}" if child.stop_price is not None else ""),
        f"{number(child.filled)}/{number(child.quantity)}",
        status(child.state.value),
        clock(child.updated_at),
        " ".join(filter(None, (f"[{child.tag}]" if child.tag else "", child.reason))),
    ]


def _fill(fill: Fill) -> list[str | Text]:
    return [
        fill.trade_id,
        fill.child_id,
        number(fill.price),
        number(fill.quantity),
        f"{number(fill.fee)} {fill.fee_asset or ''}",
        clock(fill.timestamp),
    ]
