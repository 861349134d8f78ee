"""TWAP told as stories; what holds of every schedule is told here too."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from algorithms.scheduled import SchedulePlan
from algorithms.tape import TapeMemory
from execution.order_actor import as_record
from schemas.order import ChildState, OrderStatus
from schemas.terms import OrderType, Side, TimeInForce
from tests.unit.story import RULES, Story

START = 1_000


def twap(quantity: str = "100", price: str | None = None, **params: Any) -> Story:
    fields = {name: params.pop(name) for name in ("side", "max_slippage_bps", "slippage_policy") if name in params}
    given = {"duration_seconds": 200, "slices": 20, "style": "aggressive", **params}
    return Story(quantity, price, algorithm="twap", params=given, **fields)


def trade(story: Story) -> None:
    """The venue fills whatever takes, as far as it goes, at its price."""
    for child in list(story.live):
        if child.time_in_force is TimeInForce.IOC or child.order_type is OrderType.MARKET:
            story.venue("filled", str(child.quantity), story.trade(str(child.quantity), str(child.price)), child=child)


def run(story: Story, until: int, *, step: int = 1_000, dead: range | None = None) -> list[Decimal]:
    """Time passes with an even market; returns what each slice of ten seconds sent."""
    sent: dict[int, Decimal] = {}
    for now in range(START, until + 1, step):
        story.now = now
        if dead is not None and (now - START) // 10_000 in dead:
            continue
        story.market("99.9", "100.1", step=False)
        before = len(story.state.children)
        story.step()
        trade(story)
        for child in story.state.children[before:]:
            index = (now - START) // 10_000
            sent[index] = sent.get(index, Decimal(0)) + child.quantity
        if story.state.parent.status.terminal:
            break
    return [sent.get(index, Decimal(0)) for index in range(20)]


def test_each_slice_trades_the_same_and_all_is_done_in_time() -> None:
    story = twap()
    assert run(story, START + 200_000) == [Decimal(5)] * 20
    assert story.state.parent.status is OrderStatus.FILLED
    assert {child.tag for child in story.state.children} == {f"s{index}" for index in range(20)}


def test_what_slices_missed_is_made_up_by_three_times_the_plan_at_most() -> None:
    """The published example: slices 4 to 11 of 20 are dead, the cap is three times."""
    story = twap()
    assert run(story, START + 200_000, dead=range(4, 12)) == [
        *[Decimal(5)] * 4,
        *[Decimal(0)] * 8,
        *[Decimal(15)] * 4,
        *[Decimal(5)] * 4,
    ]
    assert story.state.parent.status is OrderStatus.FILLED


def test_odd_quantities_sum_exactly_to_the_parent() -> None:
    story = twap("10.007", slices=7, duration_seconds=70)
    run(story, START + 70_000)
    sizes = [child.quantity for child in story.state.children]
    assert sum(sizes) == Decimal("10.007")
    assert max(sizes) - min(sizes) <= RULES.lot
    assert len(sizes) == 7


def test_slices_below_the_minimum_join_the_next() -> None:
    """0.02 a slice at 100 is 2 of the 10 that the venue wants at least."""
    story = twap("0.4")
    run(story, START + 200_000)
    sizes = [child.quantity for child in story.state.children]
    assert sum(sizes) == Decimal("0.4")
    assert all(size * 100 >= 10 for size in sizes)
    assert story.state.parent.status is OrderStatus.FILLED


def test_jitter_is_the_same_on_every_replica_and_keeps_the_sum() -> None:
    one, two = twap(jitter=0.4), twap(jitter=0.4)
    assert one.plan == two.plan
    assert msgspec.convert(as_record(one.plan), SchedulePlan) == one.plan
    starts = one.plan.starts
    assert list(starts) == sorted(starts)
    assert starts[0] == 0
    assert any(start % 10_000 for start in starts)
    assert one.plan.shares[-1] == 1
    assert run(one, START + 200_000, step=100).count(Decimal(5)) < 20
    assert sum(child.quantity for child in one.state.children) == 100


def test_nothing_is_sent_without_a_market() -> None:
    story = twap()
    decision = story.step()
    assert decision.place == ()
    assert decision.waiting is not None
    assert "not known" in decision.waiting
    assert story.market("99.9", "100.1").place[0].quantity == 5


def test_beyond_the_limit_it_waits_and_catches_up() -> None:
    story = twap(price="100")
    assert story.market("100.4", "100.5").place == ()
    assert "beyond the limit" in str(story.decision.waiting)
    story.now += 10_000
    (place,) = story.market("99.8", "99.9").place
    assert (place.quantity, place.time_in_force) == (Decimal(10), TimeInForce.IOC)
    assert place.price is not None
    assert place.price <= 100


def test_it_takes_a_little_behind_the_touch_at_most() -> None:
    story = twap(child_slippage_bps=10)
    (place,) = story.market("99.9", "100").place
    assert place.price == Decimal("100.1")
    assert twap(child_slippage_bps=0, side=Side.SELL).market("99.9", "100").place[0].price == Decimal("99.9")


def test_a_partly_filled_slice_is_tried_again_on_a_renewed_book() -> None:
    story = twap()
    story.market("99.9", "100.1")
    decision = story.venue("expired", "2", story.trade("2", "100.1"))
    assert decision.place == ()  # the same book: it has been taken from
    story.now += 300
    (place,) = story.market("99.9", "100.2").place
    assert (place.quantity, place.tag) == (Decimal(3), "s0")


def test_passive_rests_at_the_touch_follows_it_and_takes_at_the_end_of_the_slice() -> None:
    story = twap(style="passive")
    (place,) = story.market("99.9", "100.1").place
    assert (place.price, place.post_only, place.quantity) == (Decimal("99.9"), True, Decimal(5))
    story.venue("open")
    story.now = START + 2_000
    assert story.market("100", "100.2").cancel[0].reason == "moves to 100"
    (place,) = story.venue("canceled").place
    assert place.price == 100
    story.venue("open")
    story.fills(story.trade("1", "100"))
    story.now = START + 8_000
    (cancel,) = story.market("100", "100.2").cancel
    assert cancel.reason == "to be taken at once instead"
    assert story.decision.place == ()
    (place,) = story.venue("canceled", "1").place
    assert (place.quantity, place.time_in_force) == (Decimal(4), TimeInForce.IOC)
    trade(story)
    assert story.state.totals.filled == 5


def test_adaptive_lets_one_slice_wait_and_takes_what_is_further_behind() -> None:
    story = twap(style="adaptive")
    placed = []
    for index in range(3):
        story.now = START + index * 10_000
        placed.append(story.market("99.9", "100.1").place)
        assert story.decision.cancel == (), "what rests keeps its place in the queue"
        if index < 2:
            story.venue("open")
    assert [[(place.quantity, place.post_only) for place in places] for places in placed] == [
        [(Decimal(5), True)],
        [(Decimal(5), True)],
        [(Decimal(5), False)],  # ten should be done by now and nothing is: one slice may wait, the other is taken
    ]
    trade(story)
    assert story.state.totals.filled == 5


def test_participation_bounds_what_is_sent_by_what_others_trade() -> None:
    story = twap(max_participation="0.2")
    assert story.market("99.9", "100.1", volume="1000").place == ()
    assert "above 20" in str(story.decision.waiting)
    story.now += 5_000
    (place,) = story.market("99.9", "100.1", volume="1008").place
    assert place.quantity == 2  # a quarter of 8, a fifth of 8 + 2
    assert isinstance(story.memory.tape, TapeMemory)


def test_with_leave_the_rest_is_reported_and_nothing_rests_beyond_the_time() -> None:
    story = twap(style="passive", at_end="leave", price="90")
    story.market("95", "95.1")
    story.venue("open")
    story.now = START + 200_000
    decision = story.step()
    assert [cancel.reason for cancel in decision.cancel]
    decision = story.venue("canceled")
    assert decision.done is not None
    assert (decision.done.status, decision.done.reason) == (OrderStatus.EXPIRED, "its time is over: 100 of 100 left")


def test_complete_takes_the_rest_before_the_time_ends_even_above_the_cap() -> None:
    story = twap()
    run(story, START + 200_000, dead=range(2, 19))
    assert story.state.parent.status is OrderStatus.FILLED
    assert sum(child.quantity for child in story.state.children) == 100
    assert max(child.created_at for child in story.state.children) < START + 200_000


def test_expiry_before_the_end_shortens_the_schedule() -> None:
    story = Story(
        "100", None, algorithm="twap", params={"duration_seconds": 200, "slices": 20}, expires_at=START + 100_000
    )
    assert story.plan.duration == 100_000


def test_a_cancel_stops_the_schedule_in_the_middle() -> None:
    story = twap()
    story.market("99.9", "100.1")
    trade(story)
    decision = story.cancel("enough")
    assert decision.done is not None
    assert (story.state.parent.status, story.last.filled_quantity) == (OrderStatus.CANCELED, Decimal(5))


def test_a_venue_that_refuses_again_and_again_ends_the_order() -> None:
    story = twap()
    story.market("99.9", "100.1")
    for _ in range(4):
        story.state.rejected(story.child, "account suspended", story.now)
        assert story.step().done is None
        story.now += 20_000
        story.market("99.9", "100.1")
    story.state.rejected(story.child, "account suspended", story.now)
    story.step()
    assert story.state.parent.status is OrderStatus.REJECTED
    assert "account suspended" in str(story.last.reason)


def test_an_unknown_child_counts_as_traded_until_it_is_certain() -> None:
    story = twap()
    story.market("99.9", "100.1")
    story.unknown()
    story.now += 10_000
    (place,) = story.market("99.9", "100.1").place
    assert place.quantity == 5
    story.state.void(story.state.children[0], "not there", story.now)
    story.step()
    trade(story)
    story.now += 10_000
    (place,) = story.market("99.9", "100.1").place
    assert place.quantity == 10


def test_an_outage_of_the_venue_does_not_end_the_order() -> None:
    story = twap()
    story.market("99.9", "100.1")
    for _ in range(12):
        story.void("not placed after 3 tries")
        story.now += 10_000
        story.market("99.9", "100.1")
        assert not story.state.parent.status.terminal
        if story.child.state is not ChildState.PENDING:
            break
    assert story.state.totals.filled == 0


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"slices": 5, "interval_seconds": 3}, "exclude each other"),
        ({"interval_seconds": 300, "slices": None}, "longer than"),
        ({"jitter": 0.5}, "less than 0.5"),
        ({"duration_seconds": 0}, "greater than 0"),
        ({"duration_seconds": 1, "slices": 100}, "at least 100 ms"),
        ({"at_end": "explode"}, "complete"),
        ({"speed": 1}, "Extra"),
    ],
)
def test_impossible_parameters_are_refused_by_name(params: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        twap(**params)


def test_a_breach_of_the_slippage_bound_pauses_with_the_figure() -> None:
    story = twap(max_slippage_bps=Decimal(20))
    story.market("99.9", "100.1")
    trade(story)
    story.now += 10_000
    assert story.market("100.4", "100.6").place == ()
    assert story.last.event_type == "order.amended"
    assert story.last.slippage_bps == Decimal("60.00")
    events = len(story.events)
    story.now += 1_000
    story.market("100.4", "100.7")
    assert len(story.events) == events, "told once while it lasts"
    story.now += 1_000
    (place,) = story.market("99.9", "100.1").place
    assert place.price is not None
    assert place.price <= Decimal("100.2")


def test_a_breach_may_end_the_order() -> None:
    story = twap(max_slippage_bps=Decimal(20), slippage_policy="end")
    story.market("99.9", "100.1")
    trade(story)
    story.now += 10_000
    story.market("100.4", "100.6")
    assert story.state.parent.status is OrderStatus.CANCELED
    assert story.last.slippage_bps == Decimal("60.00")
    assert "60.00 bps" in str(story.last.reason)


def test_adaptive_takes_at_once_where_resting_saves_next_to_nothing() -> None:
    story = twap(style="adaptive")
    (place,) = story.market("99.999", "100").place
    assert place.time_in_force is TimeInForce.IOC
    story = twap(style="adaptive", slices=10)
    (place,) = story.market("99.98", "100").place
    assert place.post_only


@pytest.mark.parametrize("style", ["adaptive", "passive", "aggressive"])
def test_an_order_that_may_only_make_never_takes(style: str) -> None:
    story = Story(
        "100",
        "101",
        algorithm="twap",
        params={"duration_seconds": 100, "slices": 10, "style": style},
        post_only=True,
    )
    for now in range(START, START + 101_000, 1_000):
        story.now = now
        story.market("99.9", "100.1", step=False)
        for place in story.step().place:
            assert place.post_only
            assert place.price == Decimal("99.9")
        for child in story.live:
            if child.cancel_requested:
                story.venue("canceled", child=child)
            elif child.venue_order_id is None:
                story.venue("open", child=child)
    assert story.state.parent.status is OrderStatus.EXPIRED
