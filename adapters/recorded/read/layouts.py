"""Which layout a table has, and how one of its rows becomes a trade, a candle or a book."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from enum import StrEnum
from itertools import count

import msgspec

from adapters.recorded.events import Book
from adapters.recorded.read.columns import Columns, LevelColumns
from adapters.recorded.read.depth import book_rows, incremental_rows
from adapters.recorded.read.errors import RecordingError
from adapters.recorded.read.tables import Row, Table
from adapters.recorded.read.values import (
    Cell,
    exact,
    flag,
    looks_like_flag,
    looks_like_number,
    looks_like_time,
    taker_side,
    time_ms,
)
from schemas.market import Candle, PublicTrade
from schemas.terms import Side

KNOWN = (
    "trades under named columns (time, price, quantity; optional side, id, symbol): Binance, Bybit, OKX, Tardis, ccxt, ...",
    "candles under named columns (time, open, high, low, close, volume): Binance klines, CryptoDataDownload, Coinbase, Bybit, ...",
    "quotes or books under named columns (Binance bookTicker, Tardis quotes, book_snapshot_N, incremental_book_L2)",
    "Binance archive without names (trades, aggTrades, klines, bookTicker)",
    "Kraken archive without names (time, price, volume; or time, open, high, low, close, volume, trades)",
    "Kraken REST JSON (Trades, OHLC); candles as JSON lists (ccxt fetch_ohlcv, Coinbase, Bybit)",
    "book messages as JSON lines (Bybit ob200/ob500 snapshots and deltas, OKX, ccxt order books)",
)
FORMS = "CSV, JSON, JSON lines, Parquet; CSV and JSON also as .gz or in .zip"


class Kind(StrEnum):
    TRADES = "trades"
    CANDLES = "candles"
    BOOKS = "books"


Record = PublicTrade | Candle | Book
Reader = Callable[[Row], Record | None]


class Layout(msgspec.Struct, frozen=True):
    """A layout that was recognised. `reader(symbol, venue)` makes a function for its rows; None from it: nothing to tell.

    `time`, `id` and `symbol` are columns; None where the layout has none.
    """

    name: str
    kind: Kind
    reader: Callable[[str, str | None], Reader]
    time: int
    symbol: int | None = None
    ids: bool = False
    folded: bool = False
    """Whether several rows make one record, so that most rows tell nothing by themselves."""


def recognise(table: Table, sample: Sequence[Row]) -> Layout:
    """The layout of a table, by its names or by its first rows.

    Raises:
        RecordingError: none that is known; the message tells what was seen and what is known.
    """
    if not sample:
        raise RecordingError(f"{table.part.name} has no rows")
    try:
        layout = _named(Columns(table.names)) if table.names is not None else _unnamed(sample)
    except LookupError:
        layout = None
    if layout is None:
        seen = (
            f"columns {', '.join(table.names)}"
            if table.names
            else f"no names of columns, a first row {list(sample[0])!r}"
        )
        known = "\n  - ".join(KNOWN)
        raise RecordingError(
            f"{table.part.name}: unknown layout; seen: {table.form}, {seen}\nknown layouts ({FORMS}):\n  - {known}"
        )
    return layout


def _named(columns: Columns) -> Layout | None:
    symbol = columns.find("symbol")
    time = columns.find("time")
    if time is not None and columns.has("issnapshot"):
        name = "Tardis incremental_book_L2"
        return Layout(
            name, Kind.BOOKS, lambda its, venue: incremental_rows(columns, its, venue), time, symbol, folded=True
        )
    if time is not None and (levels := columns.levels()) is not None:
        name = "Tardis book_snapshot" if columns.has("localtimestamp") else "book snapshots"
        return Layout(name, Kind.BOOKS, lambda its, venue: book_rows(columns, levels, its, venue), time, symbol)
    quote = [columns.find(meaning) for meaning in ("bid", "bid_quantity", "ask", "ask_quantity")]
    bid, bid_quantity, ask, ask_quantity = quote
    if (
        time is not None
        and bid is not None
        and bid_quantity is not None
        and ask is not None
        and ask_quantity is not None
    ):
        best = LevelColumns(((bid, bid_quantity),), ((ask, ask_quantity),))
        name = (
            "Tardis quotes"
            if columns.has("localtimestamp")
            else "Binance bookTicker"
            if columns.has("updateid")
            else "quotes"
        )
        return Layout(name, Kind.BOOKS, lambda its, venue: book_rows(columns, best, its, venue), time, symbol)
    if columns.find("open") is not None and columns.find("high") is not None:
        return _named_candles(columns, symbol)
    price, quantity = columns.find("price"), columns.find("quantity")
    if time is None or price is None or quantity is None:
        return None
    side, maker, identity = columns.find("side"), columns.find("buyer_maker"), columns.find("id")
    return Layout(
        _trades_name(columns),
        Kind.TRADES,
        _trades(time, price, quantity, side, maker, identity),
        time,
        symbol,
        identity is not None,
    )


def _named_candles(columns: Columns, symbol: int | None) -> Layout | None:
    where = [columns.find(meaning) for meaning in ("start", "open", "high", "low", "close", "volume")]
    found = [at for at in where if at is not None]
    if len(found) != len(where):
        return None
    name = "Binance klines" if columns.has("opentime", "closetime") else "candles"
    return Layout(name, Kind.CANDLES, _candles(*found), found[0], symbol, ids=True)


def _trades_name(columns: Columns) -> str:
    for name, signs in (
        ("Tardis trades", ("localtimestamp", "exchange")),
        ("Bybit trades", ("trdmatchid",)),
        ("Bybit spot trades", ("rpi",)),
        ("Binance aggTrades", ("firsttradeid", "lasttradeid")),
        ("Binance trades", ("quoteqty", "isbuyermaker")),
        ("OKX trades", ("createdtime", "tradeid")),
        ("ccxt fetch_trades", ("takerormaker",)),
    ):
        if columns.has(*signs):
            return name
    return "trades"


def _unnamed(sample: Sequence[Row]) -> Layout | None:
    width = min(len(row) for row in sample)
    flags = [all(looks_like_flag(row[at]) for row in sample) for at in range(width)]
    times = [all(looks_like_time(row[at]) for row in sample) for at in range(width)]
    numbers = [all(looks_like_number(row[at]) for row in sample) for at in range(width)]

    def are(marks: list[bool], *at: int) -> bool:
        return all(index < width and marks[index] for index in at)

    if width >= 6 and are(times, 4) and are(numbers, 0, 1, 2) and are(flags, 5):
        return Layout("Binance trades", Kind.TRADES, _trades(4, 1, 2, None, 5, 0), 4, ids=True)
    if width >= 7 and are(times, 5) and are(numbers, 0, 1, 2, 3, 4) and are(flags, 6):
        return Layout("Binance aggTrades", Kind.TRADES, _trades(5, 1, 2, None, 6, 0), 5, ids=True)
    if width == 7 and are(times, 5, 6) and not are(times, 0) and are(numbers, 1, 2, 3, 4):
        return Layout("Binance bookTicker", Kind.BOOKS, _quotes(5, 1, 2, 3, 4), 5)
    if width >= 6 and are(times, 2) and are(numbers, 0, 1) and all(row[3] in ("b", "s") for row in sample):
        return Layout(
            "Kraken REST trades", Kind.TRADES, _trades(2, 0, 1, 3, None, 6 if width > 6 else None), 2, ids=width > 6
        )
    if width >= 8 and are(times, 0) and are(numbers, 1, 2, 3, 4, 5, 6) and not are(times, 6) and width == 8:
        return Layout("Kraken REST OHLC", Kind.CANDLES, _candles(0, 1, 2, 3, 4, 6), 0, ids=True)
    if width >= 6 and are(times, 0) and are(numbers, 1, 2, 3, 4, 5):
        name = "Binance klines" if width == 12 else "Kraken archive candles" if width == 7 else "candles"
        if all(_bar(row, 1, 2, 3, 4) for row in sample):
            return Layout(name, Kind.CANDLES, _candles(0, 1, 2, 3, 4, 5), 0, ids=True)
        if all(_bar(row, 3, 2, 1, 4) for row in sample):
            return Layout("Coinbase candles", Kind.CANDLES, _candles(0, 3, 2, 1, 4, 5), 0, ids=True)
    if width == 3 and are(times, 0) and are(numbers, 1, 2):
        return Layout("Kraken archive trades", Kind.TRADES, _trades(0, 1, 2, None, None, None), 0)
    return None


def _bar(row: Row, open_: int, high: int, low: int, close: int) -> bool:
    first, most, least, last = (exact(row[at]) for at in (open_, high, low, close))
    return least <= min(first, last) and most >= max(first, last)


def _trades(
    time: int, price: int, quantity: int, side: int | None, maker: int | None, identity: int | None
) -> Callable[[str, str | None], Reader]:
    def make(_symbol: str, _venue: str | None) -> Reader:
        numbers = count(1)

        def read(row: Row) -> PublicTrade | None:
            amount = exact(row[quantity])
            taker = None
            if side is not None:
                taker = taker_side(row[side])
            elif maker is not None:
                # The buyer was the maker: the taker sold.
                taker = Side.SELL if flag(row[maker]) else Side.BUY
            elif amount < 0:
                taker = Side.SELL
            name = str(row[identity]) if identity is not None else ""
            return PublicTrade(
                trade_id=name or f"row{next(numbers)}",
                price=_positive(row[price]),
                quantity=abs(amount),
                timestamp=time_ms(row[time]),
                side=taker,
            )

        return read

    return make


def _candles(
    start: int, open_: int, high: int, low: int, close: int, volume: int
) -> Callable[[str, str | None], Reader]:
    def make(_symbol: str, _venue: str | None) -> Reader:
        def read(row: Row) -> Candle | None:
            if row[open_] in ("", None) or row[close] in ("", None):
                return None
            candle = Candle(
                start=time_ms(row[start]),
                open=_positive(row[open_]),
                high=_positive(row[high]),
                low=_positive(row[low]),
                close=_positive(row[close]),
                volume=exact(row[volume]),
            )
            if not (candle.low <= min(candle.open, candle.close) and max(candle.open, candle.close) <= candle.high):
                raise ValueError("open or close is not within low and high")
            if candle.volume < 0:
                raise ValueError("the volume is negative")
            return candle

        return read

    return make


def _quotes(time: int, bid: int, bid_quantity: int, ask: int, ask_quantity: int) -> Callable[[str, str | None], Reader]:
    names = [""] * 7
    names[time] = "time"
    columns, best = Columns(names), LevelColumns(((bid, bid_quantity),), ((ask, ask_quantity),))
    return lambda symbol, venue: book_rows(columns, best, symbol, venue)


def _positive(cell: Cell) -> Decimal:
    number = exact(cell)
    if number <= 0:
        raise ValueError(f"{cell!r} is no price")
    return number
