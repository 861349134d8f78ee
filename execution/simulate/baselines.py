"""What many bots do instead of working an order, to compare with: one market order, or market orders at fixed times.

They exist inside a simulation only: no signal of the service can name them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import msgspec
from pydantic import Field

from algorithms import ALGORITHMS
from algorithms.base import Done, Parameters, View
from algorithms.worked import Want, Work, Worked
from schemas.market import Candle, MarketRules
from schemas.order import OrderStatus, ParentOrder
from schemas.terms import TimeInForce

MARKET = "market"
TWAP_MARKET = "twap-market"


class TwapMarketParameters(Parameters):
    duration_seconds: float = Field(gt=0, description="From the first slice to the end of the last, in seconds.")
    slices: int = Field(default=20, ge=1, le=10_000, description="How many market orders.")


class TwapMarketPlan(msgspec.Struct, frozen=True, kw_only=True):
    duration_ms: int
    slices: int


class TwapMarket(Worked[TwapMarketParameters, TwapMarketPlan]):
    """Equal market orders at equal distances, the first at once. What the book could not fill goes with the next."""

    name: ClassVar[str] = TWAP_MARKET
    Parameters = TwapMarketParameters
    Plan = TwapMarketPlan

    def plan(
        self, order: ParentOrder, parameters: TwapMarketParameters, rules: MarketRules, history: Sequence[Candle]
    ) -> TwapMarketPlan:
        return TwapMarketPlan(duration_ms=int(parameters.duration_seconds * 1000), slices=parameters.slices)

    def work(self, plan: TwapMarketPlan, view: View) -> Work:
        order = view.order
        passed = view.now - order.created_at
        index = min(passed * plan.slices // plan.duration_ms, plan.slices - 1)
        if passed > plan.duration_ms * (plan.slices + 1) // plan.slices:
            return Work(done=Done(OrderStatus.EXPIRED, "the book could not fill it in time"))
        following = order.created_at + -(-(index + 1) * plan.duration_ms // plan.slices)
        tag = f"slice {index + 1}"
        due = order.quantity * (index + 1) / plan.slices - view.claimed_beside(tag)
        wants = (Want(tag=tag, quantity=due, price=None, time_in_force=TimeInForce.IOC),) if due > 0 else ()
        return Work(wants=wants, wake_at=following)


@contextmanager
def known() -> Iterator[None]:
    """While it lasts, the baselines are algorithms of this process."""
    ALGORITHMS[TWAP_MARKET] = TwapMarket()
    try:
        yield
    finally:
        del ALGORITHMS[TWAP_MARKET]
