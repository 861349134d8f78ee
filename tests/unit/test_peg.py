"""Peg, told as stories: where it rests, when it moves, how it ends."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.base import Refusal, When
from execution.market_data import Feed
from schemas.order import ChildState, OrderStatus
from schemas.terms import OrderType, Side, TimeInForce
from tests.unit.random_life import STEPS, Step, ends_filled, live_through
from tests.unit.story import Story


def pegged(price: str | None = "100", quantity: str = "10", *, side: Side = Side.BUY, **params: Any) -> Story:
    fields = params.pop("fields", {})
    return Story(quantity, price, algorithm="peg", side=side, params=params, **fields)


def resting(price: str | None = "100", bid: str = "99", ask: str = "99.10", **params: Any) -> Story:
    """An order open at the venue since 1000."""
    story = pegged(price, **params)
    story.market(bid, ask)
    story.venue("open")
    return story


def moved(story: Story, price: str) -> None:
    """The order there is cancelled, and after its end one at the new price is placed."""
    (cancel,) = story.decision.cancel
    assert story.decision.place == ()
    assert cancel.child_id == story.child.child_id
    (place,) = story.venue("canceled", f"{story.child.executed}").place
    assert place.price == Decimal(price)


@pytest.mark.parametrize(
    ("side", "params", "price"),
    [
        (Side.BUY, {}, "99"),
        (Side.SELL, {}, "99.10"),
        (Side.BUY, {"offset_bps": 10}, "98.90"),
        (Side.SELL, {"offset_bps": 10}, "99.20"),
        (Side.BUY, {"offset_ticks": 3}, "98.97"),
        (Side.SELL, {"offset_ticks": -3}, "99.07"),
        (Side.BUY, {"reference": "mid"}, "99.05"),
        (Side.BUY, {"reference": "opposite"}, "99.09"),
        (Side.SELL, {"reference": "opposite"}, "99.01"),
        (Side.BUY, {"reference": "opposite", "post_only": False}, "99.10"),
        (Side.BUY, {"reference": "opposite", "offset_ticks": 4}, "99.06"),
    ],
)
def test_where_it_rests(side: Side, params: dict[str, Any], price: str) -> None:
    story = pegged("100" if side is Side.BUY else "98", side=side, **params)
    (place,) = story.market("99", "99.10").place
    assert (place.price, place.quantity) == (Decimal(price), 10)
    assert place.post_only is params.get("post_only", True)


def test_nothing_is_placed_while_the_market_is_not_known() -> None:
    story = pegged()
    decision = story.step()
    assert decision.place == ()
    assert "is not known" in str(decision.waiting)
    assert decision.wake_when == (When(source="book"),)


def test_what_rests_is_left_alone_when_the_market_is_lost() -> None:
    story = resting()
    story.markets["alpha"] = type(story.markets["alpha"])(venue="alpha", rules=story.rules["alpha"])
    decision = story.at(60_000)
    assert (decision.cancel, decision.waiting) == ((), None)


def test_it_moves_when_the_price_has_moved_and_the_interval_has_passed() -> None:
    story = resting()
    story.now = 1_200
    decision = story.market("99.20", "99.30")
    assert decision.cancel == ()
    assert decision.wake_at == 1_500
    story.at(1_500)
    moved(story, "99.20")


def test_it_does_not_move_for_less_than_the_threshold() -> None:
    story = resting(requote_bps=5)  # 0.0495 at 99: five ticks
    story.now = 5_000
    decision = story.market("99.04", "99.10")
    assert decision.cancel == ()
    (when,) = decision.wake_when
    assert (when.source, when.at_or_above) == ("bid", Decimal("99.05"))
    assert when.at_or_below is not None
    assert Decimal("98.95") <= when.at_or_below < Decimal("98.96")
    story.market("99.05", "99.10")
    moved(story, "99.05")


@pytest.mark.parametrize("side", list(Side))
@pytest.mark.parametrize(
    "params", [{}, {"offset_bps": 7}, {"offset_ticks": 2}, {"reference": "mid"}, {"offset_bps": -3}]
)
def test_it_is_woken_exactly_when_it_would_move(side: Side, params: dict[str, Any]) -> None:
    for ticks in range(-12, 13):
        story = pegged("200" if side is Side.BUY else "1", side=side, requote_bps=6, **params)
        story.market("99", "99.40")
        story.venue("open")
        story.now = 9_000
        (when, *_) = [when for when in story.step().wake_when if when.source in ("bid", "ask", "mid")]
        shift = ticks * Decimal("0.01")
        decision = story.market(f"{99 + shift}", f"{Decimal('99.40') + shift}")
        market = story.markets["alpha"]
        price = {"bid": market.bid, "ask": market.ask, "mid": market.mid}[when.source]
        assert price is not None
        above, below = when.at_or_above, when.at_or_below
        woken = (above is not None and price >= above) or (below is not None and price <= below)
        assert woken is bool(decision.cancel), (ticks, when, price)


def test_a_parent_that_waits_is_not_woken_by_prices_it_cannot_follow() -> None:
    story = resting("99")  # at its limit, the market above
    story.now = 9_000
    decision = story.market("99.50", "99.60")
    (when,) = decision.wake_when
    assert when.at_or_above is None
    assert when.at_or_below is not None
    assert when.at_or_below < 99


def test_it_does_not_follow_itself() -> None:
    story = pegged(offset_ticks=-1)
    story.market("99", "99.10")
    assert story.child.price == Decimal("99.01")
    story.venue("open")
    story.now = 5_000
    assert story.market(bids=[("99.01", "10"), ("99", "5")], asks=[("99.10", "5")]).cancel == ()
    story.market(bids=[("99.01", "12"), ("99", "5")], asks=[("99.10", "5")])
    moved(story, "99.02")
    # The book still shows the order that has just ended.
    story.venue("open")
    assert story.child.price == Decimal("99.02")


def test_a_book_from_before_the_order_does_not_contain_it() -> None:
    story = pegged()
    story.market(bids=[("99", "5"), ("98.50", "5")], asks=[("99.10", "5")])
    story.venue("open")
    assert story.at(5_000).cancel == (), "the five are the others'"


def test_left_alone_at_the_touch_it_goes_back_to_the_others() -> None:
    story = resting()
    story.now = 5_000
    assert story.step().wake_at == 10_000, "no price tells when the others leave"
    story.market(bids=[("99", "10"), ("98.50", "5")], asks=[("99.10", "5")])
    moved(story, "98.50")


def test_the_limit_holds() -> None:
    story = pegged("98.50")
    (place,) = story.market("99", "99.10").place
    assert place.price == Decimal("98.50")


def test_a_tightened_limit_holds_at_once() -> None:
    story = resting()
    story.amend(price="98")
    moved(story, "98")


def test_the_slippage_bound_holds() -> None:
    story = pegged(None, fields={"max_slippage_bps": Decimal(10)})
    story.market("99", "99.10")  # arrival 99.05
    story.venue("open")
    story.now = 5_000
    story.market("100", "100.10")
    moved(story, "99.14")


def test_a_part_filled_moves_with_its_rest() -> None:
    story = resting()
    story.venue("open", "4", story.trade("4", "99"))
    story.now = 5_000
    story.market("99.20", "99.30")
    story.venue("canceled", "4")
    assert (story.child.quantity, story.child.price) == (6, Decimal("99.20"))
    story.venue("filled", "6", story.trade("6", "99.20"))
    assert story.last.status is OrderStatus.FILLED


def test_it_does_not_move_twice_while_the_cancel_is_under_way() -> None:
    story = resting()
    story.now = 5_000
    assert len(story.market("99.20", "99.30").cancel) == 1
    decision = story.market("99.30", "99.40")
    assert (decision.cancel, decision.place) == ((), ())
    (place,) = story.venue("canceled", "0").place
    assert place.price == Decimal("99.30")


@pytest.mark.parametrize(("side", "furthest"), [(Side.BUY, "100.05"), (Side.SELL, "99.95")])
def test_the_chase_waits_at_its_furthest(side: Side, furthest: str) -> None:
    story = pegged("200" if side is Side.BUY else "1", side=side, max_distance_bps=5)
    story.market("99.99", "100.01")
    story.venue("open")
    story.now = 5_000
    away = Decimal(side.sign)
    story.market(f"{Decimal('99.99') + away}", f"{Decimal('100.01') + away}")
    moved(story, furthest)
    story.venue("open")
    story.now = 9_000
    story.market("99.99", "100.01")
    moved(story, "99.99" if side is Side.BUY else "100.01")


def test_the_chase_ends_at_its_furthest() -> None:
    story = resting(max_distance_bps=5, at_max="end")
    story.now = 5_000
    story.market("99.05", "99.15")
    moved(story, "99.05")
    story.venue("open")
    decision = story.at(9_000)
    assert When(source="bid", at_or_above=Decimal("99.099525")) in decision.wake_when
    assert len(story.market("99.20", "99.30").cancel) == 1
    story.venue("canceled", "0")
    assert story.last.status is OrderStatus.CANCELED
    assert "15.14 bps" in str(story.last.reason)


def test_the_chase_is_measured_from_where_the_trigger_fired() -> None:
    story = pegged(
        None,
        max_distance_bps=5,
        at_max="end",
        duration_seconds=10,
        fields={"order_type": OrderType.STOP, "stop_price": Decimal(110)},
    )
    story.market("99", "99.10", last="99")
    story.now = 50_000
    (place,) = story.market("110", "110.10", last="110").place
    assert place.price == 110
    assert story.venue("open").done is None
    assert len(story.at(60_000).cancel) == 1, "its duration began when the trigger fired"


@pytest.mark.parametrize("how", ["rejected", "expired", "canceled"])
def test_a_maker_that_the_venue_does_not_keep_is_paced_and_steps_back(how: str) -> None:
    story = pegged()
    story.market("99", "99.01")
    prices, pauses = [], []
    for _ in range(12):
        prices.append(story.child.price)
        if how == "rejected":
            story.state.rejected(story.child, "would have taken", story.now, would_take=True)
            decision = story.step()
        else:
            decision = story.venue(how, "0")
        assert decision.place == (), "not at once"
        assert decision.wake_at is not None
        pauses.append(decision.wake_at - story.now)
        assert len(story.at(decision.wake_at).place) == 1
    assert prices == [Decimal(99)] * 5 + [Decimal("98.99")] * 5 + [Decimal("98.98")] * 2
    assert pauses == [500] * 4 + [1000] * 5 + [2000] * 3


def test_a_void_order_is_no_maker_refused() -> None:
    story = pegged()
    story.market("99", "99.01")
    story.unknown()
    story.void()
    story.at(10_000)
    assert story.child.price == 99


def test_its_time_ends_with_the_rest_untraded() -> None:
    story = resting(duration_seconds=60)
    story.venue("open", "4", story.trade("4", "99"))
    assert story.at(60_999).cancel == ()
    assert len(story.at(61_000).cancel) == 1
    story.venue("canceled", "4")
    assert (story.last.status, story.last.reason) == (OrderStatus.EXPIRED, "its time is over: 6 left")


@pytest.mark.parametrize(("seconds", "begins"), [(20, 19_000), (100, 96_000), (1, 1_000)])
def test_it_crosses_before_its_end(seconds: int, begins: int) -> None:
    story = pegged(duration_seconds=seconds, at_end="cross")
    story.market("99", "99.10")
    if begins > story.now:
        story.venue("open")
        story.now = begins - 1
        assert story.market("99", "99.10").cancel == ()
        story.now = begins
        assert len(story.market("99", "99.10").cancel) == 1
        story.venue("canceled", "3", story.trade("3", "99"))
    place = story.child
    assert (place.time_in_force, place.price, place.post_only) == (TimeInForce.IOC, 100, False)
    assert place.quantity == (7 if begins > 1_000 else 10)
    story.venue("filled", None, story.trade(f"{place.quantity}", "99.10"))
    assert story.last.status is OrderStatus.FILLED


def test_crossing_stops_at_the_limit_and_the_end() -> None:
    story = resting("99.05", duration_seconds=20, at_end="cross")
    assert story.at(19_500).wake_at == 21_000
    decision = story.venue("canceled", "0")
    assert decision.place == ()
    assert "beyond the limit" in str(decision.waiting)
    story.at(21_000)
    assert story.last.status is OrderStatus.EXPIRED


def test_crossing_by_the_expiry_of_the_signal() -> None:
    story = resting(at_end="cross", fields={"expires_at": 101_000})
    assert story.at(95_999).cancel == ()
    assert len(story.at(96_000).cancel) == 1


@pytest.mark.parametrize(
    ("params", "fields", "field"),
    [
        ({"offset_bps": 1, "offset_ticks": 1}, {}, "algorithm_params"),
        ({"at_end": "cross"}, {}, "algorithm_params.at_end"),
        ({"at_end": "cross", "duration_seconds": 9}, {"post_only": True}, "algorithm_params.at_end"),
        ({}, {"time_in_force": TimeInForce.IOC}, "time_in_force"),
        ({"reference": "best"}, {}, "algorithm_params.reference"),
        ({"max_distance_bps": 0}, {}, "algorithm_params.max_distance_bps"),
    ],
)
def test_what_cannot_be(params: dict[str, Any], fields: dict[str, Any], field: str) -> None:
    with pytest.raises(Refusal) as refusal:
        pegged(**params, fields=fields)
    assert refusal.value.field == field


def test_amended_parameters_take_hold() -> None:
    story = resting()
    parameters = story.algorithm.Parameters.model_validate({"offset_ticks": 5})
    story.plan = story.algorithm.plan(story.state.parent, parameters, story.state.rules, ())
    story.at(5_000)
    moved(story, "98.95")


@settings(deadline=None, max_examples=200)
@given(
    steps=STEPS,
    side=st.sampled_from(Side),
    params=st.fixed_dictionaries(
        {},
        optional={
            "reference": st.sampled_from(["touch", "mid", "opposite"]),
            "offset_ticks": st.integers(-5, 20),
            "requote_bps": st.integers(0, 30),
            "min_interval_ms": st.sampled_from([50, 500, 5000]),
            "post_only": st.booleans(),
        },
    ),
    max_slippage_bps=st.one_of(st.none(), st.integers(1, 100)),
)
def test_any_life(steps: list[Step], side: Side, params: dict[str, Any], max_slippage_bps: int | None) -> None:
    slippage = Decimal(max_slippage_bps) if max_slippage_bps is not None else None
    story = pegged("100", "7.3333", side=side, **params, fields={"max_slippage_bps": slippage})

    def one_at_a_time(story: Story) -> None:
        assert len(story.live) <= 1

    live_through(story, steps, one_at_a_time)
    if slippage is None and not story.state.over:
        ends_filled(story)


@settings(deadline=None, max_examples=100)
@given(steps=STEPS, distance=st.integers(1, 200), at_max=st.sampled_from(["wait", "end"]), end=st.booleans())
def test_any_life_of_a_market_order(steps: list[Step], distance: int, at_max: str, end: bool) -> None:
    params: dict[str, Any] = {"max_distance_bps": distance, "at_max": at_max}
    if end:
        params |= {"duration_seconds": 60, "at_end": "cross"}
    story = pegged(None, "5", **params)

    def near_the_arrival(story: Story) -> None:
        for child in story.live:
            if child.tag == "peg" and child.state is not ChildState.UNKNOWN:
                arrival = story.state.parent.arrival
                assert arrival is not None
                assert child.price is not None
                assert child.price <= arrival * (1 + Decimal(distance) / 10_000)

    live_through(story, steps, near_the_arrival)
    if end and not story.state.over:
        story.state.pause(False, None, story.now)
        story.at(1_000_000)
        for child in list(story.live):
            story.venue("canceled", f"{child.executed}", child=child)
        assert story.state.over


@settings(deadline=None, max_examples=200)
@given(
    side=st.sampled_from(Side),
    params=st.fixed_dictionaries(
        {},
        optional={
            "reference": st.sampled_from(["touch", "mid", "opposite"]),
            "offset_ticks": st.integers(-5, 20),
            "requote_bps": st.integers(0, 30),
            "max_distance_bps": st.integers(1, 100),
            "at_max": st.sampled_from(["wait", "end"]),
            "post_only": st.booleans(),
        },
    ),
    limit=st.sampled_from(["99.90", "100", "100.10", None]),
    books=st.lists(
        st.tuples(st.integers(-60, 60), st.integers(1, 30), st.sampled_from([1, 100, 400, 1000])), max_size=20
    ),
)
def test_a_book_that_does_not_wake_it_would_have_changed_nothing(
    side: Side, params: dict[str, Any], limit: str | None, books: list[tuple[int, int, int]]
) -> None:
    story = pegged(limit, side=side, **params)
    feed = Feed("alpha", "BTC/USDT")
    story.market("99.99", "100.01")
    for shift, spread, passed in books:
        if story.state.over:
            break
        child = story.child
        if child in story.live:
            story.venue("canceled" if child.cancel_requested else "open", "0")
        before = story.step()
        story.now += passed
        bid = Decimal(100) + shift * Decimal("0.01")
        story.market(f"{bid}", f"{bid + spread * Decimal('0.01')}", step=False)
        feed.book = story.markets["alpha"].book
        due = before.wake_at is not None and story.now >= before.wake_at
        if not due and not any(when.source == "book" or feed.reached(when) for when in before.wake_when):
            decision = story.step()
            assert (decision.place, decision.cancel) == ((), ())
        else:
            story.step()
