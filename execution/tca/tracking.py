"""How closely fills followed a schedule, and series cut down to what a chart can show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal, localcontext
from itertools import pairwise

from schemas.order import Fill
from schemas.tca import FillPoint, PathPoint

ZERO = Decimal(0)


def schedule_rmse(schedule: Sequence[tuple[int, Decimal]], fills: Sequence[Fill], quantity: Decimal) -> Decimal | None:
    """Root mean square over time of (filled - scheduled), as a fraction of `quantity`; None without a schedule of any length.

    The schedule runs straight from point to point (two points at one time make a step), the filled quantity jumps at each
    fill. Between two such times the difference is linear, from a to b over d ms, and its square adds d (a² + ab + b²) / 3:
    exact, not sampled. An order cut into N equal slices therefore shows about 1 / (N √3) even when it is on time.
    """
    points = sorted(schedule, key=lambda point: point[0])
    if len(points) < 2 or points[-1][0] <= points[0][0] or quantity <= 0:
        return None
    ordered = sorted(fills, key=lambda fill: fill.timestamp)
    filled, done, total = ZERO, 0, ZERO
    # As many digits as a quadruple has: a statistic needs no more, and the 120 of prices cost their time.
    with localcontext(prec=34):
        for (t0, s0), (t1, s1) in pairwise(points):
            now, slope = t0, (s1 - s0) / max(t1 - t0, 1)
            while now < t1:
                while done < len(ordered) and ordered[done].timestamp <= now:
                    filled += ordered[done].quantity
                    done += 1
                until = min(t1, ordered[done].timestamp) if done < len(ordered) else t1
                a, b = filled - s0 - slope * (now - t0), filled - s0 - slope * (until - t0)
                total += (until - now) * (a * a + a * b + b * b)
                now = until
        return (total / (3 * (points[-1][0] - points[0][0]))).sqrt() / quantity


def thin(points: Sequence[tuple[int, Decimal]], most: int) -> tuple[PathPoint, ...]:
    """At most `most` (at least 4) points that keep the first, the last, and of each stretch between the lowest and highest."""
    if len(points) <= most:
        return tuple(PathPoint(at, value) for at, value in points)
    inner = points[1:-1]
    size = math.ceil(len(inner) / ((most - 2) // 2))
    kept = [points[0]]
    for start in range(0, len(inner), size):
        stretch = inner[start : start + size]
        low = min(range(len(stretch)), key=lambda index: stretch[index][1])
        high = max(range(len(stretch)), key=lambda index: stretch[index][1])
        kept += [stretch[index] for index in sorted({low, high})]
    kept.append(points[-1])
    return tuple(PathPoint(at, value) for at, value in kept)


def merge_fills(fills: Sequence[Fill], most: int) -> tuple[FillPoint, ...]:
    """At most `most` fills for a chart: neighbours in time become one, at their average price and last time."""
    size = max(1, math.ceil(len(fills) / most))
    merged = []
    for start in range(0, len(fills), size):
        group = fills[start : start + size]
        quantity = sum((fill.quantity for fill in group), ZERO)
        if len(group) == 1 or not quantity:
            merged.append(FillPoint(group[0].timestamp, group[0].price, quantity, group[0].maker))
            continue
        notional = sum((fill.price * fill.quantity for fill in group), ZERO)
        kinds = {fill.maker for fill in group}
        merged.append(
            FillPoint(
                at=group[-1].timestamp,
                price=significant(notional / quantity),
                quantity=quantity,
                maker=kinds.pop() if len(kinds) == 1 else None,
            )
        )
    return tuple(merged)


def significant(number: Decimal, digits: int = 18) -> Decimal:
    """The number to so many digits: a quotient would bring all 120 of the context."""
    return number if number == 0 else number.quantize(Decimal(1).scaleb(number.adjusted() - digits + 1)).normalize()
