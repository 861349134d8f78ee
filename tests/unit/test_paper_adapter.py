"""The paper venue behind the adapter protocol: who is told what, and when."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

import adapters.paper
from adapters.base import (
    Adapter,
    ApprovedOrder,
    DuplicateClientOrderId,
    FillPage,
    InsufficientFunds,
    MarketSink,
    OrderUnknown,
    Rejected,
    Retryable,
    Unavailable,
    Unknown,
    VenueFill,
    VenueOrder,
)
from adapters.paper import Capabilities, MarketSource, PaperAdapter
from schemas.market import BookLevel, Candle, MarketRules, OrderBook, PublicTrade
from schemas.terms import OrderType, Side

D = Decimal
RULES = MarketRules(
    symbol="BTC/USDT",
    base="BTC",
    quote="USDT",
    tick=D("0.01"),
    lot=D("0.001"),
    market_lot=D("0.001"),
    min_quantity=D("0.001"),
    max_quantity=D(1000),
    min_notional=D(10),
)
SYMBOL = RULES.symbol
T = TypeVar("T")


def shown(bids: str = "99x10", asks: str = "101x10") -> OrderBook:
    """A book, best first: "99x10 98x5"."""

    def levels(text: str) -> tuple[BookLevel, ...]:
        return tuple(BookLevel(*map(D, level.split("x"))) for level in text.split())

    return OrderBook(symbol=SYMBOL, bids=levels(bids), asks=levels(asks), received_at=0.0)


def new(
    client_order_id: str = "a", side: Side = Side.BUY, quantity: str = "1", price: str | None = None, **fields: Any
) -> ApprovedOrder:
    return ApprovedOrder(
        client_order_id=client_order_id,
        symbol=fields.pop("symbol", SYMBOL),
        side=side,
        order_type=fields.pop("order_type", OrderType.LIMIT if price is not None else OrderType.MARKET),
        quantity=D(quantity),
        price=D(price) if price is not None else None,
        **fields,
    )


class Market:
    """A market in memory: it shows what the test says, when the test says it."""

    name = "market"

    def __init__(self, *, rules: MarketRules = RULES) -> None:
        self._rules = rules
        self.sinks: list[MarketSink] = []
        self.subscriptions = 0
        self.subscribed = asyncio.Event()
        self.first: OrderBook | None = shown()
        self.over = asyncio.Event()
        self.closed = False

    async def start(self) -> None: ...

    async def close(self) -> None:
        self.closed = True

    def rules(self, symbol: str) -> MarketRules | None:
        return self._rules if symbol == self._rules.symbol else None

    def symbols(self) -> Sequence[str]:
        return [self._rules.symbol]

    async def refresh_rules(self) -> None: ...

    async def order_book(self, symbol: str, depth: int = 20) -> OrderBook:
        return shown("9x9", "11x9")

    async def candles(self, symbol: str, *, seconds: int, since_ms: int, limit: int = 1000) -> list[Candle]:
        return [Candle(start=since_ms, open=D(1), high=D(1), low=D(1), close=D(1), volume=D(seconds))]

    async def run_market(self, symbol: str, sink: MarketSink) -> None:
        self.subscriptions += 1
        self.sinks.append(sink)
        sink.on_market(self.name, symbol, up=True, reason=None)
        if self.first is not None:
            sink.on_book(self.name, self.first)
        self.subscribed.set()
        await self.over.wait()

    def now_asks(self, rules: MarketRules) -> None:
        self._rules = rules

    def show(self, bids: str = "99x10", asks: str = "101x10") -> None:
        for sink in self.sinks:
            sink.on_book(self.name, shown(bids, asks))

    def trade(self, price: str, quantity: str, side: Side | None = None) -> None:
        trade = PublicTrade(trade_id="t", price=D(price), quantity=D(quantity), timestamp=0, side=side)
        for sink in self.sinks:
            sink.on_trades(self.name, SYMBOL, [trade])


class Told:
    """Whatever a stream or a market tells, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def on_order(self, venue: str, order: VenueOrder) -> None:
        assert order.status is not None
        self.lines.append(f"{order.client_order_id} {order.status.value} {order.filled}")

    def on_fill(self, venue: str, fill: VenueFill) -> None:
        self.lines.append(f"{fill.client_order_id} fill {fill.quantity} at {fill.price}")

    def on_stream(self, venue: str, *, up: bool, reason: str | None) -> None:
        self.lines.append("stream up" if up else "stream down")

    def on_book(self, venue: str, book: OrderBook) -> None:
        self.lines.append(f"{venue} book {book.bid} {book.ask}")

    def on_trades(self, venue: str, symbol: str, trades: Sequence[PublicTrade]) -> None:
        self.lines.append(f"{venue} trades {len(trades)}")

    def on_market(self, venue: str, symbol: str, *, up: bool, reason: str | None) -> None:
        self.lines.append(f"{venue} market {'up' if up else 'down'}")

    def take(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that never waits: its clock jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = 1000.0

    def time(self) -> float:
        return self.clock

    def _run_once(self) -> None:
        scheduled, ready = self._scheduled, self._ready  # type: ignore[attr-defined]
        if scheduled and not ready:
            self.clock = max(self.clock, scheduled[0].when())
        super()._run_once()  # type: ignore[misc]


def at_virtual_time(story: Callable[[], Awaitable[T]]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(story())  # type: ignore[arg-type]


def clock() -> int:
    return round(asyncio.get_running_loop().time() * 1000)


async def started(market: Market, **options: Any) -> PaperAdapter:
    venue = PaperAdapter("paper", market, **{"latency_ms": 0, "now": clock, **options})
    await venue.start()
    return venue


def test_it_is_an_adapter_and_an_adapter_is_a_source() -> None:
    venue = PaperAdapter("paper", Market())
    as_adapter: Adapter = venue
    as_source: MarketSource = as_adapter
    assert as_source.name == "paper"


def test_nothing_it_imports_could_order_anything_anywhere() -> None:
    allowed = ("adapters.base", "adapters.paper", "schemas")
    for file in Path(adapters.paper.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] not in (
                    "adapters",
                    "schemas",
                    "execution",
                    "algorithms",
                    "ccxt",
                    "aiohttp",
                ) or name.startswith(allowed), (file.name, name)


async def test_an_answer_says_everything_at_once() -> None:
    venue = await started(Market())
    answer = await venue.place(new(quantity="3"))
    assert (answer.status, answer.filled, [fill.price for fill in answer.fills]) == ("filled", D(3), [D(101)])
    assert answer.client_order_id == "a"
    assert answer.fills[0].venue_order_id == answer.venue_order_id
    await venue.close()


async def test_what_before_send_raises_means_that_nothing_was_sent() -> None:
    venue = await started(Market())

    def refuses() -> None:
        raise KeyError("no")

    with pytest.raises(KeyError):
        await venue.place(new(), before_send=refuses)
    assert await venue.find(SYMBOL, "a") is None
    await venue.close()


async def test_fills_go_to_the_stream_before_the_state_that_counts_them() -> None:
    market, told = Market(), Told()
    venue = await started(market)
    stream = asyncio.create_task(venue.run_stream(told))
    await asyncio.sleep(0)
    assert told.take() == ["stream up"]
    await venue.place(new(price="99"))
    assert told.take() == ["a open 0"]
    market.trade("99", "10.4", Side.SELL)
    assert told.take() == ["a fill 0.4 at 99", "a open 0.4"]
    await venue.cancel(SYMBOL, "a", None)
    assert told.take() == ["a canceled 0.4"]
    stream.cancel()
    await asyncio.wait([stream])
    assert not venue.health.stream_up
    await venue.close()


async def test_the_matcher_sees_the_market_before_whoever_else_listens() -> None:
    market, told = Market(), Told()
    venue = await started(market)
    listening = [asyncio.create_task(venue.run_stream(told)), asyncio.create_task(venue.run_market(SYMBOL, told))]
    await market.subscribed.wait()
    assert told.take() == ["stream up", "paper market up", "paper book 99 101"]
    await venue.place(new(price="99"))
    told.take()
    market.show("98x1", "99x1")
    assert told.take() == ["a fill 1 at 99", "a filled 1", "paper book 98 99"]
    assert market.subscriptions == 1
    late = Told()
    listening.append(asyncio.create_task(venue.run_market(SYMBOL, late)))
    await asyncio.sleep(0)
    assert late.take() == ["paper market up", "paper book 98 99"]
    await venue.close()
    listening[0].cancel()
    await asyncio.wait(listening)
    assert market.closed


async def test_what_orders_take_stands_on_the_tape_and_what_they_make_is_there_already() -> None:
    market, told = Market(), Told()
    venue = await started(market)
    listening = asyncio.create_task(venue.run_market(SYMBOL, told))
    await market.subscribed.wait()
    await venue.place(new("taker", price="101"))
    assert told.take()[-1] == "paper trades 1"
    await venue.place(new("maker", price="99"))
    told.take()
    market.show("98x1", "99x1")
    assert told.take() == ["paper book 98 99"]
    await venue.close()
    await asyncio.wait([listening])


async def test_a_recording_that_ends_ends_what_listens_to_it() -> None:
    market = Market()
    venue = await started(market)
    listening = asyncio.create_task(venue.run_market(SYMBOL, Told()))
    await market.subscribed.wait()
    market.over.set()
    await listening
    await venue.close()


async def test_what_is_open_and_what_was_can_be_asked() -> None:
    market = Market()
    venue = await started(market, remembered=2)
    await venue.place(new("open", price="99"))
    await venue.place(new("filled"))
    assert [order.client_order_id for order in await venue.open_orders()] == ["open"]
    assert await venue.open_orders("ETH/USDT") == []
    found = await venue.find(SYMBOL, "filled")
    assert found is not None
    assert found.status == "filled"
    (fill,) = await venue.fills(SYMBOL, found.venue_order_id or "")
    assert await venue.fills_since(SYMBOL, fill.timestamp) == FillPage([fill])
    assert await venue.fills_since(SYMBOL, fill.timestamp + 1) == FillPage([])
    with pytest.raises(OrderUnknown):
        await venue.cancel(SYMBOL, "filled", None)
    with pytest.raises(DuplicateClientOrderId):
        await venue.place(new("open", price="99"))
    for name in ("x", "y"):
        await venue.place(new(name, side=Side.SELL))
    assert await venue.find(SYMBOL, "filled") is None, "only the last two that ended are known"
    assert await venue.find(SYMBOL, "open") is not None
    await venue.close()


async def test_a_client_order_id_of_an_ended_order_may_be_used_again() -> None:
    venue = await started(Market(), remembered=1)
    first = await venue.place(new("a"))
    second = await venue.place(new("a"))
    assert first.venue_order_id != second.venue_order_id
    found = await venue.find(SYMBOL, "a")
    assert found is not None
    assert found.venue_order_id == second.venue_order_id
    await venue.close()


def test_a_request_takes_effect_half_way_through_its_latency() -> None:
    async def story() -> None:
        market, told = Market(), Told()
        venue = await started(market, latency_ms=100, cancel_latency_ms=20)
        stream = asyncio.create_task(venue.run_stream(told))
        feed = asyncio.create_task(venue.run_market(SYMBOL, Told()))
        await market.subscribed.wait()
        sent: list[int] = []
        start = clock()
        placing = asyncio.create_task(
            venue.place(new(quantity="20", price="101"), before_send=lambda: sent.append(clock()))
        )
        await asyncio.sleep(0.049)
        assert sent == [start]
        market.show("99x10", "101x4")  # 1 ms before it arrives, the book gets thinner
        answer = await placing
        assert clock() == start + 100
        assert (answer.status, answer.filled, answer.timestamp) == ("open", D(4), start + 50)
        assert told.take() == ["stream up", "a fill 4 at 101", "a open 4"], "the stream is not later than the answer"
        canceled = await venue.cancel(SYMBOL, "a", None)
        assert canceled is not None
        assert (canceled.status, clock()) == ("canceled", start + 120)
        await venue.close()
        stream.cancel()
        await asyncio.wait([stream, feed])

    at_virtual_time(story)


def test_requests_of_one_moment_arrive_in_the_order_in_which_they_were_sent() -> None:
    async def story() -> None:
        venue = await started(Market(), latency_ms=10)
        await venue.place(new("first"))
        names = [f"n{number}" for number in range(20)]
        answers = await asyncio.gather(
            *(venue.place(new(name, price="99")) for name in names), venue.cancel(SYMBOL, "n19", None)
        )
        assert answers[-1] is not None
        assert answers[-1].status == "canceled", "the cancel left after the order, and came after it"
        told = [int((answer.venue_order_id or "").rsplit("-", 1)[1]) for answer in answers[:-1] if answer]
        assert told == sorted(told)
        await venue.close()

    at_virtual_time(story)


def test_a_cancel_may_be_faster_than_an_order() -> None:
    async def story() -> None:
        venue = await started(Market(), latency_ms=100, cancel_latency_ms=20)
        await venue.place(new("first", price="99"))
        start = clock()
        placing = asyncio.create_task(venue.place(new("second")))
        await asyncio.sleep(0)
        await venue.cancel(SYMBOL, "first", None)
        assert clock() == start + 20
        await placing
        assert clock() == start + 100
        await venue.close()

    at_virtual_time(story)


def test_a_request_that_was_too_long_under_way_did_not_happen() -> None:
    async def story() -> None:
        late = 0
        venue = await started(Market(), latency_ms=10, now=lambda: clock() + late)
        await venue.place(new("first"))
        placing = asyncio.create_task(venue.place(new("a")))
        await asyncio.sleep(0.001)
        late = venue.request_ttl_ms
        with pytest.raises(Retryable):
            await placing
        assert await venue.find(SYMBOL, "a") is None
        await venue.close()

    at_virtual_time(story)


def test_what_is_under_way_when_the_venue_closes_stays_unknown() -> None:
    async def story() -> None:
        venue = await started(Market(), latency_ms=10)
        await venue.place(new("first"))
        placing = asyncio.create_task(venue.place(new("a")))
        await asyncio.sleep(0.001)
        await venue.close()
        with pytest.raises(Unknown):
            await placing

    at_virtual_time(story)


def test_another_life_of_a_venue_tells_other_ids_and_knows_no_old_orders() -> None:
    async def story() -> None:
        told = []
        for _ in range(2):
            venue = await started(Market())
            assert await venue.find(SYMBOL, "a") is None
            answer = await venue.place(new())
            told += [answer.venue_order_id, answer.fills[0].trade_id]
            await venue.close()
            await asyncio.sleep(0.001)
        assert len(set(told)) == 4

    at_virtual_time(story)


async def test_rules_that_change_are_kept_to() -> None:
    market = Market()
    venue = await started(market)
    await venue.place(new(quantity="1"))
    market.now_asks(msgspec.structs.replace(RULES, market_min_quantity=D(5)))
    assert (await venue.place(new("b"))).status == "filled", "not known yet"
    await venue.refresh_rules()
    with pytest.raises(Rejected, match="minimum"):
        await venue.place(new("c"))
    await venue.close()


def test_who_gives_up_waiting_has_sent_all_the_same() -> None:
    async def story() -> None:
        venue = await started(Market(), latency_ms=10)
        await venue.place(new("first"))
        placing = asyncio.create_task(venue.place(new("a")))
        await asyncio.sleep(0.001)
        placing.cancel()
        await asyncio.wait([placing])
        await asyncio.sleep(0.01)
        found = await venue.find(SYMBOL, "a")
        assert found is not None
        assert found.status == "filled"
        await venue.close()

    at_virtual_time(story)


def test_without_market_data_an_order_is_refused_after_two_seconds() -> None:
    async def story() -> None:
        market = Market()
        market.first = None
        venue = await started(market)
        start = clock()
        sent: list[int] = []
        with pytest.raises(Rejected, match="no market data"):
            await venue.place(new(), before_send=lambda: sent.append(1))
        assert (clock() - start, sent) == (2000, [])
        placing = asyncio.create_task(venue.place(new()))
        await asyncio.sleep(1)
        market.show()
        assert (await placing).status == "filled"
        for sink in market.sinks:
            sink.on_market("market", SYMBOL, up=False, reason="gone")
        with pytest.raises(Rejected, match="no market data"):
            await venue.place(new("b"))
        await venue.close()

    at_virtual_time(story)


def test_a_source_that_breaks_is_asked_again() -> None:
    class Breaking(Market):
        async def run_market(self, symbol: str, sink: MarketSink) -> None:
            if not self.subscriptions:
                self.subscriptions += 1
                raise RuntimeError("no such luck")
            await super().run_market(symbol, sink)

    async def story() -> None:
        venue = await started(Breaking())
        assert (await venue.place(new())).status == "filled"
        await venue.close()

    at_virtual_time(story)


def test_jitter_comes_from_the_seed_alone() -> None:
    async def took(seed: int) -> list[int]:
        venue = await started(Market(), latency_ms=100, latency_jitter=0.5, seed=seed)
        times = []
        for number in range(5):
            start = clock()
            await venue.place(new(f"n{number}"))
            times.append(clock() - start)
        await venue.close()
        return times

    one = at_virtual_time(lambda: took(1))
    assert one == at_virtual_time(lambda: took(1))
    assert one != at_virtual_time(lambda: took(2))
    assert all(50 <= time <= 150 for time in one)


async def test_rules_are_the_markets_with_our_fees_and_order_types() -> None:
    venue = await started(Market(), taker_fee=D("0.002"))
    rules = venue.rules(SYMBOL)
    assert rules is not None
    assert (rules.taker_fee, rules.maker_fee, rules.native_iceberg) == (D("0.002"), RULES.maker_fee, True)
    assert OrderType.TRAILING_STOP in rules.native
    assert venue.rules("ETH/USDT") is None
    assert (await venue.place(new())).fills[0].fee == D("0.202")
    with pytest.raises(Rejected, match="does not trade"):
        await venue.place(new(symbol="ETH/USDT"))
    plain = await started(
        Market(), capabilities=Capabilities(native=(OrderType.LIMIT, OrderType.MARKET), iceberg=False)
    )
    with pytest.raises(Rejected, match="stop"):
        await plain.place(new(order_type=OrderType.STOP, stop_price=D(90)))
    with pytest.raises(Rejected, match="iceberg"):
        await plain.place(new(price="99", quantity="2", display_quantity=D(1)))
    for one in (venue, plain):
        await one.close()


async def test_the_account_holds_what_it_holds() -> None:
    venue = await started(Market(), balances={"USDT": D(1000)}, taker_fee=D("0.01"), maker_fee=D(0))

    async def held() -> dict[str, tuple[Decimal, Decimal]]:
        return {one.asset: (one.free, one.used) for one in await venue.balances()}

    with pytest.raises(InsufficientFunds):
        await venue.place(new(side=Side.SELL))
    with pytest.raises(InsufficientFunds):
        await venue.place(new(quantity="10"))
    await venue.place(new("resting", price="99"))
    assert await held() == {"USDT": (D("900.01"), D("99.99"))}
    await venue.cancel(SYMBOL, "resting", None)
    await venue.place(new("taken", quantity="2", price="110"))
    assert await held() == {"USDT": (D(1000) - D(202) - D("2.02"), D(0)), "BTC": (D(2), D(0))}
    await venue.place(new("sold", side=Side.SELL, quantity="2"))
    assert await held() == {"USDT": (D("795.98") + D(198) - D("1.98"), D(0)), "BTC": (D(0), D(0))}
    await venue.close()


async def test_an_account_without_limit_lists_nothing() -> None:
    venue = await started(Market())
    await venue.place(new())
    assert await venue.balances() == [], "who reads it takes an empty list as unknown, not as nothing"
    await venue.close()


async def test_an_order_that_waits_for_a_book_is_open_until_the_stream_tells_of_it() -> None:
    market, told = Market(), Told()
    venue = await started(market)
    stream = asyncio.create_task(venue.run_stream(told))
    await venue.place(new("first", price="99"))
    market.trade("105", "1", Side.BUY)
    told.take()
    answer = await venue.place(new("a", quantity="2"))
    assert (answer.status, answer.filled, answer.fills) == ("open", D(0), ())
    market.show("105x1", "106x1 107x1")
    assert told.take() == ["a open 0", "a fill 1 at 106", "a fill 1 at 107", "a filled 2"]
    await venue.close()
    stream.cancel()
    await asyncio.wait([stream])


async def test_the_book_shown_is_the_one_matched_with_where_it_is_deep_enough() -> None:
    market = Market()
    market.first = shown("99x1 98x1", "101x1 102x1")
    venue = await started(market)
    await venue.place(new())
    assert (await venue.order_book(SYMBOL, 1)).asks == (BookLevel(D(101), D(1)),)
    assert (await venue.order_book(SYMBOL, 5)).ask == D(11)
    assert (await venue.candles(SYMBOL, seconds=60, since_ms=5))[0].start == 5
    await venue.close()


async def test_a_closed_venue_says_so() -> None:
    venue = await started(Market(), latency_ms=10_000)
    await venue.close()
    with pytest.raises(Unavailable):
        await venue.place(new())
    with pytest.raises(Unavailable):
        await venue.find(SYMBOL, "a")
