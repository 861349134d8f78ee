"""A recording: files of one symbol, what they hold, and what is made up where they do not tell it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import cast

import msgspec

from adapters.recorded.candle_path import path_of
from adapters.recorded.estimates import (
    candle_seconds,
    finest,
    inferred_rules,
    last_of_each_moment,
    roll_spread_bps,
    typical_size,
)
from adapters.recorded.events import Book, MarketEvent, Trades, grouped, merged
from adapters.recorded.read.errors import RecordingError
from adapters.recorded.read.files import parts_of
from adapters.recorded.read.layouts import Kind, Record
from adapters.recorded.read.ordering import WINDOW_MS, ReadReport, once, ordered
from adapters.recorded.read.stream import Stream, stream_of, time_of
from adapters.recorded.read.values import canonical, unified
from adapters.recorded.synthesis import BookSynthesis, books_around
from schemas.market import Candle, MarketRules, PublicTrade

SAMPLE = 20_000
"""Records from which tick, lot, spread and typical size are estimated."""
CANDLE_WINDOW_MS = 6 * 3_600_000
SPREAD_OF_CANDLES_BPS = 2.0
"""The spread where only candles are known: they show no bounce between bid and ask."""


class Units(msgspec.Struct, frozen=True, kw_only=True):
    """How a file's quantities become units of the base asset: times `contract_size`, or as an amount of the quote asset."""

    contract_size: Decimal = Decimal(1)
    in_quote: bool = False
    """Divided by the price (a candle's close) and rounded to 8 digits after the point."""

    def base(self, quantity: Decimal, price: Decimal) -> Decimal:
        amount = quantity * self.contract_size
        return (amount / price).quantize(Decimal("1e-8")) if self.in_quote else amount


def open_recording(
    paths: Path | str | Sequence[Path | str],
    *,
    symbol: str | None = None,
    venue: str | None = None,
    rules: MarketRules | None = None,
    synthesis: BookSynthesis | None = None,
    trades_per_candle: int | None = None,
    units: Units | None = None,
    since_ms: int | None = None,
    until_ms: int | None = None,
) -> Recording:
    """Open files or directories of one symbol. What each is shows in its content; books, trades and candles may be mixed.

    `symbol` (BASE/QUOTE): of files with several symbols the one to read; None: the one that the files say. `since_ms` and
    `until_ms` bound the events; what was before serves as history.

    Raises:
        RecordingError: a file is missing, of no layout that is known, or of another symbol.
    """
    given = [paths] if isinstance(paths, Path | str) else list(paths)
    streams = [stream_of(part) for path in given for part in parts_of(Path(path))]
    if not streams:
        raise RecordingError("no files were given")
    written = [stream.written for stream in streams if stream.written]
    name = symbol or (unified(written[0]) or written[0] if written else None)
    if name is None:
        raise RecordingError(f"{streams[0].part.name} does not tell its symbol; say which it is")
    for stream in streams:
        # What a file's name or rows of several symbols say may be overruled by `symbol`; not what all of its messages say.
        by_rows = stream.layout is not None and stream.layout.symbol is not None
        overruled = by_rows or (symbol is not None and stream.layout is not None)
        if stream.written and canonical(stream.written) != canonical(name) and not overruled:
            raise RecordingError(f"{stream.part.name} is of {stream.written}, not of {name}; read one symbol at a time")
    return Recording(
        streams,
        name,
        venue,
        rules=rules,
        synthesis=synthesis or BookSynthesis(),
        trades_per_candle=trades_per_candle,
        units=units or Units(),
        since_ms=since_ms,
        until_ms=until_ms,
    )


class Recording:
    """Events of recorded files, read piece by piece each time they are asked for. An `EventSource`."""

    def __init__(
        self,
        streams: Sequence[Stream],
        symbol: str,
        venue: str | None,
        *,
        rules: MarketRules | None,
        synthesis: BookSynthesis,
        trades_per_candle: int | None,
        units: Units,
        since_ms: int | None,
        until_ms: int | None,
    ) -> None:
        self.symbol = symbol
        self.venue = venue
        self.report = ReadReport()
        """Of the last pass over the files, as far as it has come."""
        self._streams = sorted(streams, key=lambda stream: stream.first_ts)
        self._given_rules = rules
        self._synthesis = synthesis
        self._units = units
        self._since = since_ms
        self._until = until_ms
        self._kinds = {stream.kind for stream in streams}
        self._trades_per_candle = trades_per_candle

    def rules(self) -> MarketRules:
        """As given, or with the finest tick and lot that the first records show."""
        return self._given_rules or inferred_rules(self.symbol, self._tick, self._lot)

    def events(self) -> Iterator[MarketEvent]:
        """The events from the first (or `since_ms`) on, ordered in time; a new pass, and a new report, with each call.

        Raises:
            RecordingError: while reading, of a row that is not of its file's layout.
        """
        self.report = ReadReport()
        return self._bounded(self._all_events(self.report))

    def history(self) -> tuple[list[Candle], int]:
        """Recorded candles that ended before the first event, and their interval in seconds."""
        if Kind.CANDLES not in self._kinds:
            return [], 60
        first = next(self._bounded(self._all_events(ReadReport())), None)
        before = first.ts if self._since is None and first is not None else self._since
        candles: list[Candle] = []
        for candle in self._candles(ReadReport()):
            if before is None or candle.start + self.candle_seconds * 1000 > before:
                break
            candles.append(candle)
        return candles, self.candle_seconds

    def describe(self) -> list[str]:
        """What was read and what was synthesised, one line each. What was done to rows so far is in it: ask after a pass."""
        told = [
            f"{self.symbol}{f' at {self.venue}' if self.venue else ''}",
            *(stream.line() for stream in self._streams),
        ]
        told += self._units_line() + self._synthesis_lines()
        if self._given_rules is None:
            told.append(
                f"rules: tick {self._tick:f} and lot {self._lot:f} are the finest seen in the first {SAMPLE:,} records; no minimums, no fees"
            )
        return told + self.report.lines()

    @cached_property
    def candle_seconds(self) -> int:
        """The interval of recorded candles."""
        return candle_seconds(list(islice(self._candles(ReadReport()), 1000)))

    # --- what the files hold

    def _records(self, kind: Kind, report: ReadReport) -> Iterator[Record]:
        streams = [stream for stream in self._streams if stream.kind is kind]
        records = chain.from_iterable(stream.records(self.symbol, self.venue, report) for stream in streams)
        window = CANDLE_WINDOW_MS if kind is Kind.CANDLES else WINDOW_MS
        return ordered(records, time_of, report, window)

    def _trades(self, report: ReadReport) -> Iterator[PublicTrade]:
        trades = cast(Iterator[PublicTrade], self._records(Kind.TRADES, report))
        if self._units != Units():
            trades = (
                msgspec.structs.replace(trade, quantity=self._units.base(trade.quantity, trade.price))
                for trade in trades
            )
        if all(
            stream.layout is not None and stream.layout.ids for stream in self._streams if stream.kind is Kind.TRADES
        ):
            trades = once(trades, lambda trade: trade.trade_id, report)
        return trades

    def _candles(self, report: ReadReport) -> Iterator[Candle]:
        candles = cast(Iterator[Candle], self._records(Kind.CANDLES, report))
        if self._units != Units():
            candles = (
                msgspec.structs.replace(candle, volume=self._units.base(candle.volume, candle.close))
                for candle in candles
            )
        return once(candles, lambda candle: candle.start, report)

    def _books(self, report: ReadReport) -> Iterator[Book]:
        return cast(Iterator[Book], self._records(Kind.BOOKS, report))

    # --- what is made of it

    def _all_events(self, report: ReadReport) -> Iterator[MarketEvent]:
        if Kind.TRADES in self._kinds:
            trades = grouped(self._trades(report), self.symbol, self.venue)
        elif Kind.CANDLES in self._kinds and Kind.BOOKS not in self._kinds:
            trades = grouped(self._path(self._candles(report)), self.symbol, self.venue)
        else:
            return self._books(report)
        if Kind.BOOKS in self._kinds:
            return merged(trades, self._books(report))
        return self._with_books(trades)

    def _bounded(self, events: Iterator[MarketEvent]) -> Iterator[MarketEvent]:
        for event in events:
            if self._until is not None and event.ts >= self._until:
                return
            if self._since is None or event.ts >= self._since:
                yield event

    def _path(self, candles: Iterator[Candle]) -> Iterator[PublicTrade]:
        trades = self._trades_per_candle or min(200, max(4, self.candle_seconds // 3))
        return path_of(candles, seconds=self.candle_seconds, tick=self._tick, trades=trades, seed=self._synthesis.seed)

    def _with_books(self, trades: Iterator[Trades]) -> Iterator[MarketEvent]:
        rules = self.rules()
        quantity = self._synthesis.depth.quantity or 4 * self._typical
        return books_around(
            trades,
            tick=rules.tick,
            lot=rules.lot,
            quantity=quantity,
            spread_bps=self._spread_bps[0],
            synthesis=self._synthesis,
        )

    # --- what the first records tell

    @cached_property
    def _sample(self) -> tuple[list[PublicTrade], list[Candle], list[Book]]:
        report = ReadReport()
        return (
            list(islice(self._trades(report), SAMPLE)) if Kind.TRADES in self._kinds else [],
            list(islice(self._candles(report), SAMPLE)) if Kind.CANDLES in self._kinds else [],
            list(islice(self._books(report), 200)) if Kind.BOOKS in self._kinds else [],
        )

    @cached_property
    def _tick(self) -> Decimal:
        if self._given_rules is not None:
            return self._given_rules.tick
        trades, candles, books = self._sample
        prices = chain(
            (trade.price for trade in trades),
            chain.from_iterable((bar.open, bar.high, bar.low, bar.close) for bar in candles),
            (level.price for book in books for level in (*book.bids, *book.asks)),
        )
        return finest(prices)

    @cached_property
    def _lot(self) -> Decimal:
        if self._given_rules is not None:
            return self._given_rules.lot
        trades, candles, books = self._sample
        quantities = chain(
            (trade.quantity for trade in trades),
            (bar.volume for bar in candles),
            (level.quantity for book in books for level in (*book.bids, *book.asks)),
        )
        return finest(quantities)

    @cached_property
    def _typical(self) -> Decimal:
        trades, candles, _ = self._sample
        return typical_size(trades or list(islice(self._path(iter(candles)), SAMPLE)))

    @cached_property
    def _spread_bps(self) -> tuple[float, str]:
        """The spread of synthetic books, and where it is from."""
        if self._synthesis.spread_bps is not None:
            return self._synthesis.spread_bps, "as declared"
        trades, _, _ = self._sample
        if not trades:
            return SPREAD_OF_CANDLES_BPS, "declared, since candles show no bounce"
        estimate = roll_spread_bps(last_of_each_moment(trades))
        if estimate is None:
            return 0.0, "one tick, since prices of trades do not bounce"
        return estimate, f"estimated from {len(trades):,} trades (Roll 1984), at least one tick"

    def _units_line(self) -> list[str]:
        if self._units.in_quote:
            return ["quantities: amounts of the quote asset in the files, divided by the price"]
        if self._units.contract_size != 1:
            return [f"quantities: contracts of {self._units.contract_size:f} in the files"]
        return ["quantities: taken as units of the base asset"]

    def _synthesis_lines(self) -> list[str]:
        told = []
        if Kind.CANDLES in self._kinds and len(self._kinds) > 1:
            told.append("candles serve as history only")
        if Kind.BOOKS in self._kinds:
            if Kind.TRADES in self._kinds:
                return [*told, "nothing synthesised"]
            return [*told, "nothing synthesised; no trades were recorded, only books"]
        if Kind.TRADES not in self._kinds:
            told.append(
                f"synthesised trades: a path inside each candle of {self.candle_seconds} s, exact in open, high, low, close and volume; "
                f"times and order of high and low are drawn with seed {self._synthesis.seed}"
            )
        spread, source = self._spread_bps
        depth = self._synthesis.depth
        quantity = depth.quantity or 4 * self._typical
        told.append(
            f"synthesised books: spread {spread:.2f} bps ({source}), {depth.levels} levels {depth.spacing_bps:g} bps apart, "
            f"{quantity:f} on the best level, growing by {depth.growth:.0%} of it a level, seed {self._synthesis.seed}"
        )
        return told
