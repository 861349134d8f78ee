"""The mid at a time, and what can be said of fills with it: spread paid, spread captured, mark-outs."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from decimal import Decimal
from operator import itemgetter

from schemas.order import Fill
from schemas.terms import Side

ZERO = Decimal(0)
STALE_MS = 5_000
"""A mid older than this is not the mid any more."""
MARKOUT_COVERAGE = Decimal("0.5")
"""The least part of the filled notional that a mark-out must rest on."""


class Observed:
    """Values seen at times: each holds until the next one, but no longer than `STALE_MS`."""

    def __init__(self, samples: Sequence[tuple[int, Decimal]]) -> None:
        kept = sorted([sample for sample in samples if sample[1] > 0], key=itemgetter(0))
        self._times = [at for at, _ in kept]
        self._values = [value for _, value in kept]

    def at(self, moment: int) -> Decimal | None:
        """The last value seen up to a moment; None when there is none that is fresh enough."""
        index = bisect_right(self._times, moment) - 1
        return self._values[index] if index >= 0 and self._times[index] >= moment - STALE_MS else None

    def after(self, moment: int, horizon_ms: int) -> Decimal | None:
        """The last value seen since a moment when the horizon is over, if fresh; else the first within half the horizon more."""
        times, due = self._times, moment + horizon_ms
        index = bisect_right(times, due)
        if index and times[index - 1] > moment and times[index - 1] >= due - STALE_MS:
            return self._values[index - 1]
        return self._values[index] if index < len(times) and times[index] <= due + horizon_ms // 2 else None


def mids_at(fills: Sequence[Fill], mids: Observed) -> list[Decimal] | None:
    """The mid at each fill, never one that was seen after it; None unless every fill has one."""
    found = [mids.at(fill.timestamp) for fill in fills]
    known = [mid for mid in found if mid is not None]
    return known if len(known) == len(fills) else None


def spread_capture(side: Side, fills: Sequence[Fill], mids: Observed, half_spreads: Observed) -> Decimal | None:
    """s (mid - p) / half-spread, weighted by notional over the fills where both are known; None where none is."""
    weighted = weights = ZERO
    sign = side.sign
    for fill in fills:
        mid, half = mids.at(fill.timestamp), half_spreads.at(fill.timestamp)
        if mid is not None and half is not None:
            notional = fill.price * fill.quantity
            weighted += notional * sign * (mid - fill.price) / half
            weights += notional
    return weighted / weights if weights else None


def markout(side: Side, fills: Sequence[Fill], mids: Observed, horizon_ms: int) -> tuple[Decimal | None, bool]:
    """s (p - mid a while after the fill) / p, weighted by notional, as a fraction; and whether every fill had such a mid.

    The mid is the last one seen by then and since the fill, else the first one within half the horizon after it: a mid from
    before the fill would say nothing of what came after. None when most of the notional has no such mid.
    """
    weighted = missing = whole = ZERO
    complete = True
    for fill in fills:
        price, quantity = fill.price, fill.quantity
        whole += price * quantity
        mid = mids.after(fill.timestamp, horizon_ms)
        if mid is None:
            complete = False
            missing += price * quantity
        else:
            weighted += (price - mid) * quantity
    weights = whole - missing
    if not weights or weights < whole * MARKOUT_COVERAGE:
        return None, complete
    return side.sign * weighted / weights, complete
