"""What happens in a market, ordered in time: books and trades."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Protocol

import msgspec

from schemas.market import BookLevel, Candle, MarketRules, OrderBook, PublicTrade


class Book(msgspec.Struct, frozen=True, gc=False):
    """The order book of a symbol from `ts` (ms) on, best levels first."""

    ts: int
    symbol: str
    bids: tuple[BookLevel, ...]
    asks: tuple[BookLevel, ...]
    venue: str | None = None

    def order_book(self, received_at: float, depth: int | None = None) -> OrderBook:
        """The same book as the service knows it. `received_at`: monotonic seconds."""
        return OrderBook(symbol=self.symbol, bids=self.bids[:depth], asks=self.asks[:depth], received_at=received_at)


class Trades(msgspec.Struct, frozen=True, gc=False):
    """Trades of one moment `ts` (ms), in their order."""

    ts: int
    symbol: str
    trades: tuple[PublicTrade, ...]
    venue: str | None = None


MarketEvent = Book | Trades


class EventSource(Protocol):
    """Where events come from, and what is known of them: a recording, or a synthetic market."""

    symbol: str
    venue: str | None

    def events(self) -> Iterator[MarketEvent]:
        """The events from the first on, ordered in time; each call begins again."""

    def rules(self) -> MarketRules: ...

    def history(self) -> tuple[list[Candle], int]:
        """Candles that ended before the first event, oldest first, and their interval in seconds."""

    def describe(self) -> list[str]:
        """What was read and what was synthesised, one line each."""


def grouped(trades: Iterable[PublicTrade], symbol: str, venue: str | None) -> Iterator[Trades]:
    """Trades in time order as one event per moment."""
    for ts, moment in groupby(trades, key=_timestamp):
        yield Trades(ts, symbol, tuple(moment), venue)


def merged(*streams: Iterable[MarketEvent]) -> Iterator[MarketEvent]:
    """Several ordered streams as one; at the same moment, those of an earlier argument come first."""
    return heapq.merge(*streams, key=_ts)


def _ts(event: MarketEvent) -> int:
    return event.ts


def _timestamp(trade: PublicTrade) -> int:
    return trade.timestamp
