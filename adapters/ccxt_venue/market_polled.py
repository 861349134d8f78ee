"""Books and trades by asking again and again, each on its own: trades that cannot be had leave the books alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from adapters.base import AdapterError, RateLimited, Rejected, Unknown
from adapters.ccxt_venue.feed import DEPTH, Feed, Known
from adapters.ccxt_venue.limiter import Lane
from adapters.ccxt_venue.requests import Requests
from adapters.ccxt_venue.watch import LONGEST_SILENCE, first_of

log = structlog.get_logger(__name__)

POLL_SECONDS = 1.0
SHARE = 0.4
"""The part of a venue's rate limit that polling may use, over all symbols; less than what the limiter leaves to it."""
PAGE = 100
LONG_PAGE = 1000
ANSWER_SECONDS = 4.0
"""How long an answer about a book is waited for: a later one would be old."""
BEGIN_SECONDS = 1.0
"""How long the books wait for the beginning of the trades."""
TRADES_AGAIN_SECONDS = 30.0
"""After which trades that could not be had are asked for again."""


class PolledMarket:
    """`weight`: of a request of ccxt's cost 1."""

    def __init__(self, exchange: Any, requests: Requests, *, weight: float, binance: bool) -> None:
        self._exchange = exchange
        self._requests = requests
        self._weight = weight
        self._symbols = 0
        self._depth: int | None = DEPTH
        # Binance has two lists of trades, of unlike ids and prices; others of its dialect may have one of them.
        self._questions: list[tuple[dict[str, Any], int]] = [({}, 1)]
        if binance:
            self._questions.append(({"fetchTradesMethod": "publicGetTrades"}, 5))
        """Parameters of a question for trades, and ccxt's cost of it."""
        self._question = 0
        self._without: set[str] = set()
        """Symbols whose trades could not be had, which was said."""

    async def run(self, feed: Feed, known: Known) -> None:
        """Deliver until cancelled.

        Raises:
            ConnectionError: the venue does not answer. AdapterError: the first question for a book fails.
        """
        self._symbols += 1
        try:
            feed.asked(await self.ask_book(feed.symbol))
            begun = await self.begin(feed.symbol, known)
            feed.up()
            await first_of(self._books(feed), self.trades(feed, known, begun), feed.failed)
        finally:
            self._symbols -= 1

    async def begin(self, symbol: str, known: Known) -> bool:
        """Take note of the trades so far: only later ones are told. False: they cannot be had now."""
        if not self._exchange.has.get("fetchTrades") or symbol in self._without:
            return False
        try:
            async with asyncio.timeout(BEGIN_SECONDS):
                await self._begin(symbol, known)
        except (AdapterError, TimeoutError) as error:
            self._trades_lack(symbol, str(error) or f"no answer within {BEGIN_SECONDS:g} s")
            return False
        return True

    async def _begin(self, symbol: str, known: Known) -> None:
        """Raises: AdapterError: no question for trades is answered."""
        first = self._question
        for turn in range(len(self._questions)):
            self._question = (first + turn) % len(self._questions)
            try:
                known.fresh(await self._page(symbol, known, PAGE))
            except RateLimited:
                raise
            except AdapterError:
                if turn == len(self._questions) - 1:
                    raise
            else:
                return

    async def ask_book(self, symbol: str) -> Any:
        """The book over REST, as ccxt tells it.

        Raises:
            AdapterError
        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                try:
                    raw = await self._ask_book(symbol, self._depth)
                except Rejected:
                    if self._depth is None:
                        raise
                    raw = await self._ask_book(symbol, None)
                    self._depth = None  # it does not give so many levels, and gives as many as it likes
        except TimeoutError:
            raise Unknown(f"no book within {ANSWER_SECONDS:g} s") from None
        if not isinstance(raw, dict) or "bids" not in raw or "asks" not in raw:
            raise self._requests.unreadable("is not an order book")
        return raw

    async def _ask_book(self, symbol: str, depth: int | None) -> Any:
        return await self._requests.ask("read", Lane.MARKET, self._exchange.fetch_order_book(symbol, depth))

    async def trades(self, feed: Feed, known: Known, begun: bool) -> None:
        """Ask for trades until cancelled. Every page must reach back to what is known; where one does not, or none comes, trades are
        counted anew. `begun`: what `begin` said."""
        symbol = feed.symbol
        if not self._exchange.has.get("fetchTrades"):
            await asyncio.get_running_loop().create_future()
        while True:
            if begun:
                self._without.discard(symbol)
                begun = await self._trades_until_lost(feed, known)
                continue
            await asyncio.sleep(TRADES_AGAIN_SECONDS)
            try:
                await self._begin(symbol, known)
            except AdapterError as error:
                self._trades_lack(symbol, str(error))
            else:
                feed.renew("trades are told again")
                begun = True

    async def _trades_until_lost(self, feed: Feed, known: Known) -> bool:
        """Whether only some were lost, and more can be had."""
        symbol, lost = feed.symbol, False
        empty: bool | None = None

        async def once() -> None:
            nonlocal empty, lost
            empty = len(known) == 0 if empty is None else empty
            page = await self._page(symbol, known, PAGE)
            if len(page) >= PAGE and not empty and not any(trade in known for trade in page):
                page = await self._page(symbol, known, LONG_PAGE)
                if not any(trade in known for trade in page):
                    known.fresh(page)
                    lost = True
                    raise ConnectionError(f"more than {len(page)} trades between two questions: some are lost")
            # What comes before the first known one is older than the beginning.
            first = 0 if empty else next((n for n, trade in enumerate(page) if trade in known), 0)
            empty = empty and not page
            feed.trades(known.fresh(page[first:]))

        try:
            await self._again(once, self._questions[self._question][1])
        except ConnectionError as error:
            if not lost:
                self._trades_lack(symbol, str(error))
            feed.renew(str(error))
        return lost

    def _trades_lack(self, symbol: str, reason: str) -> None:
        if symbol not in self._without:
            self._without.add(symbol)
            log.warning("trades cannot be had: books are told without them", symbol=symbol, reason=reason[:300])

    async def _books(self, feed: Feed) -> None:
        async def once() -> None:
            feed.asked(await self.ask_book(feed.symbol))

        await self._again(once)

    async def _again(self, once: Callable[[], Awaitable[None]], cost: int = 1) -> None:
        """Do something on an interval. `cost`: ccxt's, of one request.

        Raises:
            ConnectionError: it failed for too long.
        """
        good = time.monotonic()
        while True:
            await asyncio.sleep(self._interval(cost))
            try:
                await once()
            except AdapterError as error:
                if time.monotonic() - good > LONGEST_SILENCE:
                    raise ConnectionError(f"no answer for {LONGEST_SILENCE:.0f} s: {error}") from error
                if isinstance(error, RateLimited):
                    await asyncio.sleep(min(max(error.until / 1000 - time.time(), 0), LONGEST_SILENCE))
            else:
                good = time.monotonic()

    def _interval(self, cost: int) -> float:
        """Seconds between two questions of a kind; two kinds are asked for each symbol."""
        return max(POLL_SECONDS, 2 * self._requests.spacing(self._weight * cost) * max(self._symbols, 1) / SHARE)

    async def _page(self, symbol: str, known: Known, limit: int) -> Any:
        question, _ = self._questions[self._question]
        rows = await self._requests.ask("read", Lane.MARKET, self._exchange.fetch_trades(symbol, None, limit, question))
        if not isinstance(rows, list):
            raise self._requests.unreadable("is not a list of trades")
        try:
            return known.read(rows, page=True)
        except (KeyError, ValueError, TypeError, AttributeError, ArithmeticError):
            raise self._requests.unreadable("is not a list of trades") from None
