"""Market data of a venue: streamed where that works, and asked for while it does not.

Everything here runs on exchanges of its own, without credentials: the stream of our orders never shares a connection with it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from adapters.base import AdapterHealth, MarketSink, Rejected, Unavailable
from adapters.ccxt_venue.dialects import Dialect
from adapters.ccxt_venue.feed import Feed, Known
from adapters.ccxt_venue.market_binance import BinanceMarket
from adapters.ccxt_venue.market_polled import PolledMarket
from adapters.ccxt_venue.market_unified import UnifiedMarket
from adapters.ccxt_venue.requests import Requests
from adapters.ccxt_venue.tape import Tape
from adapters.ccxt_venue.watch import QUIET_SECONDS, first_of

log = structlog.get_logger(__name__)

SHORTEST_PAUSE = 0.25
LONGEST_PAUSE = 15.0
LONGEST_POLL_PAUSE = 5.0
STABLE_SECONDS = 10.0
FIRST_BOOK_SECONDS = 1.0
"""A stream that shows no book for so long is not waited for: the venue is asked, until the stream shows one."""
POLLED_SECONDS = 30.0
"""After which a stream that does not work, where asking does, is tried again; the next time after twice as long."""
MOST_POLLED_SECONDS = 900.0
SHORT_LIVES = 3
"""Streams in a row that did not live long, after which the next one is as long in coming as after one that does not work."""

Attempt = Callable[[], Awaitable[None]]


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
        self._polled = PolledMarket(exchange, requests, weight=dialect.weight_per_cost, binance=binance)
        self._binance = BinanceMarket(make(), requests, self._polled) if binance else None
        self._unified = UnifiedMarket(make, self._polled, health, dialect.stream_depth)
        self._running: set[str] = set()
        self._closed = asyncio.Event()

    async def close(self) -> None:
        """Also who still runs ends, with `Unavailable`."""
        self._closed.set()
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
        streamed = Feed(self._venue, symbol, sink)
        asked = Feed(self._venue, symbol, sink, by="asking")
        stream, poll = self._ways(streamed, asked)
        coverage = _Coverage(streamed, asked, stream, poll, self._requests.hide)
        try:
            await first_of(coverage.run(), self._closed.wait())
            streamed.down("the venue was closed")
            asked.down("the venue was closed")
        finally:
            streamed.close()
            asked.close()
            coverage.close()
            self._running.discard(symbol)
        raise Unavailable("the venue was closed")

    def _ways(self, streamed: Feed, asked: Feed) -> tuple[Attempt | None, Attempt]:
        """How a symbol is streamed, if it is, and polled; both know what the other delivered."""
        known, tape, binance, has = Known(), Tape(), self._binance, self._exchange.has

        async def poll() -> None:
            await self._polled.run(asked, known)

        async def of_binance() -> None:
            assert binance is not None
            await binance.run(streamed, tape, asked)

        async def unified() -> None:
            await self._unified.run(streamed, known)

        if binance is not None:
            return of_binance, poll
        return (unified if has.get("watchOrderBook") else None), poll


class _Coverage:
    """Keeps one symbol's market coming, by one of two feeds at a time: what is streamed, or what is asked for while that shows nothing.

    The stream is tried beside the asking, which ends in the moment in which the stream shows a book.
    """

    def __init__(
        self, streamed: Feed, asked: Feed, stream: Attempt | None, poll: Attempt, hide: Callable[[str], str]
    ) -> None:
        self._streamed = streamed
        self._asked = asked
        self._stream = stream
        self._poll = poll
        self._hide = hide
        self._came = False
        """Whether anything came, or it was said that nothing does."""
        self._wanted = asyncio.Event()
        """The venue is to be asked."""
        self._timer: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[str] | None = None
        self._asking_failed = asyncio.Event()
        streamed.before_up = self._ask_no_more

    async def run(self) -> None:
        """Until cancelled."""
        if self._stream is None:
            self._wanted.set()
            await self._ask_while_wanted()
        else:
            await first_of(self._ask_while_wanted(), self._try_the_stream(self._stream))

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def _try_the_stream(self, stream: Attempt) -> None:
        feed, pause, polled, short = self._streamed, SHORTEST_PAUSE, POLLED_SECONDS, 0
        self._ask_in_time()
        while True:
            feed.begin()
            began, was_asked = time.monotonic(), self._asked.is_up
            reason = await self._attempt(stream)
            stood, seconds = feed.is_up, time.monotonic() - began
            feed.down(reason)
            if not stood or time.monotonic() - feed.heard_at > QUIET_SECONDS:
                self._wanted.set()
                self._say_down(reason)
            elif not self._wanted.is_set():
                self._ask_in_time()
            if stood and seconds > STABLE_SECONDS:
                pause, polled, short = SHORTEST_PAUSE, POLLED_SECONDS, 0
            short += stood
            if (not stood and was_asked and self._asked.is_up) or short > SHORT_LIVES:
                log.info("the stream is left alone", symbol=feed.symbol, seconds=polled, reason=reason)
                worked = await self._rest(polled)
                polled = min(polled * 2, MOST_POLLED_SECONDS) if worked else POLLED_SECONDS
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _rest(self, seconds: float) -> bool:
        """Whether asking worked for so long."""
        self._asking_failed.clear()
        try:
            await asyncio.wait_for(self._asking_failed.wait(), seconds)
        except TimeoutError:
            return True
        return False

    async def _ask_while_wanted(self) -> None:
        feed, pause = self._asked, SHORTEST_PAUSE
        while True:
            await self._wanted.wait()
            self._asking = asyncio.ensure_future(self._attempt_to_ask())
            began = time.monotonic()
            try:
                await asyncio.wait({self._asking})
            finally:
                self._asking.cancel()
            if not self._wanted.is_set():
                await asyncio.gather(self._asking, return_exceptions=True)
                pause = SHORTEST_PAUSE
                continue
            if feed.is_up and time.monotonic() - began > STABLE_SECONDS:
                pause = SHORTEST_PAUSE
            self._came = self._came or feed.is_up
            reason = "ended" if self._asking.cancelled() else self._asking.result()
            feed.down(reason)
            self._asking_failed.set()
            self._say_down(reason)
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))
            pause = min(pause * 2, LONGEST_POLL_PAUSE)

    async def _attempt_to_ask(self) -> str:
        self._asked.begin()
        return await self._attempt(self._poll)

    async def _attempt(self, attempt: Attempt) -> str:
        """Why it ended."""
        try:
            await attempt()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return "the connection was closed"  # ccxt cancels who waits on it
        except Exception as error:  # noqa: BLE001 - ccxt raises anything; whatever it was, there is no data
            return self._hide(f"{type(error).__name__}: {error}")[:300]
        return "ended"

    def _ask_in_time(self) -> None:
        """Unless the stream shows a book before."""
        self.close()
        self._timer = asyncio.get_running_loop().call_later(FIRST_BOOK_SECONDS, self._wanted.set)

    def _ask_no_more(self) -> None:
        """The stream shows a book."""
        self.close()
        self._wanted.clear()
        self._came = True
        self._asked.down("the stream shows it", planned=True)
        if self._asking is not None:
            self._asking.cancel()

    def _say_down(self, reason: str) -> None:
        """Once, while nothing ever came."""
        if not self._came and not self._asked.is_up:
            self._came = True
            self._asked.absent(reason)
