"""Books and trades of Binance spot as they come off the wire: whole books of 20 levels, and every trade.

https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams: `<symbol>@depth20@100ms`, `<symbol>@trade`. Venues that
speak this dialect offer the streams in different ways; those that there are, are tried one after the other until a book comes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec

from adapters.ccxt_venue import parsing
from adapters.ccxt_venue.feed import DEPTH, Feed
from adapters.ccxt_venue.limiter import Lane
from adapters.ccxt_venue.market_polled import PolledMarket
from adapters.ccxt_venue.requests import Requests
from adapters.ccxt_venue.tape import Tape
from adapters.ccxt_venue.watch import CONNECT_SECONDS, GRACE_SECONDS, first_of, until_silent
from schemas.market import PublicTrade

PAGE = 1000
SERVED_SECONDS = 5.0
"""After so long, a connection on which no book came although it changed serves none. Some venues accept what they never serve."""
CHECK_SECONDS = 0.25
_STANDING = "market stream"


class Way(msgspec.Struct, frozen=True):
    """One way to the streams of a symbol. `urls`: the first one's stream has the books."""

    urls: tuple[str, ...]
    messages: tuple[dict[str, Any], ...] = ()
    """What is sent on the first connection."""


class BinanceMarket:
    """Streams on connections of their own, one per symbol."""

    def __init__(self, exchange: Any, requests: Requests, poll: PolledMarket) -> None:
        self._exchange = exchange
        self._requests = requests
        self._poll = poll
        self._routes: dict[str, Callable[[Any], None]] = {}
        self._best = 0
        """The way that served last."""
        exchange.on_client_message = self._message

    async def close(self) -> None:
        await self._exchange.close()

    async def run(self, feed: Feed, tape: Tape, polled: Feed) -> None:
        """Deliver until the stream ends. `polled`: by what else books may come meanwhile.

        Raises: whatever ended it, or why no way serves.
        """
        ways, failures = self._ways(feed.symbol), list[str]()
        for turn in range(len(ways)):
            number = (self._best + turn) % len(ways)
            feed.begin()
            try:
                await self._run(ways, number, feed, tape, polled)
            except Exception as error:
                if feed.first.is_set():
                    raise
                failures.append(f"{type(error).__name__}: {error}"[:120])
        raise ConnectionError("; ".join(dict.fromkeys(failures)))

    async def trades(self, symbol: str) -> list[PublicTrade]:
        """The newest trades over REST."""
        request = {"symbol": self._exchange.markets[symbol]["id"], "limit": PAGE}
        rows = await self._requests.ask("read", Lane.MARKET, self._exchange.publicGetTrades(request))
        try:
            return [parsing.binance_public_trade(row) for row in rows]
        except (KeyError, ValueError, TypeError, ArithmeticError):
            raise self._requests.unreadable("is not a list of trades") from None

    def _ways(self, symbol: str) -> list[Way]:
        market = str(self._exchange.markets[symbol]["id"]).lower()
        books, trades = f"{market}@depth{DEPTH}@100ms", f"{market}@trade"
        base = self._exchange.urls["api"]["ws"]["spot"].removesuffix("/ws")
        asked = tuple(
            {"method": "SUBSCRIBE", "params": [name], "id": n} for n, name in enumerate((books, trades), start=1)
        )
        return [
            Way((f"{base}/stream?streams={books}/{trades}",)),
            Way((f"{base}/ws#{market}",), asked),  # the fragment keeps symbols apart, and is not sent
            Way((f"{base}/ws/{books}", f"{base}/ws/{trades}")),
        ]

    async def _run(self, ways: list[Way], number: int, feed: Feed, tape: Tape, polled: Feed) -> None:
        exchange, way, clients = self._exchange, ways[number], list[Any]()
        tape.begin(feed)
        exchange.ws_dial_backoff = {}  # the pauses are ours
        try:
            standing = []
            for url in way.urls:
                self._routes[url] = lambda message: self._take(feed, tape, message)
                standing.append(exchange.watch(url, _STANDING, None, _STANDING))
                standing[-1].add_done_callback(lambda ended: ended.cancelled() or ended.exception())
                clients.append(exchange.client(url))
            await self._connected(clients[0], standing[0])
            for message in way.messages:
                await clients[0].send(message)
            await first_of(
                standing[0],
                *map(_beside, standing[1:]),
                feed.failed,
                tape.fill_gaps(self.trades),
                self._watch(feed, polled, number),
            )
            raise ConnectionError("the stream ended")
        finally:
            for url in way.urls:
                self._routes.pop(url, None)
            for client in clients:
                await self._forget(client)

    async def _watch(self, feed: Feed, polled: Feed, number: int) -> None:
        await self._first_book(feed, polled)
        self._best = number
        feed.up()
        await until_silent(feed, lambda: self._poll.ask_book(feed.symbol))

    async def _first_book(self, feed: Feed, polled: Feed) -> None:
        """Wait for a book of the stream. A quiet one may not be streamed, as long as it stays the same when it is asked for.

        Raises:
            ConnectionError: none came.
        """
        began, moved_at = time.monotonic(), 0.0
        while not feed.first.is_set():
            try:
                await asyncio.wait_for(feed.first.wait(), CHECK_SECONDS)
            except TimeoutError:
                now = time.monotonic()
                moved_at = moved_at or (polled.changed_at if polled.changed_at > began else 0.0)
                unserved = 0 < moved_at < now - 2 * GRACE_SECONDS and now - began > SERVED_SECONDS
                if unserved or (now - began > CONNECT_SECONDS and not polled.is_up):
                    raise ConnectionError(f"connected, but no book in {now - began:.0f} s") from None

    async def _connected(self, client: Any, standing: Any) -> None:
        async with asyncio.timeout(CONNECT_SECONDS):
            await asyncio.wait({client.connected, standing}, return_when=asyncio.FIRST_COMPLETED)
        if not client.connected.done() or client.connected.exception() is not None:
            await standing
            raise ConnectionError("not connected")

    async def _forget(self, client: Any) -> None:
        if self._exchange.clients.get(client.url) is client:
            del self._exchange.clients[client.url]
        await client.close()

    def _message(self, client: Any, message: Any) -> bool:
        """Deliver; ccxt need see none of it."""
        route = self._routes.get(client.url)
        if route is not None:
            route(message)
        return True

    def _take(self, feed: Feed, tape: Tape, message: Any) -> None:
        """A message of a connection of this symbol: in the envelope of a combined stream, or bare."""
        if not isinstance(message, dict):
            return
        data = message.get("data", message)
        try:
            if not isinstance(data, dict) or not self._concerns(feed.symbol, message, data):
                return
            if "bids" in data and "asks" in data:
                feed.book(data)
            elif data.get("e", "trade") == "trade" and "p" in data and "q" in data:
                tape.event(data)
            elif message.get("error") and not feed.first.is_set():
                raise ConnectionError(f"refused: {self._requests.hide(str(message['error']))[:100]}")
        except Exception as error:  # noqa: BLE001 - ccxt's connection must not end by it
            feed.fail(error)

    def _concerns(self, symbol: str, message: dict[str, Any], data: dict[str, Any]) -> bool:
        """Whether a message names this symbol, or none: some venues tell every socket of every symbol."""
        market = str(self._exchange.markets[symbol]["id"]).lower()
        stream, named = message.get("stream"), data.get("s")
        if isinstance(stream, str) and "@" in stream and stream.partition("@")[0].lower() != market:
            return False
        return not isinstance(named, str) or named.lower() == market


async def _beside(standing: Any) -> None:
    """What may end without ending anything."""
    await asyncio.wait({standing})
    await asyncio.get_running_loop().create_future()
