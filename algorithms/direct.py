"""Direct: the whole parent as one order at the venue.

The child is placed at once and left to work. It is replaced only when the parent was amended, or paused and resumed, and then
only after its end is certain, for what is then certainly free. A rest that the venue cannot trade is dust: the parent is
filled, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from algorithms.base import Cancel, Decision, Done, Place, View
from schemas.market import MarketRules
from schemas.order import ChildOrder, ChildState, OrderStatus, ParentOrder
from schemas.terms import OrderType, TimeInForce


class DirectParameters(BaseModel):
    """Direct has none."""

    model_config = ConfigDict(extra="forbid")


class Direct:
    name: ClassVar[str] = "direct"
    parameters: ClassVar[type[BaseModel]] = DirectParameters
    order_types: ClassVar[frozenset[OrderType]] = frozenset({OrderType.MARKET, OrderType.LIMIT})

    def plan(self, order: ParentOrder, rules: MarketRules) -> Mapping[str, Any]:
        return {}

    def decide(self, view: View) -> Decision:
        order = view.order
        live = [child for child in view.children if not child.state.terminal]
        expired = order.expires_at is not None and view.now >= order.expires_at
        if live:
            reason = _reason_to_cancel(view, live[-1], expired)
            if reason is not None:
                return Decision(
                    cancel=tuple(Cancel(child.child_id, reason) for child in live if not child.cancel_requested)
                )
            return Decision(wake_at=order.expires_at)
        if view.totals.unknown or view.totals.open:
            return Decision()  # trades of an ended child are still to be fetched
        if view.free <= 0:
            return Decision(done=Done(OrderStatus.FILLED, _overtaken(view)))
        if order.cancel_requested:
            return Decision(done=Done(OrderStatus.CANCELED, order.cancel_reason or "canceled on request"))
        if expired:
            return Decision(done=Done(OrderStatus.EXPIRED, "its time ran out"))
        if view.children:
            end = _end(view, view.children[-1])
            if end is not None:
                return Decision(done=end)
        if order.paused:
            return Decision(wake_at=order.expires_at)
        return self._place(view)

    def _place(self, view: View) -> Decision:
        order, rules = view.order, view.rules
        quantity = rules.round_quantity(view.free, order.order_type)
        price = rules.round_price(order.price, order.side) if order.price is not None else None
        refusal = rules.refusal(quantity, order.order_type, price)
        if refusal is not None:
            field, reason = refusal
            if view.totals.filled and field == "quantity":
                return Decision(done=Done(OrderStatus.FILLED, f"the rest of {view.free:f} is dust: {reason}"))
            status = OrderStatus.FAILED if view.totals.filled else OrderStatus.REJECTED
            return Decision(done=Done(status, reason, field))
        limit = order.order_type is OrderType.LIMIT
        in_force = order.time_in_force if order.time_in_force in (TimeInForce.IOC, TimeInForce.FOK) else TimeInForce.GTC
        place = Place(
            quantity=quantity,
            order_type=order.order_type,
            price=price if limit else None,
            time_in_force=in_force if limit else TimeInForce.GTC,
            post_only=order.post_only,
        )
        return Decision(place=(place,), wake_at=order.expires_at)


def _reason_to_cancel(view: View, child: ChildOrder, expired: bool) -> str | None:
    order = view.order
    if order.cancel_requested:
        return order.cancel_reason or "canceled on request"
    if expired:
        return "its time ran out"
    if order.paused:
        return "paused"
    if child.amendment < order.amendments:
        return "amended"
    return None


def _end(view: View, last: ChildOrder) -> Done | None:
    """How the parent ends with its last child; None when the rest is to be placed again."""
    order = view.order
    filled = view.totals.filled
    if last.state is ChildState.REJECTED:
        return Done(OrderStatus.FAILED if filled else OrderStatus.REJECTED, last.reason)
    if last.state is ChildState.VOID:
        return None if last.cancel_requested else Done(OrderStatus.FAILED, last.reason)
    if last.state is ChildState.EXPIRED:
        return Done(OrderStatus.EXPIRED, last.reason or "the venue expired the rest")
    if last.state is ChildState.CANCELED and not last.cancel_requested and last.amendment == order.amendments:
        return Done(OrderStatus.CANCELED, last.reason or "canceled at the venue")
    if last.state is ChildState.FILLED and last.amendment == order.amendments:
        residual = view.free
        return Done(OrderStatus.FILLED, f"the rest of {residual:f} is below what {order.symbol} can trade")
    return None


def _overtaken(view: View) -> str | None:
    excess = view.totals.filled - view.order.quantity
    return f"{excess:f} more had filled before the amendment took hold" if excess > 0 else None
