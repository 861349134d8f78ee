"""A venue through ccxt, behind the adapter protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import structlog

from adapters.base import (
    AdapterError,
    AdapterHealth,
    ApprovedOrder,
    Balance,
    ClockSkew,
    CredentialsRefused,
    FillPage,
    MarketSink,
    NotReady,
    NotReadyYet,
    Position,
    RateLimited,
    Rejected,
    Unavailable,
    UpdateSink,
    VenueFill,
    VenueOrder,
)
from adapters.ccxt_venue import candles, limiter, native, parsing
from adapters.ccxt_venue import exchange as ccxt_exchange
from adapters.ccxt_venue.binance_orders import BinanceOrders
from adapters.ccxt_venue.clock import Clock
from adapters.ccxt_venue.dialects import dialect_of, missing
from adapters.ccxt_venue.endpoint import Endpoint
from adapters.ccxt_venue.limiter import Lane, Limiter
from adapters.ccxt_venue.market_data import MarketData
from adapters.ccxt_venue.public_only import guard
from adapters.ccxt_venue.requests import Requests
from adapters.ccxt_venue.stream import Stream
from adapters.ccxt_venue.transport import Transport
from adapters.ccxt_venue.unified_orders import UnifiedOrders
from schemas.market import Candle, MarketRules, OrderBook

log = structlog.get_logger(__name__)

_VARIABLES = {
    "apiKey": "API_KEY",
    "secret": "API_SECRET",
    "password": "API_PASSWORD",
    "walletAddress": "API_KEY",
    "privateKey": "API_SECRET",
}
"""The variable, after the venue's name, of each of ccxt's credentials."""
_BINANCE_SPOT = ("binance", "binanceus")
_ANY_CLOCK = 10**15
"""Ms that clocks may be apart where nothing is signed."""


class _Orders(Protocol):
    """Orders, trades and account of one exchange; the adapter's methods of the same names."""

    async def place(self, order: ApprovedOrder, before_send: Callable[[], None] | None) -> VenueOrder: ...
    async def cancel(self, symbol: str, client_order_id: str, venue_order_id: str | None) -> VenueOrder | None: ...
    async def find(self, symbol: str, client_order_id: str, venue_order_id: str | None) -> VenueOrder | None: ...
    async def open_orders(self, symbol: str | None) -> list[VenueOrder]: ...
    async def fills(self, symbol: str, venue_order_id: str) -> list[VenueFill]: ...
    async def fills_since(self, symbol: str, since_ms: int) -> FillPage: ...
    async def order_book(self, symbol: str, depth: int) -> OrderBook: ...
    async def balances(self) -> list[Balance]: ...
    async def positions(self) -> list[Position]: ...


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
        public_only: bool = False,
    ) -> None:
        """`credentials` by ccxt's names (`apiKey`, `secret`, `password`). `request_ttl_ms`: after which the venue must refuse a
        create that is still on its way; `request_timeout`: seconds until an answer is given up; `clock_bound_ms`: how far the
        clocks may be apart. `public_only`, and every endpoint for paper trading: only rules and market data are had; whatever needs an
        account is `Rejected` here, and cannot leave."""
        self.name = endpoint.name
        self.health = AdapterHealth()
        self._endpoint = endpoint
        self.public_only = public_only or endpoint.where == "paper"
        self._credentials = {} if self.public_only else dict(credentials or {})
        self._dialect = dialect_of(endpoint.exchange)
        self._ttl = request_ttl_ms
        self.request_ttl_ms = request_ttl_ms if self._dialect.expires else 0
        self.max_client_order_id = self._dialect.max_client_order_id
        self._timeout = request_timeout
        self._clock_bound = _ANY_CLOCK if self.public_only else clock_bound_ms
        self._transport = Transport(guard=guard(self._dialect) if self.public_only else None)
        self._public_transport = Transport(guard=guard(self._dialect))
        self._limiter = Limiter(self.health)
        self._requests = Requests(
            endpoint.exchange, self._limiter, self.health, self._credentials.values(), request_timeout
        )
        self._rules: dict[str, MarketRules] = {}
        self._exchange: Any = None
        self._watching: Any = None
        """An exchange without credentials, for what is asked of the market over and over."""
        self._market: MarketData | None = None
        self._orders: _Orders | None = None
        self._clock: Clock | None = None
        self._clock_task: asyncio.Task[None] | None = None

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """See `Adapter.start`."""
        try:
            await self._start()
        except BaseException as error:
            await self.close()
            self._orders = None
            if isinstance(error, NotReady):
                raise type(error)(f"{self._where}: {self._requests.hide(str(error))}") from error
            raise

    async def _start(self) -> None:
        dialect, endpoint = self._dialect, self._endpoint
        self._exchange = exchange = ccxt_exchange.build(
            endpoint,
            dialect,
            timeout=self._timeout,
            ttl_ms=self._ttl,
            transport=self._transport,
            limiter=self._limiter,
            public_only=self.public_only,
        )
        if not self.public_only:
            self._take_credentials()
        if dialect.expiry_option is not None:
            exchange.options[dialect.expiry_option] = self._ttl
        lacking = [] if self.public_only else missing(exchange, dialect)
        if lacking:
            raise NotReady(f"ccxt's {endpoint.exchange} lacks {', '.join(lacking)}: it cannot be traded safely")
        self._clock = clock = Clock(self.name, exchange, self._requests, self._limiter, self.health, self._clock_bound)
        if endpoint.exchange in _BINANCE_SPOT:
            self._orders = BinanceOrders(exchange, self._requests, window_ms=self._ttl)
        else:
            self._orders = UnifiedOrders(exchange, self._requests, dialect, clock, ttl_ms=self._ttl)
        await clock.first()
        await self._load()
        if not self.public_only:
            await self._try_credentials()
            self._take_fees()
        self._clock_task = asyncio.create_task(clock.watch(), name=f"clock of {self.name}")
        self.health.ready = True

    async def close(self) -> None:
        self.health.ready = False
        if self._clock_task is not None:
            self._clock_task.cancel()
            await asyncio.gather(self._clock_task, return_exceptions=True)
            self._clock_task = None
        if self._market is not None:
            await self._market.close()
            self._market = None
        for exchange in (self._watching, self._exchange):
            if exchange is not None:
                await exchange.close()
        self._limiter.close()
        await self._public_transport.close()
        await self._transport.close()

    def _take_credentials(self) -> None:
        """Give the exchange what it signs with, by the names that it has for them."""
        exchange, given = self._exchange, self._credentials
        required = [name for name, needed in exchange.requiredCredentials.items() if needed]
        strange = [name for name in required if name not in _VARIABLES]
        if strange:
            raise NotReady(f"ccxt's {exchange.id} needs {', '.join(strange)}, which this version has no setting for")
        wanted = {_VARIABLES[name] for name in required} | {_VARIABLES["apiKey"], _VARIABLES["secret"]}
        values = {_VARIABLES[name]: value for name, value in given.items() if value and name in _VARIABLES}
        prefix = "".join(c if c.isalnum() else "_" for c in self.name.upper())
        absent = [f"{prefix}_{variable}" for variable in sorted(wanted) if variable not in values]
        if absent:
            raise NotReady(f"no credentials: set {' and '.join(absent)} (or each as ..._FILE, the path of a file)")
        for name, variable in _VARIABLES.items():
            if variable in values and (name in required or name in given):
                setattr(exchange, name, values[variable])

    async def _load(self) -> None:
        exchange = self._exchange
        try:
            markets = await self._ask_urgently(exchange.load_markets())
        except AdapterError as error:
            kind = NotReady if isinstance(error, Rejected) else NotReadyYet
            raise kind(f"its markets cannot be loaded: {error}; is the address right?") from error
        if not markets:
            raise NotReady("it lists no markets")
        self._rules = self._rules_of(exchange)
        self._take_fees()
        if isinstance(exchange.rate_limits, list):
            learned = limiter.of_binance(self.health, exchange.rate_limits)
        else:
            learned = limiter.of_interval(self.health, float(exchange.rateLimit or 0) / self._dialect.weight_per_cost)
        self._limiter.adopt(learned)

    def _rules_of(self, exchange: Any) -> dict[str, MarketRules]:
        return {
            symbol: parsing.rules(market, exchange.precisionMode, **self._abilities(market))
            for symbol, market in exchange.markets.items()
            if parsing.tradable(market)
        }

    def _abilities(self, market: Mapping[str, Any]) -> dict[str, Any]:
        """What the venue can do in a market, beyond numbers."""
        dialect, contract, iceberg = self._dialect, bool(market.get("contract")), False
        if self._endpoint.exchange in _BINANCE_SPOT:
            kinds, iceberg = native.of_binance(market)
        else:
            kinds = dialect.native_on_contracts if contract else dialect.native
        in_base = dialect.fee_in_base
        if in_base is None:
            in_base = market.get("feeSide") in ("get", "base")
        return {"native": kinds, "native_iceberg": iceberg, "fee_in_base": in_base and not contract}

    def _take_fees(self) -> None:
        """The account's own rates, where an answer told them in passing."""
        fees = self._orders.fees if isinstance(self._orders, BinanceOrders) else None
        if fees is not None:
            maker, taker = fees
            self._rules = {
                symbol: msgspec.structs.replace(rules, maker_fee=maker, taker_fee=taker)
                for symbol, rules in self._rules.items()
            }

    async def _try_credentials(self) -> None:
        """Read the account; where the venue has no such thing, its open orders."""
        try:
            try:
                await self.balances()
            except (CredentialsRefused, ClockSkew, RateLimited):
                raise
            except AdapterError as error:
                log.warning("the account cannot be read", venue=self.name, error=str(error))
                await self.open_orders()
        except CredentialsRefused as error:
            what = "the API key: check it, its permissions and the addresses it is bound to"
            if error.code == "-1022":
                what = "the signature: check the API secret"
            raise NotReady(f"it refuses {what} ({error})") from error
        except ClockSkew as error:
            raise NotReady(f"it refuses our clock: synchronise it (NTP) ({error})") from error
        except AdapterError as error:
            kind = NotReady if isinstance(error, Rejected) else NotReadyYet
            raise kind(f"neither account nor open orders can be read: {error}") from error

    def _watcher(self) -> Any:
        """Another exchange of the same markets, that can only watch them."""
        exchange = self._unlicensed(self._public_transport, self._limiter)
        exchange.set_markets_from_exchange(self._exchange)
        return exchange

    def _unlicensed(self, transport: Transport, limit: Limiter) -> Any:
        """Another exchange of the same place, without credentials."""
        return ccxt_exchange.build(
            self._endpoint,
            self._dialect,
            timeout=self._timeout,
            ttl_ms=self._ttl,
            transport=transport,
            limiter=limit,
            public_only=True,
        )

    def _streamer(self) -> Any:
        """The same, for streams: ccxt's books are kept sorted by numbers."""
        exchange = self._watcher()
        exchange.number = float
        return exchange

    @property
    def _started(self) -> _Orders:
        if self.public_only:
            raise Rejected(f"{self.name} is only watched: it has no account there")
        return self._any_started

    @property
    def _any_started(self) -> _Orders:
        if self._orders is None:
            raise Unavailable(f"{self.name} is not started")
        return self._orders

    def _known(self, symbol: str) -> MarketRules:
        rules = self._rules.get(symbol)
        if rules is None:
            raise Rejected(f"{self.name} does not trade {symbol}")
        return rules

    @property
    def _where(self) -> str:
        url = self._endpoint.url
        return f"{self._endpoint.exchange} {f'at {url}' if url else f'({self._endpoint.where})'}"

    async def _ask_urgently(self, request: Coroutine[Any, Any, Any]) -> Any:
        return await self._requests.ask("read", Lane.URGENT, request)

    # --- rules ------------------------------------------------------------------------------------------------------

    def rules(self, symbol: str) -> MarketRules | None:
        return self._rules.get(symbol)

    def symbols(self) -> Sequence[str]:
        return list(self._rules)

    async def refresh_rules(self) -> None:
        """See `Adapter.refresh_rules`. By a thread of its own: a large venue's list keeps ccxt busy for a second."""
        await self._requests.turn(Lane.READ)
        try:
            fresh = await asyncio.to_thread(asyncio.run, self._fresh_markets())
        except RateLimited as error:
            self._limiter.refused(error.until, orders_only=False)
            raise
        for symbol, market in self._exchange.markets.items():
            if symbol not in fresh.markets:  # its orders have to be found and cancelled all the same
                fresh.markets[symbol] = {**market, "active": False}
                fresh.markets_by_id.setdefault(market["id"], [fresh.markets[symbol]])
        rules = self._rules_of(fresh)
        for exchange in (self._exchange, self._watching):
            if exchange is not None:
                exchange.set_markets_from_exchange(fresh)
        self._rules = rules
        self._take_fees()

    async def _fresh_markets(self) -> Any:
        """An exchange of the same place that has loaded its markets, whichever event loop this runs on."""
        health = AdapterHealth()
        limit = Limiter(health)
        requests = Requests(self._endpoint.exchange, limit, health, self._credentials.values(), self._timeout)
        transport = Transport(guard=guard(self._dialect))
        exchange = self._unlicensed(transport, limit)
        try:
            if not await requests.ask("read", Lane.READ, exchange.load_markets()):
                raise requests.unreadable("lists no markets")
        finally:
            await exchange.close()
            await transport.close()
            limit.close()
        return exchange

    # --- orders -----------------------------------------------------------------------------------------------------

    async def place(self, order: ApprovedOrder, *, before_send: Callable[[], None] | None = None) -> VenueOrder:
        """See `Adapter.place`."""
        orders = self._started
        reason = native.refusal(order, self._known(order.symbol), reduces=self._dialect.reduces)
        if reason is not None:
            raise Rejected(f"not sent: {reason}")
        if self._clock is not None:
            self._clock.check()
        return await orders.place(order, before_send)

    async def cancel(self, symbol: str, client_order_id: str, venue_order_id: str | None) -> VenueOrder | None:
        """See `Adapter.cancel`."""
        return await self._started.cancel(symbol, client_order_id, venue_order_id)

    async def find(self, symbol: str, client_order_id: str, venue_order_id: str | None = None) -> VenueOrder | None:
        """See `Adapter.find`."""
        return await self._started.find(symbol, client_order_id, venue_order_id)

    async def open_orders(self, symbol: str | None = None) -> list[VenueOrder]:
        """Every open order of the account, of one symbol where given."""
        return await self._started.open_orders(symbol)

    async def fills(self, symbol: str, venue_order_id: str) -> list[VenueFill]:
        """See `Adapter.fills`."""
        return await self._started.fills(symbol, venue_order_id)

    async def fills_since(self, symbol: str, since_ms: int) -> FillPage:
        """See `Adapter.fills_since`."""
        return await self._started.fills_since(symbol, since_ms)

    async def order_book(self, symbol: str, depth: int = 20) -> OrderBook:
        """The best levels, as the venue answers now."""
        return await self._any_started.order_book(symbol, depth)

    async def candles(self, symbol: str, *, seconds: int, since_ms: int, limit: int = 1000) -> list[Candle]:
        """See `Adapter.candles`."""
        self._known(symbol)
        return await candles.fetch(
            self._exchange, self._requests, symbol, seconds=seconds, since_ms=since_ms, limit=limit
        )

    async def run_market(self, symbol: str, sink: MarketSink) -> None:
        """See `Adapter.run_market`.

        Raises:
            Rejected: the venue does not trade the symbol, or it is watched already.
        """
        self._known(symbol)
        if self._market is None:
            self._watching = self._watching or self._watcher()
            self._market = MarketData(
                self.name,
                self._watching,
                self._streamer,
                self._requests,
                self.health,
                self._dialect,
                binance=self._endpoint.exchange in _BINANCE_SPOT,
            )
        await self._market.run(symbol, sink)

    async def balances(self) -> list[Balance]:
        """What the account holds."""
        return await self._started.balances()

    async def positions(self) -> list[Position]:
        """See `Adapter.positions`."""
        return await self._started.positions()

    async def cancel_all_after(self, seconds: float) -> bool:
        """Have the venue cancel all of the account's orders unless this is called again within `seconds`; 0 disarms.

        False: the venue has no such timer, or is not started; nothing was asked.

        Raises:
            AdapterError
        """
        if self.public_only:
            raise Rejected(f"{self.name} is only watched: it has no account there")
        if not self._dialect.cancel_all_after or self._orders is None:
            return False
        await self._ask_urgently(self._exchange.cancel_all_orders_after(int(seconds * 1000)))
        return True

    async def run_stream(self, sink: UpdateSink) -> None:
        """See `Adapter.run_stream`."""
        orders, has = self._started, self._exchange.has
        told = orders.told if isinstance(orders, UnifiedOrders) else None
        if told is not None and not (has.get("watchOrders") or has.get("watchMyTrades")):
            self.health.stream_supported = False
            return
        await Stream(self.name, self._exchange, self._requests, self.health, told=told).run(sink)
