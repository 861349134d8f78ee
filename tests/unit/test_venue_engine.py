"""The venue's engine over random orders: priority is kept, money is conserved, nothing goes below zero."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.simulator import dialect
from adapters.simulator.accounts import Account
from adapters.simulator.candles import Candles, HistoryConfig, volume_curve
from adapters.simulator.engine import Engine
from adapters.simulator.errors import VenueError
from adapters.simulator.market import MarketConfig, SyntheticMarket
from adapters.simulator.orders import ZERO, NewOrder, Order, PublicTrade
from adapters.simulator.replay import RecordedTrade, Replay, ReplayConfig, read_recording
from adapters.simulator.stops import STOPS as _STOPS
from adapters.simulator.symbols import SymbolSpec
from tests.system import venue_config

RICH = Decimal(1_000_000)
FEE = Decimal(10)
ONE = Decimal(1)
STOPS = sorted(_STOPS)


def stop(kind: str, side: str, stop_price: int | None = None, **more: Any) -> NewOrder:
    price = None if stop_price is None else Decimal(stop_price)
    return NewOrder(symbol="BTCUSDT", side=side, kind=kind, quantity=ONE, stop_price=price, **more)


def engine_with(count: int, price: int = 50_000) -> tuple[Engine, list[Account]]:
    specs = venue_config().symbols
    specs[0].price = Decimal(price)
    engine = Engine(specs, maker_bps=FEE, taker_bps=FEE, now=lambda: 0)
    accounts = [Account(f"k{n}", "s", {"BTC": RICH, "USDT": RICH}) for n in range(count)]
    for account in accounts:
        engine.accounts[account.key] = account
    return engine, accounts


order = st.tuples(
    st.integers(0, 2),
    st.sampled_from(["BUY", "SELL"]),
    st.sampled_from([*["LIMIT"] * 3, "MARKET", "LIMIT_MAKER", *STOPS, *(f"TRAILING {kind}" for kind in STOPS)]),
    st.integers(1, 50),
    st.integers(-20, 20),
    st.sampled_from(["GTC", "GTC", "IOC", "FOK"]),
    st.booleans(),
    st.sampled_from([None, None, 2, 9]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(order, min_size=1, max_size=40))
def test_money_is_conserved_and_never_negative(orders: list[tuple[Any, ...]]) -> None:
    engine, accounts = engine_with(3)
    fees = {"BTC": ZERO, "USDT": ZERO}
    for who, side, drawn, quantity, offset, in_force, cancel, parts in orders:
        price = Decimal(50_000 + offset * 10)
        trailing, kind = drawn.startswith("TRAILING"), drawn.removeprefix("TRAILING ")
        limited = kind in ("LIMIT", "LIMIT_MAKER") or kind.endswith("_LIMIT")
        try:
            placed = engine.place(
                accounts[who],
                NewOrder(
                    symbol="BTCUSDT",
                    side=side,
                    kind=kind,
                    quantity=Decimal(quantity) / 1000,
                    price=price if limited else None,
                    stop_price=price if kind in STOPS and not trailing else None,
                    trailing_delta=10 if trailing else None,
                    iceberg=Decimal(-(-quantity // parts)) / 1000 if parts and limited else None,
                    time_in_force=in_force if limited and kind != "LIMIT_MAKER" else None,
                ),
            )
            if cancel and placed.open:
                engine.cancel(accounts[who], "BTCUSDT", placed.order_id, None)
        except VenueError:
            pass
        book = engine.market("BTCUSDT").book
        bid, ask = book.bids.best_price, book.asks.best_price
        assert bid is None or ask is None or bid < ask, "a crossed book"
        for account in accounts:
            assert min([*account.free.values(), *account.locked.values(), ZERO]) >= 0
            for one in account.orders.values():
                assert one.filled == sum((trade.quantity for trade in one.trades), ZERO) <= one.quantity
    for account in accounts:
        for one in list(account.open.values()):
            engine.cancel(account, "BTCUSDT", one.order_id, None)
        assert all(amount == 0 for amount in account.locked.values()), "something stays locked with nothing open"
        for one in account.orders.values():
            for trade in one.trades:
                fees[trade.fee_asset] += trade.fee
    for asset in ("BTC", "USDT"):
        assert sum((account.free[asset] for account in accounts), ZERO) + fees[asset] == RICH * 3


def test_the_best_price_comes_first_and_then_who_came_first() -> None:
    engine, (first, second, taker) = engine_with(3)

    def rest(account: Account, price: int) -> int:
        new = NewOrder(
            symbol="BTCUSDT", side="SELL", kind="LIMIT", quantity=Decimal(1), price=Decimal(price), time_in_force="GTC"
        )
        return engine.place(account, new).order_id

    early, later = rest(first, 50_010), rest(second, 50_010)
    late_but_better = rest(second, 50_000)
    engine.place(taker, NewOrder(symbol="BTCUSDT", side="BUY", kind="MARKET", quantity=Decimal("2.5")))
    assert second.orders[late_but_better].status == "FILLED"
    assert first.orders[early].status == "FILLED"
    assert second.orders[later].filled == Decimal("0.5")


# --- icebergs -----------------------------------------------------------------------------------------------------------


def limit(side: str, quantity: str, price: int, **more: Any) -> NewOrder:
    return NewOrder(
        symbol="BTCUSDT",
        side=side,
        kind="LIMIT",
        quantity=Decimal(quantity),
        price=Decimal(price),
        time_in_force="GTC",
        **more,
    )


def market(side: str, quantity: str) -> NewOrder:
    return NewOrder(symbol="BTCUSDT", side=side, kind="MARKET", quantity=Decimal(quantity))


def test_an_iceberg_shows_a_part_and_queues_again_for_the_next() -> None:
    engine, (hidden, plain, taker) = engine_with(3)
    asks = engine.market("BTCUSDT").book.asks
    iceberg = engine.place(hidden, limit("SELL", "5", 50_000, iceberg=Decimal(1)))
    behind = engine.place(plain, limit("SELL", "2", 50_000))
    assert asks.levels(1) == [(50_000, 3)]
    engine.place(taker, market("BUY", "1"))
    assert (iceberg.filled, iceberg.shown, behind.filled) == (1, 1, 0)
    assert asks.levels(1) == [(50_000, 3)]
    engine.place(taker, market("BUY", "1.5"))  # the second part stands behind the plain order
    assert (iceberg.filled, behind.filled) == (1, Decimal("1.5"))
    engine.place(taker, market("BUY", "5"))
    assert (iceberg.status, behind.status, asks.levels(1)) == ("FILLED", "FILLED", [])


def test_hidden_quantity_counts_for_fill_or_kill_and_for_the_funds_of_a_market_order() -> None:
    engine, (hidden, taker, _) = engine_with(3)
    engine.place(hidden, limit("SELL", "4", 50_000, iceberg=Decimal(1)))
    new = limit("BUY", "3", 50_000)
    new.time_in_force = "FOK"
    assert engine.place(taker, new).status == "FILLED"
    assert engine.place(taker, market("BUY", "1")).status == "FILLED"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(2, 40), st.integers(0, 10), st.booleans()), min_size=1, max_size=25))
def test_the_book_shows_what_its_orders_show(steps: list[tuple[int, int, bool]]) -> None:
    engine, (maker, other, taker) = engine_with(3)
    resting: list[Order] = []
    for quantity, parts, cancel in steps:
        shown = Decimal(-(-quantity // parts)) / 100 if parts > 1 else None
        account = maker if parts % 2 else other
        total = f"{Decimal(quantity) / 100}"
        if shown is not None and shown >= Decimal(total):
            shown = None
        resting.append(engine.place(account, limit("SELL", total, 50_000 + quantity % 3, iceberg=shown)))
        engine.place(taker, market("BUY", f"{Decimal(quantity + parts) / 150:.5f}"))
        if cancel and resting[0].open:
            engine.cancel(resting[0].account, "BTCUSDT", resting[0].order_id, None)
        for price, told in engine.market("BTCUSDT").book.asks.levels(10):
            here = [order for order in resting if order.open and order.price == price]
            assert told == sum((order.shown for order in here), ZERO) > 0
            assert all(0 < order.shown <= order.rest for order in here)


@pytest.mark.parametrize(
    ("new", "code", "says"),
    [
        (limit("SELL", "1", 50_000, iceberg=Decimal(1)), -1013, "IcebergQty exceeds QTY."),
        (limit("SELL", "11", 50_000, iceberg=Decimal(1)), -1013, "ICEBERG_PARTS"),
        (limit("SELL", "1", 50_000, iceberg=Decimal("0.500001")), -1013, "LOT_SIZE"),
        (NewOrder(symbol="BTCUSDT", side="SELL", kind="MARKET", quantity=ONE, iceberg=ONE / 2), -1106, "icebergQty"),
        (limit("SELL", "1", 50_000, stop_price=Decimal(49_000)), -1106, "stopPrice"),
        (limit("SELL", "1", 50_000, trailing_delta=100), -1106, "trailingDelta"),
        (stop("STOP_LOSS", "SELL", trailing_delta=9), -1013, "TRAILING_DELTA"),
        (stop("STOP_LOSS", "SELL", trailing_delta=2001), -1013, "TRAILING_DELTA"),
        (stop("STOP_LOSS", "SELL"), -1102, "stopPrice"),
        (stop("STOP_LOSS", "SELL", 50_001), -2010, "Stop price would trigger immediately."),
        (stop("TAKE_PROFIT", "SELL", 49_999), -2010, "Stop price would trigger immediately."),
        (stop("STOP_LOSS", "BUY", 49_999), -2010, "Stop price would trigger immediately."),
        (stop("TAKE_PROFIT", "BUY", 50_001), -2010, "Stop price would trigger immediately."),
    ],
)
def test_what_does_not_fit_is_refused(new: NewOrder, code: int, says: str) -> None:
    engine, (account, *_) = engine_with(3)
    with pytest.raises(VenueError, match=says) as refused:
        engine.place(account, new)
    assert refused.value.code == code
    assert account.locked.get("BTC", ZERO) == 0


def test_reports_carry_what_an_iceberg_shows_and_how_far_a_stop_trails() -> None:
    engine, (account, *_) = engine_with(3)
    told: list[dict[str, Any]] = []
    engine.on_report = lambda order, execution, trade: told.append(
        dialect.execution_report(order, execution, trade, 0, (order.filled, order.notional, order.status))
    )
    iceberg = engine.place(account, limit("SELL", "1", 50_100, iceberg=ONE / 4))
    trailing = engine.place(account, stop("TAKE_PROFIT", "SELL", 50_050, trailing_delta=50))
    assert (told[0]["F"], told[0]["q"], "d" in told[0]) == ("0.25000000", "1.00000000", False)
    assert (told[1]["d"], told[1]["P"], told[1]["w"], told[1]["X"]) == (50, "50050.00000000", False, "NEW")
    assert dialect.order(iceberg)["icebergQty"] == "0.25000000"
    assert (dialect.order(trailing)["trailingDelta"], dialect.order(trailing)["trailingTime"]) == (50, -1)


def test_an_iceberg_must_stay() -> None:
    engine, (account, *_) = engine_with(3)
    new = limit("SELL", "1", 50_000, iceberg=ONE / 2)
    new.time_in_force = "IOC"
    with pytest.raises(VenueError) as refused:
        engine.place(account, new)
    assert refused.value.code == -1014


@pytest.mark.parametrize(
    ("kind", "says"),
    [("STOP_LOSS", "Stop loss"), ("STOP_LOSS_LIMIT", "Stop loss limit"), ("LIMIT_MAKER", "Limit maker")],
)
def test_a_venue_may_have_fewer_order_types(kind: str, says: str) -> None:
    spec = SymbolSpec(base="BTC", quote="USDT", price=Decimal(50_000), order_types=("LIMIT", "MARKET"), iceberg=False)
    engine = Engine([spec], maker_bps=FEE, taker_bps=FEE, now=lambda: 0)
    account = Account("k", "s", {"BTC": RICH, "USDT": RICH})
    new = limit("SELL", "1", 49_000)
    new.kind, new.stop_price = kind, Decimal(49_500) if kind.startswith("STOP") else None
    with pytest.raises(VenueError, match=f"{says} orders are not supported for this symbol."):
        engine.place(account, new)
    with pytest.raises(VenueError, match="Iceberg orders are not supported"):
        engine.place(account, limit("SELL", "1", 50_000, iceberg=ONE / 2))
    told = spec.info()
    assert (told["orderTypes"], told["icebergAllowed"], told["allowTrailingStop"]) == (
        ["LIMIT", "MARKET"],
        False,
        False,
    )


# --- stops --------------------------------------------------------------------------------------------------------------


def walk(engine: Engine, *prices: int | str) -> None:
    """Trades at these prices, between two who are nobody's counterparty."""
    maker, taker = Account("", ""), Account("", "")
    for price in prices:
        new = limit("SELL", "0.01", 0)
        new.price = Decimal(price)
        placed = engine.place(maker, new)
        if placed.open:
            engine.place(taker, market("BUY", "0.01"))


@pytest.mark.parametrize(
    ("kind", "side", "stop_price", "delta", "path", "reaches"),
    [
        # The scenarios A to E of Binance's FAQ on trailing stops.
        ("STOP_LOSS", "BUY", 44_000, 500, [37_000, 44_000, 45_000, 46_000, 42_000, 44_099], 44_100),
        ("STOP_LOSS", "SELL", 39_000, 1000, [41_500, 39_000, 37_000, 41_000, 36_901], 36_900),
        ("TAKE_PROFIT", "BUY", 38_000, 850, [42_000, 38_000, 37_000, 39_000, 38_000, 40_144], 40_145),
        ("TAKE_PROFIT", "SELL", 42_000, 750, [41_500, 39_000, 42_000, 45_000, 44_000, 46_500, 43_013], "43012.5"),
        ("STOP_LOSS", "SELL", None, 700, [42_000, 39_500, 45_500, 42_316], 42_315),
    ],
)
def test_trailing_stops_follow_the_faq(
    kind: str, side: str, stop_price: int | None, delta: int, path: list[int], reaches: int | str
) -> None:
    engine, (account, *_) = engine_with(3, price=40_000)
    order = engine.place(account, stop(kind, side, stop_price, trailing_delta=delta))
    walk(engine, *path)
    assert (order.status, order.working) == ("NEW", False)
    deep = Account("", "")
    engine.place(deep, limit("BUY", "3", 10_000))
    engine.place(deep, limit("SELL", "3", 90_000))
    walk(engine, reaches)
    assert (order.status, order.working) == ("FILLED", True)


def test_a_stop_that_a_sweep_passes_is_worked_after_it() -> None:
    engine, (account, other, taker) = engine_with(3)
    first = engine.place(account, stop("STOP_LOSS", "BUY", 50_100))
    for price in (50_000, 50_150, 50_300):
        engine.place(other, limit("SELL", "1", price))
    engine.place(taker, market("BUY", "2"))
    assert first.status == "FILLED"
    assert first.trades[0].price == 50_300


def test_a_waiting_sell_holds_its_quantity_back() -> None:
    engine, (account, *_) = engine_with(1 + 2)
    account.free["BTC"] = Decimal(1)
    profit = engine.place(account, stop("TAKE_PROFIT", "SELL", 51_000))
    assert (account.free["BTC"], account.locked["BTC"]) == (0, 1)
    with pytest.raises(VenueError, match="insufficient balance") as refused:
        engine.place(account, stop("STOP_LOSS", "SELL", 49_000))
    assert refused.value.code == -2010
    engine.cancel(account, "BTCUSDT", profit.order_id, None)
    assert engine.place(account, stop("STOP_LOSS", "SELL", 49_000)).status == "NEW"


# --- the synthetic market -----------------------------------------------------------------------------------------------

STILL = {"volatility": 0.0, "trades": 0.0, "permanent_impact": 0.0}


def synthetic(**changes: Any) -> tuple[Engine, SyntheticMarket, Account]:
    engine, (account, *_) = engine_with(1)
    account.free = {"BTC": Decimal(10**6), "USDT": Decimal(10**12)}
    made = SyntheticMarket(engine, engine.market("BTCUSDT"), MarketConfig(**{**STILL, **changes}))
    made.requote()
    return engine, made, account


def test_one_big_order_pays_more_than_its_slices() -> None:
    def average(slices: int, pause: int) -> Decimal:
        engine, made, account = synthetic()
        orders = []
        for _ in range(slices):
            orders.append(engine.place(account, market("BUY", str(Decimal(20) / slices))))
            for _ in range(pause):
                made.step()
        assert all(order.status == "FILLED" for order in orders)
        return sum((order.notional for order in orders), ZERO) / 20

    at_once, hasty, patient = average(1, 0), average(10, 0), average(10, 12)
    assert at_once == hasty
    assert patient < at_once
    assert (at_once / patient - 1) * 10_000 > 3, "bps"


@given(half_life=st.floats(0.5, 20))
@settings(max_examples=20, deadline=None)
def test_eaten_depth_comes_back_by_half_in_its_half_life(half_life: float) -> None:
    engine, made, account = synthetic(impact_half_life=half_life, step=half_life / 8)
    asks = engine.market("BTCUSDT").book.asks

    def depth() -> float:
        return float(sum(price * quantity for price, quantity in asks.levels(100)))

    full = depth()
    engine.place(account, market("BUY", "20"))
    eaten = full - depth()
    for _ in range(8):
        made.step()
    # The maker adds to a level only when a tenth of it is missing, and 20 levels are quoted.
    assert abs((full - depth()) - eaten / 2) < eaten * 0.05 + 0.11 * 150_000
    for _ in range(8 * 10):
        made.step()
    assert depth() > full * 0.89


def test_who_joins_the_touch_is_filled_after_who_was_there() -> None:
    engine, made, account = synthetic()
    book = engine.market("BTCUSDT").book
    (bid, ahead), ask = book.bids.levels(1)[0], book.asks.best_price
    assert ask is not None
    assert (ask - bid) / Decimal("0.01") >= 2
    mine = engine.place(account, limit("BUY", "1", int(bid)))
    for _ in range(3):
        made.step()
    taker = Account("", "")
    engine.place(taker, market("SELL", str(ahead)))
    assert mine.filled == 0
    made.step()  # what the maker adds stands behind
    engine.place(taker, market("SELL", "0.4"))
    assert mine.filled == Decimal("0.4")


def test_takers_come_at_random_times_with_random_sizes() -> None:
    engine, made, _ = synthetic(trades=4.0, seed=3)
    times = []
    for _ in range(4000):
        before, due = len(engine.market("BTCUSDT").trades), made.due
        made.happen()
        if len(engine.market("BTCUSDT").trades) > before:
            times.append(due)
    gaps = [b - a for a, b in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    spread = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert abs(mean * 4 - 1) < 0.1
    assert abs(spread / mean - 1) < 0.15, "the gaps of a Poisson process deviate by their mean"
    sizes = sorted(trade.quantity for trade in engine.market("BTCUSDT").trades)
    assert len(set(sizes)) > len(sizes) / 2
    assert sizes[-1] > 5 * sizes[len(sizes) // 2]


def test_a_jump_prints_its_price_and_reaches_stops_in_a_full_book() -> None:
    engine, made, account = synthetic()
    order = engine.place(account, stop("STOP_LOSS", "SELL", 49_000))
    made.move_to(Decimal(48_000))
    last = engine.market("BTCUSDT").trades[-2]
    assert (last.price, order.status) == (48_000, "FILLED")
    assert abs(order.trades[0].price / 48_000 - 1) < Decimal("0.0002")


# --- candles ------------------------------------------------------------------------------------------------------------

DAYS = 86_400_000


def history(seed: int = 1, days: int = 3, now: int = 20_000 * DAYS + 43_230_000) -> tuple[Candles, int]:
    made = Candles()
    spec = SymbolSpec(base="BTC", quote="USDT", price=Decimal(50_000))
    made.begin(spec, now, HistoryConfig(seed=seed, days=days))
    return made, now


def test_history_is_seeded_continuous_and_ends_where_the_market_begins() -> None:
    made, now = history()
    rows = made.rows(60_000, now, since=now - 3 * DAYS, until=None, limit=10_000)
    assert len(rows) == 3 * 1440
    assert rows[-2].close == 50_000
    assert rows[-1].volume == 0, "the minute in which the venue began has no trade yet"
    assert all(b.start - a.start == 60_000 and a.close == b.open for a, b in pairwise(rows))
    assert all(0 < row.low <= min(row.open, row.close) <= max(row.open, row.close) <= row.high for row in rows)
    assert all(0 < row.bought < row.volume for row in rows[:-1])
    assert history()[0].rows(60_000, now, since=now - DAYS, until=None, limit=5) == rows[1440 * 2 : 1440 * 2 + 5]
    assert history(seed=2)[0].rows(60_000, now, since=now - DAYS, until=None, limit=5) != rows[1440 * 2 : 1440 * 2 + 5]


def test_the_day_has_its_curve() -> None:
    assert abs(sum(volume_curve(minute) for minute in range(1440)) / 1440 - 1) < 0.01
    made, now = history(days=20)
    hours = [ZERO] * 24
    for row in made.rows(3_600_000, now, since=now - 20 * DAYS, until=None, limit=1000):
        hours[row.start // 3_600_000 % 24] += row.volume
    assert hours[14] > 3 * hours[20]


THREE_DAYS = history()


@given(step=st.sampled_from([3, 5, 15, 60, 240, 1440]), ago=st.integers(0, 3 * 1440))
@settings(max_examples=30, deadline=None)
def test_long_candles_are_made_of_minutes(step: int, ago: int) -> None:
    made, now = THREE_DAYS
    width = step * 60_000
    for row in made.rows(width, now, since=now - ago * 60_000, until=None, limit=3):
        minutes = made.rows(60_000, now, since=row.start, until=row.start + width - 1, limit=2000)
        minutes = [minute for minute in minutes if minute.start < row.start + width]
        assert (row.open, row.close) == (minutes[0].open, minutes[-1].close)
        assert (row.high, row.low) == (max(m.high for m in minutes), min(m.low for m in minutes))
        assert row.volume == sum((minute.volume for minute in minutes), ZERO)


def test_a_minute_without_trades_repeats_the_price() -> None:
    made, now = history()
    minute = now // 60_000 * 60_000
    made.add(PublicTrade(1, Decimal(50_100), Decimal(2), minute + 1, buyer_is_maker=False))
    made.add(PublicTrade(2, Decimal(50_000), Decimal(1), minute + 2, buyer_is_maker=True))
    made.add(PublicTrade(3, Decimal(50_300), Decimal(1), minute + 120_001, buyer_is_maker=True))
    first, empty, third = made.rows(60_000, minute + 130_000, since=minute, until=None, limit=10)
    assert (first.open, first.close, first.volume, first.bought, first.trades) == (50_100, 50_000, 3, 2, 2)
    assert (empty.open, empty.close, empty.volume) == (50_000, 50_000, 0)
    assert (third.open, third.volume, third.bought) == (50_300, 1, 0)


# --- recordings ---------------------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.integers(-300, 300), st.integers(1, 500_000), st.sampled_from(["BUY", "SELL"])),
        min_size=1,
        max_size=60,
    )
)
@settings(max_examples=100, deadline=None)
def test_a_recording_is_on_the_tape_as_it_was(recorded: list[tuple[int, int, str]]) -> None:
    engine, _ = engine_with(1)
    trades = [
        RecordedTrade(number * 100, Decimal(50_000) + Decimal(cents) / 10, Decimal(quantity) / 10**5, side)
        for number, (cents, quantity, side) in enumerate(recorded)
    ]
    replay = Replay(engine, engine.market("BTCUSDT"), trades, ReplayConfig())
    while not replay.finished:
        replay.happen()
        book = engine.market("BTCUSDT").book
        assert book.bids.best_price is not None
        assert book.asks.best_price is not None
    told = [
        (trade.price, trade.quantity, "SELL" if trade.buyer_is_maker else "BUY")
        for trade in engine.market("BTCUSDT").trades
    ]
    assert told == [(trade.price, trade.quantity, trade.side) for trade in trades]


def test_a_recorded_taker_fills_who_rests_in_front() -> None:
    engine, (account, *_) = engine_with(1)
    trades = [
        RecordedTrade(0, Decimal(50_000), Decimal(1), "SELL"),
        RecordedTrade(1, Decimal(49_990), Decimal(3), "SELL"),
    ]
    replay = Replay(engine, engine.market("BTCUSDT"), trades, ReplayConfig())
    replay.happen()
    mine = engine.place(account, limit("BUY", "2", 49_995))
    replay.happen()
    assert mine.status == "FILLED"
    assert [trade.quantity for trade in engine.market("BTCUSDT").trades] == [1, 2, 1]


def test_a_broken_recording_names_its_line(tmp_path: Path) -> None:
    file = tmp_path / "tape.csv"
    file.write_text("ts_ms,price,quantity,side\n1,50000,0.5,buy\n2,50001,0.25,sell\n")
    assert read_recording(file)[1] == RecordedTrade(2, Decimal(50_001), Decimal("0.25"), "SELL")
    for bad in ("x,1,1,buy", "3,1,1", "3,-1,1,buy", "3,1,1,left", "0,1,1,buy"):
        file.write_text(f"1,50000,0.5,buy\n{bad}\n")
        with pytest.raises(ValueError, match="line 2"):
            read_recording(file)
