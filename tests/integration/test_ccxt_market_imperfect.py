"""Market data from venues that serve only part of what Binance does: books come, whatever else is missing or odd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.base import AdapterError, AdapterHealth, ApprovedOrder, Unknown
from adapters.ccxt_venue import CcxtAdapter, candles, market_binance, market_data, market_polled, parse_endpoints
from adapters.ccxt_venue.feed import Feed
from adapters.ccxt_venue.limiter import Budget, Lane, Limiter
from adapters.ccxt_venue.tape import Tape
from adapters.simulator.control import VenueControl
from adapters.simulator.server import Venue, VenueConfig
from adapters.simulator.symbols import SymbolSpec
from schemas.market import PublicTrade
from schemas.terms import OrderType, Side
from tests.integration.spoiled_venue import (
    Handler,
    SpoiledVenue,
    absent,
    answering,
    closing,
    deaf,
    hanging,
    refusing,
    unsupported,
)
from tests.integration.test_ccxt_market import AMPLE, BTC, ETH, KEYS, Bybit, Scene, Sink, bybit, until, watching

TRADES = ("trades", "aggTrades", "historicalTrades")
BOOK_SECONDS = 5.0
"""In which a book must come."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(market_polled, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(market_data, "FIRST_BOOK_SECONDS", 0.25)


class SpoiledScene(Scene):
    def __init__(self, venue: Venue, control: VenueControl, adapter: CcxtAdapter, proxy: SpoiledVenue) -> None:
        super().__init__(venue, control, adapter)
        self.proxy = proxy

    async def sockets(self, handler: Handler, *beginnings: str) -> None:
        self.proxy.sockets = dict.fromkeys(beginnings or ("/ws", "/stream"), handler)

    def without_trades(self, handler: Handler = absent) -> None:
        self.proxy.rest |= dict.fromkeys(TRADES, handler)

    def streams_asked(self) -> int:
        return self.proxy.times("/ws") + self.proxy.times("/stream") - self.proxy.times("/ws-api")


@asynccontextmanager
async def spoiled() -> AsyncIterator[SpoiledScene]:
    """A quiet market at 49999/50001 behind a proxy, and an adapter that knows the proxy only."""
    symbols = [
        SymbolSpec(base=base, quote="USDT", price=Decimal(price), max_orders=10_000)
        for base, price in (("BTC", 50000), ("ETH", 2500))
    ]
    venue = Venue(VenueConfig(symbols=symbols, limits=AMPLE, market=None))
    await venue.start()
    proxy = SpoiledVenue(venue.url)
    await proxy.start()
    adapter = CcxtAdapter(parse_endpoints(f"alpha=binance@{proxy.url}")[0], KEYS, request_timeout=1.0)
    async with VenueControl(venue.url) as control:
        try:
            await adapter.start()
            scene = SpoiledScene(venue, control, adapter, proxy)
            await scene.quote("49999", "50001")
            yield scene
        finally:
            await adapter.close()
            await proxy.stop()
            await venue.stop()


@asynccontextmanager
async def with_a_book(scene: Scene) -> AsyncIterator[Sink]:
    sink = Sink()
    task = asyncio.create_task(scene.adapter.run_market(BTC, sink))
    try:
        await until(lambda: sink.of("book"), BOOK_SECONDS)
        yield sink
    finally:
        task.cancel()
        ended = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(ended[0], asyncio.CancelledError), ended


async def follows(scene: Scene, sink: Sink, bid: str = "49999.5", ask: str = "50000.5") -> None:
    """The market moves, and is seen to."""
    await scene.quote(bid, ask)
    moved = (Decimal(bid), Decimal(ask))
    await until(lambda: (sink.of("book")[-1].bid, sink.of("book")[-1].ask) == moved, BOOK_SECONDS)


def data(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """An edit of what is in the envelope of a stream."""
    return lambda message: (
        {**message, "data": change(dict(message["data"]))} if isinstance(message.get("data"), dict) else message
    )


class OrderSink:
    def __init__(self) -> None:
        self.ups: list[bool] = []
        self.fills: list[Any] = []

    def on_order(self, venue: str, order: Any) -> None: ...

    def on_fill(self, venue: str, fill: Any) -> None:
        self.fills.append(fill)

    def on_stream(self, venue: str, *, up: bool, reason: str | None) -> None:
        self.ups.append(up)


# --- sockets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("handler", [absent, hanging, deaf, refusing, closing])
async def test_without_market_streams_books_and_trades_are_asked_for_and_orders_notice_nothing(
    handler: Handler,
) -> None:
    async with spoiled() as scene:
        await scene.sockets(handler)
        orders = OrderSink()
        stream = asyncio.create_task(scene.adapter.run_stream(orders))
        await until(lambda: orders.ups)
        async with with_a_book(scene) as sink:
            await follows(scene, sink)
            await scene.adapter.place(
                ApprovedOrder(
                    client_order_id="c1",
                    symbol=BTC,
                    side=Side.BUY,
                    order_type=OrderType.MARKET,
                    quantity=Decimal("0.5"),
                )
            )
            await until(lambda: orders.fills and sink.of("trade"))
            assert sink.of("trade")[0].quantity == Decimal("0.5")
            assert (len(sink.of("up")), len(sink.of("down"))) in ((1, 0), (1, 1))
            assert scene.streams_asked() <= 12  # two rounds by three ways, and never hot
        assert orders.ups == [True]
        stream.cancel()
        await asyncio.gather(stream, return_exceptions=True)


@pytest.mark.parametrize(
    ("gone", "asked"),
    [(("/stream",), 2), (("/ws",), 1)],
)
async def test_either_endpoint_of_streams_is_enough_and_is_remembered(gone: tuple[str, ...], asked: int) -> None:
    async with spoiled() as scene:
        await scene.sockets(absent, *gone)
        async with watching(scene.adapter) as sink:
            await until(lambda: sink.of("book"))
            await scene.control.trade("BTCUSDT", "BUY", "0.1")
            await until(lambda: sink.of("trade"))
            assert scene.streams_asked() == asked
            async with watching(scene.adapter, ETH):
                assert scene.streams_asked() == asked + 1
            assert (len(sink.of("up")), sink.of("down")) == (1, [])


async def test_an_endpoint_that_serves_nothing_is_left_for_one_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(market_binance, "SERVED_SECONDS", 0.5)
    monkeypatch.setattr(market_binance, "GRACE_SECONDS", 0.2)
    async with spoiled() as scene:
        await scene.sockets(deaf, "/stream")
        async with with_a_book(scene) as sink:
            for n in range(100):
                await scene.quote(f"49999.{n:02d}", "50000.99")  # it moves all the time
                await asyncio.sleep(0.05)
                if len(sink.of("up")) == 2:
                    break
            assert sink.of("down") == ["the stream shows it"]
            assert scene.streams_asked() == 2


async def test_a_venue_with_one_socket_for_each_stream() -> None:
    async def only_named(request: web.Request) -> web.StreamResponse:
        return await (absent(request) if request.path == "/ws" else scene.proxy._socket(request))

    async with spoiled() as scene:
        scene.proxy.sockets = {"/stream": absent, "/ws": only_named}
        async with watching(scene.adapter) as sink:
            await until(lambda: sink.of("book"))
            await scene.control.trade("BTCUSDT", "BUY", "0.1")
            await until(lambda: sink.of("trade"))
            await follows(scene, sink)
            assert sink.of("down") == []


async def test_a_stream_that_is_late_is_used_when_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(market_data, "FIRST_BOOK_SECONDS", 0.2)
    async with spoiled() as scene:
        scene.proxy.late = 0.9
        async with with_a_book(scene) as sink:
            await until(lambda: len(sink.of("up")) == 2)
            assert sink.of("down") == ["the stream shows it"]
            names = [name for name, _ in sink.said]
            at = names.index(f"down {BTC}")
            assert names[at : at + 3] == [f"down {BTC}", f"up {BTC}", f"book {BTC}"]
            asked = scene.proxy.times("/api")
            await scene.control.trade("BTCUSDT", "BUY", "0.1")
            await until(lambda: sink.of("trade"))
            await follows(scene, sink)
            assert scene.proxy.times("/api") == asked
            assert scene.streams_asked() == 1


async def test_a_stream_that_is_lost_and_refused_is_stood_in_for_and_taken_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(market_data, "POLLED_SECONDS", 0.3)
    monkeypatch.setattr(market_data, "SHORTEST_PAUSE", 0.01)
    async with spoiled() as scene, watching(scene.adapter) as sink:
        await scene.sockets(absent)
        await scene.proxy.cut()
        await until(lambda: len(sink.of("up")) == 2, BOOK_SECONDS)
        await follows(scene, sink)
        await scene.control.trade("BTCUSDT", "BUY", "0.1")
        await until(lambda: sink.of("trade"))
        downs = len(sink.of("down"))
        assert downs == 1  # however often the stream is tried
        scene.proxy.sockets = {}
        await until(lambda: len(sink.of("up")) == 3)
        assert sink.of("down")[1:] == ["the stream shows it"]
        await follows(scene, sink, "49999.7", "50000.2")


async def test_streams_that_do_not_live_long_are_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(market_data, "SHORTEST_PAUSE", 0.01)
    monkeypatch.setattr(market_data, "FIRST_BOOK_SECONDS", 0.2)
    async with spoiled() as scene:

        async def short_lived(request: web.Request) -> web.StreamResponse:
            asyncio.get_running_loop().call_later(0.2, lambda: asyncio.ensure_future(scene.proxy.cut()))
            return await scene.proxy._socket(request)

        await scene.sockets(short_lived)
        async with with_a_book(scene) as sink:
            await until(lambda: scene.proxy.times("/api/v3/depth") >= 2)
            assert scene.streams_asked() == market_data.SHORT_LIVES + 1
            await follows(scene, sink)
            assert scene.streams_asked() == market_data.SHORT_LIVES + 1


async def test_a_venue_whose_streams_name_things_their_own_way() -> None:
    edits: list[Callable[[dict[str, Any]], dict[str, Any]]] = [
        lambda message: {**message, "stream": message["stream"].upper()},
        lambda message: {**message, "stream": message["stream"].replace("@100ms", "")},
        lambda message: message["data"],
        data(lambda told: {**told, "s": told["s"].lower()} if "s" in told else told),
    ]
    for edit in edits:
        async with spoiled() as scene:
            scene.proxy.edit = edit
            async with watching(scene.adapter) as sink:
                await scene.control.trade("BTCUSDT", "BUY", "0.1")
                await until(lambda sink=sink: sink.of("trade"))  # type: ignore[misc]
                await follows(scene, sink)
                assert scene.proxy.times("/api/v3/depth") == 0


async def test_what_is_told_of_other_symbols_is_not_taken_for_ours() -> None:
    async with spoiled() as scene:
        await scene.sockets(deaf)
        async with watching(scene.adapter) as sink:
            feed = Feed("alpha", BTC, sink)
            market = scene.adapter._market
            assert market is not None
            assert market._binance is not None
            book = {"bids": [["1", "1"]], "asks": [["2", "1"]]}
            trade = {"e": "trade", "s": "ETHUSDT", "t": 1, "p": "1", "q": "1", "T": 1, "m": True}
            report = {"e": "executionReport", "s": "BTCUSDT", "t": 1, "p": "1", "q": "1"}
            tape = Tape()
            tape.begin(feed)
            feed.up()
            for message in ({"stream": "ethusdt@depth20@100ms", "data": book}, trade, report, {"data": trade}, [], 7):
                market._binance._take(feed, tape, message)
            assert not feed.first.is_set()
            assert sink.of("trade") == []


# --- trades ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("handler", [absent, unsupported, hanging, answering([7])])
async def test_books_are_asked_for_where_no_trades_can_be(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(market_polled, "TRADES_AGAIN_SECONDS", 0.2)
    async with spoiled() as scene:
        await scene.sockets(absent)
        scene.without_trades(handler)
        async with with_a_book(scene) as sink:
            await follows(scene, sink)
            assert (len(sink.of("up")), sink.of("trade")) == (1, [])
            scene.proxy.rest = {}  # they come after all
            await until(lambda: len(sink.of("up")) == 2)
            await scene.control.trade("BTCUSDT", "BUY", "0.1")
            await until(lambda: sink.of("trade"))
            assert [trade.quantity for trade in sink.of("trade")] == [Decimal("0.1")]


@pytest.mark.parametrize("gone", ["aggTrades", "trades"])
async def test_one_list_of_trades_is_enough(gone: str) -> None:
    async with spoiled() as scene:
        await scene.sockets(absent)
        scene.proxy.rest[gone] = unsupported
        async with with_a_book(scene) as sink:
            await scene.control.trade("BTCUSDT", "BUY", "0.1")
            await until(lambda: sink.of("trade"), BOOK_SECONDS)


async def test_trades_that_cease_are_counted_anew_and_the_book_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(market_polled, "LONGEST_SILENCE", 0.6)
    async with spoiled() as scene:
        await scene.sockets(absent)
        async with with_a_book(scene) as sink:
            await scene.control.trade("BTCUSDT", "BUY", "0.1")
            await until(lambda: sink.of("trade"))
            scene.without_trades()
            ups = len(sink.of("up"))
            await until(lambda: len(sink.of("up")) > ups)
            names = [name.split()[0] for name, _ in sink.said]
            at = len(names) - 1 - names[::-1].index("down")
            assert names[at : at + 3] == ["down", "up", "book"]  # in one go
            await follows(scene, sink)
            assert len(sink.of("up")) == ups + 1


def renumbered(number: Callable[[int], Any]) -> Callable[[SpoiledScene], None]:
    def spoil(scene: SpoiledScene) -> None:
        def change(told: dict[str, Any]) -> dict[str, Any]:
            return {**told, "t": number(told["t"])} if told.get("e") == "trade" else told

        scene.proxy.edit = data(change)
        scene.proxy.edit_rest["trades"] = lambda rows: [{**row, "id": number(row["id"])} for row in rows]

    return spoil


@pytest.mark.parametrize("rest", [None, absent, unsupported, answering([])])
async def test_whatever_the_ids_of_trades_are_books_stay_and_each_trade_comes_once(rest: Handler | None) -> None:
    kinds: list[Callable[[int], Any]] = [
        lambda n: 7 * n + 1000,
        lambda n: 10**6 * n,
        lambda n: n % 3,
        lambda n: 0,
        lambda n: -n,
        lambda n: f"T-{n:x}",
    ]

    async def one(number: Callable[[int], Any]) -> None:
        async with spoiled() as scene:
            renumbered(number)(scene)
            if rest is not None:
                scene.without_trades(rest)
            async with watching(scene.adapter) as sink:
                quantities = [Decimal(n) / 1000 for n in range(1, 13)]
                for quantity in quantities:
                    await scene.control.trade("BTCUSDT", "BUY", f"{quantity}")
                    await asyncio.sleep(0.005)  # no two in one ms
                await until(lambda: len(sink.of("trade")) >= len(quantities))
                assert [trade.quantity for trade in sink.of("trade")] == quantities
                await follows(scene, sink)
                assert (len(sink.of("up")), sink.of("down")) == (1, [])

    await asyncio.gather(*map(one, kinds))


async def test_where_ccxt_is_refused_the_stream_of_trades_the_one_of_books_is_used() -> None:
    class WithoutTrades(Bybit):
        async def say(self, *messages: dict[str, Any]) -> None:
            if not messages:  # the greeting of who wants trades
                refusal = {"success": False, "ret_msg": "error:handler not found", "conn_id": "1", "op": "subscribe"}
                await super().say(refusal)
            await super().say(*messages)

    venue = WithoutTrades()
    async with bybit(venue) as adapter, watching(adapter) as sink:
        await until(lambda: sink.of("book"))
        await venue.book("delta", [["50000.1", "0"]], [])
        await until(lambda: sink.of("book")[-1].bid == Decimal(50000))
        assert (len(sink.of("up")), sink.of("trade")) == (1, [])
        assert sum(topic.startswith("publicTrade") for topic in venue.topics) == 1


async def test_trades_that_cannot_be_read_are_left_out_and_books_stay() -> None:
    async with spoiled() as scene:
        scene.proxy.edit = data(lambda told: {k: v for k, v in told.items() if k != "q"})
        async with watching(scene.adapter) as sink:
            await scene.control.trade("BTCUSDT", "BUY", "0.1")
            await follows(scene, sink)
            assert (sink.of("trade"), sink.of("down")) == ([], [])


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(st.integers(-3, 12) | st.sampled_from(["x", "", "7a", 10**9]), st.integers(1, 3)), max_size=25)
)
def test_of_any_ids_no_trade_is_told_twice_and_none_is_left_out(told: list[tuple[Any, int]]) -> None:
    async def scenario() -> None:
        sink, tape = Sink(), Tape()
        feed = Feed("alpha", BTC, sink)

        async def ask(_: str) -> list[PublicTrade]:
            await asyncio.sleep(0)
            raise Unknown("there is no such page")

        tape.begin(feed)
        feed.up()
        filler = asyncio.create_task(tape.fill_gaps(ask))
        expected = []
        for n, (number, times) in enumerate(told):
            event = {"e": "trade", "t": number, "p": "1", "q": f"{n + 1}", "T": 1_700_000_000_000 + n, "m": True}
            expected.append(Decimal(n + 1))
            for _ in range(times):
                tape.event(event)
            if n % 3 == 0:
                await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not filler.done()
        filler.cancel()
        await asyncio.gather(filler, return_exceptions=True)
        assert sorted(trade.quantity for trade in sink.of("trade")) == expected
        assert not feed.failed.done()

    asyncio.run(scenario())


# --- books ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [True, False])
async def test_thin_and_odd_books_are_delivered_as_they_are(streamed: bool) -> None:
    def numbers(book: dict[str, Any]) -> dict[str, Any]:
        return {side: [[float(one) for one in level] for level in book[side]] for side in ("bids", "asks")}

    kinds: list[tuple[Callable[[dict[str, Any]], dict[str, Any]], tuple[int, int]]] = [
        (lambda book: {**book, "asks": []}, (1, 0)),
        (lambda book: {**book, "bids": []}, (0, 1)),
        (lambda book: {**book, "bids": [], "asks": []}, (0, 0)),
        (lambda book: {**book, "bids": None}, (0, 1)),
        (lambda book: {**book, "asks": [*book["asks"], ["60000", "0"]]}, (1, 1)),
        (lambda book: {**book, "lastUpdateId": 0}, (1, 1)),
        (lambda book: {side: book[side] for side in ("bids", "asks")}, (1, 1)),
        (numbers, (1, 1)),
    ]

    async def one(change: Callable[[dict[str, Any]], dict[str, Any]], levels: tuple[int, int]) -> None:
        async with spoiled() as scene:
            if not streamed:
                await scene.sockets(absent)
            scene.proxy.edit = data(lambda told: change(told) if "bids" in told else told)
            scene.proxy.edit_rest["depth"] = change
            async with with_a_book(scene) as sink:
                book = sink.of("book")[-1]
                assert (len(book.bids), len(book.asks)) == levels
                assert book.bid == (Decimal(49999) if levels[0] else None)
                books = len(sink.of("book"))
                await scene.quote("49999.5", "50000.5")
                await until(lambda: len(sink.of("book")) > books)
                if levels[0]:
                    await until(lambda: sink.of("book")[-1].bid == Decimal("49999.5"))

    await asyncio.gather(*(one(change, levels) for change, levels in kinds))


async def test_a_venue_that_gives_no_book_of_twenty_levels_gives_what_it_likes() -> None:
    async with spoiled() as scene:

        async def depth(request: web.Request) -> web.StreamResponse:
            if "limit" in request.query:
                return web.json_response(
                    {"code": -1130, "msg": "Data sent for parameter 'limit' is not valid."}, status=400
                )
            return await scene.proxy._pass(request, "depth")

        await scene.sockets(absent)
        scene.proxy.rest["depth"] = depth
        async with with_a_book(scene) as sink:
            await follows(scene, sink)


@pytest.mark.parametrize("handler", [absent, hanging])
async def test_a_stream_is_enough_where_no_book_can_be_asked_for(handler: Handler) -> None:
    async with spoiled() as scene:
        scene.proxy.rest["depth"] = handler
        async with with_a_book(scene) as sink:
            await follows(scene, sink)
            assert sink.of("down") == []


async def test_an_unanswered_ping_does_not_end_a_stream_that_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.ccxt_venue.exchange.KEEP_ALIVE_MS", 100)
    async with spoiled() as scene:
        scene.proxy.autoping = False
        async with watching(scene.adapter) as sink:
            for _ in range(20):  # for twice as long as two pings may stay unanswered
                await scene.control.trade("BTCUSDT", "BUY", "0.001")
                await asyncio.sleep(0.03)
            await until(lambda: len(sink.of("trade")) == 20)
            assert sink.of("down") == []


# --- candles, and the rate limit ------------------------------------------------------------------------------------


@pytest.mark.parametrize("handler", [absent, unsupported, hanging])
async def test_a_venue_without_candles_says_so(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candles, "ANSWER_SECONDS", 0.5)
    async with spoiled() as scene:
        scene.proxy.rest["klines"] = handler
        with pytest.raises(AdapterError):
            await asyncio.wait_for(scene.adapter.candles(BTC, seconds=60, since_ms=1_700_000_000_000, limit=10), 5)


@pytest.mark.parametrize("answer", [{}, {"klines": []}, [], [[1]], [7], ["x"], [{}], [[None] * 6]])
async def test_candles_that_are_none_break_nothing(answer: Any) -> None:
    async with spoiled() as scene:
        scene.proxy.rest["klines"] = answering(answer)
        with suppress(AdapterError):
            assert await scene.adapter.candles(BTC, seconds=60, since_ms=1_700_000_000_000, limit=10) == []
        assert scene.proxy.times("/api/v3/klines") <= candles.MOST_EMPTY


async def test_a_venue_is_not_said_to_be_limited_while_only_its_market_waits() -> None:
    health = AdapterHealth()
    limiter = Limiter(health, weight=[Budget(3_600_000, 100)])
    await limiter.turn(50, Lane.READ)
    watching_waits = asyncio.create_task(limiter.turn(5, Lane.MARKET))
    await until(lambda: health.queued == 1)
    assert health.limited_until is None
    await limiter.turn(5, Lane.ORDER)
    order = asyncio.create_task(limiter.turn(60, Lane.ORDER))
    await until(lambda: health.queued == 2)
    assert health.limited_until is not None
    for task in (watching_waits, order):
        task.cancel()
    await asyncio.gather(watching_waits, order, return_exceptions=True)
    limiter.close()
