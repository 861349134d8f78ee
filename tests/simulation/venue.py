"""A venue in the simulation: one truth about orders and fills, and faulty ways to it.

`SimVenue` is the exchange: its matching, its record, its market. `SimAdapter` is one replica's way there: requests and answers
are lost, late or refused, streams drop and repeat. A client order id is refused only while an order of that id is open, as at
Binance: a second order under the id of a filled one would be taken, and the oracle would see it.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from adapters.base import (
    AdapterHealth,
    ApprovedOrder,
    Balance,
    DuplicateClientOrderId,
    FillPage,
    MarketSink,
    OrderUnknown,
    RateLimited,
    Rejected,
    Retryable,
    Unavailable,
    Unknown,
    UpdateSink,
    VenueFill,
    VenueOrder,
    VenueOrderStatus,
)
from adapters.ccxt_venue.limiter import Budget, Lane, Limiter, lane_of
from adapters.paper.matching import Matcher
from adapters.paper.orders import OrderRecords, PaperOrder
from schemas.market import BookLevel, Candle, MarketRules, OrderBook, PublicTrade
from schemas.terms import OrderType, Side
from tests.simulation.loop import REPLICA

SYMBOL = "BTC/USDT"
RULES = MarketRules(
    symbol=SYMBOL,
    base="BTC",
    quote="USDT",
    tick=Decimal("0.01"),
    lot=Decimal("0.001"),
    market_lot=Decimal("0.001"),
    min_quantity=Decimal("0.001"),
    max_quantity=Decimal(1000),
    min_notional=Decimal(10),
    native=(OrderType.MARKET, OrderType.LIMIT, OrderType.STOP, OrderType.STOP_LIMIT),
)


WINDOW_MS = 1000
TRADES_PAGE = 5
"""Trades of the account that the venue tells at a time."""
"""Requests are counted per second, by the venue's clock."""


@dataclass
class Faults:
    """How likely what is, per request; seconds for how long."""

    lost_before: float = 0.0
    lost_after: float = 0.0
    slow: float = 0.0
    slowest: float = 8.0
    rejected: float = 0.0
    busy: float = 0.0
    rate_limited: float = 0.0
    not_found: float = 0.0
    """A lookup that does not see yet what is there."""
    update_lost: float = 0.0
    update_twice: float = 0.0
    update_late: float = 0.0
    book_gap: float = 0.0
    book_empty: float = 0.0
    """A book of which one side, or both, are empty."""


class SimVenue:
    """The exchange itself: nothing here fails."""

    def __init__(
        self,
        name: str,
        seed: random.Random,
        now_ms: Callable[[], int],
        monotonic: Callable[[], float],
        *,
        request_ttl_ms: int,
        rate_limit: int,
    ) -> None:
        """`request_ttl_ms`: how long after it was built a request is carried out; `rate_limit`: requests it answers per `WINDOW_MS`."""
        self.name = name
        self.request_ttl_ms = request_ttl_ms
        self.rate_limit = rate_limit
        self._used = (0, 0)
        """The window of now, and how many requests came in it."""
        self.faults = Faults()
        self.down_until = 0.0
        self.banned_until = 0.0
        """Until then every request is answered with a ban."""
        self.silent_until = 0.0
        """Until then the market's streams say nothing, and do not say so."""
        self.orders: list[PaperOrder] = []
        """Every order that was ever taken, in order."""
        self.adapters: list[SimAdapter] = []
        self.sending: Callable[[str], None] = lambda _replica: None
        """Called with a replica's name when it is about to send a create."""
        self.sent: Callable[[str], bool] = lambda _replica: False
        """Called when one has left it; whether it is nobody's any more."""
        self.told: Callable[[str, str], None] = lambda _replica, _child_id: None
        """Called with a replica and the id of an order when it has been told how that stands."""
        self.overtaken: Callable[[str, str], None] = lambda _replica, _child_id: None
        """Called with a replica and the id of an order when it sends that before a cancel, or what only closes a position, that waits."""
        self.taken_at: dict[str, int] = {}
        """When an order of an id was first taken (ms)."""
        self.taken: Callable[[PaperOrder], None] = lambda _order: None
        """Called with each order that was taken."""
        self.refused_twice: Callable[[str], None] = lambda _child_id: None
        """Called with the id of an order that was sent again although it had been taken."""
        self._random = seed
        self.now_ms = now_ms
        self.monotonic = monotonic
        self.records = OrderRecords(1_000_000)
        self.matcher = Matcher(RULES, records=self.records, ids=itertools.count(1), id_prefix=f"{name}-")
        self.mid = Decimal(100)
        self._trades = itertools.count(1)

    @property
    def up(self) -> bool:
        return self.monotonic() >= self.down_until

    async def run(self) -> None:
        """The market: a mid that wanders, books, and trades of others."""
        draw = self._random
        while True:
            await asyncio.sleep(draw.uniform(0.05, 0.4))
            self.mid = max(self.mid + Decimal(draw.randint(-6, 6)) / 100, Decimal(50))
            now = self.now_ms()
            book = self.book()
            self.publish(self.matcher.on_book(book, now))
            trades = []
            if draw.random() < 0.7:
                side = draw.choice((Side.BUY, Side.SELL))
                price = book.asks[0].price if side is Side.BUY else book.bids[0].price
                trades = [
                    PublicTrade(
                        trade_id=f"o{next(self._trades)}",
                        price=price,
                        quantity=Decimal(draw.randint(1, 4000)) / 1000,
                        timestamp=now,
                        side=side,
                    )
                ]
                self.publish(self.matcher.on_trades(trades, now))
            if draw.random() < self.faults.book_empty:
                book = _emptied(book, draw)
            if self.up and self.monotonic() >= self.silent_until:
                for adapter in list(self.adapters):
                    adapter.market(book, trades)

    def book(self) -> OrderBook:
        draw, half = self._random, Decimal("0.02")
        bids = tuple(
            BookLevel(self.mid - half - Decimal(k) / 100, Decimal(draw.randint(100, 3000)) / 1000) for k in range(5)
        )
        asks = tuple(
            BookLevel(self.mid + half + Decimal(k) / 100, Decimal(draw.randint(100, 3000)) / 1000) for k in range(5)
        )
        return OrderBook(symbol=SYMBOL, bids=bids, asks=asks, received_at=self.monotonic())

    def count(self) -> int:
        """A request arrived; returns how many have in this window.

        Raises:
            RateLimited: that was one too many.
        """
        now = self.now_ms()
        window, used = self._used
        used = used + 1 if window == now // WINDOW_MS else 1
        self._used = (now // WINDOW_MS, used)
        if used > self.rate_limit:
            raise RateLimited("too many requests", until=(now // WINDOW_MS + 1) * WINDOW_MS)
        return used

    def place(self, order: ApprovedOrder) -> PaperOrder:
        known = self.records.open.get((order.symbol, order.client_order_id))
        if known is not None:
            self.refused_twice(order.client_order_id)
            raise DuplicateClientOrderId("an order of this id is open")
        paper = self.matcher.place(order, self.now_ms())
        self.orders.append(paper)
        self.taken_at.setdefault(order.client_order_id, self.now_ms())
        self.taken(paper)
        self.publish([(paper, fill) for fill in paper.fills] or [(paper, None)])
        return paper

    def cancel(self, symbol: str, client_order_id: str, venue_order_id: str | None) -> VenueOrder:
        paper = self.records.find(symbol, client_order_id, venue_order_id)
        if paper is None or paper.status is not VenueOrderStatus.OPEN:
            raise OrderUnknown("not open")
        self.matcher.cancel(paper, self.now_ms())
        self.publish([(paper, None)])
        return paper.told()

    def publish(self, changes: Sequence[tuple[PaperOrder, VenueFill | None]]) -> None:
        for paper, fill in changes:
            told = paper.told()
            for adapter in list(self.adapters):
                adapter.update(told, fill)


def _emptied(book: OrderBook, draw: random.Random) -> OrderBook:
    bids, asks = draw.choice((((), book.asks), (book.bids, ()), ((), ())))
    return OrderBook(symbol=book.symbol, bids=bids, asks=asks, received_at=book.received_at)


class SimAdapter:
    """One replica's way to a venue."""

    max_client_order_id = 36

    def __init__(self, venue: SimVenue, replica: str, seed: random.Random, *, skew: Callable[[], float]) -> None:
        """`skew`: seconds by which the replica's clock is wrong now; it knows by how much it was when it last measured."""
        self.name = venue.name
        self.health = AdapterHealth()
        self.request_ttl_ms = venue.request_ttl_ms
        self._venue = venue
        self._replica = replica
        self._random = seed
        self._sink: UpdateSink | None = None
        self._markets: dict[str, MarketSink] = {}
        self._stream_up = False
        self._skew = skew
        self._known_skew = 0.0
        self._limiter = Limiter(self.health, weight=[Budget(WINDOW_MS, venue.rate_limit, "used")])
        self._measure()
        self._cancels_since: list[float] = []
        """Since when the cancels wait that have not left."""
        self._exits_since: list[float] = []
        """The same of creates that only close a position."""

    async def start(self) -> None:
        self.health.ready = True
        self._venue.adapters.append(self)

    async def close(self) -> None:
        self.health.ready = False
        self.gone()

    def gone(self) -> None:
        """The replica is no more."""
        if self in self._venue.adapters:
            self._venue.adapters.remove(self)
        self._sink = None
        self._markets = {}

    def rules(self, symbol: str) -> MarketRules | None:
        return RULES if symbol == SYMBOL else None

    def symbols(self) -> Sequence[str]:
        return [SYMBOL]

    async def refresh_rules(self) -> None:
        pass

    # --- orders -------------------------------------------------------------------------------------------------------

    async def place(self, order: ApprovedOrder, *, before_send: Callable[[], None] | None = None) -> VenueOrder:
        draw, venue, faults = self._random, self._venue, self._venue.faults
        await asyncio.sleep(draw.uniform(0, 0.003))
        asked = venue.monotonic()
        if order.protects:
            self._exits_since.append(asked)
        try:
            await self._limiter.turn(1, lane_of(order))
        finally:
            if order.protects:
                self._exits_since.remove(asked)
        asked_until = venue.monotonic()
        await asyncio.sleep(0)  # who got a turn in the same instant goes on before
        first = self._cancels_since if order.protects else self._cancels_since + self._exits_since
        if any(since < asked_until for since in first):
            venue.overtaken(self._replica, order.client_order_id)
        if not venue.up:
            raise Unavailable("the venue is down")
        self._banned()
        venue.sending(self._replica)
        await asyncio.sleep(0)
        if before_send is not None:
            before_send()
        built = venue.now_ms() + int((self._skew() - self._known_skew) * 1000)
        roll = draw.random()
        if roll < faults.lost_before:
            await asyncio.sleep(draw.uniform(0.05, 2))
            raise Unknown("no answer")
        outcome: dict[str, Any] = {}
        arrived = asyncio.get_running_loop().create_future()

        def arrive() -> None:
            """The request reaches the engine, whether or not anybody waits for it any more."""
            try:
                if not -1000 <= venue.now_ms() - built <= self.request_ttl_ms:
                    self._measure()
                    raise Retryable("outside of its window")
                if not venue.up:
                    raise Retryable("maintenance")
                venue.count()
                if draw.random() < faults.rejected:
                    raise Rejected("refused by the venue")
                outcome["told"] = venue.place(order).told(with_fills=True)
            except Exception as error:
                outcome["error"] = error
            if not arrived.done():
                arrived.set_result(None)

        lost = roll < faults.lost_before + faults.lost_after
        # What loses answers, or senders, delays requests too: some arrive after they were given up here.
        ttl, orphan = self.request_ttl_ms / 1000, venue.sent(self._replica)
        late = (orphan or lost) and draw.random() < 0.5
        # Where its sender died, rather at the end of its time: by then others may have taken its order over.
        seconds = draw.triangular(0.1, ttl + 0.5, ttl) if orphan else draw.uniform(0.1, ttl + 1)
        self._outside(seconds if late else self._delay(), arrive)
        if lost:
            await asyncio.sleep(draw.uniform(0.05, 3))
            raise Unknown("the answer was lost")
        try:
            async with asyncio.timeout(5):
                await arrived
        except TimeoutError:
            raise Unknown("no answer in time") from None
        await asyncio.sleep(draw.uniform(0.001, 0.02))
        if "error" in outcome:
            self._limited(outcome["error"])
            raise outcome["error"]
        told: VenueOrder = outcome["told"]
        venue.told(self._replica, order.client_order_id)
        return told

    async def cancel(self, symbol: str, client_order_id: str, venue_order_id: str | None) -> VenueOrder | None:
        asked = self._venue.monotonic()
        self._cancels_since.append(asked)
        try:
            await self._limiter.turn(1, Lane.URGENT)
        finally:
            self._cancels_since.remove(asked)
        told = await self._ask(lambda: self._venue.cancel(symbol, client_order_id, venue_order_id))
        self._venue.told(self._replica, client_order_id)
        return told

    async def find(self, symbol: str, client_order_id: str, venue_order_id: str | None = None) -> VenueOrder | None:
        def look() -> VenueOrder | None:
            if self._random.random() < self._venue.faults.not_found and self._venue.now_ms() % 3:
                paper = self._venue.records.find(symbol, client_order_id, venue_order_id)
                if paper is not None and self._venue.now_ms() - paper.timestamp < 500:
                    return None  # reads lag writes for a moment
            paper = self._venue.records.find(symbol, client_order_id, venue_order_id)
            return paper.told() if paper is not None else None

        await self._limiter.turn(1, Lane.URGENT)
        told = await self._ask(look)
        if told is not None:
            self._venue.told(self._replica, client_order_id)
        return told

    async def open_orders(self, symbol: str | None = None) -> list[VenueOrder]:
        await self._limiter.turn(1, Lane.READ)
        found = await self._ask(lambda: [paper.told() for paper in self._venue.records.open.values()])
        for told in found:
            self._venue.told(self._replica, told.client_order_id)
        return found

    async def fills(self, symbol: str, venue_order_id: str) -> list[VenueFill]:
        await self._limiter.turn(1, Lane.READ)
        return await self._ask(lambda: self._venue.records.fills(symbol, venue_order_id))

    async def fills_since(self, symbol: str, since_ms: int) -> FillPage:
        return await self._page(symbol, since_ms, frozenset())

    async def _page(self, symbol: str, since_ms: int, told: frozenset[str]) -> FillPage:
        def look() -> list[VenueFill]:
            found = self._venue.records.fills_since(symbol, since_ms)
            return [fill for fill in found if fill.trade_id not in told][:TRADES_PAGE]

        await self._limiter.turn(1, Lane.READ)
        fills = await self._ask(look)
        if len(fills) < TRADES_PAGE:
            return FillPage(fills)
        return FillPage(fills, lambda: self._page(symbol, since_ms, told | {fill.trade_id for fill in fills}))

    async def order_book(self, symbol: str, depth: int = 20) -> OrderBook:
        await self._limiter.turn(1, Lane.MARKET)
        return await self._ask(self._venue.book)

    async def candles(self, symbol: str, *, seconds: int, since_ms: int, limit: int = 1000) -> list[Candle]:
        return []

    async def balances(self) -> list[Balance]:
        return []

    async def _ask(self, effect: Callable[[], Any]) -> Any:
        draw, faults, sent = self._random, self._venue.faults, self._now()
        await asyncio.sleep(self._delay())
        if not self._venue.up:
            raise Unavailable("the venue is down")
        self._banned()
        try:
            self._limiter.observe({"used": str(self._venue.count())}, sent)
        except RateLimited as error:
            self._limited(error)
            raise
        roll = draw.random()
        if roll < faults.busy:
            raise Retryable("busy")
        if roll < faults.busy + faults.rate_limited:
            raise RateLimited("too many requests", until=self._venue.now_ms() + 500)
        if roll < faults.busy + faults.rate_limited + faults.lost_before:
            raise Unknown("no answer")
        answer = effect()
        if draw.random() < faults.lost_after:
            raise Unknown("the answer was lost")
        await asyncio.sleep(draw.uniform(0.001, 0.02))
        return answer

    def relieved(self) -> None:
        """The venue's limit is another one from now on."""
        self._limiter.adopt(Limiter(self.health, weight=[Budget(WINDOW_MS, self._venue.rate_limit, "used")]))

    def _measure(self) -> None:
        """Learn by how much our clock is wrong."""
        self._known_skew = self._skew()
        self._limiter.skew_ms = -int(self._known_skew * 1000)

    def _now(self) -> int:
        return self._venue.now_ms() + int(self._skew() * 1000)

    def _limited(self, error: Exception) -> None:
        if isinstance(error, RateLimited) and error.until is not None:
            self._limiter.refused(error.until + int(self._skew() * 1000), orders_only=False)

    def _banned(self) -> None:
        if self._venue.monotonic() < self._venue.banned_until:
            rest = self._venue.banned_until - self._venue.monotonic()
            raise RateLimited("banned", until=self._venue.now_ms() + int(rest * 1000))

    def _delay(self) -> float:
        draw, faults = self._random, self._venue.faults
        return draw.uniform(0.1, faults.slowest) if draw.random() < faults.slow else draw.uniform(0.001, 0.03)

    def _outside(self, seconds: float, action: Callable[[], None]) -> None:
        """What is on the wire is nobody's any more: it arrives although its sender died."""
        token = REPLICA.set("")
        try:
            asyncio.get_running_loop().call_later(seconds, action)
        finally:
            REPLICA.reset(token)

    def _inside(self, seconds: float, action: Callable[..., None], *args: Any) -> None:
        """What comes to the replica is handled by it, if it still can."""
        token = REPLICA.set(self._replica)
        try:
            asyncio.get_running_loop().call_later(seconds, action, *args)
        finally:
            REPLICA.reset(token)

    # --- streams ------------------------------------------------------------------------------------------------------

    async def run_stream(self, sink: UpdateSink) -> None:
        self._sink = sink
        while True:
            while not self._venue.up:
                await asyncio.sleep(0.5)
            await asyncio.sleep(self._random.uniform(0.01, 0.2))
            self._stream_up = self.health.stream_up = True
            sink.on_stream(self.name, up=True, reason=None)
            ends = self._venue.monotonic() + self._random.uniform(5, 60)
            while self._venue.up and self._venue.monotonic() < ends:
                await asyncio.sleep(0.5)
            self._stream_up = self.health.stream_up = False
            sink.on_stream(self.name, up=False, reason="dropped")
            await asyncio.sleep(self._random.uniform(0.1, 2))

    def update(self, told: VenueOrder, fill: VenueFill | None) -> None:
        """Something happened to an order of the account."""
        if self._sink is None or not self._stream_up or not self._venue.up:
            return
        draw, faults = self._random, self._venue.faults
        if draw.random() < faults.update_lost:
            return
        for _ in range(2 if draw.random() < faults.update_twice else 1):
            late = draw.random() < faults.update_late
            self._inside(draw.uniform(0.5, 5) if late else draw.uniform(0.001, 0.02), self._tell, told, fill)

    def _tell(self, told: VenueOrder, fill: VenueFill | None) -> None:
        if self._sink is None:
            return
        if fill is not None:
            self._sink.on_fill(self.name, fill)
        self._sink.on_order(self.name, told)
        self._venue.told(self._replica, told.client_order_id)

    async def run_market(self, symbol: str, sink: MarketSink) -> None:
        await asyncio.sleep(self._random.uniform(0.01, 0.2))
        sink.on_market(self.name, symbol, up=True, reason=None)
        self._markets[symbol] = sink
        try:
            await asyncio.Event().wait()
        finally:
            self._markets.pop(symbol, None)

    def market(self, book: OrderBook, trades: Sequence[PublicTrade]) -> None:
        sink = self._markets.get(SYMBOL)
        if sink is None:
            return
        if self._random.random() < self._venue.faults.book_gap:
            self._inside(0.0, lambda: sink.on_market(self.name, SYMBOL, up=False, reason="gap"))
            self._inside(self._random.uniform(0.5, 5), lambda: sink.on_market(self.name, SYMBOL, up=True, reason=None))
            return
        self._inside(0.005, sink.on_book, self.name, book)
        if trades:
            self._inside(0.005, sink.on_trades, self.name, SYMBOL, list(trades))
