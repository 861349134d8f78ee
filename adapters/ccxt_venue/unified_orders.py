"""Orders and trades through ccxt's unified methods, for every exchange that has no room of its own here."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import msgspec

from adapters.base import (
    ApprovedOrder,
    Balance,
    FillPage,
    OrderUnknown,
    Position,
    Rejected,
    VenueFill,
    VenueOrder,
    every_fill,
)
from adapters.ccxt_venue import parsing
from adapters.ccxt_venue.clock import Clock
from adapters.ccxt_venue.dialects import Dialect
from adapters.ccxt_venue.limiter import Lane, lane_of
from adapters.ccxt_venue.requests import Requests
from schemas.exact_json import plain
from schemas.market import OrderBook
from schemas.terms import OrderType, TimeInForce

SHORTEST_PAGE = 50
"""A list of orders that is shorter than this is complete."""
IDS_KEPT = 10_000


class UnifiedOrders:
    def __init__(self, exchange: Any, requests: Requests, dialect: Dialect, clock: Clock, *, ttl_ms: int) -> None:
        self._exchange = exchange
        self._requests = requests
        self._dialect = dialect
        self._clock = clock
        self._ttl = ttl_ms
        self._ours: dict[str, str] = {}
        """Our client order ids by the exchange's form of them, where that differs."""

    async def place(self, order: ApprovedOrder, before_send: Callable[[], None] | None) -> VenueOrder:
        dialect, exchange = self._dialect, self._exchange
        client_id = self._theirs(order.client_order_id)
        parameters: dict[str, Any] = {dialect.client_id_param: client_id}
        kind, price = "market", None
        parameters |= _waiting(order)
        if order.reduce_only:
            parameters["reduceOnly"] = True
        if order.order_type.has_limit_price:
            assert order.price is not None
            kind, price = "limit", plain(order.price)
            if order.post_only or order.time_in_force is TimeInForce.PO:
                parameters["postOnly"] = True
            elif order.time_in_force in (TimeInForce.IOC, TimeInForce.FOK):
                if order.time_in_force.value not in dialect.instant:
                    raise Rejected(f"{exchange.id} has no {order.time_in_force.value} orders")
                parameters["timeInForce"] = order.time_in_force.value
        dated = dialect.expiry_as != "window_ms"
        if dated:
            await self._requests.turn(lane_of(order))  # before the deadline is written down
        parameters |= self._expiry()
        side = order.side.value
        raw = await self._requests.ask(
            "create",
            lane_of(order),
            exchange.create_order(order.symbol, kind, side, plain(order.quantity), price, parameters),
            before_send=before_send,
            turn_taken=dated,
            client_id=client_id,
        )
        if not isinstance(raw, dict) or raw.get("id") is None:
            raise self._requests.unreadable("to the order holds no order id")
        return self._read(raw, order.symbol, order.client_order_id)

    async def cancel(self, symbol: str, client_order_id: str, venue_order_id: str | None) -> VenueOrder | None:
        order_id = venue_order_id
        parameters: dict[str, Any] = {}
        if order_id is None:
            if self._dialect.cancel_by is not None:
                order_id, parameters = self._dialect.cancel_by(self._theirs(client_order_id))
            else:
                found = await self.find(symbol, client_order_id, None)
                if found is None or found.venue_order_id is None:
                    raise OrderUnknown(f"{self._exchange.id} lists no order {client_order_id}")
                order_id = found.venue_order_id
        raw = await self._requests.ask("cancel", Lane.URGENT, self._exchange.cancel_order(order_id, symbol, parameters))
        if not isinstance(raw, dict) or raw.get("status") is None or raw.get("filled") is None:
            return None
        return self._read(raw, symbol, client_order_id)

    async def find(self, symbol: str, client_order_id: str, venue_order_id: str | None) -> VenueOrder | None:
        exchange, dialect = self._exchange, self._dialect
        theirs = self._theirs(client_order_id)
        order_id = venue_order_id
        parameters: dict[str, Any] = {}
        if order_id is None:
            if dialect.lookup == "open_and_closed":
                return await self._search(symbol, client_order_id, None)
            if dialect.lookup == "label":
                return await self._by_label(symbol, client_order_id)
            order_id, parameters = dialect.lookup_by(theirs)
        elif not exchange.has.get("fetchOrder"):
            return await self._search(symbol, client_order_id, venue_order_id)
        elif exchange.id == "bybit":
            parameters = {"acknowledged": True}
        try:
            raw = await self._question(exchange.fetch_order(order_id, symbol, parameters))
        except OrderUnknown:
            return None
        if not isinstance(raw, dict) or raw.get("id") is None:
            raise self._requests.unreadable("to the question for an order holds no order id")
        return self._read(raw, symbol, client_order_id or None)

    async def open_orders(self, symbol: str | None) -> list[VenueOrder]:
        rows = self._rows(await self._requests.ask("read", Lane.READ, self._exchange.fetch_open_orders(symbol)))
        return [self._read(row, str(row["symbol"]), None) for row in rows]

    async def fills(self, symbol: str, venue_order_id: str) -> list[VenueFill]:
        """See `Adapter.fills`."""
        exchange, told = self._exchange, list[VenueFill]()
        complete = False
        if exchange.has.get("fetchOrderTrades"):
            rows = self._rows(await self._question(exchange.fetch_order_trades(venue_order_id, symbol)))
            told, complete = self._trades(rows, symbol), len(rows) < SHORTEST_PAGE
        if not complete:
            since = await self._began(symbol, venue_order_id)
            told += await every_fill(await self._page(symbol, since, Lane.URGENT, {fill.trade_id for fill in told}))
        chosen = [fill for fill in told if fill.venue_order_id == venue_order_id]
        return sorted(chosen, key=_age)

    async def fills_since(self, symbol: str, since_ms: int) -> FillPage:
        """See `Adapter.fills_since`."""
        return await self._page(symbol, since_ms, Lane.READ, set())

    async def _began(self, symbol: str, venue_order_id: str) -> int | None:
        """When an order was created, so that its trades can be listed from there."""
        if not self._exchange.has.get("fetchOrder"):
            return None
        parameters = {"acknowledged": True} if self._exchange.id == "bybit" else {}
        raw = await self._question(self._exchange.fetch_order(venue_order_id, symbol, parameters))
        told = raw.get("timestamp") if isinstance(raw, dict) else None
        return int(told) if told is not None else None

    async def _page(self, symbol: str, since: int | None, lane: Lane, seen: set[str]) -> FillPage:
        """The trades since a time that were not `seen`; without a time only the newest. A page without a new one is the last."""
        rows = self._rows(await self._requests.ask("read", lane, self._exchange.fetch_my_trades(symbol, since)))
        told = self._trades(rows, symbol)
        fresh = [fill for fill in told if fill.trade_id not in seen]
        if not told or since is None or (since == told[-1].timestamp and not fresh):
            return FillPage(fresh)
        seen.update(fill.trade_id for fill in fresh)
        return FillPage(fresh, lambda: self._page(symbol, told[-1].timestamp, lane, seen))

    async def order_book(self, symbol: str, depth: int) -> OrderBook:
        raw = await self._requests.ask("read", Lane.READ, self._exchange.fetch_order_book(symbol, depth))
        try:
            return parsing.order_book(raw, symbol, depth)
        except (KeyError, ValueError, TypeError, ArithmeticError, IndexError):
            raise self._requests.unreadable("is not an order book") from None

    async def positions(self) -> list[Position]:
        if not self._exchange.has.get("fetchPositions"):
            return []
        rows = self._rows(await self._requests.ask("read", Lane.READ, self._exchange.fetch_positions()))
        markets = self._exchange.markets
        return [
            position
            for row in rows
            if parsing.tradable(markets.get(row.get("symbol")) or {})
            and (position := parsing.unified_position(row)) is not None
        ]

    async def balances(self) -> list[Balance]:
        raw = await self._requests.ask("read", Lane.READ, self._exchange.fetch_balance())
        free, used = raw.get("free") or {}, raw.get("used") or {}
        return [
            Balance(
                asset=asset,
                free=parsing.number(amount) or parsing.ZERO,
                used=parsing.number(used.get(asset)) or parsing.ZERO,
            )
            for asset, amount in free.items()
        ]

    def told(self, row: dict[str, Any]) -> VenueOrder:
        """An order of a stream."""
        return self._read(row, str(row["symbol"]), None)

    async def _search(self, symbol: str, client_order_id: str, venue_order_id: str | None) -> VenueOrder | None:
        """Find an order among the open and the ended ones, where the exchange has no question for one.

        Raises:
            Unknown: it is not listed, but the list is so long that it may have been left out.
        """
        exchange, unsure = self._exchange, False
        parameters = self._dialect.list_by(self._theirs(client_order_id)) if client_order_id else {}
        ended = (
            ["fetch_orders"] if exchange.has.get("fetchOrders") else ["fetch_closed_orders", "fetch_canceled_orders"]
        )
        for name in ("fetch_open_orders", *ended):
            if not exchange.has.get(_camel(name)):
                continue
            rows = self._rows(await self._question(getattr(exchange, name)(symbol, None, None, dict(parameters))))
            for raw in rows:
                named = venue_order_id is not None and raw.get("id") == venue_order_id
                if named or (client_order_id and self._is(raw, client_order_id)):
                    return self._read(raw, symbol, client_order_id or None)
            unsure = unsure or len(rows) >= SHORTEST_PAGE
        if unsure:
            which = client_order_id or venue_order_id
            raise self._requests.unreadable(f"lists too many orders to tell that {which} is not among them")
        return None

    async def _by_label(self, symbol: str, client_order_id: str) -> VenueOrder | None:
        exchange = self._exchange
        market = exchange.markets[symbol]
        request = {"currency": market["base"], "label": self._theirs(client_order_id)}
        raw = await self._question(exchange.privateGetGetOrderStateByLabel(request))
        rows = self._rows(raw.get("result") if isinstance(raw, dict) else None)
        if not rows:
            return None
        newest = max(rows, key=lambda row: row.get("creation_timestamp") or 0)
        return self._read(exchange.parse_order(newest, market), symbol, client_order_id)

    def _is(self, raw: dict[str, Any], client_order_id: str) -> bool:
        info = raw.get("info")
        named = (
            [info.get(name) for name in ("cl_ord_id", "client_order_id", "cliOrdId")] if isinstance(info, dict) else []
        )
        return self._theirs(client_order_id) in (raw.get("clientOrderId"), *named)

    def _expiry(self) -> dict[str, Any]:
        dialect = self._dialect
        if dialect.expiry_param is None:
            return {}
        if dialect.expiry_as == "window_ms":
            return {dialect.expiry_param: self._ttl}
        deadline = time.time() * 1000 + self._clock.ahead() + self._ttl
        if dialect.expiry_as == "deadline_ms":
            return {dialect.expiry_param: int(deadline)}
        text = datetime.fromtimestamp(deadline / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {dialect.expiry_param: text}

    def _theirs(self, client_order_id: str) -> str:
        theirs = self._dialect.client_id_as(client_order_id)
        if theirs != client_order_id:
            while len(self._ours) >= IDS_KEPT:
                del self._ours[next(iter(self._ours))]
            self._ours[theirs] = client_order_id
        return theirs

    def _read(self, raw: dict[str, Any], symbol: str, client_order_id: str | None) -> VenueOrder:
        try:
            order = parsing.unified_order(raw, symbol)
        except (KeyError, ValueError, TypeError, ArithmeticError):
            raise self._requests.unreadable("about an order cannot be understood") from None
        if client_order_id is None and order.client_order_id is not None:
            theirs = order.client_order_id.removeprefix(self._dialect.client_id_prefix)
            client_order_id = self._ours.get(theirs, theirs)
        return msgspec.structs.replace(order, client_order_id=client_order_id)

    def _trades(self, rows: list[Any], symbol: str) -> list[VenueFill]:
        """What can be read of them, oldest first."""
        fills = (parsing.unified_trade(row, symbol) for row in rows)
        return sorted((fill for fill in fills if fill is not None), key=_age)

    async def _question(self, request: Coroutine[Any, Any, Any]) -> Any:
        return await self._requests.ask("read", Lane.URGENT, request)

    def _rows(self, rows: Any) -> list[Any]:
        if not isinstance(rows, list):
            raise self._requests.unreadable("is not a list")
        return rows


def _waiting(order: ApprovedOrder) -> dict[str, Any]:
    """ccxt's parameters of an order that waits for its trigger.

    Raises:
        Rejected: ccxt has none for it.
    """
    if order.display_quantity is not None:
        raise Rejected("not sent: icebergs are sent to Binance spot only")
    if order.order_type is OrderType.TRAILING_STOP:
        assert order.trail_bps is not None
        if order.stop_price is not None:
            raise Rejected("not sent: this venue's trailing stops begin at once, and have no activation price")
        return {"trailingPercent": plain(order.trail_bps / 100)}
    if not order.order_type.has_trigger:
        return {}
    assert order.stop_price is not None
    profit = order.order_type in (OrderType.TAKE_PROFIT, OrderType.TAKE_PROFIT_LIMIT)
    return {"takeProfitPrice" if profit else "stopLossPrice": plain(order.stop_price)}


def _age(fill: VenueFill) -> tuple[int, str]:
    return fill.timestamp, fill.trade_id


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
