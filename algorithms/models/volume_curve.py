"""When in the day a market trades: the curve that a VWAP schedule follows, and how far a schedule strays from it.

A curve is the cumulative share of the volume at the ends of equal buckets; the last is 1. Within a bucket volume is taken as
even. Times are ms since the epoch; days are UTC, weeks begin on Monday. Shares are floats: a plan, rounded to the lot when it
becomes an order.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import accumulate, pairwise
from typing import Literal

import msgspec

from schemas.market import ZERO, Candle
from schemas.terms import fits

HOUR = 3_600_000
DAY = 24 * HOUR
WEEK = 7 * DAY
MONDAY = 4 * DAY
"""The epoch was a Thursday."""
WEEKLY_DAYS = 14
"""From so many days of history on, Monday and Sunday have curves of their own."""
HALF_LIFE = 5.0
"""Days after which a day counts half."""

Source = Literal["given", "history", "flat"]


class VolumeCurve(msgspec.Struct, frozen=True):
    """The expected volume over one period, a day or a week or an order's life, repeated without end."""

    cumulative: tuple[float, ...]
    """At the ends of equal buckets; the last is 1."""
    period: int
    """In ms."""
    begin: int
    """When one of the periods begins, in ms since the epoch."""
    source: Source
    days: int
    """How many days of history were seen, also when they were not enough."""

    def over(self, start_ms: int, end_ms: int, buckets: int) -> list[float]:
        """The share of what is expected between two moments that is expected by the end of each of `buckets` equal parts.

        Never falls and ends at exactly 1. Where nothing at all is expected it is the straight line.

        Raises ValueError unless `start_ms` < `end_ms` and `buckets` >= 1.
        """
        if buckets < 1 or end_ms <= start_ms:
            raise ValueError(
                f"{buckets} buckets from {start_ms} to {end_ms}: must be 1 or more, and end after the start"
            )
        total = self.expected(start_ms, end_ms)
        shares: list[float] = []
        for k in range(1, buckets):
            done = (
                self.expected(start_ms, start_ms + (end_ms - start_ms) * k / buckets) / total if total else k / buckets
            )
            # Rounding at the border of two buckets must not let the curve fall.
            shares.append(min(1.0, max(done, shares[-1] if shares else 0.0)))
        return [*shares, 1.0]

    def expected(self, start_ms: float, end_ms: float) -> float:
        """The volume expected between two moments, in whole periods' volumes."""
        # Counted from the period of the start: counted from the epoch, a float has no digits left for a short order.
        whole = (start_ms - self.begin) // self.period
        origin = self.begin + whole * self.period
        return max(0.0, self._until(end_ms - origin) - self._until(start_ms - origin))

    def _until(self, elapsed: float) -> float:
        whole, rest = divmod(elapsed, self.period)
        return whole + _interpolated(self.cumulative, rest / self.period)


def flat(days: int = 0) -> VolumeCurve:
    """The same volume at every time: the curve of a market that nobody has watched."""
    return VolumeCurve((1.0,), DAY, 0, "flat", days)


def given(profile: Sequence[Decimal | float], start_ms: int, end_ms: int) -> VolumeCurve:
    """A profile of relative volumes in equal buckets, stretched over an order's life.

    Raises ValueError for a profile that is empty, all zero, negative or not finite, and unless `start_ms` < `end_ms`.
    """
    if end_ms <= start_ms:
        raise ValueError(f"the order must end after its start: {start_ms} to {end_ms}")
    return VolumeCurve(_cumulative(profile), end_ms - start_ms, start_ms, "given", 0)


def from_profile(profile: Sequence[Decimal | float], buckets: int) -> list[float]:
    """The cumulative shares of a profile of relative volumes, stretched over `buckets` equal parts of an order's life.

    Raises ValueError for a profile that is empty, all zero, negative or not finite, and unless `buckets` >= 1.
    """
    return given(profile, 0, DAY).over(0, DAY, buckets)


def from_candles(
    candles: Iterable[Candle], *, before: int | None = None, bucket: int = HOUR, half_life: float = HALF_LIFE
) -> VolumeCurve:
    """The curve of a market's day, or of its week when at least two weeks were seen; `flat` when history says too little.

    The volume of a bucket is the mean over the past days (weeks), a day that is `half_life` days older counting half. Each day
    is first put into proportion to its own activity, so that one wild day does not become the shape. A candle that is missing
    is unknown, not zero; a bucket that was never seen gets what lies between its neighbours. Only candles that have ended by
    `before` (ms) are used. History is too little when it covers less than a day or half of the buckets, or shows no volume.

    `bucket` in ms; candles longer than it make the buckets as long as themselves. Order and repetition of the candles do not
    matter: of two with the same start the later one counts.

    Raises ValueError unless `bucket` divides a day and `half_life` is above 0.
    """
    if bucket < 1 or DAY % bucket or not half_life > 0:
        raise ValueError(f"bucket {bucket} must divide a day of {DAY} ms, half life {half_life} must be above 0")
    volumes = {c.start: float(c.volume) for c in candles if fits(c.volume) and c.volume >= ZERO}
    starts = sorted(volumes)
    interval = min((after - start for start, after in pairwise(starts)), default=DAY)
    if before is not None:
        starts = [start for start in starts if start + interval <= before]
    days = len({start // DAY for start in starts})
    bucket = max(bucket, interval)
    if not starts or DAY % bucket or starts[-1] + interval - starts[0] < DAY:
        return flat(days)
    period, begin = (WEEK, MONDAY) if days >= WEEKLY_DAYS else (DAY, 0)
    rates = _rates({start: volumes[start] for start in starts}, period, begin, bucket)
    profile = _profile(rates, period // bucket, half_life * DAY / period)
    if len(profile) * 2 < period // bucket or not sum(profile.values()) > 0:
        return flat(days)
    return VolumeCurve(_cumulative(_filled(profile, period // bucket)), period, begin, "history", days)


def curve_over(candles: Iterable[Candle], start_ms: int, end_ms: int, buckets: int) -> list[float]:
    """The cumulative share of the volume that history expects by the end of each of `buckets` equal parts of an order's life.

    `from_candles` and `VolumeCurve.over` in one, without a look past the start; the straight line when history says too little.

    Raises ValueError unless `start_ms` < `end_ms` and `buckets` >= 1.
    """
    return from_candles(candles, before=start_ms).over(start_ms, end_ms, buckets)


def dynamic_target(quantity: Decimal, volume_so_far: Decimal, expected_remaining: Decimal) -> Decimal:
    """How much should be done by now when the volume is watched: Q V_t / (V_t + E[V_rem]).

    The VWAP schedule with the day's total replaced by the best guess of now (compare Busseti and Boyd 2015).

    Volumes in units of the base asset since the order's start and until its end. 0 while no volume is seen or expected; all of
    it when none is expected any more. Not rounded to the lot.

    Raises ValueError for a negative argument.
    """
    if quantity < 0 or volume_so_far < 0 or expected_remaining < 0:
        raise ValueError(f"{quantity}, {volume_so_far} and {expected_remaining} must be 0 or more")
    total = volume_so_far + expected_remaining
    return quantity * volume_so_far / total if total else ZERO


def tracking_error(weights: Sequence[float], volumes: Sequence[float], sigma: float) -> float:
    """The standard deviation of a schedule's slippage against the market's VWAP, in the unit of `sigma`.

    TE² = σ² Σ τ (W_k - V_k)², W and V the cumulative shares of the schedule and of the market at the ends of N equal buckets,
    τ = 1/N, σ the volatility over the whole life, prices a random walk (Konishi 2002). An even schedule in a market with
    volume 1 + a(12(t - ½)² - 1) has aσ√(2/105).

    Raises ValueError when the two are not of one length, or empty.
    """
    if not weights or len(weights) != len(volumes):
        raise ValueError(f"{len(weights)} weights and {len(volumes)} volumes must be as many, and at least one")
    squares = math.fsum((done - traded) ** 2 for done, traded in zip(weights, volumes, strict=True))
    return sigma * math.sqrt(squares / len(weights))


def _interpolated(cumulative: Sequence[float], fraction: float) -> float:
    """The curve at a fraction (0 to 1) of its period, straight between the ends of the buckets."""
    k, part = divmod(fraction * len(cumulative), 1)
    index = int(k)
    if index >= len(cumulative):
        return 1.0
    low = cumulative[index - 1] if index else 0.0
    return low + (cumulative[index] - low) * part


def _cumulative(profile: Sequence[Decimal | float]) -> tuple[float, ...]:
    shares = [float(volume) for volume in profile]
    largest = max(shares, default=0.0)
    if not all(math.isfinite(share) and share >= 0 for share in shares) or largest <= 0:
        raise ValueError("a volume profile needs at least one volume above 0 and none below, all finite")
    # Scaled first: volumes near the largest float would overflow in the sum.
    running = list(accumulate(share / largest for share in shares))
    return tuple(done / running[-1] for done in running)


def _rates(volumes: Mapping[int, float], period: int, begin: int, bucket: int) -> dict[int, dict[int, float]]:
    """Mean volume per candle by period and by bucket in it: a bucket of which only half the candles came counts like the rest."""
    seen: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for start, volume in volumes.items():
        number, elapsed = divmod(start - begin, period)
        seen[number][elapsed // bucket].append(volume)
    return {number: {k: sum(v) / len(v) for k, v in row.items()} for number, row in seen.items()}


def _profile(rates: Mapping[int, Mapping[int, float]], buckets: int, half_life: float) -> dict[int, float]:
    """The weighted mean by bucket over the periods, of the buckets that were seen. `half_life` in periods."""
    newest = max(rates)
    weight = {number: 0.5 ** ((newest - number) / half_life) for number in rates}
    raw = _weighted(rates, weight, buckets)
    level = {}
    for number, row in rates.items():
        usual = sum(raw[k] for k in row)
        level[number] = sum(row.values()) / usual if usual else 0.0
    even = {n: {k: rate / level[n] for k, rate in row.items()} for n, row in rates.items() if level[n] > 0}
    return _weighted(even, weight, buckets) or raw


def _weighted(rates: Mapping[int, Mapping[int, float]], weight: Mapping[int, float], buckets: int) -> dict[int, float]:
    profile = {}
    for k in range(buckets):
        having = [number for number, row in rates.items() if k in row]
        total = sum(weight[number] for number in having)
        if total > 0:
            profile[k] = sum(weight[number] * rates[number][k] for number in having) / total
    return profile


def _filled(profile: Mapping[int, float], buckets: int) -> list[float]:
    """Every bucket's volume; those not seen on the straight line between the nearest that were, around midnight too."""
    seen = sorted(profile)
    filled = []
    for k in range(buckets):
        if k in profile:
            filled.append(profile[k])
            continue
        before = max((j for j in seen if j < k), default=seen[-1] - buckets)
        after = min((j for j in seen if j > k), default=seen[0] + buckets)
        part = (k - before) / (after - before)
        filled.append(profile[before % buckets] * (1 - part) + profile[after % buckets] * part)
    return filled
