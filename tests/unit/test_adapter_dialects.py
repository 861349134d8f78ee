"""What reaches each exchange of the table: ccxt's requests, redirected to a server that keeps them."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

import ccxt
import pytest
from aiohttp import web

from adapters.base import AdapterError, AdapterHealth, ApprovedOrder, Rejected, Unavailable, Unknown
from adapters.ccxt_venue import exchange as ccxt_exchange
from adapters.ccxt_venue.clock import Clock
from adapters.ccxt_venue.dialects import DIALECTS, Dialect, dialect_of, missing
from adapters.ccxt_venue.endpoint import Endpoint
from adapters.ccxt_venue.limiter import Limiter
from adapters.ccxt_venue.requests import Requests
from adapters.ccxt_venue.transport import Transport
from adapters.ccxt_venue.unified_orders import UnifiedOrders
from schemas.terms import OrderType, Side, TimeInForce

OURS = "abc123n1"
DERIVATIVES = ("binanceusdm", "krakenfutures", "deribit", "aster")
PLACEABLE = sorted(set(DIALECTS) - {"binance", "binanceus", "binancecoinm", "hyperliquid"})
"""Hyperliquid's action cannot be built from a made-up market; Binance spot has tests of its own."""


class Capture:
    """Answers every question of ccxt's with nothing much, and cuts the connection on what holds the client id."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, str, dict[str, str]]] = []
        self.url = ""

    @property
    def last(self) -> str:
        method, url, body, _ = self.requests[-1]
        return f"{method} {unquote(url)} {unquote(body)}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.text()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((request.method, str(request.rel_url), body, headers))
        if OURS in str(request.rel_url) + body:
            assert request.transport is not None
            request.transport.abort()
        data: Any = [{"id": 1, "type": "spot"}] if request.path.endswith("accounts") else {}
        return web.json_response({"code": "200000", "retCode": 0, "status": "ok", "data": data, "result": {}})


@pytest.fixture
async def capture() -> AsyncIterator[Capture]:
    kept = Capture()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", kept.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    kept.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield kept
    await runner.cleanup()


class Venue:
    """The orders of an exchange with one made-up market."""

    def __init__(self, name: str, url: str, dialect: Dialect | None = None, *, swap: bool | None = None) -> None:
        dialect = dialect or dialect_of(name)
        health = AdapterHealth()
        limiter = Limiter(health)
        self._transport = Transport()
        self.exchange = ccxt_exchange.build(
            Endpoint(name, name, "url", url),
            dialect,
            timeout=2,
            ttl_ms=5000,
            transport=self._transport,
            limiter=limiter,
        )
        for field, value in (("apiKey", "k" * 20), ("secret", "c2VjcmV0c2VjcmV0"), ("password", "pass")):
            setattr(self.exchange, field, value)
        self.exchange.walletAddress, self.exchange.privateKey = "0x" + "1" * 40, "0x" + "1" * 64
        if dialect.expiry_option is not None:
            self.exchange.options[dialect.expiry_option] = 5000
        swap = name in DERIVATIVES if swap is None else swap
        self.symbol = "BTC/USDT:USDT" if swap else "BTC/USDT"
        self.exchange.set_markets([_market(self.symbol, swap)], {})
        requests = Requests(name, limiter, health, (), 2)
        clock = Clock(name, self.exchange, requests, limiter, health, 1000)
        self.orders = UnifiedOrders(self.exchange, requests, dialect, clock, ttl_ms=5000)

    def order(self, **changes: Any) -> ApprovedOrder:
        fields: dict[str, Any] = {
            "client_order_id": OURS,
            "symbol": self.symbol,
            "side": Side.BUY,
            "order_type": OrderType.LIMIT,
            "quantity": Decimal("0.0123"),
            "price": Decimal("43210.07"),
        }
        return ApprovedOrder(**{**fields, **changes})

    async def __aenter__(self) -> Venue:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.exchange.close()
        await self._transport.close()


def _market(symbol: str, swap: bool) -> dict[str, Any]:
    coins = {"base": "BTC", "quote": "USDT", "baseId": "BTC", "quoteId": "USDT"}
    kinds = {"spot": not swap, "swap": swap, "contract": swap, "future": False, "option": False, "margin": False}
    settled = (
        {"settle": "USDT", "settleId": "USDT", "linear": True, "inverse": False, "contractSize": "1"} if swap else {}
    )
    return {
        "id": "BTCUSDT", "lowercaseId": "btcusdt", "symbol": symbol, "type": "swap" if swap else "spot", "active": True,
        **coins, **kinds, **settled, "precision": {"amount": "0.0001", "price": "0.01"},
        "limits": {"amount": {}, "price": {}, "cost": {}}, "info": {"orderTypes": ["LIMIT", "MARKET"]},
    }  # fmt: skip


@pytest.mark.parametrize("name", PLACEABLE)
async def test_a_create_carries_our_id_exact_numbers_and_its_expiry(capture: Capture, name: str) -> None:
    dialect, before = dialect_of(name), time.time()
    called: list[int] = []
    async with Venue(name, capture.url) as venue:
        with pytest.raises(Unknown):
            await venue.orders.place(venue.order(), lambda: called.append(len(capture.requests)))
    method, _, _, headers = capture.requests[-1]
    assert OURS in capture.last
    assert "0.0123" in capture.last
    assert "43210.07" in capture.last
    assert len([one for one in capture.requests if OURS in one[1] + one[2]]) == 1
    assert called == [len(capture.requests) - 1]  # directly before the order, and before nothing else
    assert all(one[0] == "GET" for one in capture.requests[:-1])
    if dialect.expiry_header is not None:
        assert 4000 < int(headers[dialect.expiry_header.lower()]) - before * 1000 < 8000
    elif dialect.expiry_param is not None:
        assert dialect.expiry_param in capture.last
    elif dialect.expiry_option is not None:
        assert "5000" in capture.last + headers.get("x-bapi-recv-window", "")
    assert method == ("GET" if name == "deribit" else "POST")


@pytest.mark.parametrize("name", sorted(set(PLACEABLE) - {"kraken", "coinbase", "bybit"}))
async def test_a_question_and_a_cancel_name_the_order_by_our_id(capture: Capture, name: str) -> None:
    async with Venue(name, capture.url) as venue:
        with pytest.raises(Unknown):
            await venue.orders.find(venue.symbol, OURS, None)
        assert OURS in capture.last
        with pytest.raises(Unknown):
            await venue.orders.cancel(venue.symbol, OURS, None)
        assert OURS in capture.last


async def test_kraken_is_asked_for_the_order_by_our_id_in_its_lists(capture: Capture) -> None:
    async with Venue("kraken", capture.url) as venue:
        with pytest.raises(Unknown):
            await venue.orders.find(venue.symbol, OURS, None)
    assert f"cl_ord_id={OURS}" in capture.last


async def test_a_create_that_does_not_carry_our_id_never_leaves(capture: Capture) -> None:
    # ccxt drops what it does not know: on Coinbase the unified parameter, silently
    async with Venue("coinbase", capture.url, Dialect()) as venue:
        with pytest.raises(Rejected, match="client order id"):
            await venue.orders.place(venue.order(), None)
    assert capture.requests == []


async def test_what_fails_before_the_order_left_is_certain(capture: Capture) -> None:
    async with Venue("gate", "http://127.0.0.1:9") as venue:
        with pytest.raises(Unavailable):
            await venue.orders.place(venue.order(), None)

    class Refused(Exception):
        pass

    def refuse() -> None:
        raise Refused

    async with Venue("gate", capture.url) as venue:
        with pytest.raises(Refused):
            await venue.orders.place(venue.order(), refuse)
        assert [one[0] for one in capture.requests] == ["GET"]


async def test_a_time_in_force_that_the_exchange_lacks_is_refused(capture: Capture) -> None:
    async with Venue("hyperliquid", capture.url) as venue:
        with pytest.raises(Rejected, match="FOK"):
            await venue.orders.place(venue.order(time_in_force=TimeInForce.FOK), None)
    assert capture.requests == []


async def test_through_a_proxy_only_a_failed_connect_is_certain(
    capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", capture.url)
    async with Venue("okx", "http://venue.invalid") as venue:
        with pytest.raises(AdapterError) as caught:
            await venue.orders.place(venue.order(), None)
    assert type(caught.value) is Unknown
    assert OURS in capture.last
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    async with Venue("okx", "http://venue.invalid") as venue:
        with pytest.raises(Unavailable):
            await venue.orders.place(venue.order(), None)


@pytest.mark.parametrize("name", ["okx", "kraken", "krakenfutures", "htx"])
async def test_the_exchanges_own_dead_mans_switch_is_reached(capture: Capture, name: str) -> None:
    assert dialect_of(name).cancel_all_after
    async with Venue(name, capture.url) as venue:
        with contextlib.suppress(ccxt.ExchangeError):  # the answer is not the exchange's
            await venue.exchange.cancel_all_orders_after(60_000)
    assert "60" in capture.last


def test_a_sandbox_is_another_place() -> None:
    for name in ("binance", "bybit", "okx"):
        made = ccxt_exchange.build(
            Endpoint(name, name, "sandbox"),
            dialect_of(name),
            timeout=1,
            ttl_ms=5000,
            transport=Transport(),
            limiter=Limiter(AdapterHealth()),
        )
        live = _class(name)()
        assert made.urls["api"] != live.urls["api"] or made.headers != live.headers


def test_every_exchange_of_the_table_can_be_traded_and_a_poorer_one_cannot() -> None:
    for name in DIALECTS:
        assert missing(_class(name)(), dialect_of(name)) == [], name
    bare = type("Bare", (), {"has": {"createOrder": True}})()
    assert missing(bare, Dialect()) == ["cancelOrder", "fetchOpenOrders", "fetchMyTrades", "fetchOrder"]
    assert dialect_of("nobody").expires is False


def _class(name: str) -> Any:
    return getattr(importlib.import_module(f"ccxt.pro.{name}"), name)
