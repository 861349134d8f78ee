"""When an order that is worked for a duration begins and ends."""

from __future__ import annotations

from algorithms.base import Done, View
from schemas.order import OrderStatus, ParentOrder


def window(order: ParentOrder, duration_ms: int | None) -> tuple[int, int | None]:
    """When an order begins to work, its trigger considered, and when its time ends; ms since the epoch."""
    start = order.created_at
    if order.trigger is not None and order.trigger.fired_at is not None:
        start = order.trigger.fired_at
    ends = [start + duration_ms] if duration_ms is not None else []
    return start, min([*ends, order.expires_at] if order.expires_at is not None else ends, default=None)


def over(view: View) -> Done:
    """The end of an order whose time is over."""
    left = view.order.quantity - view.totals.filled
    return Done(OrderStatus.EXPIRED, f"its time is over: {left:f} left")
