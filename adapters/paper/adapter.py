"""A paper venue behind the adapter protocol: the market is real (or recorded), the fills are computed.

Nothing here can order anything anywhere: of the market it has the read side only (`MarketSource`). The model of the fills is in
`matching.py`. Orders live in memory: after a restart `find` answers None, so that the service writes off what it had here.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import TypeVar

from adapters.base import (
    AdapterHealth,
    ApprovedOrder,
    Balance,
    FillPage,
    MarketSink,
    OrderUnknown,
    Position,
    Rejected,
    Retryable,
    Unavailable,
    UpdateSink,
    VenueFill,
    VenueOrder,
)
from adapters.paper.accounts import Account
from adapters.paper.capabilities import Capabilities, paper_rules
from adapters.paper.feed import Feed
from adapters.paper.matching import ONE, Change, Matcher
from adapters.paper.orders import OrderRecords, PaperOrder
from adapters.paper.source import MarketSource
from adapters.paper.wire import Wire
from schemas.market import Candle, MarketRules, OrderBook
from schemas.terms import OrderType

T = TypeVar("T")

FIRST_BOOK = 2.0
"""Seconds that an order waits for its symbol's first book."""
_MARGIN_MS = 500
"""Of the request's expiry, beyond the way that it has to go: a busy event loop."""
_ALL = Capabilities()


def wall_clock() -> int:
    """Ms since the epoch."""
    return time.time_ns() // 1_000_000


class PaperAdapter:
    """Implements `adapters.base.Adapter`. Market data of a symbol is subscribed once, when first needed, and kept until `close`."""

    def __init__(
        self,
        name: str,
        source: MarketSource,
        *,
        latency_ms: float = 50,
        cancel_latency_ms: float | None = None,
        latency_jitter: float = 0.0,
        balances: Mapping[str, Decimal] | None = None,
        now: Callable[[], int] = wall_clock,
        seed: int = 0,
        maker_fee: Decimal | None = None,
        taker_fee: Decimal | None = None,
        queue_ahead: Decimal = ONE,
        capabilities: Capabilities | None = _ALL,
        remembered: int = 10_000,
    ) -> None:
        """`latency_ms`: of a request and its answer together, half each; stream updates take half. 0: nothing ever waits.
        `cancel_latency_ms`: of cancels, where it differs. `latency_jitter`: each request's latency varies by up to this fraction,
        drawn from `seed`. `balances`: what the account holds by asset; None: whatever it needs. `now`: ms since the epoch; delays
        are the event loop's, so on a virtual-time loop give its time. Fees None: the market's. `queue_ahead`: see `matching.py`.
        `capabilities` None: what the market itself holds natively. `remembered`: how many ended orders are still known.
        """
        if not 0 <= latency_jitter <= 1:
            raise ValueError(f"latency_jitter is a fraction, not {latency_jitter}")
        self.name = name
        self.health = AdapterHealth()
        self.max_client_order_id = 64
        self._source = source
        self._latency = latency_ms / 1000
        self._cancel_latency = self._latency if cancel_latency_ms is None else cancel_latency_ms / 1000
        self.request_ttl_ms = int(latency_ms * (1 + latency_jitter)) + _MARGIN_MS
        self._jitter = latency_jitter
        self._random = random.Random(seed)
        self._now = now
        self._fees = (maker_fee, taker_fee)
        self._queue_ahead = queue_ahead
        self._capabilities = capabilities
        self._account = Account(balances) if balances is not None else None
        self._records = OrderRecords(remembered)
        self._rules: dict[str, MarketRules] = {}
        self._feeds: dict[str, Feed] = {}
        self._sinks: tuple[UpdateSink, ...] = ()
        self._wire = Wire()
        self._ids = itertools.count(1)
        # No two lives of a venue may tell one id: trades are counted once by it.
        self._prefix = f"{name}-{now():x}-"

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """See `Adapter.start`."""
        await self._source.start()
        self.health.ready = True

    async def close(self) -> None:
        self.health.ready = False
        self._wire.close()
        feeds, self._feeds = list(self._feeds.values()), {}
        for feed in feeds:
            await feed.close()
        await self._source.close()

    # --- rules ------------------------------------------------------------------------------------------------------

    def rules(self, symbol: str) -> MarketRules | None:
        """The market's rules, with this venue's fees and order types."""
        known = self._rules.get(symbol)
        if known is None:
            market = self._source.rules(symbol)
            if market is None:
                return None
            known = self._rules[symbol] = paper_rules(market, self._capabilities, *self._fees)
        return known

    def symbols(self) -> Sequence[str]:
        return self._source.symbols()

    async def refresh_rules(self) -> None:
        await self._source.refresh_rules()
        self._rules.clear()
        for symbol, feed in self._feeds.items():
            feed.matcher.rules = self.rules(symbol) or feed.matcher.rules

    # --- orders -----------------------------------------------------------------------------------------------------

    async def place(self, order: ApprovedOrder, *, before_send: Callable[[], None] | None = None) -> VenueOrder:
        """See `Adapter.place`. The first order of a symbol waits for its first book, before `before_send`."""
        feed = self._feed(order.symbol)
        if feed.matcher.book is None and order.order_type in (OrderType.MARKET, OrderType.LIMIT):
            await self._first_book(feed)
        if before_send is not None:
            before_send()
        if not self._latency:
            return self._answered(self._placed(feed.matcher, order))
        built, there, back = self._now(), *self._ways(self._latency)

        def arrives() -> VenueOrder:
            if self._now() - built > self.request_ttl_ms:
                raise Retryable("the request was too long under way")
            return self._placed(feed.matcher, order)

        return self._answered(await self._wire.round_trip(there, back, arrives))

    async def cancel(self, symbol: str, client_order_id: str, venue_order_id: str | None) -> VenueOrder | None:
        """See `Adapter.cancel`."""

        def arrives() -> VenueOrder:
            paper = self._records.find(symbol, client_order_id, venue_order_id)
            if paper is None:
                raise OrderUnknown(f"{client_order_id} is not known")
            self._feed(symbol).matcher.cancel(paper, self._now())
            self._tell(paper, ())
            return paper.told()

        return await self._asked(self._cancel_latency, arrives)

    async def find(self, symbol: str, client_order_id: str, venue_order_id: str | None = None) -> VenueOrder | None:
        """An order that is open, or one of the last that ended."""

        def arrives() -> VenueOrder | None:
            paper = self._records.find(symbol, client_order_id, venue_order_id)
            return paper.told(with_fills=True) if paper is not None else None

        return await self._asked(self._latency, arrives)

    async def open_orders(self, symbol: str | None = None) -> list[VenueOrder]:
        return await self._asked(
            self._latency,
            lambda: [paper.told() for (of, _), paper in self._records.open.items() if symbol in (None, of)],
        )

    async def fills(self, symbol: str, venue_order_id: str) -> list[VenueFill]:
        """See `Adapter.fills`; of the open orders and of the last that ended."""
        return await self._asked(self._latency, lambda: self._records.fills(symbol, venue_order_id))

    async def fills_since(self, symbol: str, since_ms: int) -> FillPage:
        """See `Adapter.fills_since`; of the open orders and of the last that ended, in one page."""
        return FillPage(await self._asked(self._latency, lambda: self._records.fills_since(symbol, since_ms)))

    async def balances(self) -> list[Balance]:
        """What the account holds; nothing where it is not limited."""
        account = self._account
        return await self._asked(self._latency, lambda: account.balances() if account is not None else [])

    async def positions(self) -> list[Position]:
        """None: the account is not limited, so it holds whatever was traded."""
        return []

    def _placed(self, matcher: Matcher, order: ApprovedOrder) -> VenueOrder:
        if len(order.client_order_id) > self.max_client_order_id:
            raise Rejected(f"client order id {order.client_order_id!r} is too long")
        paper = matcher.place(order, self._now())
        self._tell(paper, paper.fills)
        if paper.fills:
            self._feed(order.symbol).print_taken(paper.fills)
        return paper.told(with_fills=True)

    # --- market data ------------------------------------------------------------------------------------------------

    async def order_book(self, symbol: str, depth: int = 20) -> OrderBook:
        """The book that orders are matched with, where it is deep enough; else the market's answer."""
        feed = self._feeds.get(symbol)
        book = feed.matcher.book if feed is not None else None
        if book is None or len(book.bids) < depth or len(book.asks) < depth:
            return await self._source.order_book(symbol, depth)
        if len(book.bids) == depth == len(book.asks):
            return book
        return OrderBook(symbol=symbol, bids=book.bids[:depth], asks=book.asks[:depth], received_at=book.received_at)

    async def candles(self, symbol: str, *, seconds: int, since_ms: int, limit: int = 1000) -> list[Candle]:
        """See `Adapter.candles`: the market's own."""
        return await self._source.candles(symbol, seconds=seconds, since_ms=since_ms, limit=limit)

    async def run_market(self, symbol: str, sink: MarketSink) -> None:
        """See `Adapter.run_market`; returns when a recording ends. What the data does to our orders is told before it."""
        await self._feed(symbol).deliver(symbol, sink)

    def _feed(self, symbol: str) -> Feed:
        feed = self._feeds.get(symbol)
        if feed is None:
            if not self.health.ready:
                raise Unavailable(f"{self.name} is not started")
            rules = self.rules(symbol)
            if rules is None:
                raise Rejected(f"{self.name} does not trade {symbol}")
            matcher = Matcher(
                rules,
                queue_ahead=self._queue_ahead,
                account=self._account,
                records=self._records,
                ids=self._ids,
                id_prefix=self._prefix,
            )
            feed = self._feeds[symbol] = Feed(self.name, self._source, matcher, self._now, self._publish)
        return feed

    async def _first_book(self, feed: Feed) -> None:
        try:
            async with asyncio.timeout(FIRST_BOOK):
                await feed.has_book.wait()
        except TimeoutError:
            raise Rejected("no market data") from None

    # --- updates ----------------------------------------------------------------------------------------------------

    async def run_stream(self, sink: UpdateSink) -> None:
        """See `Adapter.run_stream`."""
        self._sinks = (*self._sinks, sink)
        self.health.stream_up = True
        self.health.stream_since = asyncio.get_running_loop().time()
        try:
            sink.on_stream(self.name, up=True, reason=None)
            await asyncio.get_running_loop().create_future()
        finally:
            self._sinks = tuple(other for other in self._sinks if other is not sink)
            self.health.stream_up = bool(self._sinks)

    def _publish(self, changes: Sequence[Change]) -> None:
        """Tell what the market did to our orders: of each its fills, then its state."""
        if not self._sinks:
            return
        changed: dict[PaperOrder, list[VenueFill]] = {}
        for paper, fill in changes:
            fills = changed.setdefault(paper, [])
            if fill is not None:
                fills.append(fill)
        for paper, fills in changed.items():
            self._tell(paper, fills)

    def _tell(self, paper: PaperOrder, fills: Sequence[VenueFill]) -> None:
        if not self._sinks:
            return
        told = paper.told()
        if not self._latency:
            self._deliver(told, fills)
        else:
            fills = tuple(fills)
            self._wire.after(self._latency / 2, lambda: self._deliver(told, fills))

    def _deliver(self, told: VenueOrder, fills: Sequence[VenueFill]) -> None:
        for sink in self._sinks:
            for fill in fills:
                sink.on_fill(self.name, fill)
            sink.on_order(self.name, told)

    # --- requests ---------------------------------------------------------------------------------------------------

    async def _asked(self, latency: float, arrives: Callable[[], T]) -> T:
        if not self.health.ready:
            raise Unavailable(f"{self.name} is not started")
        if not latency:
            return self._answered(arrives())
        return self._answered(await self._wire.round_trip(*self._ways(latency), arrives))

    def _answered(self, answer: T) -> T:
        self.health.last_answer_at = asyncio.get_running_loop().time()
        return answer

    def _ways(self, latency: float) -> tuple[float, float]:
        """Seconds to the venue, and back."""
        if self._jitter:
            latency *= 1 + self._jitter * self._random.uniform(-1, 1)
        return latency / 2, latency / 2
