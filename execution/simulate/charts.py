"""The charts of a comparison: what each contestant costs, how far it is from the first, and at what risk."""

from __future__ import annotations

from collections.abc import Sequence

from execution.report.svg import Plot, number, span, tick_label, ticks
from execution.simulate.compare import Figure, Row
from execution.tca.aggregate import FEW, quantile

WIDTH = 580
ROW = 30
_LABEL = 26
_MOST_SPECKS = 400


def cost_bars(rows: Sequence[Row], baselines: Sequence[bool]) -> str:
    """A bar from 0 to the mean cost of each contestant, and its interval."""
    return _bars(rows, [row.cost for row in rows], baselines, "Mean cost since arrival in bps")


def difference_bars(rows: Sequence[Row], baselines: Sequence[bool], reference: int) -> str:
    """The same for the difference to a reference, order by order."""
    label = f"Mean cost less that of {rows[reference].label}, in bps"
    return _bars(rows, [row.differences[reference] for row in rows], baselines, label)


def _bars(rows: Sequence[Row], figures: Sequence[Figure | None], baselines: Sequence[bool], label: str) -> str:
    values = [
        value for one in figures if one is not None for value in (one.mean, one.low, one.high) if value is not None
    ]
    plot = _rows(rows, span(values, zero=True), label, WIDTH, right=58)
    for index, (row, one) in enumerate(zip(rows, figures, strict=True)):
        height = len(rows) - index - 0.5
        _row_label(plot, height, row.label)
        if one is None:
            plot.text_at(plot.width - 4, plot.y(height) + 4, "reference", "tick", "end")
            continue
        kind = "base" if baselines[index] else "own"
        told = f"{row.label}: {number(one.mean, 2, signed=True)} bp, n = {one.n}"
        if one.low is not None and one.high is not None:
            told += f", 95 % {number(one.low, 2, signed=True)} to {number(one.high, 2, signed=True)}"
        plot.box((0, one.mean), (height - 0.3, height + 0.3), f"bar {kind}{' few' if one.n < FEW else ''}", told)
        if one.low is not None and one.high is not None:
            plot.segment((one.low, height), (one.high, height), "error")
            for end in (one.low, one.high):
                plot.segment((end, height - 0.13), (end, height + 0.13), "error")
        plot.text_at(plot.width - 4, plot.y(height) + 4, number(one.mean, 2, signed=True), "value", "end")
    return plot.svg()


def distributions(rows: Sequence[Row], costs: Sequence[Sequence[float]]) -> str:
    """Every order a dot; the middle half and the median where there are enough."""
    everything = [value for values in costs for value in values]
    # A few wild orders would press all others into one column: they are drawn at the edge.
    low, high = (quantile(everything, 0.005), quantile(everything, 0.995)) if everything else (0.0, 1.0)
    plot = _rows(rows, span([low, high], zero=True), "Cost since arrival of every order, in bps", WIDTH, right=50)
    for index, (row, values) in enumerate(zip(rows, costs, strict=True)):
        height = len(rows) - index - 0.5
        _row_label(plot, height, row.label)
        for place, value in enumerate(sorted(values)[:: max(1, len(values) // _MOST_SPECKS)]):
            above = height + ((place * 7) % 11 - 5) * 0.05  # spread out, and always in the same way
            plot.dot((min(max(value, low), high), above), 2.6, "speck", f"{number(value, 2, signed=True)} bp")
        if len(values) >= FEW:
            lower, middle, upper = (quantile(values, share) for share in (0.25, 0.5, 0.75))
            told = f"middle half {number(lower, 1, signed=True)} to {number(upper, 1, signed=True)} bp"
            plot.box((lower, upper), (height - 0.32, height + 0.32), "quartiles", told)
            shown = f"median {number(middle, 2, signed=True)} bp"
            plot.box((middle, middle), (height - 0.32, height + 0.32), "median many", shown)
        plot.text_at(plot.right + 8, plot.y(height) + 4, f"n={len(values)}", "tick")
    return plot.svg()


def cost_and_risk(rows: Sequence[Row], baselines: Sequence[bool]) -> str | None:
    """Mean cost over the standard deviation between orders; None when no contestant has two orders."""
    points = [
        (row.deviation, row.cost.mean, row.label, baseline)
        for row, baseline in zip(rows, baselines, strict=True)
        if row.deviation is not None and row.cost is not None
    ]
    if not points:
        return None
    x = (0.0, max(deviation for deviation, _, _, _ in points) * 1.35 or 1.0)
    y = span([cost for _, cost, _, _ in points], zero=True, room=0.1)
    plot = Plot(WIDTH, 250, x, y, bottom=40, label="Mean cost in bps over its standard deviation")
    across, along = ticks(*y, 5), ticks(*x, 6)
    plot.axis_y(across, tick_label(across))
    plot.axis_x(along, tick_label(along))
    plot.across(0, "zero")
    plot.text_at(
        (plot.left + plot.right) / 2, plot.height - 6, "standard deviation between orders, bp", "tick", "middle"
    )
    taken = [(plot.x(deviation) - 6, plot.x(deviation) + 6, plot.y(cost) + 4) for deviation, cost, _, _ in points]
    for deviation, cost, label, baseline in points:
        told = f"{label}: {number(cost, 2, signed=True)} bp, standard deviation {deviation:.2f} bp"
        plot.dot((deviation, cost), 5, "dot base" if baseline else "dot many", told)
        left, middle, length = plot.x(deviation) + 9, plot.y(cost) + 4, 6.7 * len(_short(label))
        near = (middle + step * 12 for step in (0, -1, 1, -2, 2, -3, 3, -4, 4))
        height = next(
            (at for at in near if plot.top + 8 < at < plot.bottom - 3 and _is_free(left, length, at, taken)), middle
        )
        taken.append((left, left + length, height))
        plot.text_at(left, height, _short(label), "value")
    return plot.svg()


def _is_free(left: float, length: float, at: float, taken: Sequence[tuple[float, float, float]]) -> bool:
    """Whether text there meets none of the texts (begin, end, height) that stand already."""
    return not any(abs(at - other) < 12 and left < end and begin < left + length for begin, end, other in taken)


_PARTS = (("spread", "spread"), ("impact", "impact"), ("opportunity", "missed"), ("fees", "fees"))


def parts_of_cost(rows: Sequence[Row]) -> str:
    """What the mean cost consists of: parts that cost to the right of 0, parts that gain to the left."""
    stacks = []
    for row in rows:
        parts = [(name, getattr(row, field) or 0.0) for field, name in _PARTS]
        stacks.append(parts)
    ends = [sum(value for _, value in parts if (value > 0) is up) for parts in stacks for up in (True, False)]
    plot = _rows(rows, span(ends, zero=True), "Parts of the mean cost in bps", WIDTH, right=58)
    for index, (row, parts) in enumerate(zip(rows, stacks, strict=True)):
        height = len(rows) - index - 0.5
        _row_label(plot, height, row.label)
        edges = {True: 0.0, False: 0.0}
        for name, value in parts:
            if not value:
                continue
            start = edges[value > 0]
            edges[value > 0] = start + value
            told = f"{row.label}, {name}: {number(value, 2, signed=True)} bp"
            plot.box((start, start + value), (height - 0.3, height + 0.3), f"part {name}", told)
        if row.cost is not None:
            plot.dot((row.cost.mean, height), 4, "sum", f"{row.label}: {number(row.cost.mean, 2, signed=True)} bp")
            plot.text_at(plot.width - 4, plot.y(height) + 4, number(row.cost.mean, 2, signed=True), "value", "end")
    return plot.svg()


def _rows(rows: Sequence[Row], x: tuple[float, float], label: str, width: int, right: int) -> Plot:
    count = max(len(rows), 1)
    left = 20 + int(6.7 * max((len(_short(row.label)) for row in rows), default=0))
    plot = Plot(width, 36 + ROW * count, x, (0, count), left=left, right=right, top=4, label=label)
    marks = ticks(*x, (width - left) // 75)
    plot.axis_x(marks, tick_label(marks), grid=True)
    plot.upright(0, "zero")
    return plot


def _row_label(plot: Plot, height: float, name: str) -> None:
    short = _short(name)
    plot.text_at(plot.left - 10, plot.y(height) + 4, short, "row", "end", title=name if short != name else "")


def _short(name: str) -> str:
    return name if len(name) <= _LABEL else name[: _LABEL - 1] + "…"
