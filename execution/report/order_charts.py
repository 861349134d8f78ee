"""The charts of one order: its price, its schedule, its costs."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal

from execution.report.svg import Plot, apart, number, span, tick_label, ticks
from schemas import exact_json
from schemas.tca import CostReport

HEIGHT = 236
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)


def price(report: CostReport) -> str | None:
    """The mid over the life and after it, fills on it, and the lines of the benchmarks. None without anything to draw."""
    path = [(float(point.at), float(point.value)) for point in report.path]
    fills = [(float(fill.at), float(fill.price)) for fill in report.fills]
    if not path and not fills:
        return None
    lines = [
        (name, float(value), style)
        for name, value, style in (
            ("decision", report.decision, "rule-d"),
            ("arrival", report.arrival, "rule-a"),
            ("VWAP", report.market_vwap, "rule-v"),
            ("paid", report.average_price, "rule-p"),
        )
        if value is not None
    ]
    times = [at for at, _ in path + fills] + [float(report.accepted_at), float(report.ended_at)]
    x = span(times, room=0.02)
    y = span([value for _, value in path + fills] + [value for _, value, _ in lines])
    marks = ticks(*y, 5)
    label = tick_label(marks)
    left = 16 + 6.3 * max(len(label(mark)) for mark in marks)
    plot = Plot(560, HEIGHT, x, y, left=int(left), right=62, label=f"Price while {report.order_id} worked")
    if x[1] > report.ended_at:
        plot.box((report.ended_at, x[1]), y, "after", "after the order ended")
    plot.axis_y(marks, label)
    _time_axis(plot, x)
    plot.line(path, "mid", step=True)
    for _, value, style in lines:
        plot.across(value, style)
    heights = apart([plot.y(value) + 3.5 for _, value, _ in lines], 12, plot.top + 4, plot.bottom)
    for (name, value, style), height in zip(lines, heights, strict=True):
        plot.text_at(plot.right + 6, height, name, f"tag {style}", title=f"{name} {value:g}")
    largest = max((float(fill.quantity) for fill in report.fills), default=1.0) or 1.0
    for fill in report.fills:
        kind = {True: "maker", False: "taker", None: "fill"}[fill.maker]
        title = f"{exact_json.plain(fill.quantity)} at {exact_json.plain(fill.price)} ({kind}), {_clock(fill.at, True)}"
        radius = 2 + 3.5 * math.sqrt(float(fill.quantity) / largest)  # area, not width, says how much
        plot.dot((fill.at, float(fill.price)), radius, "maker" if fill.maker else "taker", title)
    return plot.svg()


def progress(report: CostReport) -> str | None:
    """What was to be filled by when, and what was. None without anything to draw."""
    planned = [(float(point.at), float(point.value)) for point in report.schedule]
    filled, done = [(float(report.accepted_at), 0.0)], Decimal(0)
    for fill in report.fills:
        done += fill.quantity
        filled.append((float(fill.at), float(done)))
    if len(filled) == 1 and not planned:
        return None
    end = max([float(report.ended_at), *(at for at, _ in filled + planned)])
    filled.append((end, float(done)))
    x = span([at for at, _ in filled + planned], room=0.02)
    quantity = float(report.quantity)
    y = (0.0, max(quantity, float(done)) * 1.06)
    shares = [0.0, 0.25, 0.5, 0.75, 1.0]
    plot = Plot(350, HEIGHT, x, y, left=40, label=f"Schedule of {report.order_id} and what was filled")
    plot.axis_y([share * quantity for share in shares], lambda value: f"{value / quantity:.0%}" if quantity else "")
    _time_axis(plot, x, 3)
    plot.line(planned, "planned")
    plot.line(filled, "filled", step=True)
    return plot.svg()


_FIELDS = {
    "delay": "delay_bps",
    "spread": "spread_bps",
    "impact": "impact_bps",
    "execution": "execution_bps",
    "missed": "opportunity_bps",
    "fees": "fees_bps",
}


def waterfall(report: CostReport) -> str | None:
    """How the parts add up to the shortfall. None when no part is known."""
    split = report.spread_bps is not None and report.impact_bps is not None
    names = ("delay", *(("spread", "impact") if split else ("execution",)), "missed", "fees")
    costs = ((name, getattr(report, _FIELDS[name])) for name in names)
    parts = [(name, float(cost)) for name, cost in costs if cost is not None]
    total = report.total_bps if report.basis == "decision" else report.since_arrival_bps
    if not parts:
        return None
    sums = [0.0]
    for _, value in parts:
        sums.append(sums[-1] + value)
    bars = [(name, before, before + value) for (name, value), before in zip(parts, sums, strict=False)]
    if total is not None:
        bars.append(("total", 0.0, float(total)))
    y = span(sums, zero=True, room=0.14)
    marks = ticks(*y, 5)
    plot = Plot(310, HEIGHT, (0, len(bars)), y, left=44, right=4, label=f"Cost of {report.order_id} by part, in bps")
    plot.axis_y(marks, tick_label(marks))
    for index, (name, start, end) in enumerate(bars):
        cost = end - start
        style = "total" if name == "total" else "cost" if cost > 0 else "gain"
        plot.box((index + 0.14, index + 0.86), (start, end), style, f"{name}: {number(cost, 2, signed=True)} bp")
        above = plot.y(max(start, end)) - 4
        plot.text_at(plot.x(index + 0.5), above, number(cost, 1, signed=True), "value", "middle")
        if index + 1 < len(bars) and bars[index + 1][0] != "total":
            plot.segment((index + 0.86, end), (index + 1.14, end), "joint")
        plot.text_at(plot.x(index + 0.5), plot.bottom + 16, name, "tick", "middle")
    plot.across(0, "axis")
    return plot.svg()


def _time_axis(plot: Plot, x: tuple[float, float], about: int = 5) -> None:
    length = (x[1] - x[0]) / 1000
    step = next((step for step in _STEPS_S if length / step <= about), _STEPS_S[-1] * math.ceil(length / 86400 / about))
    first = math.ceil(x[0] / 1000 / step) * step
    marks = [float(at * 1000) for at in range(first, math.floor(x[1] / 1000) + 1, step)]
    plot.axis_x(marks, lambda at: _clock(at, step < 60))


def _clock(at: float, seconds: bool = False) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%H:%M:%S" if seconds else "%H:%M")
