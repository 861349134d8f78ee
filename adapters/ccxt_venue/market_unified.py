"""Books and trades through ccxt.pro's streams, and by asking where there are none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from adapters.base import AdapterError, AdapterHealth, RateLimited
from adapters.ccxt_venue.feed import DEPTH, Feed, Known
from adapters.ccxt_venue.limiter import Lane
from adapters.ccxt_venue.requests import Requests
from adapters.ccxt_venue.watch import CONNECT_SECONDS, LONGEST_SILENCE, first_of, until_silent

CONFIRMED_AFTER = 0.5
"""Seconds after the first book in which a subscription to trades would have been refused."""
EARLIER_MS = 2000
"""Trades of a stream that are older than its beginning by more than this came with the subscription, and are not told."""
SETTLED_AFTER = 10.0
"""Seconds after which nothing comes with the subscription any more: trades are told, whatever the clocks say."""
POLL_SECONDS = 1.0
SHARE = 0.25
"""The part of a venue's rate limit that polling may use, over all symbols."""
PAGE = 100
LONG_PAGE = 1000


class UnifiedMarket:
    """Streams of one symbol, on an exchange made for one attempt: so nothing of an earlier one is left over."""

    def __init__(self, make: Callable[[], Any], poll: PolledMarket, health: AdapterHealth, depth: int | None) -> None:
        self._make = make
        self._poll = poll
        self._health = health
        self._depth = depth

    async def run(self, feed: Feed, known: Known) -> None:
        """Deliver until a stream ends.

        Raises: whatever ended it.
        """
        exchange = self._make()
        exchange.ws_dial_backoff = {}
        streamed = bool(exchange.has.get("watchTrades"))
        trades = self._trades(exchange, feed, known) if streamed else self._poll.trades(feed, known)
        try:
            await first_of(self._books(exchange, feed), trades, self._watch(feed, known, streamed), feed.failed)
            raise ConnectionError("the stream ended")
        finally:
            await exchange.close()

    async def _watch(self, feed: Feed, known: Known, streamed: bool) -> None:
        async with asyncio.timeout(CONNECT_SECONDS):
            await feed.first.wait()
        if streamed:
            await asyncio.sleep(CONFIRMED_AFTER)
        else:
            await self._poll.begin(feed.symbol, known)
        feed.up()
        await until_silent(feed, lambda: self._poll.ask_book(feed.symbol))

    async def _books(self, exchange: Any, feed: Feed) -> None:
        while True:
            feed.book(await exchange.watch_order_book(feed.symbol, self._depth))

    async def _trades(self, exchange: Any, feed: Feed, known: Known) -> None:
        """ccxt wakes who waits, and not who is about to wait again: so its cache is read after every message."""
        cache = _Cache(exchange, feed.symbol)
        settled = time.monotonic() + SETTLED_AFTER
        begun = time.time_ns() // 1_000_000 + round(self._health.clock_offset_ms or 0) - EARLIER_MS

        def take(rows: Sequence[Any]) -> None:
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
            rows = await exchange.watch_trades(feed.symbol)
            if not cache.there:
                take(rows)  # it keeps its trades elsewhere
            drain()


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


class PolledMarket:
    """Books and trades by asking again and again."""

    def __init__(self, exchange: Any, requests: Requests) -> None:
        self._exchange = exchange
        self._requests = requests
        self._symbols = 0

    async def run(self, feed: Feed, known: Known) -> None:
        """Deliver until cancelled.

        Raises:
            ConnectionError: the venue does not answer, or trades were left out.
        """
        self._symbols += 1
        try:
            feed.book(await self.ask_book(feed.symbol))
            await self.begin(feed.symbol, known)
            feed.up()
            await first_of(self._books(feed), self.trades(feed, known), feed.failed)
        finally:
            self._symbols -= 1

    async def begin(self, symbol: str, known: Known) -> None:
        """Take note of the trades so far: only later ones are told."""
        if self._exchange.has.get("fetchTrades"):
            known.fresh(await self._page(symbol, known, PAGE))

    async def ask_book(self, symbol: str) -> Any:
        """The book over REST, as ccxt tells it."""
        raw = await self._requests.ask("read", Lane.MARKET, self._exchange.fetch_order_book(symbol, DEPTH))
        if not isinstance(raw, dict) or "bids" not in raw or "asks" not in raw:
            raise self._requests.unreadable("is not an order book")
        return raw

    async def trades(self, feed: Feed, known: Known) -> None:
        """Ask for trades until cancelled. Every page must reach back to what is known.

        Raises:
            ConnectionError
        """
        symbol = feed.symbol
        if not self._exchange.has.get("fetchTrades"):
            await asyncio.get_running_loop().create_future()
        empty: bool | None = None

        async def once() -> None:
            nonlocal empty
            empty = len(known) == 0 if empty is None else empty
            page = await self._page(symbol, known, PAGE)
            if len(page) >= PAGE and not empty and not any(trade in known for trade in page):
                page = await self._page(symbol, known, LONG_PAGE)
                if not any(trade in known for trade in page):
                    known.fresh(page)
                    raise ConnectionError(f"more than {len(page)} trades between two questions: some are lost")
            # What comes before the first known one is older than the beginning.
            first = 0 if empty else next((n for n, trade in enumerate(page) if trade in known), 0)
            empty = empty and not page
            feed.trades(known.fresh(page[first:]))

        await self._again(once)

    async def _books(self, feed: Feed) -> None:
        async def once() -> None:
            feed.book(await self.ask_book(feed.symbol))

        await self._again(once)

    async def _again(self, once: Callable[[], Awaitable[None]]) -> None:
        """Do something on an interval; what fails for too long ends it."""
        good = time.monotonic()
        while True:
            await asyncio.sleep(self._interval())
            try:
                await once()
            except AdapterError as error:
                if time.monotonic() - good > LONGEST_SILENCE:
                    raise ConnectionError(f"no answer for {LONGEST_SILENCE:.0f} s: {error}") from error
                if isinstance(error, RateLimited):
                    await asyncio.sleep(min(max(error.until / 1000 - time.time(), 0), LONGEST_SILENCE))
            else:
                good = time.monotonic()

    def _interval(self) -> float:
        """Seconds between two questions of a kind; two kinds are asked for each symbol."""
        spacing = float(self._exchange.rateLimit or 0) / 1000
        return max(POLL_SECONDS, 2 * spacing * max(self._symbols, 1) / SHARE)

    async def _page(self, symbol: str, known: Known, limit: int) -> Any:
        rows = await self._requests.ask("read", Lane.MARKET, self._exchange.fetch_trades(symbol, None, limit))
        if not isinstance(rows, list):
            raise self._requests.unreadable("is not a list of trades")
        return known.read(rows, page=True)
