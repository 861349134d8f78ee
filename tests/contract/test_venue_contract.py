"""The local venue through unmodified ccxt: what works on Binance spot works here, and fails as it fails there."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import pytest
from ccxt.base import errors

from adapters.simulator.control import VenueControl
from adapters.simulator.limits import Limits
from adapters.simulator.market import MarketConfig
from tests.replica import until
from tests.system import venue

SYMBOL = "BTC/USDT"


def redirect(urls: dict[str, Any], base: str) -> None:
    for name, value in urls.items():
        if isinstance(value, dict):
            redirect(value, base)
        elif isinstance(value, str) and "://" in value:
            scheme = "ws" if value.startswith("ws") else "http"
            urls[name] = f"{scheme}://{urlsplit(base).netloc}{urlsplit(value).path}"


def exchange_at(url: str, key: str = "local", secret: str = "local-secret") -> Any:
    made = importlib.import_module("ccxt.pro.binance").binance(
        {
            "apiKey": key,
            "secret": secret,
            "enableRateLimit": False,
            "options": {
                "fetchMarkets": {"types": ["spot"]},
                "fetchMargins": False,
                "warnOnFetchOpenOrdersWithoutSymbol": False,
            },
        }
    )
    made.has["fetchCurrencies"] = False
    redirect(made.urls["api"], url)
    # ccxt chooses its table of spot errors by the real host's name.
    for group in ("exact", "broad"):
        made.exceptions.setdefault(group, {}).update(made.exceptions["spot"].get(group, {}))
    return made


@pytest.fixture
async def control() -> AsyncIterator[VenueControl]:
    async with venue() as process, process.control() as opened:
        await opened.trade("BTCUSDT", "SELL", "1", 50_100)
        await opened.trade("BTCUSDT", "SELL", "1", 50_200)
        await opened.trade("BTCUSDT", "BUY", "1", 49_900)
        yield opened


@pytest.fixture
async def exchange(control: VenueControl) -> AsyncIterator[Any]:
    made = exchange_at(control._url.removesuffix("/_control"))
    await made.load_markets()
    yield made
    await made.close()


async def test_markets_and_book(exchange: Any) -> None:
    market = exchange.market(SYMBOL)
    assert (market["precision"]["price"], market["precision"]["amount"]) == (0.01, 0.00001)
    assert market["limits"]["cost"]["min"] == 5
    book = await exchange.fetch_order_book(SYMBOL)
    assert (book["bids"][0], book["asks"]) == ([49_900, 1], [[50_100, 1], [50_200, 1]])


async def test_a_market_order_walks_the_book_and_pays_fees(exchange: Any) -> None:
    before = await exchange.fetch_balance()
    order = await exchange.create_order(SYMBOL, "market", "buy", 1.5, None, {"newOrderRespType": "FULL"})
    assert (order["status"], order["filled"], order["average"]) == ("closed", 1.5, pytest.approx(50_133.333333))
    assert [fill["price"] for fill in order["info"]["fills"]] == ["50100.00000000", "50200.00000000"]
    after = await exchange.fetch_balance()
    assert after["BTC"]["free"] - before["BTC"]["free"] == pytest.approx(1.5 * 0.999)
    assert before["USDT"]["free"] - after["USDT"]["free"] == pytest.approx(50_100 + 25_100)
    trades = await exchange.fetch_my_trades(SYMBOL)
    assert [trade["amount"] for trade in trades] == [1.0, 0.5]
    assert len({trade["id"] for trade in trades}) == 2


async def test_limit_orders_rest_fill_as_maker_and_are_canceled(exchange: Any, control: VenueControl) -> None:
    order = await exchange.create_order(SYMBOL, "limit", "buy", 1, 49_950, {"newClientOrderId": "mine"})
    assert order["status"] == "open"
    await control.trade("BTCUSDT", "SELL", "0.4", 49_950)
    found = await exchange.fetch_order(None, SYMBOL, {"origClientOrderId": "mine"})
    assert (found["status"], found["filled"]) == ("open", 0.4)
    assert len(await exchange.fetch_open_orders(SYMBOL)) == 1
    canceled = await exchange.cancel_order(None, SYMBOL, {"origClientOrderId": "mine"})
    assert (canceled["status"], canceled["filled"]) == ("canceled", 0.4)
    (trade,) = await exchange.fetch_my_trades(SYMBOL)
    assert (trade["takerOrMaker"], trade["fee"]["currency"]) == ("maker", "BTC")
    balance = await exchange.fetch_balance()
    assert balance["USDT"]["used"] == 0


@pytest.mark.parametrize(
    ("amount", "price", "params", "status", "filled"),
    [
        (2, 50_100, {"timeInForce": "IOC"}, "expired", 1.0),
        (2, 50_100, {"timeInForce": "FOK"}, "expired", 0.0),
        (2, 50_200, {"timeInForce": "FOK"}, "closed", 2.0),
        (1, 50_000, {"postOnly": True}, "open", 0.0),
    ],
)
async def test_times_in_force(
    exchange: Any, amount: int, price: int, params: dict[str, Any], status: str, filled: float
) -> None:
    order = await exchange.create_order(SYMBOL, "limit", "buy", amount, price, {**params, "newOrderRespType": "FULL"})
    found = await exchange.fetch_order(order["id"], SYMBOL)
    assert (found["status"], found["filled"]) == (status, filled)


async def test_stops_wait_for_their_price(exchange: Any, control: VenueControl) -> None:
    stop = await exchange.create_order(SYMBOL, "STOP_LOSS_LIMIT", "sell", 0.5, 49_000, {"stopPrice": 49_900})
    profit = await exchange.create_order(SYMBOL, "TAKE_PROFIT", "sell", 0.1, None, {"stopPrice": 50_150})
    assert len(await exchange.fetch_open_orders(SYMBOL)) == 2
    await control.trade("BTCUSDT", "SELL", "0.1")  # at 49,900: the stop is reached
    assert (await exchange.fetch_order(stop["id"], SYMBOL))["status"] == "closed"
    await control.trade("BTCUSDT", "BUY", "1.5")  # up to 50,200: the target is reached
    assert (await exchange.fetch_order(profit["id"], SYMBOL))["filled"] == 0.1


async def test_cancel_replace(exchange: Any) -> None:
    order = await exchange.create_order(SYMBOL, "limit", "buy", 1, 49_000)
    new = await exchange.edit_order(order["id"], SYMBOL, "limit", "buy", 1, 49_100)
    assert new["price"] == 49_100
    assert (await exchange.fetch_order(order["id"], SYMBOL))["status"] == "canceled"
    with pytest.raises(errors.BaseError):
        await exchange.edit_order(order["id"], SYMBOL, "limit", "buy", 1, 49_200)
    assert len(await exchange.fetch_open_orders(SYMBOL)) == 1


@pytest.mark.parametrize(
    ("order", "error"),
    [
        (("limit", "buy", 1e7, 50_000, {}), errors.InvalidOrder),
        (("limit", "buy", 0.0001, 40_000, {}), errors.BadRequest),
        (("limit", "buy", 8_000, 200_000, {}), errors.InsufficientFunds),
        (("limit", "buy", 1, 50_100, {"postOnly": True}), errors.OrderImmediatelyFillable),
        (("limit", "buy", 1, 1, {}), errors.InvalidOrder),
    ],
)
async def test_refusals_are_binances(exchange: Any, order: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        await exchange.create_order(SYMBOL, *order)
    assert await exchange.fetch_open_orders(SYMBOL) == []


async def test_a_client_id_is_refused_only_while_its_order_is_open(exchange: Any) -> None:
    again = {"newClientOrderId": "same"}
    await exchange.create_order(SYMBOL, "limit", "buy", 1, 49_000, again)
    with pytest.raises(errors.InvalidOrder, match="Duplicate order sent"):
        await exchange.create_order(SYMBOL, "limit", "buy", 1, 49_000, again)
    await exchange.cancel_order(None, SYMBOL, {"origClientOrderId": "same"})
    await exchange.create_order(SYMBOL, "limit", "buy", 1, 49_100, again)
    assert (await exchange.fetch_order(None, SYMBOL, {"origClientOrderId": "same"}))["price"] == 49_100


async def test_what_is_not_there(exchange: Any) -> None:
    with pytest.raises(errors.OrderNotFound):
        await exchange.fetch_order("999", SYMBOL)
    with pytest.raises(errors.OrderNotFound):
        await exchange.cancel_order("999", SYMBOL)


async def test_keys_signatures_and_clocks_are_checked(exchange: Any, control: VenueControl) -> None:
    url = control._url.removesuffix("/_control")
    for key, secret in (("wrong", "local-secret"), ("local", "wrong")):
        stranger = exchange_at(url, key, secret)
        with pytest.raises(errors.AuthenticationError):
            await stranger.fetch_balance()
        await stranger.close()
    await control.clock(120_000)
    with pytest.raises(errors.InvalidNonce):
        await exchange.fetch_balance()


async def _refusal(exchange: Any) -> Exception | None:
    try:
        await exchange.create_order(SYMBOL, "limit", "buy", 1, 49_000)
    except errors.BaseError as error:
        return error
    return None


async def test_limits_are_enforced_as_announced() -> None:
    async with venue(limits=Limits(orders_per_10s=3, weight_per_minute=6000)) as process:
        exchange = exchange_at(process.url)
        await exchange.load_markets()
        async with process.control() as control:
            await control.trade("BTCUSDT", "SELL", "1", 50_100)
        refused = [
            error
            for error in [await _refusal(exchange) for _ in range(7)]
            if isinstance(error, errors.DDoSProtection) and "Too many new orders" in str(error)
        ]
        assert refused
        assert int(exchange.last_response_headers["Retry-After"]) > 0
        await exchange.close()


async def test_the_stream_tells_orders_trades_and_books(exchange: Any, control: VenueControl) -> None:
    trades: list[Any] = []
    orders: list[Any] = []

    async def follow(watch: Any, into: list[Any]) -> None:
        while True:
            into.extend(await watch())

    tasks = [
        asyncio.create_task(follow(exchange.watch_my_trades, trades)),
        asyncio.create_task(follow(exchange.watch_orders, orders)),
    ]
    await asyncio.sleep(0.5)
    await exchange.create_order(SYMBOL, "limit", "buy", 1, 49_950, {"newClientOrderId": "told"})
    await control.trade("BTCUSDT", "SELL", "1", 49_950)
    await until(lambda: trades and any(order["status"] == "closed" for order in orders))
    assert (trades[0]["amount"], trades[0]["takerOrMaker"]) == (1, "maker")
    book = await exchange.watch_order_book(SYMBOL)
    await control.trade("BTCUSDT", "BUY", "2", 49_960)
    await until(lambda: book["bids"] and book["bids"][0] == [49_960, 2])
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize(
    ("fault", "error", "taken"),
    [
        ({"kind": "lose_answer"}, errors.NetworkError, True),
        ({"kind": "lose_request"}, errors.NetworkError, False),
        ({"kind": "http_error", "status": 503, "when": "after"}, errors.OperationFailed, True),
        ({"kind": "http_error", "status": 503, "when": "before"}, errors.OperationFailed, False),
        ({"kind": "rate_limit", "status": 429, "seconds": 1}, errors.DDoSProtection, False),
        ({"kind": "rate_limit", "status": 418, "seconds": 1}, errors.DDoSProtection, False),
        (
            {"kind": "reject", "code": -2010, "message": "Account has insufficient balance for requested action."},
            errors.InsufficientFunds,
            False,
        ),
        ({"kind": "broken_body"}, None, True),
        ({"kind": "latency", "seconds": 0.2}, None, True),
    ],
)
async def test_faults_are_met_once(
    exchange: Any, control: VenueControl, fault: dict[str, Any], error: Any, taken: bool
) -> None:
    details = {key: value for key, value in fault.items() if key != "kind"}
    await control.fault(fault["kind"], method="POST", path="/api/v3/order", **details)
    if error is None:
        await exchange.create_order(SYMBOL, "limit", "buy", 1, 49_000)
    else:
        with pytest.raises(error):
            await exchange.create_order(SYMBOL, "limit", "buy", 1, 49_000)
    assert len((await control.record())["orders"]) == int(taken)
    await exchange.create_order(SYMBOL, "limit", "buy", 1, 49_000)
    assert await control.faults() == []


async def test_the_same_seed_makes_the_same_market() -> None:
    from adapters.simulator.engine import Engine
    from adapters.simulator.market import SyntheticMarket
    from tests.system import venue_config

    def run(seed: int) -> list[tuple[Decimal, Decimal]]:
        engine = Engine(venue_config().symbols, maker_bps=Decimal(1), taker_bps=Decimal(1), now=lambda: 0)
        market = engine.market("BTCUSDT")
        synthetic = SyntheticMarket(engine, market, MarketConfig(seed=seed))
        for _ in range(50):
            synthetic.step()
        return [(trade.price, trade.quantity) for trade in market.trades]

    assert run(1) == run(1)
    assert run(1) != run(2)
