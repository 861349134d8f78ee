"""Orders and trades on Binance spot: its own requests and JSON, so that no number passes through anything but its text."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec

from adapters.base import (
    ApprovedOrder,
    Balance,
    FillPage,
    OrderUnknown,
    Position,
    Rejected,
    Unknown,
    VenueFill,
    VenueOrder,
    every_fill,
)
from adapters.ccxt_venue import parsing
from adapters.ccxt_venue.exchange import read_row
from adapters.ccxt_venue.limiter import Lane, lane_of
from adapters.ccxt_venue.native import BINANCE_TYPES
from adapters.ccxt_venue.requests import Requests
from schemas.exact_json import plain
from schemas.market import OrderBook
from schemas.terms import TimeInForce

PAGE = 1000
DAY_MS = 86_400_000
TURN = 200
"""Orders read per turn of the event loop."""


class BinanceOrders:
    def __init__(self, exchange: Any, requests: Requests, *, window_ms: int) -> None:
        self._exchange = exchange
        self._ask = requests.ask
        self._unreadable = requests.unreadable
        self._window = window_ms
        self.fees: tuple[Decimal, Decimal] | None = None
        """What the account pays as maker and as taker, once it was asked for its balances."""

    async def place(self, order: ApprovedOrder, before_send: Callable[[], None] | None) -> VenueOrder:
        request: dict[str, Any] = {
            "symbol": self._id(order.symbol),
            "side": order.side.value.upper(),
            "type": BINANCE_TYPES[order.order_type],
            "quantity": plain(order.quantity),
            "newClientOrderId": order.client_order_id,
            "newOrderRespType": "FULL",
            "recvWindow": self._window,
        }
        if order.order_type.has_limit_price:
            assert order.price is not None
            request["price"] = plain(order.price)
            if order.post_only or order.time_in_force is TimeInForce.PO:
                request["type"] = "LIMIT_MAKER"
            else:
                instant = order.time_in_force in (TimeInForce.IOC, TimeInForce.FOK)
                request["timeInForce"] = order.time_in_force.value if instant else "GTC"
            if order.display_quantity is not None and order.display_quantity < order.quantity:
                request["icebergQty"] = plain(order.display_quantity)
        if order.stop_price is not None:
            request["stopPrice"] = plain(order.stop_price)
        if order.trail_bps is not None:
            if order.trail_bps != order.trail_bps.to_integral_value():
                raise Rejected(f"not sent: Binance trails by whole bps, and not by {order.trail_bps:f}")
            request["trailingDelta"] = plain(order.trail_bps.to_integral_value())
        raw = await self._ask(
            "create", lane_of(order), self._exchange.privatePostOrder(request), before_send=before_send
        )
        if not isinstance(raw, dict) or not raw.get("orderId"):
            raise self._unreadable("to the order holds no order id")
        return self._read(raw, order.symbol, order.client_order_id)

    async def cancel(self, symbol: str, client_order_id: str, venue_order_id: str | None) -> VenueOrder | None:
        request = self._named(symbol, client_order_id, venue_order_id)
        raw = await self._ask("cancel", Lane.URGENT, self._exchange.privateDeleteOrder(request))
        if not isinstance(raw, dict):
            raise self._unreadable("to the cancel is not about an order")
        if raw.get("status") is None:
            return None
        try:
            return parsing.binance_order(raw, symbol, canceled=client_order_id)
        except (KeyError, ValueError, TypeError, ArithmeticError):
            raise self._unreadable("to the cancel cannot be understood") from None

    async def find(self, symbol: str, client_order_id: str, venue_order_id: str | None) -> VenueOrder | None:
        request = self._named(symbol, client_order_id, venue_order_id)
        try:
            raw = await self._ask("read", Lane.URGENT, self._exchange.privateGetOrder(request))
        except OrderUnknown:
            return None
        if not isinstance(raw, dict) or not raw.get("orderId"):
            raise self._unreadable("to the question for an order holds no order id")
        return self._read(raw, symbol, client_order_id)

    async def open_orders(self, symbol: str | None) -> list[VenueOrder]:
        request = {"symbol": self._id(symbol)} if symbol is not None else {}
        rows = await self._ask("read", Lane.READ, self._exchange.privateGetOpenOrders(request), row_by_row=True)
        found: list[VenueOrder] = []
        try:
            for row in map(read_row, self._rows(rows)):
                found.append(parsing.binance_order(row, self._symbol(row)))
                if len(found) % TURN == 0:
                    await asyncio.sleep(0)  # an account may hold thousands
        except (KeyError, ValueError, TypeError, ArithmeticError):
            raise self._unreadable("to the question for open orders cannot be understood") from None
        return found

    async def fills(self, symbol: str, venue_order_id: str) -> list[VenueFill]:
        """All trades of an order, by ascending trade id."""
        request = {"symbol": self._id(symbol), "limit": PAGE, "orderId": venue_order_id}
        told = await every_fill(self._page(symbol, request, await self._trades(symbol, request)))
        return [fill for fill in told if fill.venue_order_id == venue_order_id]

    async def fills_since(self, symbol: str, since_ms: int) -> FillPage:
        """See `Adapter.fills_since`; by ascending trade id."""
        request = {"symbol": self._id(symbol), "limit": PAGE}
        return self._page(symbol, request, await self._first_since(symbol, request, since_ms))

    def _page(self, symbol: str, request: dict[str, Any], told: list[VenueFill], after: int = -1) -> FillPage:
        """What is new of an answer: ids above `after`. A venue that answers with nothing new has told all."""
        fresh = [fill for fill in told if int(fill.trade_id) > after]
        if not fresh or not _full(told):
            return FillPage(fresh)
        last = int(fresh[-1].trade_id)

        async def following() -> FillPage:
            return self._page(symbol, request, await self._trades(symbol, {**request, "fromId": last + 1}), last)

        return FillPage(fresh, following)

    async def _first_since(self, symbol: str, request: dict[str, Any], since_ms: int) -> list[VenueFill]:
        """The first page since a time. A question by time spans at most a day; one by trade id has no such bound."""
        now = time.time_ns() // 1_000_000
        start = max(since_ms, now - 90 * DAY_MS)
        while True:
            last = start + DAY_MS > now
            span = {"startTime": start} if last else {"startTime": start, "endTime": start + DAY_MS - 1}
            page = await self._trades(symbol, {**request, **span})
            if last:
                return page
            if page:
                return page if _full(page) else await self._trades(symbol, {**request, "fromId": int(page[0].trade_id)})
            start += DAY_MS

    async def _trades(self, symbol: str, request: dict[str, Any]) -> list[VenueFill]:
        lane = Lane.URGENT if "orderId" in request else Lane.READ
        rows = self._rows(await self._ask("read", lane, self._exchange.privateGetMyTrades(request), row_by_row=True))
        try:
            told = [parsing.binance_trade(read_row(row), symbol) for row in rows]
            return sorted(told, key=lambda fill: int(fill.trade_id))
        except (KeyError, ValueError, TypeError, ArithmeticError):
            raise self._unreadable("to the question for trades cannot be understood") from None

    async def order_book(self, symbol: str, depth: int) -> OrderBook:
        request = {"symbol": self._id(symbol), "limit": depth}
        raw = await self._ask("read", Lane.READ, self._exchange.publicGetDepth(request))
        try:
            return parsing.order_book(raw, symbol, depth)
        except (KeyError, ValueError, TypeError, ArithmeticError, IndexError):
            raise self._unreadable("is not an order book") from None

    async def positions(self) -> list[Position]:
        return []  # spot has none

    async def balances(self) -> list[Balance]:
        raw = await self._ask("read", Lane.READ, self._exchange.privateGetAccount({"omitZeroBalances": "true"}))
        rows: list[dict[str, Any]] = self._rows(raw.get("balances") if isinstance(raw, dict) else None)
        rates = raw.get("commissionRates")
        if isinstance(rates, dict):
            maker, taker = parsing.number(rates.get("maker")), parsing.number(rates.get("taker"))
            if maker is not None and taker is not None:
                self.fees = (maker, taker)
        return [
            Balance(
                asset=str(row.get("asset")),
                free=parsing.number(row.get("free")) or parsing.ZERO,
                used=parsing.number(row.get("locked")) or parsing.ZERO,
            )
            for row in rows
        ]

    def _read(self, raw: dict[str, Any], symbol: str, client_order_id: str) -> VenueOrder:
        try:
            order = parsing.binance_order(raw, symbol)
        except (KeyError, ValueError, TypeError, ArithmeticError):
            raise self._unreadable("about the order cannot be understood") from None
        if client_order_id and order.client_order_id not in (None, client_order_id):
            raise Unknown(f"asked about {client_order_id}, the venue answers about {order.client_order_id}")
        return order

    def _named(self, symbol: str, client_order_id: str, venue_order_id: str | None) -> dict[str, Any]:
        named = {"orderId": venue_order_id} if venue_order_id is not None else {"origClientOrderId": client_order_id}
        return {"symbol": self._id(symbol), **named, "recvWindow": self._window}

    def _rows(self, rows: Any) -> list[Any]:
        if not isinstance(rows, list) or not all(isinstance(row, dict | msgspec.Raw) for row in rows):
            raise self._unreadable("is not a list")
        return rows

    def _id(self, symbol: str) -> str:
        """The venue's name of a symbol; of one that it lists no more, too, for an order that is left there."""
        market = self._exchange.markets.get(symbol)
        return str(market["id"]) if market is not None else symbol.replace("/", "")

    def _symbol(self, row: dict[str, Any]) -> str:
        market = self._exchange.markets_by_id.get(row.get("symbol"))
        return str(market[0]["symbol"]) if market else str(row.get("symbol"))


def _full(page: list[VenueFill]) -> bool:
    """Whether more may follow: a page that ends at a round number, since a venue's page may be shorter than was asked for."""
    return len(page) > 0 and len(page) % 100 == 0
