"""What is going to be simulated: the data, the orders, who works them, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

from algorithms import ALGORITHMS
from execution.report.parts import clock
from execution.simulate.compare import Job, Model
from execution.simulate.contestants import Contestant, Order, contestants, reworked, signal_of
from execution.simulate.scenarios import Data, ScenarioError, Survey, default_duration, starts, survey
from schemas import exact_json
from schemas.market import ZERO
from schemas.signal import InvalidSignal, parse, unwrap
from schemas.terms import OrderType, Side

USUAL_SHARE = 0.05
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
    signals: Sequence[Mapping[str, Any]] = ()
    """Real ones, with when they come in `at`; none: the same order again and again."""
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


def planned(wanted: Wanted) -> Plan:
    """Read the data once, and decide on quantity, starts and contestants."""
    data, given, notes = list(wanted.data), wanted.signals, []
    if given:
        _valid(given)
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
        _check_signals(given, home, begin, end, at)
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
            begins={seen.venue: seen.first for seen in (surveys if _everywhere(one) else surveys[:1])},
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
    rounded = home.rules.round_quantity(significant(quantity, 4, ROUND_FLOOR), OrderType.LIMIT) if quantity else ZERO
    if not rounded:
        raise ScenarioError("--participation", f"{asked:g} of the volume is below the lot {home.rules.lot:f}")
    return rounded, float(rounded / mean), told


def significant(value: Decimal, digits: int, rounding: str = ROUND_HALF_EVEN) -> Decimal:
    """A number to so many digits, for reading."""
    return value.quantize(Decimal(1).scaleb(value.adjusted() - digits + 1), rounding)


def orders_line(plan: Plan) -> str:
    """What is traded, in words."""
    order, at = plan.order, plan.starts
    if any(one.as_signalled for one in plan.contestants):
        return f"{len(at)} signals, from {clock(min(at))} to {clock(max(at))} UTC"
    what = f"{order.side} {exact_json.plain(order.quantity)} {order.symbol} {order.order_type}"
    if order.price is not None:
        what += f" {exact_json.plain(order.price)}"
    share = f" ({plan.share * 100:.3g} % of the mean volume in {order.duration:g} s)" if plan.share is not None else ""
    if len(at) == 1:
        return f"{what}{share}, once, {clock(at[0])} UTC"
    return (
        f"{what}{share}, {len(at)} times, every {(at[1] - at[0]) / 1000:g} s from {clock(at[0])} to {clock(at[-1])} UTC"
    )


# --- signals --------------------------------------------------------------------------------------------------------------


def _valid(given: Sequence[Mapping[str, Any]]) -> None:
    for index, fields in enumerate(given, 1):
        try:
            parse(_bare(fields))
        except InvalidSignal as error:
            raise ScenarioError("--signals", f"signal {index}: {error}") from None


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


def _check_signals(signals: Sequence[Mapping[str, Any]], home: Survey, begin: int, end: int, at: Sequence[int]) -> None:
    for index, (fields, moment) in enumerate(zip(signals, at, strict=True), 1):
        symbol = unwrap(fields).get("symbol")
        if symbol != home.symbol:
            raise ScenarioError("--signals", f"signal {index}: symbol: {symbol!r} is not in the data, {home.symbol} is")
        if not begin <= moment <= end:
            raise ScenarioError("--signals", f"signal {index}: at: {clock(moment)} is not within the data")
