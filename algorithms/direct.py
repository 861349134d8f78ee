"""Direct: the whole parent as one order at the venue.

The child is placed at once and left to work. It is replaced only when the parent was amended, or paused and resumed, and then
only after its end is certain, for what is then certainly free. A rest that the venue cannot trade is dust: the parent is
filled, and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import ClassVar, Literal

from pydantic import Field

from algorithms.base import Algorithm, Cancel, Decision, Done, Nothing, Parameters, Place, View, When
from algorithms.bounds import breach, depth, worst_price
from schemas.market import Candle, MarketRules
from schemas.order import ChildOrder, ChildState, OrderStatus, ParentOrder
from schemas.terms import OrderType, TimeInForce


class DirectParameters(Parameters):
    """How a stop, take-profit or trailing stop is watched; nothing for other orders."""

    trigger_at: Literal["auto", "venue", "service"] = Field(
        default="auto",
        description="Who waits for the trigger: the venue where it can (auto), always the venue, or always the service.",
    )
    trigger_source: Literal["last", "mid", "touch"] = Field(
        default="last", description="The price that counts while the service waits; the venue uses the last trade."
    )
    trail_bps: Decimal | None = Field(
        default=None, gt=0, le=5000, description="Of a trailing stop: its distance from the best price, in bps."
    )
    activation_price: Decimal | None = Field(
        default=None, gt=0, description="Of a trailing stop: the price from which on it trails; unset: at once."
    )


class Direct(Algorithm[DirectParameters, Nothing]):
    name: ClassVar[str] = "direct"
    Parameters = DirectParameters
    Plan = Nothing

    def plan(
        self, order: ParentOrder, parameters: DirectParameters, rules: MarketRules, history: Sequence[Candle]
    ) -> Nothing:
        return Nothing()

    def needs_market(self, order: ParentOrder) -> bool:
        return False

    def decide(self, plan: Nothing, view: View) -> Decision:
        order = view.order
        expired = order.expires_at is not None and view.now >= order.expires_at
        if view.live:
            reason = _reason_to_cancel(view, view.live[-1], expired)
            if reason is not None:
                return Decision(
                    cancel=tuple(Cancel(child.child_id, reason) for child in view.live if not child.cancel_requested)
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
        native = order.trigger is not None and order.trigger.native
        kind = order.order_type if native else order.works_as
        quantity, price = view.free, order.limit_price
        if order.max_slippage_bps is not None and not native:
            dust = _dust(view) if view.totals.filled else None
            if dust is not None:
                return Decision(done=Done(OrderStatus.FILLED, f"the rest of {view.free:f} is dust: {dust}"))
            wait = _beyond_slippage(view)
            if wait is not None:
                return wait
            kind, price = OrderType.LIMIT, worst_price(order)
            if order.works_as is OrderType.MARKET:
                quantity = (
                    min(quantity, depth(view.market.book.opposite(order.side), order.side, price))
                    if view.market.book
                    else quantity
                )
        rounding = OrderType.MARKET if kind in _AT_MARKET else OrderType.LIMIT
        quantity = rules.round_quantity(quantity, rounding)
        price = rules.round_price(price, order.side) if price is not None else None
        refusal = rules.refusal(quantity, rounding, price)
        whole = rules.round_quantity(view.free, rounding)
        if refusal is not None and quantity < whole and rules.refusal(whole, rounding, price) is None:
            # The book shows too little within the bound; the order itself could be traded.
            return Decision(
                waiting=f"too little of {order.symbol} is offered within {order.max_slippage_bps:f} bps",
                wake_when=(When(source="book"),),
                wake_at=order.expires_at,
            )
        if refusal is not None:
            field, reason = refusal
            if view.totals.filled and field == "quantity":
                return Decision(done=Done(OrderStatus.FILLED, f"the rest of {view.free:f} is dust: {reason}"))
            status = OrderStatus.FAILED if view.totals.filled else OrderStatus.REJECTED
            return Decision(done=Done(status, reason, field))
        limit = kind not in _AT_MARKET
        in_force = order.time_in_force if order.time_in_force in (TimeInForce.IOC, TimeInForce.FOK) else TimeInForce.GTC
        if order.works_as is OrderType.MARKET and limit:
            in_force = TimeInForce.IOC
        place = Place(
            quantity=quantity,
            order_type=kind,
            price=price if limit else None,
            time_in_force=in_force if limit else TimeInForce.GTC,
            post_only=order.post_only,
            stop_price=order.trigger.price if native and order.trigger is not None else None,
            trail_bps=order.trigger.trail_bps if native and order.trigger is not None else None,
            reduce_only=order.reduce_only,
        )
        return Decision(place=(place,), wake_at=order.expires_at)


_AT_MARKET = (OrderType.MARKET, OrderType.STOP, OrderType.TAKE_PROFIT, OrderType.TRAILING_STOP)


def _dust(view: View) -> str | None:
    """Why nothing of the rest could be traded even within the whole slippage bound; None: it could."""
    rules, kind = view.rules, OrderType.LIMIT
    refusal = rules.refusal(rules.round_quantity(view.free, kind), kind, worst_price(view.order))
    return refusal[1] if refusal is not None and refusal[0] == "quantity" else None


def _beyond_slippage(view: View) -> Decision | None:
    """What a slippage bound asks for before anything is sent; None: the market is within it."""
    order, market = view.order, view.market
    far = market.far(order.side)
    wake = (When(source="book"),)
    if order.arrival is None or far is None:
        reason = f"no price of {order.symbol} is known to measure slippage by"
        return Decision(waiting=reason, wake_when=wake, wake_at=order.expires_at)
    if order.works_as is OrderType.LIMIT:
        return None  # it rests within the bound
    cost = breach(view, far)
    if cost is None:
        taken = view.children[-1].updated_at if view.children else 0
        if market.book_at <= taken:
            return Decision(wake_when=wake, wake_at=order.expires_at)  # this book has been taken from already
        return None
    reason = f"slippage of {cost:f} bps against the arrival price {order.arrival:f} is above {order.max_slippage_bps:f}"
    if order.slippage_policy == "end":
        status = OrderStatus.CANCELED
        return Decision(done=Done(status, reason), breach_bps=cost)
    return Decision(waiting=reason, breach_bps=cost, wake_when=wake, wake_at=order.expires_at)


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
    measured = order.max_slippage_bps is not None and order.works_as is OrderType.MARKET
    if measured and last.state in (ChildState.EXPIRED, ChildState.FILLED):
        return None  # what the book showed within the bound was taken; the rest is measured again
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
