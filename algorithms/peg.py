"""Peg: the whole order rests at a price that follows the market, and chases it within bounds.

It rests at `reference` (the touch of its own side, the mid, or the opposite touch), `offset_bps` or `offset_ticks` further from
the market. It moves when the price it should have differs by `requote_bps` (and a tick), and not within `min_interval_ms` of
its last placement; the order's limit and slippage bound hold always and at once. With `post_only` it stays a tick behind the
opposite touch. The touch is taken without its own orders, so that it never chases itself.

Beyond the limit it rests at the limit and waits. `max_distance_bps` bounds the chase against the arrival price: at that
distance it rests and waits for the market to come back (`at_max: wait`), or is cancelled (`at_max: end`). While the market is not
known, what rests is left where it is and nothing new is placed. Orders in a row that the venue did not keep, since they would
have taken, are sent again with growing pauses; every `max_rejects` of them move it one tick further away.

When `duration_seconds` or the signal's `expires_at` end its time, the rest is cancelled and the order is expired (`at_end:
leave`), or the rest is taken from the book within the limit and the slippage bound (`at_end: cross`): from 2 seconds, or 5 % of
the duration if that is more, before the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import ClassVar, Literal

import msgspec
from pydantic import Field, model_validator

from algorithms.base import Done, Parameters, Refusal, View, When
from algorithms.bounds import BPS, slippage_bps
from algorithms.pegging import Pegging
from algorithms.worked import Want, Work, Worked
from algorithms.working_time import over, window
from schemas.market import Candle, MarketRules
from schemas.order import OrderStatus, ParentOrder
from schemas.terms import TimeInForce

CROSS_MS = 2_000
CROSS_PART = 20
"""Crossing begins this part of the duration (a twentieth) before the end, but at least CROSS_MS before it."""
TAG = "peg"
CROSS_TAG = "cross"


class PegParameters(Parameters):
    """What the price follows, how closely, how far and how long."""

    reference: Literal["touch", "mid", "opposite"] = Field(
        default="touch",
        description="The price that is followed: the own side's best price, the mid, or the other side's.",
    )
    offset_bps: Decimal = Field(
        default=Decimal(0),
        ge=-1000,
        le=1000,
        description="Distance from the reference in bps; positive: from the market.",
    )
    offset_ticks: int = Field(
        default=0, ge=-1000, le=1000, description="Distance from the reference in ticks; positive: from the market."
    )
    requote_bps: Decimal = Field(
        default=Decimal("0.5"),
        ge=0,
        le=1000,
        description="Least move worth losing the queue for, in bps; a tick at least.",
    )
    min_interval_ms: int = Field(default=500, ge=50, le=3_600_000, description="Between two moves, in ms.")
    max_distance_bps: Decimal | None = Field(
        default=None, gt=0, le=5000, description="Chase at most this far from the arrival price, in bps."
    )
    at_max: Literal["wait", "end"] = Field(
        default="wait", description="At that distance: rest there until the market comes back, or end the order."
    )
    post_only: bool = Field(default=True, description="Never take: stay a tick behind the opposite touch.")
    max_rejects: int = Field(
        default=5,
        ge=1,
        le=50,
        description="Orders in a row the venue did not keep, before it rests a tick further away.",
    )
    duration_seconds: Decimal | None = Field(
        default=None,
        gt=0,
        le=30 * 86_400,
        description="How long it works, in seconds; unset: until cancelled or expired.",
    )
    at_end: Literal["leave", "cross"] = Field(
        default="leave",
        description="When its time ends: leave the rest untraded, or take it within limit and slippage.",
    )

    @model_validator(mode="after")
    def _one_offset(self) -> PegParameters:
        if self.offset_bps and self.offset_ticks:
            raise ValueError("offset_bps and offset_ticks cannot both be set")
        return self


class PegPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters, as they hold for the order's life."""

    pegging: Pegging
    max_distance_bps: Decimal | None = None
    end_at_max: bool = False
    duration_ms: int | None = None
    cross: bool = False


class Peg(Worked[PegParameters, PegPlan]):
    name: ClassVar[str] = "peg"
    Parameters = PegParameters
    Plan = PegPlan

    def plan(
        self, order: ParentOrder, parameters: PegParameters, rules: MarketRules, history: Sequence[Candle]
    ) -> PegPlan:
        if order.time_in_force in (TimeInForce.IOC, TimeInForce.FOK):
            raise Refusal("time_in_force", f"{order.time_in_force} does not rest: a peg does")
        cross = parameters.at_end == "cross"
        if cross and order.post_only:
            raise Refusal("algorithm_params.at_end", "cross takes, which a post-only order may not")
        if cross and parameters.duration_seconds is None and order.expires_at is None:
            raise Refusal("algorithm_params.at_end", "cross needs duration_seconds, or the signal's expires_at")
        return PegPlan(
            pegging=Pegging(
                reference=parameters.reference,
                offset_bps=parameters.offset_bps,
                offset_ticks=parameters.offset_ticks,
                requote_bps=parameters.requote_bps,
                min_interval_ms=parameters.min_interval_ms,
                post_only=parameters.post_only,
                max_rejects=parameters.max_rejects,
            ),
            max_distance_bps=parameters.max_distance_bps,
            end_at_max=parameters.at_max == "end",
            duration_ms=int(parameters.duration_seconds * 1000) if parameters.duration_seconds is not None else None,
            cross=cross,
        )

    def work(self, plan: PegPlan, view: View) -> Work:
        order = view.order
        start, end = window(order, plan.duration_ms)
        if end is not None and view.now >= end:
            return Work(done=over(view))
        turn = end  # what time alone changes next
        if plan.cross and end is not None:
            turn = end - max(CROSS_MS, (end - start) // CROSS_PART)
            if view.now >= turn:
                rest = order.quantity - view.claimed_beside(CROSS_TAG)
                return Work(wants=(self.take(view, rest, tag=CROSS_TAG),), wake_at=end)
        pegging = plan.pegging
        wake_when: tuple[When, ...] = ()
        if plan.max_distance_bps is not None:
            if order.arrival is None:
                waiting = f"no price of {order.symbol} is known to measure the chase by"
                return Work(waiting=waiting, wake_at=turn, wake_when=(When(source="book"),))
            furthest = order.arrival * (1 + order.side.sign * plan.max_distance_bps / BPS)
            pegging = msgspec.structs.replace(pegging, furthest=furthest)
            chased = pegging.unbounded(view) if plan.end_at_max else None
            if chased is not None and order.side.sign * (chased - furthest) >= 0:
                distance = slippage_bps(order.side, chased, order.arrival)
                return Work(done=Done(OrderStatus.CANCELED, _too_far(distance, plan.max_distance_bps)))
            if plan.end_at_max:
                wake_when = pegging.reaching(view, furthest)
        resting = pegging.follow(view, TAG)
        wants: tuple[Want, ...] = ()
        if resting.price is not None:
            rest = order.quantity - view.claimed_beside(TAG)
            wants = (self.rest(view, rest, resting.price, tag=TAG, post_only=pegging.post_only),)
        return Work(
            wants=wants,
            wake_at=min((at for at in (resting.wake_at, turn) if at is not None), default=None),
            wake_when=resting.wake_when + wake_when,
            waiting=resting.waiting,
        )


def _too_far(distance: Decimal, most: Decimal) -> str:
    return f"it would rest {distance:f} bps from the arrival price, which reaches max_distance_bps {most:f}"
