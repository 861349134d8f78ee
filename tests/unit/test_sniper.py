"""Sniper, told as stories: when it acts, for how much, and that nothing rests."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.base import Refusal, When
from algorithms.bounds import depth, worst_price
from schemas.order import OrderStatus
from schemas.terms import Side, TimeInForce
from tests.unit.random_life import STEPS, Step, ends_filled, live_through
from tests.unit.story import Story


def sniper(quantity: str = "10", price: str | None = "100", *, side: Side = Side.BUY, **params: Any) -> Story:
    fields = params.pop("fields", {})
    return Story(quantity, price, algorithm="sniper", side=side, params=params, **fields)


def test_it_waits_for_a_price_within_its_limit() -> None:
    story = sniper()
    decision = story.step()
    assert decision.place == ()
    assert decision.wake_when == (When(source="ask", at_or_below=Decimal(100)),)
    decision = story.market("100", "100.01")
    assert decision.place == ()
    assert "nobody offers enough" in str(decision.waiting)
    (place,) = story.market("99.90", "99.99").place
    assert (place.quantity, place.price, place.time_in_force) == (10, 100, TimeInForce.IOC)


def test_a_seller_waits_for_the_bid() -> None:
    story = sniper(side=Side.SELL, trigger_price=101)
    assert story.step().wake_when == (When(source="bid", at_or_above=Decimal(101)),)
    assert story.market("100.99", "101.10").place == ()
    (place,) = story.market("101", "101.10").place
    assert place.price == 101


def test_it_takes_what_is_visible_within_the_price_and_no_more() -> None:
    story = sniper()
    (place,) = story.market(bids=[("99", "1")], asks=[("99.50", "2"), ("100", "1.5"), ("100.01", "50")]).place
    assert place.quantity == Decimal("3.5")


@pytest.mark.parametrize(("trigger", "price"), [("99", "99"), ("101", "100")])
def test_the_tighter_of_limit_and_trigger_counts(trigger: str, price: str) -> None:
    story = sniper(trigger_price=trigger)
    (place,) = story.market("98", "98.50").place
    assert place.price == Decimal(price)
    assert story.step().wake_when == ()


def test_too_little_is_left_alone() -> None:
    story = sniper(min_quantity=5)
    decision = story.market("99", "99.50", size="4.999")
    assert decision.place == ()
    assert decision.wake_when == (When(source="ask", at_or_below=Decimal(100)),)
    (place,) = story.market("99", "99.50", size="5").place
    assert place.quantity == 5


def test_the_venue_s_minimum_is_the_least_by_default() -> None:
    story = sniper()
    assert story.market("99", "99.50", size="0.099").place == ()
    (place,) = story.market("99", "99.50", size="0.1").place
    assert place.quantity == Decimal("0.1")


def test_for_a_rest_smaller_than_the_least_the_rest_is_enough() -> None:
    story = sniper("2", min_quantity=5)
    (place,) = story.market("99", "99.50", size="2").place
    assert place.quantity == 2


def test_at_most_so_much_at_once_and_a_pause_in_between() -> None:
    story = sniper(max_quantity_per_take=4, lockout_ms=3_000)
    story.market("99", "99.50")
    assert story.child.quantity == 4
    decision = story.venue("filled", "4", story.trade("4", "99.50"))
    assert decision.place == ()
    assert (decision.wake_at, decision.wake_when) == (4_000, ())
    story.now = 3_999
    assert story.market("99", "99.50").place == ()
    (place,) = story.at(4_000).place
    assert place.quantity == 4


def test_a_rest_too_small_to_be_traded_alone_is_taken_along() -> None:
    story = sniper("4.05", max_quantity_per_take=4)
    (place,) = story.market("99", "99.50").place
    assert place.quantity == Decimal("4.05")


def test_what_was_missed_is_tried_again_after_the_lockout_and_on_a_new_book() -> None:
    story = sniper()
    story.market("99", "99.50")
    story.now = 1_100
    story.venue("expired", "0")
    decision = story.at(2_000)
    assert decision.place == (), "the book is the one it took from"
    assert decision.wake_at == 3_000
    story.now = 2_100
    assert len(story.market("99", "99.50").place) == 1


def test_nothing_more_is_sent_while_an_outcome_is_unknown() -> None:
    story = sniper()
    story.market("99", "99.50", size="4")
    story.unknown()
    story.now = 60_000
    decision = story.market("99", "99.50", size="4")
    assert (decision.place, decision.wake_when) == ((), ())


def test_it_may_trade_through_the_trigger_within_the_limit() -> None:
    story = sniper(trigger_price=99, take_through_bps=50)
    assert story.market("98", "99.10").place == (), "the trigger itself does not move"
    (place,) = story.market(bids=[("98", "1")], asks=[("99", "3"), ("99.20", "9")]).place
    assert (place.price, place.quantity) == (Decimal("99.49"), 3)
    story = sniper(price="99.20", trigger_price=99, take_through_bps=50)
    (place,) = story.market("98", "99").place
    assert place.price == Decimal("99.20")


def test_a_market_order_with_a_trigger() -> None:
    story = sniper(price=None, trigger_price=99)
    (place,) = story.market("98", "98.90").place
    assert (place.price, place.time_in_force) == (99, TimeInForce.IOC)


def test_the_slippage_bound_is_a_limit_too() -> None:
    story = sniper(fields={"max_slippage_bps": Decimal(10)})
    story.market("97.99", "98.01")
    assert story.child.price == Decimal("98.09")  # 10 bps above the arrival price of 98
    story.venue("expired", "0")
    story.now = 9_000
    assert story.market("98.50", "98.60").place == ()


def test_its_time_ends() -> None:
    story = sniper(duration_seconds=10)
    assert story.step().wake_at == 11_000
    story.now = 5_000
    story.market("99", "99.50", size="4")
    story.venue("filled", "4", story.trade("4", "99.50"))
    story.at(11_000)
    assert (story.last.status, story.last.reason) == (OrderStatus.EXPIRED, "its time is over: 6 left")


def test_its_end_waits_for_what_is_under_way() -> None:
    story = sniper(duration_seconds=10)
    story.now = 10_900
    story.market("99", "99.50")
    assert story.at(12_000).done is None
    story.venue("filled", "10", story.trade("10", "99.50"))
    assert story.last.status is OrderStatus.FILLED


@pytest.mark.parametrize(
    ("params", "fields", "field"),
    [
        ({"price": None}, {}, "algorithm_params.trigger_price"),
        ({"max_quantity_per_take": "0.05"}, {}, "algorithm_params.max_quantity_per_take"),
        ({"min_quantity": 0}, {}, "algorithm_params.min_quantity"),
        ({}, {"post_only": True}, "post_only"),
        ({}, {"time_in_force": TimeInForce.FOK}, "time_in_force"),
    ],
)
def test_what_cannot_be(params: dict[str, Any], fields: dict[str, Any], field: str) -> None:
    with pytest.raises(Refusal) as refusal:
        sniper(**params, fields=fields)
    assert refusal.value.field == field


@settings(deadline=None, max_examples=200)
@given(
    steps=STEPS,
    side=st.sampled_from(Side),
    params=st.fixed_dictionaries(
        {},
        optional={
            "trigger_price": st.sampled_from([99, 100, 101]),
            "min_quantity": st.integers(1, 9),
            "max_quantity_per_take": st.integers(1, 9),
            "lockout_ms": st.sampled_from([0, 500, 5000]),
            "take_through_bps": st.integers(0, 50),
        },
    ),
)
def test_any_life(steps: list[Step], side: Side, params: dict[str, Any]) -> None:
    story = sniper("7.3333", side=side, **params)
    known = 0

    def only_takes_what_is_there(story: Story) -> None:
        nonlocal known
        children = story.state.children
        if len(children) > known:
            assert len(children) == known + 1
            child, book = children[-1], story.markets["alpha"].book
            assert child.time_in_force is TimeInForce.IOC
            assert book is not None
            bound = worst_price(story.state.parent, Decimal(params.get("trigger_price", story.state.parent.price)))
            assert child.quantity <= depth(book.opposite(side), side, bound)
            if known:
                assert child.created_at - children[-2].created_at >= params.get("lockout_ms", 1000)
        known = len(children)
        assert len(story.live) <= 1

    live_through(story, steps, only_takes_what_is_there)
    if "trigger_price" not in params and not story.state.over:
        ends_filled(story)
