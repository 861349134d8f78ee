"""Order events, as the service publishes them.

The first seven fields are always present. `commission` is in the quote asset (fees paid in the base asset at the price of
their fill); fees in a third asset stand in `commissions` only. `average_price` is null while nothing is filled.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

import msgspec

from schemas.order import OrderStatus
from schemas.tca import CostReport
from schemas.terms import Side


class EventType(StrEnum):
    ACCEPTED = "order.accepted"
    PLACED = "order.placed"
    PARTIALLY_FILLED = "order.partially_filled"
    FILLED = "order.filled"
    AMENDED = "order.amended"
    CANCELED = "order.canceled"
    REJECTED = "order.rejected"
    EXPIRED = "order.expired"
    FAILED = "order.failed"
    TRADE_OPENED = "trade.opened"
    TRADE_CLOSED = "trade.closed"
    POSITION_UPDATED = "position.updated"
    HALTED = "service.halted"
    RESUMED = "service.resumed"
    DEADMAN_TRIPPED = "deadman.tripped"
    RECONCILED = "service.reconciled"


class EventFill(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A fill that the event tells for the first time. `trade_id` is the venue's."""

    trade_id: str
    price: Decimal
    quantity: Decimal
    fee: Decimal
    fee_asset: str | None = None
    maker: bool | None = None
    timestamp: int


class EventChild(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What changed at the venue."""

    client_order_id: str
    venue: str
    state: str
    quantity: Decimal
    filled: Decimal
    venue_order_id: str | None = None
    price: Decimal | None = None
    role: str = "entry"
    """`exit`: it closes the position again, of a bracket."""
    order_type: str | None = None
    """Where it is neither `limit` nor `market`."""
    stop_price: Decimal | None = None
    tag: str | None = None
    """The algorithm's own mark: which slice or which leg this is."""
    reason: str | None = None
    fills: tuple[EventFill, ...] = ()


class EventTrigger(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a stop, take-profit or trailing stop waits for. `held_by`: `venue` or `service`."""

    held_by: str
    price: Decimal | None = None
    fired_at: int | None = None
    fired_price: Decimal | None = None


class OrderEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One change of one order. `sequence` counts an order's events from 1 without gaps; `event_id` is the same however
    often the event is delivered."""

    order_id: str
    signal_id: str
    status: OrderStatus
    filled_quantity: Decimal
    average_price: Decimal | None
    commission: Decimal
    timestamp: int
    event_id: str
    event_type: EventType
    sequence: int
    strategy_id: str | None
    exchange: str | None
    symbol: str | None
    side: Side | None
    quantity: Decimal | None
    remaining_quantity: Decimal | None
    commissions: dict[str, Decimal]
    instance_id: str
    algorithm: str | None = None
    user_id: str | msgspec.UnsetType | None = msgspec.UNSET
    trade_id: str | msgspec.UnsetType | None = msgspec.UNSET
    child: EventChild | msgspec.UnsetType = msgspec.UNSET
    reason: str | msgspec.UnsetType = msgspec.UNSET
    field: str | msgspec.UnsetType = msgspec.UNSET
    """With `order.rejected`: the field of the signal that was refused."""
    ignored_fields: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    """With `order.accepted`: fields of the signal that mean nothing to this service."""
    metadata: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    slippage_bps: Decimal | msgspec.UnsetType = msgspec.UNSET
    """With a breach of `max_slippage_bps`: how far from the arrival price it would trade; positive is cost."""
    trigger: EventTrigger | msgspec.UnsetType = msgspec.UNSET
    notes: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    """With `order.accepted`: what was chosen or adjusted, in words."""
    realized_pnl: Decimal | msgspec.UnsetType = msgspec.UNSET
    """With `trade.closed`: what the exits brought less what the entry cost and all fees, in the quote asset."""
    tca: CostReport | msgspec.UnsetType = msgspec.UNSET
    """With the last event of an order: what its execution cost, as far as it is known by then."""


def attributes(event: OrderEvent, source: str) -> dict[str, str]:
    """The Pub/Sub attributes of an event: what subscriptions filter by, and CloudEvents' context (`ce-*`)."""
    pairs = {
        "event_type": event.event_type.value,
        "order_id": event.order_id,
        "signal_id": event.signal_id,
        "strategy_id": event.strategy_id or "",
        "exchange": event.exchange or "",
        "symbol": event.symbol or "",
        "ce-specversion": "1.0",
        "ce-id": event.event_id,
        "ce-source": source,
        "ce-type": event.event_type.value,
        "ce-subject": event.order_id,
        "ce-time": iso_time(event.timestamp),
        "content-type": "application/json",
    }
    return {key: value for key, value in pairs.items() if value}


def iso_time(timestamp: int) -> str:
    """Milliseconds since the epoch as RFC 3339 in UTC."""
    return datetime.fromtimestamp(timestamp / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
