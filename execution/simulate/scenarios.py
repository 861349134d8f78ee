"""Market data to simulate on: recorded or synthetic, as it is named on the command line, and what it holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import msgspec

from adapters.recorded import (
    Book,
    RecordingError,
    SyntheticConfig,
    SyntheticMarket,
    open_recording,
)
from adapters.recorded.events import EventSource
from adapters.recorded.ladder import DepthProfile
from adapters.recorded.read.files import parts_of
from adapters.recorded.read.recording import Units
from adapters.recorded.read.stream import stream_of
from adapters.recorded.read.values import canonical, unified
from adapters.recorded.synthesis import BookSynthesis
from schemas.market import MarketRules, OrderBook

HOUR = 3600
SYNTHETIC_DEFAULT = "volatility=0.03,spread_bps=1,trades_per_second=2,hours=4,seed=1,curve=0.5"
HISTORY_DAYS = 14
"""Candles from before the start that a synthetic market tells, so that VWAP and others have a past to plan with."""
LEAD_MS = 5_000
"""The first order starts so long after the first event: by then a book and some trades have been seen."""


class ScenarioError(ValueError):
    """What was asked for cannot be simulated; `option` is the command line's."""

    def __init__(self, option: str, reason: str) -> None:
        super().__init__(f"{option}: {reason}" if option else reason)
        self.option = option
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Recorded:
    """Files of one venue. Times in ms since the epoch."""

    venue: str
    paths: tuple[str, ...]
    symbol: str | None = None
    since: int | None = None
    until: int | None = None
    units: Units = field(default_factory=Units)
    spread_bps: float | None = None
    """Of synthesised books; None: estimated."""
    depth: Decimal | None = None
    """On the best level of synthesised books; None: four typical trades."""

    def open(self) -> EventSource:
        """Raises: ScenarioError: the files cannot be read, or are of another symbol."""
        try:
            return open_recording(
                self.paths,
                symbol=self.symbol,
                venue=self.venue,
                units=self.units,
                since_ms=self.since,
                until_ms=self.until,
                synthesis=BookSynthesis(spread_bps=self.spread_bps, depth=DepthProfile(quantity=self.depth)),
            )
        except RecordingError as error:
            told = str(error)
            if "does not tell its symbol" in told:
                raise ScenarioError("--data", f"{told.partition(';')[0]}; say it with --symbol BASE/QUOTE") from None
            if self.symbol is not None and f"not of {self.symbol}" in told:
                raise ScenarioError("--symbol", told) from None
            raise ScenarioError("--data", told) from None


@dataclass(frozen=True, slots=True)
class Synthetic:
    """A synthetic market of one venue."""

    venue: str
    config: SyntheticConfig

    def open(self) -> EventSource:
        return SyntheticMarket(self.config)


Data = Recorded | Synthetic


def recorded(
    named: Sequence[str],
    *,
    symbol: str | None = None,
    since: int | None = None,
    until: int | None = None,
    units: Units | None = None,
    spread_bps: float | None = None,
    depth: Decimal | None = None,
) -> list[Recorded]:
    """`[VENUE=]FILE_OR_DIR` as one `Recorded` per venue, in the order in which the venues are named first."""
    paths: dict[str, list[str]] = {}
    for text in named:
        venue, equals, path = text.partition("=")
        if not equals or not venue.replace("-", "").replace("_", "").isalnum() or Path(text).exists():
            venue, path = "recorded", text
        if not Path(path).exists():
            raise ScenarioError("--data", f"{path} does not exist")
        if symbol is not None:
            _check_symbol(Path(path), symbol)
        paths.setdefault(venue, []).append(path)
    return [
        Recorded(venue, tuple(files), symbol, since, until, units or Units(), spread_bps, depth)
        for venue, files in paths.items()
    ]


def _check_symbol(path: Path, symbol: str) -> None:
    """A file that says inside which symbol it is of is not taken for another's; one whose name says so may be."""
    try:
        streams = [stream_of(part) for part in parts_of(path)]
    except RecordingError:
        return  # told when it is opened
    for stream in streams:
        told = unified(stream.table.key or "")
        if told and canonical(told) != canonical(symbol):
            raise ScenarioError("--symbol", f"{stream.part.name} is of {told}, not of {symbol}")


_OF_DEPTH = {
    "depth": "quantity",
    "depth_levels": "levels",
    "depth_growth": "growth",
    "depth_spacing_bps": "spacing_bps",
}
_OWN = ("hours", "minutes", "history_days", "curve_hours")
_NOT_ON_THE_LINE = ("seconds", "depth", "venue", "history_seconds", "curve_seconds", "symbol")


def synthetic(text: str, *, symbol: str | None = None) -> Synthetic:
    """`[VENUE:]NAME=VALUE,...` as a synthetic market; what is not named is as `SyntheticConfig` has it.

    Raises:
        ScenarioError: a name is not known, or a value not possible.
    """
    venue, colon, rest = text.partition(":")
    if not colon or "=" in venue:
        venue, rest = "synthetic", text
    if not venue:
        raise ScenarioError("--synthetic", f"{text!r}: the venue before the colon has no name")
    known = {name for name in SyntheticConfig.__struct_fields__ if name not in _NOT_ON_THE_LINE}
    given: dict[str, Decimal] = {}
    for word in filter(None, (part.strip() for part in rest.split(","))):
        name, equals, value = word.partition("=")
        if name not in known and name not in _OWN and name not in _OF_DEPTH:
            names = ", ".join(sorted({*known, *_OWN, *_OF_DEPTH}))
            raise ScenarioError("--synthetic", f"{name!r} is not one of {names}")
        if not equals or (number := _number(value)) is None:
            raise ScenarioError("--synthetic", f"{name}: {value!r} is not a number")
        given[name] = number
    seconds = given.pop("hours", Decimal(0)) * HOUR + given.pop("minutes", Decimal(0)) * 60
    fields: dict[str, Any] = {
        "venue": venue,
        "symbol": symbol or "BTC/USDT",
        "seconds": float(seconds) or 4.0 * HOUR,
        "history_seconds": int(given.pop("history_days", Decimal(HISTORY_DAYS)) * 24 * HOUR),
    }
    if "curve_hours" in given:
        fields["curve_seconds"] = float(given.pop("curve_hours") * HOUR)
    depth = {own: given.pop(name) for name, own in _OF_DEPTH.items() if name in given}
    try:
        if depth:
            fields["depth"] = msgspec.convert(
                {name: str(value) if name == "quantity" else _plain(value) for name, value in depth.items()},
                DepthProfile,
            )
        decimals = ("price", "tick", "lot", "trade_quantity")
        fields |= {name: str(value) if name in decimals else _plain(value) for name, value in given.items()}
        return Synthetic(venue, msgspec.convert(fields, SyntheticConfig))
    except (ValueError, msgspec.ValidationError) as error:
        raise ScenarioError("--synthetic", str(error)) from None


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _plain(number: Decimal) -> int | float:
    return int(number) if number == int(number) else float(number)


@dataclass(slots=True)
class Survey:
    """What a venue's data holds. Times in ms since the epoch; quantities in the base asset."""

    venue: str
    symbol: str
    rules: MarketRules
    first: int
    last: int
    opening: OrderBook | None
    """The book when the first order starts."""
    mid: Decimal | None
    """When the first order starts, and the last one seen."""
    last_mid: Decimal | None
    volume: Decimal
    notional: Decimal
    trades: int
    books: int
    described: list[str]

    @property
    def seconds(self) -> float:
        return (self.last - self.first) / 1000


def lead(span_ms: int) -> int:
    """How long after the first event (ms) the first order starts."""
    return min(LEAD_MS, span_ms // 20)


def survey(data: Data) -> Survey:
    """Read a venue's data once.

    Raises:
        ScenarioError: it cannot be read, or holds nothing to simulate on.
    """
    source = data.open()
    option = "--data" if isinstance(data, Recorded) else "--synthetic"
    first = last = None
    opening: Book | None = None
    closing: Book | None = None
    volume = notional = Decimal(0)
    trades = books = 0
    try:
        for event in _all_events(source):
            last = event.ts
            if first is None:
                first = last
            if isinstance(event, Book):
                books += 1
                closing = event
                if opening is None or last <= first + LEAD_MS:
                    opening = event
                continue
            for trade in event.trades:
                trades += 1
                volume += trade.quantity
                notional += trade.quantity * trade.price
        rules, described = source.rules(), source.describe()
    except RecordingError as error:
        raise ScenarioError(option, str(error)) from None
    if first is None or last is None:
        bounds = " between --since and --until" if isinstance(data, Recorded) and (data.since or data.until) else ""
        raise ScenarioError(option, f"{data.venue} holds no events of {source.symbol}{bounds}")
    if opening is None:
        raise ScenarioError(option, f"{data.venue} holds no book, and nothing that one could be made from")
    if last == first:
        raise ScenarioError(option, f"all events of {data.venue} are of one moment")
    book = opening.order_book(0.0)
    return Survey(
        venue=data.venue,
        symbol=source.symbol,
        rules=rules,
        first=first,
        last=last,
        opening=book,
        mid=book.mid,
        last_mid=closing.order_book(0.0).mid if closing is not None else None,
        volume=volume,
        notional=notional,
        trades=trades,
        books=books,
        described=described,
    )


def _all_events(source: EventSource) -> Iterator[Any]:
    return source.events()


_DURATIONS = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, HOUR)


def default_duration(span_ms: int) -> float:
    """How long an order works by default (seconds): a round number, so that twenty and more fit into the data where it is long."""
    wanted = (span_ms - 2 * lead(span_ms)) / 1000 / 20
    return float(max((step for step in _DURATIONS if step <= wanted), default=1))


def starts(
    surveys: Sequence[Survey], *, duration: float, every: float | None, count: int | None, usual: int = 24
) -> list[int]:
    """When orders start (ms): the first soon after all venues have begun, each with time to work before the data ends.

    Neither `every` (s) nor `count`: one after the other, at most `usual`. `every` alone: as many as fit; `count` alone: spread
    evenly.

    Raises:
        ScenarioError: not even one fits.
    """
    begin, end = max(one.first for one in surveys), min(one.last for one in surveys)
    first = begin + lead(end - begin)
    # Cancels at the end of an order's time, and what they find, are still to be seen.
    room = end - lead(end - begin) - first - int(duration * 1000)
    if room < 0:
        raise ScenarioError("--duration", f"{duration:g} s do not fit into {max(end - begin, 0) / 1000:,.0f} s of data")
    if every is None and count is not None and count > 1:
        step = room / (count - 1)
    else:
        step = (duration if every is None else every) * 1000
    fitting = int(room / step + 1e-9) + 1 if step else count or 1
    most = count if count is not None else fitting if every is not None else usual
    return [first + int(number * step) for number in range(min(fitting, most))]
