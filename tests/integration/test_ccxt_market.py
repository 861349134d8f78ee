"""Market data through ccxt: books and trades, from the local venue and from servers that only resemble one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.base import ApprovedOrder, Rejected, Unavailable
from adapters.ccxt_venue import CcxtAdapter, market_data, parse_endpoints, parsing, watch
from adapters.ccxt_venue.feed import Feed
from adapters.ccxt_venue.tape import Tape
from adapters.simulator.control import VenueControl
from adapters.simulator.limits import Limits
from adapters.simulator.server import Venue, VenueConfig
from adapters.simulator.symbols import SymbolSpec
from schemas.market import OrderBook, PublicTrade
from schemas.terms import OrderType, Side
from tests.integration.test_ccxt_adapter_foreign import Foreign, started

BTC, ETH = "BTC/USDT", "ETH/USDT"
KEYS = {"apiKey": "local", "secret": "local-secret"}
AMPLE = Limits(orders_per_10s=100_000, weight_per_minute=10_000_000)


class Scene:
    """A venue whose book holds only what is put in, its control, and a started adapter."""

    def __init__(self, venue: Venue, control: VenueControl, adapter: CcxtAdapter) -> None:
        self.venue = venue
        self.control = control
        self.adapter = adapter

    async def quote(self, bid: str, ask: str, symbol: str = "BTCUSDT") -> None:
        await self.control.trade(symbol, "BUY", "1", bid)
        await self.control.trade(symbol, "SELL", "1", ask)


@asynccontextmanager
async def market(**changes: Any) -> AsyncIterator[Scene]:
    symbols = [
        SymbolSpec(base=base, quote="USDT", price=Decimal(price), max_orders=10_000)
        for base, price in (("BTC", 50000), ("ETH", 2500))
    ]
    venue = Venue(VenueConfig(**{"symbols": symbols, "limits": AMPLE, "market": None, **changes}))
    await venue.start()
    adapter = CcxtAdapter(parse_endpoints(f"alpha=binance@{venue.url}")[0], KEYS)
    async with VenueControl(venue.url) as control:
        try:
            await adapter.start()
            yield Scene(venue, control, adapter)
        finally:
            await adapter.close()
            await venue.stop()


class Sink:
    """Keeps what it is told, in order."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Any]] = []

    def on_book(self, venue: str, book: OrderBook) -> None:
        self.said.append((f"book {book.symbol}", book))

    def on_trades(self, venue: str, symbol: str, trades: Sequence[PublicTrade]) -> None:
        self.said.extend((f"trade {symbol}", trade) for trade in trades)

    def on_market(self, venue: str, symbol: str, *, up: bool, reason: str | None) -> None:
        self.said.append((f"{'up' if up else 'down'} {symbol}", reason))

    def of(self, kind: str, symbol: str = BTC) -> list[Any]:
        return [what for name, what in self.said if name == f"{kind} {symbol}"]


async def until(true: Callable[[], object], seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def watching(adapter: CcxtAdapter, *symbols: str) -> AsyncIterator[Sink]:
    """A sink to which books and trades of some symbols come; they are up."""
    sink = Sink()
    tasks = [asyncio.create_task(adapter.run_market(symbol, sink)) for symbol in symbols or (BTC,)]
    try:
        await until(lambda: all(sink.of("up", symbol) for symbol in symbols or (BTC,)))
        yield sink
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in ended), ended


# --- streams of Binance ---------------------------------------------------------------------------------------------


async def test_books_and_trades_come_from_the_moment_it_is_up() -> None:
    async with market() as scene:
        await scene.quote("49999.01", "50001.02")
        await scene.control.trade("BTCUSDT", "BUY", "0.1")
        async with watching(scene.adapter) as sink:
            await until(lambda: sink.of("book"))
            book = sink.of("book")[0]
            assert [name for name, _ in sink.said[:2]] == [f"up {BTC}", f"book {BTC}"]
            assert (book.bid, book.ask) == (Decimal("49999.01"), Decimal("50001.02"))
            assert book.asks[0].quantity == Decimal("0.9")
            assert abs(asyncio.get_running_loop().time() - book.received_at) < 5
            for side, quantity in (("BUY", "0.123"), ("SELL", "0.00001"), ("BUY", "0.2")):
                await scene.control.trade("BTCUSDT", side, quantity)
            await until(lambda: len(sink.of("trade")) == 3)
            await until(lambda: sink.of("book")[-1].bids[0].quantity == Decimal("0.99999"))
    trades = sink.of("trade")
    assert [(trade.side, trade.quantity) for trade in trades] == [
        (Side.BUY, Decimal("0.123")),
        (Side.SELL, Decimal("0.00001")),
        (Side.BUY, Decimal("0.2")),
    ]
    assert [trade.price for trade in trades] == [Decimal("50001.02"), Decimal("49999.01"), Decimal("50001.02")]
    assert sink.of("down") == []


async def test_every_trade_of_a_busy_market_comes_once_and_few_books_do() -> None:
    async with market() as scene:
        await scene.quote("49999", "50001")
        async with watching(scene.adapter, BTC, ETH) as sink:
            began = asyncio.get_running_loop().time()
            foreign = scene.venue.engine.markets["BTCUSDT"].trades
            before = foreign[-1].trade_id if foreign else 0
            for _ in range(200):
                await scene.control.trade("BTCUSDT", "BUY", "0.001")
            expected = [str(trade.trade_id) for trade in foreign if trade.trade_id > before]
            await until(lambda: len(sink.of("trade")) >= len(expected))
            seconds = asyncio.get_running_loop().time() - began
            assert [trade.trade_id for trade in sink.of("trade")] == expected
            assert len(expected) == 200
            assert len(sink.of("book")) <= seconds * 10 + 2
            assert sink.of("trade", ETH) == []


async def test_a_cut_stream_is_said_to_be_down_and_comes_back_without_doubles() -> None:
    async with market() as scene:
        await scene.quote("49999", "50001")
        async with watching(scene.adapter) as sink:
            await scene.control.trade("BTCUSDT", "BUY", "0.1")
            await until(lambda: sink.of("trade"))
            await scene.control.fault("drop_streams")
            await until(lambda: len(sink.of("up")) == 2)
            assert len(sink.of("down")) == 1
            assert sink.of("down")[0]
            await scene.control.trade("BTCUSDT", "BUY", "0.2")
            await until(lambda: len(sink.of("trade")) == 2)
            names = [name.split()[0] for name, _ in sink.said]
            assert names[names.index("down") + 1] == "up"
    assert [trade.quantity for trade in sink.of("trade")] == [Decimal("0.1"), Decimal("0.2")]


async def test_a_trade_that_the_stream_left_out_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async with market() as scene:
        await scene.quote("49999", "50001")
        told = scene.venue.engine.on_trade
        lost = {2, 3, 6}

        def tell(spec: SymbolSpec, trade: Any) -> None:
            if trade.trade_id not in lost:
                told(spec, trade)

        scene.venue.engine.on_trade = tell
        async with watching(scene.adapter) as sink:
            for n in range(1, 9):
                await scene.control.trade("BTCUSDT", "BUY", f"0.00{n}")
            await until(lambda: len(sink.of("trade")) == 8)
            assert [trade.trade_id for trade in sink.of("trade")] == [str(n) for n in range(1, 9)]
            assert [trade.quantity for trade in sink.of("trade")] == [Decimal(n) / 1000 for n in range(1, 9)]
            assert sink.of("down") == []


async def test_a_silent_stream_of_a_quiet_market_stays_up_and_one_of_a_moving_market_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch, "QUIET_SECONDS", 0.3)
    monkeypatch.setattr(watch, "GRACE_SECONDS", 0.5)
    async with market() as scene:
        await scene.quote("49999", "50001")
        async with watching(scene.adapter) as sink:
            await until(lambda: len(sink.of("book")) >= 4)  # confirmed over REST
            assert sink.of("down") == []
            await scene.control.fault("stall_streams", seconds=3.0)
            await scene.quote("49999.5", "50000.5")
            await until(lambda: sink.of("down"))
            assert "silent" in sink.of("down")[0]
            await until(lambda: len(sink.of("up")) == 2)
            await until(lambda: sink.of("book")[-1].bid == Decimal("49999.5"))


async def test_a_venue_that_takes_a_subscription_and_never_serves_it_is_polled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.ccxt_venue.market_data.FIRST_BOOK_SECONDS", 0.5)
    async with market() as scene:
        await scene.quote("49990", "50010")
        await scene.control.fault("stall_streams", seconds=60.0)
        async with watching(scene.adapter) as sink:
            await until(lambda: sink.of("book"), 8.0)
            assert sink.of("book")[-1].bid == 49990
            assert sink.of("up")


async def test_who_watches_a_venue_that_is_closed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(market_data, "SHORTEST_PAUSE", 0.01)
    async with market() as scene:
        sink = Sink()
        task = asyncio.create_task(scene.adapter.run_market(BTC, sink))
        await until(lambda: sink.of("up"))
        with pytest.raises(Rejected):
            await scene.adapter.run_market(BTC, sink)  # it is watched already
        await scene.adapter.close()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(task, 5)
        assert len(sink.of("down")) == 1


async def test_orders_and_their_stream_do_not_notice_the_market_data(monkeypatch: pytest.MonkeyPatch) -> None:
    class Orders:
        def __init__(self) -> None:
            self.said: list[Any] = []

        def on_order(self, venue: str, order: Any) -> None:
            self.said.append(order)

        def on_fill(self, venue: str, fill: Any) -> None:
            self.said.append(fill)

        def on_stream(self, venue: str, *, up: bool, reason: str | None) -> None:
            self.said.append(up)

    async with market() as scene:
        await scene.quote("49999", "50001")
        orders = Orders()
        stream = asyncio.create_task(scene.adapter.run_stream(orders))
        await until(lambda: orders.said == [True])
        async with watching(scene.adapter, BTC, ETH) as sink:
            await scene.adapter.place(
                ApprovedOrder(
                    client_order_id="c1",
                    symbol=BTC,
                    side=Side.BUY,
                    order_type=OrderType.MARKET,
                    quantity=Decimal("0.5"),
                )
            )
            await until(lambda: sink.of("trade"))
        await until(lambda: len(orders.said) >= 3)
        assert False not in orders.said
        with pytest.raises(Rejected):
            await scene.adapter.run_market("NO/SUCH", sink)
        stream.cancel()
        await asyncio.gather(stream, return_exceptions=True)


async def test_trades_that_cannot_be_had_any_more_put_the_market_down() -> None:
    async with market() as scene:
        await scene.quote("49999", "50001")
        told, lost = scene.venue.engine.on_trade, {2}

        def tell(spec: SymbolSpec, trade: Any) -> None:
            if trade.trade_id in lost:
                scene.venue.engine.markets["BTCUSDT"].trades.clear()  # REST has forgotten it as well
            else:
                told(spec, trade)

        scene.venue.engine.on_trade = tell
        async with watching(scene.adapter) as sink:
            for quantity in ("0.1", "0.2", "0.3"):
                await scene.control.trade("BTCUSDT", "BUY", quantity)
            await until(lambda: sink.of("down"))
            assert "lost" in sink.of("down")[0]
            await until(lambda: len(sink.of("up")) == 2)
            await scene.control.trade("BTCUSDT", "BUY", "0.15")
            await until(lambda: len(sink.of("trade")) == 2)
    assert [trade.quantity for trade in sink.of("trade")] == [Decimal("0.1"), Decimal("0.15")]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.sampled_from(["told", "lost", "twice", "held"]), max_size=30), st.integers(1, 10**6))
def test_whatever_the_stream_does_to_trades_each_comes_once_and_in_order(fates: list[str], first: int) -> None:
    async def scenario() -> None:
        sink, tape = Sink(), Tape()
        feed = Feed("alpha", BTC, sink)
        rows = [
            {"t": first + n, "p": "1.5", "q": f"{n + 1}", "T": 1_700_000_000_000 + n, "m": False}
            for n in range(len(fates) + 2)
        ]

        async def ask(_: str) -> list[PublicTrade]:
            await asyncio.sleep(0)
            return [parsing.binance_public_trade(row) for row in reversed(rows)]

        tape.begin(feed)
        feed.up()
        filler = asyncio.create_task(tape.fill_gaps(ask))
        tape.event(rows[0])
        held: list[dict[str, Any]] = []
        for fate, row in zip(fates, rows[1:], strict=False):
            if fate == "held":
                held.append(row)
                continue
            for _ in range({"told": 1, "lost": 0, "twice": 2}[fate]):
                tape.event(row)
            for late in held:
                tape.event(late)
            held.clear()
            await asyncio.sleep(0)
        tape.event(rows[-1])
        async with asyncio.timeout(5):
            while len(sink.of("trade")) < len(rows):
                await asyncio.sleep(0)
        filler.cancel()
        await asyncio.gather(filler, return_exceptions=True)
        assert [trade.trade_id for trade in sink.of("trade")] == [str(row["t"]) for row in rows]

    asyncio.run(scenario())


async def test_books_that_come_faster_are_merged_and_the_last_one_comes() -> None:
    sink = Sink()
    feed = Feed("alpha", BTC, sink)
    feed.up()
    for n in range(1000):
        feed.book({"bids": [[str(n), "1"]], "asks": []})
        if n % 100 == 0:
            await asyncio.sleep(0)
    await until(lambda: sink.of("book")[-1].bid == Decimal(999))
    assert sink.of("book")[0].bid == Decimal(0)
    assert len(sink.of("book")) < 20
    feed.book({"bids": "nonsense", "asks": []})
    with pytest.raises(ArithmeticError):
        await asyncio.wait_for(asyncio.shield(feed.failed), 5)
    feed.close()


# --- streams of ccxt.pro --------------------------------------------------------------------------------------------


class Bybit:
    """As much of Bybit as is needed to be watched: markets, and a socket that tells what a test wants."""

    def __init__(self) -> None:
        self.sockets: list[web.WebSocketResponse] = []
        self.topics: list[str] = []
        self.greeting: list[dict[str, Any]] = []

    async def markets(self, request: web.Request) -> web.StreamResponse:
        spot = {
            "symbol": "BTCUSDT", "baseCoin": "BTC", "quoteCoin": "USDT", "innovation": "0", "status": "Trading",
            "marginTrading": "none", "lotSizeFilter": {"basePrecision": "0.000001", "quotePrecision": "0.00000001",
            "minOrderQty": "0.000048", "maxOrderQty": "71", "minOrderAmt": "1", "maxOrderAmt": "2000000"},
            "priceFilter": {"tickSize": "0.01"},
        }  # fmt: skip
        rows = [spot] if request.query.get("category") == "spot" else []
        return web.json_response({"retCode": 0, "retMsg": "OK", "result": {"list": rows, "nextPageCursor": ""}})

    async def time(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"retCode": 0, "retMsg": "OK", "result": {}, "time": time.time_ns() // 1_000_000})

    async def socket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.append(socket)
        async for message in socket:
            asked = message.json()
            if asked.get("op") == "subscribe":
                self.topics += asked["args"]
                if any(topic.startswith("orderbook") for topic in asked["args"]):
                    await self.book("snapshot", [["50000.1", "1.5"], ["50000", "2"]], [["50000.2", "0.000123"]])
                else:
                    await self.say(*self.greeting)
        return socket

    async def say(self, *messages: dict[str, Any]) -> None:
        for message in messages:
            await self.sockets[-1].send_json(message)

    async def book(self, kind: str, bids: list[list[str]], asks: list[list[str]]) -> None:
        data = {"s": "BTCUSDT", "b": bids, "a": asks, "u": 1, "seq": 1}
        await self.say({"topic": "orderbook.50.BTCUSDT", "type": kind, "ts": 1_700_000_000_000, "data": data})

    @staticmethod
    def trades(*numbers: int, age_ms: int = 0) -> dict[str, Any]:
        at = time.time_ns() // 1_000_000 - age_ms
        data = [
            {"T": at, "s": "BTCUSDT", "S": "Sell", "v": f"0.1234567890123456{n}", "p": "50000.1", "i": f"id{n}"}
            for n in numbers
        ]
        return {"topic": "publicTrade.BTCUSDT", "type": "snapshot", "ts": at, "data": data}


@asynccontextmanager
async def bybit(venue: Bybit) -> AsyncIterator[CcxtAdapter]:
    server = Foreign(
        {
            "GET /v5/market/instruments-info": venue.markets,
            "GET /v5/market/time": venue.time,
            "GET /v5/public/spot": venue.socket,
            "GET /spot": venue.socket,
        }
    )
    await server.start()
    adapter = CcxtAdapter(parse_endpoints(f"gamma=bybit@paper+{server.url}")[0], None)
    try:
        await adapter.start()
        yield adapter
    finally:
        await adapter.close()
        for socket in venue.sockets:
            await socket.close()
        await server.stop()


async def test_the_streams_of_another_exchange_by_ccxt() -> None:
    venue = Bybit()
    venue.greeting = [venue.trades(1, 2, age_ms=60_000)]  # what was traded before
    async with bybit(venue) as adapter, watching(adapter) as sink:
        await until(lambda: sink.of("book"))
        assert (sink.of("book")[0].bid, sink.of("book")[0].asks[0].quantity) == (
            Decimal("50000.1"),
            Decimal("0.000123"),
        )
        await venue.book("delta", [["50000.1", "0"]], [])
        await until(lambda: sink.of("book")[-1].bid == Decimal(50000))
        for n in range(3, 63, 3):
            await venue.say(venue.trades(n, n + 1), venue.trades(n + 2))
        await until(lambda: len(sink.of("trade")) >= 60)
        assert [trade.trade_id for trade in sink.of("trade")] == [f"id{n}" for n in range(3, 63)]
        assert sink.of("trade")[0].quantity == Decimal("0.12345678901234563")
        assert {trade.side for trade in sink.of("trade")} == {Side.SELL}
        await venue.sockets[-1].close()
        await until(lambda: len(sink.of("up")) == 2)
        await venue.say(venue.trades(61, 62, 63))  # two of them were told before
        await until(lambda: len(sink.of("trade")) >= 61)
        assert [trade.trade_id for trade in sink.of("trade")][-2:] == ["id62", "id63"]
        assert len(sink.of("down")) == 1


# --- where nothing is streamed --------------------------------------------------------------------------------------


class Poor:
    """A market without streams: a book, and a tape that is shown by pages."""

    def __init__(self) -> None:
        self.bid = 100
        self.count = 0
        self.ids = True

    def trade(self, times: int = 1) -> None:
        self.count += times

    async def depth(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"bids": [[f"{self.bid}.5", "1"]], "asks": [["101.25", "2"]], "lastUpdateId": 1})

    async def agg_trades(self, request: web.Request) -> web.StreamResponse:
        limit = int(request.query.get("limit", "500"))
        rows = [
            {"a": n, "p": "100.5", "q": f"0.{n:04d}1", "f": n, "l": n, "T": 1_700_000_000_000 + n, "m": n % 2 == 0}
            for n in range(max(1, self.count - limit + 1), self.count + 1)
        ]
        return web.json_response(rows)


async def test_where_no_stream_comes_up_book_and_trades_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(market_data, "SHORTEST_PAUSE", 0.01)
    poor = Poor()
    poor.trade(150)
    async with started(GET_depth=poor.depth, GET_aggTrades=poor.agg_trades) as (_, adapter), watching(adapter) as sink:
        assert len(sink.of("down")) == 1  # three attempts, said once
        poor.trade(3)
        await until(lambda: len(sink.of("trade")) == 3)
        poor.bid = 99
        await until(lambda: sink.of("book")[-1].bid == Decimal("99.5"))
        poor.trade(130)  # more than a page
        await until(lambda: len(sink.of("trade")) == 133)
        assert [trade.trade_id for trade in sink.of("trade")] == [str(n) for n in range(151, 284)]
        assert sink.of("trade")[0].quantity == Decimal("0.01511")
        assert len(sink.of("down")) == 1
        poor.trade(5000)  # more than can be asked for
        await until(lambda: len(sink.of("down")) == 2)
        assert "lost" in sink.of("down")[1]
