"""Market data of a venue: streamed where that works, asked for where it does not, and said to be down in between.

Everything here runs on exchanges of its own, without credentials: the stream of our orders never shares a connection with it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from adapters.base import AdapterHealth, MarketSink, Rejected, Unavailable
from adapters.ccxt_venue.dialects import Dialect
from adapters.ccxt_venue.feed import Feed, Known
from adapters.ccxt_venue.market_binance import BinanceMarket, Tape
from adapters.ccxt_venue.market_unified import PolledMarket, UnifiedMarket
from adapters.ccxt_venue.requests import Requests
from adapters.ccxt_venue.watch import first_of

SHORTEST_PAUSE = 0.25
LONGEST_PAUSE = 15.0
STABLE_SECONDS = 10.0
FIRST_BOOK_SECONDS = 3.0
"""A stream that shows no book for so long is none: some venues accept a subscription that they never serve."""
POLLED_SECONDS = 30.0
"""After which a stream is tried again; the next time after twice as long."""
MOST_POLLED_SECONDS = 900.0

Attempt = Callable[[Feed], Awaitable[None]]


class MarketData:
    """`make` builds an exchange without credentials, with the markets of `exchange`, which is one too and is asked over REST."""

    def __init__(
        self,
        venue: str,
        exchange: Any,
        make: Callable[[], Any],
        requests: Requests,
        health: AdapterHealth,
        dialect: Dialect,
        *,
        binance: bool,
    ) -> None:
        self._venue = venue
        self._exchange = exchange
        self._requests = requests
        self._polled = PolledMarket(exchange, requests)
        self._binance = BinanceMarket(make(), requests) if binance else None
        self._unified = UnifiedMarket(make, self._polled, health, dialect.stream_depth)
        self._running: set[str] = set()
        self._closed = False

    async def close(self) -> None:
        """Also who still runs ends, with `Unavailable`."""
        self._closed = True
        if self._binance is not None:
            await self._binance.close()

    async def run(self, symbol: str, sink: MarketSink) -> None:
        """Deliver until cancelled.

        Raises:
            Rejected: the symbol is being watched already. Unavailable: this was closed.
        """
        if symbol in self._running:
            raise Rejected(f"{symbol} is watched already")
        self._running.add(symbol)
        feed = Feed(self._venue, symbol, sink)
        try:
            await self._keep_running(feed)
        finally:
            feed.close()
            self._running.discard(symbol)

    async def _keep_running(self, feed: Feed) -> None:
        stream, poll = self._ways()
        failed, pause, polled = False, SHORTEST_PAUSE, POLLED_SECONDS
        while not self._closed:
            streaming = stream is not None and not failed
            feed.begin()
            began = time.monotonic()
            try:
                if stream is None:
                    await poll(feed)
                elif streaming:
                    await first_of(stream(feed), _shows(feed))
                else:
                    async with asyncio.timeout(polled) as limit:
                        await poll(feed)
                reason = "ended"
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                reason = "the connection was closed"  # ccxt cancels who waits on it
            except Exception as error:  # noqa: BLE001 - ccxt raises anything; whatever it was, there is no data
                reason = self._requests.hide(f"{type(error).__name__}: {error}")[:300]
            stood, seconds = feed.is_up, time.monotonic() - began
            if streaming:
                failed = not stood
                polled = POLLED_SECONDS if stood else polled
            else:
                failed = False  # the stream once again, before asking goes on
                if stream is not None and limit.expired():
                    reason, polled = "the stream is tried again", min(polled * 2, MOST_POLLED_SECONDS)
            if stood and seconds > STABLE_SECONDS:
                pause = SHORTEST_PAUSE
            feed.down(reason)
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))
            pause = min(pause * 2, LONGEST_PAUSE)
        raise Unavailable("the venue was closed")

    def _ways(self) -> tuple[Attempt | None, Attempt]:
        """How a symbol is streamed, if it is, and polled; both know what the other delivered."""
        known, tape, binance, has = Known(), Tape(), self._binance, self._exchange.has
        if binance is not None:
            return (lambda feed: binance.run(feed, tape)), (lambda feed: self._polled.run(feed, known))
        if has.get("watchOrderBook"):
            return (lambda feed: self._unified.run(feed, known)), (lambda feed: self._polled.run(feed, known))
        return None, (lambda feed: self._polled.run(feed, known))


async def _shows(feed: Feed) -> None:
    """Never return once a book came.

    Raises:
        ConnectionError: none came in time.
    """
    try:
        await asyncio.wait_for(feed.first.wait(), FIRST_BOOK_SECONDS)
    except TimeoutError:
        raise ConnectionError(f"no book within {FIRST_BOOK_SECONDS:g} s") from None
    await asyncio.Event().wait()
