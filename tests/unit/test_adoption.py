"""Orders that a venue holds and that the ledger lost, taken up again: what each algorithm does with them."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from adapters.base import VenueFill, VenueOrder, VenueOrderStatus
from algorithms.decide import decide
from execution.adoption import ADOPTED, adopt
from execution.gates import GateRefused, WireGate
from execution.ledger import child_id, order_key
from schemas.order import ChildOrder, ChildState, OrderStatus, Role
from schemas.terms import OrderType, Side
from tests.unit.story import RULES, Story

STOPS = msgspec.structs.replace(RULES, native=(OrderType.MARKET, OrderType.LIMIT, OrderType.STOP))
KEY = order_key("story")


def seen(child: ChildOrder, status: str = "open", *fills: VenueFill, **fields: Any) -> VenueOrder:
    """A child as its venue lists it."""
    known: dict[str, Any] = {
        "symbol": child.symbol,
        "client_order_id": child.child_id,
        "venue_order_id": f"v{child.number}",
        "status": VenueOrderStatus(status),
        "quantity": child.quantity,
        "filled": sum((fill.quantity for fill in fills), Decimal(0)),
        "price": child.price,
        "side": child.side,
        "order_type": child.order_type,
        "stop_price": child.stop_price,
        "time_in_force": child.time_in_force,
        "timestamp": child.created_at,
        "fills": fills,
    }
    return VenueOrder(**{**known, **fields})


def taken_up(story: Story, told: VenueOrder, *, guessed: bool = True) -> ChildOrder:
    """The order of a story adopts what its venue tells."""
    expected = decide(story.algorithm, story.plan, story.view()).place if guessed else ()
    child = adopt(story.state, "alpha", told, expected, story.now)
    assert child is not None
    return child


def strange(number: int = 7, **fields: Any) -> VenueOrder:
    """An open order under an id of the story's order, of which nothing else is known."""
    known: dict[str, Any] = {
        "symbol": "BTC/USDT",
        "client_order_id": child_id(KEY, number),
        "venue_order_id": "v77",
        "status": VenueOrderStatus.OPEN,
        "quantity": Decimal(1),
        "filled": Decimal(0),
        "price": Decimal(98),
        "side": Side.BUY,
        "order_type": OrderType.LIMIT,
    }
    return VenueOrder(**{**known, **fields})


def shown(story: Story) -> Story:
    story.market("99.9", "100.1", last="100", volume="0", step=False)
    return story


ORDERS: dict[str, Callable[[], Story]] = {
    "direct": lambda: Story("10", "100"),
    "iceberg": lambda: Story("10", "100", algorithm="iceberg", params={"display_quantity": 1}),
    "twap passive": lambda: Story(
        "10", "100", algorithm="twap", params={"duration_seconds": 200, "slices": 20, "style": "passive"}
    ),
    "twap adaptive": lambda: Story("10", None, algorithm="twap", params={"duration_seconds": 200, "slices": 20}),
    "twap aggressive": lambda: Story(
        "10", None, algorithm="twap", params={"duration_seconds": 200, "slices": 20, "style": "aggressive"}
    ),
    "vwap": lambda: Story("10", None, algorithm="vwap", params={"duration_seconds": 200}),
    "implementation_shortfall": lambda: Story(
        "10", None, algorithm="implementation_shortfall", params={"duration_seconds": 200}
    ),
    "peg": lambda: Story("10", "100", algorithm="peg"),
    "pov": lambda: Story("10", "100", algorithm="pov", params={"participation": "0.1"}),
    "sniper": lambda: Story("10", "100", algorithm="sniper"),
    "smart_router": lambda: Story("10", "100", algorithm="smart_router", venues={"alpha": RULES, "beta": RULES}),
}


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("status", ["open", "filled", "canceled"])
def test_what_an_algorithm_had_placed_is_its_own_again(name: str, status: str) -> None:
    """The commit of its first children is lost: they are adopted as they stand, and it goes on without placing them twice."""
    before = shown(ORDERS[name]())
    before.step()
    after = shown(ORDERS[name]())
    for lost in before.state.children:
        trades = (after.trade(str(lost.quantity)),) if status == "filled" else ()
        child = taken_up(after, seen(lost, status, *trades))
        assert (child.tag, child.quantity, child.price) == (lost.tag, lost.quantity, lost.price)
        assert child.state is ChildState(status)
    after.step()
    if status == "open":
        assert [child.number for child in after.live if not child.cancel_requested] == [
            child.number for child in before.state.children
        ], "what is at the venue and wanted there is left alone"
    for now in range(2_000, 60_000, 2_000):
        after.now = now
        shown(after)
        after.step()  # asserts that no claim exceeds the order
    numbers = [child.number for child in after.state.children]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("name", ORDERS)
def test_a_child_that_an_algorithm_never_asked_for_does_not_break_it(name: str) -> None:
    story = shown(ORDERS[name]())
    story.step()
    for child in list(story.live):
        story.venue("open", child=child)
    odd = taken_up(story, strange(), guessed=False)
    assert odd.number == 7
    for now in range(2_000, 300_000, 3_000):
        story.now = now
        shown(story)
        story.step()
        for child in list(story.live):
            if child.cancel_requested:
                story.venue("canceled", child=child)
            elif child.state is ChildState.PENDING:
                story.venue("open", child=child)
    later = [child.number for child in story.state.children if child.number > 7]
    assert later == list(range(8, 8 + len(later))), "new ones are numbered above it"


def test_nothing_says_what_it_was_for() -> None:
    story = Story("10", None, algorithm="twap", params={"duration_seconds": 200, "slices": 20})
    assert taken_up(story, strange(), guessed=False).tag == ADOPTED
    story.step()


def test_it_is_told_with_the_reason_and_its_trades() -> None:
    story = Story("10", "100")
    taken_up(story, strange(1, quantity=Decimal(10), filled=Decimal(4), fills=(story.trade("4"),)))
    story.step()
    placed = [event for event in story.events if event.event_type == "order.placed"]
    assert len(placed) == 1
    assert "adopted" in str(placed[0].reason)
    assert story.state.parent.status is OrderStatus.PARTIALLY_FILLED
    assert story.last.filled_quantity == 4
    assert [event.sequence for event in story.events] == list(range(1, len(story.events) + 1))


def test_more_than_the_order_may_trade_is_booked_and_cancelled() -> None:
    story = Story("10", "100")
    story.step()
    story.venue("open")
    odd = taken_up(story, strange(2, quantity=Decimal(5)))
    assert odd.cancel_requested
    assert "5 more" in str(odd.reason)
    story.step()
    story.venue("canceled", "3", story.trade("3"), child=odd)
    first = story.state.children[0]
    story.venue("filled", "10", story.trade("10"), child=first)
    assert (story.state.parent.status, story.last.filled_quantity) == (OrderStatus.FILLED, Decimal(13))


def test_an_order_that_still_waits_for_its_trigger_had_fired() -> None:
    story = Story("10", "101", order_type=OrderType.STOP_LIMIT, stop_price=Decimal(105))
    taken_up(story, strange(1, quantity=Decimal(10), price=Decimal(101)))
    assert story.state.parent.trigger is not None
    assert story.state.parent.trigger.fired_at is not None
    story.step()
    story.cancel()
    assert story.state.children[0].cancel_requested, "not ended beside an order at the venue"


def test_the_exit_of_a_bracket_is_the_one_that_protects() -> None:
    story = shown(Story("10", "100", rules=STOPS, take_profit=Decimal(110), stop_loss=Decimal(90)))
    story.step()
    stop = strange(
        2,
        quantity=Decimal(10),
        price=None,
        side=Side.SELL,
        order_type=OrderType.STOP,
        stop_price=Decimal(90),
    )
    child = taken_up(story, stop)
    assert (child.role, child.tag) == (Role.EXIT, "stop_loss")
    entry = story.state.entries.children[0]
    story.venue("filled", "10", story.trade("10"), child=entry)
    story.step()
    assert story.state.exits.live == [child], "it is the stop, and stays"
    assert not child.cancel_requested


def test_an_exit_of_an_order_that_has_none_is_taken_off() -> None:
    child = taken_up(Story("10", "100"), strange(2, side=Side.SELL))
    assert (child.role, child.cancel_requested) == (Role.EXIT, True)


@pytest.mark.parametrize(
    "fields",
    [
        {"symbol": "ETH/USDT"},
        {"client_order_id": "somebody-elses"},
        {"client_order_id": child_id(order_key("another"), 1)},
        {"quantity": None, "filled": None},
    ],
)
def test_what_cannot_be_the_orders_is_not_adopted(fields: dict[str, Any]) -> None:
    story = Story("10", "100")
    assert adopt(story.state, "alpha", strange(**fields), (), 1) is None
    assert story.state.children == []


def test_the_gate_before_the_wire_counts_it() -> None:
    gate, story = WireGate(), Story("10", "100")
    gate.adopt(KEY, taken_up(story, strange(1, quantity=Decimal(7))))
    story.step()
    later = msgspec.structs.replace(story.child, child_id=child_id(KEY, 2), quantity=Decimal(4))
    with pytest.raises(GateRefused):
        gate.approve(KEY, Decimal(10), later)


def test_twice_is_once() -> None:
    story = Story("10", "100")
    taken_up(story, strange(1))
    assert adopt(story.state, "alpha", strange(1), (), 1) is None
    assert len(story.state.children) == 1
