"""The events that tell of an order: what is in them, and which one says what."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal

import msgspec

from schemas.event import EventChild, EventFill, EventTrigger, EventType, OrderEvent
from schemas.order import ChildOrder, Fill, OrderStatus, ParentOrder, Totals, Trigger
from schemas.tca import CostReport
from schemas.terms import OrderType

ZERO = Decimal(0)
AVERAGE = Context(prec=28, rounding=ROUND_HALF_EVEN)

END_EVENTS = {
    OrderStatus.FILLED: EventType.FILLED,
    OrderStatus.CANCELED: EventType.CANCELED,
    OrderStatus.REJECTED: EventType.REJECTED,
    OrderStatus.EXPIRED: EventType.EXPIRED,
    OrderStatus.FAILED: EventType.FAILED,
}
STANDING_EVENTS = {
    **END_EVENTS,
    OrderStatus.ACCEPTED: EventType.ACCEPTED,
    OrderStatus.WORKING: EventType.PLACED,
    OrderStatus.PARTIALLY_FILLED: EventType.PARTIALLY_FILLED,
}


def order_event(
    key: str,
    instance: str,
    parent: ParentOrder,
    sums: Totals,
    event_type: EventType,
    now: int,
    *,
    child: EventChild | None = None,
    reason: str | None = None,
    field: str | None = None,
    ignored_fields: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
    slippage_bps: Decimal | None = None,
    realized_pnl: Decimal | None = None,
    tca: CostReport | None = None,
) -> OrderEvent:
    """The event of an order as it stands at `now` (ms), under the order's present sequence. `sums`: what its entries add up to."""
    unset = msgspec.UNSET
    return OrderEvent(
        order_id=parent.order_id,
        signal_id=parent.signal_id,
        status=parent.status,
        filled_quantity=sums.filled,
        average_price=AVERAGE.divide(sums.notional, sums.filled) if sums.filled else None,
        commission=sums.quote_fees,
        timestamp=now,
        # With the time: a store that forgot the event's order has the next one of this number tell something else.
        event_id=f"evt_{key}_{parent.sequence}_{now:x}",
        event_type=event_type,
        sequence=parent.sequence,
        strategy_id=parent.strategy_id,
        exchange=parent.exchange,
        symbol=parent.symbol,
        side=parent.side,
        quantity=parent.quantity,
        remaining_quantity=max(parent.quantity - sums.filled, ZERO),
        commissions=sums.fees,
        instance_id=instance,
        algorithm=parent.algorithm,
        user_id=parent.user_id if parent.user_id is not None else unset,
        trade_id=parent.trade_id if parent.trade_id is not None else unset,
        child=child if child is not None else unset,
        reason=reason if reason is not None else unset,
        field=field if field is not None else unset,
        ignored_fields=ignored_fields or unset,
        metadata=parent.metadata or unset,
        notes=notes or unset,
        slippage_bps=slippage_bps if slippage_bps is not None else unset,
        realized_pnl=realized_pnl if realized_pnl is not None else unset,
        trigger=_shown(parent.trigger) if parent.trigger is not None else unset,
        tca=tca if tca is not None else unset,
    )


def _shown(trigger: Trigger) -> EventTrigger:
    return EventTrigger(
        held_by="venue" if trigger.native else "service",
        price=trigger.price,
        fired_at=trigger.fired_at,
        fired_price=trigger.fired_price,
    )


def told_child(child: ChildOrder, fills: Iterable[Fill]) -> EventChild:
    """What an event says of a child, with the fills that it tells for the first time."""
    return EventChild(
        client_order_id=child.child_id,
        venue=child.venue,
        state=child.state.value,
        quantity=child.quantity,
        filled=child.filled,
        venue_order_id=child.venue_order_id,
        price=child.price,
        role=child.role.value,
        order_type=child.order_type.value if child.order_type not in (OrderType.LIMIT, OrderType.MARKET) else None,
        stop_price=child.stop_price,
        tag=child.tag or None,
        reason=child.reason,
        fills=tuple(
            [
                EventFill(
                    trade_id=fill.trade_id,
                    price=fill.price,
                    quantity=fill.quantity,
                    fee=fill.fee,
                    fee_asset=fill.fee_asset,
                    maker=fill.maker,
                    timestamp=fill.timestamp,
                )
                for fill in fills
            ]
        ),
    )
