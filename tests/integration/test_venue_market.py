"""The local venue's market as clients see it: unmodified ccxt and ccxt.pro on its streams, candles, stops, recordings."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from ccxt.base import errors

from adapters.simulator.control import VenueControl
from adapters.simulator.market import MarketConfig
from adapters.simulator.process import VenueProcess
from adapters.simulator.server import VenueConfig
from adapters.simulator.symbols import SymbolSpec
from tests.contract.test_venue_contract import exchange_at
from tests.replica import until
from tests.system import venue

SYMBOL = "BTC/USDT"
Connect = Callable[[str], Awaitable[Any]]
QUIET = MarketConfig(volatility=0.0, trades=0.0)


@pytest.fixture
async def control() -> AsyncIterator[VenueControl]:
    async with venue() as process, process.control() as opened:
        await opened.trade("BTCUSDT", "SELL", "1", 50_100)
        await opened.trade("BTCUSDT", "BUY", "1", 49_900)
        yield opened


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Unmodified ccxt.pro at a URL, closed when the test ends."""
    opened = []

    async def open_at(url: str) -> Any:
        opened.append(exchange_at(url))
        await opened[-1].load_markets()
        return opened[-1]

    yield open_at
    for one in opened:
        await one.close()


@pytest.fixture
async def exchange(control: VenueControl, connect: Connect) -> Any:
    return await connect(control._url.removesuffix("/_control"))


async def within_a_minute() -> None:
    """Wait until the minute does not end soon, so that what a test trades is in one candle."""
    left = 60 - time.time() % 60
    if left < 10:
        await asyncio.sleep(left + 0.1)


async def read(socket: aiohttp.ClientWebSocketResponse, *kinds: str) -> dict[str, Any]:
    """The next message of each of these event types or stream names."""
    found: dict[str, Any] = {}
    async with asyncio.timeout(20):
        while set(kinds) - set(found):
            message = msgspec.json.decode((await socket.receive()).data)
            data = message.get("data", message)
            found.setdefault(message.get("stream") or data.get("e") or "", data)
    return found


# --- orders -------------------------------------------------------------------------------------------------------------


async def test_an_iceberg_through_ccxt(exchange: Any, control: VenueControl) -> None:
    assert exchange.market(SYMBOL)["info"]["icebergAllowed"] is True
    order = await exchange.create_order(SYMBOL, "limit", "sell", 1, 50_050, {"icebergAmount": 0.2})
    assert order["info"]["icebergQty"] == "0.20000000"
    book = await exchange.fetch_order_book(SYMBOL)
    assert book["asks"][0] == [50_050, 0.2]
    await control.trade("BTCUSDT", "BUY", "0.7")
    found = await exchange.fetch_order(order["id"], SYMBOL)
    assert (found["status"], found["filled"], found["info"]["icebergQty"]) == ("open", 0.7, "0.20000000")
    assert (await exchange.fetch_order_book(SYMBOL))["asks"][0] == [50_050, 0.1]
    await control.trade("BTCUSDT", "BUY", "0.15")
    assert (await exchange.fetch_order_book(SYMBOL))["asks"][0] == [50_050, 0.15]
    for shown, says in ((1.0, "IcebergQty exceeds QTY"), (0.05, "ICEBERG_PARTS")):
        with pytest.raises(errors.BaseError, match=says):
            await exchange.create_order(SYMBOL, "limit", "sell", 1, 50_050, {"icebergAmount": shown})


async def test_waiting_stops_are_told_as_new(exchange: Any, control: VenueControl) -> None:
    told: list[dict[str, Any]] = []

    async def follow() -> None:
        while True:
            told.extend(order["info"] for order in await exchange.watch_orders(SYMBOL))

    task = asyncio.create_task(follow())
    await asyncio.sleep(0.5)
    profit = await exchange.create_order(SYMBOL, "TAKE_PROFIT", "sell", 0.5, None, {"stopPrice": 50_080})
    (waiting,) = await exchange.fetch_open_orders(SYMBOL)
    info = waiting["info"]
    assert (waiting["id"], info["status"], info["isWorking"], info["workingTime"]) == (profit["id"], "NEW", False, -1)
    await control.price("BTCUSDT", "50080")
    assert (await exchange.fetch_order(profit["id"], SYMBOL))["status"] == "closed"
    await until(lambda: any(one["X"] == "FILLED" for one in told))
    reports = [(one["x"], one["w"], "W" in one) for one in told]
    whole = [("NEW", False, False), ("NEW", True, True), ("TRADE", False, True)]
    # ccxt loses what comes between two of its calls: what it did see is as it should be, and in this order.
    assert reports == [report for report in whole if report in reports]
    assert reports[-1] == whole[-1]
    assert {(one["i"], one["P"]) for one in told} == {(int(profit["id"]), "50080.00000000")}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_waiting_order_holds_its_funds_back(connect: Connect) -> None:
    async with venue(balances={"BTC": Decimal(1)}) as process:
        exchange = await connect(process.url)
        profit = await exchange.create_order(SYMBOL, "TAKE_PROFIT", "sell", 1, None, {"stopPrice": 51_000})
        balance = (await exchange.fetch_balance())["BTC"]
        assert (balance["free"], balance["used"]) == (0, 1)
        for kind, price, params in (
            ("STOP_LOSS_LIMIT", 49_000, {"stopPrice": 49_500}),
            ("limit", 52_000, {}),
            ("STOP_LOSS", None, {"trailingDelta": 100}),
        ):
            with pytest.raises(errors.InsufficientFunds):
                await exchange.create_order(SYMBOL, kind, "sell", 0.5, price, params)
        await exchange.cancel_order(profit["id"], SYMBOL)
        await exchange.create_order(SYMBOL, "STOP_LOSS_LIMIT", "sell", 1, 49_000, {"stopPrice": 49_500})


async def test_a_trailing_stop_through_ccxt(exchange: Any, control: VenueControl) -> None:
    assert exchange.market(SYMBOL)["info"]["allowTrailingStop"] is True
    params = {"trailingPercent": 1, "stopLossOrTakeProfit": "stopLoss"}
    order = await exchange.create_order(SYMBOL, "market", "sell", 0.1, None, params)
    assert order["info"]["trailingDelta"] == 100
    with pytest.raises(errors.BadRequest, match="TRAILING_DELTA"):
        await exchange.create_order(SYMBOL, "market", "sell", 0.1, None, {**params, "trailingPercent": 25})
    for price in ("51000", "52000", "51481"):
        await control.price("BTCUSDT", price)
        assert (await exchange.fetch_order(order["id"], SYMBOL))["status"] == "open"
    await control.price("BTCUSDT", "51480")
    assert (await exchange.fetch_order(order["id"], SYMBOL))["status"] == "closed"


async def test_a_venue_without_stops(connect: Connect) -> None:
    spec = SymbolSpec(base="BTC", quote="USDT", price=Decimal(50_000), order_types=("LIMIT", "MARKET"), iceberg=False)
    async with venue(symbols=[spec]) as process:
        exchange = await connect(process.url)
        info = exchange.market(SYMBOL)["info"]
        assert (info["orderTypes"], info["icebergAllowed"], info["allowTrailingStop"]) == (
            ["LIMIT", "MARKET"],
            False,
            False,
        )
        asked = {"symbol": "BTCUSDT", "side": "SELL", "quantity": "1"}
        for more, says in (
            ({"type": "STOP_LOSS", "stopPrice": "49000"}, "Stop loss orders are not supported for this symbol."),
            ({"type": "LIMIT_MAKER", "price": "50000"}, "Limit maker orders are not supported"),
            ({"type": "ODD"}, "Invalid orderType."),
            (
                {"type": "LIMIT", "price": "50000", "timeInForce": "GTC", "icebergQty": "0.5"},
                "Iceberg orders are not supported",
            ),
        ):
            with pytest.raises(errors.BaseError, match=says):
                await exchange.private_post_order({**asked, **more})
        assert await exchange.fetch_open_orders(SYMBOL) == []


# --- the market's own life ----------------------------------------------------------------------------------------------


async def test_jumps_ramps_and_pauses(connect: Connect) -> None:
    async with venue(market=MarketConfig(trades=50.0)) as process, process.control() as control:
        exchange = await connect(process.url)
        await control.price("BTCUSDT", "40000")
        book = await exchange.fetch_order_book(SYMBOL)
        assert book["bids"][0][0] < 40_000 < book["asks"][0][0]
        assert round((book["asks"][0][0] - book["bids"][0][0]) / 0.01) >= 2
        trades = await exchange.fetch_trades(SYMBOL)
        assert 40_000 in [trade["price"] for trade in trades]

        await control.pause("BTCUSDT")
        assert (await control.market())["BTCUSDT"]["paused"]
        before = await exchange.fetch_trades(SYMBOL)
        await asyncio.sleep(0.3)
        assert len(await exchange.fetch_trades(SYMBOL)) == len(before)
        await control.price("BTCUSDT", "42000", seconds=0.5)  # the price can be moved while everybody waits

        async def arrived() -> bool:
            return Decimal((await control.market())["BTCUSDT"]["last"]) == 42_000

        async with asyncio.timeout(10):
            while not await arrived():
                await asyncio.sleep(0.02)
        after = await exchange.fetch_trades(SYMBOL)
        steps = [trade["price"] for trade in after[len(before) :]]
        assert len(steps) >= 4
        assert steps == sorted(steps)
        await control.unpause("BTCUSDT")
        async with asyncio.timeout(10):
            while len(await exchange.fetch_trades(SYMBOL)) <= len(after):
                await asyncio.sleep(0.05)
        with pytest.raises(ValueError, match="Invalid symbol"):
            await control.price("NOPE", "1")


async def test_a_big_order_moves_the_book_and_the_book_comes_back(connect: Connect) -> None:
    async with venue(market=MarketConfig(volatility=0.0, trades=0.0, permanent_impact=0.0, step=0.05, speed=20.0)) as (
        process
    ):
        exchange = await connect(process.url)
        before = (await exchange.fetch_order_book(SYMBOL))["asks"][0][0]
        await exchange.create_order(SYMBOL, "market", "buy", 20)
        assert (await exchange.fetch_order_book(SYMBOL))["asks"][0][0] > before
        async with asyncio.timeout(15):
            while (await exchange.fetch_order_book(SYMBOL))["asks"][0][0] > before:
                await asyncio.sleep(0.05)


async def test_a_recording_drives_the_market(control: VenueControl, exchange: Any) -> None:
    recorded = [(n * 1000, f"{50_000 + n}", f"0.{n + 1:02}", "buy" if n % 3 else "sell") for n in range(40)]
    await control.clear_book("BTCUSDT")
    await control.replay("BTCUSDT", recorded, speed=200)
    async with asyncio.timeout(15):
        while not (await control.market())["BTCUSDT"]["finished"]:
            await asyncio.sleep(0.02)
    trades = await exchange.fetch_trades(SYMBOL)
    assert [(trade["price"], trade["amount"], trade["side"]) for trade in trades] == [
        (float(price), float(quantity), side) for _, price, quantity, side in recorded
    ]
    assert trades[-1]["timestamp"] - trades[0]["timestamp"] >= 100
    book = await exchange.fetch_order_book(SYMBOL)
    assert book["bids"]
    assert book["asks"]
    await control.end_replay("BTCUSDT")
    assert (await control.market())["BTCUSDT"]["kind"] == "still"


async def test_a_recording_from_a_file_of_the_command_line(tmp_path: Path, connect: Connect) -> None:
    tape, port = tmp_path / "tape.csv", tmp_path / "port"
    tape.write_text("ts_ms,price,quantity,side\n" + "".join(f"{n * 60_000},300{n},1.5,buy\n" for n in range(9)))
    options = ["--price", "ETH/USDT=3000", "--market", "off", "--replay", f"ETH/USDT={tape}", "--speed", "3600"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "adapters.simulator", *options),
        *("--order-types", "LIMIT,MARKET", "--port-file", str(port), "--die-with-parent"),
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        await until(lambda: port.exists() and port.read_text().endswith("\n"))
        exchange = await connect(f"http://127.0.0.1:{port.read_text().strip()}")
        assert exchange.market("ETH/USDT")["info"]["orderTypes"] == ["LIMIT", "MARKET"]
        async with asyncio.timeout(15):
            while len(trades := await exchange.fetch_trades("ETH/USDT")) < 9:
                await asyncio.sleep(0.05)
        assert [trade["price"] for trade in trades] == [3000.0 + n for n in range(9)]
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--replay", "tape.csv"], "tape.csv, line 2: expected ts_ms,price,quantity,side"),
        (["--replay", "none.csv"], "No such file"),
        (["--replay", "XRP/USDT=tape.csv"], "a recording for XRPUSDT, but the symbols are BTCUSDT, ETHUSDT"),
        (["--order-types", "LIMIT,MARKTE"], "BTCUSDT: no order types MARKTE; there are LIMIT,"),
        (["--speed", "0"], "the speed must be above zero"),
    ],
)
async def test_what_it_cannot_start_with_is_said(tmp_path: Path, options: list[str], says: str) -> None:
    (tmp_path / "tape.csv").write_text("1,50000,1,buy\nnonsense\n")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "adapters.simulator", *options),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 1
    assert says in said.decode()
    assert "Traceback" not in said.decode()


# --- what is published --------------------------------------------------------------------------------------------------


async def test_ccxt_pro_watches_books_trades_and_candles(connect: Connect) -> None:
    async with venue(market=MarketConfig(trades=20.0, volatility=2.0)) as process:
        exchange = await connect(process.url)
        trades: list[Any] = []
        candles: dict[int, list[float]] = {}

        async def follow_trades() -> None:
            while True:
                trades.extend(await exchange.watch_trades(SYMBOL))

        async def follow_candles() -> None:
            while True:
                for candle in await exchange.watch_ohlcv(SYMBOL, "1m"):
                    candles[candle[0]] = candle

        async def follow_book() -> None:
            while True:
                await exchange.watch_order_book(SYMBOL)

        tasks = [asyncio.create_task(follow()) for follow in (follow_trades, follow_candles, follow_book)]
        await until(lambda: len(trades) > 30 and candles and SYMBOL in exchange.orderbooks, 30)
        ids = [int(trade["id"]) for trade in trades]
        assert all(b == a + 1 for a, b in pairwise(ids)), "a gap, or one twice"
        book = exchange.orderbooks[SYMBOL]
        assert book["bids"][0][0] < book["asks"][0][0]
        start = max(candles)
        told = [trade for trade in trades if start <= trade["timestamp"] < start + 60_000]
        if len(candles) == 1:
            assert candles[start][2] >= max(trade["price"] for trade in told[:-5])
            assert candles[start][3] <= min(trade["price"] for trade in told[:-5])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # After everybody has paused, what was pieced together from the stream is what REST says.
        async with process.control() as control:
            await control.pause()
            snapshot = await exchange.fetch_order_book(SYMBOL)
            await until(lambda: exchange.orderbooks[SYMBOL]["nonce"] == snapshot["nonce"])
            assert [list(level) for level in exchange.orderbooks[SYMBOL]["bids"]] == snapshot["bids"]
            assert [list(level) for level in exchange.orderbooks[SYMBOL]["asks"]] == snapshot["asks"]


async def test_raw_streams_combined_and_subscribed(control: VenueControl) -> None:
    await within_a_minute()
    url = control._url.removesuffix("/_control")
    names = ["@trade", "@aggTrade", "@depth", "@depth20@100ms", "@bookTicker", "@kline_1m"]
    streams = [f"btcusdt{name}" for name in names]
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(f"{url}/stream?streams={'/'.join(streams)}") as socket:
            await asyncio.sleep(0.1)
            await control.trade("BTCUSDT", "BUY", "0.25")
            await control.trade("BTCUSDT", "SELL", "0.5")
            found = await read(socket, *streams)
        trade, whole = found["btcusdt@trade"], found["btcusdt@aggTrade"]
        assert (trade["t"], trade["p"], trade["q"], trade["m"]) == (1, "50100.00000000", "0.25000000", False)
        assert (whole["a"], whole["f"], whole["l"], whole["q"]) == (1, 1, 1, "0.25000000")
        assert set(found["btcusdt@depth20@100ms"]) == {"lastUpdateId", "bids", "asks"}
        assert found["btcusdt@bookTicker"]["b"] == "49900.00000000"
        assert found["btcusdt@depth"]["U"] <= found["btcusdt@depth"]["u"]
        assert found["btcusdt@kline_1m"]["k"]["i"] == "1m"

        async with session.ws_connect(f"{url}/ws") as socket:
            await socket.send_json({"method": "SUBSCRIBE", "params": ["btcusdt@kline_1m"], "id": 7})
            await read(socket, "kline")
            await control.trade("BTCUSDT", "BUY", "0.25")
            kline = (await read(socket, "kline"))["kline"]["k"]
            assert (kline["v"], kline["V"], kline["n"], kline["x"]) == ("1.00000000", "0.50000000", 3, False)
            assert Decimal(kline["Q"]) == Decimal("0.5") * 50_100
            await socket.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 8})
            answer = (await read(socket, ""))[""]
            assert answer == {"result": ["btcusdt@kline_1m"], "id": 8}


async def test_a_candle_that_ends_is_told_as_closed(control: VenueControl) -> None:
    url = control._url.removesuffix("/_control")
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}/ws/btcusdt@kline_1s") as socket:
        await control.trade("BTCUSDT", "BUY", "0.25")
        told = []
        async with asyncio.timeout(20):
            while not (told and told[-1]["x"] and told[-1]["v"] == "0.25000000"):
                told.append(msgspec.json.decode((await socket.receive()).data)["k"])
        assert told[-1]["c"] == "50100.00000000"


async def test_history_is_there_before_the_venue(exchange: Any, control: VenueControl) -> None:
    now = exchange.milliseconds()
    hours: list[list[float]] = []
    since = now - 30 * 86_400_000
    while not hours or hours[-1][0] + 3_600_000 <= now:
        page = await exchange.fetch_ohlcv(SYMBOL, "1h", since=since, limit=1000)
        assert page
        hours += page
        since = page[-1][0] + 1
    assert len(hours) >= 30 * 24
    assert all(b[0] - a[0] == 3_600_000 for a, b in pairwise(hours))
    minutes = await exchange.fetch_ohlcv(SYMBOL, "1m", since=int(hours[100][0]), limit=60)
    fives = await exchange.fetch_ohlcv(SYMBOL, "5m", since=int(hours[100][0]), limit=12)
    assert sum(row[5] for row in minutes) == pytest.approx(hours[100][5])
    assert sum(row[5] for row in fives) == pytest.approx(hours[100][5])
    assert (minutes[0][1], minutes[-1][4]) == (hours[100][1], hours[100][4])
    raw = await exchange.public_get_klines({"symbol": "BTCUSDT", "interval": "1m", "limit": 5})
    assert len(raw) == 5
    assert len(raw[0]) == 12
    assert 0 < Decimal(raw[0][9]) < Decimal(raw[0][5])
    assert raw[0][6] == raw[0][0] + 59_999


async def test_trades_can_be_read_on_from_an_id(exchange: Any, control: VenueControl) -> None:
    for _ in range(5):
        await control.trade("BTCUSDT", "BUY", "0.01")
    told = await exchange.public_get_historicaltrades({"symbol": "BTCUSDT", "fromId": 3, "limit": 2})
    assert [trade["id"] for trade in told] == [3, 4]
    told = await exchange.public_get_aggtrades({"symbol": "BTCUSDT", "fromId": 4})
    assert [trade["a"] for trade in told] == [4, 5]


async def test_the_same_history_for_the_same_seed(connect: Connect) -> None:
    spec = SymbolSpec(base="BTC", quote="USDT", price=Decimal(50_000))
    pages = []
    for _ in range(2):
        async with await VenueProcess.start(VenueConfig(symbols=[spec], market=QUIET)) as process:
            exchange = await connect(process.url)
            day = exchange.milliseconds() // 86_400_000 * 86_400_000 - 86_400_000
            pages.append(await exchange.fetch_ohlcv(SYMBOL, "1h", since=day - 86_400_000, limit=24))
    # Returns and volumes belong to the minute; prices are chained back from the minute of the start.
    assert [row[5] * row[1] for row in pages[0]] == pytest.approx([row[5] * row[1] for row in pages[1]], rel=1e-2)
