"""Smart order routing, told as stories over several venues."""

from __future__ import annotations

import random
from decimal import Decimal
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.base import Decision, Refusal, When
from algorithms.decide import decide
from algorithms.smart_router import FIRST_BOOKS_MS, SmartRouter
from execution.order_actor import as_record
from schemas.market import MarketRules
from schemas.order import ChildOrder, ChildState, OrderStatus
from schemas.terms import OrderType, Side, TimeInForce
from tests.unit.story import RULES, Story

Leg = tuple[str, str, str]


def rules(fee: str = "0", **changes: Any) -> MarketRules:
    return msgspec.structs.replace(RULES, taker_fee=Decimal(fee), **changes)


ALPHA, BETA, GAMMA = rules("0.001"), rules("0.0005"), rules("0.0026")


def router(
    quantity: str = "5",
    price: str | None = "101",
    *,
    venues: dict[str, MarketRules] | None = None,
    params: dict[str, Any] | None = None,
    **fields: Any,
) -> Story:
    chosen = venues or {"alpha": ALPHA, "beta": BETA, "gamma": GAMMA}
    params = {"child_slippage_bps": "0", "stale_ms": 3_000, **(params or {})}
    story = Story(quantity, price, algorithm="smart_router", venues=chosen, params=params, **fields)
    story.now += FIRST_BOOKS_MS  # it waits for no first books any more
    return story


def show(story: Story, venue: str, *asks: tuple[str, str], bid: str = "99", step: bool = True) -> Decision:
    return story.market(venue=venue, asks=asks, bids=[(bid, "50")], step=step)


def books(story: Story) -> Decision:
    """Three books in which the best price is not the cheapest after fees."""
    show(story, "alpha", ("100.00", "1"), ("100.05", "2"), ("100.20", "5"), step=False)
    show(story, "beta", ("100.03", "1.5"), ("100.10", "1.5"), ("100.30", "4"), step=False)
    return show(story, "gamma", ("99.98", "0.8"), ("100.01", "3"), ("100.15", "6"))


def sent(decision: Decision) -> list[Leg]:
    return sorted(
        (place.venue or "", f"{place.quantity.normalize():f}", f"{place.price:.2f}") for place in decision.place
    )


def at(story: Story, venue: str) -> ChildOrder:
    """The latest child at a venue."""
    return next(child for child in reversed(story.state.children) if child.venue == venue)


def ends(story: Story, venue: str, filled: str = "0", price: str = "100") -> Decision:
    """What was sent to a venue ends with so much filled."""
    child = at(story, venue)
    status = "filled" if Decimal(filled) == child.quantity else "expired"
    if child.cancel_requested and status == "expired":
        status = "canceled"
    trades = (story.trade(filled, price),) if Decimal(filled) else ()
    return story.venue(status, filled, *trades, child=child)


def able(story: Story, venue: str, **changes: Any) -> None:
    story.markets[venue] = msgspec.structs.replace(story.markets[venue], **changes)


def test_at_first_it_waits_a_moment_for_books_it_has_not_seen() -> None:
    story = router("1")
    story.now -= FIRST_BOOKS_MS
    show(story, "alpha", ("100", "5"))
    assert story.decision.place == ()
    assert {when.venue for when in story.decision.wake_when} == {"beta", "gamma"}
    assert story.decision.wake_at == story.now + FIRST_BOOKS_MS
    show(story, "gamma", ("100", "5"))
    assert sent(show(story, "beta", ("99.9", "5"))) == [("beta", "1", "99.90")]
    story = router("1")
    assert sent(show(story, "alpha", ("100", "5"))) == [("alpha", "1", "100.00")], "but no longer"


# --- sweeps -----------------------------------------------------------------------------------------------------------------


def test_it_splits_by_the_cost_after_fees() -> None:
    story = router()
    assert sent(books(story)) == [("alpha", "3", "100.05"), ("beta", "2", "100.10")]
    assert all(place.time_in_force is TimeInForce.IOC for place in story.decision.place)
    assert {place.tag for place in story.decision.place} == {"r1"}


def test_all_venues_are_used_when_the_quantity_asks_for_it() -> None:
    story = router("20")
    assert [leg[:2] for leg in sent(books(story))] == [("alpha", "8"), ("beta", "7"), ("gamma", "5")]


def test_a_sell_takes_the_best_proceeds() -> None:
    story = router("2", "99", side=Side.SELL)
    story.market(venue="alpha", bids=[("100.00", "2")], asks=[("101", "1")], step=False)
    story.market(venue="beta", bids=[("99.96", "2")], asks=[("101", "1")], step=False)
    assert sent(story.market(venue="gamma", bids=[("100.10", "2")], asks=[("101", "1")])) == [("beta", "2", "99.96")]


def test_the_allowance_goes_beyond_the_worst_price_but_not_beyond_the_limit() -> None:
    story = router("1", "100.02", venues={"alpha": ALPHA}, params={"child_slippage_bps": "10"})
    assert sent(show(story, "alpha", ("100", "1"))) == [("alpha", "1", "100.02")]
    story = router("1", "101", venues={"alpha": ALPHA}, params={"child_slippage_bps": "10"})
    assert sent(show(story, "alpha", ("100", "1"))) == [("alpha", "1", "100.10")]


def test_only_what_is_within_the_limit_is_taken() -> None:
    story = router("20", "100.04")
    assert sent(books(story)) == [("alpha", "1", "100.00"), ("beta", "1.5", "100.03"), ("gamma", "3.8", "100.01")]


def test_what_a_venue_did_not_fill_goes_to_the_others_after_the_round_has_ended() -> None:
    story = router()
    books(story)
    story.now += 50
    assert ends(story, "beta", "0.5").place == (), "alpha is still under way"
    story.now += 50
    assert ends(story, "alpha", "3").place == (), "their books may be renewed in a moment"
    (wake,) = {story.decision.wake_at}
    assert wake == story.now + 250
    story.now += 250
    assert sent(story.step()) == [("gamma", "1.5", "100.01")]
    assert story.decision.place[0].tag == "r2"
    assert ends(story, "gamma", "1.5").done is not None
    assert story.last.status is OrderStatus.FILLED


def test_renewed_books_are_used_at_once() -> None:
    story = router()
    books(story)
    story.now += 50
    ends(story, "beta", "0.5")
    ends(story, "alpha", "3")
    story.now += 10
    assert show(story, "beta", ("100.04", "1"), ("100.10", "4")).place == ()
    assert sent(show(story, "alpha", ("100.20", "5"))) == [("beta", "1.5", "100.10")]


def test_a_venue_that_does_not_answer_holds_up_only_its_own_part() -> None:
    story = router()
    books(story)
    story.now += 50
    story.state.unknown(at(story, "beta"), "no answer", story.now)
    ends(story, "alpha", "1")
    story.now += 500
    show(story, "alpha", ("100.05", "9"))
    assert story.decision.place == ()
    story.now = story.decision.wake_at or 0
    assert sent(show(story, "alpha", ("100.05", "9"))) == [("alpha", "2", "100.05")]
    ends(story, "alpha", "2")
    story.now += 5_000
    assert show(story, "gamma", ("100", "9")).place == (), "what is at beta may have filled"
    assert sent(ends(story, "beta", "0")) == [("gamma", "2", "100.00")]


def test_a_venue_that_is_down_is_left_out() -> None:
    story = router()
    able(story, "beta", usable=False)
    assert {leg[0] for leg in sent(books(story))} == {"alpha", "gamma"}


def test_with_every_venue_down_it_looks_less_and_less_often() -> None:
    story = router(venues={"alpha": ALPHA})
    able(story, "alpha", usable=False)
    waits = []
    for _ in range(8):
        show(story, "alpha", ("100", "9"))
        waits.append((story.decision.wake_at or 0) - story.now)
        story.now = story.decision.wake_at or 0
    assert waits == sorted(waits)
    assert 1_000 <= waits[0] < waits[-1] <= 30_000
    assert story.decision.waiting is not None


def test_a_venue_that_refuses_is_left_out_for_longer_each_time() -> None:
    story = router("5", "101", venues={"alpha": ALPHA, "beta": BETA})
    pauses = []
    for _ in range(4):
        show(story, "alpha", ("100", "9"))
        assert at(story, "alpha").state is ChildState.PENDING
        story.state.rejected(at(story, "alpha"), "no", story.now)
        story.step()
        pauses.append((story.decision.wake_at or 0) - story.now)
        story.now += pauses[-1]
    assert pauses == [500, 1_000, 2_000, 4_000]
    assert not story.state.over
    assert sent(show(story, "beta", ("100.5", "9"))) == [("beta", "5", "100.50")]


def test_refusals_of_one_venue_do_not_hold_up_another() -> None:
    story = router("5", "101", venues={"alpha": ALPHA, "beta": BETA})
    show(story, "alpha", ("100", "9"))
    show(story, "beta", ("100.3", "9"))
    story.state.rejected(at(story, "alpha"), "no", story.now)
    assert sent(story.step()) == [("beta", "5", "100.30")]


def refused_times(story: Story, venue: str, most: int) -> int:
    """How often a venue refuses before the order ends."""
    for count in range(1, most + 1):
        show(story, venue, ("100", "9"))
        story.state.rejected(at(story, venue), "no", story.now)
        story.step()
        if story.state.over:
            return count
        story.now = story.decision.wake_at or 0
    return most + 1


def test_refusals_end_the_order_later_where_another_venue_may_still_come() -> None:
    assert refused_times(router("5", "101", venues={"alpha": ALPHA}), "alpha", 20) == 5
    story = router("5", "101", venues={"alpha": ALPHA, "beta": BETA})
    assert refused_times(story, "alpha", 20) == 10
    assert story.last.status is OrderStatus.REJECTED


def test_the_pause_after_a_refusal_is_of_the_venue() -> None:
    story = router("5", "101", venues={"alpha": ALPHA, "beta": BETA})
    assert refused_times(story, "alpha", 3) == 4
    able(story, "alpha", usable=False)
    show(story, "beta", ("100.3", "9"))
    story.state.rejected(at(story, "beta"), "no", story.now)
    story.step()
    story.now += 500
    assert sent(show(story, "beta", ("100.3", "9"))) == [("beta", "5", "100.30")]


def test_a_venue_that_shows_what_it_never_fills_is_left_out_for_longer_each_time() -> None:
    story = router("5", "101", venues={"alpha": ALPHA})
    tried = []
    for _ in range(200):
        story.now += 100
        if show(story, "alpha", ("100", "9")).place:
            tried.append(story.now)
            story.now += 1
            ends(story, "alpha", "0")
    gaps = [after - before for before, after in pairwise(tried)]
    assert gaps == sorted(gaps)
    assert gaps[0] <= 400
    assert gaps[-1] >= 4_000


def test_old_books_are_not_used_and_ageing_ones_are_trusted_less() -> None:
    story = router("10", "101", venues={"alpha": ALPHA, "beta": BETA})
    show(story, "beta", ("100", "4"), step=False)
    story.now += 1_500
    assert sent(show(story, "alpha", ("100.5", "20"))) == [("alpha", "6", "100.50"), ("beta", "4", "100.00")]
    story = router("10", "101", venues={"alpha": ALPHA, "beta": BETA})
    show(story, "beta", ("100", "4"), step=False)
    story.now += 2_250
    assert sent(show(story, "alpha", ("100.5", "20"))) == [("alpha", "7", "100.50"), ("beta", "3", "100.00")]
    story = router("10", "101", venues={"alpha": ALPHA, "beta": BETA})
    show(story, "beta", ("100", "4"), step=False)
    story.now += 3_001
    assert sent(show(story, "alpha", ("100.5", "20"))) == [("alpha", "10", "100.50")]


def test_a_minimum_of_one_venue_sends_it_elsewhere() -> None:
    dear = rules("0", min_notional=Decimal(200))
    story = router("1", "101", venues={"alpha": dear, "beta": BETA})
    show(story, "alpha", ("100", "9"), step=False)
    assert sent(show(story, "beta", ("100.01", "9"))) == [("beta", "1", "100.01")]


def test_a_balance_bounds_what_a_venue_gets() -> None:
    story = router("5", "101", venues={"alpha": ALPHA, "beta": BETA}, params={"child_slippage_bps": "10"})
    able(story, "alpha", available=Decimal("200.5"))
    show(story, "beta", ("100.5", "9"), step=False)
    legs = {venue: Decimal(quantity) for venue, quantity, _ in sent(show(story, "alpha", ("100", "9")))}
    price = next(place.price for place in story.decision.place if place.venue == "alpha")
    assert price is not None
    assert legs["alpha"] * price * Decimal("1.001") <= Decimal("200.5") < (legs["alpha"] + 1) * price
    assert legs["alpha"] + legs["beta"] == 5


def test_a_single_venue_is_swept() -> None:
    story = Story("5", "101", algorithm="smart_router")
    assert sent(show(story, "alpha", ("100", "2"), ("100.5", "9"))) == [("alpha", "5", "100.52")]


def test_no_more_venues_than_allowed() -> None:
    story = router(params={"max_venues": 1})
    assert sent(books(story)) == [("alpha", "5", "100.20")]


def test_it_waits_for_prices_not_for_every_book() -> None:
    story = router("5", "99.5")
    assert books(story).place == ()
    assert set(story.decision.wake_when) == {
        When(source="ask", at_or_below=Decimal("99.5"), venue=venue) for venue in ("alpha", "beta", "gamma")
    }
    assert "beyond the limit at every venue" in str(story.decision.waiting)


def test_a_market_order_does_not_walk_up_an_empty_book() -> None:
    story = router("10", None, venues={"alpha": ALPHA, "beta": BETA}, params={"max_sweep_bps": "50"})
    show(story, "alpha", ("100", "1"), ("100.4", "1"), ("120", "50"), step=False)
    assert sent(show(story, "beta", ("101", "50"))) == [("alpha", "2", "100.40")]
    ends(story, "alpha", "2", "100.2")
    story.now += 500
    show(story, "alpha", ("120", "50"))
    assert sent(story.decision) == [("beta", "8", "101.00")], "the best price is elsewhere now"


def test_the_slippage_bound_holds_at_every_venue() -> None:
    story = router(
        "5",
        None,
        venues={"alpha": ALPHA, "beta": BETA},
        params={"max_sweep_bps": "100"},
        max_slippage_bps=Decimal(10),
    )
    story.market("99.9", "100.1", venue="alpha", step=False)
    show(story, "beta", ("99.5", "1"), ("100.4", "9"), step=False)
    assert sent(story.step()) == [("alpha", "4", "100.10"), ("beta", "1", "99.50")]
    ends(story, "alpha", "0")
    ends(story, "beta", "1")
    story.now += 300
    show(story, "alpha", ("100.3", "9"), bid="100.2", step=False)
    show(story, "beta", ("100.4", "9"), bid="100.2")
    assert "slippage of 30" in str(story.decision.waiting)


def test_beyond_the_slippage_bound_it_ends_where_that_was_asked_for() -> None:
    story = router("5", None, venues={"alpha": ALPHA}, max_slippage_bps=Decimal(10), slippage_policy="end")
    story.market("99.9", "100.1", venue="alpha")
    ends(story, "alpha", "1")
    story.now += 300
    show(story, "alpha", ("100.3", "9"))
    assert story.last.status is OrderStatus.CANCELED


def test_an_ioc_order_is_one_round() -> None:
    story = router(time_in_force=TimeInForce.IOC)
    books(story)
    ends(story, "alpha", "3")
    ends(story, "beta", "1")
    assert (story.last.status, story.last.filled_quantity) == (OrderStatus.EXPIRED, 4)


def test_its_time_ends() -> None:
    story = router("5", "99.5", params={"duration_seconds": 10})
    books(story)
    assert story.decision.wake_at == 11_000
    story.at(11_000)
    assert story.last.status is OrderStatus.EXPIRED


def test_a_restart_in_the_middle_goes_on_with_the_next_round() -> None:
    story = router()
    books(story)
    ends(story, "beta", "0.5")
    story.algorithm = SmartRouter()
    story.plan = msgspec.convert(as_record(story.plan), type(story.plan))
    for venue, market in story.markets.items():
        story.markets[venue] = msgspec.structs.replace(market, book=None, book_at=0)
    assert story.step().place == ()
    ends(story, "alpha", "3")
    story.now += 2_500
    show(story, "alpha", ("100", "9"))
    assert [(place.tag, place.quantity) for place in story.decision.place] == [("r2", Decimal("1.5"))]


def test_it_tells_where_it_goes() -> None:
    story = router("5", None)
    words = " ".join(story.algorithm.notes(story.state.parent))
    assert "alpha, beta, gamma" in words
    assert "50 bps" in words


# --- posts ------------------------------------------------------------------------------------------------------------------


def posting(quantity: str = "5", price: str | None = "100", **fields: Any) -> Story:
    venues = fields.pop("venues", {"alpha": rules(maker_fee=Decimal("0.001")), "beta": rules()})
    params = {"mode": "post", **fields.pop("params", {})}
    return router(quantity, price, venues=venues, params=params, **fields)


def quote(story: Story, venue: str, bid: str, ask: str, *, step: bool = True) -> Decision:
    return story.market(bid, ask, venue=venue, step=step)


def test_what_cannot_be_taken_rests_at_the_best_place() -> None:
    story = posting()
    quote(story, "alpha", "99.60", "100.1", step=False)
    (place,) = quote(story, "beta", "99.55", "100.1").place
    assert (place.venue, place.price, place.post_only) == ("beta", Decimal("99.55"), True), "5 bps lower, 10 bps of fee"


def test_a_sell_rests_where_it_is_soonest_filled_for_its_fee() -> None:
    story = posting(price="100", side=Side.SELL)
    quote(story, "alpha", "99", "100.2", step=False)
    (place,) = quote(story, "beta", "99", "100.25").place
    assert (place.venue, place.price) == ("beta", Decimal("100.25"))


def test_it_takes_first_and_rests_the_remainder() -> None:
    story = posting()
    show(story, "alpha", ("100", "2"), ("101", "9"), bid="99.9", step=False)
    assert sent(show(story, "beta", ("100.5", "9"), bid="99.9")) == [("alpha", "2", "100.00")]
    ends(story, "alpha", "2")
    story.now += 300
    assert story.step().place == (), "alpha may show more in a moment"
    show(story, "alpha", ("101", "9"), bid="99.9", step=False)
    (place,) = show(story, "beta", ("100.5", "9"), bid="99.9").place
    assert (place.venue, place.quantity, place.post_only) == ("beta", 3, True)


def test_it_moves_for_more_than_repost_bps_and_only_after_the_end_is_certain() -> None:
    story = posting(params={"repost_bps": "10"})
    quote(story, "alpha", "99.5", "100.2", step=False)
    quote(story, "beta", "99.5", "100.2")
    story.venue("open")
    assert story.child.venue == "beta"
    assert quote(story, "alpha", "99.65", "100.2").cancel == (), "15 bps higher, 10 bps of fee"
    decision = quote(story, "alpha", "99.75", "100.2")
    assert len(decision.cancel) == 1
    assert decision.place == ()
    (place,) = ends(story, "beta", "1", "99.5").place
    assert (place.venue, place.quantity, place.price) == ("alpha", 4, Decimal("99.75"))


def test_it_follows_its_own_venue() -> None:
    story = posting()
    quote(story, "beta", "99.5", "100.2")
    story.venue("open")
    assert quote(story, "beta", "99.51", "100.2").cancel == (), "1 bp"
    assert len(quote(story, "beta", "99.55", "100.2").cancel) == 1
    (place,) = ends(story, "beta").place
    assert place.price == Decimal("99.55")


def test_it_is_woken_by_prices_while_it_rests() -> None:
    story = posting(params={"repost_bps": "10"})
    quote(story, "alpha", "99", "100.2", step=False)
    quote(story, "beta", "99.5", "100.2")
    story.venue("open")
    whens = set(story.decision.wake_when)
    assert When(source="ask", at_or_below=Decimal(100), venue="alpha") in whens
    assert When(source="ask", at_or_below=Decimal(100), venue="beta") in whens
    bids = {when.venue: when.at_or_above for when in whens if when.source == "bid"}
    assert bids["beta"] == Decimal("99.5") * Decimal("1.001")
    assert bids["alpha"] is not None
    assert abs(bids["alpha"] * Decimal("0.999") - bids["beta"]) < Decimal("1e-9")


def test_what_comes_within_the_limit_is_taken_after_what_rests_has_ended() -> None:
    story = posting()
    quote(story, "beta", "99.5", "100.2")
    story.venue("open")
    show(story, "alpha", ("99.9", "2"), bid="99")
    assert (len(story.decision.cancel), story.decision.place) == (1, ())
    assert sent(ends(story, "beta")) == [("alpha", "2", "99.90")]


def test_what_may_only_make_never_takes() -> None:
    story = posting(post_only=True)
    (place,) = quote(story, "beta", "99.5", "99.8").place
    assert (place.post_only, place.time_in_force) == (True, TimeInForce.GTC)
    assert story.decision.cancel == ()


def test_a_resting_order_stays_while_no_book_is_known() -> None:
    story = posting()
    quote(story, "beta", "99.5", "100.2")
    story.venue("open")
    story.now += 10_000
    assert story.step().cancel == ()


def test_an_amendment_to_less_takes_the_resting_order_back() -> None:
    story = posting()
    quote(story, "beta", "99.5", "100.2")
    story.venue("open")
    assert len(story.amend(quantity="3").cancel) == 1
    (place,) = ends(story, "beta").place
    assert place.quantity == 3


def test_an_amendment_to_more_rests_beside() -> None:
    story = posting()
    quote(story, "beta", "99.5", "100.2")
    story.venue("open")
    (place,) = story.amend(quantity="8").place
    assert (place.quantity, story.decision.cancel) == (3, ())


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"time_in_force": TimeInForce.FOK}, "time_in_force"),
        ({"time_in_force": TimeInForce.IOC, "params": {"mode": "post"}}, "time_in_force"),
        ({"post_only": True}, "post_only"),
    ],
)
def test_what_does_not_go_together_is_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(Refusal) as refusal:
        router(**fields)
    assert refusal.value.field == field


# --- any market -------------------------------------------------------------------------------------------------------------


class Venues:
    """Several venues that move, fill, miss, refuse and fail at random; every decision is made twice, once after a restart."""

    def __init__(self, story: Story, seed: int) -> None:
        self.story, self.random = story, random.Random(seed)
        self.legs: set[tuple[str, str]] = set()

    def check(self) -> None:
        story = self.story
        if story.state.over:
            return
        view = story.view()
        plan = msgspec.convert(as_record(story.plan), type(story.plan))
        again = decide(story.algorithm, story.plan, view)
        assert again == decide(SmartRouter(), plan, view)
        live = {(child.venue, child.tag) for child in story.live}
        for place in again.place:
            assert place.venue is not None
            assert (place.venue, place.tag) not in live, "one order per venue and round"
            assert story.markets[place.venue].usable
        assert sum(place.quantity for place in again.place) <= view.free

    def act(self) -> None:
        story, dice = self.story, self.random
        story.now += dice.choice((20, 100, 300, 900))
        venue = dice.choice(sorted(story.markets))
        mid = Decimal(dice.randint(9980, 10020)) / 100
        step = Decimal("0.01")
        bids = [(str(mid - step * depth), str(dice.randint(1, 40) / 10)) for depth in range(1, 4)]
        asks = [(str(mid + step * depth), str(dice.randint(1, 40) / 10)) for depth in range(1, 4)]
        if dice.random() < 0.1:
            able(story, venue, usable=not story.markets[venue].usable)
        if dice.random() < 0.05:
            able(story, venue, available=Decimal(dice.choice((0, 3, 150, 100_000))))
        self.check()
        story.market(venue=venue, bids=bids, asks=asks)
        for child in list(story.live):
            if child in story.live and dice.random() < 0.6:
                self.serve(child)
                self.check()

    def serve(self, child: ChildOrder) -> None:
        story, dice = self.story, self.random
        chance = dice.random()
        if chance < 0.1 and child.state is ChildState.PENDING:
            story.state.rejected(child, "no", story.now)
            story.step()
            return
        if chance < 0.15 and child.state is ChildState.PENDING:
            story.state.unknown(child, "no answer", story.now)
            story.step()
            return
        takes = child.time_in_force is TimeInForce.IOC
        lot = story.rules[child.venue].lot
        part = Decimal(dice.choice((0, 30, 100) if takes else (0, 0, 20))) / 100
        quantity = (child.leaves * part / lot).to_integral_value(rounding="ROUND_FLOOR") * lot
        done = child.executed + quantity
        status = "filled" if done == child.quantity else "expired" if takes else "open"
        if status == "open" and child.cancel_requested:
            status = "canceled"
        trades = (story.trade(str(quantity), str(child.price)),) if quantity else ()
        story.venue(status, str(done), *trades, child=child)


@given(
    seed=st.integers(0, 100_000),
    side=st.sampled_from(list(Side)),
    quantity=st.sampled_from(["0.3", "7.25", "60"]),
    limit=st.sampled_from([None, "99.9", "100", "100.1"]),
    mode=st.sampled_from(["sweep", "post"]),
    slippage=st.sampled_from(["0", "2", "20"]),
    most=st.sampled_from([None, 1, 2]),
    count=st.integers(1, 3),
)
@settings(deadline=None, max_examples=150)
def test_in_any_market(
    seed: int, side: Side, quantity: str, limit: str | None, mode: str, slippage: str, most: int | None, count: int
) -> None:
    """Lots, ticks, minimums, limit and quantity hold (`Story` checks each child); no order is more than one round at a venue."""
    venues = {
        "alpha": rules("0.001", maker_fee=Decimal("-0.0001")),
        "beta": rules("0.0005", lot=Decimal("0.01"), min_notional=Decimal(50)),
        "gamma": rules("0.0026", tick=Decimal("0.05"), max_quantity=Decimal(2)),
    }
    chosen = dict(list(venues.items())[:count])
    params = {"mode": mode, "child_slippage_bps": slippage, "max_venues": most}
    story = router(quantity, limit, venues=chosen, params=params, side=side)
    market = Venues(story, seed)
    for _ in range(40):
        market.act()
    rounds: dict[str, list[str]] = {}
    for child in story.state.children:
        if child.tag.startswith("r"):
            assert child.time_in_force is TimeInForce.IOC
            rounds.setdefault(child.tag, []).append(child.venue)
        else:
            assert child.post_only
            assert mode == "post"
        assert child.order_type is OrderType.LIMIT
    for used in rounds.values():
        assert len(used) == len(set(used))
        assert most is None or len(used) <= most
    assert story.state.totals.claimed <= story.state.parent.quantity
