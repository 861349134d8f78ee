"""The trajectory that trades impact against risk: Almgren and Chriss, "Optimal Execution of Portfolio Transactions" (2000).

A quantity X is worked over a horizon T in N equal steps of τ = T/N. `holdings` are x_0 = X ... x_N = 0, what is still to
trade after each step; n_j = x_{j-1} - x_j is traded in step j. Trading at a rate v moves the price for good by γv and, for
this trade alone, by ε + ηv; between trades the price is a random walk.

Units: any, if they agree. The usual ones are units of the base asset, days and the quote currency: `volatility` σ in quote per
unit and root day, `temporary_impact` η in quote per unit and (unit per day), `permanent_impact` γ in quote per unit and unit,
`fixed_cost` ε (half the spread and the fee) in quote per unit, `risk_aversion` λ in 1/quote. `impact.linear` estimates η, γ.

Floats: a trajectory is a plan in shares of the whole; quantities are rounded to the lot when they become orders.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

NO_CURVATURE = 1e-8
"""Below this κT the curve differs from the straight line by less than a float can hold."""

IMPATIENT = 1e30
"""A risk aversion so many times the least that matters leaves nothing after the first step."""


class FrontierPoint(NamedTuple):
    """One efficient trajectory: no other has a lower standard deviation at this expected cost. Both in quote currency."""

    risk_aversion: float
    expected_cost: float
    deviation: float


class ValueAtRisk(NamedTuple):
    """The least cost that is not exceeded with the stated confidence, and the risk aversion that gets it."""

    cost: float
    risk_aversion: float
    """Infinite: trading everything in the first step is best."""


def kappa(
    horizon: float,
    steps: int,
    *,
    volatility: float,
    risk_aversion: float,
    temporary_impact: float,
    permanent_impact: float = 0.0,
) -> float:
    """How fast the optimal trajectory bends, per unit of time; 0 for a straight line.

    κ = arccosh(κ̃²τ²/2 + 1)/τ with κ̃² = λσ²/η̃ and η̃ = η - γτ/2 (Almgren and Chriss 2000, section 2.2). With a negative
    λ it is the κ of the sine form, arccos(1 - |κ̃²|τ²/2)/τ.

    Raises ValueError for arguments that are not numbers of their kind, when η̃ <= 0 (steps too long for so much permanent
    impact), and when λ is so negative that no trajectory is best.
    """
    _check_times(horizon, steps)
    if math.isnan(risk_aversion) or not (math.isfinite(volatility) and volatility >= 0):
        raise ValueError(f"volatility {volatility} must be 0 or more, risk aversion {risk_aversion} a number")
    if not (math.isfinite(temporary_impact) and math.isfinite(permanent_impact)):
        raise ValueError(f"impact {temporary_impact}, {permanent_impact} must be finite")
    if risk_aversion == 0 or volatility == 0:
        return 0.0
    tau = horizon / steps
    effective = temporary_impact - permanent_impact * tau / 2
    if effective <= 0:
        raise ValueError(
            f"temporary impact {temporary_impact} must exceed permanent impact {permanent_impact} x {tau}/2"
        )
    # arccosh(1 + z²/2) = 2 arsinh(z/2): the same number, without losing the digits of a small z.
    half = math.sqrt(abs(risk_aversion)) * volatility / math.sqrt(effective) * tau / 2
    if risk_aversion > 0:
        return 2 * math.asinh(half) / tau
    if half > 1:
        raise ValueError(f"risk aversion {risk_aversion} is too negative: no trajectory is best")
    return 2 * math.asin(half) / tau


def half_life(kappa: float) -> float:
    """1/κ, the time in which an unhurried trajectory falls by a factor e; infinite for κ = 0.

    In the unit of the horizon. The paper calls it the half-life of the trade (Almgren and Chriss 2000, section 2.3).
    """
    return 1 / kappa if kappa else math.inf


def holdings(
    quantity: float,
    horizon: float,
    steps: int,
    *,
    volatility: float,
    risk_aversion: float,
    temporary_impact: float,
    permanent_impact: float = 0.0,
) -> list[float]:
    """What is still to trade at 0, τ, ... T: x_0 = X down to x_N = 0, never rising.

    x_j = X sinh(κ(T - t_j)) / sinh(κT); the straight line for λ = 0; sin in place of sinh for λ < 0 (Almgren and Chriss
    2000, section 2.2).

    Raises ValueError as `kappa` does, and when λ is so negative that the best start is to trade the wrong way (κT > π/2).
    """
    _check_times(horizon, steps)
    if not (math.isfinite(quantity) and quantity >= 0):
        raise ValueError(f"quantity {quantity} must be 0 or more")
    if steps == 1:
        return [quantity, 0.0]
    bend = kappa(
        horizon,
        steps,
        volatility=volatility,
        risk_aversion=risk_aversion,
        temporary_impact=temporary_impact,
        permanent_impact=permanent_impact,
    )
    return [quantity * share for share in _remaining(steps, math.copysign(bend * horizon, risk_aversion))]


def weights(steps: int, urgency: float) -> list[float]:
    """The share of the quantity done after each of `steps` equal steps: 1 - x_j/X for j = 1 ... N; ends at exactly 1.

    `urgency` is κT, the horizon measured in half-lives, without unit: 0 is a straight line (TWAP), 3 has 3/4 done after half
    the time and more, from 10 on nearly all is done in the first third. Negative (to -π/2): late rather than early.

    Raises ValueError when `steps` < 1, or `urgency` is not a number or below -π/2.
    """
    _check_times(1.0, steps)
    return [1 - share for share in _remaining(steps, urgency)[1:]]


def expected_cost(
    path: Sequence[float],
    horizon: float,
    *,
    temporary_impact: float,
    permanent_impact: float = 0.0,
    fixed_cost: float = 0.0,
) -> float:
    """What any trajectory x_0 ... x_N to 0 is expected to lose against the arrival price, in quote currency.

    E = γX²/2 + ε Σ|n_j| + (η̃/τ) Σ n_j², η̃ = η - γτ/2 (Almgren and Chriss 2000, section 1.5).
    """
    steps = len(path) - 1
    _check_times(horizon, steps)
    tau = horizon / steps
    traded = [before - after for before, after in pairwise(path)]
    return (
        permanent_impact * path[0] ** 2 / 2
        + fixed_cost * math.fsum(abs(n) for n in traded)
        + (temporary_impact - permanent_impact * tau / 2) / tau * math.fsum(n * n for n in traded)
    )


def variance(path: Sequence[float], horizon: float, *, volatility: float) -> float:
    """The variance of the cost of any trajectory, in quote currency squared: V = σ²τ Σ x_j², j = 1 ... N (Almgren
    and Chriss 2000, section 1.4)."""
    _check_times(horizon, len(path) - 1)
    return volatility**2 * horizon / (len(path) - 1) * math.fsum(x * x for x in path[1:])


def frontier(
    quantity: float,
    horizon: float,
    steps: int,
    risk_aversions: Iterable[float],
    *,
    volatility: float,
    temporary_impact: float,
    permanent_impact: float = 0.0,
    fixed_cost: float = 0.0,
) -> list[FrontierPoint]:
    """(λ, E, standard deviation) of the best trajectory for each λ (Almgren and Chriss 2000, section 2.4).

    Raises ValueError as `holdings` does.
    """
    points = []
    for risk_aversion in risk_aversions:
        path = holdings(
            quantity,
            horizon,
            steps,
            volatility=volatility,
            risk_aversion=risk_aversion,
            temporary_impact=temporary_impact,
            permanent_impact=permanent_impact,
        )
        cost = expected_cost(
            path,
            horizon,
            temporary_impact=temporary_impact,
            permanent_impact=permanent_impact,
            fixed_cost=fixed_cost,
        )
        points.append(FrontierPoint(risk_aversion, cost, math.sqrt(variance(path, horizon, volatility=volatility))))
    return points


def least_value_at_risk(
    quantity: float,
    horizon: float,
    steps: int,
    *,
    volatility: float,
    temporary_impact: float,
    permanent_impact: float = 0.0,
    fixed_cost: float = 0.0,
    quantile: float = 1.645,
) -> ValueAtRisk:
    """The smallest E + z·sd of any trajectory, in quote currency (L-VaR, Almgren and Chriss 2000, section 3).

    `quantile` is z, how many standard deviations the confidence asks for: 1.645 for the 95 % of the paper.

    Along the frontier dE = -λ dV, so the minimum is where λ = z/(2 sd). The problem is convex: there is one such λ, or none,
    and then everything goes in the first step.

    Raises ValueError as `holdings` does, and for a negative or infinite `quantile`.
    """
    if not (math.isfinite(quantile) and quantile >= 0):
        raise ValueError(f"quantile {quantile} must be 0 or more")

    def point(risk_aversion: float) -> FrontierPoint:
        return frontier(
            quantity,
            horizon,
            steps,
            (risk_aversion,),
            volatility=volatility,
            temporary_impact=temporary_impact,
            permanent_impact=permanent_impact,
            fixed_cost=fixed_cost,
        )[0]

    line = point(0.0)
    if quantile == 0 or line.deviation == 0:
        return ValueAtRisk(line.expected_cost + quantile * line.deviation, 0.0)
    # sd is largest on the straight line, so no λ below this can solve λ = z/(2 sd).
    low = quantile / (2 * line.deviation)
    high = low
    while point(high).deviation * high < quantile / 2:
        low, high = high, high * 4
        if high > IMPATIENT * quantile / line.deviation:
            at_once = point(math.inf)
            return ValueAtRisk(at_once.expected_cost, math.inf)
    for _ in range(200):
        middle = math.sqrt(low) * math.sqrt(high)
        if not low < middle < high:
            break
        if point(middle).deviation * middle < quantile / 2:
            low = middle
        else:
            high = middle
    best = point(high)
    return ValueAtRisk(best.expected_cost + quantile * best.deviation, high)


def drift_offset(drift: float, *, volatility: float, risk_aversion: float) -> float:
    """The position that a price expected to rise by `drift` (quote per unit and time) makes worth holding: α/(2λσ²), in units.

    The optimal trajectory with a drift bends towards it instead of towards 0 (Almgren and Chriss 2000, section 4.1).

    Raises ValueError unless volatility and risk aversion are above 0.
    """
    if not (volatility > 0 and risk_aversion > 0):
        raise ValueError(f"volatility {volatility} and risk aversion {risk_aversion} must be above 0")
    return drift / (2 * risk_aversion * volatility**2)


def _remaining(steps: int, urgency: float) -> list[float]:
    """x_j/X for j = 0 ... N at κT = |urgency|; exact at both ends. A negative urgency stands for a negative λ."""
    if math.isnan(urgency) or urgency < -math.pi / 2:
        raise ValueError(f"urgency {urgency} must be -π/2 or more: below, the best start is to trade the wrong way")
    shares = [1.0]
    for j in range(1, steps):
        left = (steps - j) / steps
        if abs(urgency) < NO_CURVATURE:
            share = left
        elif urgency < 0:
            share = math.sin(-urgency * left) / math.sin(-urgency)
        else:
            # sinh(a)/sinh(b) as exponentials of negative numbers, which cannot overflow.
            share = math.exp(-urgency * j / steps) * math.expm1(-2 * urgency * left) / math.expm1(-2 * urgency)
        shares.append(share)
    return [*shares, 0.0]


def _check_times(horizon: float, steps: int) -> None:
    if steps < 1 or not (math.isfinite(horizon) and horizon > 0):
        raise ValueError(f"horizon {horizon} must be above 0 and steps {steps} at least 1")
