"""Stories that once went wrong: each is a fault that was found by reading, shown here before it was mended."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.base import VenueFill
from algorithms import ALGORITHMS
from algorithms.base import Lookback, Market, View
from algorithms.decide import decide
from algorithms.trigger import armed, until, watch
from execution.history import Histories
from execution.ledger.records import parse_order
from execution.market_data import Feed, MarketData
from execution.order_state import OrderState
from schemas import exact_json
from schemas.market import BookLevel, Candle, OrderBook
from schemas.order import OrderStatus
from schemas.terms import OrderType, Side
from tests.unit.story import RULES, Story


def test_a_book_thinner_than_the_order_does_not_end_it() -> None:
    """What the book shows within the bound was taken in full: the rest is still to be bought."""
    story = Story("10", None, max_slippage_bps=Decimal(50))
    story.market("99.9", "100.1", size="4")
    assert story.child.quantity == 4
    decision = story.venue("filled", "4", story.trade("4", "100.1"))
    assert decision.done is None
    assert decision.wake_when
    story.now += 1_000
    story.market("99.9", "100.2", size="50")
    assert story.child.quantity == 6
    story.venue("filled", "6", story.trade("6", "100.2"))
    assert story.state.parent.status is OrderStatus.FILLED
    assert story.state.totals.filled == 10


def test_a_book_too_thin_to_trade_is_waited_out() -> None:
    """A book that shows less than the venue trades says nothing of the order's rest."""
    story = Story("10", None, max_slippage_bps=Decimal(50))
    decision = story.market("99.9", "100.1", size="0.0001")
    assert (decision.place, decision.done) == ((), None)
    assert decision.wake_when
    story.now += 1_000
    story.market("99.9", "100.1", size="3")
    story.venue("expired", "3", story.trade("3", "100.1"))
    story.now += 1_000
    decision = story.market("99.9", "100.1", size="0.0001")
    assert (decision.place, decision.done) == ((), None)
    assert decision.wake_when
    assert decision.waiting is not None


def test_dust_behind_a_slippage_bound_needs_no_market() -> None:
    story = Story("10.0005", None, max_slippage_bps=Decimal(50))
    story.market("99.9", "100.1")
    assert story.child.quantity == 10
    story.venue("filled", "10", story.trade("10", "100.1"))
    assert story.state.parent.status is OrderStatus.FILLED
    assert "dust" in str(story.state.parent.reason)


def test_numbers_of_a_signal_come_back_from_the_ledger_digit_for_digit() -> None:
    story = Story(metadata={"fair": Decimal("0.1234567890123456789"), "legs": [Decimal("1.10"), 3]})
    kept = exact_json.encode(story.state.parent)
    record = parse_order({b"parent": kept, b"v": b"1"})
    assert record is not None
    assert exact_json.encode(record.parent.metadata) == exact_json.encode(story.state.parent.metadata)


def test_a_record_of_the_first_version_still_works() -> None:
    """Written before there were venues, triggers, plans, roles and tapes."""
    parent = (
        b'{"order_id":"ord_a","signal_id":"s","strategy_id":"m","exchange":"alpha","symbol":"BTC/USDT","side":"buy",'
        b'"quantity":10,"order_type":"limit","price":100.0,"status":"partially_filled","sequence":3,'
        b'"created_at":1,"updated_at":2}'
    )
    child = (
        b'{"child_id":"k1","number":1,"venue":"alpha","symbol":"BTC/USDT","side":"buy","order_type":"limit",'
        b'"quantity":10,"price":100.0,"state":"open","filled":4,"notional":400.0,"created_at":1,"updated_at":2}'
    )
    fill = b'{"trade_id":"t1","child_id":"k1","price":100.0,"quantity":4,"timestamp":2}'
    record = parse_order({b"parent": parent, b"v": b"3", b"c:1": child, b"f:k1:t1": fill, b"k:1": b"0", b"op": b"x"})
    assert record is not None
    state = OrderState.loaded("k", "here", record, RULES)
    direct = ALGORITHMS[record.parent.algorithm]
    plan = msgspec.convert(record.parent.plan, direct.Plan)
    view = View(
        order=state.parent,
        children=state.entries.children,
        live=state.entries.live,
        totals=state.totals,
        rules=RULES,
        now=10,
        memory=msgspec.convert(record.parent.memory, direct.Memory),
        exits=state.exits.children,
    )
    assert decide(direct, plan, view).place == ()
    state.venue_fills(
        state.children[0],
        [
            VenueFill(
                trade_id="t2", symbol="BTC/USDT", side=Side.BUY, price=Decimal(100), quantity=Decimal(6), timestamp=3
            )
        ],
        11,
    )
    assert state.totals.filled == 10
    view = msgspec.structs.replace(view, live=state.entries.live, totals=state.totals)
    assert decide(direct, plan, view).done is not None


# --- brackets ---------------------------------------------------------------------------------------------------------------

HOLDS_STOPS = msgspec.structs.replace(RULES, native=(OrderType.MARKET, OrderType.LIMIT, OrderType.STOP))


def test_an_exit_larger_than_the_venue_takes_is_closed_in_parts() -> None:
    """The largest market order is often smaller than the largest limit order: the stop-loss must still come out."""
    rules = msgspec.structs.replace(RULES, market_max_quantity=Decimal(4))
    story = Story("10", "100", rules=rules, stop_loss=Decimal(90))
    story.step()
    story.market("99", "101")
    story.venue("filled", "10", story.trade("10", "100"))
    story.now += 5_000
    story.market("89", "89.5")
    assert (story.child.tag, story.child.quantity) == ("stop_loss_fired", 4)
    for part in ("4", "4"):
        story.now += 5_000
        story.venue("filled", part, story.trade(part, "89", side=Side.SELL))
    assert story.child.quantity == 2
    story.venue("filled", "2", story.trade("2", "89", side=Side.SELL))
    assert story.state.exits.totals.filled == 10
    assert story.state.over


def test_an_entry_larger_than_one_order_at_the_venue_is_still_protected() -> None:
    """It was amended beyond the largest order: the exits close it one after the other, and do not give up."""
    rules = msgspec.structs.replace(HOLDS_STOPS, max_quantity=Decimal(6))
    story = Story("6", "100", rules=rules, stop_loss=Decimal(90), take_profit=Decimal(120))
    story.step()
    story.market("99", "101")
    story.venue("open")
    story.state.parent.quantity = Decimal(10)
    story.venue("filled", "6", story.trade("6", "100"))
    entry = story.state.entries.children[-1]
    story.venue("filled", "4", story.trade("4", "100"), child=entry)
    assert story.state.parent.status is OrderStatus.FILLED
    story.venue("open")
    story.now += 5_000
    story.step()
    exits = story.state.exits.live
    assert [(child.tag, child.quantity, child.cancel_requested) for child in exits] == [("stop_loss", 6, False)]
    story.venue("filled", "6", story.trade("6", "90", side=Side.SELL))
    assert story.state.parent.protection_ended is None
    assert [child.quantity for child in story.state.exits.live] == [4]


def test_an_exit_that_the_venue_ends_at_once_is_not_placed_without_pause() -> None:
    story = Story("10", "100", rules=HOLDS_STOPS, stop_loss=Decimal(90))
    story.step()
    story.market("99", "101")
    story.venue("filled", "10", story.trade("10", "100"))
    assert story.child.tag == "stop_loss"
    assert story.venue("canceled", "0").place, "somebody took it off by hand: protection comes back at once"
    decision = story.venue("canceled", "0")
    assert decision.place == ()
    assert decision.wake_at is not None
    assert story.at(decision.wake_at).place


def test_a_new_price_does_not_go_beyond_the_exits() -> None:
    story = Story("10", "100", stop_loss=Decimal(95), take_profit=Decimal(110))
    story.step()
    story.venue("open")
    story.amend(price="94")
    assert story.state.parent.price == 100
    assert "stop_loss" in str(story.last.reason)
    story.amend(price="110")
    assert story.state.parent.price == 100
    story.amend(price="99")
    assert story.state.parent.price == 99


# --- triggers, slippage -----------------------------------------------------------------------------------------------------


def test_a_trigger_that_fires_without_a_book_measures_slippage_from_the_market_it_meets() -> None:
    """Not from the price at acceptance, long ago: a stop would never trade."""
    story = Story(
        "10", None, order_type=OrderType.STOP, stop_price=Decimal(110), max_slippage_bps=Decimal(50), algorithm="direct"
    )
    story.market("99.9", "100.1")
    assert story.state.parent.arrival == 100
    known = story.markets["alpha"]
    story.markets["alpha"] = msgspec.structs.replace(known, book=None)
    story.market(last="110.5")
    trigger = story.state.parent.trigger
    assert trigger is not None
    assert trigger.fired_at is not None
    story.now += 1_000
    story.market("110.4", "110.6")
    assert story.state.parent.arrival == Decimal("110.5")
    assert story.child.quantity == 10


# --- waking -----------------------------------------------------------------------------------------------------------------


def test_what_is_too_thin_to_take_wakes_when_the_book_changes() -> None:
    story = Story(
        "10",
        None,
        algorithm="twap",
        params={"duration_seconds": 60, "slices": 1, "style": "aggressive"},
        max_slippage_bps=Decimal(50),
    )
    decision = story.market("99.9", "100.1", size="0.0001")
    assert decision.place == ()
    assert any(when.source == "book" for when in decision.wake_when)


def test_a_venue_that_cannot_be_sent_orders_is_looked_at_again() -> None:
    """Its book may stand still meanwhile."""
    story = Story("10", "100", algorithm="sniper")
    known = story.markets["alpha"]
    story.markets["alpha"] = msgspec.structs.replace(known, usable=False)
    decision = story.market("99.9", "99.95")
    assert decision.place == ()
    assert decision.wake_at is not None


def test_two_orders_of_one_purpose_do_not_both_stay() -> None:
    """One was written off and turned up after all."""
    story = Story("10", "100", algorithm="peg", params={"reference": "touch"})
    story.market("99.9", "100.1")
    first = story.child
    story.void("certainly not there")
    story.now += 60_000
    story.step()
    second = story.child
    assert second is not first
    story.venue("open", child=second)
    story.venue("open", child=first)
    assert story.state.totals.claimed == 20
    assert sum(not child.cancel_requested for child in story.live) == 1


def test_an_order_that_is_sliced_may_grow_beyond_one_order_at_the_venue() -> None:
    story = Story("900", "100", algorithm="twap", params={"duration_seconds": 60})
    story.step()
    story.amend(quantity="1100")
    assert story.state.parent.quantity == 1100


# --- acceptance -------------------------------------------------------------------------------------------------------------


class _History:
    """A venue whose candles never come, or come broken."""

    def __init__(self, *, broken: bool) -> None:
        self.asked = 0
        self._broken = broken

    async def candles(self, *_: Any, **__: Any) -> list[Candle]:
        self.asked += 1
        if self._broken:
            raise KeyError("volume")
        await asyncio.Event().wait()
        return []


async def test_a_history_that_cannot_be_read_is_no_history() -> None:
    """It must not fail every signal that asks for it."""
    histories = Histories({"alpha": _History(broken=True)})  # type: ignore[dict-item]
    for _ in range(2):
        assert await histories.candles("alpha", "BTC/USDT", Lookback(3600, 60)) == ()


async def test_a_slow_history_keeps_signals_once_and_not_each_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("execution.history.PATIENCE", 0.2)
    histories = Histories({"alpha": _History(broken=False)})  # type: ignore[dict-item]
    loop = asyncio.get_running_loop()
    assert await histories.candles("alpha", "BTC/USDT", Lookback(3600, 60)) == ()
    began = loop.time()
    for _ in range(20):
        assert await histories.candles("alpha", "BTC/USDT", Lookback(3600, 60)) == ()
    assert loop.time() - began < 0.2


# --- the market -------------------------------------------------------------------------------------------------------------


def test_a_book_too_old_to_decide_on_is_no_arrival_price() -> None:
    """Slippage would be measured from a price of long ago."""
    clock = [1_000.0]
    market = MarketData({}, now=lambda: 0, monotonic=lambda: clock[0])
    feed = market._feeds[("alpha", "BTC/USDT")] = Feed("alpha", "BTC/USDT")
    levels = (BookLevel(Decimal(99), Decimal(1)),), (BookLevel(Decimal(101), Decimal(1)),)
    feed.take_book(OrderBook(symbol="BTC/USDT", bids=levels[0], asks=levels[1], received_at=1_000.0), 0)
    assert market.mid("alpha", "BTC/USDT") == 100
    clock[0] += 30.0
    assert market.market("alpha", "BTC/USDT", RULES).book is None
    assert market.mid("alpha", "BTC/USDT") is None


def test_a_crossed_book_is_not_decided_upon() -> None:
    """It was put together wrongly: the last whole one counts, until it is too old."""
    clock = [1_000.0]
    market = MarketData({}, now=lambda: 0, monotonic=lambda: clock[0])
    market._feeds[("alpha", "BTC/USDT")] = Feed("alpha", "BTC/USDT")

    def show(bid: int, ask: int) -> None:
        bids, asks = (BookLevel(Decimal(bid), Decimal(1)),), (BookLevel(Decimal(ask), Decimal(1)),)
        market.on_book("alpha", OrderBook(symbol="BTC/USDT", bids=bids, asks=asks, received_at=clock[0]))

    show(99, 101)
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            clock[0] += 0.1
            show(120, 110)
    assert [entry["event"] for entry in logs] == ["a crossed book is left out"]
    assert market.mid("alpha", "BTC/USDT") == 100
    for _ in range(300):
        clock[0] += 0.1
        show(101, 101)
    assert market.mid("alpha", "BTC/USDT") is None
    show(109, 111)
    assert market.mid("alpha", "BTC/USDT") == 110


async def test_a_market_that_fell_off_now_and_then_is_taken_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses grow while it does not come up at all, not over the days."""
    clock, pauses = [0.0], []
    real = asyncio.sleep

    class Venue:
        async def run_market(self, *_: Any) -> None:
            clock[0] += 3_600.0

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await (real(0) if len(pauses) < 5 else asyncio.Event().wait())

    monkeypatch.setattr("execution.market_data.asyncio.sleep", sleep)
    market = MarketData({"alpha": Venue()}, now=lambda: 0, monotonic=lambda: clock[0])  # type: ignore[dict-item]
    market.hold("alpha", "BTC/USDT", "someone")
    while len(pauses) < 5:
        await real(0)
    assert pauses == [1.0] * 5
    await market.close()


@given(
    side=st.sampled_from(Side),
    start=st.decimals("50", "150", places=3),
    activation=st.none() | st.decimals("50", "150", places=3),
    prices=st.lists(st.decimals("50", "150", places=3), min_size=1, max_size=12),
)
@settings(deadline=None, max_examples=200)
def test_a_trailing_stop_is_woken_by_every_price_that_moves_it_and_by_few_others(
    side: Side, start: Decimal, activation: Decimal | None, prices: list[Decimal]
) -> None:
    """Ten thousand of them must not each take a step at every trade."""
    trigger = armed(
        OrderType.TRAILING_STOP,
        stop_price=start * (1 - side.sign * -Decimal("0.05")),
        trail_bps=Decimal(100),
        activation=activation,
        source="last",
        native=False,
    )
    feed = Feed("alpha", "BTC/USDT")
    for price in prices:
        before = Market(venue="alpha", rules=RULES, last=feed.last, session="s")
        whens = until(trigger, OrderType.TRAILING_STOP, side, before)
        feed.last = price
        now = watch(trigger, OrderType.TRAILING_STOP, side, msgspec.structs.replace(before, last=price), 1)
        woken = any(when.source == "trade" or feed.reached(when) for when in whens)
        assert woken or now == trigger
        if trigger.extreme is not None:
            assert woken == (now != trigger)
        trigger = now
        if trigger.fired_at is not None:
            return
