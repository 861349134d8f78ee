"""Costs of many orders, by what they have in common. One order's cost is mostly noise: groups come with an interval."""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from statistics import fmean, median

import msgspec

from schemas.tca import CostReport

FEW = 20
"""With fewer orders than this a group is shown, but not ranked."""
CONFIDENCE = 0.95
_RESAMPLES = 2_000
_LEAST_RESAMPLES = 200
_MOST_DRAWS = 400_000
_DOLLARS = frozenset({"USD", "USDT", "USDC", "FDUSD", "TUSD", "DAI", "BUSD"})

DIMENSIONS: dict[str, Callable[[CostReport], str]] = {
    "strategy": lambda report: report.strategy,
    "algorithm": lambda report: report.algorithm,
    "venue": lambda report: report.venue,
    "symbol": lambda report: report.symbol,
    "everything": lambda _: "all",
}
"""What reports can be grouped by; `everything` is one group of all."""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Orders with something in common. bps are floats: statistics, never an order.

    `weighted_bps` is the sum of costs over the sum of ordered notional, with the bootstrap interval `low` to `high` (None
    for a single order). When the notionals are not in one currency they cannot be added: then each order counts the same.
    """

    key: str
    n: int
    measured: int
    """How many of the n have the cost at all."""
    weighted_bps: float | None
    median_bps: float | None
    low: float | None
    high: float | None
    equal_weights: bool
    completion: float
    """Mean of the fill ratios."""
    maker_share: float | None
    """Mean over the orders that know theirs."""
    notional: Decimal | None
    """Ordered notional; None when it is not in one currency."""
    quote: str

    @property
    def few(self) -> bool:
        """Whether there are too few orders to say which group is better."""
        return self.measured < FEW


def aggregate(
    reports: Iterable[CostReport],
    by: str,
    *,
    metric: str = "since_arrival_bps",
    seed: int = 1,
    intervals: bool = True,
) -> list[Group]:
    """Groups of reports by one of `DIMENSIONS`, by the name of a cost in the report.

    Groups of `FEW` orders and more come first, the dearest first; the others follow by name. The same reports give the same
    intervals; without `intervals`, the work for them is saved.

    Raises:
        KeyError: there is no such dimension.
    """
    name_of = DIMENSIONS[by]
    found: dict[str, list[CostReport]] = {}
    for report in reports:
        found.setdefault(name_of(report), []).append(report)
    groups = [_group(key, members, metric, f"{seed}:{key}" if intervals else None) for key, members in found.items()]
    return sorted(groups, key=lambda group: (group.few, 0.0 if group.few else -(group.weighted_bps or 0.0), group.key))


def _group(key: str, reports: Sequence[CostReport], metric: str, seed: str | None) -> Group:
    quotes = {"USD" if report.quote in _DOLLARS else report.quote for report in reports}
    one_currency = len(quotes) == 1
    costs: list[float] = []
    weights: list[float] = []
    for report in sorted(reports, key=lambda report: report.order_id):
        cost = getattr(report, metric)
        if cost is not None:
            costs.append(float(cost))
            weights.append(float(report.notional or 0) if one_currency else 1.0)
    if not sum(weights):
        weights = [1.0] * len(costs)
    low, high = (None, None) if seed is None else interval(costs, weights, seed=seed)
    shares = [float(report.maker_share) for report in reports if report.maker_share is not None]
    return Group(
        key=key,
        n=len(reports),
        measured=len(costs),
        weighted_bps=_weighted(costs, weights) if costs else None,
        median_bps=median(costs) if costs else None,
        low=low,
        high=high,
        equal_weights=not one_currency,
        completion=fmean(float(report.fill_ratio) for report in reports),
        maker_share=fmean(shares) if shares else None,
        notional=sum((report.notional or Decimal(0) for report in reports), Decimal(0)) if one_currency else None,
        quote=next(iter(quotes)) if one_currency else "",
    )


def _weighted(values: Sequence[float], weights: Sequence[float]) -> float:
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)


def interval(
    values: Sequence[float], weights: Sequence[float], *, seed: int | str = 1
) -> tuple[float | None, float | None]:
    """The 95 % percentile bootstrap interval of the weighted mean (Efron 1979): orders are drawn anew with replacement.

    Large samples are drawn fewer times, so that the work stays bounded. (None, None) below two values.
    """
    count = len(values)
    if count < 2:
        return None, None
    generator = random.Random(seed)
    pairs = [(value * weight, weight) for value, weight in zip(values, weights, strict=True)]
    means = []
    for _ in range(max(_LEAST_RESAMPLES, min(_RESAMPLES, _MOST_DRAWS // count))):
        drawn = generator.choices(pairs, k=count)
        weight = sum(pair[1] for pair in drawn)
        if weight:
            means.append(sum(pair[0] for pair in drawn) / weight)
    means.sort()
    tail = (1 - CONFIDENCE) / 2
    return means[int(tail * (len(means) - 1))], means[round((1 - tail) * (len(means) - 1))]


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie, interpolated; `values` must not be empty."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    lower = int(position)
    upper = min(lower + 1, len(ordered) - 1)
    return ordered[lower] + (ordered[upper] - ordered[lower]) * (position - lower)


def histogram(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    """How many values lie in each bin; what lies outside counts in the first or last."""
    counts = [0] * (len(edges) - 1)
    for value in values:
        counts[min(max(bisect(edges, value) - 1, 0), len(counts) - 1)] += 1
    return counts
