"""The charts of many orders: groups with their intervals, mark-outs, distributions, and cost against participation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from execution.report.svg import Plot, number, span, tick_label, ticks
from execution.tca.aggregate import FEW, Group, interval, quantile
from schemas.tca import MARKOUT_HORIZONS, CostReport

WIDTH = 580
GROUP_WIDTH = 470
WHOLE_WIDTH = 1200
ROW = 27
MOST_ROWS = 16
_LABEL = 20


def costs(groups: Sequence[Group], title: str) -> str:
    """A dot for the weighted cost of each group, a line for its interval, a tick for its median. Few orders: hollow."""
    shown = [group for group in groups if group.weighted_bps is not None][:MOST_ROWS]
    values = [
        value
        for group in shown
        for value in (group.weighted_bps, group.median_bps, group.low, group.high)
        if value is not None
    ]
    plot = _rows(len(shown), span(values, zero=True), title, GROUP_WIDTH, left=134)
    for index, group in enumerate(shown):
        assert group.weighted_bps is not None
        row = len(shown) - index - 0.5
        kind = "few" if group.few else "many"
        _row_label(plot, row, group.key)
        if group.low is not None and group.high is not None:
            plot.segment((group.low, row), (group.high, row), f"whisker {kind}")
        if group.median_bps is not None:
            plot.box((group.median_bps, group.median_bps), (row - 0.22, row + 0.22), f"median {kind}", "median")
        told = f"{group.key}: {number(group.weighted_bps, 2, signed=True)} bp, n = {group.measured}"
        plot.dot((group.weighted_bps, row), 5, f"dot {kind}", told)
        plot.text_at(plot.right + 8, plot.y(row) + 4, f"n={group.measured}", "tick")
    return plot.svg()


def distributions(reports: Sequence[CostReport]) -> str:
    """Slippage against arrival by algorithm: every order a dot; the middle half and the median where there are enough."""
    by_algorithm: dict[str, list[float]] = {}
    for report in reports:
        if report.slippage_arrival_bps is not None:
            by_algorithm.setdefault(report.algorithm, []).append(float(report.slippage_arrival_bps))
    names = sorted(by_algorithm, key=lambda name: (-len(by_algorithm[name]), name))[:MOST_ROWS]
    everything = [value for name in names for value in by_algorithm[name]]
    # A few wild orders would press all others into one column: they are drawn at the edge.
    low, high = (quantile(everything, 0.01), quantile(everything, 0.99)) if everything else (0.0, 1.0)
    plot = _rows(
        len(names), span([low, high], zero=True), "Slippage against arrival by algorithm", WHOLE_WIDTH, left=172
    )
    for index, name in enumerate(names):
        row = len(names) - index - 0.5
        values = by_algorithm[name]
        _row_label(plot, row, name)
        for place, value in enumerate(sorted(values)[:: max(1, len(values) // 400)]):
            height = row + ((place * 7) % 11 - 5) * 0.05  # spread out, and always in the same way
            plot.dot((min(max(value, low), high), height), 2.5, "speck")
        if len(values) >= FEW:
            lower, middle, upper = (quantile(values, share) for share in (0.25, 0.5, 0.75))
            told = f"middle half {number(lower, 1, signed=True)} to {number(upper, 1, signed=True)} bp"
            plot.box((lower, upper), (row - 0.3, row + 0.3), "quartiles", told)
            plot.box(
                (middle, middle), (row - 0.3, row + 0.3), "median many", f"median {number(middle, 1, signed=True)}"
            )
        plot.text_at(plot.right + 8, plot.y(row) + 4, f"n={len(values)}", "tick")
    return plot.svg()


class Markout(msgspec.Struct, frozen=True):
    seconds: int
    n: int
    mean: float
    low: float | None
    high: float | None


def markout_curve(reports: Sequence[CostReport]) -> tuple[str, list[Markout]]:
    """The cost that is still there some seconds after the fills, with its interval; 0 s is the spread paid.

    Every order counts the same, as orders in different currencies cannot be weighed against each other.
    """
    marks: list[Markout] = []
    for seconds in (0, *MARKOUT_HORIZONS):
        values = [value for report in reports if (value := _still_there(report, seconds)) is not None]
        if values:
            low, high = interval(values, [1.0] * len(values), seed=f"markout:{seconds}")
            marks.append(Markout(seconds, len(values), sum(values) / len(values), low, high))
    y = span([value for mark in marks for value in (mark.mean, mark.low, mark.high) if value is not None], zero=True)
    # Seconds on a logarithmic axis, with a place of its own for 0.
    place = {0: 0.0, **{seconds: 1 + math.log10(seconds) for seconds in MARKOUT_HORIZONS}}
    plot = Plot(WIDTH, 230, (-0.15, max(place.values()) + 0.15), y, label="Mark-out curve in bps")
    across = ticks(*y, 5)
    plot.axis_y(across, tick_label(across))
    plot.axis_x(list(place.values()), lambda at: f"{next(s for s, x in place.items() if x == at)} s")
    banded = [mark for mark in marks if mark.low is not None and mark.high is not None]
    plot.area(
        [(place[mark.seconds], mark.high or 0.0) for mark in banded],
        [(place[mark.seconds], mark.low or 0.0) for mark in banded],
        "band",
    )
    plot.across(0, "zero")
    plot.line([(place[mark.seconds], mark.mean) for mark in marks], "curve")
    for mark in marks:
        told = f"{mark.seconds} s: {number(mark.mean, 2, signed=True)} bp, n = {mark.n}"
        plot.dot((place[mark.seconds], mark.mean), 4, "dot many", told)
        plot.text_at(plot.x(place[mark.seconds]) + 8, plot.y(mark.mean) - 8, number(mark.mean, 1, signed=True), "value")
    return plot.svg(), marks


def _still_there(report: CostReport, seconds: int) -> float | None:
    if seconds:
        value = report.markouts.get(seconds)
        return None if value is None else float(value)
    if report.spread_bps is None or not report.filled or not report.average_price:
        return None
    # The shortfall's spread is over the whole order at its basis; a mark-out is over what was filled, at what was paid.
    basis = report.decision if report.basis == "decision" else report.arrival
    return float(report.spread_bps * report.quantity * (basis or 0) / (report.filled * report.average_price))


def root_fit(points: Sequence[tuple[float, float]]) -> float | None:
    """The least-squares a of cost = a √participation; None below `FEW` points or without any participation."""
    whole = sum(x for x, _ in points)
    return sum(y * math.sqrt(x) for x, y in points) / whole if len(points) >= FEW and whole > 0 else None


def participation(reports: Sequence[CostReport]) -> tuple[str, float | None]:
    """Slippage against arrival over participation, and the a of the a √participation that fits it best (see `root_fit`)."""
    points = [
        (float(report.participation), float(report.slippage_arrival_bps), report)
        for report in reports
        if report.participation is not None and report.slippage_arrival_bps is not None and report.filled
    ]
    x = (0.0, max((at for at, _, _ in points), default=0.1) * 1.08 or 0.1)
    y = span([cost for _, cost, _ in points], zero=True)
    plot = Plot(WIDTH, 230, x, y, label="Slippage against arrival in bps, over participation")
    across, along = ticks(*y, 5), ticks(x[0] * 100, x[1] * 100, 6)
    plot.axis_y(across, tick_label(across))
    percent = tick_label(along)
    plot.axis_x([mark / 100 for mark in along], lambda at: f"{percent(at * 100)} %")
    plot.across(0, "zero")
    for at, cost, report in points[-1500:]:
        told = f"{report.order_id} ({report.algorithm}): {at:.1%}, {number(cost, 1, signed=True)} bp"
        plot.dot((at, cost), 3.2, "speck", told)
    slope = root_fit([(at, cost) for at, cost, _ in points])
    if slope is not None:
        curve = [(x[1] * step / 60, slope * math.sqrt(x[1] * step / 60)) for step in range(61)]
        plot.line(curve, "fitted")
    return plot.svg(), slope


def _rows(count: int, x: tuple[float, float], title: str, width: int, left: int) -> Plot:
    plot = Plot(width, 44 + ROW * max(count, 1), x, (0, max(count, 1)), left=left, right=50, top=4, label=title)
    marks = ticks(*x, width // 85)
    plot.axis_x(marks, tick_label(marks), grid=True)
    plot.upright(0, "zero")
    return plot


def _row_label(plot: Plot, row: float, name: str) -> None:
    short = name if len(name) <= _LABEL else name[: _LABEL - 1] + "…"
    plot.text_at(plot.left - 10, plot.y(row) + 4, short, "row", "end", title=name if short != name else "")
