"""Stops, take-profits and trailing stops that the service watches, told as stories."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.base import Market, When
from algorithms.trigger import armed, until, watch
from schemas.market import BookLevel, OrderBook
from schemas.order import OrderStatus
from schemas.terms import OrderType, Side, TimeInForce
from tests.unit.story import RULES, Story

STOP, PROFIT, TRAIL = OrderType.STOP, OrderType.TAKE_PROFIT, OrderType.TRAILING_STOP


def stop(kind: OrderType = STOP, at: str | None = "100", *, side: Side = Side.SELL, **fields: Any) -> Story:
    return Story(
        fields.pop("quantity", "10"),
        fields.pop("price", None),
        order_type=kind,
        stop_price=Decimal(at) if at is not None else None,
        side=side,
        **fields,
    )


def trailing(bps: int = 100, *, side: Side = Side.SELL, activation: str | None = None, **fields: Any) -> Story:
    params = {"trail_bps": bps, **({"activation_price": activation} if activation is not None else {})}
    return stop(TRAIL, None, side=side, params=params, **fields)


def fired(story: Story) -> bool:
    trigger = story.state.parent.trigger
    assert trigger is not None
    return trigger.fired_at is not None


# --- when it fires ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "side", "waits", "fires"),
    [
        (STOP, Side.SELL, "100.01", "100"),
        (STOP, Side.SELL, "100.01", "90"),
        (STOP, Side.BUY, "99.99", "100"),
        (STOP, Side.BUY, "99.99", "110"),
        (PROFIT, Side.SELL, "99.99", "100"),
        (PROFIT, Side.BUY, "100.01", "100"),
    ],
)
def test_it_fires_at_its_price_and_not_before(kind: OrderType, side: Side, waits: str, fires: str) -> None:
    story = stop(kind, side=side)
    story.step()
    assert story.market("95", "105", last=waits).place == ()
    assert not fired(story)
    (place,) = story.market(last=fires).place
    assert (place.order_type, place.quantity) == (OrderType.MARKET, Decimal(10))
    trigger = story.state.parent.trigger
    assert trigger is not None
    assert (trigger.fired_at, trigger.fired_price) == (story.now, Decimal(fires))
    assert f"reached at {fires}" in str([event.reason for event in story.events])


@pytest.mark.parametrize("kind", [OrderType.STOP_LIMIT, OrderType.TAKE_PROFIT_LIMIT])
def test_with_a_limit_it_rests_at_the_limit_once_fired(kind: OrderType) -> None:
    story = stop(kind, price="99", side=Side.SELL)
    (place,) = story.market("99.9", "100.1", last="100").place
    assert (place.order_type, place.price) == (OrderType.LIMIT, Decimal(99))


@pytest.mark.parametrize(
    ("source", "side", "book"),
    [
        ("mid", Side.SELL, ("99.9", "100.1")),
        ("mid", Side.BUY, ("99.9", "100.1")),
        ("touch", Side.SELL, ("100", "104")),
        ("touch", Side.BUY, ("96", "100")),
    ],
)
def test_the_price_that_counts_is_the_one_named(source: str, side: Side, book: tuple[str, str]) -> None:
    story = stop(source=source, side=side)
    away = ("103", "103.2") if side is Side.SELL else ("96.8", "97")
    assert story.market(*away, last="100").place == (), "the last trade does not count"
    assert story.market(*book, last=away[0]).place != ()


def test_a_trade_does_not_fire_what_counts_the_book_and_a_missing_book_fires_nothing() -> None:
    story = stop(source="touch")
    story.step()
    assert story.market(last="50").place == ()
    assert story.market(ask="50").place == (), "a sell trades at the bid, and there is none"
    assert not fired(story)


def test_without_a_market_it_waits_and_says_for_what() -> None:
    story = stop()
    decision = story.step()
    assert (decision.place, decision.trigger) == ((), None)
    assert "100" in str(story.state.parent.waiting)
    assert decision.wake_when == (
        When(source="last", at_or_below=Decimal(100)),
        When(source="mid", at_or_below=Decimal(100)),
    )


def test_a_venue_that_shows_no_trades_fires_it_by_the_mid() -> None:
    story = stop()
    assert story.market("100.5", "101.5").place == ()
    story.market("99", "100.9")
    assert story.state.parent.trigger is not None
    assert story.state.parent.trigger.fired_price == Decimal("99.95")


@pytest.mark.parametrize(
    ("kind", "side", "source", "bound"),
    [
        (STOP, Side.BUY, "ask", "at_or_above"),
        (STOP, Side.SELL, "bid", "at_or_below"),
        (PROFIT, Side.BUY, "ask", "at_or_below"),
        (PROFIT, Side.SELL, "bid", "at_or_above"),
    ],
)
def test_it_asks_to_be_woken_by_what_fires_it(kind: OrderType, side: Side, source: str, bound: str) -> None:
    story = stop(kind, side=side, source="touch")
    (when,) = story.step().wake_when
    assert (when.source, getattr(when, bound)) == (source, Decimal(100))


@given(
    st.sampled_from((STOP, PROFIT)),
    st.sampled_from(Side),
    st.sampled_from(("last", "mid", "touch")),
    st.integers(9_000, 11_000),
    st.lists(st.tuples(st.integers(9_000, 11_000), st.integers(1, 50), st.integers(9_000, 11_000)), max_size=20),
)
@settings(deadline=None, max_examples=150)
def test_what_wakes_it_is_what_fires_it(
    kind: OrderType, side: Side, source: str, at: int, prices: list[tuple[int, int, int]]
) -> None:
    """At every market the bound it asks to be woken by holds exactly when it fires."""
    trigger = armed(kind, stop_price=Decimal(at) / 100, trail_bps=None, activation=None, source=source, native=False)
    for middle, half, last in prices:
        shown = market(middle, half, last)
        (when,) = until(trigger, kind, side, shown)
        seen = {"bid": shown.bid, "ask": shown.ask, "mid": shown.mid, "last": shown.last}[when.source]
        assert seen is not None
        woken = (when.at_or_below is not None and seen <= when.at_or_below) or (
            when.at_or_above is not None and seen >= when.at_or_above
        )
        now = watch(trigger, kind, side, shown, 5)
        assert (now.fired_at is not None) is woken
        if not woken:
            assert now == trigger


def market(middle: int, half: int, last: int | None = None) -> Market:
    bid, ask = Decimal(middle - half) / 100, Decimal(middle + half) / 100
    book = OrderBook(
        symbol="BTC/USDT",
        bids=(BookLevel(bid, Decimal(1)),),
        asks=(BookLevel(ask, Decimal(1)),),
        received_at=0.0,
    )
    return Market(venue="alpha", rules=RULES, book=book, last=Decimal(last) / 100 if last is not None else None)


# --- trailing --------------------------------------------------------------------------------------------------------


def test_a_trailing_sell_follows_the_highest_price_and_fires_below_it() -> None:
    story = trailing(100)
    story.market("99.9", "100.1", last="100")
    assert story.state.parent.trigger is not None
    assert story.state.parent.trigger.price == 99
    story.market(last="110")
    assert story.state.parent.trigger.price == Decimal("108.9")
    assert story.market(last="109").place == ()
    assert story.state.parent.trigger.price == Decimal("108.9"), "it never moves back"
    assert story.market("108.8", "109", last="108.9").place[0].order_type is OrderType.MARKET
    assert story.state.parent.trigger.fired_price == Decimal("108.9")


@pytest.mark.parametrize(("side", "first", "still"), [(Side.SELL, "99.5", "110"), (Side.BUY, "100.5", "90")])
def test_a_stop_price_given_is_left_only_for_a_better_one(side: Side, first: str, still: str) -> None:
    story = stop(TRAIL, first, side=side, params={"trail_bps": 100})
    story.market("99.9", "100.1", last="100")
    assert story.state.parent.trigger is not None
    assert story.state.parent.trigger.price == Decimal(first)
    story.market(last=still)
    assert story.state.parent.trigger.price == Decimal(still) * (1 + side.sign * Decimal("0.01"))


def test_a_trailing_buy_is_its_mirror() -> None:
    story = trailing(100, side=Side.BUY)
    story.market("99.9", "100.1", last="100")
    story.market(last="90")
    assert story.state.parent.trigger is not None
    assert story.state.parent.trigger.price == Decimal("90.9")
    assert story.market(last="90.8").place == ()
    assert story.market(last="90.9").place != ()


@pytest.mark.parametrize(("side", "before", "active"), [(Side.SELL, "104.99", "105"), (Side.BUY, "95.01", "95")])
def test_until_its_activation_it_does_not_trail(side: Side, before: str, active: str) -> None:
    story = trailing(100, side=side, activation="105" if side is Side.SELL else "95")
    for price in ("100", "101", "99", before):
        assert story.market("99", "101", last=price).place == ()
        assert story.state.parent.trigger is not None
        assert story.state.parent.trigger.price is None
    assert "activation" in str(story.state.parent.waiting)
    story.market(last=active)
    assert story.state.parent.trigger.price == Decimal(active) * (1 + side.sign * Decimal("0.01"))


def test_a_move_below_a_basis_point_is_not_written_down() -> None:
    story = trailing(100)
    story.market("99.9", "100.1", last="100")
    assert story.market(last="100.005").trigger is None
    assert story.market(last="100.01").trigger is not None


prices = st.lists(st.integers(5_000, 20_000), min_size=1, max_size=40)


@given(st.sampled_from(Side), st.integers(1, 5_000), st.none() | st.integers(9_000, 11_000), prices)
@settings(deadline=None, max_examples=200)
def test_a_trail_only_moves_one_way_and_fires_once(
    side: Side, bps: int, activation: int | None, path: list[int]
) -> None:
    start = Decimal(activation) / 100 if activation is not None else None
    trigger = armed(TRAIL, stop_price=None, trail_bps=Decimal(bps), activation=start, source="last", native=False)
    best: Decimal | None = None
    for index, price in enumerate(path):
        seen = Decimal(price) / 100
        before, trigger = trigger, watch(trigger, TRAIL, side, market(price, 1, price), index)
        if before.fired_at is not None:
            assert trigger == before, "fired once"
            continue
        if start is not None and best is None and (seen - start) * side.sign > 0:
            assert trigger == before
            continue
        best = seen if best is None else max(best, seen) if side is Side.SELL else min(best, seen)
        assert trigger.price is not None
        if before.price is not None:
            assert (trigger.price - before.price) * side.sign <= 0, "moved back"
        exact = best * (1 + side.sign * Decimal(bps) / 10_000)
        # Moves of less than a basis point of the best price are left out.
        assert abs(trigger.price - exact) <= best * Decimal("0.00011")
        assert (trigger.fired_at is not None) is ((seen - trigger.price) * side.sign >= 0)


# --- waiting, and what comes after -----------------------------------------------------------------------------------


def test_it_fires_once_though_the_price_goes_back() -> None:
    story = stop()
    story.market("99.9", "100.1", last="100")
    child = story.child
    trigger = story.state.parent.trigger
    story.now += 1_000
    assert story.market("109.9", "110.1", last="110").place == ()
    assert story.state.parent.trigger == trigger
    story.venue("filled", "10", story.trade("10"), child=child)
    assert story.state.parent.status is OrderStatus.FILLED
    assert [reason for reason in story.told if reason == "amended"] == ["amended"]


def test_the_arrival_price_is_that_of_the_firing() -> None:
    story = stop()
    story.market("104.9", "105.1", last="105")
    assert story.state.parent.arrival == 105
    story.now += 1_000
    story.market("99.8", "100", last="100")
    assert (story.state.parent.arrival, story.state.parent.arrival_at) == (Decimal("99.9"), story.now)


def test_a_slippage_bound_is_measured_from_the_firing() -> None:
    """5 % below the price at acceptance, within the bound of the price at which it fired."""
    story = stop(max_slippage_bps=Decimal(20), slippage_policy="end")
    story.market("104.9", "105.1", last="105")
    story.now += 1_000
    story.market("99.9", "100.1", last="100")
    assert not story.state.parent.status.terminal
    assert story.child.price == Decimal("99.8")


def test_canceled_while_it_waits() -> None:
    story = stop()
    story.market("104.9", "105.1", last="105")
    assert story.cancel("enough").done is not None
    assert (story.last.status, story.last.reason, story.state.children) == (OrderStatus.CANCELED, "enough", [])


def test_its_time_runs_out_while_it_waits() -> None:
    story = stop(expires_at=5_000)
    assert story.market("104.9", "105.1", last="105").wake_at == 5_000
    story.now = 5_000
    story.market(last="90")
    assert story.last.status is OrderStatus.EXPIRED
    assert "trigger" in str(story.last.reason)


def test_paused_it_does_not_fire_and_resumed_it_fires_if_the_price_is_still_there() -> None:
    story = stop()
    story.market("104.9", "105.1", last="105")
    story.state.pause(True, None, story.now)
    assert story.market("94.9", "95.1", last="95").place == ()
    assert not fired(story)
    story.state.pause(False, None, story.now)
    assert story.step().place != ()


def test_an_amended_stop_price_is_the_one_that_counts() -> None:
    story = stop()
    story.market("104.9", "105.1", last="105")
    story.amend(stop_price="95")
    assert story.market(last="96").place == ()
    assert story.market(last="95").place != ()
    story.amend(stop_price="90")
    assert story.last.field == "stop_price", "it has been reached already"


def test_a_stop_of_a_twap_begins_its_schedule_when_it_fires() -> None:
    params = {"duration_seconds": 200, "slices": 20, "style": "aggressive"}
    story = stop(algorithm="twap", params=params, quantity="100")
    story.market("104.9", "105.1", last="105")
    story.now = 501_000
    assert story.market("104.9", "105.1", last="105").place == ()
    (place,) = story.market("99.9", "100.1", last="100").place
    assert (place.quantity, place.time_in_force) == (Decimal(5), TimeInForce.IOC)
    assert story.algorithm.schedule(story.plan, story.state.parent)[0] == (501_000, Decimal(0))
    assert story.decision.wake_at == 511_000


@pytest.mark.parametrize(
    ("kind", "price", "params", "expected"),
    [
        (STOP, None, {}, (Decimal(100), None, None)),
        (PROFIT, None, {}, (Decimal(100), None, None)),
        (OrderType.STOP_LIMIT, "99", {}, (Decimal(100), None, Decimal(99))),
        (TRAIL, None, {"trail_bps": 50}, (None, Decimal(50), None)),
    ],
)
def test_the_venue_s_own_is_placed_at_once(
    kind: OrderType, price: str | None, params: dict[str, Any], expected: tuple[Decimal | None, ...]
) -> None:
    story = stop(kind, None if kind is TRAIL else "100", price=price, params=params, native=True)
    (place,) = story.step().place
    assert place.order_type is kind
    assert (place.stop_price, place.trail_bps, place.price) == expected
    story.venue("open")
    assert story.market("89.9", "90.1", last="90").place == (), "the venue fires it, not the service"
    story.venue("filled", "10", story.trade("10", "90"))
    assert story.last.status is OrderStatus.FILLED


def test_an_amended_trail_counts_from_the_next_price_on() -> None:
    story = Story(
        "1",
        None,
        order_type=OrderType.TRAILING_STOP,
        side=Side.SELL,
        params={"trail_bps": Decimal(100)},
    )
    story.market("99.9", "100.1", last="100")
    assert story.state.parent.trigger is not None
    assert story.state.parent.trigger.price == 99
    story.amend(algorithm_params={"trail_bps": Decimal(50)})
    assert story.last.event_type == "order.amended"
    assert story.state.parent.trigger.price == 99
    story.market("100.9", "101.1", last="101")
    assert story.state.parent.trigger.price == Decimal("100.495")
