"""What `execution simulate` prints and writes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from execution.cli.output import CommandError, json_document, note, number, out, table
from execution.report.parts import clock
from execution.simulate.compare import MARKOUT_SECONDS, Figure, Model, Row, Run, rows, run_all
from execution.simulate.plan import Plan, Wanted, orders_line, planned, significant
from execution.simulate.route import first_route
from execution.simulate.scenarios import Survey
from execution.simulate.told import document, remarks, verdict
from schemas.market import ZERO


def compared(wanted: Wanted) -> int:
    """Simulate, and tell what came of it.

    Raises:
        ScenarioError: naming the option at fault. CommandError: a file cannot be written.
    """
    began = time.perf_counter()
    plan = planned(wanted)
    for remark in plan.notes:
        note(remark)
    if not wanted.as_json:
        _print_plan(plan, wanted.model)
    route = first_route(plan, wanted)
    if route is not None and not wanted.as_json:
        _print_route(route)
    events = sum(one.trades + one.books for one in plan.surveys)
    runs = run_all(plan.jobs, events=events, processes=wanted.processes)
    found = rows(runs)
    seconds = time.perf_counter() - began
    children = sum(one.children for one in runs)
    if wanted.as_json:
        json_document(document(plan, wanted.model, runs, found, route, seconds))
    else:
        _print_rows(found)
        _print_remarks(plan.surveys, runs, found)
    speed = (
        f"{children:,} child orders in {seconds:.1f} s, {children / seconds:,.0f} a second; "
        f"{sum(one.virtual_seconds for one in runs) / 3600:,.1f} hours of market in virtual time"
    )
    _write(plan, wanted, runs, found, speed)
    if not wanted.as_json:
        out.print(speed)
    return 0


def _print_plan(plan: Plan, model: Model) -> None:
    for one in plan.surveys:
        out.print(
            f"Data    {one.venue}: {clock(one.first)} to {clock(one.last)} UTC, {one.trades:,} trades, {one.books:,} books"
        )
        for line in one.described:
            out.print(f"        {line}", style="dim")
    out.print(f"Orders  {orders_line(plan)}")
    for index, line in enumerate(model.words()):
        out.print(f"{'Model' if not index else '':<8}{line}")
    out.print()


def _print_route(route: Mapping[str, Any]) -> None:
    body = [
        (
            str(leg["venue"]),
            number(leg["quantity"]),
            number(significant(leg["average_price"], 10)),
            number(leg["limit_price"]),
            number(significant(leg["fee"], 6) if leg["fee"] else ZERO),
        )
        for leg in route["legs"]
    ]
    body += [(venue, "0", "", "", str(reason)) for venue, reason in route["reasons"].items()]
    table(
        ("venue", "quantity", "average price", "reaches to", "fee"),
        body,
        title="Route of the first order, by the books at its start",
    )
    single = route["best_single"]
    if route["saved_bps"] is not None and not route["saved_bps"]:
        out.print(f"{single['venue']} alone is the best")
    elif route["saved_bps"] is not None:
        better = "" if route["exact"] else "; a better split may exist"
        out.print(f"after fees {number(route['saved_bps'])} bps cheaper than {single['venue']} alone{better}")
    elif route["legs"]:
        out.print(f"the best single venue, {single['venue']}, could take {number(single['routed'])}")
    if route["unrouted"]:
        out.print(f"{number(route['unrouted'])} is beyond what the books show")
    out.print()


def _print_rows(found: Sequence[Row]) -> None:
    heads: tuple[str, ...]
    heads = ("", "n", "filled", "cost", "95 % interval", "sd", "VWAP", "TWAP", "spread", "impact", "missed", "fees")
    body = [
        (
            row.label,
            str(row.n) if row.n == row.asked else f"{row.n}/{row.asked}",
            _percent(row.filled, 1),
            _bps(row.cost.mean if row.cost else None),
            _interval(row.cost),
            "–" if row.deviation is None else f"{row.deviation:.2f}",
            *(_bps(value) for value in (row.vwap, row.twap, row.spread, row.impact, row.opportunity, row.fees)),
        )
        for row in found
    ]
    _table(heads, body, "Cost since arrival, and against VWAP and TWAP, in bps; spread + impact + missed + fees = cost")
    references = [row.label for row in found[: len(found[0].differences)]]
    heads = ("", *(word for name in references for word in (f"less {name}", "95 % interval", "")))
    out.print()
    differences = [
        (
            row.label,
            *(
                word
                for one in row.differences
                for word in (_bps(one.mean if one else None), _interval(one), verdict(one))
            ),
        )
        for row in found
    ]
    _table(heads, differences, "Difference in cost, order by order, in bps")
    heads = ("", "maker", "children", "part.", f"mark-out {MARKOUT_SECONDS} s", "time")
    traded = [
        (
            row.label,
            _percent(row.maker, 0),
            "–" if row.children is None else f"{row.children:.1f}",
            _percent(row.participation, 2),
            _bps(row.markout),
            "–" if row.seconds is None else f"{row.seconds:,.1f} s",
        )
        for row in found
    ]
    out.print()
    _table(heads, traded, "How they traded, per order")
    out.print()


def _table(heads: Sequence[str], body: Sequence[Sequence[str]], title: str) -> None:
    """Figures at the right, so that their points stand below each other."""
    width = [max(len(line[column]) for line in (heads, *body)) for column in range(len(heads))]
    lines = [
        [cell.ljust(width[column]) if column == 0 else cell.rjust(width[column]) for column, cell in enumerate(line)]
        for line in (heads, *body)
    ]
    table(lines[0], lines[1:], title=title)


def _bps(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"


def _interval(figure: Figure | None) -> str:
    if figure is None or figure.low is None or figure.high is None:
        return "–"
    return f"{figure.low:+.2f} to {figure.high:+.2f}"


def _percent(value: float | None, places: int) -> str:
    return "–" if value is None else f"{value:.{places}%}"


def _print_remarks(surveys: Sequence[Survey], runs: Sequence[Run], found: Sequence[Row]) -> None:
    for line in remarks(surveys, runs, found):
        out.print(f"- {line}")
    out.print()


def _write(plan: Plan, wanted: Wanted, runs: Sequence[Run], found: Sequence[Row], speed: str) -> None:
    from execution.report import write_csv
    from execution.simulate.picture import Page, write_page

    reports = [report for run in runs for report in run.reports]
    try:
        if wanted.csv is not None:
            write_csv(reports, wanted.csv)
            note(f"{len(reports)} orders in {wanted.csv}")
        if wanted.out is not None:
            page = Page(
                orders=orders_line(plan),
                data=[f"{one.venue}: {line}" for one in plan.surveys for line in one.described],
                model=wanted.model.words(),
                remarks=remarks(plan.surveys, runs, found),
                contestants=[one.described for one in plan.contestants],
                baselines=[one.baseline for one in plan.contestants],
                speed=speed,
                runs=runs,
                rows=found,
            )
            write_page(page, wanted.out)
            note(f"the comparison is in {wanted.out}")
    except OSError as error:
        raise CommandError(f"{error.filename or wanted.out}: {os.strerror(error.errno or 0)}") from error
