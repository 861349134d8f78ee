"""The public Redis keys: `ORDER:<order_id>` and `STREAM:TRADE`, brought up to date from the events.

They live outside the shards, so they are written beside the commit and not in it: after it, before the event is published, and
so that writing them again changes nothing.
"""

from __future__ import annotations

import asyncio

import msgspec

from execution.ledger.outbox import OutboxStore
from schemas.event import OrderEvent
from schemas.exact_json import plain
from schemas.order import OrderStatus, Role

_STATES = {
    OrderStatus.ACCEPTED: "OPEN",
    OrderStatus.WORKING: "OPEN",
    OrderStatus.PARTIALLY_FILLED: "PARTIAL",
    OrderStatus.FILLED: "FILLED",
    OrderStatus.CANCELED: "CANCELED",
    OrderStatus.REJECTED: "REJECTED",
    OrderStatus.EXPIRED: "EXPIRED",
    OrderStatus.FAILED: "FAILED",
}


class Projections:
    def __init__(self, store: OutboxStore, *, order_retention: int, most_trades: int) -> None:
        """`order_retention`: seconds that `ORDER:<id>` outlives its order; `most_trades`: length of the stream, about."""
        self._store = store
        self._order_retention = order_retention
        self._most_trades = most_trades

    async def apply(self, shard: int, entries: list[str], events: list[OrderEvent]) -> None:
        """Bring the keys up to date with a batch of one shard's events."""
        latest = {event.order_id: event for event in events if event.sequence > 0}
        await asyncio.gather(*(self._write_state(event) for event in latest.values()))
        trades = [trade for entry, event in zip(entries, events, strict=True) for trade in _trades(entry, event)]
        if trades:
            await self._store.append_trades(shard, trades, self._most_trades)

    async def _write_state(self, event: OrderEvent) -> None:
        remaining = event.remaining_quantity
        await self._store.write_order_state(
            event.order_id,
            event.sequence,
            self._order_retention if event.status.terminal else None,
            {
                "state": _STATES[event.status],
                "remaining": plain(remaining) if remaining is not None else "",
                "average_price": plain(event.average_price) if event.average_price is not None else "",
                "filled": plain(event.filled_quantity),
                "signal_id": event.signal_id,
                "exchange": event.exchange or "",
                "symbol": event.symbol or "",
                "side": event.side or "",
                "quantity": plain(event.quantity) if event.quantity is not None else "",
                "updated_at": str(event.timestamp),
            },
        )


def _trades(entry: str, event: OrderEvent) -> list[tuple[str, dict[str, str]]]:
    if isinstance(event.child, msgspec.UnsetType):
        return []
    child = event.child
    milliseconds, _, number = entry.partition("-")
    side = "" if event.side is None else event.side.opposite if child.role == Role.EXIT else event.side
    user = "" if isinstance(event.user_id, msgspec.UnsetType) or event.user_id is None else event.user_id
    return [
        (
            f"{int(milliseconds):016d}-{int(number):010d}-{index:05d}",
            {
                "user": user,
                "symbol": event.symbol or "",
                "price": plain(fill.price),
                "qty": plain(fill.quantity),
                "side": side,
                "order_id": event.order_id,
                "signal_id": event.signal_id,
                "strategy_id": event.strategy_id or "",
                "venue": child.venue,
                "trade_id": fill.trade_id,
                "client_order_id": child.client_order_id,
                "fee": plain(fill.fee),
                "fee_asset": fill.fee_asset or "",
                "timestamp": str(fill.timestamp),
            },
        )
        for index, fill in enumerate(child.fills)
    ]
