"""The ccxt adapter against the local venue, its faults and its own record of what arrived."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web

from adapters.base import (
    AdapterError,
    ApprovedOrder,
    ClockSkew,
    CredentialsRefused,
    DuplicateClientOrderId,
    InsufficientFunds,
    NotReady,
    OrderUnknown,
    PostOnlyRejected,
    RateLimited,
    Rejected,
    Unavailable,
    Unknown,
    VenueFill,
    VenueOrder,
    VenueOrderStatus,
    every_fill,
)
from adapters.ccxt_venue import CcxtAdapter, parse_endpoints
from adapters.simulator.control import VenueControl
from adapters.simulator.limits import Limits
from adapters.simulator.process import VenueProcess
from adapters.simulator.server import Venue, VenueConfig
from adapters.simulator.symbols import SymbolSpec
from schemas.terms import OrderType, Side, TimeInForce

BTC = "BTC/USDT"
KEYS = {"apiKey": "local", "secret": "local-secret"}
AMPLE = Limits(orders_per_10s=100_000, weight_per_minute=10_000_000)


def config(**changes: Any) -> VenueConfig:
    spec = SymbolSpec(base="BTC", quote="USDT", price=Decimal(50000), max_orders=10_000)
    return VenueConfig(**{"symbols": [spec], "limits": AMPLE, "market": None, **changes})


def adapter_at(url: str, **options: Any) -> CcxtAdapter:
    return CcxtAdapter(parse_endpoints(f"alpha=binance@{url}")[0], options.pop("keys", KEYS), **options)


class Scene:
    """A venue on a port of its own, its control, and a started adapter."""

    def __init__(self, venue: Venue, control: VenueControl, adapter: CcxtAdapter) -> None:
        self.venue = venue
        self.control = control
        self.adapter = adapter

    async def sent(self, method: str) -> list[dict[str, Any]]:
        return [one["parameters"] for one in await self.control.requests() if one["method"] == method]


@asynccontextmanager
async def trading(settings: VenueConfig | None = None, **options: Any) -> AsyncIterator[Scene]:
    venue = Venue(settings or config())
    await venue.start()
    adapter = adapter_at(venue.url, **options)
    async with VenueControl(venue.url) as control:
        try:
            await adapter.start()
            yield Scene(venue, control, adapter)
        finally:
            await adapter.close()
            await venue.stop()


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with trading() as made:
        yield made


def order(client_id: str = "c1", **changes: Any) -> ApprovedOrder:
    """A limit buy far below the market, or what is asked for."""
    fields = {
        "client_order_id": client_id,
        "symbol": BTC,
        "side": Side.BUY,
        "order_type": OrderType.LIMIT,
        "quantity": Decimal("0.01"),
        "price": Decimal(40000),
        **changes,
    }
    if fields["order_type"] is OrderType.MARKET:
        fields["price"] = None
    return ApprovedOrder(**fields)


async def until(true: Callable[[], object], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.01)


# --- orders ---------------------------------------------------------------------------------------------------------


async def test_numbers_arrive_and_return_digit_for_digit(scene: Scene) -> None:
    quantity, price = Decimal("0.12345"), Decimal("43210.07")
    placed = await scene.adapter.place(order(quantity=quantity, price=price))
    assert placed.status is VenueOrderStatus.OPEN
    assert (placed.quantity, placed.price, placed.filled) == (quantity, price, Decimal(0))
    [asked] = await scene.sent("POST")
    assert (asked["quantity"], asked["price"], asked["timeInForce"]) == ("0.12345", "43210.07", "GTC")
    assert asked["recvWindow"] == "5000"
    assert asked["newClientOrderId"] == "c1"
    assert await scene.adapter.find(BTC, "c1") == placed


async def test_a_market_order_brings_its_trades_with_ids_and_fees(scene: Scene) -> None:
    await scene.control.trade("BTCUSDT", "SELL", "0.03", "50000.01")
    await scene.control.trade("BTCUSDT", "SELL", "0.04", "50000.02")
    done = await scene.adapter.place(order(order_type=OrderType.MARKET, quantity=Decimal("0.05")))
    assert done.status is VenueOrderStatus.FILLED
    assert [(fill.price, fill.quantity) for fill in done.fills] == [
        (Decimal("50000.01"), Decimal("0.03")),
        (Decimal("50000.02"), Decimal("0.02")),
    ]
    assert [fill.fee for fill in done.fills] == [Decimal("0.00003"), Decimal("0.00002")]
    assert {fill.fee_asset for fill in done.fills} == {"BTC"}
    asked = await scene.adapter.fills(BTC, done.venue_order_id or "")
    assert [fill.trade_id for fill in asked] == [fill.trade_id for fill in done.fills]


@pytest.mark.parametrize(
    ("changes", "kind", "in_force"),
    [
        ({"time_in_force": TimeInForce.IOC}, "LIMIT", "IOC"),
        ({"time_in_force": TimeInForce.FOK}, "LIMIT", "FOK"),
        ({"post_only": True}, "LIMIT_MAKER", None),
        ({"time_in_force": TimeInForce.PO}, "LIMIT_MAKER", None),
    ],
)
async def test_the_time_in_force_is_the_venues_own(
    scene: Scene, changes: dict[str, Any], kind: str, in_force: str | None
) -> None:
    await scene.adapter.place(order(**changes))
    [asked] = await scene.sent("POST")
    assert (asked["type"], asked.get("timeInForce")) == (kind, in_force)


async def test_a_cancel_tells_what_was_filled(scene: Scene) -> None:
    placed = await scene.adapter.place(order())
    await scene.control.trade("BTCUSDT", "SELL", "0.004")
    ended = await scene.adapter.cancel(BTC, "c1", placed.venue_order_id)
    assert ended is not None
    assert (ended.status, ended.filled, ended.client_order_id) == (VenueOrderStatus.CANCELED, Decimal("0.004"), "c1")


async def test_a_cancel_by_client_id_alone(scene: Scene) -> None:
    await scene.adapter.place(order())
    ended = await scene.adapter.cancel(BTC, "c1", None)
    assert ended is not None
    assert ended.client_order_id == "c1"
    assert await scene.adapter.open_orders() == []


async def test_a_cancel_of_what_has_ended_says_that_it_is_not_open(scene: Scene) -> None:
    placed = await scene.adapter.place(order())
    await scene.control.trade("BTCUSDT", "SELL", "0.01")
    with pytest.raises(OrderUnknown):
        await scene.adapter.cancel(BTC, "c1", placed.venue_order_id)


async def test_an_order_that_was_never_sent_is_not_found(scene: Scene) -> None:
    assert await scene.adapter.find(BTC, "nobody") is None


async def test_a_reused_client_id_finds_the_latest_and_the_venue_id_finds_the_very_one(scene: Scene) -> None:
    first = await scene.adapter.place(order(order_type=OrderType.LIMIT))
    await scene.adapter.cancel(BTC, "c1", None)
    second = await scene.adapter.place(order(price=Decimal(41000)))
    by_client, by_venue = await scene.adapter.find(BTC, "c1"), await scene.adapter.find(BTC, "c1", first.venue_order_id)
    assert by_client is not None
    assert by_venue is not None
    assert (by_client.venue_order_id, by_venue.venue_order_id) == (second.venue_order_id, first.venue_order_id)


# --- faults ---------------------------------------------------------------------------------------------------------

FAULTS = [
    # fault at the venue, what it means, whether the venue has the order afterwards
    ({"kind": "lose_answer"}, Unknown, True),
    ({"kind": "lose_answer", "seconds": 3.0}, Unknown, True),
    ({"kind": "lose_request"}, Unknown, False),
    ({"kind": "latency", "seconds": 3.0, "when": "after"}, Unknown, True),
    ({"kind": "broken_body", "body": '{"symbol": "BTCU'}, Unknown, True),
    ({"kind": "broken_body", "body": "<html>maintenance</html>"}, Unknown, True),
    ({"kind": "broken_body", "body": ""}, Unknown, True),
    ({"kind": "broken_body", "body": "{}"}, Unknown, True),
    ({"kind": "broken_body", "body": "[]"}, Unknown, True),
    ({"kind": "broken_body", "body": '{"orderId": 1, "clientOrderId": "another"}'}, Unknown, True),
    ({"kind": "http_error", "status": 500, "code": -1000, "when": "after"}, Unknown, True),
    ({"kind": "http_error", "status": 503, "code": -1006, "when": "after"}, Unknown, True),
    ({"kind": "http_error", "status": 400, "code": -1001, "when": "after"}, Unknown, True),
    ({"kind": "http_error", "status": 400, "code": -1007, "when": "after"}, Unknown, True),
    ({"kind": "http_error", "status": 400, "code": -1016, "when": "after"}, Unknown, True),
    ({"kind": "http_error", "status": 504, "body": "gateway", "when": "after"}, Unknown, True),
    ({"kind": "http_error", "status": 502, "body": "<html>", "when": "after"}, Unknown, True),
    ({"kind": "http_error", "status": 403, "body": "<html>", "when": "after"}, Unknown, True),
    ({"kind": "http_error", "status": 503, "code": -2010, "message": "contradiction", "when": "after"}, Unknown, True),
    ({"kind": "http_error", "status": 503, "code": -1008}, Unknown, False),
    ({"kind": "reject", "code": -4711, "message": "Never heard of."}, Unknown, False),
    ({"kind": "reject", "code": -2013, "message": "Order does not exist."}, Unknown, False),
    ({"kind": "rate_limit", "status": 429, "seconds": 7}, RateLimited, False),
    ({"kind": "rate_limit", "status": 418, "seconds": 7}, RateLimited, False),
    ({"kind": "http_error", "status": 429, "code": -1015, "message": "Too many new orders."}, RateLimited, False),
    ({"kind": "reject", "code": -1003, "message": "Too many requests."}, RateLimited, False),
    ({"kind": "reject", "code": -1021, "message": "Timestamp outside of the recvWindow."}, ClockSkew, False),
    ({"kind": "reject", "code": -1022, "message": "Signature not valid."}, CredentialsRefused, False),
    ({"kind": "reject", "code": -2014, "message": "API-key format invalid."}, CredentialsRefused, False),
    ({"kind": "reject", "code": -2015, "message": "Invalid API-key."}, CredentialsRefused, False),
    ({"kind": "reject", "code": -2010, "message": "Duplicate order sent."}, DuplicateClientOrderId, False),
    ({"kind": "reject", "code": -2010, "message": "Account has insufficient balance."}, InsufficientFunds, False),
    ({"kind": "reject", "code": -2010, "message": "Order would immediately match."}, PostOnlyRejected, False),
    ({"kind": "reject", "code": -2010, "message": "Market is closed."}, Rejected, False),
    ({"kind": "reject", "code": -1013, "message": "Filter failure: LOT_SIZE"}, Rejected, False),
    ({"kind": "reject", "code": -1111, "message": "Too much precision."}, Rejected, False),
    ({"kind": "reject", "code": -1121, "message": "Invalid symbol."}, Rejected, False),
]


@pytest.mark.parametrize(("fault", "meaning", "exists"), FAULTS)
async def test_what_a_failed_create_means(fault: dict[str, Any], meaning: type[AdapterError], exists: bool) -> None:
    async with trading(request_timeout=0.5) as scene:
        await scene.control.fault(path="/api/v3/order", method="POST", **fault)
        with pytest.raises(AdapterError) as caught:
            await scene.adapter.place(order())
        assert type(caught.value) is meaning
        if "code" in fault:
            assert caught.value.code == str(fault["code"])
        if isinstance(caught.value, RateLimited) and "seconds" in fault:
            assert abs(caught.value.until - time.time() * 1000 - 7000) < 1500
        assert len(await scene.sent("POST")) == 1
        record = await scene.control.record()
        assert [one["clientOrderId"] for one in record["orders"]] == (["c1"] if exists else [])


async def test_rejects_of_the_real_engine() -> None:
    async with trading(config(balances={"USDT": Decimal(1000), "BTC": Decimal(0)})) as scene:
        await scene.control.trade("BTCUSDT", "SELL", "1", "50000")
        for client_id, changes, meaning in (
            ("big", {"quantity": Decimal(1)}, InsufficientFunds),
            ("maker", {"price": Decimal(50001), "post_only": True}, PostOnlyRejected),
            ("lot", {"quantity": Decimal("0.000001"), "price": Decimal(50000)}, Rejected),
            ("tick", {"price": Decimal("40000.001")}, Rejected),
        ):
            with pytest.raises(Rejected) as caught:
                await scene.adapter.place(order(client_id, **changes))
            assert type(caught.value) is meaning, client_id
        await scene.adapter.place(order("same"))
        with pytest.raises(DuplicateClientOrderId):
            await scene.adapter.place(order("same"))


async def test_what_this_adapter_cannot_place_is_refused_without_sending(scene: Scene) -> None:
    for changes in ({"symbol": "NO/SUCH"}, {"order_type": OrderType.STOP}, {"price": None}):
        with pytest.raises(Rejected):
            await scene.adapter.place(order(**changes))
    assert await scene.sent("POST") == []


async def test_a_cancel_whose_answer_is_lost_is_sent_once_and_unknown(scene: Scene) -> None:
    await scene.adapter.place(order())
    await scene.control.fault("lose_answer", method="DELETE")
    with pytest.raises(Unknown):
        await scene.adapter.cancel(BTC, "c1", None)
    assert len(await scene.sent("DELETE")) == 1
    found = await scene.adapter.find(BTC, "c1")
    assert found is not None
    assert found.status is VenueOrderStatus.CANCELED


@pytest.mark.parametrize("body", ["", "<html>", "[]", "1"])
async def test_a_broken_answer_to_a_cancel_or_a_question_says_nothing(scene: Scene, body: str) -> None:
    await scene.adapter.place(order())
    await scene.control.fault("broken_body", method="DELETE", body=body)
    with pytest.raises(Unknown):
        await scene.adapter.cancel(BTC, "c1", None)
    await scene.control.fault("broken_body", method="GET", path="/api/v3/order", body=body)
    with pytest.raises(Unknown):
        await scene.adapter.find(BTC, "c1")
    no_list = "{}" if body == "[]" else body
    await scene.control.fault("broken_body", path="/api/v3/openOrders", body=no_list)
    with pytest.raises(Unknown):
        await scene.adapter.open_orders(BTC)
    await scene.control.fault("broken_body", path="/api/v3/myTrades", body=no_list)
    with pytest.raises(Unknown):
        await scene.adapter.fills_since(BTC, 1)


async def test_what_before_send_raises_stops_the_request_and_comes_out_as_it_is(scene: Scene) -> None:
    class TooLate(Exception):
        pass

    def refuse() -> None:
        raise TooLate

    with pytest.raises(TooLate):
        await scene.adapter.place(order(), before_send=refuse)
    called: list[float] = []
    await scene.adapter.place(order("c2"), before_send=lambda: called.append(time.monotonic()))
    assert len(called) == 1
    assert [one["newClientOrderId"] for one in await scene.sent("POST")] == ["c2"]


async def test_a_dead_venue_is_certainly_not_reached_and_a_frozen_one_is_unknown() -> None:
    process = await VenueProcess.start(config())
    adapter = adapter_at(process.url, request_timeout=0.5)
    try:
        await adapter.start()
        process.pause()
        with pytest.raises(Unknown):
            await adapter.place(order())
        process.resume()
        process.kill()
        await process._process.wait()
        with pytest.raises(Unavailable):
            await adapter.place(order("c2"))
        with pytest.raises(Unavailable):
            await adapter.cancel(BTC, "c1", None)
    finally:
        await adapter.close()
        await process.stop()


async def test_a_cancelled_create_leaves_no_answer_for_the_next(scene: Scene) -> None:
    await scene.control.fault("latency", method="POST", seconds=0.3, when="after")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(scene.adapter.place(order("gone")), 0.1)
    placed = await scene.adapter.place(order("next"))
    assert placed.client_order_id == "next"


# --- limits ---------------------------------------------------------------------------------------------------------


async def test_cancels_overtake_creates_at_the_limit() -> None:
    async with trading(config(limits=Limits(orders_per_10s=4, weight_per_minute=6000))) as scene:
        while time.time() % 10 > 6:  # not across the end of a window
            await asyncio.sleep(0.2)
        adapter = scene.adapter
        for number in range(4):
            await adapter.place(order(f"first{number}"))
        waiting = [asyncio.create_task(adapter.place(order(f"later{number}"))) for number in range(3)]
        await until(lambda: adapter.health.queued == 3)
        await adapter.cancel(BTC, "first0", None)
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert adapter.health.queued == 0
        sent = await scene.control.requests()
        assert [one["method"] for one in sent] == ["POST"] * 4 + ["DELETE"]


async def test_cancels_go_on_when_the_limit_of_orders_is_hit_and_creates_do_not_leave(scene: Scene) -> None:
    await scene.adapter.place(order())
    await scene.control.fault(
        "http_error", method="POST", status=429, code=-1015, message="Too many new orders; current limit is 1."
    )
    with pytest.raises(RateLimited):
        await scene.adapter.place(order("c2"))
    assert scene.adapter.health.limited_until is not None
    waiting = asyncio.create_task(scene.adapter.place(order("c3")))
    await scene.adapter.cancel(BTC, "c1", None)
    assert not waiting.done()
    placed = await waiting  # after the second that was told by nobody
    assert placed.status is VenueOrderStatus.OPEN
    assert scene.adapter.health.limited_until is None


async def test_a_ban_holds_everything_and_says_until_when(scene: Scene) -> None:
    await scene.adapter.place(order())
    await scene.control.fault("rate_limit", method="POST", status=418, seconds=300)
    with pytest.raises(RateLimited) as first:
        await scene.adapter.place(order("c2"))
    with pytest.raises(RateLimited) as second:
        await scene.adapter.place(order("c3"))
    with pytest.raises(RateLimited) as third:
        await scene.adapter.cancel(BTC, "c1", None)
    assert first.value.until == second.value.until == third.value.until
    assert len(await scene.control.requests()) == 2


# --- trades ---------------------------------------------------------------------------------------------------------


async def test_trades_come_complete_however_many_pages_it_takes(scene: Scene) -> None:
    before = int(time.time() * 1000)
    placed = await scene.adapter.place(order(quantity=Decimal("0.5")))
    await scene.adapter.place(order("other", price=Decimal(41000), quantity=Decimal("0.001")))
    await scene.control.trade("BTCUSDT", "SELL", "0.001", "41000")
    for _ in range(11):
        await asyncio.gather(*(scene.control.trade("BTCUSDT", "SELL", "0.0002", "40000") for _ in range(100)))
    by_order = await scene.adapter.fills(BTC, placed.venue_order_id or "")
    assert len(by_order) == 1100
    assert sum(fill.quantity for fill in by_order) == Decimal("0.22")
    since = await every_fill(await scene.adapter.fills_since(BTC, before - 3 * 86_400_000))
    assert len(since) == len({fill.trade_id for fill in since}) == 1101
    assert [int(fill.trade_id) for fill in since] == sorted(int(fill.trade_id) for fill in since)
    assert all(fill.maker and fill.fee_asset == "BTC" for fill in since)


async def test_open_orders_of_one_symbol_and_of_all() -> None:
    symbols = [SymbolSpec(base=base, quote="USDT", price=Decimal(50000)) for base in ("BTC", "ETH")]
    async with trading(config(symbols=symbols)) as scene:
        await scene.adapter.place(order("b"))
        await scene.adapter.place(order("e", symbol="ETH/USDT"))
        assert [one.client_order_id for one in await scene.adapter.open_orders(BTC)] == ["b"]
        assert {(one.client_order_id, one.symbol) for one in await scene.adapter.open_orders()} == {
            ("b", BTC),
            ("e", "ETH/USDT"),
        }


async def test_rules_book_and_balances() -> None:
    async with trading(config(balances={"USDT": Decimal("12345.6"), "BTC": Decimal(2)})) as scene:
        rules = scene.adapter.rules(BTC)
        assert rules is not None
        assert (rules.tick, rules.lot, rules.min_notional) == (Decimal("0.01"), Decimal("0.00001"), Decimal(5))
        assert scene.adapter.rules("NO/SUCH") is None
        await scene.control.trade("BTCUSDT", "SELL", "0.5", "50000.01")
        await scene.control.trade("BTCUSDT", "BUY", "0.25", "49999.99")
        book = await scene.adapter.order_book(BTC)
        assert (book.asks[0].price, book.asks[0].quantity) == (Decimal("50000.01"), Decimal("0.5"))
        assert (book.bids[0].price, book.bids[0].quantity) == (Decimal("49999.99"), Decimal("0.25"))
        await scene.adapter.place(order(quantity=Decimal("0.1")))
        held = {balance.asset: (balance.free, balance.used) for balance in await scene.adapter.balances()}
        assert held["USDT"] == (Decimal("8345.6"), Decimal(4000))


async def test_an_adapter_that_is_not_started_says_that_nothing_was_sent() -> None:
    adapter = adapter_at("http://127.0.0.1:9")
    for request in (adapter.place(order()), adapter.cancel(BTC, "c1", None), adapter.find(BTC, "c1")):
        with pytest.raises(Unavailable, match="not started"):
            await request
    assert not await adapter.cancel_all_after(60)
    await adapter.close()


async def test_an_order_of_a_symbol_that_is_listed_no_more_can_be_cancelled() -> None:
    async with trading() as scene:
        placed = await scene.adapter.place(order())
        listed = SymbolSpec(base="ETH", quote="USDT", price=Decimal(3000)).info()
        body = json.dumps({"symbols": [listed], "rateLimits": []})
        await scene.control.fault("broken_body", path="/api/v3/exchangeInfo", body=body, count=None)
        before = scene.adapter.rules(BTC)
        await scene.adapter.refresh_rules()
        rules = scene.adapter.rules(BTC)
        assert before is not None
        assert rules is not None
        assert (rules.active, rules.tick, rules.lot) == (False, before.tick, before.lot)
        assert scene.adapter.rules("ETH/USDT") is not None
        assert await scene.adapter.cancel(BTC, "c1", placed.venue_order_id) is not None


# --- the start ------------------------------------------------------------------------------------------------------


async def refused(url: str, **options: Any) -> str:
    adapter = adapter_at(url, **options)
    with pytest.raises(NotReady) as caught:
        await adapter.start()
    assert not adapter.health.ready
    return str(caught.value)


async def test_a_start_that_fails_says_what_to_do() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        unused = f"http://127.0.0.1:{free.getsockname()[1]}"
        assert "cannot be reached" in await refused(unused)
    venue = Venue(config())
    await venue.start()
    try:
        assert "check the API secret" in await refused(venue.url, keys={"apiKey": "local", "secret": "wrong"})
        assert "check it" in await refused(venue.url, keys={"apiKey": "wrong", "secret": "wrong"})
        named = await refused(venue.url, keys=None)
        assert "ALPHA_API_KEY" in named
        assert "ALPHA_API_SECRET" in named
        assert "_FILE" in named
        assert "ALPHA_API_SECRET" in await refused(venue.url, keys={"apiKey": "local"})
        venue.clock_offset = 5000
        assert "5000 ms" in (await refused(venue.url)).replace("4999", "5000").replace("5001", "5000")
    finally:
        await venue.stop()
    empty = Venue(config(symbols=[]))
    await empty.start()
    try:
        assert "no markets" in await refused(empty.url)
    finally:
        await empty.stop()


async def test_a_clock_that_is_a_little_off_is_allowed_for_and_one_far_off_stops_new_orders() -> None:
    venue = Venue(config())
    venue.clock_offset = -700
    await venue.start()
    adapter = adapter_at(venue.url)
    try:
        await adapter.start()
        assert adapter.health.clock_offset_ms is not None
        assert abs(adapter.health.clock_offset_ms + 700) < 200
        await adapter.place(order())
        venue.clock_offset = 30_000
        with pytest.raises(ClockSkew):
            await adapter.place(order("c2"))
        await until(lambda: (adapter.health.clock_offset_ms or 0) > 20_000)
        with pytest.raises(ClockSkew):
            await adapter.place(order("c3"))
        assert len(venue.requests) == 2
        assert await adapter.cancel(BTC, "c1", None) is not None
    finally:
        await adapter.close()
        await venue.stop()


# --- the stream -----------------------------------------------------------------------------------------------------


class Sink:
    def __init__(self) -> None:
        self.orders: list[VenueOrder] = []
        self.fills: list[VenueFill] = []
        self.ups: list[bool] = []

    def on_order(self, venue: str, told: VenueOrder) -> None:
        assert venue == "alpha"
        self.orders.append(told)

    def on_fill(self, venue: str, fill: VenueFill) -> None:
        self.fills.append(fill)

    def on_stream(self, venue: str, *, up: bool, reason: str | None) -> None:
        self.ups.append(up)


@asynccontextmanager
async def streaming(adapter: CcxtAdapter) -> AsyncIterator[Sink]:
    sink = Sink()
    task = asyncio.create_task(adapter.run_stream(sink))
    try:
        yield sink
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_stream_tells_every_trade_and_state_by_our_id(scene: Scene) -> None:
    async with streaming(scene.adapter) as sink:
        await until(lambda: sink.ups)
        assert scene.adapter.health.stream_up
        placed = await scene.adapter.place(order(quantity=Decimal("0.03")))
        for _ in range(2):
            await scene.control.trade("BTCUSDT", "SELL", "0.01")
        await scene.adapter.cancel(BTC, "c1", placed.venue_order_id)
        await until(lambda: sink.orders and sink.orders[-1].status is VenueOrderStatus.CANCELED)
        assert [one.status for one in sink.orders] == [VenueOrderStatus.OPEN] * 3 + [VenueOrderStatus.CANCELED]
        assert [one.filled for one in sink.orders] == [Decimal(text) for text in ("0", "0.01", "0.02", "0.02")]
        assert {one.client_order_id for one in sink.orders} == {"c1"}
        assert {one.client_order_id for one in sink.fills} == {"c1"}
        assert [(fill.quantity, fill.price, fill.fee) for fill in sink.fills] == [
            (Decimal("0.01"), Decimal(40000), Decimal("0.00001"))
        ] * 2
        asked = await scene.adapter.fills(BTC, placed.venue_order_id or "")
        assert [fill.trade_id for fill in sink.fills] == [fill.trade_id for fill in asked]


async def test_a_thousand_trades_at_once_are_all_told(scene: Scene) -> None:
    async with streaming(scene.adapter) as sink:
        await until(lambda: sink.ups)
        await scene.adapter.place(order(quantity=Decimal("0.2")))
        for _ in range(10):
            await asyncio.gather(*(scene.control.trade("BTCUSDT", "SELL", "0.0002", "40000") for _ in range(100)))
        await until(lambda: len(sink.fills) == 1000)
        assert sum(fill.quantity for fill in sink.fills) == Decimal("0.2")
        assert sink.orders[-1].status is VenueOrderStatus.FILLED


async def test_a_cut_stream_is_told_and_comes_back(scene: Scene) -> None:
    async with streaming(scene.adapter) as sink:
        await until(lambda: sink.ups == [True])
        await scene.control.fault("drop_streams")
        await until(lambda: sink.ups == [True, False, True])
        await scene.adapter.place(order())
        await until(lambda: sink.orders)
    assert not scene.adapter.health.stream_up


async def test_a_stream_that_stands_still_is_told_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.ccxt_venue.exchange.KEEP_ALIVE_MS", 200)
    process = await VenueProcess.start(config())
    adapter = adapter_at(process.url)
    try:
        await adapter.start()
        async with streaming(adapter) as sink:
            await until(lambda: sink.ups == [True])
            process.pause()  # the connection stays open, nothing comes
            await until(lambda: sink.ups == [True, False])
            process.resume()
            await until(lambda: sink.ups == [True, False, True], 30)
            await adapter.place(order())
            await until(lambda: sink.orders)
    finally:
        await adapter.close()
        await process.stop()


async def test_a_venue_without_the_websocket_api_is_heard_by_listen_key() -> None:
    venue = Venue(config())

    async def not_found(request: web.Request) -> web.StreamResponse:
        return web.Response(status=404)

    venue.streams.api = not_found  # type: ignore[method-assign]
    await venue.start()
    adapter = adapter_at(venue.url)
    try:
        await adapter.start()
        async with streaming(adapter) as sink:
            await until(lambda: True in sink.ups)
            await adapter.place(order())
            await until(lambda: sink.orders)
            venue.streams.drop()
            await until(lambda: sink.ups[-1] is False)
            await until(lambda: sink.ups[-1])
    finally:
        await adapter.close()
        await venue.stop()


async def test_a_venue_without_any_stream_is_traded_on_all_the_same() -> None:
    venue, dialled = Venue(config()), []

    async def not_found(request: web.Request) -> web.StreamResponse:
        dialled.append(request.path)
        return web.Response(status=404)

    venue.streams.api = venue.streams.market = not_found  # type: ignore[method-assign]
    await venue.start()
    adapter = adapter_at(venue.url)
    try:
        await adapter.start()
        async with streaming(adapter) as sink:
            await until(lambda: sink.ups)
            assert (await adapter.place(order())).status is VenueOrderStatus.OPEN
            assert not adapter.health.stream_up
            await until(lambda: len(dialled) >= 6)
            assert sink.ups == [False]
    finally:
        await adapter.close()
        await venue.stop()


# --- the unified way ------------------------------------------------------------------------------------------------


@pytest.fixture
async def unified(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    """The same venue, traded by ccxt's unified methods as every other exchange is."""
    monkeypatch.setattr("adapters.ccxt_venue.adapter._BINANCE_SPOT", ())
    async with trading(request_timeout=1.0) as made:
        yield made


async def test_the_unified_way_is_as_exact(unified: Scene) -> None:
    adapter, price = unified.adapter, Decimal("43210.07")
    placed = await adapter.place(order(quantity=Decimal("0.12345"), price=price))
    assert (placed.status, placed.quantity, placed.price) == (VenueOrderStatus.OPEN, Decimal("0.12345"), price)
    await unified.control.trade("BTCUSDT", "SELL", "0.02345", "43210.07")
    found = await adapter.find(BTC, "c1")
    assert found is not None
    assert (found.filled, found.client_order_id) == (Decimal("0.02345"), "c1")
    assert [one.client_order_id for one in await adapter.open_orders(BTC)] == ["c1"]
    [fill] = await adapter.fills(BTC, placed.venue_order_id or "")
    assert (fill.quantity, fill.price, fill.fee, fill.maker) == (
        Decimal("0.02345"),
        price,
        Decimal("0.00002345"),
        True,
    )
    ended = await adapter.cancel(BTC, "c1", placed.venue_order_id)
    assert ended is not None
    assert (ended.status, ended.filled) == (VenueOrderStatus.CANCELED, Decimal("0.02345"))
    assert await adapter.find(BTC, "nobody") is None
    with pytest.raises(OrderUnknown):
        await adapter.cancel(BTC, "c1", None)
    book = await adapter.order_book(BTC)
    assert book.bids == ()
    assert {balance.asset for balance in await adapter.balances()} == {"BTC", "USDT"}
    assert len(await every_fill(await adapter.fills_since(BTC, 1))) == 1


async def test_the_unified_way_brings_all_trades_of_an_order(unified: Scene) -> None:
    placed = await unified.adapter.place(order(quantity=Decimal("0.5")))
    await unified.adapter.place(order("other", price=Decimal(41000), quantity=Decimal("0.001")))
    await unified.control.trade("BTCUSDT", "SELL", "0.001", "41000")
    for _ in range(6):
        await asyncio.gather(*(unified.control.trade("BTCUSDT", "SELL", "0.0002", "40000") for _ in range(100)))
    assert len(await unified.adapter.fills(BTC, placed.venue_order_id or "")) == 600


@pytest.mark.parametrize(
    ("fault", "meaning"),
    [
        ({"kind": "lose_answer"}, Unknown),
        ({"kind": "broken_body", "body": ""}, Unknown),
        ({"kind": "broken_body", "body": "[]"}, Unknown),
        ({"kind": "broken_body", "body": "{}"}, Unknown),
        ({"kind": "http_error", "status": 503, "code": -1006, "when": "after"}, Unknown),
        ({"kind": "reject", "code": -2010, "message": "Account has insufficient balance."}, InsufficientFunds),
        ({"kind": "rate_limit", "status": 429, "seconds": 3}, RateLimited),
    ],
)
async def test_what_a_failed_unified_create_means(
    unified: Scene, fault: dict[str, Any], meaning: type[AdapterError]
) -> None:
    await unified.control.fault(path="/api/v3/order", method="POST", **fault)
    with pytest.raises(AdapterError) as caught:
        await unified.adapter.place(order())
    assert type(caught.value) is meaning
    assert len(await unified.sent("POST")) == 1


async def test_the_unified_stream_tells_every_trade_and_comes_back(unified: Scene) -> None:
    async with streaming(unified.adapter) as sink:
        await until(lambda: sink.ups == [True])
        await unified.adapter.place(order(quantity=Decimal("0.02")))
        for _ in range(10):
            await unified.control.trade("BTCUSDT", "SELL", "0.002")
        await until(lambda: len({fill.trade_id for fill in sink.fills}) == 10)
        await until(lambda: sink.orders and sink.orders[-1].status is VenueOrderStatus.FILLED)
        assert {one.client_order_id for one in sink.orders} == {"c1"}
        await unified.control.fault("drop_streams")
        await until(lambda: sink.ups == [True, False, True])
        await unified.adapter.place(order("c2"))
        await until(lambda: sink.orders[-1].client_order_id == "c2")
