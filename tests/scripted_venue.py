"""A venue in memory, told step by step how to misbehave.

For what a real server can only be made to do by luck: an answer exactly between two of our steps. It keeps its own record of what
was ordered and filled, so a test can compare it with the ledger's.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial

from adapters.base import (
    AdapterHealth,
    ApprovedOrder,
    Balance,
    DuplicateClientOrderId,
    FillPage,
    MarketSink,
    OrderUnknown,
    Position,
    Rejected,
    Retryable,
    Unknown,
    UpdateSink,
    VenueFill,
    VenueOrder,
    VenueOrderStatus,
)
from schemas.market import BookLevel, Candle, MarketRules, OrderBook, PublicTrade
from schemas.terms import OrderType
from tests.unit.story import RULES


class Held:
    """One order at the venue."""

    def __init__(self, order: ApprovedOrder, number: int) -> None:
        self.order = order
        self.venue_order_id = f"v{number}"
        self.status = VenueOrderStatus.OPEN
        self.fills: list[VenueFill] = []

    @property
    def filled(self) -> Decimal:
        return sum((fill.quantity for fill in self.fills), Decimal(0))

    def told(self, *, with_fills: bool = False) -> VenueOrder:
        return VenueOrder(
            symbol=self.order.symbol,
            client_order_id=self.order.client_order_id,
            venue_order_id=self.venue_order_id,
            status=self.status,
            quantity=self.order.quantity,
            filled=self.filled,
            price=self.order.price,
            side=self.order.side,
            order_type=self.order.order_type,
            stop_price=self.order.stop_price,
            fills=tuple(self.fills) if with_fills else (),
        )


class ScriptedVenue:
    """Market orders fill at once at 100; limit orders rest until `fill`. `script` holds what the next creates meet:
    `lost_after`, `lost_before`, `reject`, `retry`, `hang`, or nothing special."""

    request_ttl_ms = 300
    max_client_order_id = 36

    def __init__(self, name: str = "alpha") -> None:
        self.name = name
        self.health = AdapterHealth(ready=True)
        self.orders: dict[str, Held] = {}
        self.script: deque[str] = deque()
        self.creates: list[str] = []
        self.cancels: list[str] = []
        self.sink: UpdateSink | None = None
        self.markets: dict[str, MarketSink] = {}
        self.quote: tuple[str, str] | None = None
        self.release = asyncio.Event()
        self.blind_for = 0
        """How many lookups still answer "not found" although the order is there."""
        self._numbers = itertools.count(1)
        self._trades = itertools.count(1)

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def rules(self, symbol: str) -> MarketRules | None:
        return RULES if symbol == RULES.symbol else None

    def symbols(self) -> Sequence[str]:
        return [RULES.symbol]

    async def refresh_rules(self) -> None:
        pass

    async def place(self, order: ApprovedOrder, *, before_send: Callable[[], None] | None = None) -> VenueOrder:
        await asyncio.sleep(0)
        if before_send is not None:
            before_send()
        fault = self.script.popleft() if self.script else ""
        self.creates.append(order.client_order_id)
        if fault == "reject":
            raise Rejected("no such luck", code="-2010")
        if fault == "retry":
            raise Retryable("busy")
        if fault == "lost_before":
            raise Unknown("no answer")
        if fault == "hang":
            await self.release.wait()
        known = self.orders.get(order.client_order_id)
        if known is not None and known.status is VenueOrderStatus.OPEN:
            raise DuplicateClientOrderId("Duplicate order sent.", code="-2010")
        held = self.orders[order.client_order_id] = Held(order, next(self._numbers))
        if order.order_type is OrderType.MARKET:
            self._trade(held, order.quantity)
        if fault == "lost_after":
            raise Unknown("no answer")
        return held.told(with_fills=True)

    async def cancel(self, symbol: str, client_order_id: str, venue_order_id: str | None) -> VenueOrder | None:
        await asyncio.sleep(0)
        self.cancels.append(client_order_id)
        held = self.orders.get(client_order_id)
        if held is None or held.status is not VenueOrderStatus.OPEN:
            raise OrderUnknown("Unknown order sent.", code="-2011")
        held.status = VenueOrderStatus.CANCELED
        return held.told()

    async def find(self, symbol: str, client_order_id: str, venue_order_id: str | None = None) -> VenueOrder | None:
        await asyncio.sleep(0)
        if self.blind_for > 0:
            self.blind_for -= 1
            return None
        held = self.orders.get(client_order_id)
        return held.told() if held is not None else None

    async def open_orders(self, symbol: str | None = None) -> list[VenueOrder]:
        return [held.told() for held in self.orders.values() if held.status is VenueOrderStatus.OPEN]

    async def fills(self, symbol: str, venue_order_id: str) -> list[VenueFill]:
        await asyncio.sleep(0)
        return [fill for held in self.orders.values() if venue_order_id == held.venue_order_id for fill in held.fills]

    async def fills_since(self, symbol: str, since_ms: int) -> FillPage:
        """An order per page."""
        await asyncio.sleep(0)
        pages = [[fill for fill in held.fills if fill.timestamp >= since_ms] for held in self.orders.values()]

        async def page(n: int) -> FillPage:
            return FillPage(pages[n], partial(page, n + 1) if n + 1 < len(pages) else None)

        return await page(0) if pages else FillPage([])

    async def order_book(self, symbol: str, depth: int = 20) -> OrderBook:
        return OrderBook(symbol=symbol, bids=(), asks=(), received_at=time.monotonic())

    async def candles(self, symbol: str, *, seconds: int, since_ms: int, limit: int = 1000) -> list[Candle]:
        return []

    async def run_market(self, symbol: str, sink: MarketSink) -> None:
        """Books and trades come when a test says so, by `self.markets[symbol]`."""
        self.markets[symbol] = sink
        sink.on_market(self.name, symbol, up=True, reason=None)
        if self.quote is not None:
            self.show(*self.quote)
        await asyncio.Event().wait()

    def show(self, bid: str, ask: str, size: str = "1000") -> None:
        """The book is this now; it is shown at once to whoever asks later."""
        self.quote = (bid, ask)
        book = OrderBook(
            symbol=RULES.symbol,
            bids=(BookLevel(Decimal(bid), Decimal(size)),),
            asks=(BookLevel(Decimal(ask), Decimal(size)),),
            received_at=time.monotonic(),
        )
        sink = self.markets.get(RULES.symbol)
        if sink is not None:
            sink.on_book(self.name, book)

    def print_trade(self, price: str, quantity: str) -> None:
        """Somebody trades."""
        sink = self.markets.get(RULES.symbol)
        if sink is not None:
            trade = PublicTrade(
                trade_id=str(next(self._trades)),
                price=Decimal(price),
                quantity=Decimal(quantity),
                timestamp=time.time_ns() // 1_000_000,
            )
            sink.on_trades(self.name, RULES.symbol, [trade])

    async def balances(self) -> list[Balance]:
        return []

    async def positions(self) -> list[Position]:
        return []

    async def run_stream(self, sink: UpdateSink) -> None:
        self.sink = sink
        sink.on_stream(self.name, up=True, reason=None)
        await asyncio.Event().wait()

    # --- the market -------------------------------------------------------------------------------------------------

    def fill(self, client_order_id: str, quantity: str, *, tell: bool = True) -> VenueFill:
        """Trade some of a resting order; with `tell`, the stream brings it."""
        held = self.orders[client_order_id]
        fill = self._trade(held, Decimal(quantity))
        if tell and self.sink is not None:
            self.sink.on_fill(self.name, fill)
            self.sink.on_order(self.name, held.told())
        return fill

    @property
    def traded(self) -> Decimal:
        return sum((held.filled for held in self.orders.values()), Decimal(0))

    def _trade(self, held: Held, quantity: Decimal) -> VenueFill:
        fill = VenueFill(
            trade_id=str(next(self._trades)),
            symbol=held.order.symbol,
            side=held.order.side,
            price=held.order.price or Decimal(100),
            quantity=quantity,
            fee=quantity * Decimal("0.1"),
            fee_asset="USDT",
            timestamp=time.time_ns() // 1_000_000,
            venue_order_id=held.venue_order_id,
            client_order_id=held.order.client_order_id,
        )
        held.fills.append(fill)
        if held.filled >= held.order.quantity:
            held.status = VenueOrderStatus.FILLED
        return fill
