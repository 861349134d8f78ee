"""A venue that is only watched: market data comes, and nothing that needs an account can leave. Over real sockets."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from typing import Any

import ccxt
import pytest

from adapters.base import Adapter, AdapterError, AdapterHealth, Rejected
from adapters.ccxt_venue import CcxtAdapter, parse_endpoints
from adapters.ccxt_venue import exchange as ccxt_exchange
from adapters.ccxt_venue.dialects import DIALECTS, dialect_of
from adapters.ccxt_venue.endpoint import Endpoint
from adapters.ccxt_venue.limiter import Limiter
from adapters.ccxt_venue.public_only import guard
from adapters.ccxt_venue.transport import Transport
from adapters.simulator.control import VenueControl
from adapters.simulator.server import Venue, VenueConfig
from adapters.simulator.symbols import SymbolSpec
from schemas.terms import Side
from tests.integration.test_ccxt_adapter import order
from tests.integration.test_ccxt_market import Sink, until, watching
from tests.unit.test_adapter_dialects import OURS, Capture, capture
from tests.unit.test_adapter_dialects import Venue as Made

__all__ = ["capture"]
BTC = "BTC/USDT"
KEYS = {"apiKey": "local", "secret": "local-secret"}
ORDERS: dict[str, Any] = {
    "place": lambda adapter: adapter.place(order()),
    "cancel": lambda adapter: adapter.cancel(BTC, "c1", None),
    "find": lambda adapter: adapter.find(BTC, "c1"),
    "open_orders": lambda adapter: adapter.open_orders(),
    "fills": lambda adapter: adapter.fills(BTC, "1"),
    "fills_since": lambda adapter: adapter.fills_since(BTC, 1),
    "balances": lambda adapter: adapter.balances(),
    "positions": lambda adapter: adapter.positions(),
    "run_stream": lambda adapter: adapter.run_stream(Sink()),
    "cancel_all_after": lambda adapter: adapter.cancel_all_after(60),
}


@asynccontextmanager
async def paper(**options: Any) -> AsyncIterator[tuple[Venue, CcxtAdapter]]:
    spec = SymbolSpec(base="BTC", quote="USDT", price=Decimal(50000))
    venue = Venue(VenueConfig(symbols=[spec], market=None))
    await venue.start()
    [endpoint] = parse_endpoints(f"dry=binance@paper+{venue.url}")
    adapter = CcxtAdapter(endpoint, None, public_only=True, **options)
    try:
        yield venue, adapter
    finally:
        await adapter.close()
        await venue.stop()


async def test_market_data_comes_without_credentials() -> None:
    async with paper() as (venue, adapter), VenueControl(venue.url) as control:
        await adapter.start()
        assert adapter.health.ready
        await control.trade("BTCUSDT", "BUY", "1", "49999")
        await control.trade("BTCUSDT", "SELL", "1", "50001")
        rules = adapter.rules(BTC)
        assert rules is not None
        assert rules.tick == Decimal("0.01")
        assert (await adapter.order_book(BTC)).bid == Decimal(49999)
        async with watching(adapter, BTC) as sink:
            await control.trade("BTCUSDT", "BUY", "0.25")
            await until(lambda: sink.of("trade"))
            assert (sink.of("trade")[0].quantity, sink.of("trade")[0].side) == (Decimal("0.25"), Side.BUY)
        candles = await adapter.candles(BTC, seconds=60, since_ms=venue.now() - 120_000)
        assert candles[-1].close == Decimal(50001)
        await adapter.refresh_rules()


async def test_every_coroutine_that_needs_an_account_is_refused() -> None:
    public = {
        "start", "close", "rules", "symbols", "refresh_rules", "order_book", "candles", "run_market",
    }  # fmt: skip
    named = {name for name, _ in inspect.getmembers(Adapter, inspect.isfunction) if not name.startswith("_")}
    assert named - public <= set(ORDERS)
    async with paper() as (venue, adapter):
        for started in (False, True):
            if started:
                await adapter.start()
            for request in ORDERS.values():
                with pytest.raises(Rejected):
                    await request(adapter)
        assert list(venue.requests) == []


async def test_an_endpoint_for_paper_takes_no_credentials_even_when_they_are_given(capture: Capture) -> None:
    [endpoint] = parse_endpoints(f"dry=binance@paper+{capture.url}")
    adapter = CcxtAdapter(endpoint, KEYS)
    try:
        with suppress(AdapterError):
            await adapter.start()  # the server knows no markets
        with pytest.raises(Rejected):
            await adapter.place(order())
    finally:
        await adapter.close()
    assert capture.requests
    for method, url, body, headers in capture.requests:
        assert method == "GET"
        assert "signature" not in url + body
        assert not {"x-mbx-apikey", "authorization"} & headers.keys()


# --- the locks, each alone ------------------------------------------------------------------------------------------


@asynccontextmanager
async def watched(name: str, url: str, *, wire: bool = True) -> AsyncIterator[Any]:
    """An exchange that is only watched, given every credential after all; `wire`: with the lock of the transport."""
    dialect = dialect_of(name)
    transport = Transport(guard=guard(dialect) if wire else None)
    exchange = ccxt_exchange.build(
        Endpoint(name, name, "paper", url),
        dialect,
        timeout=2,
        ttl_ms=5000,
        transport=transport,
        limiter=Limiter(AdapterHealth()),
        public_only=True,
    )
    async with Made(name, url) as made:
        exchange.set_markets(list(made.exchange.markets.values()), {})
    for field, value in (("apiKey", "k" * 20), ("secret", "c2VjcmV0c2VjcmV0"), ("password", "pass"), ("uid", "1")):
        setattr(exchange, field, value)
    exchange.walletAddress, exchange.privateKey = "0x" + "1" * 40, "0x" + "1" * 64
    try:
        yield exchange
    finally:
        await exchange.close()
        await transport.close()


@pytest.mark.parametrize("name", sorted(DIALECTS))
async def test_books_trades_and_candles_of_every_exchange_pass(capture: Capture, name: str) -> None:
    async with watched(name, capture.url) as exchange:
        symbol = next(iter(exchange.markets))
        asked = {
            "fetchOrderBook": lambda: exchange.fetch_order_book(symbol, 20),
            "fetchTrades": lambda: exchange.fetch_trades(symbol, None, 100),
            "fetchOHLCV": lambda: exchange.fetch_ohlcv(symbol, "1m", 1_700_000_000_000, 10),
            "fetchTime": lambda: exchange.fetch_time(),
        }
        for ability, request in asked.items():
            if not exchange.has.get(ability):
                continue
            before = len(capture.requests)
            try:
                await request()
            except (Rejected, ccxt.AuthenticationError):
                raise
            except Exception:
                pass
            assert len(capture.requests) > before


@pytest.mark.parametrize("name", sorted(DIALECTS))
async def test_nothing_private_leaves_any_exchange(capture: Capture, name: str) -> None:
    async with watched(name, capture.url) as exchange:
        symbol = next(iter(exchange.markets))
        for request in (
            lambda: exchange.create_order(symbol, "limit", "buy", "2", "40000", {"clientOrderId": OURS}),
            lambda: exchange.create_order(symbol, "market", "buy", "2", "40000"),
            lambda: exchange.cancel_order("1", symbol),
            lambda: exchange.fetch_order("1", symbol),
            lambda: exchange.fetch_open_orders(symbol),
            lambda: exchange.fetch_my_trades(symbol),
            lambda: exchange.fetch_balance(),
            lambda: exchange.withdraw("BTC", "1", "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq"),
            lambda: exchange.transfer("BTC", "1", "spot", "swap"),
        ):
            with pytest.raises((Rejected, ccxt.BaseError, TypeError, KeyError)):
                await request()
        asks = dialect_of(name).asks_by_post
    for method, url, body, headers in capture.requests:
        assert method == "GET" or url in asks
        assert OURS not in url + body
        assert "signature" not in url.lower() + str(sorted(headers)).lower()
        assert "kkkkkkkk" not in url + body + str(headers)


async def test_the_wire_lets_nothing_pass_that_ccxt_did_not_ask_for(capture: Capture) -> None:
    transport = Transport(guard=guard(dialect_of("binance")))
    asked = {"headers": {}, "body": None, "seconds": 2.0, "before_send": lambda: None}
    refused: list[tuple[str, str, dict[str, str]]] = [
        ("POST", "/api/v3/order", {}),
        ("DELETE", "/api/v3/order", {}),
        ("PUT", "/api/v3/ping", {}),
        ("GET", "/api/v3/account", {}),
        ("GET", "/api/v3/openOrders", {}),
        ("GET", "/api/v3/depth?signature=abc", {}),
        ("GET", "/api/v3/depth?symbol=BTCUSDT&recvWindow=5000", {}),
        ("GET", "/api/v3/depth", {"X-MBX-APIKEY": "k"}),
        ("GET", "/api/v3/depth", {"Authorization": "Bearer k"}),
    ]
    try:
        for method, target, headers in refused:
            with pytest.raises(Rejected):
                await transport.request(method, capture.url + target, **{**asked, "headers": headers})
        assert capture.requests == []
        await transport.request("GET", f"{capture.url}/api/v3/depth?symbol=BTCUSDT&limit=20", **asked)
    finally:
        await transport.close()
    assert len(capture.requests) == 1


async def test_the_locks_do_not_depend_on_each_other(capture: Capture) -> None:
    async with watched("binance", capture.url, wire=False) as exchange:
        for request in (
            lambda: exchange.privatePostOrder({"symbol": "BTCUSDT"}),
            lambda: exchange.publicPostUserDataStream(),
            lambda: exchange.sapiGetCapitalConfigGetall(),
            lambda: exchange.fetch(f"{capture.url}/api/v3/order", "POST", {}, "symbol=BTCUSDT"),
            lambda: exchange.fetch(f"{capture.url}/api/v3/account", "GET", {}, None),
        ):
            with pytest.raises(Rejected):
                await request()
        with pytest.raises(Rejected):
            exchange.sign("order", "private", "POST", {})
    assert capture.requests == []


async def test_not_through_a_proxy_either(capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", capture.url)
    async with watched("binance", "http://venue.invalid") as exchange:
        with pytest.raises(Rejected):
            await exchange.privatePostOrder({"symbol": "BTCUSDT"})
        with pytest.raises(Rejected):
            await exchange.fetch("http://venue.invalid/api/v3/order", "POST", {}, "symbol=BTCUSDT")
    assert capture.requests == []
