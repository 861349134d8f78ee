"""TWAP: the same quantity in each slice of time, so that the average price comes near the market's time-weighted average.

How slices are traded, caught up and ended is told in `algorithms.scheduled`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from algorithms.scheduled import Scheduled, ScheduleParameters, SchedulePlan, schedule_plan
from schemas.market import Candle, MarketRules
from schemas.order import ParentOrder


class TwapParameters(ScheduleParameters):
    pass


class Twap(Scheduled[TwapParameters]):
    name: ClassVar[str] = "twap"
    Parameters = TwapParameters

    def plan(
        self, order: ParentOrder, parameters: TwapParameters, rules: MarketRules, history: Sequence[Candle]
    ) -> SchedulePlan:
        return schedule_plan(order, parameters, [1.0] * parameters.count, source="equal slices")
