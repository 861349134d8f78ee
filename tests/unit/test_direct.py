"""Direct, told as stories: what happens to an order, and what the service then wants."""

from decimal import Decimal

import pytest

from schemas.event import EventType
from schemas.order import ChildState, OrderStatus
from schemas.terms import OrderType, Side, TimeInForce
from tests.unit.story import Story


def started(quantity: str = "10", price: str | None = "100", **fields: object) -> Story:
    story = Story(quantity, price, **fields)
    (place,) = story.step().place
    assert place.quantity == Decimal(quantity).quantize(Decimal("0.001"), rounding="ROUND_FLOOR")
    return story


def sequence(story: Story) -> list[int]:
    return [event.sequence for event in story.events]


def test_a_limit_order_fills_in_two_trades() -> None:
    story = started()
    assert story.venue("open").place == ()
    story.fills(story.trade("4", "99"))
    story.fills(story.trade("6", "100"))
    assert story.told == ["accepted", "placed", "partially_filled", "filled"]
    assert story.last.status is OrderStatus.FILLED
    assert story.last.average_price == Decimal("99.6")
    assert story.last.remaining_quantity == 0
    assert sequence(story) == [1, 2, 3, 4]


def test_a_market_order_filled_in_its_answer_tells_the_fills_once() -> None:
    story = started(price=None)
    one, two = story.trade("4", "99", fee="0.4"), story.trade("6", "101", fee="0.6")
    story.venue("filled", "10", one, two)
    assert story.told == ["accepted", "placed", "filled"]
    assert [fill.trade_id for event in story.events for fill in getattr(event.child, "fills", ())] == ["t1", "t2"]
    assert story.last.commission == Decimal(1)
    # The stream echoes the same trades, late and twice.
    story.fills(one, two, one)
    assert story.told == ["accepted", "placed", "filled"]


def test_quantity_goes_down_to_the_lot_and_the_rest_is_dust() -> None:
    story = started("1.2345")
    assert story.child.quantity == Decimal("1.234")
    story.venue("filled", "1.234", story.trade("1.234"))
    assert story.last.status is OrderStatus.FILLED
    assert story.last.remaining_quantity == Decimal("0.0005")
    assert "0.0005" in str(story.last.reason)


@pytest.mark.parametrize(
    ("side", "price", "expected"), [(Side.BUY, "100.019", "100.01"), (Side.SELL, "100.011", "100.02")]
)
def test_a_price_never_crosses_the_limit(side: Side, price: str, expected: str) -> None:
    story = Story(price=price, side=side)
    (place,) = story.step().place
    assert place.price == Decimal(expected)


def test_a_fill_before_the_answer_places_the_order() -> None:
    story = started()
    story.fills(story.trade("4"))
    assert story.child.state is ChildState.OPEN
    story.venue("open", "0")  # the answer comes after, and is older
    assert story.told == ["accepted", "placed", "partially_filled"]
    assert story.state.totals.filled == 4


def test_a_reported_total_waits_for_its_trades() -> None:
    story = started()
    decision = story.venue("filled", "10")
    assert decision.done is None
    assert story.state.totals.unknown == 10
    story.fills(story.trade("10"))
    assert story.last.status is OrderStatus.FILLED


def test_reports_out_of_order_change_nothing_back() -> None:
    story = started()
    story.venue("filled", "10", story.trade("10"))
    story.venue("open", "3")
    assert story.child.state is ChildState.FILLED
    assert story.child.venue_filled == 10
    assert story.told == ["accepted", "placed", "filled"]


def test_cancel() -> None:
    story = started()
    story.venue("open")
    (cancel,) = story.cancel("risk").cancel
    assert cancel.child_id == story.child.child_id
    assert story.step().cancel == (), "asked once"
    story.venue("canceled", "0")
    assert story.last.status is OrderStatus.CANCELED
    assert story.last.reason == "risk"


def test_cancel_loses_the_race_to_a_fill() -> None:
    story = started()
    story.venue("open")
    story.cancel()
    story.venue("filled", "10", story.trade("10"))
    assert story.last.status is OrderStatus.FILLED


def test_cancel_with_a_part_filled() -> None:
    story = started()
    story.venue("open", "4", story.trade("4"))
    story.cancel()
    story.venue("canceled", "7")
    assert not story.state.parent.status.terminal, "three more are known of, their trades are not"
    story.fills(story.trade("3"))
    assert story.last.status is OrderStatus.CANCELED
    assert story.last.filled_quantity == 7
    assert story.last.remaining_quantity == 3


def test_a_fill_after_the_cancel_is_booked() -> None:
    story = started()
    story.venue("open")
    story.cancel()
    story.venue("canceled", "0")
    story.fills(story.trade("4"))
    assert story.last.event_type is EventType.PARTIALLY_FILLED
    assert (story.last.status, story.last.filled_quantity) == (OrderStatus.CANCELED, 4)
    story.fills(story.trade("6"))
    assert (story.last.event_type, story.last.status) == (EventType.FILLED, OrderStatus.FILLED)
    assert sequence(story) == list(range(1, len(story.events) + 1))


def test_a_second_cancel_is_answered_with_the_state() -> None:
    story = started(price=None)
    story.venue("filled", "10", story.trade("10"))
    story.cancel()
    assert story.last.event_type is EventType.FILLED
    assert "filled already" in str(story.last.reason)
    assert getattr(story.last.child, "fills", ()) == ()


def test_an_unknown_child_is_waited_for() -> None:
    story = started()
    assert story.unknown() == story.step()
    assert story.state.totals.unknown == 10
    assert story.cancel().done is None, "a cancel does not make it known"
    story.venue("open")
    assert story.child.state is ChildState.OPEN


def test_an_unknown_child_that_never_existed_fails_the_order() -> None:
    story = started()
    story.unknown()
    story.void("did not reach alpha after 3 tries")
    assert (story.last.status, story.last.reason) == (OrderStatus.FAILED, "did not reach alpha after 3 tries")


def test_canceled_while_unknown_and_absent_is_canceled() -> None:
    story = started()
    story.unknown()
    story.cancel("risk")
    story.void()
    assert (story.last.status, story.last.reason) == (OrderStatus.CANCELED, "risk")


def test_a_reject_is_told_with_its_reason() -> None:
    story = started()
    story.state.rejected(story.child, "no funds", story.now)
    story.step()
    assert story.told == ["accepted", "rejected"]
    assert story.last.reason == "no funds"


def test_amended_price_replaces_only_after_the_cancel_is_confirmed() -> None:
    story = started()
    story.venue("open", "4", story.trade("4"))
    decision = story.amend(price="101")
    assert decision.place == ()
    assert len(decision.cancel) == 1
    (place,) = story.venue("canceled", "4").place
    assert (place.quantity, place.price) == (6, 101)
    story.venue("filled", "6", story.trade("6", "101"))
    assert story.last.status is OrderStatus.FILLED
    assert story.told == ["accepted", "placed", "partially_filled", "amended", "placed", "filled"]


def test_a_fill_races_the_amendment() -> None:
    story = started()
    story.venue("open", "4", story.trade("4"))
    story.amend(price="101")
    story.venue("canceled", "9")
    assert len(story.state.children) == 1, "what filled meanwhile is not known trade by trade yet"
    (place,) = story.fills(story.trade("5")).place
    assert place.quantity == 1


def test_amended_below_what_filled_before_it_took_hold() -> None:
    story = started()
    story.venue("open", "4", story.trade("4"))
    story.amend(quantity="6")
    story.venue("filled", "10", story.trade("6"))
    assert story.last.status is OrderStatus.FILLED
    assert (story.last.quantity, story.last.filled_quantity, story.last.remaining_quantity) == (10, 10, 0)
    assert "before the amendment" in str(story.last.reason)


def test_amended_to_what_has_filled_ends_the_order() -> None:
    story = started()
    story.venue("open", "4", story.trade("4"))
    story.amend(quantity="4")
    story.venue("canceled", "4")
    assert (story.last.status, story.last.quantity, story.last.filled_quantity) == (OrderStatus.FILLED, 4, 4)


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"quantity": "3"}, "quantity"), ({"stop_price": "1"}, "stop_price"), ({"price": "0.001"}, "price")],
)
def test_an_amendment_that_cannot_be_is_answered(changes: dict[str, str], field: str) -> None:
    story = started()
    story.venue("open", "4", story.trade("4"))
    before = (story.state.parent.quantity, story.state.parent.price)
    assert story.amend(**changes).cancel == ()
    assert story.last.field == field
    assert story.last.status is OrderStatus.PARTIALLY_FILLED
    assert (story.state.parent.quantity, story.state.parent.price) == before


def test_amended_up_places_the_rest() -> None:
    story = started()
    story.venue("open", "10", story.trade("4"))
    story.amend(quantity="15")
    (place,) = story.fills(story.trade("6")).place
    assert place.quantity == 5


def test_time_runs_out() -> None:
    story = started(expires_at=5_000)
    assert story.venue("open").wake_at == 5_000
    (cancel,) = story.at(5_000).cancel
    assert "time" in cancel.reason
    story.venue("canceled", "0")
    assert (story.last.event_type, story.last.status) == (EventType.EXPIRED, OrderStatus.EXPIRED)


@pytest.mark.parametrize("in_force", [TimeInForce.IOC, TimeInForce.FOK])
def test_what_the_venue_expires_is_expired(in_force: TimeInForce) -> None:
    story = started(time_in_force=in_force)
    assert story.child.time_in_force is in_force
    story.venue("expired", "4", story.trade("4"))
    assert (story.last.status, story.last.filled_quantity) == (OrderStatus.EXPIRED, 4)


def test_gtd_is_gtc_at_the_venue_and_ended_by_us() -> None:
    story = started(time_in_force=TimeInForce.GTD, expires_at=5_000)
    assert story.child.time_in_force is TimeInForce.GTC


def test_canceled_by_somebody_else_at_the_venue() -> None:
    story = started()
    story.venue("open")
    story.venue("canceled", "0")
    assert (story.last.status, story.last.reason) == (OrderStatus.CANCELED, "canceled at the venue")


def test_pause_takes_it_off_the_book_and_resume_puts_the_rest_back() -> None:
    story = started()
    story.venue("open", "4", story.trade("4"))
    story.state.pause(True, None, story.now)
    assert len(story.step().cancel) == 1
    assert story.venue("canceled", "4").place == ()
    story.state.pause(False, None, story.now)
    (place,) = story.step().place
    assert place.quantity == 6


def test_below_the_minimum_is_rejected_before_anything_is_placed() -> None:
    story = Story("0.05")
    assert story.step().place == ()
    assert story.last.status is OrderStatus.REJECTED
    assert story.last.field == "quantity"


def test_post_only_is_passed_on() -> None:
    assert started(post_only=True).child.post_only


def test_a_void_child_that_turns_up_after_all_is_counted() -> None:
    story = started()
    story.unknown()
    story.void()
    story.fills(story.trade("10"))
    assert story.last.status is OrderStatus.FILLED
    assert story.state.totals.filled == 10


def test_same_view_same_decision() -> None:
    story = Story()
    first = story.step()
    assert first.place[0].order_type is OrderType.LIMIT
    assert story.step() == story.step()
