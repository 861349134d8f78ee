"""A replay tells what happened when it happens: nothing earlier, nothing twice, in any time but real time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine, Sequence
from decimal import Decimal as D
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.base import NotReady, Rejected, Unavailable
from adapters.recorded import (
    Book,
    RecordedMarket,
    RecordingError,
    SyntheticConfig,
    SyntheticMarket,
    Trades,
    open_recording,
)
from adapters.recorded.estimates import inferred_rules
from adapters.recorded.events import EventSource, MarketEvent
from adapters.recorded.source import LOOP_PAUSE_MS, span_of
from adapters.recorded.synthesis import BookSynthesis
from schemas.market import BookLevel, Candle, OrderBook, PublicTrade

T = 1_700_000_040_000  # a full minute
SYMBOL = "BTC/USDT"


class _Selector(selectors.SelectSelector):
    """Waits by moving the clock."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nothing will ever happen"
            self.loop.clock += max(0.0, timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose time passes at once."""

    def __init__(self) -> None:
        self.clock = 1000.0
        selector = _Selector()
        super().__init__(selector)
        selector.loop = self

    def time(self) -> float:
        return self.clock


def run(main: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def wall(start: int) -> Any:
    """A wall clock in ms that shows `start` now."""
    loop = asyncio.get_running_loop()
    begin = loop.time()
    return lambda: start + int((loop.time() - begin) * 1000 + 1e-6)


class Events:
    """A source of given events."""

    venue = None
    symbol = SYMBOL

    def __init__(self, events: Sequence[MarketEvent], history: Sequence[Candle] = (), seconds: int = 60) -> None:
        self._events, self._history, self._seconds = events, list(history), seconds

    def events(self) -> Any:
        return iter(self._events)

    def rules(self) -> Any:
        return inferred_rules(SYMBOL, D("0.1"), D("0.01"))

    def history(self) -> tuple[list[Candle], int]:
        return self._history, self._seconds

    def describe(self) -> list[str]:
        return ["given"]


class Heard:
    """A sink that notes what it is told, and when."""

    def __init__(self, now: Any) -> None:
        self.now = now
        self.log: list[tuple[int, str, Any]] = []

    def on_book(self, venue: str, book: OrderBook) -> None:
        self.log.append((self.now(), "book", book))

    def on_trades(self, venue: str, symbol: str, trades: Sequence[PublicTrade]) -> None:
        self.log.append((self.now(), "trades", tuple(trades)))

    def on_market(self, venue: str, symbol: str, *, up: bool, reason: str | None) -> None:
        self.log.append((self.now(), "up" if up else "down", reason))

    def times(self, what: str) -> list[int]:
        return [at for at, kind, _ in self.log if kind == what]


def book(ts: int, bid: int = 99) -> Book:
    return Book(ts, SYMBOL, (BookLevel(D(bid), D(1)),), (BookLevel(D(bid + 2), D(1)),))


def trades(ts: int, price: int = 100, quantity: int = 1, name: str = "") -> Trades:
    return Trades(
        ts, SYMBOL, (PublicTrade(trade_id=name or str(ts), price=D(price), quantity=D(quantity), timestamp=ts),)
    )


async def replay(source: EventSource, start: int = T, **options: Any) -> tuple[RecordedMarket, Heard]:
    now = wall(start)
    market = RecordedMarket(source, name="rec", now=now, **options)
    heard = Heard(now)
    await market.start()
    task = asyncio.create_task(market.run_market(SYMBOL, heard))
    await asyncio.wait_for(market.ended.wait(), 10_000_000)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await market.close()
    return market, heard


moments = st.lists(st.tuples(st.integers(0, 500), st.booleans()), min_size=1, max_size=60)


@settings(deadline=None, max_examples=60)
@given(rows=moments, wait=st.integers(0, 5000))
def test_every_event_is_told_at_its_time(rows: list[tuple[int, bool]], wait: int) -> None:
    events: list[MarketEvent] = []
    ts = T
    for number, (gap, is_book) in enumerate(rows):
        ts += gap
        events.append(book(ts, 99 + number) if is_book else trades(ts, name=str(number)))
    _, heard = run(replay(Events(events), T + 7, starts_at=T + 7 + wait))
    told = [trade for _, kind, what in heard.log if kind == "trades" for trade in what]
    assert [trade.trade_id for trade in told] == [event.trades[0].trade_id for event in events if isinstance(event, Trades)]  # fmt: skip
    shift = 7 + wait + T - events[0].ts
    assert [trade.timestamp for trade in told] == [event.ts + shift for event in events if isinstance(event, Trades)]
    assert all(at == what[0].timestamp for at, kind, what in heard.log if kind == "trades")
    last_books = [event for event, after in zip(events, [*events[1:], None], strict=True) if isinstance(event, Book) and not (isinstance(after, Book) and after.ts == event.ts)]  # fmt: skip
    assert [(at - shift, what.bids) for at, kind, what in heard.log if kind == "book"] == [(one.ts, one.bids) for one in last_books]  # fmt: skip
    assert heard.log[0][1] == "up"
    assert heard.log[-1][1:] == ("down", "the recording ended")


@settings(deadline=None, max_examples=60)
@given(
    gaps=st.lists(st.integers(0, 40_000), min_size=1, max_size=40),
    asked=st.integers(0, 400_000),
    seconds=st.sampled_from([1, 5, 60, 300]),
)
def test_candles_know_nothing_of_what_comes(gaps: list[int], asked: int, seconds: int) -> None:
    """Candles asked for at a time are the same whether or not anything happens after it."""
    tape, ts = [], T + 17
    for number, gap in enumerate(gaps):
        ts += gap
        tape.append(trades(ts, 100 + number * 7 % 13, 1 + number, str(number)))
    history = [Candle(start=T - 60_000 * back, open=D(9), high=D(9), low=D(9), close=D(9), volume=D(1)) for back in range(10, -9, -1)]  # fmt: skip
    at = tape[0].ts + asked

    async def ask(events: list[Trades]) -> list[Candle]:
        now = wall(tape[0].ts)
        market = RecordedMarket(Events(events, history), name="rec", now=now, starts_at=tape[0].ts)
        await market.start()
        await asyncio.sleep((asked + 0.5) / 1000)
        assert now() == at
        answer = await market.candles(SYMBOL, seconds=seconds, since_ms=0)
        await market.close()
        return answer

    known = [event for event in tape if event.ts <= at]
    full = run(ask(tape))
    assert full == run(ask(known))
    assert all(candle.start <= at for candle in full)
    past = sum(candle.volume for candle in history if candle.start + 60_000 <= tape[0].ts) if seconds >= 60 else 0
    assert sum(candle.volume for candle in full) == past + sum(event.trades[0].quantity for event in known)
    assert [candle.start for candle in full] == sorted({candle.start for candle in full})


def test_candles_join_history_and_what_was_traded() -> None:
    history = [
        Candle(start=T - 120_000 + 60_000 * n, open=D(1 + n), high=D(5), low=D(1), close=D(2), volume=D(3)) for n in (0, 1)
    ]  # fmt: skip
    source = Events([trades(T, 7, 2), trades(T + 59_999, 4, 1), trades(T + 60_000, 6, 1)], history)

    async def main() -> None:
        now = wall(T)
        market = RecordedMarket(source, name="rec", now=now, starts_at=T)
        await market.start()
        await asyncio.sleep(59.9995)
        minute = await market.candles(SYMBOL, seconds=60, since_ms=T - 60_000)
        assert minute == [history[1], Candle(start=T, open=D(7), high=D(7), low=D(4), close=D(4), volume=D(3))]
        assert await market.candles(SYMBOL, seconds=60, since_ms=0, limit=1) == [history[0]]
        whole = await market.candles(SYMBOL, seconds=1200, since_ms=0)
        assert sum(candle.volume for candle in whole) == 9
        assert [candle.start for candle in await market.candles(SYMBOL, seconds=1, since_ms=0)] == [T, T + 59_000]
        await market.close()

    run(main())


def test_speed_and_repetition() -> None:
    source = Events([trades(T, name="a"), trades(T + 1000, name="b")])
    _, heard = run(replay(source, 5_000_000, speed=10.0))
    assert heard.times("trades") == [5_000_000, 5_000_100]

    async def repeated() -> Heard:
        now = wall(0)
        market = RecordedMarket(source, name="rec", now=now, loop=True)
        heard = Heard(now)
        await market.start()
        task = asyncio.create_task(market.run_market(SYMBOL, heard))
        await asyncio.sleep(4.5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await market.close()
        return heard

    log = [(at, what[0].trade_id) for at, kind, what in run(repeated()).log if kind == "trades"]
    pause = 1000 + LOOP_PAUSE_MS
    assert log == [(0, "a"), (1000, "b"), (pause, "2:a"), (pause + 1000, "2:b"), (2 * pause, "3:a")]


def test_the_book_is_the_last_one_that_happened() -> None:
    async def main() -> None:
        now = wall(T)
        market = RecordedMarket(Events([trades(T), book(T + 100, 99), book(T + 200, 90)]), name="rec", now=now)
        await market.start()
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await market.order_book(SYMBOL)
        await asyncio.sleep(0.15)
        assert (await market.order_book(SYMBOL, 5)).bid == 99
        heard = Heard(now)
        late = asyncio.create_task(market.run_market(SYMBOL, heard))
        await asyncio.sleep(0.1)
        assert [what.bid for _, kind, what in heard.log if kind == "book"] == [99, 90]
        with pytest.raises(Rejected):
            await market.order_book("ETH/USDT")
        assert market.rules("ETH/USDT") is None
        assert market.rules(SYMBOL).tick == D("0.1")
        late.cancel()
        await market.close()

    run(main())


def test_nothing_is_told_after_close() -> None:
    async def main() -> list[Any]:
        now = wall(T)
        market = RecordedMarket(Events([trades(T + at) for at in range(0, 1000, 10)]), name="rec", now=now)
        heard = Heard(now)
        await market.start()
        task = asyncio.create_task(market.run_market(SYMBOL, heard))
        await asyncio.sleep(0.1)
        await market.close()
        count = len(heard.log)
        await asyncio.sleep(5)
        task.cancel()
        return [count, len(heard.log)]

    before, after = run(main())
    assert before == after > 5


def test_a_file_that_breaks_off_says_so(tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT.csv"
    path.write_text("time,price,qty\n" + "".join(f"{T + at},100,1\n" for at in range(600)) + f"{T + 10_000},broken,1\n")
    recording = open_recording(path, synthesis=BookSynthesis(spread_bps=1))

    async def empty() -> None:
        with pytest.raises(NotReady, match="no events to replay: given"):
            await RecordedMarket(Events([]), name="rec", now=wall(0)).start()
        with pytest.raises(NotReady, match="row 601"):
            await RecordedMarket(recording, name="rec", now=wall(0)).start()

    run(empty())


def test_a_recording_of_candles_replays_with_its_past_as_history(tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT-1m.csv"
    rows = "".join(f"{T // 1000 + 60 * n},100,102,99,101,{n + 1}\n" for n in range(10))
    path.write_text("time,open,high,low,close,volume\n" + rows)
    recording = open_recording(path, since_ms=T + 300_000, until_ms=T + 480_000)
    first, last, mid = span_of(recording)
    assert T + 300_000 <= first < last < T + 480_000
    assert mid is not None

    async def main() -> None:
        now = wall(first)
        market = RecordedMarket(recording, name="rec", now=now, starts_at=first)
        await market.start()
        before = await market.candles(SYMBOL, seconds=60, since_ms=0)
        assert [candle.volume for candle in before] == [1, 2, 3, 4, 5]
        await market.ended.wait()
        after = await market.candles(SYMBOL, seconds=60, since_ms=T)
        assert [candle.volume for candle in after] == [1, 2, 3, 4, 5, 6, 7, 8]
        assert after[6] == Candle(start=T + 360_000, open=D(100), high=D(102), low=D(99), close=D(101), volume=D(7))
        await market.close()

    run(main())


def test_an_hour_of_a_synthetic_market_replays_at_once() -> None:
    source = SyntheticMarket(SyntheticConfig(seconds=3600, history_seconds=3600))
    market, heard = run(replay(source, source.config.start_ms, starts_at=source.config.start_ms))
    assert market.describe()[-1] == "replayed as rec"
    assert heard.times("book") == [source.config.start_ms + 250 * n for n in range(4 * 3600)]


def test_a_file_that_breaks_in_mid_replay_takes_the_market_down() -> None:
    class Broken(Events):
        def events(self) -> Any:
            yield trades(T)
            yield trades(T + 10)
            raise RecordingError("x.csv: row 3 is broken")

    market, heard = run(replay(Broken([]), starts_at=T))
    assert heard.times("trades") == [T, T + 10]
    assert heard.log[-1][1:] == ("down", "x.csv: row 3 is broken")
    assert market.failure == market.health.last_error == "x.csv: row 3 is broken"
