"""Iceberg: a large order of which the book shows one small part at a time.

One order of about `display_quantity` (varied by `variance`, so that the parts do not look alike) rests at the venue; the next
is shown only when the last has certainly ended. What would be left too small for the venue is shown with the last part.

With `price_mode: fixed` each part rests at the order's limit price; where that crosses the market it takes what is there
within the limit, unless `post_only` holds it a tick behind the opposite touch. With `pegged` it follows the touch of its own
side, `peg_offset_bps` less aggressive, as `algorithms.peg` does: it moves by at least `requote_bps` and not within
`min_interval_ms`. Each move shows a part of a new size.

`native: true` leaves the hiding to the venue: one order for the whole rest at the limit price, of which the venue shows
`display_quantity`. It keeps its hidden part working while this service is down.

Beyond the limit the order rests at the limit. While the market is not known, a fixed price rests all the same; a pegged or
post-only part is left where it is, and no other is shown. The signal's `expires_at` ends the order's time: what is shown is cancelled.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from decimal import Decimal
from typing import ClassVar, Literal

import msgspec
from pydantic import Field

from algorithms.base import Parameters, Refusal, View
from algorithms.pegging import FIXED, TOUCH, Pegging, least_quantity
from algorithms.worked import Want, Work, Worked
from schemas.market import ZERO, Candle, MarketRules
from schemas.order import ChildOrder, ParentOrder
from schemas.terms import OrderType, TimeInForce

TAG = "shown"
_STEPS = 1000
"""Sizes vary in so many steps to either side."""


class IcebergParameters(Parameters):
    """How much is shown, and at which price."""

    display_quantity: Decimal = Field(gt=0, description="What the book shows at a time, in units of the base asset.")
    variance: Decimal = Field(
        default=ZERO, ge=0, le=Decimal("0.9"), description="Each part is display_quantity x (1 +- variance), at random."
    )
    price_mode: Literal["fixed", "pegged"] = Field(
        default="fixed", description="Rest at the limit price, or follow the own side's touch within it."
    )
    peg_offset_bps: Decimal = Field(
        default=ZERO,
        ge=-1000,
        le=1000,
        description="Pegged: distance from the touch in bps; positive: less aggressive.",
    )
    min_interval_ms: int = Field(default=500, ge=50, le=3_600_000, description="Pegged: between two moves, in ms.")
    requote_bps: Decimal = Field(
        default=Decimal("0.5"),
        ge=0,
        le=1000,
        description="Pegged: least move worth losing the queue for, in bps; a tick at least.",
    )
    native: bool = Field(default=False, description="Let the venue hide the rest itself, with one order.")
    post_only: bool | None = Field(default=None, description="Never take. Unset: true when pegged, false when fixed.")


class IcebergPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters, as they hold for the order's life."""

    pegging: Pegging
    display_quantity: Decimal
    variance: Decimal = ZERO
    native: bool = False


class Iceberg(Worked[IcebergParameters, IcebergPlan]):
    name: ClassVar[str] = "iceberg"
    Parameters = IcebergParameters
    Plan = IcebergPlan

    def plan(
        self, order: ParentOrder, parameters: IcebergParameters, rules: MarketRules, history: Sequence[Candle]
    ) -> IcebergPlan:
        if order.time_in_force in (TimeInForce.IOC, TimeInForce.FOK):
            raise Refusal("time_in_force", f"{order.time_in_force} does not rest: an iceberg does")
        pegged = parameters.price_mode == "pegged"
        if parameters.native and not rules.native_iceberg:
            raise Refusal("algorithm_params.native", "the venue has no icebergs of its own: false hides the rest here")
        if parameters.native and pegged:
            raise Refusal("algorithm_params.price_mode", "an iceberg of the venue rests at a fixed price")
        if order.limit_price is None and not pegged:
            raise Refusal("algorithm_params.price_mode", f"must be pegged for a {order.order_type} order")
        price = order.limit_price if order.limit_price is not None else order.arrival
        display = rules.round_quantity(parameters.display_quantity, OrderType.LIMIT)
        refusal = rules.refusal(
            display, OrderType.LIMIT, rules.round_price(price, order.side) if price is not None else None
        )
        if refusal is not None and refusal[0] == "quantity":
            raise Refusal("algorithm_params.display_quantity", refusal[1])
        return IcebergPlan(
            pegging=Pegging(
                reference=TOUCH if pegged else FIXED,
                offset_bps=parameters.peg_offset_bps if pegged else ZERO,
                requote_bps=parameters.requote_bps,
                min_interval_ms=parameters.min_interval_ms,
                post_only=parameters.post_only if parameters.post_only is not None else pegged,
            ),
            display_quantity=display,
            variance=parameters.variance,
            native=parameters.native,
        )

    def notes(self, order: ParentOrder) -> tuple[str, ...]:
        native = order.algorithm_params.get("native")
        return ("the venue hides the rest and shows the next part itself",) if native else ()

    def work(self, plan: IcebergPlan, view: View) -> Work:
        resting = plan.pegging.follow(view, TAG)
        wants: tuple[Want, ...] = ()
        if resting.price is not None and not (plan.native and _shows_otherwise(plan, view)):
            rest = view.order.quantity - view.claimed_beside(TAG)
            live = next((child for child in view.live if child.tag == TAG), None)
            quantity = rest if plan.native else self._shown(plan, view, rest, resting.price, live)
            want = self.rest(view, quantity, resting.price, tag=TAG, post_only=plan.pegging.post_only)
            if plan.native:
                want = msgspec.structs.replace(want, display_quantity=plan.display_quantity)
            wants = (want,)
        return Work(wants=wants, wake_at=resting.wake_at, wake_when=resting.wake_when, waiting=resting.waiting)

    def _shown(self, plan: IcebergPlan, view: View, rest: Decimal, price: Decimal, live: ChildOrder | None) -> Decimal:
        """What the part shown now may fill: of the one that is there, all of it; of the next, its own size."""
        least = least_quantity(view.rules, price)
        if live is not None:
            amended = live.amendment < view.order.amendments
            most = plan.display_quantity * (1 + plan.variance) + least
            return min(rest, most if amended else live.leaves)
        size = shown_size(view.order.order_id, len(view.children), plan.display_quantity, plan.variance)
        size = view.rules.round_quantity(max(size, least), OrderType.LIMIT)
        left = view.rules.round_quantity(rest - size, OrderType.LIMIT)
        return rest if left < least else size


def _shows_otherwise(plan: IcebergPlan, view: View) -> bool:
    """Whether the venue's own iceberg shows another quantity than is asked for since an amendment."""
    return any(
        child.display_quantity != (plan.display_quantity if plan.display_quantity < child.quantity else None)
        for child in view.live
        if child.amendment < view.order.amendments
    )


def shown_size(order_id: str, number: int, display: Decimal, variance: Decimal) -> Decimal:
    """The size of the part shown after `number` orders: the same whenever it is asked, also after a restart."""
    if not variance:
        return display
    step = random.Random(f"{order_id}:iceberg:{number}").randint(-_STEPS, _STEPS)
    return display * (1 + variance * step / _STEPS)
