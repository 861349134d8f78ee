"""Sniper: nothing rests; what others show at a good enough price is taken at once.

It watches the opposite side of the book. When at least `min_quantity` is visible within the trigger price (and the order's
limit), one immediate-or-cancel order takes what is visible, at most `max_quantity_per_take` and at most the rest. Its price is
the trigger price, or up to `take_through_bps` beyond it within the limit, so that a book that moves meanwhile is still met.
Between two takes `lockout_ms` pass, so that the book it took from is not believed again.

While the market is not known, or beyond the trigger, it waits for the opposite touch to come within it. When `duration_seconds`
or the signal's `expires_at` end its time, the order is expired with what it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import ClassVar

import msgspec
from pydantic import Field

from algorithms.base import Parameters, Refusal, View, When
from algorithms.bounds import BPS, depth, worst_price
from algorithms.pegging import least_quantity
from algorithms.worked import Want, Work, Worked
from algorithms.working_time import over, window
from schemas.market import Candle, MarketRules
from schemas.order import ParentOrder
from schemas.terms import OrderType, Side, TimeInForce

TAG = "take"


class SniperParameters(Parameters):
    """When it acts, how much it takes at once, and how often."""

    trigger_price: Decimal | None = Field(
        default=None, gt=0, description="Act on what is offered at this price or better; unset: at the limit price."
    )
    min_quantity: Decimal | None = Field(
        default=None, gt=0, description="Least visible quantity within the price to act; unset: the venue's minimum."
    )
    max_quantity_per_take: Decimal | None = Field(
        default=None, gt=0, description="Most taken at once, in units of the base asset; unset: all that is visible."
    )
    lockout_ms: int = Field(default=1000, ge=0, le=3_600_000, description="Between two takes, in ms.")
    take_through_bps: Decimal = Field(
        default=Decimal(0),
        ge=0,
        le=1000,
        description="How far beyond the trigger a take may trade, in bps; never the limit.",
    )
    duration_seconds: Decimal | None = Field(
        default=None,
        gt=0,
        le=30 * 86_400,
        description="How long it works, in seconds; unset: until cancelled or expired.",
    )


class SniperPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters, as they hold for the order's life."""

    trigger_price: Decimal | None = None
    min_quantity: Decimal | None = None
    max_quantity_per_take: Decimal | None = None
    lockout_ms: int = 1000
    take_through_bps: Decimal = Decimal(0)
    duration_ms: int | None = None


class Sniper(Worked[SniperParameters, SniperPlan]):
    name: ClassVar[str] = "sniper"
    Parameters = SniperParameters
    Plan = SniperPlan

    def plan(
        self, order: ParentOrder, parameters: SniperParameters, rules: MarketRules, history: Sequence[Candle]
    ) -> SniperPlan:
        if order.post_only:
            raise Refusal("post_only", "a sniper only takes")
        if order.time_in_force is TimeInForce.FOK:
            raise Refusal("time_in_force", "a sniper takes what is there, in parts: FOK does not fit")
        trigger = parameters.trigger_price
        if trigger is None and order.limit_price is None:
            raise Refusal("algorithm_params.trigger_price", f"is required for a {order.order_type} order")
        most = parameters.max_quantity_per_take
        if most is not None:
            price = worst_price(order, trigger)
            refusal = rules.refusal(
                rules.round_quantity(most, OrderType.LIMIT),
                OrderType.LIMIT,
                rules.round_price(price, order.side) if price is not None else None,
            )
            if refusal is not None and "above the maximum" not in refusal[1]:
                raise Refusal("algorithm_params.max_quantity_per_take", refusal[1])
        return SniperPlan(
            trigger_price=trigger,
            min_quantity=parameters.min_quantity,
            max_quantity_per_take=most,
            lockout_ms=parameters.lockout_ms,
            take_through_bps=parameters.take_through_bps,
            duration_ms=int(parameters.duration_seconds * 1000) if parameters.duration_seconds is not None else None,
        )

    def work(self, plan: SniperPlan, view: View) -> Work:
        order, market, rules, side = view.order, view.market, view.rules, view.order.side
        _, end = window(order, plan.duration_ms)
        if end is not None and view.now >= end:
            return Work(done=over(view))
        if view.live:
            return Work(wake_at=end)  # it ends by itself at once
        last = view.children[-1] if view.children else None
        if last is not None and view.now < last.created_at + plan.lockout_ms:
            locked = last.created_at + plan.lockout_ms
            return Work(wake_at=min(locked, end) if end is not None else locked)
        trigger = worst_price(order, plan.trigger_price)
        assert trigger is not None, "plan asks for a trigger or a limit"
        reached = (
            When(source="ask", at_or_below=trigger) if side is Side.BUY else When(source="bid", at_or_above=trigger)
        )
        waiting = f"nobody offers enough of {order.symbol} at {trigger:f} or better"
        if market.book is None:
            return Work(wake_at=end, wake_when=(reached,), waiting=waiting)
        shown = depth(market.book.opposite(side), side, trigger)
        reach = trigger
        if plan.take_through_bps:
            own = plan.trigger_price if plan.trigger_price is not None else trigger
            beyond = worst_price(order, own * (1 + side.sign * plan.take_through_bps / BPS))
            assert beyond is not None
            reach = beyond
        least = least_quantity(rules, rules.round_price(reach, side))
        rest = order.quantity - view.claimed_beside(TAG)
        enough = max(least, min(plan.min_quantity, rest)) if plan.min_quantity is not None else least
        if shown < enough:
            return Work(wake_at=end, wake_when=(reached,), waiting=waiting)
        quantity = min(rest, shown)
        if plan.max_quantity_per_take is not None and quantity > plan.max_quantity_per_take:
            # A rest too small to be traded alone is taken along.
            along = quantity == rest and quantity - plan.max_quantity_per_take < least
            quantity = quantity if along else plan.max_quantity_per_take
        want = Want(tag=TAG, quantity=quantity, price=reach, time_in_force=TimeInForce.IOC)
        return Work(wants=(want,), wake_at=end, wake_when=(reached,))
