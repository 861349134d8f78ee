"""Books and trades of Binance spot as they come off the wire: whole books of 20 levels, and trades whose ids have no gaps.

https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams: `<symbol>@depth20@100ms`, `<symbol>@trade`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from adapters.base import AdapterError
from adapters.ccxt_venue import parsing
from adapters.ccxt_venue.feed import DEPTH, Feed
from adapters.ccxt_venue.limiter import Lane
from adapters.ccxt_venue.requests import Requests
from adapters.ccxt_venue.watch import CONNECT_SECONDS, first_of, until_silent
from schemas.market import PublicTrade

PAGE = 1000
LAG_SECONDS = 0.3
"""Between two questions for trades that the venue's REST does not know yet."""
ASKED = 5
MOST_MISSED = 100_000
HOLES_BELIEVED = 3
"""Times that ids turned out to be missing at the venue itself, after which gaps mean nothing."""
_STANDING = "market stream"


class BinanceMarket:
    """Streams on connections of their own, one per symbol."""

    def __init__(self, exchange: Any, requests: Requests) -> None:
        self._exchange = exchange
        self._requests = requests
        self._routes: dict[str, Callable[[dict[str, Any]], None]] = {}
        exchange.on_message = self._message

    async def close(self) -> None:
        await self._exchange.close()

    async def run(self, feed: Feed, tape: Tape) -> None:
        """Deliver until the stream ends.

        Raises: whatever ended it.
        """
        exchange = self._exchange
        market_id = str(exchange.markets[feed.symbol]["id"])
        names = {f"{market_id.lower()}@depth{DEPTH}@100ms": feed.book, f"{market_id.lower()}@trade": tape.event}
        url = f"{exchange.urls['api']['ws']['spot'].removesuffix('/ws')}/stream?streams={'/'.join(names)}"
        tape.begin(feed)
        self._routes |= names
        exchange.ws_dial_backoff = {}  # the pauses are ours
        try:
            standing = exchange.watch(url, _STANDING, None, _STANDING)
            client = exchange.client(url)
            try:
                await self._connected(client, standing)
                await self._first_book(feed)
                feed.up()
                await first_of(
                    standing,
                    feed.failed,
                    tape.fill_gaps(self.trades),
                    until_silent(feed, lambda: self.book(feed.symbol)),
                )
                raise ConnectionError("the stream ended")
            finally:
                await self._forget(client)
        finally:
            for name in names:
                self._routes.pop(name, None)

    async def book(self, symbol: str) -> Any:
        """The book over REST, as it comes."""
        request = {"symbol": self._exchange.markets[symbol]["id"], "limit": DEPTH}
        raw = await self._requests.ask("read", Lane.MARKET, self._exchange.publicGetDepth(request))
        if not isinstance(raw, dict) or "bids" not in raw or "asks" not in raw:
            raise self._requests.unreadable("is not an order book")
        return raw

    async def trades(self, symbol: str) -> list[PublicTrade]:
        """The newest trades over REST, oldest first."""
        request = {"symbol": self._exchange.markets[symbol]["id"], "limit": PAGE}
        rows = await self._requests.ask("read", Lane.MARKET, self._exchange.publicGetTrades(request))
        try:
            found = [parsing.binance_public_trade(row) for row in rows]
        except (KeyError, ValueError, TypeError, ArithmeticError):
            raise self._requests.unreadable("is not a list of trades") from None
        return sorted(found, key=lambda trade: int(trade.trade_id))

    async def _first_book(self, feed: Feed) -> None:
        """The book as it stands, since a quiet one would not be streamed; the stream's own where that fails."""
        try:
            raw = await self.book(feed.symbol)
        except AdapterError:
            async with asyncio.timeout(CONNECT_SECONDS):
                await feed.first.wait()
        else:
            if not feed.first.is_set():
                feed.book(raw)

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

    def _message(self, message: Any) -> bool:
        """Deliver; ccxt need see none of it."""
        if isinstance(message, dict) and isinstance(message.get("data"), dict):
            route = self._routes.get(str(message.get("stream")))
            if route is not None:
                route(message["data"])
        return True


class Tape:
    """The trades of a symbol whose ids count up by one: nothing twice, nothing left out, across gaps and connections."""

    def __init__(self) -> None:
        self._feed: Feed | None = None
        self._last: int | None = None
        self._newest: PublicTrade | None = None
        self._before: PublicTrade | None = None
        """Delivered last on an earlier connection."""
        self._waiting: dict[int, PublicTrade] = {}
        """Came behind a gap."""
        self._gap = asyncio.Event()
        self._holes = 0

    def begin(self, feed: Feed) -> None:
        """Another connection: what came before it is not asked for."""
        self._feed = feed
        self._before = self._newest
        self._last = None
        self._waiting.clear()
        self._gap.clear()

    def event(self, data: dict[str, Any]) -> None:
        """A trade of the stream."""
        assert self._feed is not None
        try:
            trade = parsing.binance_public_trade(data)
        except (KeyError, ValueError, TypeError, ArithmeticError) as error:
            self._feed.fail(ValueError(f"a trade could not be read: {error!r}"))
            return
        number = int(trade.trade_id)
        if self._last is not None and number <= self._last:
            return
        if self._last is None and self._old(trade):
            return
        if self._waiting or (self._last is not None and number > self._last + 1 and self._holes < HOLES_BELIEVED):
            self._waiting[number] = trade
            self._gap.set()
            return
        self._last = number
        self._deliver([trade])

    def _old(self, trade: PublicTrade) -> bool:
        """Whether an earlier connection delivered it. A venue that was set up anew counts from the beginning, later."""
        before = self._before
        return (
            before is not None and trade.timestamp <= before.timestamp and int(trade.trade_id) <= int(before.trade_id)
        )

    async def fill_gaps(self, ask: Callable[[str], Any]) -> None:
        """Ask for what the stream left out, until cancelled.

        Raises:
            ConnectionError: it cannot be had any more. AdapterError: the questions fail.
        """
        while True:
            await self._gap.wait()
            await self._fill(ask)
            self._gap.clear()

    async def _fill(self, ask: Callable[[str], Any]) -> None:
        assert self._feed is not None
        assert self._last is not None
        rows: dict[int, PublicTrade] = {}
        for _ in range(ASKED):
            rows |= {int(trade.trade_id): trade for trade in await ask(self._feed.symbol)}
            newest = max(self._waiting)
            if newest - self._last > MOST_MISSED:
                raise ConnectionError(f"{newest - self._last} trades were left out at once")
            missing = [n for n in range(self._last + 1, newest) if n not in rows and n not in self._waiting]
            if not missing or max(rows, default=0) > missing[-1]:
                break
            await asyncio.sleep(LAG_SECONDS)
        else:
            raise ConnectionError(f"{len(missing)} trades were left out, and REST does not know them")
        if missing:
            if min(rows) > self._last + 1:
                raise ConnectionError(f"more trades were left out than can be asked for: {len(missing)} are lost")
            self._holes += 1  # the venue has none of these ids
        found = {n: trade for n, trade in (rows | self._waiting).items() if self._last < n <= newest}
        self._waiting.clear()
        self._last = newest
        self._deliver([found[n] for n in sorted(found)])

    def _deliver(self, trades: list[PublicTrade]) -> None:
        assert self._feed is not None
        self._newest = trades[-1]
        try:
            self._feed.trades(trades)
        except Exception as error:  # noqa: BLE001 - ccxt's connection must not end by it
            self._feed.fail(error)
