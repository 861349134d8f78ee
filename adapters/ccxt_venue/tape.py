"""The trades of a Binance stream: nothing twice, and, where ids count up by one, nothing left out.

Other venues of the dialect give ids with gaps, ids that repeat or fall, or texts, and some show no trades over REST. There nothing is
asked for: a trade is known by its id and by what it was, and comes once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog

from adapters.base import AdapterError
from adapters.ccxt_venue import parsing
from adapters.ccxt_venue.feed import Feed
from schemas.market import PublicTrade

log = structlog.get_logger(__name__)

LAG_SECONDS = 0.3
"""Between two questions for trades that the venue's REST does not know yet."""
ASKED = 5
MOST_MISSED = 100_000
HOLES_BELIEVED = 3
"""Times that ids turned out to be missing at the venue itself, after which gaps mean nothing."""
KEPT = 10_000
"""Trades that are remembered, to know one that comes again."""

Ask = Callable[[str], Awaitable[Sequence[PublicTrade]]]


class Lost(Exception):
    """Trades were left out for certain, and cannot be had any more."""


class Tape:
    """The trades of a symbol, across gaps and connections."""

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
        self._filled = False
        """Whether a question ever brought what the stream had left out."""
        self._asks = True
        self._counts = True
        """Whether ids count up."""
        self._seen: dict[tuple[object, ...], None] = {}
        self._said: set[str] = set()

    def begin(self, feed: Feed) -> None:
        """Another connection: what came before it is not asked for."""
        self._feed = feed
        self._before = self._newest
        self._last = None
        self._asks = True
        self._waiting.clear()
        self._gap.clear()

    def event(self, data: dict[str, Any]) -> None:
        """A trade of the stream."""
        try:
            trade = parsing.binance_public_trade(data)
        except (KeyError, ValueError, TypeError, ArithmeticError) as error:
            self._say_once("a trade cannot be read, and is not told", repr(error))
            return
        number = _whole(trade)
        if self._counts and number is None:
            self._count_no_more(f"an id is {trade.trade_id[:40]!r}")
        if not self._counts or number is None:
            if _key(trade) not in self._seen:
                self._deliver([trade])
            return
        if self._last is not None and number <= self._last:
            if _key(trade) in self._seen or (self._newest is not None and trade.timestamp < self._newest.timestamp):
                return
            self._count_no_more(f"{number} came after {self._last}")
            self._deliver([trade])
            return
        if self._last is None and self._old(trade):
            return
        if number in self._waiting and _key(trade) != _key(self._waiting[number]):
            self._count_no_more(f"{number} came twice, for two trades")
            self._deliver([trade])
            return
        if self._waiting or (self._last is not None and number > self._last + 1 and self._asking):
            self._waiting[number] = trade
            self._gap.set()
            return
        self._last = number
        self._deliver([trade])

    async def fill_gaps(self, ask: Ask) -> None:
        """Ask for what the stream left out, until cancelled. What cannot be had ends nothing: trades are counted anew where some are
        certainly lost, and are taken as they come where the venue does not answer such questions."""
        while True:
            await self._gap.wait()
            try:
                await self._fill(ask)
            except Lost as error:
                self._begin_anew(str(error))
            except (AdapterError, ConnectionError) as error:
                if self._filled:
                    self._begin_anew(str(error))
                else:
                    self._take_as_they_come(str(error))
            self._gap.clear()

    @property
    def _asking(self) -> bool:
        return self._asks and self._holes < HOLES_BELIEVED

    def _old(self, trade: PublicTrade) -> bool:
        """Whether an earlier connection delivered it. A venue that was set up anew counts from the beginning, later."""
        before, number = self._before, _whole(trade)
        last = None if before is None else _whole(before)
        if before is None or number is None or last is None:
            return False
        return trade.timestamp <= before.timestamp and number <= last

    async def _fill(self, ask: Ask) -> None:
        """Raises: Lost. ConnectionError, AdapterError: the venue does not tell what was left out."""
        if not self._waiting:
            return
        assert self._feed is not None
        assert self._last is not None
        last, rows, missing = self._last, dict[int, PublicTrade](), list[int]()
        for _ in range(ASKED):
            if max(self._waiting) - last > MOST_MISSED:
                raise ConnectionError(f"{max(self._waiting) - last} ids were left out at once")
            rows |= {number: trade for trade in await ask(self._feed.symbol) if (number := _whole(trade)) is not None}
            if not self._waiting:
                return  # ids ceased to count meanwhile
            newest = max(self._waiting)
            missing = [n for n in range(last + 1, newest) if n not in rows and n not in self._waiting]
            if not missing or max(rows, default=0) > missing[-1]:
                break
            await asyncio.sleep(LAG_SECONDS)
            if not self._waiting:
                return
        else:
            raise ConnectionError(f"{len(missing)} trades were left out, and REST does not know them")
        if missing:
            if min(rows) > last + 1:
                raise Lost(f"more trades were left out than can be asked for: {len(missing)} are lost")
            self._holes += 1  # the venue has none of these ids
        found = {n: trade for n, trade in (rows | self._waiting).items() if last < n <= newest}
        self._filled = self._filled or len(found) > len(self._waiting)
        self._waiting.clear()
        self._last = newest
        self._deliver([found[n] for n in sorted(found)])

    def _begin_anew(self, reason: str) -> None:
        """Some trades are lost: what waited for them belongs to no session."""
        assert self._feed is not None
        self._last = max(self._waiting, default=self._last)
        self._waiting.clear()
        self._asks = self._filled
        try:
            self._feed.renew(reason)
        except Exception as error:  # noqa: BLE001 - a sink that raises ends the attempt
            self._feed.fail(error)

    def _take_as_they_come(self, reason: str) -> None:
        self._asks = False
        self._say_once("trades that are left out cannot be asked for: they are taken as they come", reason)
        waiting = [self._waiting[n] for n in sorted(self._waiting)]
        self._last = max(self._waiting, default=self._last)
        self._waiting.clear()
        if waiting:
            self._deliver(waiting)

    def _count_no_more(self, reason: str) -> None:
        self._counts = False
        self._say_once("ids of trades do not count up: trades are told as they come", reason)
        waiting = list(self._waiting.values())
        self._waiting.clear()
        if waiting:
            self._deliver(waiting)

    def _say_once(self, what: str, reason: str) -> None:
        if what not in self._said:
            self._said.add(what)
            log.warning(what, symbol=None if self._feed is None else self._feed.symbol, reason=reason[:300])

    def _deliver(self, trades: list[PublicTrade]) -> None:
        assert self._feed is not None
        self._newest = trades[-1]
        self._seen |= dict.fromkeys(map(_key, trades))
        while len(self._seen) > KEPT:
            del self._seen[next(iter(self._seen))]
        try:
            self._feed.trades(trades)
        except Exception as error:  # noqa: BLE001 - ccxt's connection must not end by it
            self._feed.fail(error)


def _whole(trade: PublicTrade) -> int | None:
    """An id that may count up: a whole number."""
    return int(trade.trade_id) if trade.trade_id.isdecimal() and len(trade.trade_id) < 30 else None


def _key(trade: PublicTrade) -> tuple[object, ...]:
    """By what a trade is known, where its id alone may say nothing."""
    return trade.trade_id, trade.timestamp, trade.price, trade.quantity
