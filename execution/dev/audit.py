"""Whether it all adds up: signals and orders, fills and the venues' own records, events and their numbering."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from execution.dev.watch import Watch
from execution.ledger import LedgerReader, LoadedOrder, keys
from schemas.order import OrderStatus, Role


class Audit:
    """The figures of a run, and every contradiction among them."""

    def __init__(self) -> None:
        self.signals = 0
        self.orders = 0
        self.statuses: Counter[str] = Counter()
        self.fills_at_venues = 0
        self.fills_in_ledger = 0
        self.fills_in_events = 0
        self.events = 0
        self.events_repeated = 0
        self.problems: list[str] = []

    @property
    def adds_up(self) -> bool:
        return not self.problems


async def audit(signals: list[str], venues: Mapping[str, dict[str, Any]], reader: LedgerReader, watch: Watch) -> Audit:
    """Compare what was published, what the venues recorded, what the ledger holds and what the events told.

    `venues`: each venue's own record by its name.
    """
    result = Audit()
    result.signals = len(signals)
    ledger: dict[tuple[str, str, str], Decimal] = {}
    children: set[str] = set()
    told: Counter[str] = Counter(event.order_id for event in watch.events.values() if event.sequence > 0)
    for signal_id in signals:
        record = await reader.order(signal_id)
        if record is None:
            result.problems.append(f"signal {signal_id} has no order")
            continue
        result.orders += 1
        if not isinstance(record, LoadedOrder):
            result.statuses[OrderStatus.REJECTED] += 1
            _compare(result, record.event.order_id, 1, told)
            continue
        _order(result, record, told, ledger, children)
    at_venues = _venue_fills(result, venues, children)
    result.fills_at_venues, result.fills_in_ledger = len(at_venues), len(ledger)
    result.fills_in_events, result.events = len(watch.fills), len(watch.events)
    result.events_repeated = watch.repeated
    for name, fills in (("ledger", ledger), ("events", watch.fills)):
        for identity in sorted(at_venues.keys() - fills.keys()):
            result.problems.append(f"fill {'/'.join(identity)} of the venue is missing from the {name}")
        for identity in sorted(fills.keys() - at_venues.keys()):
            result.problems.append(f"fill {'/'.join(identity)} of the {name} is unknown to the venue")
        for identity in at_venues.keys() & fills.keys():
            if at_venues[identity] != fills[identity]:
                result.problems.append(f"fill {'/'.join(identity)} differs between the venue and the {name}")
    return result


def _order(
    result: Audit,
    record: LoadedOrder,
    told: Counter[str],
    ledger: dict[tuple[str, str, str], Decimal],
    children: set[str],
) -> None:
    parent = record.parent
    result.statuses[parent.status] += 1
    if not parent.status.terminal:
        result.problems.append(f"order {parent.order_id} has not ended: {parent.status}")
    child_of = {child.child_id: child for child in record.children}
    filled = {role: Decimal(0) for role in Role}
    for fill in record.fills:
        child = child_of[fill.child_id]
        filled[child.role] += fill.quantity
        ledger[child.venue, child.symbol, fill.trade_id] = fill.quantity
    if filled[Role.ENTRY] > parent.quantity:
        result.problems.append(f"order {parent.order_id} filled {filled[Role.ENTRY]:f} of {parent.quantity:f}")
    if filled[Role.EXIT] > filled[Role.ENTRY]:
        opened, closed = filled[Role.ENTRY], filled[Role.EXIT]
        result.problems.append(f"order {parent.order_id} closed {closed:f} of the {opened:f} it opened")
    _compare(result, parent.order_id, parent.sequence, told)
    children.update(child_of)


def _compare(result: Audit, order_id: str, sequence: int, told: Counter[str]) -> None:
    if told[order_id] != sequence:
        result.problems.append(f"order {order_id} has {sequence} events, {told[order_id]} were published")


def _venue_fills(
    result: Audit, venues: Mapping[str, dict[str, Any]], children: set[str]
) -> dict[tuple[str, str, str], Decimal]:
    fills: dict[tuple[str, str, str], Decimal] = {}
    for name, record in venues.items():
        for order in record["orders"]:
            if order["clientOrderId"] not in children and keys.key_of_child(order["clientOrderId"]):
                result.problems.append(f"order {order['clientOrderId']} at {name} is not in the ledger")
            if order["status"] in ("NEW", "PARTIALLY_FILLED"):
                result.problems.append(f"order {order['clientOrderId']} is still open at {name}")
        for trade in record["trades"]:
            symbol = f"{trade['symbol'].removesuffix('USDT')}/USDT"
            fills[name, symbol, str(trade["id"])] = Decimal(trade["qty"])
    return fills
