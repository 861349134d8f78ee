"""The page of a comparison: figures and charts of all contestants, and one order of each in detail."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from execution.report import parts
from execution.report.order_section import section
from execution.report.style import CSS, SCRIPT
from execution.simulate import charts
from execution.simulate.compare import MARKOUT_SECONDS, Figure, Row, Run, costs
from execution.tca.aggregate import FEW
from schemas.tca import CostReport


@dataclass(frozen=True, slots=True)
class Page:
    """What the page tells, beside the runs."""

    orders: str
    data: Sequence[str]
    model: Sequence[str]
    remarks: Sequence[str]
    contestants: Sequence[str]
    """Each algorithm with its parameters."""
    baselines: Sequence[bool]
    runs: Sequence[Run]
    rows: Sequence[Row]
    speed: str = ""


def write_page(page: Page, path: Path) -> None:
    """Write the page as one file that loads nothing.

    Raises:
        OSError: the file cannot be written.
    """
    path.write_text(html(page), encoding="utf-8")


def html(page: Page, *, now_ms: int | None = None) -> str:
    """The page as text."""
    now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><title>Simulated execution</title>'
        f"<style>{CSS}{_CSS}</style></head><body><main><h1>Simulated execution</h1>"
        f'<p class="soft">{escape(page.orders)}; written {parts.clock(now)} UTC</p>'
        '<p class="convention"><b>Positive = cost</b>, for buys and sells alike, in basis points of the order at arrival. '
        "Every contestant works the same orders from the same moments over the same data, alone in its market. "
        f'<span class="soft">Intervals are 95 % bootstrap intervals of the mean, every order counting the same; below {FEW} '
        "orders they say little.</span></p>"
        f"{_charts(page)}{_table(page)}{_about(page)}{_details(page)}"
        f"</main><script>{SCRIPT}</script></body></html>"
    )


def _charts(page: Page) -> str:
    rows, baselines = page.rows, page.baselines
    bars = parts.key(("own", "algorithm"), ("base", "baseline"), ("error", "95 % interval of the mean"))
    risk = charts.cost_and_risk(rows, baselines)
    cards = [
        parts.card("Cost since arrival, bp", bars + charts.cost_bars(rows, baselines)),
        parts.card(
            "What the cost consists of, bp",
            parts.key(
                ("spread", "price against the mid at the fill"),
                ("impact", "mid since arrival"),
                ("missed", "not filled"),
                ("fees", "fees"),
                ("sum", "sum"),
            )
            + charts.parts_of_cost(rows),
        ),
        *(
            parts.card(
                f"Cost less that of {escape(rows[at].label)}, order by order, bp",
                bars + charts.difference_bars(rows, baselines, at),
            )
            for at in range(len(rows[0].differences))
        ),
        parts.card(
            "Cost against risk, bp",
            parts.key(("many", "algorithm"), ("basedot", "baseline"))
            + (risk or '<div class="none">one order each: no deviation to tell</div>'),
            note="Slower is riskier: the market has more time to move, either way.",
        ),
        parts.card(
            "Cost of every order, bp",
            charts.distributions(rows, [costs(run) for run in page.runs]),
            note="Each dot an order; the box holds the middle half, the bar is the median. The outermost 0.5 % stand at the edge.",
        ),
    ]
    return f'<div class="pair">{"".join(cards)}</div>'


_HEADS = (
    "contestant",
    "n",
    "filled",
    "cost",
    "95 % interval",
    "sd",
    "VWAP",
    "TWAP",
    "spread",
    "impact",
    "missed",
    "fees",
)
_MORE = ("maker", "children", "part.", f"{MARKOUT_SECONDS} s", "time")


def _table(page: Page) -> str:
    body = [(_row(row), "few" if row.few else "") for row in page.rows]
    table = parts.table((*_HEADS, *_MORE), body, sortable=True)
    told = "(means per order; costs in bp; VWAP and TWAP: slippage against the market's; click a head to sort)"
    return f'<h2>Figures <span class="soft small">{told}</span></h2><section class="card">{table}</section>'


def _row(row: Row) -> list[parts.Cell]:
    asked = f"{row.n}" if row.n == row.asked else f"{row.n}/{row.asked}"
    return [
        parts.text(row.label),
        parts.Cell(asked, str(row.n)),
        parts.percent(row.filled, 1),
        parts.bps(row.cost.mean if row.cost else None),
        _interval(row.cost),
        _plain(row.deviation, 2),
        *(parts.bps(value) for value in (row.vwap, row.twap, row.spread, row.impact, row.opportunity, row.fees)),
        parts.percent(row.maker),
        _plain(row.children, 1),
        parts.percent(row.participation, 2),
        parts.bps(row.markout),
        parts.Cell(
            parts.MISSING if row.seconds is None else parts.duration(round(row.seconds * 1000)),
            "" if row.seconds is None else f"{row.seconds:f}",
        ),
    ]


def _plain(value: float | None, places: int) -> parts.Cell:
    return parts.Cell(parts.MISSING) if value is None else parts.Cell(f"{value:,.{places}f}", f"{value:f}")


def _interval(figure: Figure | None) -> parts.Cell:
    if figure is None or figure.low is None or figure.high is None:
        return parts.Cell(parts.MISSING)
    return parts.Cell(f"{parts.cost(figure.low)} to {parts.cost(figure.high)}", f"{figure.low:f}")


def _about(page: Page) -> str:
    named = [
        f"<b>{escape(row.label)}</b> <code>{escape(told)}</code>"
        for row, told in zip(page.rows, page.contestants, strict=True)
    ]
    cards = [
        parts.card("Model of the venue", _list([escape(line) for line in page.model])),
        parts.card("Data", _list([escape(line) for line in page.data])),
        parts.card("Contestants", _list(named)),
    ]
    if page.remarks:
        cards.append(parts.card("Remarks", _list([escape(line) for line in page.remarks])))
    speed = f'<p class="soft small speed">{escape(page.speed)}</p>' if page.speed else ""
    return f'<h2>What the figures rest on</h2><div class="pair">{"".join(cards)}</div>{speed}'


def _list(lines: Sequence[str]) -> str:
    return f'<ul class="small">{"".join(f"<li>{line}</li>" for line in lines)}</ul>'


def _details(page: Page) -> str:
    shown = [report for run in page.runs if (report := typical(run.reports)) is not None]
    if not shown:
        return ""
    last = len(shown) - 1
    sections = "".join(section(report, opened=index == last) for index, report in enumerate(shown))
    told = "(of each contestant the order with the median cost; cost since arrival at the right)"
    return f'<h2>Orders in detail <span class="soft small">{told}</span></h2>{sections}'


def typical(reports: Sequence[CostReport]) -> CostReport | None:
    """The order with the median cost; any where no cost is known; None of none."""
    measured = sorted(
        (report for report in reports if report.since_arrival_bps is not None),
        key=lambda report: (report.since_arrival_bps or 0, report.order_id),
    )
    if measured:
        return measured[(len(measured) - 1) // 2]
    return reports[0] if reports else None


_CSS = """
svg .bar.own{fill:var(--blue);fill-opacity:.8}svg .bar.base{fill:var(--faint);fill-opacity:.55}svg .bar.few{fill-opacity:.3}
svg .error{stroke:var(--ink);stroke-width:1.3}svg .dot.base{fill:var(--faint)}
svg .part.spread{fill:var(--blue)}svg .part.impact{fill:var(--amber)}svg .part.missed{fill:var(--violet)}
svg .part.fees{fill:var(--total)}svg .sum{fill:var(--ink);stroke:var(--card);stroke-width:1.2}
.key i.k-own,.key i.k-base,.key i.k-spread,.key i.k-impact,.key i.k-missed,.key i.k-fees{width:10px;height:10px;border:0;
border-radius:2px;background:var(--blue);margin-bottom:0}.key i.k-base{background:var(--faint)}.key i.k-impact{background:var(--amber)}
.key i.k-missed{background:var(--violet)}.key i.k-fees{background:var(--total)}
.key i.k-sum,.key i.k-basedot{width:8px;height:8px;border:0;border-radius:50%;background:var(--ink);margin-bottom:0}
.key i.k-basedot{background:var(--faint)}.key i.k-error{border-color:var(--ink)}
ul{margin:6px 0 0;padding-left:18px}li{margin:0 0 4px}code{font-size:11.5px;color:var(--soft);overflow-wrap:anywhere}
.speed{margin-top:12px}
"""
