"""The market data of one symbol on its way to who asked for it: at most ten books a second, and every trade once."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import structlog

from adapters.base import MarketSink
from adapters.ccxt_venue import parsing
from schemas.market import OrderBook, PublicTrade

log = structlog.get_logger(__name__)

BOOK_SECONDS = 0.1
"""Between two books; what comes between them is not even read."""
DEPTH = 20
COMPARED = 5
"""Levels of each side by which a book is known as unchanged."""


class Feed:
    """Delivers while it is up. A sink, or a book, that raises ends the attempt: `failed` says why."""

    def __init__(self, venue: str, symbol: str, sink: MarketSink, *, by: str = "stream") -> None:
        """`by`: what it comes by, for the log."""
        self.symbol = symbol
        self.is_up = False
        self.heard_at = 0.0
        """When a book came last, delivered or not; monotonic seconds."""
        self.changed_at = 0.0
        """When a book came that was asked for and differed from the one before; monotonic seconds."""
        self.first: asyncio.Event = asyncio.Event()
        """The stream itself showed a book since `begin`."""
        self.before_up: Callable[[], None] = lambda: None
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._venue = venue
        self._sink = sink
        self._by = by
        self._asked: object = None
        self._last: OrderBook | None = None
        self._raw: tuple[Mapping[str, Any], float] | None = None
        """The newest book that was not delivered yet, and when it came."""
        self._timer: asyncio.TimerHandle | None = None
        self._next_at = 0.0

    def begin(self) -> None:
        """Another attempt."""
        self.first.clear()
        self.failed = asyncio.get_running_loop().create_future()

    def up(self) -> None:
        """From here on all is delivered; first the newest book that came before."""
        if not self.is_up:
            self.before_up()
            log.info("market data up", venue=self._venue, symbol=self.symbol, by=self._by)
            self.is_up = True
            self._sink.on_market(self._venue, self.symbol, up=True, reason=None)
        self._flush()

    def down(self, reason: str, *, planned: bool = False) -> None:
        """Deliver no more. `planned`: another feed goes on at once."""
        self._cancel_timer()
        self._raw, self._last, self._next_at = None, None, 0.0
        if self.is_up:
            say = log.info if planned else log.warning
            say("market data down", venue=self._venue, symbol=self.symbol, by=self._by, reason=reason)
            self.is_up = False
            self._sink.on_market(self._venue, self.symbol, up=False, reason=reason)

    def absent(self, reason: str) -> None:
        """It never came up so far."""
        log.warning("market data down", venue=self._venue, symbol=self.symbol, by=self._by, reason=reason)
        self._sink.on_market(self._venue, self.symbol, up=False, reason=reason)

    def renew(self, reason: str) -> None:
        """Begin anew for the sake of the trades, some of which are not known; the book stays."""
        if self.is_up:
            log.warning("trades are counted anew", venue=self._venue, symbol=self.symbol, by=self._by, reason=reason)
            self._sink.on_market(self._venue, self.symbol, up=False, reason=reason)
            self._sink.on_market(self._venue, self.symbol, up=True, reason=None)
            if self._last is not None:
                self._sink.on_book(self._venue, self._last)

    def close(self) -> None:
        self._cancel_timer()
        self.is_up = False

    def book(self, raw: Mapping[str, Any]) -> None:
        """A streamed book of Binance's or ccxt's. It may change until it is read: the newest is what counts."""
        self.first.set()
        self._take(raw)

    def asked(self, raw: Mapping[str, Any]) -> None:
        """A book that was asked for."""
        top = [list(raw[side] or ())[:COMPARED] for side in ("bids", "asks")]
        if self._asked is not None and top != self._asked:
            self.changed_at = time.monotonic()
        self._asked = top
        self._take(raw)

    def _take(self, raw: Mapping[str, Any]) -> None:
        now = self.heard_at = time.monotonic()
        self._raw = (raw, now)
        if not self.is_up or self._timer is not None:
            return
        wait = self._next_at - now
        if wait <= 0:
            self._flush()
        else:
            self._timer = asyncio.get_running_loop().call_later(wait, self._flush_later)

    def trades(self, trades: Sequence[PublicTrade]) -> None:
        if self.is_up and trades:
            self._sink.on_trades(self._venue, self.symbol, trades)

    def unchanged(self, raw: Mapping[str, Any]) -> bool:
        """Whether another way of asking shows the book that was delivered last, to the digits that a streamed one has."""
        last = self._last
        return last is not None and _best(parsing.order_book(raw, self.symbol, COMPARED)) == _best(last)

    def fail(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)
            self.failed.exception()  # it may end the attempt, or come too late for that

    def _flush_later(self) -> None:
        self._timer = None
        try:
            self._flush()
        except Exception as error:  # noqa: BLE001 - the loop would only log it
            self.fail(error)

    def _flush(self) -> None:
        if self._raw is None:
            return
        (raw, at), self._raw = self._raw, None
        self._next_at = time.monotonic() + BOOK_SECONDS
        self._last = parsing.order_book(raw, self.symbol, DEPTH, at)
        self._sink.on_book(self._venue, self._last)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _best(book: OrderBook) -> list[tuple[float, float]]:
    return [(float(level.price), float(level.quantity)) for side in (book.bids, book.asks) for level in side[:COMPARED]]


class Known:
    """Which trades were delivered, by their ids; the latest ones are remembered."""

    KEPT = 10_000

    def __init__(self) -> None:
        self._ids: dict[str, None] = {}
        self._count = itertools.count()

    def __contains__(self, trade: PublicTrade) -> bool:
        return trade.trade_id in self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def fresh(self, trades: Sequence[PublicTrade]) -> list[PublicTrade]:
        """Those that were not known, oldest first; they are from now on."""
        found = []
        for trade in trades:
            if trade.trade_id not in self._ids:
                self._ids[trade.trade_id] = None
                found.append(trade)
        while len(self._ids) > self.KEPT:
            del self._ids[next(iter(self._ids))]
        return sorted(found, key=lambda trade: trade.timestamp)

    def read(self, rows: Sequence[Mapping[str, Any]], *, page: bool) -> list[PublicTrade]:
        """Trades as ccxt tells them. Those without ids are, in a page that may come again, known by what they were, and counted where
        they are alike; in a stream, where each comes once, every one is another."""
        found: list[PublicTrade] = []
        alike: dict[str, int] = {}
        for row in rows:
            trade = parsing.public_trade(row)
            if trade is None:
                continue
            if row.get("id") in (None, ""):
                nth = alike[trade.trade_id] = alike.get(trade.trade_id, -1) + 1 if page else next(self._count)
                trade = msgspec.structs.replace(trade, trade_id=f"{trade.trade_id}-{nth}")
            found.append(trade)
        return found
