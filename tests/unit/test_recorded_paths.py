"""What is made up holds to what is known: candles exactly, books around the last trade, order in time, seeds."""

from __future__ import annotations

import random
from decimal import Decimal as D
from itertools import islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.recorded.candle_path import candle_trades
from adapters.recorded.estimates import candle_seconds, finest, roll_spread_bps
from adapters.recorded.events import Book, Trades, grouped
from adapters.recorded.read.ordering import ReadReport, once, ordered
from adapters.recorded.read.values import canonical, exact, symbol_in_name, time_ms
from adapters.recorded.synthesis import BookSynthesis, books_around
from adapters.recorded.synthetic import SyntheticConfig, SyntheticMarket, volume_curve
from schemas.market import Candle, PublicTrade
from schemas.terms import Side

thorough = settings(deadline=None, max_examples=150)


@st.composite
def candles(draw: st.DrawFn) -> tuple[Candle, D]:
    exponent = draw(st.integers(-8, 1))
    tick = D(1).scaleb(exponent)
    low = draw(st.integers(1, 10**6))
    high = low + draw(st.integers(0, 5000))
    open_, close = draw(st.integers(low, high)), draw(st.integers(low, high))
    volume = draw(st.decimals(min_value=0, max_value=10**6, places=draw(st.integers(0, 9))))
    start = draw(st.integers(0, 10**9)) * 60_000
    prices = [tick * price for price in (open_, high, low, close)]
    return Candle(start=start, open=prices[0], high=prices[1], low=prices[2], close=prices[3], volume=volume), tick


@thorough
@given(bar=candles(), count=st.integers(1, 60), seconds=st.sampled_from([1, 60, 86_400]), seed=st.integers(0, 9))
def test_a_path_respects_its_candle_exactly(bar: tuple[Candle, D], count: int, seconds: int, seed: int) -> None:
    candle, tick = bar
    trades = candle_trades(candle, seconds=seconds, tick=tick, trades=count, seed=seed)
    if not candle.volume:
        assert trades == []
        return
    prices = [trade.price for trade in trades]
    assert (prices[0], max(prices), min(prices), prices[-1]) == (candle.open, candle.high, candle.low, candle.close)
    assert sum(trade.quantity for trade in trades) == candle.volume
    assert all(trade.quantity > 0 for trade in trades)
    assert all(price % tick == 0 for price in prices)
    times = [trade.timestamp for trade in trades]
    assert times == sorted(times)
    assert candle.start <= times[0]
    assert times[-1] < candle.start + seconds * 1000
    assert len({trade.trade_id for trade in trades}) == len(trades)
    assert len(trades) <= max(count, 4)
    assert trades == candle_trades(candle, seconds=seconds, tick=tick, trades=count, seed=seed)


@thorough
@given(times=st.lists(st.integers(0, 400), max_size=80), window=st.sampled_from([0, 10, 100]))
def test_what_is_read_comes_out_in_order_and_is_counted(times: list[int], window: int) -> None:
    report = ReadReport()
    rows = list(enumerate(times))
    out = list(ordered(rows, lambda row: row[1], report, window))
    assert out == sorted(out, key=lambda row: row[1])
    assert len(out) + report.too_late == len(rows)
    assert set(out) <= set(rows)
    newest, late = -1, 0
    for _, ts in rows:
        late += ts < newest - window
        newest = max(newest, ts)
    assert report.too_late <= late
    for before, after in pairwise(out):
        assert before[1] < after[1] or before[0] < after[0], "rows of one time keep their order"


@thorough
@given(ids=st.lists(st.integers(0, 20)))
def test_an_id_is_told_once(ids: list[int]) -> None:
    report = ReadReport()
    assert list(once(ids, lambda name: name, report)) == list(dict.fromkeys(ids))
    assert report.duplicates == len(ids) - len(set(ids))


tapes = st.lists(
    st.tuples(st.integers(0, 3000), st.integers(1, 20_000), st.integers(1, 500), st.sampled_from([None, Side.BUY, Side.SELL])),
    min_size=1,
    max_size=40,
)  # fmt: skip


def tape(rows: list[tuple[int, int, int, Side | None]]) -> list[PublicTrade]:
    ts, trades = 1_700_000_000_000, []
    for number, (gap, price, quantity, side) in enumerate(rows):
        ts += gap
        trades.append(
            PublicTrade(trade_id=str(number), price=D(price) / 10, quantity=D(quantity) / 100, timestamp=ts, side=side)
        )
    return trades


def around(trades: list[PublicTrade], seed: int = 1, spread: float = 5.0) -> list[Book | Trades]:
    made = books_around(
        grouped(trades, "A/B", None), tick=D("0.1"), lot=D("0.01"), quantity=D(3), spread_bps=spread, synthesis=BookSynthesis(seed=seed)
    )  # fmt: skip
    return list(made)


@thorough
@given(rows=tapes, seed=st.integers(0, 5))
def test_books_around_trades_are_whole_and_in_order(rows: list[tuple[int, int, int, Side | None]], seed: int) -> None:
    trades = tape(rows)
    events = around(trades, seed)
    assert [event.ts for event in events] == sorted(event.ts for event in events)
    assert [trade for event in events if isinstance(event, Trades) for trade in event.trades] == trades
    for book in events:
        if not isinstance(book, Book):
            continue
        bids, asks = [level.price for level in book.bids], [level.price for level in book.asks]
        assert bids == sorted(set(bids), reverse=True)
        assert asks == sorted(set(asks))
        assert 0 < bids[-1] <= bids[0] < asks[0]
        assert all(level.price % D("0.1") == 0 and level.quantity % D("0.01") == 0 < level.quantity for level in (*book.bids, *book.asks))  # fmt: skip
    for before, after in pairwise(events):
        if isinstance(before, Trades):
            last = before.trades[-1]
            assert isinstance(after, Book)
            assert after.ts == before.ts
            if last.side is Side.SELL:
                assert after.bids[0].price == last.price, "who sold, sold at the bid"
            if last.side is Side.BUY and last.price > 1:
                assert after.asks[0].price == last.price


@thorough
@given(rows=tapes, keep=st.integers(1, 40))
def test_a_made_up_book_knows_nothing_of_trades_to_come(
    rows: list[tuple[int, int, int, Side | None]], keep: int
) -> None:
    trades = tape(rows)
    until = trades[min(keep, len(trades)) - 1].timestamp
    known = [trade for trade in trades if trade.timestamp <= until]
    short, long = around(known), around(trades)
    assert long[: len(short)] == short


def test_while_nothing_trades_the_book_is_told_again() -> None:
    events = around(tape([(0, 1000, 1, None), (3500, 1000, 1, None)]))
    assert [event.ts - events[0].ts for event in events] == [0, 0, 1000, 2000, 3000, 3500, 3500]


def test_the_bounce_of_trades_tells_their_spread() -> None:
    draw = random.Random(5)
    mid, prices = 100.0, []
    for _ in range(20_000):
        mid += draw.gauss(0, 0.002)
        prices.append(D(f"{mid + draw.choice((-0.02, 0.02)):.6f}"))
    assert roll_spread_bps(prices) == pytest.approx(4.0, rel=0.05)
    assert roll_spread_bps([D(price) for price in range(100, 200)]) is None
    assert roll_spread_bps([D(1)] * 3) is None


@thorough
@given(
    cents=st.lists(st.integers(1, 10**9), min_size=1, max_size=20), places=st.integers(0, 9), zeros=st.integers(0, 5)
)
def test_the_finest_step_divides_all_numbers(cents: list[int], places: int, zeros: int) -> None:
    numbers = [D(f"{D(number).scaleb(-places):f}") for number in cents]
    step = finest(numbers)
    assert all(number % step == 0 for number in numbers)
    assert step == 1 or any(number % (step * 10) for number in numbers)
    padded = [number.quantize(D(1).scaleb(-places - zeros)) for number in numbers]
    assert finest(padded) == step


@pytest.mark.parametrize(
    ("cell", "ms"),
    [
        ("1700000000", 1_700_000_000_000),
        ("1700000000.1239", 1_700_000_000_123),
        (D("1762795433.9717445"), 1_762_795_433_971),
        (1_700_000_000_123, 1_700_000_000_123),
        ("1700000000123456", 1_700_000_000_123),
        (1_700_000_000_123_456_789, 1_700_000_000_123),
        (1.7e12, 1_700_000_000_000),
        ("2023-11-14T22:13:20.123Z", 1_700_000_000_123),
        ("2023-11-15T00:13:20.123+02:00", 1_700_000_000_123),
        ("2023-11-14 22:13:20.123456", 1_700_000_000_123),
        ("2023-11-14 22:13:20 UTC", 1_700_000_000_000),
    ],
)
def test_times_in_any_unit(cell: object, ms: int) -> None:
    assert time_ms(cell) == ms


@pytest.mark.parametrize("cell", ["", "soon", "nan", None, "NaN", float("inf")])
def test_what_is_no_number_or_time_is_refused(cell: object) -> None:
    with pytest.raises(ValueError, match="no "):
        exact(cell)
    with pytest.raises(ValueError, match="no "):
        time_ms(cell)


def test_symbols_are_the_same_however_written() -> None:
    same = ("BTC/USDT", "btcusdt", "XBT-USDT", "BTC_USDT", "BTC/USDT:USDT", "BTC-USDT-SWAP", "XBTUSDT.P")
    assert {canonical(name) for name in same} == {"BTCUSDT"}
    assert symbol_in_name("2024-12-01_XRPUSDT_ob500.data") == "XRP/USDT"
    assert symbol_in_name("Kraken_XBTUSD_60.csv") == "BTC/USD"
    assert symbol_in_name("2024-12-01.csv") is None


def test_the_interval_of_candles_is_their_usual_distance() -> None:
    bars = [Candle(start=at * 300_000, open=D(1), high=D(1), low=D(1), close=D(1), volume=D(1)) for at in (0, 1, 2, 7, 8)]  # fmt: skip
    assert candle_seconds(bars) == 300


CONFIG = SyntheticConfig(seconds=600, trades_per_second=3, imbalance=0.4, curve=0.5, curve_seconds=600)


def test_a_synthetic_market_is_its_seed() -> None:
    market = SyntheticMarket(CONFIG)
    events = list(market.events())
    assert events == list(market.events())
    assert events != list(SyntheticMarket(SyntheticConfig(seconds=600, seed=2)).events())
    assert [event.ts for event in events] == sorted(event.ts for event in events)
    assert events[-1].ts < CONFIG.start_ms + 600_000
    book = None
    names = set()
    for event in events:
        if isinstance(event, Book):
            book = event
            assert book.bids[0].price < book.asks[0].price
            continue
        assert book is not None
        for trade, level in zip(event.trades, book.asks if event.trades[0].side is Side.BUY else book.bids, strict=False):  # fmt: skip
            assert trade.price == level.price
            assert 0 < trade.quantity <= level.quantity
            names.add(trade.trade_id)
    assert len(names) == sum(len(event.trades) for event in events if isinstance(event, Trades))


def test_a_synthetic_market_without_end_is_made_as_it_is_asked_for() -> None:
    endless = SyntheticMarket(SyntheticConfig(seconds=None))
    assert len(list(islice(endless.events(), 5000))) == 5000


@thorough
@given(a=st.floats(-0.5, 1))
def test_the_volume_curve_keeps_the_mean(a: float) -> None:
    steps = 1000
    values = [volume_curve((step + 0.5) / steps, a) for step in range(steps)]
    assert sum(values) / steps == pytest.approx(1, abs=1e-4)
    assert min(values) >= -1e-9
    assert volume_curve(0, a) == pytest.approx(1 + 2 * a)
    assert volume_curve(0.5, a) == pytest.approx(1 - a)


def test_volume_follows_its_curve_and_rate() -> None:
    config = SyntheticConfig(seconds=6000, curve_seconds=6000, curve=0.8, trades_per_second=4, book_interval_ms=1000)
    arrivals = [0, 0, 0, 0]
    for event in SyntheticMarket(config).events():
        if isinstance(event, Trades):
            arrivals[(event.ts - config.start_ms) * 4 // 6_000_000] += 1
    assert sum(arrivals) == pytest.approx(24_000, rel=0.05)
    expected = [6000 * (1 + 0.8 * 0.75), 6000 * (1 - 0.8 * 0.75)]
    assert arrivals[0] == pytest.approx(expected[0], rel=0.05)
    assert arrivals[1] == pytest.approx(expected[1], rel=0.08)


def test_the_mid_moves_as_much_as_declared() -> None:
    config = SyntheticConfig(
        seconds=20_000, volatility=0.04, trades_per_second=0, book_interval_ms=1000, tick=D("0.01")
    )
    mids = [float(event.bids[0].price + event.asks[0].price) for event in SyntheticMarket(config).events() if isinstance(event, Book)]  # fmt: skip
    variance = sum((after / before - 1) ** 2 for before, after in pairwise(mids)) / (len(mids) - 1)
    assert (variance * 86_400) ** 0.5 == pytest.approx(0.04, rel=0.03)


def test_history_ends_where_the_market_begins() -> None:
    config = SyntheticConfig(history_seconds=7200, start_ms=1_735_689_612_345)
    history, seconds = SyntheticMarket(config).history()
    assert len(history) == 120
    assert seconds == 60
    assert history[-1].close == config.price
    assert history[-1].start + 60_000 <= config.start_ms
    for before, after in pairwise(history):
        assert after.start - before.start == 60_000
        assert before.close == after.open
        assert after.low <= min(after.open, after.close) <= max(after.open, after.close) <= after.high


@pytest.mark.parametrize("wrong", [{"curve": 2}, {"imbalance": 1}, {"tick": D(0)}, {"volatility": -1}])
def test_a_market_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"is|are"):
        SyntheticConfig(**wrong)
