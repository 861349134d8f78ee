"""The page: what the orders cost together, group by group, and the ones worth a look one by one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from decimal import Decimal
from html import escape
from pathlib import Path

from execution.report import group_charts, parts
from execution.report.order_section import section
from execution.report.style import CSS, SCRIPT
from execution.report.svg import number
from execution.tca.aggregate import FEW, Group, aggregate
from schemas.tca import CostReport

MOST_IN_DETAIL = 20
MOST_IN_TABLE = 2_000
_OPENED = 1


def write_html(reports: Sequence[CostReport], path: Path, *, now_ms: int | None = None) -> None:
    """Write the page as one file that loads nothing.

    Raises:
        OSError: the file cannot be written.
    """
    path.write_text(html(reports, now_ms=now_ms), encoding="utf-8")


def html(reports: Sequence[CostReport], *, now_ms: int | None = None) -> str:
    """The page as text."""
    now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    ordered = sorted(reports, key=lambda report: (report.ended_at, report.order_id))
    chapters = (_summary, _groups, _behaviour, _details, _table)
    body = "".join(chapter(ordered) for chapter in chapters) if ordered else _EMPTY
    period = f"{parts.clock(ordered[0].accepted_at)} to {parts.clock(ordered[-1].ended_at)} UTC" if ordered else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><title>Execution costs</title>'
        f"<style>{CSS}</style></head><body><main><h1>Execution costs</h1>"
        f'<p class="soft">{len(ordered):,} orders{", " + period if period else ""}; written {parts.clock(now)} UTC</p>'
        '<p class="convention"><b>Positive = cost</b>, for buys and sells alike: paid above (sold below) the benchmark. '
        "Negative = better than the benchmark. All costs in basis points, 1 bp = 0.01 %. "
        '<span class="soft">Groups are weighted by ordered notional; one order’s cost is mostly noise, so groups show '
        f"a 95 % bootstrap interval, and those with fewer than {FEW} orders are not ranked.</span></p>"
        f"{body}</main><script>{SCRIPT}</script></body></html>"
    )


_EMPTY = '<section class="card"><div class="none">No orders in this selection.</div></section>'


def _summary(reports: Sequence[CostReport]) -> str:
    tiles = [parts.tile("Orders", f"{len(reports):,}", f"{sum(r.fill_ratio == 1 for r in reports):,} filled in full")]
    traded: dict[str, Decimal] = {}
    for report in reports:
        if report.average_price is not None:
            traded[report.quote] = traded.get(report.quote, Decimal(0)) + report.filled * report.average_price
    largest = sorted(traded.items(), key=lambda item: -item[1])
    if largest:
        others = ", ".join(parts.amount(value, quote).html for quote, value in largest[1:4])
        unit = f"<small>{escape(largest[0][0])}</small>"
        tiles.append(parts.tile("Traded", f"{parts.amount(largest[0][1]).html} {unit}", others))
    for name, metric in (
        ("Since arrival, with fees", "since_arrival_bps"),
        ("From decision, with fees", "total_bps"),
        ("Slippage against VWAP", "slippage_vwap_bps"),
    ):
        whole = _all(reports, metric)
        under = f"{_interval(whole)}, n = {whole.measured:,}" if whole.measured > 1 else f"n = {whole.measured}"
        tiles.append(parts.tile(name, parts.cost(whole.weighted_bps) + " <small>bp</small>", under))
    whole = _all(reports, "since_arrival_bps")
    tiles.append(
        parts.tile("Completion", f"{whole.completion:.1%}", f"maker share {parts.percent(whole.maker_share).html}")
    )
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _all(reports: Sequence[CostReport], metric: str) -> Group:
    """All reports as one group."""
    return aggregate(reports, "everything", metric=metric)[0]


def _interval(group: Group) -> str:
    if group.low is None or group.high is None:
        return parts.MISSING
    return f"{parts.cost(group.low, 1)} to {parts.cost(group.high, 1)}"


_HEADS = ("orders", "notional", "cost", "95 % interval", "median", "arrival", "VWAP", "filled", "maker")


def _groups(reports: Sequence[CostReport]) -> str:
    legend = parts.key(
        ("many", "weighted, 95 % interval"), ("median", "median"), ("few", f"under {FEW} orders: not ranked")
    )
    cards = []
    for by in ("strategy", "algorithm", "venue", "symbol"):
        groups = aggregate(reports, by)
        chart = f"<div>{legend}{group_charts.costs(groups, f'Cost since arrival by {by}, in bps')}</div>"
        inside = f'<div class="beside">{chart}{_group_table(reports, by, groups)}</div>'
        cards.append(parts.card(f"Cost since arrival by {by}, bp", inside))
    return f'<h2>Groups</h2><div class="stack">{"".join(cards)}</div>'


def _group_table(reports: Sequence[CostReport], by: str, groups: Sequence[Group]) -> str:
    slippages = [
        {group.key: group for group in aggregate(reports, by, metric=metric, intervals=False)}
        for metric in ("slippage_arrival_bps", "slippage_vwap_bps")
    ]
    rows = []
    for group in groups:
        cells = [
            parts.text(group.key),
            parts.count(group.n),
            parts.amount(group.notional, group.quote),
            parts.bps(group.weighted_bps),
            parts.Cell(_interval(group)),
            parts.bps(group.median_bps),
            *(parts.bps(slippage[group.key].weighted_bps) for slippage in slippages),
            parts.percent(group.completion),
            parts.percent(group.maker_share),
        ]
        rows.append((cells, "few" if group.few else ""))
    several = any(group.equal_weights for group in groups)
    note = '<p class="soft small">A group without notional holds several currencies: every order counts the same.</p>'
    return parts.table((by, *_HEADS), rows) + (note if several else "")


def _behaviour(reports: Sequence[CostReport]) -> str:
    curve, marks = group_charts.markout_curve(reports)
    scatter, factor = group_charts.participation(reports)
    fit = (
        f"too few for a fit: it needs {FEW}."
        if factor is None
        # A tenth of the volume is a size that people know the cost of.
        else f"the dashed line is the best fit through zero, {number(factor * 0.1**0.5, 1, signed=True)} bp × √(participation / 10 %)."
    )
    told = "; ".join(f"{mark.seconds} s: n = {mark.n}" for mark in marks)
    cards = [
        parts.card(
            "Mark-outs, bp",
            curve,
            note="The cost still there some seconds after a fill, against the mid then, and its 95 % interval. Falling: the price "
            f"went our way. Rising: we were picked off, or paid for an impact that passed. {told}.",
        ),
        parts.card(
            "Slippage against arrival over participation, bp",
            scatter,
            note=f"Each dot an order; {fit}",
        ),
        parts.card(
            "Slippage against arrival by algorithm, bp",
            group_charts.distributions(reports),
            note="Each dot an order; the box holds the middle half, the bar is the median. The outermost 1 % stand at the edge.",
            style="wide",
        ),
    ]
    return f'<h2>Behaviour</h2><div class="pair">{"".join(cards)}</div>'


def in_detail(reports: Sequence[CostReport]) -> list[CostReport]:
    """The dearest orders first, then the latest of the others: half of each, at most `MOST_IN_DETAIL` together."""
    if len(reports) <= MOST_IN_DETAIL:
        return sorted(reports, key=_dearest_first)
    dearest = sorted(reports, key=_dearest_first)[: MOST_IN_DETAIL // 2]
    taken = {report.order_id for report in dearest}
    latest = [report for report in reversed(reports) if report.order_id not in taken]
    return dearest + latest[: MOST_IN_DETAIL - len(dearest)]


def _dearest_first(report: CostReport) -> tuple[bool, Decimal]:
    cost = report.since_arrival_bps
    return cost is None, Decimal(0) if cost is None else -cost


def _details(reports: Sequence[CostReport]) -> str:
    shown = in_detail(reports)
    which = (
        f"the {MOST_IN_DETAIL // 2} dearest and the latest {len(shown) - MOST_IN_DETAIL // 2} others"
        if len(reports) > MOST_IN_DETAIL
        else "dearest first"
    )
    sections = "".join(section(report, opened=index < _OPENED) for index, report in enumerate(shown))
    return f'<h2>Orders in detail <span class="soft small">({which}; cost since arrival at the right)</span></h2>{sections}'


_COLUMNS = (
    ("order", "strategy", "algorithm", "venue", "symbol", "side", "status"),
    ("ended (UTC)", "notional", "filled", "since arrival", "from decision", "delay", "execution", "missed", "fees"),
    ("arrival", "VWAP", "TWAP", "part.", "maker", "1 s", "10 s", "60 s", "flags"),
)


def _table(reports: Sequence[CostReport]) -> str:
    shown = list(reversed(reports))[:MOST_IN_TABLE]
    rows = [(_row(report), "") for report in shown]
    more = (
        f"; the latest {len(shown):,} of {len(reports):,}, all of them in the CSV" if len(shown) < len(reports) else ""
    )
    heads = [name for group in _COLUMNS for name in group]
    table = parts.table(heads, rows, texts=len(_COLUMNS[0]), sortable=True)
    return f'<h2>All orders <span class="soft small">(costs in bp; click a head to sort{more})</span></h2><section class="card">{table}</section>'


def _row(report: CostReport) -> list[parts.Cell]:
    words = (
        report.order_id,
        report.strategy,
        report.algorithm,
        report.venue,
        report.symbol,
        report.side.value,
        report.status.value,
    )
    flags = escape(", ".join(flag.value.replace("_", " ") for flag in report.flags))
    return [
        *map(parts.text, words),
        parts.moment(report.ended_at),
        parts.amount(report.notional, report.quote),
        parts.percent(report.fill_ratio),
        *(
            parts.bps(cost)
            for cost in (
                report.since_arrival_bps,
                report.total_bps,
                report.delay_bps,
                report.execution_bps,
                report.opportunity_bps,
                report.fees_bps,
                report.slippage_arrival_bps,
                report.slippage_vwap_bps,
                report.slippage_twap_bps,
            )
        ),
        parts.percent(report.participation, 1),
        parts.percent(report.maker_share),
        *(parts.bps(report.markouts.get(seconds)) for seconds in (1, 10, 60)),
        parts.Cell(f'<span title="{flags}">{len(report.flags)}</span>', str(len(report.flags))),
    ]
