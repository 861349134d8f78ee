"""Implementation shortfall: faster at first than later, to the degree that the price's risk outweighs the cost of haste.

The shape is the trajectory of Almgren and Chriss (2000), "Optimal execution of portfolio transactions": what is left falls as
sinh(kappa (T - t)) / sinh(kappa T). `urgency` gives kappa T directly; `risk_aversion` computes it from volatility and impact,
given or estimated from the venue's history. Everything else is as in `algorithms.scheduled`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from algorithms.base import Lookback, Refusal
from algorithms.models import almgren_chriss, impact
from algorithms.scheduled import Scheduled, ScheduleParameters, SchedulePlan, schedule_plan
from schemas.market import ZERO, Candle, MarketRules
from schemas.order import ParentOrder

DAY = 86_400.0
URGENCIES = {"low": 1.0, "medium": 2.5, "high": 5.0}
"""kappa T: after a fifth of the time 0.24, 0.40 and 0.63 of the order are done."""
CANDLE_SECONDS = 900
HISTORY_DAYS = 5
LEAST_CANDLES = 48


class ShortfallParameters(ScheduleParameters):
    urgency: Literal["low", "medium", "high"] | float = Field(
        default="medium", description="low, medium or high, or kappa x T as a number from 0 (a TWAP) to 50."
    )
    risk_aversion: float | None = Field(
        default=None, ge=0, description="Lambda of Almgren and Chriss, per unit of the quote asset; overrides urgency."
    )
    volatility: float | None = Field(
        default=None,
        gt=0,
        description="Of a day, as a fraction of the price (0.03: 3 %); unset: from the venue's history.",
    )
    daily_volume: Decimal | None = Field(
        default=None,
        gt=0,
        description="Everybody's volume of a day in the base asset; unset: from the venue's history.",
    )
    temporary_impact: float | None = Field(
        default=None,
        gt=0,
        description="Eta: quote per (base per day) and unit; unset: estimated (Almgren et al. 2005).",
    )
    permanent_impact: float | None = Field(
        default=None, ge=0, description="Gamma: quote per base and unit; unset: estimated (Almgren et al. 2005)."
    )

    @model_validator(mode="after")
    def _known_urgency(self) -> ShortfallParameters:
        if isinstance(self.urgency, float) and not 0 <= self.urgency <= 50:
            raise ValueError("urgency must be low, medium, high or a number from 0 to 50")
        return self


class ImplementationShortfall(Scheduled[ShortfallParameters]):
    name: ClassVar[str] = "implementation_shortfall"
    Parameters = ShortfallParameters
    lookback = Lookback(back=HISTORY_DAYS * 86_400, interval=CANDLE_SECONDS)

    def plan(
        self, order: ParentOrder, parameters: ShortfallParameters, rules: MarketRules, history: Sequence[Candle]
    ) -> SchedulePlan:
        count = parameters.count
        if parameters.risk_aversion is None:
            given = parameters.urgency
            urgency = URGENCIES[given] if isinstance(given, str) else given
            source = f"urgency {given}: kappa T = {urgency:g}"
        else:
            urgency, source = _urgency(order, parameters, history)
        shares = almgren_chriss.weights(count, urgency)
        weights = [after - before for before, after in pairwise([0.0, *shares])]
        return schedule_plan(order, parameters, weights, source=source)

    def notes(self, order: ParentOrder) -> tuple[str, ...]:
        return (f"the trajectory follows {order.plan.get('source', '')}",)


def _urgency(order: ParentOrder, parameters: ShortfallParameters, history: Sequence[Candle]) -> tuple[float, str]:
    """kappa T from the risk aversion, and how it was found.

    Raises:
        Refusal: volatility, volume or price are neither given nor known, or no trajectory comes of them.
    """
    assert parameters.risk_aversion is not None
    price = float(order.arrival or order.price or (history[-1].close if history else 0))
    sigma = parameters.volatility or _volatility(history)
    volume = float(parameters.daily_volume or ZERO) or _daily_volume(history)
    if sigma is None:
        raise Refusal(
            "algorithm_params.volatility", "is required with risk_aversion: the venue's history does not tell it"
        )
    if not price:
        raise Refusal(
            "algorithm_params.risk_aversion", f"no price of {order.symbol} is known to measure risk by: give urgency"
        )
    days = parameters.duration_seconds / DAY
    eta, gamma = parameters.temporary_impact, parameters.permanent_impact
    how = "given"
    if eta is None or gamma is None:
        if not volume:
            raise Refusal(
                "algorithm_params.daily_volume", "is required to estimate the impact: the history does not tell it"
            )
        try:
            estimate = impact.linear(float(order.quantity), days, price=price, sigma_daily=sigma, daily_volume=volume)
        except ValueError as error:
            raise Refusal("algorithm_params.daily_volume", f"the impact cannot be estimated: {error}") from None
        eta = estimate.temporary_impact if eta is None else eta
        gamma = estimate.permanent_impact if gamma is None else gamma
        how = "estimated"
    try:
        kappa = almgren_chriss.kappa(
            days,
            parameters.count,
            volatility=sigma * price,
            risk_aversion=parameters.risk_aversion,
            temporary_impact=eta,
            permanent_impact=gamma,
        )
    except ValueError as error:
        raise Refusal(
            "algorithm_params", f"no trajectory exists: {error}; use more slices or give the impact"
        ) from None
    urgency = min(kappa * days, 50.0)
    return (
        urgency,
        f"risk aversion {parameters.risk_aversion:g}, volatility {sigma:.4f} a day, impact {how}: kappa T = {urgency:.3g}",
    )


def _volatility(history: Sequence[Candle]) -> float | None:
    """Standard deviation of the price over a day, as a fraction, from the candles' closes."""
    closes = [float(candle.close) for candle in history if candle.close > 0]
    if len(closes) < LEAST_CANDLES:
        return None
    returns = [math.log(after / before) for before, after in pairwise(closes)]
    mean = sum(returns) / len(returns)
    variance = sum((value - mean) ** 2 for value in returns) / (len(returns) - 1)
    return math.sqrt(variance * DAY / CANDLE_SECONDS) or None


def _daily_volume(history: Sequence[Candle]) -> float:
    if not history:
        return 0.0
    days = max((history[-1].start - history[0].start) / 1000 / DAY, CANDLE_SECONDS / DAY)
    return float(sum((candle.volume for candle in history), ZERO)) / days
