"""Books and trades through ccxt.pro's streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from adapters.base import AdapterHealth
from adapters.ccxt_venue.feed import Feed, Known
from adapters.ccxt_venue.market_polled import PolledMarket
from adapters.ccxt_venue.watch import CONNECT_SECONDS, first_of, until_silent

log = structlog.get_logger(__name__)

CONFIRMED_AFTER = 0.5
"""Seconds after the first book in which a subscription to trades would have been refused."""
EARLIER_MS = 2000
"""Trades of a stream that are older than its beginning by more than this came with the subscription, and are not told."""
SETTLED_AFTER = 10.0
"""Seconds after which nothing comes with the subscription any more: trades are told, whatever the clocks say."""


class UnifiedMarket:
    """Streams of one symbol, on an exchange made for one attempt: so nothing of an earlier one is left over."""

    def __init__(self, make: Callable[[], Any], poll: PolledMarket, health: AdapterHealth, depth: int | None) -> None:
        self._make = make
        self._poll = poll
        self._health = health
        self._depth = depth
        self._no_trades: set[str] = set()
        """Symbols whose trades the venue would not stream: they are asked for."""

    async def run(self, feed: Feed, known: Known) -> None:
        """Deliver until a stream ends.

        Raises: whatever ended it.
        """
        exchange = self._make()
        exchange.ws_dial_backoff = {}
        streamed = bool(exchange.has.get("watchTrades")) and feed.symbol not in self._no_trades
        trades = self._trades(exchange, feed, known) if streamed else _never()
        try:
            await first_of(self._books(exchange, feed), trades, self._watch(feed, known, streamed), feed.failed)
            raise ConnectionError("the stream ended")
        finally:
            await exchange.close()

    async def _watch(self, feed: Feed, known: Known, streamed: bool) -> None:
        async with asyncio.timeout(CONNECT_SECONDS):
            await feed.first.wait()
        begun = False
        if streamed:
            await asyncio.sleep(CONFIRMED_AFTER)
        else:
            begun = await self._poll.begin(feed.symbol, known)
        feed.up()
        await first_of(
            until_silent(feed, lambda: self._poll.ask_book(feed.symbol)),
            _never() if streamed else self._poll.trades(feed, known, begun),
        )

    async def _books(self, exchange: Any, feed: Feed) -> None:
        while True:
            feed.book(await exchange.watch_order_book(feed.symbol, self._depth))

    async def _trades(self, exchange: Any, feed: Feed, known: Known) -> None:
        """ccxt wakes who waits, and not who is about to wait again: so its cache is read after every message."""
        cache = _Cache(exchange, feed.symbol)
        settled = time.monotonic() + SETTLED_AFTER
        begun = time.time_ns() // 1_000_000 + round(self._health.clock_offset_ms or 0) - EARLIER_MS
        came = False

        def take(rows: Sequence[Any]) -> None:
            nonlocal came
            came = came or bool(rows)
            trades = known.fresh(known.read(rows, page=False)) if rows else []
            if time.monotonic() < settled:
                trades = [trade for trade in trades if trade.timestamp >= begun]
            feed.trades(trades)

        def drain() -> None:
            try:
                take(cache.new())
            except Exception as error:  # noqa: BLE001 - ccxt's connection must not end by it
                feed.fail(error)

        exchange.after_message = drain
        while True:
            try:
                rows = await exchange.watch_trades(feed.symbol)
            except Exception as error:
                if not came and feed.first.is_set():
                    # Of two subscriptions one was served: the next attempt leaves the other out.
                    self._no_trades.add(feed.symbol)
                    log.warning(
                        "trades are not streamed", symbol=feed.symbol, reason=f"{type(error).__name__}: {error}"[:200]
                    )
                raise
            if not cache.there:
                take(rows)  # it keeps its trades elsewhere
            drain()


async def _never() -> None:
    await asyncio.get_running_loop().create_future()


class _Cache:
    """What ccxt keeps of a symbol's trades, each row handed out once."""

    def __init__(self, exchange: Any, symbol: str) -> None:
        self._exchange = exchange
        self._symbol = symbol
        self._rows: Any = None
        self._last: Any = None

    @property
    def there(self) -> bool:
        return self._exchange.trades.get(self._symbol) is not None

    def new(self) -> list[Any]:
        """The rows since the last call, oldest first.

        Raises:
            ConnectionError: some fell out of the cache before they were seen.
        """
        rows = self._exchange.trades.get(self._symbol)
        if rows is None:
            return []
        if rows is not self._rows:
            self._rows, self._last = rows, None
        found: list[Any] = []
        for row in reversed(rows):
            if row is self._last:
                break
            found.append(row)
        else:
            if self._last is not None:
                raise ConnectionError(f"more than {len(found)} trades came at once: some are lost")
        if found:
            self._last = found[0]
        return found[::-1]
