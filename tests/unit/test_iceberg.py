"""Iceberg, told as stories: what is shown, when the next part is, and what a restart leaves as it was."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.base import Refusal
from algorithms.iceberg import shown_size
from schemas.order import OrderStatus
from schemas.terms import OrderType, Side, TimeInForce
from tests.unit.random_life import STEPS, Step, ends_filled, live_through
from tests.unit.story import RULES, Story

NATIVE = msgspec.structs.replace(RULES, native_iceberg=True)


def iceberg(quantity: str = "10", price: str | None = "100", *, side: Side = Side.BUY, **params: Any) -> Story:
    fields = params.pop("fields", {})
    return Story(quantity, price, algorithm="iceberg", side=side, params={"display_quantity": 1, **params}, **fields)


def fill(story: Story) -> None:
    child = story.child
    story.venue("filled", f"{child.quantity}", story.trade(f"{child.leaves}", f"{child.price}"), child=child)


def sizes(story: Story) -> list[Decimal]:
    """Fill part after part to the end; what was shown each time."""
    while not story.state.over:
        assert len(story.live) == 1
        fill(story)
    return [child.quantity for child in story.state.children]


def test_one_part_at_a_time_at_the_limit() -> None:
    story = iceberg("3.5")
    (place,) = story.step().place
    assert (place.quantity, place.price, place.post_only) == (1, 100, False)
    assert place.display_quantity is None
    story.venue("open")
    assert story.fills(story.trade("0.4")).place == (), "a part filled is not refilled"
    (place,) = story.fills(story.trade("0.6")).place
    assert place.quantity == 1
    assert sizes(story) == [1, 1, 1, Decimal("0.5")]
    assert story.last.status is OrderStatus.FILLED


def test_no_market_is_needed_at_a_fixed_price() -> None:
    story = iceberg()
    decision = story.step()
    assert len(decision.place) == 1
    story.venue("open")
    assert (story.step().wake_at, story.step().wake_when) == (None, ())


def test_the_next_part_waits_for_the_certain_end_of_the_last() -> None:
    story = iceberg("3")
    story.step()
    assert story.unknown().place == ()
    assert story.at(100_000).place == ()
    assert story.void("never arrived").place == (), "not at once"
    (place,) = story.at(101_000).place
    assert place.quantity == 1


def test_a_part_canceled_by_somebody_else_is_shown_again_with_what_is_left() -> None:
    story = iceberg("1.5")
    story.step()
    story.venue("open", "0.3", story.trade("0.3"))
    story.venue("canceled", "0.3")
    assert [child.quantity for child in story.state.children] == [1, 1]
    story.venue("canceled", "0")
    assert len(story.state.children) == 2, "not at once, where nothing was filled"
    story.at(story.now + 500)
    assert sizes(story)[2:] == [1, Decimal("0.2")]


def test_what_would_be_left_too_small_is_shown_with_the_last_part() -> None:
    # 0.05 x 100 is below the minimum notional of 10
    assert sizes(started("3.05")) == [1, 1, Decimal("1.05")]
    assert sizes(started("3.1")) == [1, 1, 1, Decimal("0.1")]


def started(quantity: str, **params: Any) -> Story:
    story = iceberg(quantity, **params)
    story.step()
    return story


def test_dust_below_the_lot_ends_it() -> None:
    story = started("2.0004")
    assert sizes(story) == [1, 1]
    assert "dust" in str(story.last.reason)


def test_sizes_vary_around_the_display_quantity() -> None:
    shown = sizes(started("200", variance="0.3"))[:-1]
    assert len(set(shown)) > 100
    assert min(shown) >= Decimal("0.7")
    assert max(shown) <= Decimal("1.3")
    assert abs(sum(shown) / len(shown) - 1) < Decimal("0.05")


def test_small_parts_are_raised_to_the_minimum() -> None:
    shown = sizes(started("10", display_quantity="0.11", variance="0.9"))
    assert min(shown) == Decimal("0.1")


def test_another_order_shows_other_sizes_and_the_same_order_the_same() -> None:
    one, other = ([shown_size(name, n, Decimal(1), Decimal("0.5")) for n in range(20)] for name in ("a", "b"))
    assert one != other
    assert one == [shown_size("a", n, Decimal(1), Decimal("0.5")) for n in range(20)]


def test_pegged_follows_its_touch_within_the_limit() -> None:
    story = iceberg("10", "99.50", price_mode="pegged", variance="0.2", peg_offset_bps=1)
    (place,) = story.market("99", "99.10").place
    assert (place.price, place.post_only) == (Decimal("98.99"), True)
    story.venue("open", "0.1", story.trade("0.1", "98.99"))
    story.now = 5_000
    (cancel,) = story.market("99.20", "99.30").cancel
    assert cancel.reason == "moves to 99.19"
    (place,) = story.venue("canceled", "0.1").place
    assert place.price == Decimal("99.19")
    assert place.quantity == RULES.round_quantity(
        shown_size("ord_story", 1, Decimal(1), Decimal("0.2")), OrderType.LIMIT
    )
    story.venue("open")
    story.now = 9_000
    story.market("99.80", "99.90")
    (place,) = story.venue("canceled", "0").place
    assert place.price == Decimal("99.50")


def test_pegged_for_a_market_order() -> None:
    story = iceberg(price=None, side=Side.SELL, price_mode="pegged")
    assert story.step().place == ()
    (place,) = story.market("99", "99.10").place
    assert (place.price, place.quantity) == (Decimal("99.10"), 1)


def test_a_fixed_price_that_must_not_take_stays_behind_the_market_and_goes_on_with_it() -> None:
    story = iceberg(post_only=True)
    (place,) = story.market("98.90", "99").place
    assert (place.price, place.post_only) == (Decimal("98.99"), True)
    story.venue("open")
    story.now = 5_000
    story.market("99.50", "99.60")
    (place,) = story.venue("canceled", "0").place
    assert place.price == Decimal("99.59")
    story.venue("open")
    story.now = 9_000
    story.market("100.20", "100.30")
    (place,) = story.venue("canceled", "0").place
    assert place.price == 100


def test_a_fixed_price_that_must_not_take_is_left_where_it_is_without_a_market() -> None:
    story = iceberg(post_only=True)
    assert "is not known" in str(story.step().waiting)
    story.market("98.90", "99")
    story.venue("open")
    story.markets["alpha"] = msgspec.structs.replace(story.markets["alpha"], book=None)
    assert story.at(5_000).cancel == ()


def test_a_post_only_order_is_one_whatever_the_parameters_say() -> None:
    story = iceberg(fields={"post_only": True})
    (place,) = story.market("98.90", "99").place
    assert (place.price, place.post_only) == (Decimal("98.99"), True)


def test_native_is_one_order_that_the_venue_shows_in_parts() -> None:
    story = iceberg(native=True, fields={"rules": NATIVE})
    (place,) = story.step().place
    assert (place.quantity, place.display_quantity, place.price) == (10, 1, 100)
    story.venue("open", "4", story.trade("4"))
    assert (story.decision.place, story.decision.cancel) == ((), ())
    story.venue("canceled", "4")
    assert (story.child.quantity, story.child.display_quantity) == (6, 1)
    assert story.algorithm.notes(story.state.parent)


def test_native_with_an_amended_display_is_replaced() -> None:
    story = iceberg(native=True, fields={"rules": NATIVE})
    story.step()
    story.venue("open")
    amend(story, display_quantity=2, native=True)
    assert len(story.decision.cancel) == 1
    (place,) = story.venue("canceled", "0").place
    assert (place.quantity, place.display_quantity) == (10, 2)
    assert story.venue("open").cancel == ()


def amend(story: Story, **params: Any) -> None:
    """New parameters, planned as the service does."""
    parameters = story.algorithm.Parameters.model_validate(params)
    story.plan = story.algorithm.plan(story.state.parent, parameters, story.state.rules, ())
    story.state.parent.amendments += 1
    story.step()


def test_a_smaller_display_takes_down_what_shows_more() -> None:
    story = iceberg(display_quantity=5)
    story.step()
    story.venue("open")
    amend(story, display_quantity=1)
    assert len(story.decision.cancel) == 1
    (place,) = story.venue("canceled", "0").place
    assert place.quantity == 1


def test_an_amended_limit_moves_it() -> None:
    story = iceberg(requote_bps=50)
    story.step()
    story.venue("open")
    story.now = 2_000
    story.amend(price="100.01")
    (place,) = story.venue("canceled", "0").place
    assert place.price == Decimal("100.01")


def test_its_time_runs_out() -> None:
    story = iceberg(fields={"expires_at": 9_000})
    story.step()
    story.venue("open", "0.5", story.trade("0.5"))
    assert len(story.at(9_000).cancel) == 1
    story.venue("canceled", "0.5")
    assert story.last.status is OrderStatus.EXPIRED


@pytest.mark.parametrize(
    ("params", "fields", "field"),
    [
        ({"native": True}, {}, "algorithm_params.native"),
        ({"native": True, "price_mode": "pegged"}, {"rules": NATIVE}, "algorithm_params.price_mode"),
        ({"display_quantity": "0.0001"}, {}, "algorithm_params.display_quantity"),
        ({"display_quantity": "0.09"}, {}, "algorithm_params.display_quantity"),  # 9 USDT
        ({"display_quantity": 0}, {}, "algorithm_params.display_quantity"),
        ({"variance": 1}, {}, "algorithm_params.variance"),
        ({}, {"price": None}, "algorithm_params.price_mode"),
        ({}, {"time_in_force": TimeInForce.FOK}, "time_in_force"),
    ],
)
def test_what_cannot_be(params: dict[str, Any], fields: dict[str, Any], field: str) -> None:
    with pytest.raises(Refusal) as refusal:
        iceberg(**{"price": "100", **fields, **params} if "price" in fields else {"fields": fields, **params})
    assert refusal.value.field == field


def test_a_display_quantity_is_required() -> None:
    with pytest.raises(Refusal, match="display_quantity"):
        Story(algorithm="iceberg")


@settings(deadline=None, max_examples=200)
@given(
    steps=STEPS,
    side=st.sampled_from(Side),
    variance=st.integers(0, 9),
    display=st.integers(120, 4000),
    quantity=st.integers(200, 12_000),
    params=st.sampled_from(
        [{}, {"post_only": True}, {"price_mode": "pegged"}, {"price_mode": "pegged", "peg_offset_bps": -2}]
    ),
)
def test_any_life(
    steps: list[Step], side: Side, variance: int, display: int, quantity: int, params: dict[str, Any]
) -> None:
    shown, spread = Decimal(display) / 1000, Decimal(variance) / 10
    story = iceberg(f"{Decimal(quantity) / 1000}", side=side, display_quantity=shown, variance=spread, **params)
    # The minimum notional at the lowest price of these markets, a lot more for the rounding.
    most = max(shown * (1 + spread), Decimal("0.12")) + Decimal("0.12")

    def one_part_of_its_size(story: Story) -> None:
        assert len(story.live) <= 1
        assert all(child.quantity <= most for child in story.live)

    live_through(story, steps, one_part_of_its_size)
    if not story.state.over:
        ends_filled(story)
