"""Brackets told as stories: what protects a position, and that it never closes more than was opened."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from execution.ledger import LoadedOrder
from execution.order_state import OrderState
from schemas import exact_json
from schemas.market import MarketRules
from schemas.order import ChildOrder, ChildState, Fill, OrderStatus, ParentOrder, Role
from schemas.terms import OrderType, Side
from tests.unit.simulated_life import live_out
from tests.unit.simulated_market import SimulatedMarket
from tests.unit.story import RULES, Story

STOPS = msgspec.structs.replace(RULES, native=(OrderType.MARKET, OrderType.LIMIT, OrderType.STOP))
STOP_LIMITS = msgspec.structs.replace(RULES, native=(OrderType.MARKET, OrderType.LIMIT, OrderType.STOP_LIMIT))


def bracket(rules: MarketRules = STOPS, *, price: str | None = "100", **fields: Any) -> Story:
    """A buy of 10 at 100 with a take-profit at 110 and a stop-loss at 90, in a market at 100."""
    given: dict[str, Any] = {"take_profit": Decimal(110), "stop_loss": Decimal(90), **fields}
    story = Story("10", price, rules=rules, **given)
    story.market("99.9", "100.1", last="100")
    return story


def filled(rules: MarketRules = STOPS, **fields: Any) -> Story:
    """The same, all bought at 100."""
    story = bracket(rules, **fields)
    story.venue("filled", "10", story.trade("10"), child=story.state.entries.children[0])
    return story


def exits(story: Story) -> list[ChildOrder]:
    return story.state.exits.live


def the_exit(story: Story) -> ChildOrder:
    (child,) = exits(story)
    return child


def tags(story: Story) -> list[str]:
    return [child.tag for child in story.state.exits.children]


def opened(story: Story) -> ChildOrder:
    """The exit is at the venue now."""
    child = the_exit(story)
    story.venue("open", child=child)
    return child


def sold(story: Story, quantity: str, price: str, *, status: str = "filled", **fee: str) -> None:
    child = the_exit(story)
    story.venue(status, quantity, story.trade(quantity, price, side=Side.SELL, **fee), child=child)


def moves(story: Story, price: str, wait: int = 5_000) -> None:
    """The market goes to a price, with 0.1 to both sides."""
    story.now += wait
    middle = Decimal(price)
    story.market(f"{middle - Decimal('0.1'):f}", f"{middle + Decimal('0.1'):f}", last=price)


def replaced(story: Story) -> ChildOrder:
    """The venue confirms the cancel that was asked for; returns what takes the place."""
    (asked,) = [child for child in exits(story) if child.cancel_requested]
    story.venue("canceled", str(asked.filled), child=asked)
    return the_exit(story)


# --- how much --------------------------------------------------------------------------------------------------------


def test_nothing_is_protected_before_something_has_filled() -> None:
    story = bracket()
    assert story.state.exits.children == []
    story.venue("open", child=story.state.entries.children[0])
    assert story.state.exits.children == []


def test_the_exit_grows_with_the_entry() -> None:
    story = bracket()
    entry = story.state.entries.children[0]
    story.venue("open", "3", story.trade("3"), child=entry)
    child = opened(story)
    assert (child.quantity, child.side, child.role) == (3, Side.SELL, Role.EXIT)
    story.venue("open", "5", story.trade("2"), child=entry)
    assert not child.cancel_requested, "not for every fill at once"
    assert story.decision.wake_at == child.created_at + 1_000
    story.at(child.created_at + 1_000)
    assert child.reason == "grows to 5"
    assert replaced(story).quantity == 5


def test_exits_never_exceed_what_was_bought_less_fees_in_the_base() -> None:
    story = bracket(msgspec.structs.replace(STOPS, fee_in_base=True))
    entry = story.state.entries.children[0]
    story.venue("filled", "10", story.trade("10", fee="0.0105", fee_asset="BTC"), child=entry)
    assert the_exit(story).quantity == Decimal("9.989")
    moves(story, "109.5")
    assert replaced(story).quantity == Decimal("9.989")
    sold(story, "9.989", "110")
    story.step()
    assert story.state.parent.protection_ended == "closed"


def test_a_fill_too_small_to_be_closed_waits_for_more() -> None:
    story = bracket()
    entry = story.state.entries.children[0]
    story.venue("open", "0.05", story.trade("0.05"), child=entry)
    assert exits(story) == []
    assert story.state.parent.protection_ended is None
    story.venue("open", "1.05", story.trade("1"), child=entry)
    assert the_exit(story).quantity == Decimal("1.05")


def test_what_is_unknown_of_an_exit_is_not_closed_twice() -> None:
    story = filled()
    child = the_exit(story)
    story.state.unknown(child, "no answer", story.now)
    moves(story, "109.5")
    assert len(story.state.exits.children) == 1
    story.state.void(child, "not there", story.now)
    story.step()
    assert [child.tag for child in exits(story)] == ["take_profit"]


# --- which exit rests ------------------------------------------------------------------------------------------------


def test_a_venue_with_stops_holds_the_stop_loss() -> None:
    story = filled()
    child = the_exit(story)
    assert (child.order_type, child.stop_price, child.quantity) == (OrderType.STOP, 90, 10)


def test_near_the_take_profit_they_change_places_and_back_only_further_away() -> None:
    story = filled()
    opened(story)
    moves(story, "108")
    assert not the_exit(story).cancel_requested
    moves(story, "108.2")
    profit = replaced(story)
    assert (profit.tag, profit.order_type, profit.price) == ("take_profit", OrderType.LIMIT, 110)
    story.venue("open", child=profit)
    for price in ("107.5", "108.5", "106.2"):
        moves(story, price)
        assert not profit.cancel_requested, "within twice the distance it stays"
    moves(story, "105.9")
    assert replaced(story).tag == "stop_loss"


def test_until_the_cancel_is_certain_nothing_takes_its_place() -> None:
    story = filled()
    stop = opened(story)
    moves(story, "109.5")
    assert stop.cancel_requested
    assert exits(story) == [stop]
    moves(story, "109.6")
    assert exits(story) == [stop]
    # It fired while it was being canceled: three are sold, the rest is to be sold at the take-profit.
    story.venue("canceled", "3", story.trade("3", "109", side=Side.SELL), child=stop)
    assert (the_exit(story).tag, the_exit(story).quantity) == ("take_profit", 7)


def test_a_venue_without_stops_holds_the_take_profit_and_the_stop_is_watched() -> None:
    story = filled(RULES)
    profit = opened(story)
    assert (profit.tag, profit.price) == ("take_profit", 110)
    assert any(when.at_or_below == 90 for when in story.decision.wake_when)
    moves(story, "90.2")
    assert not profit.cancel_requested
    moves(story, "90.1")
    assert profit.cancel_requested
    close = replaced(story)
    assert (close.order_type, close.quantity, close.tag) == (OrderType.MARKET, 10, "stop_loss_fired")


def test_a_fired_stop_stays_fired() -> None:
    story = filled(RULES)
    opened(story)
    moves(story, "90")
    replaced(story)
    sold(story, "4", "90", status="canceled")
    moves(story, "105")
    again = the_exit(story)
    assert (again.tag, again.quantity, again.cancel_requested) == ("stop_loss_fired", 6, False)
    story.venue("canceled", "0", child=again)
    assert the_exit(story).tag == "stop_loss_fired"


def test_a_stop_that_was_reached_closes_although_the_price_comes_back_before_the_cancel_is_confirmed() -> None:
    story = filled(RULES)
    opened(story)
    moves(story, "90")
    moves(story, "95")
    child = replaced(story)
    assert child.tag == "stop_loss_fired"
    assert story.state.parent.stop_fired
    assert child.quantity == 10


def test_the_venue_s_stop_limit_reaches_two_percent() -> None:
    child = the_exit(filled(STOP_LIMITS))
    assert (child.order_type, child.stop_price, child.price) == (OrderType.STOP_LIMIT, 90, Decimal("88.2"))


@pytest.mark.parametrize(
    ("rules", "fields", "tag"),
    [
        (STOPS, {"take_profit": None}, "stop_loss"),
        (STOPS, {"stop_loss": None}, "take_profit"),
        (RULES, {"stop_loss": None}, "take_profit"),
    ],
)
def test_one_exit_alone(rules: MarketRules, fields: dict[str, Any], tag: str) -> None:
    story = filled(rules, **fields)
    assert the_exit(story).tag == tag
    moves(story, "109.5")
    moves(story, "91")
    assert tags(story) == [tag]


def test_a_stop_loss_alone_without_stops_at_the_venue_is_watched() -> None:
    story = filled(RULES, take_profit=None)
    assert exits(story) == []
    moves(story, "90")
    assert the_exit(story).tag == "stop_loss_fired"


def test_a_sell_is_the_mirror() -> None:
    story = filled(side=Side.SELL, take_profit=Decimal(90), stop_loss=Decimal(110))
    stop = opened(story)
    assert (stop.side, stop.stop_price) == (Side.BUY, 110)
    moves(story, "91.8")
    profit = replaced(story)
    assert (profit.side, profit.price) == (Side.BUY, 90)
    other = filled(RULES, side=Side.SELL, take_profit=Decimal(90), stop_loss=Decimal(110))
    opened(other)
    moves(other, "110")
    assert replaced(other).tag == "stop_loss_fired"


# --- the venue, and operators ----------------------------------------------------------------------------------------


def test_an_exit_that_somebody_canceled_at_the_venue_is_placed_again() -> None:
    story = filled()
    first = opened(story)
    story.venue("canceled", "0", child=first)
    again = the_exit(story)
    assert (again.tag, again.quantity, again.child_id != first.child_id) == ("stop_loss", 10, True)


def test_refused_twice_the_stop_is_watched_here() -> None:
    story = filled()
    for _ in range(2):
        assert the_exit(story).tag == "stop_loss"
        story.state.rejected(the_exit(story), "stops are off", story.now)
        assert story.step().place == (), "not at once"
        assert story.decision.wake_at is not None
        story.at(story.decision.wake_at)
    assert opened(story).tag == "take_profit"
    moves(story, "90")
    assert replaced(story).tag == "stop_loss_fired"


def test_an_entry_canceled_with_a_part_filled_keeps_its_protection() -> None:
    story = bracket()
    entry = story.state.entries.children[0]
    story.venue("open", "4", story.trade("4"), child=entry)
    stop = opened(story)
    story.cancel("enough")
    story.venue("canceled", "4", child=entry)
    assert story.state.parent.status is OrderStatus.CANCELED
    assert (the_exit(story), stop.cancel_requested) == (stop, False)
    moves(story, "108.5")
    assert replaced(story).quantity == 4


def test_a_second_cancel_removes_it() -> None:
    story = bracket()
    entry = story.state.entries.children[0]
    story.venue("open", "4", story.trade("4"), child=entry)
    stop = opened(story)
    story.cancel("enough")
    story.venue("canceled", "4", child=entry)
    story.cancel("all of it")
    assert (stop.cancel_requested, stop.reason) == (True, "all of it")
    story.venue("canceled", "0", child=stop)
    assert exits(story) == []
    story.step()
    assert story.state.parent.protection_ended == "canceled on request"
    assert story.state.over


def test_a_pause_and_an_expiry_of_the_entry_leave_the_exits() -> None:
    story = bracket(expires_at=60_000)
    entry = story.state.entries.children[0]
    story.venue("open", "4", story.trade("4"), child=entry)
    stop = opened(story)
    story.state.pause(True, None, story.now)
    story.step()
    assert (entry.cancel_requested, stop.cancel_requested) == (True, False)
    story.venue("canceled", "4", child=entry)
    story.at(60_000)
    assert story.state.parent.status is OrderStatus.EXPIRED
    assert exits(story) == [stop]


# --- what is told ----------------------------------------------------------------------------------------------------


def test_a_trade_is_told_from_its_opening_to_its_profit() -> None:
    story = filled()
    kinds = [event.event_type for event in story.events]
    assert kinds.count("trade.opened") == 1
    opened(story)
    moves(story, "109")
    replaced(story)
    sold(story, "10", "110", fee="1.5")
    story.step()
    assert story.last.event_type == "trade.closed"
    assert story.last.realized_pnl == Decimal("98.5")
    assert story.state.over
    assert story.state.parent.status is OrderStatus.FILLED


def test_a_loss_is_told_as_such_and_fees_in_the_base_are_in_it() -> None:
    story = bracket(RULES)
    entry = story.state.entries.children[0]
    story.venue("filled", "10", story.trade("10", fee="0.01", fee_asset="BTC"), child=entry)
    opened(story)
    moves(story, "90")
    replaced(story)
    sold(story, "9.99", "89.9")
    story.step()
    assert story.last.event_type == "trade.closed"
    assert story.last.realized_pnl == Decimal("9.99") * Decimal("89.9") - 1_000


def test_a_sell_s_profit_is_what_it_was_sold_for_more() -> None:
    story = filled(RULES, side=Side.SELL, take_profit=Decimal(90), stop_loss=Decimal(110))
    child = opened(story)
    story.venue("filled", "10", story.trade("10", "90", side=Side.BUY), child=child)
    story.step()
    assert story.last.realized_pnl == 100


# --- late, and after a restart -----------------------------------------------------------------------------------------


def test_what_the_entry_fills_after_its_exit_closed_is_protected_again() -> None:
    story = bracket(RULES)
    entry = story.state.entries.children[0]
    story.venue("open", "4", story.trade("4"), child=entry)
    opened(story)
    sold(story, "4", "110")
    story.step()
    assert story.state.parent.protection_ended is None, "the entry may still fill"
    story.venue("filled", "10", story.trade("6"), child=entry)
    assert the_exit(story).quantity == 6


def test_a_fill_that_raced_the_entry_s_end_is_protected_after_the_trade_was_closed() -> None:
    story = bracket(RULES)
    entry = story.state.entries.children[0]
    story.venue("open", "4", story.trade("4"), child=entry)
    opened(story)
    story.cancel("enough")
    story.venue("canceled", "4", child=entry)
    sold(story, "4", "110")
    story.step()
    assert (story.told[-1], story.state.over) == ("trade.closed", True)
    story.fills(story.trade("6"), child=entry)
    assert not story.state.over
    assert the_exit(story).quantity == 6
    opened(story)
    sold(story, "6", "110")
    story.step()
    assert story.last.event_type == "trade.closed"
    assert story.last.realized_pnl == 100, "of both together"


def restarted(story: Story) -> None:
    """Another replica goes on with what the ledger holds."""
    state = story.state
    loaded = LoadedOrder(
        msgspec.json.decode(exact_json.encode(state.parent), type=ParentOrder),
        msgspec.json.decode(exact_json.encode(state.children), type=list[ChildOrder]),
        msgspec.json.decode(exact_json.encode(state.fills), type=list[Fill]),
    )
    story.state = OrderState.loaded(state.key, "there", loaded, state.rules)


def test_a_restart_in_the_middle_goes_on() -> None:
    story = filled()
    restarted(story)
    assert story.step().place == ()
    opened(story)
    moves(story, "109.5")
    restarted(story)
    assert story.step().cancel == ()
    profit = replaced(story)
    assert (profit.tag, profit.quantity) == ("take_profit", 10)
    restarted(story)
    sold(story, "10", "110")
    story.step()
    assert story.last.realized_pnl == 100
    restarted(story)
    assert story.state.over


def test_a_fired_stop_is_still_fired_after_a_restart() -> None:
    story = filled(RULES)
    opened(story)
    moves(story, "90")
    replaced(story)
    restarted(story)
    sold(story, "1", "90", status="canceled")
    restarted(story)
    moves(story, "105")
    assert (the_exit(story).tag, the_exit(story).quantity) == ("stop_loss_fired", 9)
    assert the_exit(story).state is ChildState.PENDING


# --- whatever happens ------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(Side),
    st.sampled_from((RULES, STOPS, STOP_LIMITS)),
    st.sampled_from(("direct", "twap")),
    st.sampled_from((("95", "105"), ("99", "101"), (None, "101"), ("99", None))),
    st.sampled_from(("0", "0.001")),
    st.binary(min_size=60, max_size=300),
)
@settings(deadline=None, max_examples=150)
def test_exits_never_close_more_than_was_opened(
    side: Side,
    rules: MarketRules,
    algorithm: str,
    prices: tuple[str | None, str | None],
    fee: str,
    happenings: bytes,
) -> None:
    low, high = (Decimal(price) if price is not None else None for price in prices)
    market = SimulatedMarket(
        "10",
        "100.2" if side is Side.BUY else "99.8",
        algorithm=algorithm,
        params={"duration_seconds": 60, "slices": 6, "style": "aggressive"} if algorithm == "twap" else {},
        side=side,
        rules=rules,
        take_profit=high if side is Side.BUY else low,
        stop_loss=low if side is Side.BUY else high,
        fee=fee,
    )
    market.shows()
    market.step()
    live_out(market, happenings)
    state = market.state
    there = [market.truth[child.child_id] for child in state.exits.children if child.child_id in market.truth]
    closed = sum((one.filled + (one.leaves if one.open else 0) for one in there), Decimal(0))
    true = sum(
        (market.truth[child.child_id].filled for child in state.entries.children if child.child_id in market.truth),
        Decimal(0),
    )
    assert closed <= true
    market.ends_well()
    if state.parent.protection_ended == "closed":
        rest = state.totals.filled - state.totals.fees.get("BTC", Decimal(0)) - state.exits.totals.filled
        assert rest * market.mid < rules.min_notional * 110, "something tradable was left unprotected"


def test_an_entry_ends_when_its_stop_fires() -> None:
    """Buying on while the stop sells would only pay the spread twice."""
    story = Story(
        "10",
        None,
        algorithm="twap",
        params={"duration_seconds": 100, "slices": 10, "style": "aggressive"},
        stop_loss=Decimal(95),
    )
    story.market("99.9", "100.1")
    story.venue("filled", "1", story.trade("1", "100.1"))
    story.now += 5_000
    story.market("94", "94.2", last="94")
    assert story.state.parent.stop_fired
    story.step()
    assert story.state.parent.status == "canceled"
    assert "exits" in str(story.state.parent.reason)
    story.now += 10_000
    story.market("94", "94.2")
    assert [child.role for child in story.state.children] == ["entry", "exit"]
