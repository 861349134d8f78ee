"""A venue through ccxt, behind the adapter protocol."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import structlog

from adapters.base import (
    AdapterError,
    AdapterHealth,
    ApprovedOrder,
    Balance,
    ClockSkew,
    CredentialsRefused,
    NotReady,
    OrderUnknown,
    RateLimited,
    UpdateSink,
    VenueFill,
    VenueOrder,
)
from adapters.ccxt_venue import exchange as ccxt_exchange
from adapters.ccxt_venue import limiter, parsing
from adapters.ccxt_venue.dialects import DIALECTS, dialect_of, missing
from adapters.ccxt_venue.endpoint import Endpoint
from adapters.ccxt_venue.errors import Kind, judge, scrub
from adapters.ccxt_venue.exchange import Call
from adapters.ccxt_venue.stream import Stream
from adapters.ccxt_venue.transport import Transport
from schemas.market import BookLevel, MarketRules, OrderBook
from schemas.terms import OrderType, TimeInForce

log = structlog.get_logger(__name__)

CLOCK_SECONDS = 60.0
PAGE = 1000
_ERRORS_KEPT = 300


class CcxtAdapter:
    """One venue. Its coroutines raise only `AdapterError`s, and whatever a caller's `before_send` raises."""

    def __init__(
        self,
        endpoint: Endpoint,
        credentials: Mapping[str, str] | None,
        *,
        request_ttl_ms: int = 5000,
        request_timeout: float = 10.0,
        clock_bound_ms: int = 1000,
    ) -> None:
        """`credentials` by ccxt's names (`apiKey`, `secret`, `password`). `clock_bound_ms`: how far the clocks may be apart."""
        self.name = endpoint.name
        self.health = AdapterHealth()
        self._endpoint = endpoint
        self._credentials = dict(credentials or {})
        self._dialect = dialect_of(endpoint.exchange)
        self._binance = endpoint.exchange in ("binance", "binanceus")
        self._ttl = request_ttl_ms
        expires = self._dialect.expiry_param is not None or self._dialect.expiry_option is not None
        self.request_ttl_ms = request_ttl_ms if expires else 0
        self.max_client_order_id = self._dialect.max_client_order_id
        self._timeout = request_timeout
        self._clock_bound = clock_bound_ms
        self._transport = Transport()
        self._exchange: Any = None
        self._limiter = limiter.Limiter()
        self._rules: dict[str, MarketRules] = {}
        self._clock_task: asyncio.Task[None] | None = None

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """See `Adapter.start`."""
        self._check_credentials()
        dialect = self._dialect
        self._exchange = exchange = ccxt_exchange.build(
            self._endpoint, dialect, self._credentials, self._timeout, self._transport
        )
        if dialect.expiry_option is not None:
            exchange.options[dialect.expiry_option] = self._ttl
        if self._endpoint.exchange not in DIALECTS:
            lacking = missing(exchange, dialect)
            if lacking:
                raise NotReady(
                    f"ccxt's {self._endpoint.exchange} lacks {', '.join(lacking)}: it cannot be traded safely"
                )
        await self._measure_clock(bound=self._clock_bound)
        await self._load()
        await self._try_credentials()
        self.health.ready = True
        self._clock_task = asyncio.create_task(self._watch_clock())

    async def close(self) -> None:
        self.health.ready = False
        if self._clock_task is not None:
            self._clock_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._clock_task
        if self._exchange is not None:
            await self._exchange.close()
        await self._transport.close()

    def _check_credentials(self) -> None:
        if not self._credentials.get("apiKey") or not self._credentials.get("secret"):
            prefix = "".join(c if c.isalnum() else "_" for c in self.name.upper())
            raise NotReady(f"no credentials: set {prefix}_API_KEY and {prefix}_API_SECRET (or ..._FILE)")

    async def _load(self) -> None:
        exchange = self._exchange
        try:
            markets = await self._ask("read", 20, exchange.load_markets(), urgent=True)
        except AdapterError as error:
            raise NotReady(f"its markets cannot be loaded: {error}; is {self._where} right and reachable?") from error
        if not markets:
            raise NotReady(f"{self._where} lists no markets")
        self._take_rules()
        limits: Any = None
        if self._binance:
            limits = await self._rate_limits()
        fresh = limiter.of_binance(limits) if limits else limiter.of_interval(float(exchange.rateLimit or 50))
        self._limiter = fresh

    async def _rate_limits(self) -> list[dict[str, object]] | None:
        try:
            info = await self._ask("read", 20, self._exchange.publicGetExchangeInfo(), urgent=True)
        except AdapterError:
            return None
        found = info.get("rateLimits") if isinstance(info, dict) else None
        return found if isinstance(found, list) else None

    def _take_rules(self) -> None:
        exchange = self._exchange
        self._rules = {
            symbol: parsing.rules(market, exchange.precisionMode)
            for symbol, market in exchange.markets.items()
            if market.get("spot") or market.get("swap") or market.get("future")
        }

    async def _try_credentials(self) -> None:
        try:
            await self.balances()
        except CredentialsRefused as error:
            raise NotReady(
                f"the venue refuses the API key or its secret: {error}; check both, and their permissions"
            ) from error
        except ClockSkew as error:
            raise NotReady(f"the venue refuses our clock: {error}; synchronise it (NTP)") from error
        except AdapterError as error:
            raise NotReady(f"the account cannot be read: {error}") from error

    @property
    def _where(self) -> str:
        return self._endpoint.url or f"{self._endpoint.exchange} ({self._endpoint.where})"

    # --- the clock --------------------------------------------------------------------------------------------------

    async def _measure_clock(self, bound: int | None = None) -> None:
        """Learn by how much the venue's clock is ahead of ours, and sign by it.

        Raises:
            NotReady: by more than the bound, or the venue does not answer.
        """
        exchange = self._exchange
        if not exchange.has.get("fetchTime"):
            return
        before = time.time() * 1000
        try:
            told = await self._ask("read", 1, exchange.fetch_time(), urgent=True)
        except AdapterError as error:
            if bound is None:
                raise
            raise NotReady(f"no answer from {self._where}: {error}") from error
        after = time.time() * 1000
        if told is None:
            return
        offset = float(told) - (before + after) / 2
        self.health.clock_offset_ms = offset
        if bound is not None and abs(offset) > bound:
            raise NotReady(
                f"our clock is {abs(offset):.0f} ms {'behind' if offset > 0 else 'ahead of'} the venue's, "
                f"{bound} ms are allowed: synchronise it (NTP), or raise CLOCK_BOUND_MS"
            )
        exchange.options["timeDifference"] = round(-offset)

    async def _watch_clock(self) -> None:
        while True:
            await asyncio.sleep(CLOCK_SECONDS)
            try:
                await self._measure_clock()
            except AdapterError as error:
                log.warning("the venue's clock could not be read", venue=self.name, error=str(error))

    # --- rules ------------------------------------------------------------------------------------------------------

    def rules(self, symbol: str) -> MarketRules | None:
        return self._rules.get(symbol)

    def symbols(self) -> Sequence[str]:
        return list(self._rules)

    async def refresh_rules(self) -> None:
        await self._ask("read", 20, self._exchange.load_markets(True))
        self._take_rules()

    # --- orders -----------------------------------------------------------------------------------------------------

    async def place(self, order: ApprovedOrder, *, before_send: Callable[[], None] | None = None) -> VenueOrder:
        """See `Adapter.place`."""
        await self._limiter.turn(1, order=True)
        exchange, dialect = self._exchange, self._dialect
        price = f"{order.price:f}" if order.price is not None else None
        amount = f"{order.quantity:f}"
        parameters: dict[str, Any] = {dialect.client_id_param: order.client_order_id, **self._expiry()}
        if order.order_type is OrderType.LIMIT:
            if order.post_only:
                parameters["postOnly"] = True
            elif order.time_in_force in (TimeInForce.IOC, TimeInForce.FOK):
                parameters["timeInForce"] = order.time_in_force.value
        kind, side = order.order_type.value, order.side.value
        if not self._binance:
            raw = await self._ask(
                "create", 0, exchange.create_order(order.symbol, kind, side, amount, price, parameters), before_send
            )
            return parsing.unified_order(raw, order.symbol, order.client_order_id)
        parameters["newOrderRespType"] = "FULL"

        async def create() -> Any:
            request = exchange.create_order_request(order.symbol, kind, side, amount, price, parameters)
            return await exchange.privatePostOrder(request)

        raw = await self._ask("create", 0, create(), before_send)
        if not isinstance(raw, dict):
            raw = {}
        return parsing.binance_order(raw, order.symbol)

    def _expiry(self) -> dict[str, Any]:
        dialect = self._dialect
        if dialect.expiry_param is None:
            return {}
        if dialect.expiry_as == "window_ms":
            return {dialect.expiry_param: self._ttl}
        deadline = time.time() + (self.health.clock_offset_ms or 0.0) / 1000 + self._ttl / 1000
        if dialect.expiry_as == "deadline_ms":
            return {dialect.expiry_param: int(deadline * 1000)}
        text = datetime.fromtimestamp(deadline, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {dialect.expiry_param: text}

    async def cancel(self, symbol: str, client_order_id: str, venue_order_id: str | None) -> VenueOrder | None:
        """See `Adapter.cancel`."""
        await self._limiter.turn(1, urgent=True)
        exchange = self._exchange
        if self._binance:
            request = {"symbol": exchange.market_id(symbol), **self._named(client_order_id, venue_order_id)}
            raw = await self._ask("cancel", 0, exchange.privateDeleteOrder(request))
            return parsing.binance_order(raw, symbol, canceled=True) if isinstance(raw, dict) and raw else None
        parameters = self._dialect.cancel_params(client_order_id) if venue_order_id is None else {}
        raw = await self._ask("cancel", 0, exchange.cancel_order(venue_order_id, symbol, parameters))
        if not isinstance(raw, dict) or raw.get("status") is None or raw.get("filled") is None:
            return None
        return parsing.unified_order(raw, symbol, client_order_id)

    async def find(self, symbol: str, client_order_id: str, venue_order_id: str | None = None) -> VenueOrder | None:
        """See `Adapter.find`."""
        exchange, dialect = self._exchange, self._dialect
        try:
            if self._binance:
                request = {"symbol": exchange.market_id(symbol), **self._named(client_order_id, venue_order_id)}
                raw = await self._ask("read", 4, exchange.privateGetOrder(request), urgent=True)
                if not isinstance(raw, dict) or raw.get("orderId") is None:
                    raise judge(
                        self._endpoint.exchange,
                        "read",
                        ValueError("unreadable"),
                        sent=True,
                        status=200,
                        headers={},
                        body="",
                    )
                return parsing.binance_order(raw, symbol)
            if venue_order_id is not None and exchange.has.get("fetchOrder"):
                raw = await self._ask("read", 1, exchange.fetch_order(venue_order_id, symbol), urgent=True)
                return parsing.unified_order(raw, symbol, client_order_id)
            if dialect.lookup == "fetch_order":
                request = dialect.lookup_params(client_order_id)
                raw = await self._ask("read", 1, exchange.fetch_order(None, symbol, request), urgent=True)
                return parsing.unified_order(raw, symbol, client_order_id)
        except OrderUnknown:
            return None
        return await self._search(symbol, client_order_id)

    async def _search(self, symbol: str, client_order_id: str) -> VenueOrder | None:
        """Find an order among the open and the closed ones, where the venue has no question for one."""
        exchange = self._exchange
        for name, fetch in (("fetchOpenOrders", "fetch_open_orders"), ("fetchClosedOrders", "fetch_closed_orders")):
            if not exchange.has.get(name):
                continue
            for raw in await self._ask("read", 1, getattr(exchange, fetch)(symbol), urgent=True):
                info = raw.get("info")
                ids = {raw.get("clientOrderId")} | (set(map(str, info.values())) if isinstance(info, dict) else set())
                if client_order_id in ids:
                    return parsing.unified_order(raw, symbol, client_order_id)
        return None

    @staticmethod
    def _named(client_order_id: str, venue_order_id: str | None) -> dict[str, Any]:
        if venue_order_id is not None:
            return {"orderId": venue_order_id}
        return {"origClientOrderId": client_order_id}

    async def open_orders(self, symbol: str | None = None) -> list[VenueOrder]:
        """Every open order of the account, of one symbol where given."""
        exchange = self._exchange
        weight = 6 if symbol is not None else 80
        if self._binance:
            request = {"symbol": exchange.market_id(symbol)} if symbol is not None else {}
            rows = await self._ask("read", weight, exchange.privateGetOpenOrders(request))
            return [parsing.binance_order(row, self._symbol(row)) for row in self._rows(rows)]
        rows = await self._ask("read", 1, exchange.fetch_open_orders(symbol))
        return [parsing.unified_order(row, row["symbol"]) for row in self._rows(rows)]

    def _symbol(self, row: Mapping[str, Any]) -> str:
        market = self._exchange.markets_by_id.get(row.get("symbol"))
        return str(market[0]["symbol"]) if market else str(row.get("symbol"))

    @staticmethod
    def _rows(rows: Any) -> list[Any]:
        if not isinstance(rows, list):
            raise judge("", "read", ValueError("not a list"), sent=True, status=200, headers={}, body="")
        return rows

    async def fills(
        self, symbol: str, *, venue_order_id: str | None = None, since_ms: int | None = None
    ) -> list[VenueFill]:
        """See `Adapter.fills`."""
        if self._binance:
            return await self._binance_fills(symbol, venue_order_id, since_ms)
        exchange = self._exchange
        if venue_order_id is not None and exchange.has.get("fetchOrderTrades"):
            rows = await self._ask("read", 1, exchange.fetch_order_trades(venue_order_id, symbol), urgent=True)
        else:
            rows = await self._ask("read", 1, exchange.fetch_my_trades(symbol, since_ms), urgent=True)
        fills = [fill for row in self._rows(rows) if (fill := parsing.unified_trade(row, symbol)) is not None]
        return [fill for fill in fills if venue_order_id in (None, fill.venue_order_id)]

    async def _binance_fills(self, symbol: str, order_id: str | None, since_ms: int | None) -> list[VenueFill]:
        exchange = self._exchange
        request: dict[str, Any] = {"symbol": exchange.market_id(symbol), "limit": PAGE}
        if order_id is not None:
            request["orderId"] = order_id
        elif since_ms is not None:
            request["startTime"] = since_ms
        found: list[VenueFill] = []
        while True:
            rows = self._rows(await self._ask("read", 20, exchange.privateGetMyTrades(request), urgent=True))
            found += [parsing.binance_trade(row, symbol) for row in rows]
            if len(rows) < PAGE:
                return found
            request.pop("startTime", None)
            request["fromId"] = int(rows[-1]["id"]) + 1

    # --- market and account -----------------------------------------------------------------------------------------

    async def order_book(self, symbol: str, depth: int = 20) -> OrderBook:
        """The best levels, as the venue answers now."""
        raw = await self._ask("read", 5, self._exchange.fetch_order_book(symbol, depth))

        def levels(rows: Any) -> tuple[BookLevel, ...]:
            return tuple(BookLevel(Decimal(str(row[0])), Decimal(str(row[1]))) for row in rows[:depth])

        return OrderBook(
            symbol=symbol, bids=levels(raw["bids"]), asks=levels(raw["asks"]), received_at=time.monotonic()
        )

    async def balances(self) -> list[Balance]:
        """What the account holds."""
        raw = await self._ask("read", 20, self._exchange.fetch_balance(), urgent=True)
        free, used = raw.get("free") or {}, raw.get("used") or {}
        return [
            Balance(
                asset=asset,
                free=parsing.number(amount) or Decimal(0),
                used=parsing.number(used.get(asset)) or Decimal(0),
            )
            for asset, amount in free.items()
        ]

    async def run_stream(self, sink: UpdateSink) -> None:
        """See `Adapter.run_stream`."""
        has = self._exchange.has
        if not self._binance and not (has.get("watchOrders") or has.get("watchMyTrades")):
            self.health.stream_supported = False
            return
        await Stream(self.name, self._exchange, self.health, binance=self._binance).run(sink)

    # --- every request ----------------------------------------------------------------------------------------------

    async def _ask(
        self,
        kind: Kind,
        weight: int,
        request: Awaitable[Any],
        before_send: Callable[[], None] | None = None,
        *,
        urgent: bool = False,
    ) -> Any:
        """Await a request of ccxt's, with its errors judged. A weight of 0: its turn was awaited before it was built.

        Raises:
            AdapterError: what the failure means. Whatever `before_send` raises.
        """
        health, turns = self.health, self._limiter
        if weight:
            try:
                await turns.turn(weight, urgent=urgent)
            except BaseException:
                _discard(request)
                raise
        call = Call(before_send)
        token = ccxt_exchange.current.set(call)
        try:
            answer = await request
        except AdapterError:
            raise
        except Exception as error:
            if call.refusal is not None:
                raise call.refusal from None
            raise self._judged(kind, error, call) from error
        finally:
            ccxt_exchange.current.reset(token)
            health.queued = turns.queued
        turns.observe(call.headers)
        health.last_answer_at = time.monotonic()
        return answer

    def _judged(self, kind: Kind, error: Exception, call: Call) -> AdapterError:
        judged = judge(
            self._endpoint.exchange,
            kind,
            error,
            sent=call.sent,
            status=call.status,
            headers=call.headers,
            body=call.body,
        )
        message = str(judged)
        for secret in self._credentials.values():
            message = message.replace(secret, "***")
        judged.args = (scrub(message)[:_ERRORS_KEPT],)
        self.health.last_error = str(judged)
        if isinstance(judged, RateLimited):
            self._limiter.refused(judged.until, orders_only=judged.code == "-1015")
            self.health.limited_until = judged.until
        elif isinstance(judged, ClockSkew):
            self._remeasure_soon()
        return judged

    def _remeasure_soon(self) -> None:
        async def again() -> None:
            with contextlib.suppress(AdapterError):
                await self._measure_clock()

        task = asyncio.get_running_loop().create_task(again())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())


def _discard(request: Awaitable[Any]) -> None:
    close = getattr(request, "close", None)
    if close is not None:
        close()
