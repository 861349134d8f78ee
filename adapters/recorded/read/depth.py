"""Order books from messages: whole books, and changes to them."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from adapters.recorded.events import Book
from adapters.recorded.read.columns import Columns, LevelColumns
from adapters.recorded.read.values import Cell, exact, flag, taker_side, time_ms
from schemas.market import BookLevel
from schemas.terms import Side

DEPTH = 20
"""Levels of a side that a book event carries."""


class Ladder:
    """One side of a book that is kept by changes to single prices."""

    def __init__(self, *, best_is_highest: bool) -> None:
        self._highest = best_is_highest
        self._prices: list[Decimal] = []
        self._levels: dict[Decimal, BookLevel] = {}

    def clear(self) -> None:
        self._prices.clear()
        self._levels.clear()

    def put(self, price: Decimal, quantity: Decimal) -> None:
        """The quantity that is now offered at a price; zero: none."""
        known = price in self._levels
        if quantity:
            self._levels[price] = BookLevel(price, quantity)
            if not known:
                insort(self._prices, price)
        elif known:
            del self._levels[price]
            del self._prices[bisect_left(self._prices, price)]

    def best(self, depth: int) -> tuple[BookLevel, ...]:
        prices = reversed(self._prices[-depth:]) if self._highest else self._prices[:depth]
        return tuple(self._levels[price] for price in prices)


class DepthMessages:
    """Books from a venue's messages: `{ts, type, data: {s, b, a}}` (Bybit), `{action, asks, bids, ts}` (OKX), whole books (ccxt).

    The first message that is a change, without a whole book before it, gives a book of what it tells.
    """

    def __init__(self, symbol: str, venue: str | None, depth: int = DEPTH) -> None:
        self._symbol, self._venue, self._depth = symbol, venue, depth
        self._bids = Ladder(best_is_highest=True)
        self._asks = Ladder(best_is_highest=False)

    def read(self, message: dict[str, Any]) -> Book | None:
        """The book after a message; None while a side is empty, or crossed by a change that comes in two messages."""
        data = message.get("data", message)
        if isinstance(data, list):
            data = data[0]
        ts = next(
            (
                of[name]
                for of in (message, data)
                for name in ("ts", "timestamp", "E", "T", "time")
                if of.get(name) is not None
            ),
            None,
        )
        if ts is None:
            raise ValueError("the message has no time")
        if str(message.get("type") or message.get("action") or "snapshot").lower() not in ("delta", "update"):
            self._bids.clear()
            self._asks.clear()
        self._put(self._bids, data["b"] if "b" in data else data["bids"])
        self._put(self._asks, data["a"] if "a" in data else data["asks"])
        return self.book(time_ms(ts))

    def book(self, ts: int) -> Book | None:
        bids, asks = self._bids.best(self._depth), self._asks.best(self._depth)
        if not bids or not asks or bids[0].price >= asks[0].price:
            return None
        return Book(ts, self._symbol, bids, asks, self._venue)

    def put(self, side: Side, price: Decimal, quantity: Decimal) -> None:
        (self._bids if side is Side.BUY else self._asks).put(price, quantity)

    def clear(self) -> None:
        self._bids.clear()
        self._asks.clear()

    @staticmethod
    def _put(ladder: Ladder, levels: Sequence[Sequence[Cell]]) -> None:
        for level in levels:
            ladder.put(exact(level[0]), exact(level[1]))


def message_symbol(message: dict[str, Any]) -> str | None:
    """What symbol a message says it is of."""
    data = message.get("data", message)
    if isinstance(data, list):
        data = data[0]
    arg = message.get("arg") or {}
    for of, name in ((data, "s"), (data, "symbol"), (data, "instId"), (message, "symbol"), (arg, "instId")):
        if isinstance(of.get(name), str):
            return str(of[name])
    return None


def book_rows(
    columns: Columns, levels: LevelColumns, symbol: str, venue: str | None
) -> Callable[[Sequence[Cell]], Book | None]:
    """Reads rows that each hold a whole book; levels that are empty in the row are left out."""
    at = _needed(columns, "time")

    def read(row: Sequence[Cell]) -> Book | None:
        bids, asks = (
            tuple(
                BookLevel(exact(row[price]), exact(row[quantity]))
                for price, quantity in side
                if row[price] not in ("", None) and row[quantity] not in ("", None)
            )
            for side in (levels.bids, levels.asks)
        )
        if not bids or not asks or bids[0].price >= asks[0].price:
            return None
        return Book(time_ms(row[at]), symbol, bids, asks, venue)

    return read


def incremental_rows(columns: Columns, symbol: str, venue: str | None) -> Callable[[Sequence[Cell]], Book | None]:
    """Reads rows that each change one price (Tardis incremental_book_L2); the book is told when the next moment begins."""
    at, side, price = _needed(columns, "time"), _needed(columns, "side"), _needed(columns, "price")
    quantity, snapshot = _needed(columns, "quantity"), columns.index("issnapshot")
    books = DepthMessages(symbol, venue)
    last: list[Any] = [None, False]

    def read(row: Sequence[Cell]) -> Book | None:
        ts, whole = row[at], flag(row[snapshot])
        told = None
        if last[0] is not None and ts != last[0]:
            told = books.book(time_ms(last[0]))
        if whole and not last[1]:
            books.clear()
        last[:] = ts, whole
        taker = taker_side(row[side])
        if taker is None:
            raise ValueError(f"{row[side]!r} is no side of a book")
        books.put(taker, exact(row[price]), exact(row[quantity]))
        return told

    return read


def _needed(columns: Columns, meaning: str) -> int:
    at = columns.find(meaning)
    if at is None:
        raise LookupError(meaning)
    return at
