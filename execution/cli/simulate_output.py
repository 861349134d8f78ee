"""What `execution simulate` does with its options: survey the data, run the contestants, print and write the comparison."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from algorithms import ALGORITHMS
from algorithms.routing import RouteVenue, best_single, optimize
from execution.cli.output import CommandError, json_document, note, number, out, table
from execution.cli.submit import read_signals
from execution.simulate.compare import MARKOUT_SECONDS, Figure, Job, Model, Row, Run, costs, rows, run_all
from execution.simulate.contestants import Contestant, Order, contestants, reworked, signal_of
from execution.simulate.scenarios import Data, ScenarioError, Survey, default_duration, starts, survey
from execution.tca.aggregate import FEW
from schemas.market import ZERO
from schemas.signal import InvalidSignal, parse, unwrap
from schemas.terms import OrderType, Side

USUAL_SHARE = 0.05
APART_BPS = 20
"""Venues whose prices end further apart are not of one market."""
_LEAST_MS = 100_000_000_000
"""An `at` from here on is in ms since the epoch, below it is in seconds from the first start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The options, read."""

    data: Sequence[Data]
    side: Side
    quantity: Decimal | None
    participation: float | None
    order_type: OrderType
    price: Decimal | None
    algorithms: tuple[str, ...]
    duration: float | None
    every: float | None
    count: int | None
    signals: Path | None
    route: bool
    model: Model
    processes: int | None
    out: Path | None
    csv: Path | None
    as_json: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What is going to be simulated."""

    surveys: list[Survey]
    order: Order
    share: float | None
    """Of the market's mean volume over the duration; None: the data shows no volume."""
    contestants: list[Contestant]
    starts: list[int]
    jobs: list[Job]
    notes: list[str]


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
    route = _route(plan, wanted)
    if route is not None and not wanted.as_json:
        _print_route(route)
    events = sum(one.trades + one.books for one in plan.surveys)
    runs = run_all(plan.jobs, events=events, processes=wanted.processes)
    found = rows(runs)
    seconds = time.perf_counter() - began
    children = sum(one.children for one in runs)
    if wanted.as_json:
        json_document(_document(plan, wanted.model, runs, found, route, seconds))
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


# --- what is going to be simulated ----------------------------------------------------------------------------------------


def planned(wanted: Wanted) -> Plan:
    """Read the data once, and decide on quantity, starts and contestants."""
    data, given, notes = list(wanted.data), [], []
    if wanted.signals is not None:
        given = _signals(wanted.signals)
        data = _named_by(data, given)
    if wanted.order_type.has_trigger or wanted.order_type is OrderType.TRAILING_STOP:
        raise ScenarioError(
            "--type", f"{wanted.order_type} has no baseline to compare with: market or limit; or use --signals"
        )
    if wanted.order_type is OrderType.LIMIT and wanted.price is None:
        raise ScenarioError("--price", "is required with --type limit")
    if wanted.order_type is OrderType.MARKET and wanted.price is not None:
        raise ScenarioError("--price", "goes with --type limit")
    surveys = [survey(one) for one in data]
    home = surveys[0]
    strange = next((one for one in surveys if one.symbol != home.symbol), None)
    if strange is not None:
        raise ScenarioError(
            "--data", f"{home.venue} is of {home.symbol}, {strange.venue} of {strange.symbol}; simulate one symbol"
        )
    begin, end = max(one.first for one in surveys), min(one.last for one in surveys)
    duration = wanted.duration or default_duration(max(end - begin, 0))
    at = starts(surveys, duration=duration, every=wanted.every, count=wanted.count)
    if wanted.count is not None and len(at) < wanted.count and not given:
        notes.append(f"only {len(at)} of {wanted.count} orders fit into the data")
    quantity, share, told = _quantity(wanted, home, duration, bool(given))
    notes += told
    order = Order(home.symbol, wanted.side, quantity, wanted.order_type, wanted.price, duration)
    named = contestants(
        wanted.algorithms,
        order,
        share=share,
        rules=home.rules,
        signals=bool(given),
        route=wanted.route and len(surveys) > 1,
    )
    fields: dict[str, tuple[tuple[int, Mapping[str, Any]], ...]] = {}
    venues = [one.venue for one in surveys]
    if given:
        timed = [(_when(fields, number, at[0]), fields) for number, fields in enumerate(given, 1)]
        at = [moment for moment, _ in timed]
        _check_signals(wanted.signals, given, home, begin, end, at)
        for one in named:
            fields[one.label] = tuple(
                (moment, reworked(one, signal, index, moment, duration, venues))
                for index, (moment, signal) in enumerate((moment, _bare(signal)) for moment, signal in timed)
            )
    else:
        for one in named:
            fields[one.label] = tuple(
                (moment, signal_of(one, order, index, moment, venues)) for index, moment in enumerate(at)
            )
        if len(at) > 1 and at[1] - at[0] < duration * 1000:
            notes.append("orders overlap: those of one contestant trade beside each other")
    jobs = [
        Job(
            label=one.label,
            data=tuple(data) if _everywhere(one) else (data[0],),
            begins=min(survey.first for survey in surveys) if _everywhere(one) else home.first,
            signals=fields[one.label],
            model=wanted.model,
            strict=not one.as_signalled,
        )
        for one in named
    ]
    return Plan(surveys, order, share, named, at, jobs, notes)


def _everywhere(contestant: Contestant) -> bool:
    """Whether its orders need every venue's market."""
    if contestant.as_signalled:
        return True
    return contestant.algorithm in ALGORITHMS and ALGORITHMS[contestant.algorithm].routes


def _quantity(
    wanted: Wanted, home: Survey, duration: float, of_signals: bool
) -> tuple[Decimal, float | None, list[str]]:
    """The quantity of each order, its share of the volume, and what to remark."""
    mean = home.volume * Decimal(str(duration)) / Decimal(str(home.seconds))
    if wanted.quantity is not None or of_signals:
        if wanted.participation is not None:
            raise ScenarioError("--participation", "and --quantity exclude each other")
        quantity = wanted.quantity or Decimal(1)
        return quantity, float(quantity / mean) if mean and not of_signals else None, []
    if not mean:
        raise ScenarioError("--quantity", "is required: the data shows no trades to take a share of")
    asked = USUAL_SHARE if wanted.participation is None else wanted.participation
    quantity = home.rules.round_quantity(mean * Decimal(str(asked)), OrderType.LIMIT)
    told = []
    if wanted.participation is None and home.opening is not None:
        # One market order should find what it needs, or it would be compared with orders that trade more.
        most = sum((level.quantity for level in home.opening.opposite(wanted.side)), ZERO) / 2
        if most < quantity:
            quantity = most
            told.append(
                "quantity: half of what the book shows at the first start; --quantity or --participation say otherwise"
            )
    # More digits than anybody would order in say nothing.
    rounded = home.rules.round_quantity(_digits(quantity, 4), OrderType.LIMIT) if quantity else ZERO
    if not rounded:
        raise ScenarioError("--participation", f"{asked:g} of the volume is below the lot {home.rules.lot:f}")
    return rounded, float(rounded / mean), told


def _digits(value: Decimal, digits: int) -> Decimal:
    return value.quantize(Decimal(1).scaleb(value.adjusted() - digits + 1))


# --- signals --------------------------------------------------------------------------------------------------------------


def _signals(path: Path) -> list[dict[str, Any]]:
    try:
        found = read_signals(str(path))
    except CommandError as error:
        raise ScenarioError("--signals", str(error)) from None
    for index, fields in enumerate(found, 1):
        try:
            parse(_bare(fields))
        except InvalidSignal as error:
            raise ScenarioError("--signals", f"{path}: signal {index}: {error}") from None
    return found


def _bare(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The signal itself, without its time."""
    return {name: value for name, value in unwrap(fields).items() if name != "at"}


def _when(fields: Mapping[str, Any], number: int, first: int) -> int:
    at = fields.get("at", unwrap(fields).get("at"))
    if at is None:
        return first
    if isinstance(at, bool) or not isinstance(at, int | Decimal | float) or at < 0:
        raise ScenarioError("--signals", f"signal {number}: at: {at!r} is neither ms since the epoch nor seconds")
    return int(at) if at >= _LEAST_MS else first + int(at * 1000)


def _named_by(data: list[Data], signals: Sequence[Mapping[str, Any]]) -> list[Data]:
    """One venue that was not given a name has the one that the signals use."""
    names = {str(unwrap(fields).get("exchange")) for fields in signals}
    if len(data) == 1 and data[0].venue in ("recorded", "synthetic") and len(names) == 1 and "auto" not in names:
        return [replace(data[0], venue=names.pop())]
    known = [one.venue for one in data]
    for number_, fields in enumerate(signals, 1):
        exchange = unwrap(fields).get("exchange")
        if exchange not in known and exchange != "auto":
            told = f"signal {number_}: exchange: {exchange!r} is not one of {', '.join(known)}"
            raise ScenarioError("--signals", f"{told}; name the data: --data {exchange}=FILE")
    return data


def _check_signals(
    path: Path | None, signals: Sequence[Mapping[str, Any]], home: Survey, begin: int, end: int, at: Sequence[int]
) -> None:
    for index, (fields, moment) in enumerate(zip(signals, at, strict=True), 1):
        symbol = unwrap(fields).get("symbol")
        if symbol != home.symbol:
            raise ScenarioError(
                "--signals", f"{path}: signal {index}: symbol: {symbol!r} is not in the data, {home.symbol} is"
            )
        if not begin <= moment <= end:
            raise ScenarioError("--signals", f"{path}: signal {index}: at: {_clock(moment)} is not within the data")


# --- the route beforehand -------------------------------------------------------------------------------------------------


def _route(plan: Plan, wanted: Wanted) -> dict[str, Any] | None:
    """How the first order would be split over the books as they are then; None unless asked for."""
    routing = any(one.algorithm in ALGORITHMS and ALGORITHMS[one.algorithm].routes for one in plan.contestants)
    if wanted.signals is not None or not (wanted.route or routing):
        return None
    fee = wanted.model.taker_fee
    venues = [
        RouteVenue(name=one.venue, rules=msgspec.structs.replace(one.rules, taker_fee=fee), book=one.opening)
        for one in plan.surveys
        if one.opening is not None
    ]
    order = plan.order
    route = optimize(order.side, order.quantity, venues, limit=order.price)
    single = best_single(order.side, order.quantity, venues, order.price)
    saved = None
    if route.routed == single.routed and route.routed and single.cost:
        saved = (single.cost - route.cost) * order.side.sign / abs(single.cost) * 10_000
    return {
        "legs": [msgspec.structs.asdict(leg) for leg in route.legs],
        "unrouted": route.unrouted,
        "cost": route.cost,
        "average_price": route.average_price,
        "effective_price": route.effective_price,
        "reasons": route.reason,
        "exact": route.exact,
        "best_single": {
            "venue": single.legs[0].venue if single.legs else None,
            "routed": single.routed,
            "effective_price": single.effective_price,
        },
        "saved_bps": None if saved is None else _digits(saved, 4) if saved else ZERO,
    }


def _print_route(route: Mapping[str, Any]) -> None:
    body = [
        (
            str(leg["venue"]),
            number(leg["quantity"]),
            number(_digits(leg["average_price"], 10)),
            number(leg["limit_price"]),
            number(_digits(leg["fee"], 6) if leg["fee"] else ZERO),
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


# --- what is printed ------------------------------------------------------------------------------------------------------


def _print_plan(plan: Plan, model: Model) -> None:
    for one in plan.surveys:
        out.print(
            f"Data    {one.venue}: {_clock(one.first)} to {_clock(one.last)} UTC, {one.trades:,} trades, {one.books:,} books"
        )
        for line in one.described:
            out.print(f"        {line}", style="dim")
    out.print(f"Orders  {orders_line(plan)}")
    for index, line in enumerate(model.words()):
        out.print(f"{'Model' if not index else '':<8}{line}")
    out.print()


def orders_line(plan: Plan) -> str:
    """What is traded, in words."""
    order, at = plan.order, plan.starts
    if any(one.as_signalled for one in plan.contestants):
        return f"{len(at)} signals, from {_clock(min(at))} to {_clock(max(at))} UTC"
    what = f"{order.side} {number(order.quantity)} {order.symbol} {order.order_type}"
    if order.price is not None:
        what += f" {number(order.price)}"
    share = f" ({plan.share * 100:.3g} % of the mean volume in {order.duration:g} s)" if plan.share is not None else ""
    if len(at) == 1:
        return f"{what}{share}, once, {_clock(at[0])} UTC"
    return f"{what}{share}, {len(at)} times, every {(at[1] - at[0]) / 1000:g} s from {_clock(at[0])} to {_clock(at[-1])} UTC"


def _clock(at: int) -> str:
    from execution.report.parts import clock

    return clock(at)


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


def verdict(difference: Figure | None) -> str:
    """What a difference says, in a word."""
    if difference is None:
        return ""
    if difference.n < FEW:
        return "too few"
    if not difference.told_apart:
        return "not told apart"
    return "cheaper" if difference.mean < 0 else "dearer"


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


def remarks(surveys: Sequence[Survey], runs: Sequence[Run], found: Sequence[Row]) -> list[str]:
    """What to keep in mind when reading the figures."""
    told = []
    for one in surveys:
        if any(line.startswith("synthesised books") for line in one.described):
            told.append(
                f"{one.venue}: the books are made up around trades, of which one comes every {one.seconds / one.trades:.1f} s: what resting "
                "orders save or lose is an assumption. The rarer the trades, the more often a resting order is filled by a jump "
                "through its price, and the dearer it looks; compare with other --spread-bps and --depth"
            )
    mids = [one.last_mid for one in surveys if one.last_mid is not None]
    if len(mids) > 1 and (max(mids) - min(mids)) / min(mids) * 10_000 > APART_BPS:
        told.append(
            f"the venues' prices end {(max(mids) - min(mids)) / min(mids) * 10_000:.0f} bps apart: what routing gains from that is not to be had "
            "(synthetic markets share a price with one seed, trades_per_second and curve)"
        )
    for row, run in zip(found, runs, strict=True):
        if row.filled is not None and row.filled < 0.999:
            told.append(
                f"{row.label}: {row.filled:.1%} filled; the rest is priced at the mid when the order ended, as if it could be had there"
            )
        missing = run.asked - len(run.reports) - len(run.refused)
        if missing:
            why = f"{run.unfinished} still worked when the data ended" if run.unfinished else "no child order was sent"
            told.append(f"{row.label}: {missing} of {run.asked} orders have no report: {why}")
        for signal_id, field, reason in run.refused[:3]:
            told.append(f"{row.label}: {signal_id} was refused: {field}: {reason}")
        if len(run.refused) > 3:
            told.append(f"{row.label}: {len(run.refused) - 3} more were refused")
        told += [f"{row.label}: {remark}" for remark in run.notes]
    least = min((row.n for row in found), default=0)
    if least < FEW:
        told.append(f"n = {least} is below {FEW}: it says little; start more orders with --every and --count")
    return told


def _print_remarks(surveys: Sequence[Survey], runs: Sequence[Run], found: Sequence[Row]) -> None:
    for line in remarks(surveys, runs, found):
        out.print(f"- {line}")
    out.print()


# --- files ----------------------------------------------------------------------------------------------------------------


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


def _document(
    plan: Plan, model: Model, runs: Sequence[Run], found: Sequence[Row], route: Mapping[str, Any] | None, seconds: float
) -> dict[str, Any]:
    children = sum(one.children for one in runs)
    return {
        "data": [
            {
                "venue": one.venue,
                "symbol": one.symbol,
                "first": one.first,
                "last": one.last,
                "trades": one.trades,
                "books": one.books,
                "volume": one.volume,
                "described": one.described,
            }
            for one in plan.surveys
        ],
        "orders": {
            "symbol": plan.order.symbol,
            "side": plan.order.side,
            "quantity": plan.order.quantity,
            "order_type": plan.order.order_type,
            "price": plan.order.price,
            "duration_seconds": plan.order.duration,
            "share_of_volume": plan.share,
            "starts": plan.starts,
        },
        "model": {
            "latency_ms": model.latency_ms,
            "queue_ahead": model.queue_ahead,
            "maker_bps": model.maker_fee * 10_000,
            "taker_bps": model.taker_fee * 10_000,
            "words": model.words(),
        },
        "route": route,
        "references": [one.label for one in plan.contestants[: len(found[0].differences)]],
        "contestants": [
            {
                **_fields(row),
                "algorithm": one.described,
                "baseline": one.baseline,
                "costs_bps": costs(run),
                "notes": list(run.notes),
                "refused": [
                    {"signal_id": name, "field": field, "reason": reason} for name, field, reason in run.refused
                ],
            }
            for one, run, row in zip(plan.contestants, runs, found, strict=True)
        ],
        "remarks": remarks(plan.surveys, runs, found),
        "speed": {
            "children": children,
            "seconds": round(seconds, 3),
            "children_per_second": round(children / seconds, 1),
        },
    }


def _fields(row: Row) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, Figure):
            return {"n": value.n, "mean": value.mean, "low": value.low, "high": value.high}
        return [plain(one) for one in value] if isinstance(value, tuple) else value

    return {name: plain(getattr(row, name)) for name in Row.__slots__}
