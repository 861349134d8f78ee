"""Market data: one subscription per venue and symbol, shared by every order that needs it.

Books are conflated: an order sees the latest one, or none when it is too old to decide on. An order says which price it waits
for and is woken when it comes; nothing polls. A subscription outlives its last order for a while, since mark-outs and the next
order need it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal

import structlog

from adapters.base import Adapter
from algorithms.base import Market, When
from execution.circuit import Circuits, Endpoint
from schemas.market import MarketRules, OrderBook, PublicTrade
from schemas.order import Tape

log = structlog.get_logger(__name__)

ZERO = Decimal(0)
LINGER = 120.0
"""Seconds that a subscription outlives its last user."""
LASTED = 60.0
"""Seconds of data after which a stream that ends is taken up again without a long pause."""
MAX_AGE = 20.0
"""Seconds after which a book is too old to decide on, although its stream is up."""
FINE_MS, FINE_KEPT = 1_000, 7_200
COARSE_MS, COARSE_KEPT = 30_000, 5_760
"""Mids kept for transaction costs: one a second for two hours, one in thirty seconds for two days."""


class Feed:
    """The market of one symbol at one venue, as far as it is known."""

    def __init__(self, venue: str, symbol: str) -> None:
        self.venue = venue
        self.symbol = symbol
        self.book: OrderBook | None = None
        self.book_at = 0
        self.last: Decimal | None = None
        self.crossed = False
        """Whether the last book was left out, since it was crossed."""
        self.up = False
        self.session = ""
        self.volume = self.notional = ZERO
        """Since the session began."""
        self.seen = Tape()
        """Since the feed began, over all sessions."""
        self.fine: deque[tuple[int, Decimal, Decimal]] = deque(maxlen=FINE_KEPT)
        self.coarse: deque[tuple[int, Decimal, Decimal]] = deque(maxlen=COARSE_KEPT)
        """(ms, mid, half the spread)."""
        self.users: set[str] = set()
        self.watchers: dict[str, tuple[Callable[[], None], tuple[When, ...]]] = {}
        self.task: asyncio.Task[None] | None = None
        self.closing: asyncio.TimerHandle | None = None
        self.quote: tuple[Decimal, Decimal] | None = None
        """The mid and half the spread of the book; None: not known."""
        self._mid_at = 0

    def take_book(self, book: OrderBook, now: int) -> None:
        self.integrate(now)
        self.book, self.book_at, self._mid_at = book, now, now
        if not book.bids or not book.asks:
            self.quote = None
            return
        bid, ask = book.bids[0].price, book.asks[0].price
        mid, half = self.quote = (bid + ask) / 2, (ask - bid) / 2
        if not self.fine or now - self.fine[-1][0] >= FINE_MS:
            self.fine.append((now, mid, half))
            if not self.coarse or now - self.coarse[-1][0] >= COARSE_MS:
                self.coarse.append((now, mid, half))

    def take_trades(self, trades: Sequence[PublicTrade]) -> None:
        volume = notional = ZERO
        for trade in trades:
            volume += trade.quantity
            notional += trade.quantity * trade.price
        self.volume += volume
        self.notional += notional
        seen = self.seen
        self.seen = Tape(
            volume=seen.volume + volume,
            notional=seen.notional + notional,
            mid_integral=seen.mid_integral,
            observed_ms=seen.observed_ms,
        )
        self.last = trades[-1].price

    def integrate(self, now: int) -> None:
        """Bring the time-weighted sum of the mid up to now."""
        if self.quote is not None and now > self._mid_at:
            elapsed, seen = now - self._mid_at, self.seen
            self.seen = Tape(
                volume=seen.volume,
                notional=seen.notional,
                mid_integral=seen.mid_integral + self.quote[0] * elapsed,
                observed_ms=seen.observed_ms + elapsed,
            )
            self._mid_at = now

    def lost(self, now: int) -> None:
        """What is known is void."""
        self.integrate(now)
        self.up, self.book, self.quote = False, None, None

    def reached(self, when: When) -> bool:
        """Whether the market is where an order waits for it."""
        book = self.book
        if when.source == "last":
            price = self.last
        elif book is None:
            return False
        elif when.source == "bid":
            price = book.bid
        elif when.source == "ask":
            price = book.ask
        else:
            price = book.mid
        if price is None:
            return False
        if when.at_or_below is None and when.at_or_above is None:
            return True
        below, above = when.at_or_below, when.at_or_above
        return (below is not None and price <= below) or (above is not None and price >= above)


class MarketData:
    """Every feed of this replica; the sink of the venues' market streams."""

    def __init__(
        self,
        adapters: Mapping[str, Adapter],
        *,
        now: Callable[[], int],
        monotonic: Callable[[], float],
        max_age: float = MAX_AGE,
        linger: float = LINGER,
        circuits: Circuits | None = None,
    ) -> None:
        self._adapters = adapters
        self._now = now
        self._monotonic = monotonic
        self._max_age = max_age
        self._linger = linger
        self.circuits = circuits if circuits is not None else Circuits(monotonic=monotonic)
        """Of everything that is asked of venues, and not only of their market data."""
        self._feeds: dict[tuple[str, str], Feed] = {}
        self._sessions = itertools.count(1)
        self._opened = f"{now():x}"

    # --- users ------------------------------------------------------------------------------------------------------

    def hold(self, venue: str, symbol: str, user: str) -> Feed:
        """Keep a market's data coming for a user."""
        feed = self._feeds.get((venue, symbol))
        if feed is None:
            feed = self._feeds[(venue, symbol)] = Feed(venue, symbol)
        if feed.closing is not None:
            feed.closing.cancel()
            feed.closing = None
        feed.users.add(user)
        if feed.task is None:
            feed.task = asyncio.get_running_loop().create_task(self._run(feed), name=f"market {venue} {symbol}")
        return feed

    def release(self, venue: str, symbol: str, user: str) -> None:
        """A user needs it no more."""
        feed = self._feeds.get((venue, symbol))
        if feed is None:
            return
        feed.watchers.pop(user, None)
        feed.users.discard(user)
        if not feed.users and feed.closing is None:
            feed.closing = asyncio.get_running_loop().call_later(self._linger, self._close, feed)

    def feed(self, venue: str, symbol: str) -> Feed | None:
        return self._feeds.get((venue, symbol))

    def quote(self, venue: str, symbol: str) -> tuple[Decimal, Decimal] | None:
        """The mid and half the spread now; None: not known, or too old to say so."""
        feed = self._feeds.get((venue, symbol))
        return feed.quote if feed is not None and self._fresh(feed) else None

    def mid(self, venue: str, symbol: str) -> Decimal | None:
        """Half way between bid and ask now; None: not known, or too old to say so."""
        quote = self.quote(venue, symbol)
        return quote[0] if quote is not None else None

    def _fresh(self, feed: Feed) -> bool:
        """Whether a feed's book can be decided on."""
        return feed.book is not None and self._monotonic() - feed.book.received_at <= self._max_age

    def feeds(self) -> Iterable[Feed]:
        return self._feeds.values()

    def market(self, venue: str, symbol: str, rules: MarketRules, available: Decimal | None = None) -> Market:
        """What an order may know of a market now."""
        feed = self._feeds.get((venue, symbol))
        adapter = self._adapters.get(venue)
        usable = adapter is not None and adapter.health.ready and adapter.health.limited_until is None
        usable = usable and self.circuits.usable(venue)
        if feed is None:
            return Market(venue=venue, rules=rules, usable=usable, available=available)
        return Market(
            venue=venue,
            rules=rules,
            book=feed.book if self._fresh(feed) else None,
            book_at=feed.book_at,
            last=feed.last if feed.up else None,
            session=feed.session,
            volume=feed.volume,
            notional=feed.notional,
            usable=usable,
            available=available,
        )

    def watch(self, venue: str, symbol: str, user: str, wake: Callable[[], None], whens: tuple[When, ...]) -> None:
        """Wake a user once when one of its conditions holds; replaces what it waited for before."""
        feed = self._feeds.get((venue, symbol))
        if feed is None:
            return
        if whens:
            feed.watchers[user] = (wake, whens)
        else:
            feed.watchers.pop(user, None)

    async def close(self) -> None:
        tasks = [feed.task for feed in self._feeds.values() if feed.task is not None]
        for feed in self._feeds.values():
            if feed.closing is not None:
                feed.closing.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._feeds.clear()

    # --- the sink of the venues' streams ------------------------------------------------------------------------------

    def on_book(self, venue: str, book: OrderBook) -> None:
        feed = self._feeds.get((venue, book.symbol))
        if feed is not None:
            if book.crossed:
                # The last whole one counts until it is too old.
                if not feed.crossed:
                    log.error("a crossed book is left out", venue=venue, symbol=book.symbol, bid=book.bid, ask=book.ask)
                feed.crossed = True
                return
            feed.crossed = False
            feed.take_book(book, self._now())
            circuit = self.circuits.of(venue, Endpoint.MARKET_DATA)
            if circuit.troubled:
                circuit.succeeded()
            if feed.watchers:
                self._wake(feed, "book")

    def on_trades(self, venue: str, symbol: str, trades: Sequence[PublicTrade]) -> None:
        feed = self._feeds.get((venue, symbol))
        if feed is not None and trades:
            feed.take_trades(trades)
            if feed.watchers:
                self._wake(feed, "trade")

    def on_market(self, venue: str, symbol: str, *, up: bool, reason: str | None) -> None:
        feed = self._feeds.get((venue, symbol))
        if feed is None:
            return
        if up:
            feed.up = True
            feed.session = f"{self._opened}.{next(self._sessions)}"
            feed.volume = feed.notional = ZERO
        elif feed.up:
            log.warning("market data ceased", venue=venue, symbol=symbol, reason=reason)
            feed.lost(self._now())
            self._failed(venue, reason or "ceased")

    # --- inside -------------------------------------------------------------------------------------------------------

    def _wake(self, feed: Feed, change: str) -> None:
        """Wake whom a change concerns: conditions on the book at books, on trades at trades."""
        for user, (wake, whens) in list(feed.watchers.items()):
            for when in whens:
                source = when.source
                if source in ("book", "trade"):
                    hit = source == change
                else:
                    hit = (source == "last") is (change == "trade") and feed.reached(when)
                if hit:
                    del feed.watchers[user]
                    wake()
                    break

    async def _run(self, feed: Feed) -> None:
        adapter = self._adapters.get(feed.venue)
        if adapter is None:
            return
        pause = 1.0
        while True:
            began = self._monotonic()
            try:
                await adapter.run_market(feed.symbol, self)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - market data of one symbol must not end the service
                log.error("market data failed", venue=feed.venue, symbol=feed.symbol, error=str(error))
                self._failed(feed.venue, str(error))
            self.on_market(feed.venue, feed.symbol, up=False, reason="ended")
            if self._monotonic() - began > LASTED:
                pause = 1.0
            await asyncio.sleep(pause)
            pause = min(pause * 2, 30.0)

    def _failed(self, venue: str, reason: str) -> None:
        """One market's data did not come; that says something of the venue only if no other's does."""
        if not any(feed.up for feed in self._feeds.values() if feed.venue == venue):
            self.circuits.of(venue, Endpoint.MARKET_DATA).failed(reason)

    def _close(self, feed: Feed) -> None:
        feed.closing = None
        if feed.users:
            return
        if feed.task is not None:
            feed.task.cancel()
        self._feeds.pop((feed.venue, feed.symbol), None)
