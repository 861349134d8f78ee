"""How much an order moves the price against itself, when nobody has measured it for this market.

The law of Almgren, Thum, Hauptmann and Li, "Direct Estimation of Equity Market Impact" (2005), fitted to US shares:

    permanent  I = 0.314 σ (X/V) (Θ/V)^(1/4)
    temporary  J - I/2 = 0.142 σ |X/(VT)|^(3/5)

with X the quantity, V a day's volume, Θ the shares outstanding, T the duration in days and σ the daily volatility. J is the
average cost against the arrival price. A coin has no Θ: the factor is then 1, and the law a first guess until the desk's own
fills are fitted. A day is the market's trading day: 24 hours for a coin.
"""

from __future__ import annotations

import math
from typing import NamedTuple

PERMANENT = 0.314
TEMPORARY = 0.142
OUTSTANDING_POWER = 0.25
RATE_POWER = 0.6


class Impact(NamedTuple):
    """In the unit of the volatility it was estimated from: basis points from basis points."""

    permanent: float
    """By how much the price is moved when all is done, and stays so."""
    temporary: float
    """By how much the average fill is worse for the pace alone."""

    @property
    def cost(self) -> float:
        """The average fill against the arrival price, positive: half of the permanent impact and all of the temporary."""
        return self.permanent / 2 + self.temporary


class LinearImpact(NamedTuple):
    """The coefficients that `almgren_chriss` takes, in price per unit (γ) and price per unit-per-day (η)."""

    temporary_impact: float
    permanent_impact: float


def estimate(sigma_daily: float, participation: float, duration: float, *, outstanding: float | None = None) -> Impact:
    """The impact of trading at `participation` (X/(VT), a fraction of the market's volume) for `duration` days.

    I = 0.314 σ (X/V)(Θ/V)^¼ and J - I/2 = 0.142 σ |X/(VT)|^0.6 (Almgren et al. 2005). `sigma_daily` may be in basis points or
    a fraction, and the result is in the same. `outstanding` is Θ/V, the shares outstanding in days of volume.

    Raises ValueError for a negative or infinite argument, and for a duration or `outstanding` of 0.
    """
    for value in (sigma_daily, participation):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"volatility {sigma_daily} and participation {participation} must be 0 or more")
    for value in (duration, 1.0 if outstanding is None else outstanding):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"duration {duration} and outstanding {outstanding} must be above 0")
    depth = 1.0 if outstanding is None else outstanding**OUTSTANDING_POWER
    return Impact(
        permanent=PERMANENT * sigma_daily * participation * duration * depth,
        temporary=TEMPORARY * sigma_daily * participation**RATE_POWER,
    )


def linear(
    quantity: float,
    duration: float,
    *,
    price: float,
    sigma_daily: float,
    daily_volume: float,
    outstanding: float | None = None,
) -> LinearImpact:
    """The straight lines that cost as much as the law of `estimate` for this quantity at an even pace over `duration` days.

    γ = I P/X and η = (J - I/2) P T/X. `quantity` and `daily_volume` in units of the base asset, `price` in quote per unit,
    `sigma_daily` a fraction (0.02 is 2 % a day).

    Raises ValueError unless quantity, price and daily volume are above 0, and as `estimate` does.
    """
    for value in (quantity, price, daily_volume, duration):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(
                f"quantity {quantity}, price {price}, volume {daily_volume}, days {duration} must be above 0"
            )
    impact = estimate(sigma_daily, quantity / (daily_volume * duration), duration, outstanding=outstanding)
    return LinearImpact(
        temporary_impact=impact.temporary * price * duration / quantity,
        permanent_impact=impact.permanent * price / quantity,
    )
