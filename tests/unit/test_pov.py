"""Percentage of volume, told as stories, and against a simulated tape."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from adapters.base import VenueFill
from algorithms.base import Decision, Market, Refusal
from algorithms.decide import decide
from algorithms.pov import Pov, PovParameters
from algorithms.tape import TapeMemory, accrue
from execution.order_actor import as_record
from schemas.order import ChildOrder, OrderStatus
from schemas.terms import OrderType, Side, TimeInForce
from tests.unit.story import RULES, Story

QUIET = "1000"
"""Volume printed before the order began."""


def pov(quantity: str = "100", price: str | None = "101", **fields: Any) -> Story:
    """An order that takes part with a fifth: a quarter of what others trade."""
    params = {"participation": "0.2", **fields.pop("params", {})}
    story = Story(quantity, price, algorithm="pov", params=params, **fields)
    story.market("100", "100.1", volume=QUIET)
    return story


def look(story: Story, printed: str | int, bid: str = "100", ask: str = "100.1", seconds: int = 5) -> Decision:
    """So many seconds later, so much more has been printed."""
    story.now += seconds * 1000
    volume = story.markets["alpha"].volume + Decimal(printed)
    return story.market(bid, ask, volume=str(volume))


def fill(story: Story, child: ChildOrder, quantity: str | Decimal | None = None) -> Decision:
    """It fills, in part or all of it, and the tape shows that."""
    traded = child.leaves if quantity is None else Decimal(quantity)
    known = story.markets["alpha"]
    story.markets["alpha"] = msgspec.structs.replace(known, volume=known.volume + traded)
    done = child.executed + traded == child.quantity
    status = "filled" if done else "expired" if child.time_in_force is TimeInForce.IOC else "open"
    price = str(child.price) if child.price is not None else "100.1"
    return story.venue(status, str(child.executed + traded), story.trade(str(traded), price), child=child)


# --- the tape ---------------------------------------------------------------------------------------------------------------


def tape(volume: str, session: str = "s1") -> Market:
    return Market(venue="alpha", rules=RULES, session=session, volume=Decimal(volume))


def test_the_first_sight_of_a_tape_is_the_base_line() -> None:
    memory = accrue(TapeMemory(), tape("500"), Decimal(0), counting=True)
    assert memory.others == 0
    assert accrue(memory, tape("530"), Decimal(0), counting=True).others == 30


def test_own_fills_are_not_the_trades_of_others() -> None:
    memory = accrue(TapeMemory(), tape("500"), Decimal(0), counting=True)
    assert accrue(memory, tape("530"), Decimal(10), counting=True).others == 20


def test_own_fills_booked_before_the_tape_shows_them_wait_for_it() -> None:
    memory = accrue(TapeMemory(), tape("500"), Decimal(0), counting=True)
    memory = accrue(memory, tape("502"), Decimal(10), counting=True)
    assert memory.others == 0
    assert accrue(memory, tape("530"), Decimal(10), counting=True).others == 20


def test_a_gap_is_never_made_up() -> None:
    memory = accrue(TapeMemory(), tape("500"), Decimal(0), counting=True)
    memory = accrue(memory, tape("900", "s2"), Decimal(0), counting=True)
    assert memory.others == 0
    memory = accrue(memory, Market(venue="alpha", rules=RULES), Decimal(0), counting=True)
    assert accrue(memory, tape("905", "s2"), Decimal(0), counting=True).others == 5


def test_what_is_printed_while_it_does_not_count_is_lost() -> None:
    memory = accrue(TapeMemory(), tape("500"), Decimal(0), counting=True)
    memory = accrue(memory, tape("600"), Decimal(0), counting=False)
    assert accrue(memory, tape("601"), Decimal(0), counting=True).others == 1


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 50), st.integers(0, 20), st.booleans(), st.integers(0, 9)), min_size=1, max_size=40
    )
)
@settings(deadline=None, max_examples=200)
def test_others_never_fall_and_never_exceed_what_was_printed(steps: list[tuple[int, int, bool, int]]) -> None:
    """Own fills are printed as they are booked, or later while it counts; sessions change now and then."""
    memory = TapeMemory()
    volume, filled, unprinted, counted, session = 0, 0, 0, 0, 1
    for others, own, counting, chance in steps:
        if chance == 0:
            session, volume, unprinted = session + 1, 0, 0
        fresh = memory.session != f"s{session}"
        late = chance % 2 == 0 and counting and not fresh
        printed = 0 if late else unprinted + own
        unprinted = unprinted + own - printed
        volume += others + printed
        filled += own
        counted += others if counting and not fresh else 0
        after = accrue(memory, tape(str(volume), f"s{session}"), Decimal(filled), counting=counting)
        assert after.others >= memory.others
        assert after.others <= counted
        assert msgspec.convert(as_record(after), TapeMemory) == after
        memory = after


# --- passive ----------------------------------------------------------------------------------------------------------------


def test_nothing_is_due_before_anybody_trades() -> None:
    story = pov()
    assert story.decision.place == ()
    assert story.decision.wake_at == 6_000
    assert look(story, 0).place == ()


def test_it_rests_its_share_of_what_others_traded_at_the_touch() -> None:
    story = pov()
    (place,) = look(story, 40).place
    assert (place.quantity, place.price, place.post_only) == (10, 100, True)


def test_between_two_looks_nothing_changes() -> None:
    story = pov()
    look(story, 40)
    story.venue("open")
    decision = look(story, 400, "99", "99.1", seconds=3)
    assert (decision.place, decision.cancel, decision.memory) == ((), (), None)


def test_a_quiet_look_is_not_written() -> None:
    story = pov()
    look(story, 40)
    story.venue("open")
    assert look(story, 0).memory is None


def test_it_follows_the_touch_at_the_looks() -> None:
    story = pov(params={"style": "passive"})
    look(story, 40)
    story.venue("open")
    assert [cancel.reason for cancel in look(story, 0, "100.05").cancel] == ["no longer wanted"]
    (place,) = story.venue("canceled", "0").place
    assert (place.price, place.quantity) == (Decimal("100.05"), 10)


def test_what_becomes_due_joins_and_keeps_the_place_in_the_queue() -> None:
    story = pov(params={"style": "passive"})
    look(story, 40)
    first = story.child
    story.venue("open")
    (place,) = look(story, 20).place
    assert (place.quantity, story.decision.cancel) == (5, ())
    assert not first.cancel_requested


def test_so_many_rest_beside_each_other_and_no_more() -> None:
    story = pov(params={"style": "passive"})
    for _ in range(8):
        look(story, 20)
        for child in list(story.live):
            story.venue("canceled" if child.cancel_requested else "open", "0", child=child)
    assert len(story.live) == 4
    assert sum(child.leaves for child in story.live) == 40


def test_passive_never_crosses() -> None:
    story = pov(params={"style": "passive"})
    for _ in range(6):
        look(story, 40)
        for child in list(story.live):
            story.venue("canceled" if child.cancel_requested else "open", "0", child=child)
    assert all(child.post_only for child in story.state.children)


# --- aggressive and adaptive ------------------------------------------------------------------------------------------------


def test_aggressive_takes_what_is_due_and_then_waits_for_the_next_look() -> None:
    story = pov(params={"style": "aggressive", "child_slippage_bps": "5"})
    (place,) = look(story, 40).place
    assert (place.quantity, place.time_in_force, place.price) == (10, TimeInForce.IOC, Decimal("100.15"))
    assert fill(story, story.child).place == ()
    assert look(story, 100, seconds=2).place == ()
    (place,) = look(story, 100, seconds=3).place
    assert place.quantity == 50


def test_adaptive_rests_first_and_takes_what_stayed_behind() -> None:
    story = pov()
    look(story, 40)
    resting = story.child
    story.venue("open")
    decision = look(story, 40)
    assert len(decision.cancel) == 1
    assert decision.place == (), "until the end of what rests is certain"
    (place,) = fill_before_cancel(story, resting, "4").place
    assert (place.time_in_force, place.quantity) == (TimeInForce.IOC, 6)
    (place,) = fill(story, story.child).place
    assert (place.post_only, place.quantity) == (True, 10), "what has become due since rests"


def fill_before_cancel(story: Story, child: ChildOrder, quantity: str) -> Decision:
    return story.venue("canceled", quantity, story.trade(quantity, str(child.price)), child=child)


def test_adaptive_does_not_cross_for_a_little() -> None:
    story = pov()
    look(story, 40)
    story.venue("open")
    fill(story, story.child, "6")
    decision = look(story, 40)
    assert decision.cancel == ()
    assert all(place.post_only for place in decision.place)


def test_adaptive_does_not_cross_while_nobody_trades() -> None:
    story = pov()
    look(story, 40)
    story.venue("open")
    for _ in range(3):
        assert look(story, 0).cancel == ()


def test_a_child_s_size_bounds_how_far_it_stays_behind() -> None:
    story = pov(params={"max_child_quantity": "2"})
    look(story, 40)
    story.venue("open")
    assert story.child.quantity == 2
    fill(story, story.child)
    for _ in range(2):  # the rest follows in the same interval
        story.venue("open")
        fill(story, story.child)
    story.venue("open")
    assert len(look(story, 40).cancel) == 1, "10 were due, 6 filled: more than one child is missing"


def test_no_child_is_smaller_than_the_least_but_the_last() -> None:
    story = pov("12", params={"min_child_quantity": "5", "style": "aggressive"})
    assert look(story, 16).place == ()
    (place,) = look(story, 4).place
    assert place.quantity == 5
    fill(story, story.child)
    (place,) = look(story, 40).place
    assert place.quantity == 7
    fill(story, story.child, "5")
    story.now += 2_000
    (place,) = story.step().place
    assert place.quantity == 2


def test_an_order_smaller_than_the_least_child_is_one_child() -> None:
    story = pov("0.2004", params={"min_child_quantity": "1", "max_participation": "0.6", "min_participation": "0.1"})
    (place,) = look(story, 40).place
    assert place.quantity == Decimal("0.2")


def test_between_the_bounds_it_only_rests_and_below_it_crosses() -> None:
    band = {"min_participation": "0.1", "max_participation": "0.5"}
    story = pov(params={**band, "participation": "0.2"})
    look(story, 40)
    assert story.child.time_in_force is TimeInForce.IOC, "nothing done is below the least"
    assert story.child.quantity == 10, "up to the participation asked for"
    (place,) = fill(story, story.child).place
    assert (place.post_only, place.quantity) == (True, 30), "as a maker up to the highest"
    story.venue("open")
    assert look(story, 40).cancel == (), "10 of 90 is between the bounds"
    assert len(look(story, 40).cancel) == 2, "10 of 130 is below"


# --- what does not count ----------------------------------------------------------------------------------------------------


def test_nothing_accrues_while_paused() -> None:
    story = pov(params={"style": "aggressive"})
    look(story, 40)
    fill(story, story.child)
    look(story, 4, seconds=1)
    story.state.pause(True, None, story.now)
    story.step()
    look(story, 4000)
    look(story, 4000)
    story.state.pause(False, None, story.now)
    (place,) = story.step().place
    assert place.quantity == 1, "of what was printed before the pause"
    fill(story, story.child)
    assert look(story, 0).place == ()
    (place,) = look(story, 40).place
    assert place.quantity == 10


@pytest.mark.parametrize("style", ["passive", "aggressive", "adaptive"])
def test_nothing_accrues_beyond_the_limit(style: str) -> None:
    story = pov(price="101", params={"style": style})
    decision = look(story, 4000, "102", "102.1")
    assert decision.place == ()
    assert "beyond the limit, 101" in str(decision.waiting)
    look(story, 4000, "102", "102.1")
    assert look(story, 4000).place == (), "it counts from here"
    (place,) = look(story, 40).place
    assert place.quantity == 10


def test_it_is_woken_when_the_market_leaves_the_limit() -> None:
    story = pov(price="101", params={"style": "aggressive"})
    (when,) = story.decision.wake_when
    assert (when.source, when.at_or_above) == ("ask", Decimal("101.01"))
    selling = pov(price="99", side=Side.SELL)
    (when,) = selling.decision.wake_when
    assert (when.source, when.at_or_below) == ("ask", Decimal("98.99"))


def test_a_gap_of_the_tape_is_not_made_up() -> None:
    story = pov(params={"style": "aggressive"})
    look(story, 40)
    fill(story, story.child)
    story.markets["alpha"] = msgspec.structs.replace(story.markets["alpha"], session="s2", volume=Decimal(9000))
    assert look(story, 0).place == ()
    (place,) = look(story, 4).place
    assert place.quantity == 1


def test_without_a_tape_it_waits_and_says_so() -> None:
    story = Story("100", "101", algorithm="pov")
    assert "trades of BTC/USDT at alpha are not known" in str(story.step().waiting)


# --- ends -------------------------------------------------------------------------------------------------------------------


def test_its_time_ends_with_what_is_done() -> None:
    story = pov(params={"duration_seconds": 12})
    look(story, 40)
    story.venue("open", "3", story.trade("3", "100"))
    story.at(12_000)
    assert story.decision.wake_at == 13_000
    (cancel,) = story.at(13_000).cancel
    assert "time" in cancel.reason or "wanted" in cancel.reason
    story.venue("canceled", "3")
    assert (story.last.status, story.last.filled_quantity) == (OrderStatus.EXPIRED, 3)
    assert "volume" in str(story.last.reason)


def test_it_ends_when_filled() -> None:
    story = pov("10", params={"style": "aggressive"})
    look(story, 400)
    fill(story, story.child)
    assert story.last.status is OrderStatus.FILLED


def test_it_counts_from_the_trigger() -> None:
    story = Story(
        "100",
        None,
        algorithm="pov",
        params={"participation": "0.2", "style": "aggressive"},
        order_type=OrderType.STOP,
        stop_price=Decimal(105),
    )
    story.market("100", "100.1", volume="1000", last="100")
    story.now += 60_000
    assert story.market("105", "105.1", volume="9000", last="105").place == ()
    (place,) = look(story, 40, "105", "105.1").place
    assert place.quantity == 10


def test_an_amendment_of_the_rate_holds_at_once() -> None:
    story = pov(params={"style": "passive"})
    look(story, 40)
    story.venue("open")
    story.plan = msgspec.structs.replace(story.plan, participation=Decimal("0.1"), highest=Decimal("0.1"))
    assert [cancel.reason[:7] for cancel in story.step().cancel] == ["shrinks"]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"participation": "0"}, "greater than 0"),
        ({"participation": "1"}, "less than 1"),
        ({"participation": "0.1", "min_participation": "0.2"}, "not be above"),
        ({"participation": "0.3", "max_participation": "0.2"}, "not be below"),
        ({"min_child_quantity": "3", "max_child_quantity": "2"}, "not be above"),
        ({"at_end": "complete"}, "leave"),
    ],
)
def test_parameters_that_make_no_sense(params: dict[str, str], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        PovParameters.model_validate(params)


def test_what_may_only_make_is_never_asked_to_take() -> None:
    with pytest.raises(Refusal, match="post_only"):
        pov(post_only=True, params={"style": "aggressive"})
    story = pov(post_only=True)
    assert story.plan.style == "passive"
    assert story.algorithm.notes(story.state.parent) == ("20.0% of the volume at alpha, passive, as it may only make",)


@pytest.mark.parametrize("in_force", [TimeInForce.IOC, TimeInForce.FOK])
def test_what_is_for_one_moment_does_not_follow_a_volume(in_force: TimeInForce) -> None:
    with pytest.raises(Refusal, match="time_in_force"):
        pov(time_in_force=in_force)


def test_a_child_must_be_tradable() -> None:
    with pytest.raises(Refusal, match="max_child_quantity"):
        pov(params={"max_child_quantity": "0.0001"})


# --- a simulated tape -------------------------------------------------------------------------------------------------------


class Simulation:
    """A market of random trades in which the order takes part; every decision is made twice, once after a restart."""

    def __init__(self, story: Story, seed: int, *, fills: float = 0.5, unreliable: float = 0.0) -> None:
        self.story, self.random = story, random.Random(seed)
        self.fills, self.unreliable = fills, unreliable
        self.others = self.own = Decimal(0)
        self.own_printed: list[Decimal] = []

    def check(self) -> None:
        """The same after a restart, and the same when asked twice."""
        story = self.story
        if story.state.over:
            return
        plan = msgspec.convert(as_record(story.plan), type(story.plan))
        memory = msgspec.convert(as_record(story.memory), type(story.memory))
        assert (plan, memory) == (story.plan, story.memory)
        view = story.view()
        again = msgspec.structs.replace(view, memory=memory)
        assert decide(story.algorithm, story.plan, view) == decide(Pov(), plan, again)

    def go(self, seconds: int, mid: float = 100.05) -> None:
        story, dice = self.story, self.random
        side = story.state.parent.side
        for _ in range(seconds):
            if story.state.over:
                return
            story.now += 1_000
            mid += dice.choice((-0.02, 0, 0, 0.02))
            printed = Decimal(dice.choice((0, 0, 1, 3, 10)))
            self.others += printed
            bid, ask = f"{mid - 0.05:.2f}", f"{mid + 0.05:.2f}"
            volume = story.markets["alpha"].volume + printed + sum(self.own_printed, Decimal(0))
            self.own_printed = []
            self.check()
            story.market(bid, ask, volume=str(volume))
            for child in list(story.live):
                if child not in story.live or story.state.over:
                    continue
                far = Decimal(ask if side is Side.BUY else bid)
                self.serve(child, far)
                self.check()

    def serve(self, child: ChildOrder, far: Decimal) -> None:
        story, dice = self.story, self.random
        price = child.price if child.price is not None else far
        if dice.random() < self.unreliable:
            if child.venue_order_id is None and not child.executed:
                story.state.rejected(child, "no", story.now)
                story.step()
            return
        takes = child.time_in_force is TimeInForce.IOC or child.order_type is OrderType.MARKET
        reached = (price - far) * child.side.sign >= 0
        quantity = Decimal(0)
        if takes:
            quantity = child.leaves if reached and dice.random() < 0.8 else Decimal(0)
        elif dice.random() < self.fills:
            quantity = min(child.leaves, Decimal(dice.choice((1, 2))))
        trades: tuple[VenueFill, ...] = (story.trade(str(quantity), str(price)),) if quantity else ()
        self.own += quantity
        self.own_printed.append(quantity)
        done = child.executed + quantity
        status = "filled" if done == child.quantity else "open"
        if status == "open" and (takes or child.cancel_requested):
            status = "expired" if takes else "canceled"
        story.venue(status, str(done), *trades, child=child)


@pytest.mark.parametrize("style", ["aggressive", "adaptive"])
@pytest.mark.parametrize("rate", ["0.05", "0.2", "0.5"])
@pytest.mark.parametrize("side", list(Side))
def test_the_realised_rate_converges_to_what_was_asked(style: str, rate: str, side: Side) -> None:
    story = pov("100000", None, side=side, params={"participation": rate, "style": style})
    market = Simulation(story, seed=7, fills=0.3)
    market.go(900)
    realised = market.own / (market.own + market.others)
    assert abs(realised - Decimal(rate)) < Decimal("0.01") * max(1, Decimal(rate) * 4)
    assert realised <= Decimal(rate), "never above: what is due comes after what others traded"


def test_a_band_is_kept() -> None:
    params = {"participation": "0.2", "min_participation": "0.15", "max_participation": "0.3"}
    for fills in (0.0, 0.3, 1.0):
        market = Simulation(pov("100000", None, params=params), seed=3, fills=fills)
        market.go(900)
        realised = market.own / (market.own + market.others)
        assert Decimal("0.14") < realised <= Decimal("0.3")


@given(
    seed=st.integers(0, 10_000),
    side=st.sampled_from(list(Side)),
    quantity=st.sampled_from(["3", "20.005", "500"]),
    limit=st.sampled_from([None, "99.9", "100.05", "100.3"]),
    style=st.sampled_from(["passive", "aggressive", "adaptive"]),
    band=st.booleans(),
    least=st.sampled_from([None, "0.5", "3"]),
    most=st.sampled_from([None, "3", "7.5"]),
    unreliable=st.sampled_from([0.0, 0.3]),
)
@settings(deadline=None, max_examples=60)
def test_in_any_market(
    seed: int,
    side: Side,
    quantity: str,
    limit: str | None,
    style: str,
    band: bool,
    least: str | None,
    most: str | None,
    unreliable: float,
) -> None:
    """Lots, ticks, minimums, the limit and the order's quantity hold (`Story` checks each child), and so does the share."""
    params: dict[str, Any] = {"participation": "0.2", "style": style, "min_child_quantity": least}
    params["max_child_quantity"] = most
    if band:
        params |= {"min_participation": "0.1", "max_participation": "0.3"}
    story = pov(quantity, limit, side=side, params=params)
    market = Simulation(story, seed, unreliable=unreliable)
    market.go(90)
    most_rate = Decimal("0.3") if band else Decimal("0.2")
    assert market.own <= market.others * most_rate / (1 - most_rate)
    for child in story.state.children:
        assert most is None or child.quantity <= Decimal(most)
        # Where a venue refuses, what was the last child of its time may turn out not to be the last one.
        if least is not None and not unreliable and story.state.parent.quantity - market.own >= Decimal(least):
            assert child.quantity >= Decimal(least)
    assert story.state.totals.filled == market.own
