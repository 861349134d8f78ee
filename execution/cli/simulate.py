"""`execution simulate`: what orders would cost, worked by the service's own algorithms in virtual time over market data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from execution.cli.output import CommandError
from schemas.market import ZERO
from schemas.terms import OrderType, Side

if TYPE_CHECKING:  # heavy imports: each command pays for what it uses
    from adapters.recorded.read.recording import Units
    from execution.simulate.scenarios import Data

_DATA = "Market data"
_ORDERS = "Orders"
_MODEL = "Model of the venue"
_OUTPUT = "Output"
_BPS = Decimal(10_000)


def simulate(
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[VENUE=]PATH",
            help="Recorded trades, books or candles: a file or a folder. Again for more files, or more venues.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    synthetic: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[VENUE:]NAME=VALUE,...",
            help="A synthetic market; without any data: volatility=0.03,spread_bps=1,trades_per_second=2,hours=4,seed=1,curve=0.5.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    symbol: Annotated[
        str | None,
        typer.Option(help="BASE/QUOTE, where the data does not tell it or holds several.", rich_help_panel=_DATA),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Recorded data from then on: ISO (UTC), or ms.", rich_help_panel=_DATA),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Recorded data before then.", rich_help_panel=_DATA)
    ] = None,
    units: Annotated[
        str,
        typer.Option(
            help="Of recorded quantities: `base`, `quote`, or how much of the base asset a contract is.",
            rich_help_panel=_DATA,
        ),
    ] = "base",
    spread_bps: Annotated[
        float | None,
        typer.Option(help="Spread of books that are made up around recorded trades.", min=0, rich_help_panel=_DATA),
    ] = None,
    depth: Annotated[
        str | None,
        typer.Option(metavar="QUANTITY", help="On the best level of books that are made up.", rich_help_panel=_DATA),
    ] = None,
    side: Annotated[Side, typer.Option(rich_help_panel=_ORDERS)] = Side.BUY,
    quantity: Annotated[
        str | None, typer.Option(help="Of each order, in the base asset.", rich_help_panel=_ORDERS)
    ] = None,
    participation: Annotated[
        float | None,
        typer.Option(
            help="Or as a share of the market's mean volume over the duration; default 0.05.",
            min=0.000001,
            max=1,
            rich_help_panel=_ORDERS,
        ),
    ] = None,
    order_type: Annotated[
        OrderType, typer.Option("--type", help="Baselines are market orders always.", rich_help_panel=_ORDERS)
    ] = OrderType.MARKET,
    price: Annotated[str | None, typer.Option(help="Limit price.", rich_help_panel=_ORDERS)] = None,
    algorithm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:PARAMETER=VALUE,...]",
            help="A contestant, such as twap:slices=20,style=passive. Again for more. Default: a usual set.",
            rich_help_panel=_ORDERS,
        ),
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="How long an order works, where its algorithm is not told. Default: so that 20 fit into the data.",
            min=1,
            rich_help_panel=_ORDERS,
        ),
    ] = None,
    every: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Start the same order again and again. Default: when the last one's time is over.",
            min=0.001,
            rich_help_panel=_ORDERS,
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(help="How often; alone: spread over the data. Default: up to 24.", min=1, rich_help_panel=_ORDERS),
    ] = None,
    signals: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Real signals instead, as JSON lines; `at` in a line says when: ms, or seconds from the first start.",
            rich_help_panel=_ORDERS,
        ),
    ] = None,
    route: Annotated[
        bool,
        typer.Option(
            "--route", help="Show how the first order would be split over the venues.", rich_help_panel=_ORDERS
        ),
    ] = False,
    latency_ms: Annotated[
        float, typer.Option(help="Of a request and its answer together.", min=0, max=60_000, rich_help_panel=_MODEL)
    ] = 50.0,
    queue_ahead: Annotated[
        float,
        typer.Option(
            help="How much of what a level shows is ahead of a new resting order.", min=0, max=1, rich_help_panel=_MODEL
        ),
    ] = 1.0,
    maker_bps: Annotated[
        list[str] | None,
        typer.Option(metavar="[VENUE=]BPS", help="Fee; negative: a rebate. Default: 0.", rich_help_panel=_MODEL),
    ] = None,
    taker_bps: Annotated[
        list[str] | None, typer.Option(metavar="[VENUE=]BPS", help="Fee. Default: 0.", rich_help_panel=_MODEL)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with charts.", rich_help_panel=_OUTPUT)
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write a table, one row per order.", rich_help_panel=_OUTPUT),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of tables.", rich_help_panel=_OUTPUT)
    ] = False,
    processes: Annotated[
        int | None, typer.Option(help="Default: one per core, where that is faster.", min=1, rich_help_panel=_OUTPUT)
    ] = None,
) -> int:
    """Work orders over recorded or synthetic market data, in virtual time, and compare what they cost.

    The algorithms, planner and runner are those of the service; only the venue is computed. Nothing is sent anywhere.
    Positive is cost, always; in basis points.
    """
    from execution.cli.simulate_output import compared
    from execution.simulate.compare import Model, quiet
    from execution.simulate.plan import Wanted
    from execution.simulate.scenarios import ScenarioError

    quiet()
    try:
        chosen = _data(data, synthetic, symbol, since, until, units, spread_bps, depth)
        venues = [one.venue for one in chosen]
        makers, takers = _fees(maker_bps, venues, "--maker-bps"), _fees(taker_bps, venues, "--taker-bps")
        wanted = Wanted(
            data=chosen,
            side=side,
            quantity=_decimal(quantity, "--quantity"),
            participation=participation,
            order_type=order_type,
            price=_decimal(price, "--price"),
            algorithms=tuple(algorithm or ()),
            duration=duration,
            every=every,
            count=count,
            signals=_signals(signals),
            route=route,
            model=Model(
                latency_ms=latency_ms,
                queue_ahead=Decimal(str(queue_ahead)),
                maker_fee=makers.get("", ZERO),
                taker_fee=takers.get("", ZERO),
                fees={
                    venue: (makers.get(venue, makers.get("", ZERO)), takers.get(venue, takers.get("", ZERO)))
                    for venue in (makers | takers)
                    if venue
                },
            ),
            processes=processes,
            out=out,
            csv=csv,
            as_json=as_json,
        )
        return compared(wanted)
    except ScenarioError as error:
        raise CommandError(str(error), 2) from None


def _data(
    data: Sequence[str] | None,
    synthetic: Sequence[str] | None,
    symbol: str | None,
    since: str | None,
    until: str | None,
    units: str,
    spread_bps: float | None,
    depth: str | None,
) -> list[Data]:
    from execution.simulate import scenarios

    if not data:
        of_recordings = {
            "--since": since,
            "--until": until,
            "--units": None if units == "base" else units,
            "--spread-bps": spread_bps,
            "--depth": depth,
        }
        for option, value in of_recordings.items():
            if value is not None:
                raise scenarios.ScenarioError(option, "is for recorded data: give it with --data")
    chosen: list[Data] = []
    if data:
        chosen += scenarios.recorded(
            data,
            symbol=symbol,
            since=_moment(since, "--since"),
            until=_moment(until, "--until"),
            units=_units(units),
            spread_bps=spread_bps,
            depth=_decimal(depth, "--depth"),
        )
    for text in synthetic or ([] if data else [scenarios.SYNTHETIC_DEFAULT]):
        one = scenarios.synthetic(text, symbol=symbol)
        if any(other.venue == one.venue for other in chosen):
            raise scenarios.ScenarioError("--synthetic", f"two markets are called {one.venue}; name them VENUE:...")
        chosen.append(one)
    return chosen


def _signals(path: Path | None) -> list[dict[str, Any]]:
    from execution.cli.submit import read_signals

    try:
        return [] if path is None else read_signals(str(path))
    except CommandError as error:
        raise CommandError(f"--signals: {error}", error.code) from None


def _decimal(text: str | None, option: str) -> Decimal | None:
    from execution.simulate.scenarios import ScenarioError

    if text is None:
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal(0)
    if not number.is_finite() or number <= 0:
        raise ScenarioError(option, f"{text!r} is not a number above 0")
    return number


def _fees(given: Sequence[str] | None, venues: Sequence[str], option: str) -> dict[str, Decimal]:
    """`[VENUE=]BPS` as fractions by venue; "" is for all others."""
    from execution.simulate.scenarios import ScenarioError

    found: dict[str, Decimal] = {}
    for text in given or ():
        venue, equals, number = text.rpartition("=")
        if equals and venue not in venues:
            raise ScenarioError(option, f"{venue!r} is not one of {', '.join(venues)}")
        try:
            fee = Decimal(number)
        except InvalidOperation:
            fee = Decimal("NaN")
        if not fee.is_finite() or not -100 <= fee <= 1000:
            raise ScenarioError(option, f"{number!r} is not a number of bps from -100 to 1000")
        if venue in found:
            raise ScenarioError(option, f"is given twice{f' for {venue}' if venue else ''}")
        found[venue] = fee / _BPS
    return found


def _moment(text: str | None, option: str) -> int | None:
    """A time in ms."""
    from execution.simulate.scenarios import ScenarioError

    if text is None:
        return None
    if re.fullmatch(r"\d{12,14}", text):
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ScenarioError(option, f"{text!r} is neither an ISO date or time nor ms since the epoch") from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _units(text: str) -> Units:
    from adapters.recorded.read.recording import Units
    from execution.simulate.scenarios import ScenarioError

    if text in ("base", "quote"):
        return Units(in_quote=text == "quote")
    try:
        size = _decimal(text, "--units")
    except ScenarioError:
        raise ScenarioError("--units", f"{text!r} is neither base nor quote nor a contract's size") from None
    assert size is not None
    return Units(contract_size=size)
