"""VWAP: slices in proportion to the volume expected in each, so that the average price comes near the market's VWAP.

The shape is a `profile` given by the signal (relative volumes over the order's life), else the venue's own history of the last
two weeks by time of day, else flat, which the order's notes say. Where the expected volume is known, the schedule follows the
volume as it comes: ahead of the plan when more trades than expected, behind it when less. How slices are traded, caught up and
ended is told in `algorithms.scheduled`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from algorithms.base import Lookback, View
from algorithms.models import volume_curve
from algorithms.scheduled import Scheduled, ScheduleParameters, SchedulePlan, schedule_plan
from algorithms.tape import TapeMemory
from schemas.market import ZERO, Candle, MarketRules
from schemas.order import ParentOrder

BUCKET_SECONDS = 1_800
HISTORY_DAYS = 14
_TRUST = 0.5
"""How far a deviation of the volume so far is expected to last: 0 not at all, 1 for the whole rest."""
_STRAY = Decimal("0.15")
"""The volume so far moves the schedule at most by this share of the order."""
_SEEN = 0.05
"""Nothing is concluded from less than this share of the expected volume."""


class VwapParameters(ScheduleParameters):
    profile: Annotated[tuple[Decimal, ...], Field(max_length=10_000)] | None = Field(
        default=None,
        description="Relative volumes over the order's life, in equal parts of it; unset: the venue's history.",
    )
    follow_volume: bool = Field(
        default=True,
        description="Whether the schedule follows the volume as it comes, where the expected one is known.",
    )

    @model_validator(mode="after")
    def _some_volume(self) -> VwapParameters:
        if self.profile is not None and (not self.profile or min(self.profile) < 0 or sum(self.profile) <= 0):
            raise ValueError("profile must hold numbers of 0 or more, not all 0")
        return self


class Vwap(Scheduled[VwapParameters]):
    name: ClassVar[str] = "vwap"
    Parameters = VwapParameters
    lookback = Lookback(back=HISTORY_DAYS * 86_400, interval=BUCKET_SECONDS)

    def plan(
        self, order: ParentOrder, parameters: VwapParameters, rules: MarketRules, history: Sequence[Candle]
    ) -> SchedulePlan:
        count, start = parameters.count, order.created_at
        end = start + int(parameters.duration_seconds * 1000)
        expected = None
        if parameters.profile is not None:
            shares, source = volume_curve.from_profile(parameters.profile, count), "the profile given"
        else:
            curve = volume_curve.from_candles(history, before=start, bucket=BUCKET_SECONDS * 1000)
            shares = curve.over(start, end, count)
            if curve.source == "history":
                source = f"the venue's history by time of day, {curve.days} days of it"
                expected = _expected(curve, history, start, end) if parameters.follow_volume else None
            else:
                source = f"flat: the venue's history ({curve.days} days) does not say how its volume is spread"
        weights = [after - before for before, after in pairwise([0.0, *shares])]
        return schedule_plan(order, parameters, weights, source=source, expected_volume=expected)

    def notes(self, order: ParentOrder) -> tuple[str, ...]:
        return (f"the volume curve is {order.plan.get('source', '')}",)

    def progress(self, plan: SchedulePlan, view: View, index: int, tape: TapeMemory) -> Decimal:
        planned = super().progress(plan, view, index, tape)
        if plan.expected_volume is None or not 0 < planned < 1:
            return planned
        seen = float((tape.others + view.totals.filled) / plan.expected_volume)
        if seen < _SEEN:
            return planned
        pace = seen / float(planned)
        left = (1 - float(planned)) * math.pow(pace, _TRUST)
        done = volume_curve.dynamic_target(Decimal(1), Decimal(seen), Decimal(left)).quantize(Decimal("1e-9"))
        return min(max(done, planned - _STRAY, ZERO), planned + _STRAY, Decimal(1))


def _expected(curve: volume_curve.VolumeCurve, history: Sequence[Candle], start: int, end: int) -> Decimal | None:
    """What everybody is expected to trade between two moments: the latest days' volume times the curve's share."""
    days = max(curve.days, 1)
    last = [candle.volume for candle in history if candle.start >= start - min(days, 5) * volume_curve.DAY]
    per_day = sum(last, ZERO) / min(days, 5)
    periods = curve.expected(start, end) * (curve.period / volume_curve.DAY)
    volume = per_day * Decimal(periods)
    return volume.quantize(Decimal("1e-9")) if volume > 0 else None
