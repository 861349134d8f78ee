"""The ccxt adapter against servers that only resemble Binance: poorer, stranger, or hostile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
import structlog
from aiohttp import web

from adapters.base import (
    AdapterError,
    ApprovedOrder,
    NotReady,
    RateLimited,
    Rejected,
    Unknown,
    VenueOrderStatus,
    every_fill,
)
from adapters.ccxt_venue import CcxtAdapter, parse_endpoints
from schemas.terms import OrderType, Side

KEY, SECRET = "key0123456789abcdef", "very-secret-0123456789"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

BARE_SYMBOL = {
    "symbol": "BTCUSDT",
    "status": "TRADING",
    "baseAsset": "BTC",
    "quoteAsset": "USDT",
    "filters": [
        {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000", "tickSize": "0.01"},
        {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9000", "stepSize": "0.00001"},
    ],
}


class Foreign:
    """A server that knows only what it is given; everything else is a 404 in HTML."""

    def __init__(self, routes: dict[str, Handler | Any]) -> None:
        self._routes = routes
        self.requests: list[tuple[str, str, str]] = []
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    def answers(self, route: str, answer: Any) -> None:
        """From now on."""
        self._routes[route] = answer

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path, request.query_string + (await request.text())))
        answer = self._routes.get(f"{request.method} {request.path}")
        if answer is None:
            return web.Response(status=404, text="<html>Not Found</html>", content_type="text/html")
        if callable(answer):
            made: web.StreamResponse = await answer(request)
            return made
        return (
            web.Response(text=answer, content_type="application/json")
            if isinstance(answer, str)
            else web.json_response(answer)
        )


@asynccontextmanager
async def started(**routes: Any) -> AsyncIterator[tuple[Foreign, CcxtAdapter]]:
    """A server with the markets and the given routes (`POST_order` is `POST /api/v3/order`), and an adapter at it."""
    known: dict[str, Any] = {
        "GET /api/v3/exchangeInfo": {"symbols": [BARE_SYMBOL]},
        "GET /api/v3/openOrders": [],
    }
    known |= {name.replace("_", " /api/v3/", 1): answer for name, answer in routes.items()}
    server = Foreign(known)
    await server.start()
    adapter = CcxtAdapter(
        parse_endpoints(f"beta=binance@{server.url}")[0], {"apiKey": KEY, "secret": SECRET}, request_timeout=2.0
    )
    try:
        await adapter.start()
        yield server, adapter
    finally:
        await adapter.close()
        await server.stop()


def order(**changes: Any) -> ApprovedOrder:
    fields: dict[str, Any] = {
        "client_order_id": "c1",
        "symbol": "BTC/USDT",
        "side": Side.SELL,
        "order_type": OrderType.LIMIT,
        "quantity": Decimal("0.5"),
        "price": Decimal(60000),
    }
    return ApprovedOrder(**{**fields, **changes})


async def test_a_server_with_neither_time_nor_account_nor_limits_is_traded_on() -> None:
    async with started(POST_order={"orderId": 7, "clientOrderId": "c1", "status": "NEW"}) as (server, adapter):
        assert adapter.symbols() == ["BTC/USDT"]
        placed = await adapter.place(order())
        assert (placed.venue_order_id, placed.status) == ("7", VenueOrderStatus.OPEN)
        assert placed.filled is None  # it did not say
        assert placed.quantity is None
        assert [path for method, path, _ in server.requests if method == "POST"] == ["/api/v3/order"]


async def test_an_answer_without_a_status_is_accepted_and_not_known() -> None:
    async with started(POST_order={"orderId": 7, "transactTime": 1}) as (_, adapter):
        placed = await adapter.place(order())
        assert (placed.venue_order_id, placed.status, placed.filled) == ("7", None, None)


async def test_trades_without_ids_are_left_to_the_list_of_trades() -> None:
    fill = {"price": "60000", "qty": "0.5", "commission": "30", "commissionAsset": "USDT"}
    answer = {"orderId": 7, "status": "FILLED", "executedQty": "0.5", "side": "SELL", "fills": [fill]}
    async with started(POST_order=answer) as (_, adapter):
        placed = await adapter.place(order())
        assert (placed.status, placed.filled, placed.fills) == (VenueOrderStatus.FILLED, Decimal("0.5"), ())


async def test_json_numbers_keep_every_digit() -> None:
    text = '{"orderId":9007199254740993,"status":"NEW","price":60000.1234567890123456789,"origQty":0.1,"executedQty":0}'
    async with started(POST_order=text) as (_, adapter):
        placed = await adapter.place(order())
        assert placed.venue_order_id == "9007199254740993"
        assert placed.price == Decimal("60000.1234567890123456789")
        assert placed.quantity == Decimal("0.1")


async def test_pages_that_repeat_themselves_come_to_an_end() -> None:
    rows = [
        {"id": n, "orderId": 7 if n % 2 else 8, "price": "1", "qty": "1", "commission": "0", "time": 10**12 + n}
        for n in range(100)
    ]
    async with started(GET_myTrades=rows) as (_, adapter):  # it knows neither fromId nor orderId
        assert len(await adapter.fills("BTC/USDT", "7")) == 50
        assert len(await every_fill(await adapter.fills_since("BTC/USDT", 1))) == 100


async def test_an_answer_about_another_order_is_no_answer() -> None:
    async with started(GET_order={"orderId": 7, "clientOrderId": "other", "status": "CANCELED"}) as (_, adapter):
        with pytest.raises(Unknown):
            await adapter.find("BTC/USDT", "c1")


async def test_what_the_server_echoes_never_shows_a_secret() -> None:
    seen: list[str] = []

    async def echo(request: web.Request) -> web.StreamResponse:
        body = await request.text()
        seen.append(f"{request.query_string}{body}")
        said = f"{request.method} {request.url} {dict(request.headers)} {body} secret={SECRET}"
        return web.json_response({"code": -1100, "msg": said}, status=400)

    async def shout(request: web.Request) -> web.StreamResponse:
        seen.append(f"{request.query_string}{await request.text()}")
        return web.Response(status=502, text=f"<pre>{request.url} {dict(request.headers)} {await request.text()}</pre>")

    with structlog.testing.capture_logs() as logs:
        async with started(POST_order=echo, DELETE_order=echo, GET_order=shout, GET_myTrades=shout) as (_, adapter):
            said: list[str] = []
            for request in (
                adapter.place(order()),
                adapter.cancel("BTC/USDT", "c1", None),
                adapter.find("BTC/USDT", "c1"),
                adapter.fills_since("BTC/USDT", 1),
            ):
                with pytest.raises(AdapterError) as caught:
                    await request
                said += [
                    str(caught.value),
                    repr(caught.value),
                    str(adapter.health.last_error),
                    repr(caught.value.__cause__),
                ]
    signatures = [part.partition("signature=")[2][:64] for part in seen]
    assert len(signatures) == 4
    assert all(len(signature) == 64 for signature in signatures)
    text = "\n".join([*said, repr(logs)])
    for secret in (KEY, SECRET, *signatures):
        assert secret not in text


async def test_retry_after_as_a_date_and_a_ban_told_in_words() -> None:
    async def dated(_: web.Request) -> web.StreamResponse:
        return web.Response(status=429, headers={"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"}, text="slow down")

    async with started(POST_order=dated) as (_, adapter):
        with pytest.raises(RateLimited) as caught:
            await adapter.place(order())
        assert caught.value.until > 0
    words = "Way too much request weight used; IP banned until 4102444800000. Please use WebSocket Streams."

    async def banned(_: web.Request) -> web.StreamResponse:
        return web.json_response({"code": -1003, "msg": words}, status=418)

    async with started(POST_order=banned) as (_, adapter):
        with pytest.raises(RateLimited) as caught:
            await adapter.place(order())
        assert caught.value.until == 4102444800000


async def test_a_web_page_in_place_of_a_venue_is_refused_with_the_reason() -> None:
    async def page(_: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>Welcome</html>", content_type="text/html")

    with pytest.raises(NotReady, match="markets cannot be loaded"):
        async with started(GET_exchangeInfo=page, GET_time=page):
            pass


async def test_a_server_that_sends_anything_at_all_does_not_break_the_adapter() -> None:
    answers = [
        "null", "1", '"text"', "[1,2]", '{"orderId":{}}', '{"orderId":1,"status":5,"executedQty":"x"}',
        '{"orderId":1,"updateTime":"soon"}', '{"orderId":1,"side":"SELL","fills":[{"tradeId":1}]}', "\x00", "[" * 5000,
        '{"orderId":1,"side":"SELL","fills":7}', '{"code":0}', '{"code":-9,"msg":{}}', "NaN", '{"symbol":"\\ud800"}',
    ]  # fmt: skip
    told = iter(answers)

    async def anything(_: web.Request) -> web.StreamResponse:
        return web.Response(text=next(told), content_type="application/json")

    async with started(POST_order=anything) as (_, adapter):
        for answer in answers:
            try:
                placed = await adapter.place(order())
            except Unknown:
                continue
            except Rejected as error:
                pytest.fail(f"{answer!r} was taken for a certain reject: {error}")
            assert placed.venue_order_id is not None


async def test_no_more_requests_leave_at_once_than_connections_may_be_open_and_cancels_do_not_wait_for_one() -> None:
    release, held = asyncio.Event(), asyncio.Semaphore(0)

    async def hold(_: web.Request) -> web.StreamResponse:
        held.release()
        await release.wait()
        return web.json_response({"orderId": 1, "status": "NEW"})

    gone = {"orderId": 2, "status": "CANCELED", "executedQty": "0"}
    async with started(POST_order=hold, DELETE_order=gone) as (server, adapter):
        creates = [asyncio.create_task(adapter.place(order(client_order_id=f"c{n}"))) for n in range(80)]
        for _ in range(64):
            await held.acquire()
        canceled = await adapter.cancel("BTC/USDT", "x", "2")
        assert canceled is not None
        assert len([1 for method, _, _ in server.requests if method == "POST"]) == 64
        release.set()
        assert len(await asyncio.gather(*creates)) == 80


def listing(*more: str) -> str:
    rows = [
        f'{{"symbol":"BTCUSDT","orderId":{n},"clientOrderId":"c{n}","status":"NEW","side":"BUY","type":"LIMIT",'
        f'"price":60000.1234567890123456789,"origQty":"0.1","executedQty":"0","time":{10**12 + n}}}'
        for n in range(1000)
    ]
    return f"[{','.join([*rows, *more])}]"


async def test_a_long_list_is_read_row_by_row_digit_for_digit() -> None:
    async with started(GET_openOrders=listing()) as (_, adapter):
        found = await adapter.open_orders()
        assert [one.client_order_id for one in found] == [f"c{n}" for n in range(1000)]
        assert {(one.symbol, one.price) for one in found} == {("BTC/USDT", Decimal("60000.1234567890123456789"))}


@pytest.mark.parametrize("row", ["7", "null", '{"orderId":', '"\\ud800"'])
async def test_a_long_list_with_a_row_that_is_no_order_is_no_answer(row: str) -> None:
    async with started() as (server, adapter):
        server.answers("GET /api/v3/openOrders", listing(row))
        with pytest.raises(Unknown):
            await adapter.open_orders()
