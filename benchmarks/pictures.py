"""The pictures in docs/algorithms.md, one real simulated run each: `python -m benchmarks.pictures [DIRECTORY]`.

Every run goes through the service's own planner, runner and algorithms, over synthetic markets and the paper venue. The same
code draws the same pictures. For whoever chooses an algorithm, not for comparing costs: that is `benchmarks.costs`.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import structlog

from adapters.recorded import Book, SyntheticConfig, SyntheticMarket
from adapters.recorded.events import EventSource
from benchmarks.costs import Offset
from execution.report import order_charts
from execution.report.style import CSS
from execution.report.svg import Plot, apart, number, span, tick_label, ticks
from execution.simulate.simulation import Outcome, Scenario, simulate
from schemas.event import EventChild, EventFill, OrderEvent
from schemas.tca import CostReport

SECONDS = 600
LEAD_MS = 5_000
LEGEND = "dot: taker · ring: maker · bar: order resting · dashed: plan, limit"
MARKET = SyntheticConfig(seconds=SECONDS + 120, trades_per_second=2, spread_bps=1, volatility=0.02, seed=4)
SWINGING = msgspec.structs.replace(MARKET, seed=28)
QUIET = msgspec.structs.replace(MARKET, volatility=0.004, seed=2)
VENUES = ("alpha", "beta", "gamma")
COLOURS = {"alpha": "#2563c9", "beta": "#d4572a", "gamma": "#12876f"}


@dataclass(frozen=True)
class Picture:
    """A run to draw: what the signal says beside buying 4 BTC at the market, in which market, and what stands beside the price."""

    fields: dict[str, Any]
    market: SyntheticConfig = MARKET
    venues: tuple[str, ...] = VENUES[:1]
    rests: bool = False
    """Whether at most one order rests at a time, so that the events tell how long each one did."""
    beside: str = "progress"
    """`progress`: filled against planned; `shown`: what the book shows of the order; `venues`: filled by venue."""
    seconds: int = SECONDS
    """Of the price that are drawn."""
    algorithm: str = ""


PICTURES: dict[str, Picture] = {
    "direct": Picture({"order_type": "limit", "price": "99960"}, SWINGING, rests=True),
    "twap": Picture({"algorithm_params": {"duration_seconds": SECONDS, "slices": 12}}),
    "vwap": Picture(
        {
            "algorithm_params": {
                "duration_seconds": SECONDS,
                "slices": 12,
                "profile": [8, 6, 4, 3, 2, 2, 2, 2, 3, 4, 6, 8],
            }
        }
    ),
    "implementation_shortfall": Picture(
        {"algorithm_params": {"duration_seconds": SECONDS, "slices": 12, "urgency": "high"}}
    ),
    "pov": Picture({"algorithm_params": {"participation": "0.15", "duration_seconds": SECONDS}}),
    "iceberg": Picture(
        {
            "order_type": "limit",
            "price": "100000",
            "algorithm_params": {"display_quantity": "0.3", "variance": "0.2", "post_only": True},
        },
        QUIET,
        rests=True,
        beside="shown",
        seconds=240,
    ),
    "peg": Picture({"algorithm_params": {"duration_seconds": SECONDS}}, rests=True, seconds=240),
    "sniper": Picture(
        {
            "order_type": "limit",
            "price": "99930",
            "algorithm_params": {"min_quantity": "0.1", "max_quantity_per_take": "0.5", "lockout_ms": 5000},
        },
        SWINGING,
    ),
    "smart_router": Picture(
        {
            "venues": list(VENUES),
            "quantity": "12",
            "order_type": "limit",
            "price": "99960",
            "algorithm_params": {"mode": "post"},
        },
        QUIET,
        venues=VENUES,
        rests=True,
        beside="venues",
        seconds=240,
    ),
    "bracket": Picture(
        {"quantity": "0.2", "take_profit": "100160", "stop_loss": "99900"}, SWINGING, rests=True, algorithm="direct"
    ),
}


@dataclass
class Told:
    """What the events of a run told: (ms, child) as placed, and (ms, child, fill)."""

    placed: list[tuple[int, EventChild]] = field(default_factory=list)
    fills: list[tuple[int, EventChild, EventFill]] = field(default_factory=list)
    types: list[str] = field(default_factory=list)

    def __call__(self, events: Sequence[OrderEvent]) -> None:
        for event in events:
            self.types.append(event.event_type.value)
            child = event.child
            if not isinstance(child, EventChild):
                continue
            if event.event_type == "order.placed" and not child.fills:
                self.placed.append((event.timestamp, child))
            self.fills += [(event.timestamp, child, fill) for fill in child.fills]


def main() -> int:
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images")
    target.mkdir(parents=True, exist_ok=True)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    for name, picture in PICTURES.items():
        told = Told()
        outcome = run(name, picture, told)
        if not outcome.reports:
            print(f"{name}: nothing to draw: {outcome.refused}", file=sys.stderr)
            return 1
        (target / f"{name}.svg").write_text(drawn(name, picture, outcome, told))
        report = outcome.reports[0]
        print(f"{target / f'{name}.svg'}: {report.fill_ratio:.0%} filled by {report.children_sent} child orders")
    return 0


def signal(name: str, picture: Picture) -> dict[str, Any]:
    """The signal of a picture."""
    start = picture.market.start_ms + LEAD_MS
    return {
        "signal_id": f"picture-{name}",
        "strategy_id": "docs",
        "exchange": "alpha",
        "symbol": "BTC/USDT",
        "side": "buy",
        "quantity": "4",
        "order_type": "market",
        "algorithm": picture.algorithm or name,
        "expires_at": start + SECONDS * 1000,
        **picture.fields,
    }


def run(name: str, picture: Picture, told: Told) -> Outcome:
    start = picture.market.start_ms
    return simulate(
        Scenario(
            markets={venue: _market(picture, venue) for venue in picture.venues},
            signals=[(start + LEAD_MS, signal(name, picture))],
            start=start,
        ),
        told,
    )


def _market(picture: Picture, venue: str) -> Callable[[], EventSource]:
    if len(picture.venues) == 1:
        return lambda: SyntheticMarket(picture.market)
    index = picture.venues.index(venue)
    depth = (Decimal(1), Decimal("0.5"), Decimal("0.7"))[index]
    return lambda: Offset(SyntheticMarket(picture.market), venue, seed=index + 1, bps=3.0, depth=depth)


# --- drawing --------------------------------------------------------------------------------------------------------------


def drawn(name: str, picture: Picture, outcome: Outcome, told: Told) -> str:
    """The price with the orders, and how far the order had come, as one picture of its own."""
    report = outcome.reports[0]
    light = dict(re.findall(r"--([\w-]+):([^;}]+)", CSS.split("@media")[0]))
    rules = "".join(re.findall(r"svg [^{}]+\{[^}]*\}", CSS))
    for key, value in light.items():
        rules = rules.replace(f"var(--{key})", value)
    rules += "svg .rests{stroke:#2563c9;stroke-opacity:.45;stroke-width:3}svg .exits{stroke:#d4572a;stroke-opacity:.6;stroke-width:3}"
    for venue, colour in COLOURS.items():
        rules += f"svg .of-{venue}{{stroke:{colour};stroke-width:2}}svg text.of-{venue}{{fill:{colour};stroke:none}}"
        rules += f"svg .mid-{venue}{{stroke:{colour};stroke-opacity:.4}}"
        rules += f"svg .taker.at-{venue}{{fill:{colour}}}svg .maker.at-{venue}{{stroke:{colour}}}"
    beside = {
        "progress": lambda: _progress(picture, told, report),
        "shown": lambda: _shown(picture, told),
        "venues": lambda: _venues(picture, told),
    }[picture.beside]()
    if name == "bracket":
        beside = ""
    wide = 560 if beside else 925
    placed = _placed(_price(picture, told, wide), 10, wide) + (_placed(beside, 585, 350) if beside else "")
    said = f"{name}: buy {report.quantity:f} {report.symbol}, {report.fill_ratio:.0%} filled by {report.children_sent} child orders"
    if "trade.closed" in told.types:
        said = (
            f"{name}: buy {report.quantity:f} {report.symbol}, then its exits (orange) until one has closed the trade"
        )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 950 265" font-family="system-ui,sans-serif" font-size="11">'
        f'<style>{rules}</style><rect width="950" height="265" fill="{light["card"]}"/>'
        f'<text x="14" y="15" class="row">{said}</text>'
        f'<text x="936" y="15" class="tick" text-anchor="end">{LEGEND}</text>{placed}</svg>\n'
    )


def _placed(plot: str, left: int, width: int) -> str:
    return plot.replace("<svg ", f'<svg x="{left}" y="22" width="{width}" height="236" ', 1)


def _price(picture: Picture, told: Told, width: int) -> str:
    """The mid, the orders that rested, and the fills."""
    begin = picture.market.start_ms
    until = begin + LEAD_MS + picture.seconds * 1000
    paths = {
        venue: [
            (float(event.ts - begin), float((event.bids[0].price + event.asks[0].price) / 2))
            for event in _market(picture, venue)().events()
            if isinstance(event, Book) and event.ts <= until
        ]
        for venue in picture.venues
    }
    bars = _bars(told, until) if picture.rests else []
    x = (0.0, float(until - begin))
    dots = [(float(fill.price), child, fill) for _, child, fill in told.fills if fill.timestamp <= until]
    y = span(
        [value for path in paths.values() for _, value in path]
        + [price for _, _, price, _ in bars]
        + [price for price, _, _ in dots]
    )
    marks = ticks(*y, 5)
    plot = Plot(width, order_charts.HEIGHT, x, y, left=62, right=10, label="The mid, the orders and their fills")
    plot.axis_y(marks, tick_label(marks))
    _seconds(plot, x)
    for venue, path in paths.items():
        plot.line(path, f"mid-{venue}" if len(paths) > 1 else "mid", step=True)
    if "price" in picture.fields:
        plot.across(float(picture.fields["price"]), "rule-a")
    for start, end, price, style in bars:
        plot.segment((start - begin, price), (end - begin, price), style)
    largest = max((fill.quantity for _, _, fill in dots), default=Decimal(1))
    for price, child, fill in dots:
        radius = 2 + 3.5 * float(fill.quantity / largest) ** 0.5
        style = "maker" if fill.maker else "taker"
        venue = f" at-{child.venue}" if len(paths) > 1 else ""
        plot.dot((fill.timestamp - begin, price), radius, style + venue, f"{fill.quantity:f} at {fill.price:f}")
    return plot.svg()


def _bars(told: Told, until: int) -> list[tuple[float, float, float, str]]:
    """From when to when an order rested, where, and as what. One ends as it is filled, or as the next one is placed."""
    bars = []
    for index, (at, child) in enumerate(told.placed):
        if at > until or (child.tag or "").startswith("r"):
            continue
        same = [later for later, other in told.placed[index + 1 :] if other.role == child.role]
        done = [at for at, other, _ in told.fills if other.client_order_id == child.client_order_id]
        filled = sum(fill.quantity for _, other, fill in told.fills if other.client_order_id == child.client_order_id)
        end = min([*same[:1], *(done[-1:] if filled >= child.quantity else []), until])
        price = child.stop_price or child.price
        if price is not None and end - at > 100:
            bars.append((float(at), float(end), float(price), "exits" if child.role == "exit" else "rests"))
    return bars


def _progress(picture: Picture, told: Told, report: CostReport) -> str:
    """What was filled by when, against the plan where there is one."""
    begin = picture.market.start_ms
    planned = [(float(point.at - begin), float(point.value)) for point in report.schedule]
    filled = [(float(LEAD_MS), 0.0)]
    for _, _, fill in told.fills:
        filled.append((float(fill.timestamp - begin), filled[-1][1] + float(fill.quantity)))
    whole = float(report.quantity)
    x, y = (0.0, max(at for at, _ in planned + filled) * 1.03), (0.0, whole * 1.06)
    plot = Plot(350, order_charts.HEIGHT, x, y, left=40, right=10, label="Filled against the plan")
    plot.axis_y([share * whole for share in (0, 0.25, 0.5, 0.75, 1)], lambda value: f"{value / whole:.0%}")
    _seconds(plot, x)
    plot.line(planned, "planned")
    plot.line(filled, "filled", step=True)
    plot.text_at(plot.left + 6, plot.top + 6, "filled", "tick")
    return plot.svg()


def _shown(picture: Picture, told: Told) -> str:
    """What the book shows of the order."""
    begin = picture.market.start_ms
    points: list[tuple[float, float]] = [(0.0, 0.0)]
    for at, child in told.placed:
        points.append((float(at - begin), float(child.quantity)))
        left = child.quantity
        for moment, other, fill in told.fills:
            if other.client_order_id == child.client_order_id:
                left -= fill.quantity
                points.append((float(moment - begin), float(left)))
    points.sort(key=lambda point: point[0])
    x, y = (0.0, points[-1][0] * 1.05), (0.0, max(value for _, value in points) * 1.15)
    plot = Plot(350, order_charts.HEIGHT, x, y, left=40, right=10, label="What the book shows of the order")
    marks = ticks(*y, 4)
    plot.axis_y(marks, tick_label(marks))
    _seconds(plot, x)
    plot.line(points, "filled", step=True)
    plot.text_at(plot.left + 6, plot.top + 6, "shown in the book (BTC)", "tick")
    return plot.svg()


def _venues(picture: Picture, told: Told) -> str:
    """What was filled at each venue."""
    begin = picture.market.start_ms
    lines: dict[str, list[tuple[float, float]]] = {venue: [(float(LEAD_MS), 0.0)] for venue in picture.venues}
    for _, child, fill in told.fills:
        line = lines[child.venue]
        line.append((float(fill.timestamp - begin), line[-1][1] + float(fill.quantity)))
    last = max(line[-1][0] for line in lines.values())
    x, y = (0.0, last * 1.05), (0.0, max(line[-1][1] for line in lines.values()) * 1.15)
    plot = Plot(350, order_charts.HEIGHT, x, y, left=40, right=50, label="Filled by venue")
    marks = ticks(*y, 4)
    plot.axis_y(marks, tick_label(marks))
    _seconds(plot, x)
    for venue, line in lines.items():
        plot.line([*line, (last, line[-1][1])], f"of-{venue}", step=True)
    ends = apart([plot.y(line[-1][1]) + 3 for line in lines.values()], 11, plot.top, plot.bottom)
    for venue, height in zip(lines, ends, strict=True):
        plot.text_at(plot.x(last) + 5, height, venue, f"tag of-{venue}")
    plot.text_at(plot.left + 6, plot.top + 6, "filled by venue (BTC)", "tick")
    return plot.svg()


def _seconds(plot: Plot, x: tuple[float, float]) -> None:
    marks = ticks(x[0] / 1000, x[1] / 1000, 5)
    plot.axis_x([mark * 1000 for mark in marks], lambda at: f"{number(at / 1000, 0)} s")


if __name__ == "__main__":
    raise SystemExit(main())
