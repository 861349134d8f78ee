"""The optimal split, against two solvers that know nothing of how it works: every combination, and a dynamic programme."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import accumulate, product
from random import Random
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from msgspec import structs

from algorithms.routing import Route, RouteVenue, Unused, best_single, optimize, price_only, proportional
from algorithms.routing import allocation as routing_allocation
from algorithms.routing.allocation import Offer, allocate
from schemas.market import BookLevel, MarketRules, OrderBook
from schemas.terms import OrderType, Side

D = Decimal
BUY, SELL = Side.BUY, Side.SELL


def venue(
    name: str,
    *levels: tuple[str, str],
    side: Side = BUY,
    fee_bps: str = "0",
    available: str | None = None,
    haircut: str = "0",
    **rules: Any,
) -> RouteVenue:
    """A venue whose book shows only what an order of `side` trades against."""
    shown = tuple(BookLevel(D(price), D(quantity)) for price, quantity in levels)
    known = {key: D(value) if isinstance(value, str) else value for key, value in rules.items()}
    known = {"tick": D("0.01"), "lot": D("0.1"), **known}
    return RouteVenue(
        name=name,
        rules=MarketRules(
            symbol="BTC/USDT", base="BTC", quote="USDT", market_lot=D(0), taker_fee=D(fee_bps) / 10_000, **known
        ),
        book=OrderBook(
            symbol="BTC/USDT",
            bids=shown if side is SELL else (),
            asks=shown if side is BUY else (),
            received_at=0.0,
        ),
        available=None if available is None else D(available),
        haircut=D(haircut),
    )


def split(route: Route) -> dict[str, Decimal]:
    return {leg.venue: leg.quantity for leg in route.legs}


PUBLISHED = (
    venue("A", ("100.00", "1"), ("100.05", "2"), ("100.20", "5"), fee_bps="10"),
    venue("B", ("100.03", "1.5"), ("100.10", "1.5"), ("100.30", "4"), fee_bps="5"),
    venue("C", ("99.98", "0.8"), ("100.01", "3"), ("100.15", "6"), fee_bps="26"),
)


class TestPublishedCase:
    """Three venues at 10, 5 and 26 bps, buy 5; the figures are the published ones."""

    def test_optimum(self) -> None:
        route = optimize(BUY, D(5), PUBLISHED, limit=None)
        assert split(route) == {"A": 3, "B": 2}
        assert round(route.cost, 4) == D("500.5951")
        assert route.exact
        assert route.unrouted == 0
        assert route.reason == {"C": "dearer after fees"}
        assert {leg.venue: leg.limit_price for leg in route.legs} == {"A": D("100.05"), "B": D("100.10")}

    @pytest.mark.parametrize(
        ("compared", "bps"), [(price_only, "10.45"), (best_single, "8.10"), (proportional, "4.45")]
    )
    def test_what_simpler_splits_cost_more(self, compared: Callable[..., Route], bps: str) -> None:
        optimum = optimize(BUY, D(5), PUBLISHED, limit=None)
        other = compared(BUY, D(5), PUBLISHED, None)
        assert other.unrouted == 0
        assert round((other.cost / optimum.cost - 1) * 10_000, 2) == D(bps)

    def test_legs_add_up(self) -> None:
        route = optimize(BUY, D(5), PUBLISHED, limit=None)
        a, b = (next(leg for leg in route.legs if leg.venue == name) for name in "AB")
        assert abs(a.average_price * 3 - D("300.10")) < D("1e-26")
        assert a.fee == D("0.30010")
        assert a.cost == D("300.40010")
        assert b.cost == (D("100.03") * D("1.5") + D("100.10") * D("0.5")) * D("1.0005")
        assert route.cost == a.cost + b.cost
        assert route.effective_price is not None
        assert abs(route.effective_price * 5 - route.cost) < D("1e-26")
        assert [leg.venue for leg in route.legs] == ["B", "A"]


# --- Solvers that share nothing with the code under test but the venue's own rules ---


def choices(side: Side, quantity: Decimal, venue: RouteVenue, limit: Decimal | None) -> list[tuple[Fraction, Fraction]]:
    """Every (quantity, cost after fees; negative: proceeds) one venue accepts, by trying each number of lots."""
    rules, fee = venue.rules, Fraction(venue.rules.taker_fee)
    found = [(Fraction(0), Fraction(0))]
    lots = 1
    while lots * rules.lot <= quantity:
        size = lots * rules.lot
        lots += 1
        left, notional, worst = Fraction(size), Fraction(0), None
        for level in venue.book.opposite(side):
            used = min(left, Fraction(level.quantity) * (1 - Fraction(venue.haircut)))
            if used:
                left -= used
                notional += used * Fraction(level.price)
                worst = level.price
        if left:
            break
        assert worst is not None
        if limit is not None and (worst > limit if side is BUY else worst < limit):
            break
        if rules.refusal(size, OrderType.LIMIT, worst) is not None:
            continue
        if side is SELL:
            needed, cost = Fraction(size), -notional * (1 - fee)
        elif rules.fee_in_base:
            needed, cost = Fraction(size) * Fraction(worst), notional / (1 - fee)
        else:
            needed, cost = Fraction(size) * Fraction(worst) * (1 + max(fee, 0)), notional * (1 + fee)
        if venue.available is None or needed <= Fraction(venue.available):
            found.append((Fraction(size), cost))
    return found


Best = tuple[Fraction, Fraction]
"""What is left over, and the cost of the rest."""


def every_combination(side: Side, quantity: Decimal, venues: Sequence[RouteVenue], limit: Decimal | None) -> Best:
    return min(
        (Fraction(quantity) - sum(size for size, _ in combination), sum((cost for _, cost in combination), Fraction(0)))
        for combination in product(*(choices(side, quantity, venue, limit) for venue in venues))
        if sum(size for size, _ in combination) <= quantity
    )


def dynamic_programme(side: Side, quantity: Decimal, venues: Sequence[RouteVenue], limit: Decimal | None) -> Best:
    """The least cost of every total that can be reached, venue by venue."""
    reached = {Fraction(0): Fraction(0)}
    for venue in venues:
        following: dict[Fraction, Fraction] = {}
        for size, cost in choices(side, quantity, venue, limit):
            for total, paid in reached.items():
                if total + size <= quantity and following.get(total + size, paid + cost + 1) > paid + cost:
                    following[total + size] = paid + cost
        reached = following
    most = max(reached)
    return Fraction(quantity) - most, reached[most]


TENTH = D("0.1")
LOTS = {
    "one": ["0.1"],
    "powers": ["0.01", "0.1", "1"],
    "multiples": ["0.1", "0.2", "0.4", "1.2"],
    "odd": ["0.1", "0.2", "0.3", "0.5", "0.7"],
}


@st.composite
def cases(
    draw: st.DrawFn,
    *,
    venues: int,
    levels: int,
    tenths: int,
    families: Sequence[str] = tuple(LOTS),
    bounds: bool = True,
) -> tuple[Side, Decimal, list[RouteVenue], Decimal | None]:
    side = draw(st.sampled_from(list(Side)))
    family = draw(st.sampled_from(families))
    bounded = bounds and draw(st.booleans())

    def now_and_then(values: st.SearchStrategy[str]) -> str:
        return draw(st.one_of(st.just("0"), values)) if bounded else "0"

    def number(low: int, high: int, digits: int) -> st.SearchStrategy[str]:
        return st.integers(low, high).map(lambda value: f"{D(value).scaleb(-digits):f}")

    made = []
    for index in range(draw(st.integers(2, venues))):
        # Few prices, so that levels tie; one far off, so that a sell's notional can fall as its quantity grows.
        dear = draw(st.lists(st.sampled_from([98, 99, 99, 100, 100, 101, 103]), min_size=1, max_size=levels - 1))
        prices = dear + draw(st.lists(st.sampled_from([1, 40, 130]), max_size=1))
        book = [(str(price), draw(number(1, tenths * 5, 2))) for price in sorted(prices, reverse=side is SELL)]
        lot = draw(st.sampled_from(LOTS[family]))
        scarce = draw(st.one_of(st.none(), number(0, tenths * 2, 1))) if bounded else None
        if scarce is not None and side is BUY:
            scarce = str(D(scarce) * 100)
        made.append(
            venue(
                "ABCD"[index],
                *book,
                side=side,
                fee_bps=draw(st.sampled_from(["0", "5", "10", "26", "150", "-2"])),
                lot=lot,
                fee_in_base=draw(st.booleans()),
                min_quantity=now_and_then(number(1, tenths // 2, 1)),
                max_quantity=now_and_then(number(tenths // 4, tenths, 1)),
                min_notional=now_and_then(number(1, tenths * 5, 0)),
                available=scarce,
                haircut=draw(st.sampled_from(["0", "0", "0", "0", "0.1", "0.5", "1"])),
            )
        )
    finest = min(venue.rules.lot for venue in made)
    lots = tenths if finest >= TENTH else 3 * tenths
    quantity = draw(st.integers(lots // 3, lots)) * finest + draw(st.sampled_from([D(0), D("0.03"), D("0.005")]))
    return side, quantity, made, draw(st.sampled_from([None, None, None, D(99), D("100.5")]))


def check(route: Route, best: Best, venues: Sequence[RouteVenue], limit: Decimal | None) -> None:
    assert route.exact
    assert Fraction(route.unrouted) == best[0]
    # A fee in the base asset divides, and a quotient is rounded at the 28th decimal.
    assert abs(Fraction(route.cost) * route.side.sign - best[1]) < Fraction(1, 10**24)
    check_legs(route, venues, limit)


def check_legs(route: Route, venues: Sequence[RouteVenue], limit: Decimal | None) -> None:
    """What a route says of itself is so, and its venues would accept it."""
    by_name = {venue.name: venue for venue in venues}
    assert set(by_name) == {leg.venue for leg in route.legs} ^ set(route.reason)
    assert sum((leg.quantity for leg in route.legs), route.unrouted) == route.quantity
    assert sum(leg.cost for leg in route.legs) == route.cost
    worths = [leg.cost / leg.quantity * route.side.sign for leg in route.legs]
    assert worths == sorted(worths)
    for leg in route.legs:
        sizes = dict(choices(route.side, leg.quantity, by_name[leg.venue], limit))
        assert abs(sizes[Fraction(leg.quantity)] - Fraction(leg.cost) * route.side.sign) < Fraction(1, 10**24)
        assert abs(leg.average_price * leg.quantity + leg.fee * route.side.sign - leg.cost) < D("1e-24")
        assert leg.quantity % by_name[leg.venue].rules.lot == 0


@settings(deadline=None, max_examples=200)
@given(cases(venues=3, levels=3, tenths=12))
def test_no_combination_of_lots_is_better(case: tuple[Side, Decimal, list[RouteVenue], Decimal | None]) -> None:
    side, quantity, venues, limit = case
    route = optimize(side, quantity, venues, limit=limit)
    event(f"legs {len(route.legs)}, left over {route.unrouted > 0}")
    check(route, every_combination(side, quantity, venues, limit), venues, limit)


@settings(deadline=None, max_examples=100)
@given(cases(venues=4, levels=5, tenths=60))
def test_no_path_of_a_dynamic_programme_is_better(
    case: tuple[Side, Decimal, list[RouteVenue], Decimal | None],
) -> None:
    side, quantity, venues, limit = case
    check(
        optimize(side, quantity, venues, limit=limit),
        dynamic_programme(side, quantity, venues, limit),
        venues,
        limit,
    )


@settings(deadline=None, max_examples=100)
@given(cases(venues=4, levels=4, tenths=40))
def test_simpler_splits_can_be_placed_and_are_never_better(
    case: tuple[Side, Decimal, list[RouteVenue], Decimal | None],
) -> None:
    side, quantity, venues, limit = case
    optimum = optimize(side, quantity, venues, limit=limit)
    for compared in (best_single, price_only, proportional):
        route = compared(side, quantity, venues, limit)
        check_legs(route, venues, limit)
        assert not route.exact
        key = (route.unrouted, route.cost * side.sign)
        assert key >= (optimum.unrouted, optimum.cost * side.sign - D("1e-24"))


# --- The allocation alone: lots of any size and ranges with holes, in small integers ---


@st.composite
def offers(draw: st.DrawFn) -> list[Offer]:
    made = []
    for _ in range(draw(st.integers(2, 3))):
        costs = draw(st.lists(st.integers(-20, 20), min_size=1, max_size=4).map(sorted))
        lot = draw(st.sampled_from([1, 2, 3, 4, 5, 6, 10, 15]))
        runs = tuple((cost * lot, draw(st.integers(1, 4))) for cost in costs)
        most = sum(lots for _, lots in runs)
        edges = sorted(draw(st.sets(st.integers(1, most), min_size=1, max_size=4)))
        pairs = [*zip(edges[::2], edges[1::2], strict=False)] or [(edges[0], edges[0])]
        allowed = [
            pair for pair, after in zip(pairs, [*pairs[1:], None], strict=True) if not after or pair[1] + 1 < after[0]
        ]
        made.append(Offer(lot, runs, tuple(allowed)))
    return made


def lot_costs(offer: Offer) -> list[int]:
    return [0, *accumulate(cost for cost, lots in offer.runs for _ in range(lots))]


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 60), offers())
def test_no_allocation_of_lots_is_better(quantity: int, made: list[Offer]) -> None:
    allocation = allocate(quantity, made)
    costs = [lot_costs(offer) for offer in made]

    def judged(lots: Sequence[int]) -> tuple[int, int]:
        taken = sum(number * offer.lot for number, offer in zip(lots, made, strict=True))
        return quantity - taken, sum(cost[number] for number, cost in zip(lots, costs, strict=True))

    combinations = product(
        *([n for n in range(len(c)) if offer.allows(n)] for offer, c in zip(made, costs, strict=True))
    )
    assert allocation.exact
    assert all(offer.allows(lots) for offer, lots in zip(made, allocation.lots, strict=True))
    assert judged(allocation.lots) == min(left for lots in combinations if (left := judged(lots))[0] >= 0)


class TestLots:
    def test_what_the_coarse_lots_cannot_make_up_is_taken_where_lots_are_fine(self) -> None:
        coarse = venue("coarse", ("100.00", "5"), lot="0.001")
        fine = venue("fine", ("100.50", "5"), lot="0.0001")
        route = optimize(BUY, D("1.0007"), [coarse, fine], limit=None)
        assert split(route) == {"coarse": D("1"), "fine": D("0.0007")}
        assert route.unrouted == 0

    def test_the_cheaper_lot_is_left_out_where_it_would_leave_a_rest(self) -> None:
        fives = venue("fives", ("100.00", "5"), lot="0.5")
        twos = venue("twos", ("101.00", "5"), lot="0.2")
        assert split(optimize(BUY, D("0.6"), [fives, twos], limit=None)) == {"twos": D("0.6")}
        assert split(optimize(BUY, D("0.7"), [fives, twos], limit=None)) == {"fives": D("0.5"), "twos": D("0.2")}
        rest = optimize(BUY, D("0.3"), [fives, twos], limit=None)
        assert split(rest) == {"twos": D("0.2")}
        assert rest.unrouted == D("0.1")
        assert rest.reason == {"fives": "below its lot"}

    def test_one_lot_may_span_two_levels(self) -> None:
        spans = venue("spans", ("100.00", "0.6"), ("102.00", "5"), lot="1")
        route = optimize(BUY, D(1), [spans], limit=None)
        assert route.average_price == D("100.8")
        assert optimize(BUY, D(1), [spans], limit=D(101)).reason == {"spans": "below its lot"}

    def test_without_a_lot_any_written_quantity_goes(self) -> None:
        first = venue("first", ("100.00", "0.1234567"), lot="0")
        second = venue("second", ("101.00", "9"), lot="0")
        route = optimize(BUY, D(1), [first, second], limit=None)
        assert split(route) == {"first": D("0.1234567"), "second": D("0.8765433")}

    def test_the_longest_numbers_a_record_holds_stay_exact(self) -> None:
        tiny = D("1E-28")
        first = venue("first", ("12345678901.123456789", "1.0000000000000000000000000001"), lot="1E-28", tick="0")
        second = venue("second", ("12345678901.123456788", "123456789.5"), lot="1E-28", tick="0")
        asked = D(123456790) + D("0.5") + tiny
        with localcontext(prec=28):
            route = optimize(BUY, asked, [first, second], limit=None)
        assert route.unrouted == 0
        assert split(route) == {"second": D("123456789.5"), "first": 1 + tiny}
        assert route.cost == D("12345678901.123456789") * (1 + tiny) + D("12345678901.123456788") * D("123456789.5")


class TestFees:
    def test_a_fee_in_the_base_asset_counts_for_more(self) -> None:
        quote = venue("quote", ("100.00", "5"), fee_bps="100")
        base = venue("base", ("100.00", "5"), fee_bps="100", fee_in_base=True)
        assert split(optimize(BUY, D(1), [base, quote], limit=None)) == {"quote": 1}
        leg = optimize(
            BUY, D("0.99"), [venue("x", ("100", "5"), fee_bps="100", fee_in_base=True, lot="0.01")], limit=None
        ).legs[0]
        assert (leg.cost, leg.fee, leg.average_price) == (100, 1, 100)

    def test_a_sell_receives_less(self) -> None:
        dear = venue("dear", ("100.00", "5"), side=SELL, fee_bps="50", fee_in_base=True)
        cheap = venue("cheap", ("99.60", "5"), side=SELL)
        route = optimize(SELL, D(7), [dear, cheap], limit=None)
        assert [(leg.venue, leg.cost) for leg in route.legs] == [("cheap", 498), ("dear", D("199.00"))]
        assert route.cost == D("697.00")

    def test_a_rebate_makes_cheaper(self) -> None:
        pays = venue("pays", ("100.01", "5"), fee_bps="-5")
        route = optimize(BUY, D(1), [venue("free", ("100.00", "5")), pays], limit=None)
        assert split(route) == {"pays": 1}
        assert route.legs[0].fee < 0

    def test_of_equal_costs_the_better_price_before_fees(self) -> None:
        venues = [venue("fee", ("100.00", "5"), fee_bps="10"), venue("none", ("100.10", "5"))]
        for order in (venues, venues[::-1]):
            assert split(optimize(BUY, D(1), order, limit=None)) == {"fee": 1}


class TestWhyNot:
    @pytest.mark.parametrize(
        ("other", "why"),
        [
            (venue("x"), Unused.EMPTY),
            (venue("x", ("99.00", "5"), active=False), Unused.CLOSED),
            (venue("x", ("99.00", "5"), haircut="1"), Unused.DISTRUSTED),
            (venue("x", ("100.51", "5")), Unused.LIMIT),
            (venue("x", ("99.00", "5"), min_price="99.50"), Unused.PRICE_BOUNDS),
            (venue("x", ("99.00", "5"), max_price="98.50"), Unused.PRICE_BOUNDS),
            (venue("x", ("99.00", "5"), available="0"), Unused.BALANCE),
            (venue("x", ("99.00", "5"), available="98", min_quantity="1"), Unused.BALANCE),
            (venue("x", ("99.00", "0.05")), Unused.LOT),
            (venue("x", ("99.00", "5"), min_quantity="2"), Unused.MINIMUM),
            (venue("x", ("99.00", "5"), min_notional="100"), Unused.MINIMUM),
            (venue("x", ("99.90", "0.5"), ("100.40", "2"), min_notional="100"), Unused.MINIMUM),
            (venue("x", ("100.00", "5"), fee_bps="1"), Unused.DEARER),
        ],
    )
    def test_of_an_optimum(self, other: RouteVenue, why: Unused) -> None:
        route = optimize(BUY, D(1), [venue("good", ("100.00", "5")), other], limit=D("100.50"))
        assert split(route) == {"good": 1}
        assert route.reason == {"x": why}

    def test_nobody_can(self) -> None:
        route = optimize(BUY, D(1), [venue("x", ("100.00", "5"))], limit=D(99))
        assert (route.legs, route.unrouted, route.cost, route.average_price) == ((), 1, 0, None)
        assert optimize(BUY, D(1), [], limit=None).unrouted == 1


class TestBounds:
    def test_a_haircut_shortens_every_level(self) -> None:
        old = venue("old", ("99.00", "1"), ("99.50", "1"), haircut="0.4")
        route = optimize(BUY, D(2), [old, venue("new", ("100.00", "5"))], limit=None)
        assert split(route) == {"old": D("1.2"), "new": D("0.8")}

    def test_the_limit_price_is_what_a_balance_must_hold(self) -> None:
        levels = (("100.00", "1"), ("110.00", "1"))
        # 1.9 walks to 110 and may be asked for 209, though it costs 199.
        assert split(optimize(BUY, D(2), [venue("x", *levels, available="208")], limit=None)) == {"x": D("1.8")}
        assert split(optimize(BUY, D(2), [venue("x", *levels, available="209")], limit=None)) == {"x": D("1.9")}
        assert split(optimize(BUY, D(2), [venue("x", *levels, available="209", fee_bps="1")], limit=None)) == {
            "x": D("1.8")
        }

    def test_a_sell_spends_the_base_asset(self) -> None:
        route = optimize(SELL, D(2), [venue("x", ("100.00", "5"), side=SELL, available="1.25")], limit=None)
        assert split(route) == {"x": D("1.2")}
        assert route.unrouted == D("0.8")

    def test_a_minimum_is_met_by_taking_from_a_cheaper_venue(self) -> None:
        cheap = venue("cheap", ("100.00", "3"))
        needed = venue("needed", ("101.00", "5"), min_quantity="2")
        route = optimize(BUY, D(4), [cheap, needed], limit=None)
        assert split(route) == {"cheap": 2, "needed": 2}

    def test_a_minimum_is_met_in_full_or_not_at_all(self) -> None:
        cheap, dear = venue("cheap", ("100.00", "3")), venue("dear", ("101.20", "5"))
        needed = venue("needed", ("101.00", "5"), min_quantity="2")
        route = optimize(BUY, D(4), [cheap, needed, dear], limit=None)
        assert split(route) == {"cheap": 3, "dear": 1}
        assert route.reason == {"needed": "below its minimum"}

    def test_selling_more_can_fall_below_the_minimum_notional_again(self) -> None:
        falls = venue("falls", ("100.00", "1"), ("1.00", "5"), side=SELL, min_notional="50")
        route = optimize(SELL, D(3), [falls], limit=None)
        assert split(route) == {"falls": 1}
        assert route.unrouted == 2

    def test_a_level_between_ticks_is_reached_from_the_tick_beyond(self) -> None:
        between = venue("x", ("100.003", "1"))
        assert optimize(BUY, D(1), [between], limit=D("100.01")).legs[0].limit_price == D("100.01")
        assert optimize(BUY, D(1), [between], limit=D("100.009")).legs == ()
        held = structs.replace(between, available=D("100.009"))
        assert split(optimize(BUY, D(1), [held], limit=None)) == {"x": D("0.9")}
        selling = venue("x", ("100.003", "1"), side=SELL)
        assert optimize(SELL, D(1), [selling], limit=None).legs[0].limit_price == D("100.00")

    def test_a_book_in_the_wrong_order_is_sorted(self) -> None:
        mixed = venue("x", ("101.00", "1"), ("100.00", "1"))
        assert optimize(BUY, D(1), [mixed], limit=None).cost == 100

    @pytest.mark.parametrize(
        ("quantity", "limit", "venues", "says"),
        [
            ("0", None, [], "quantity"),
            ("NaN", None, [], "quantity"),
            ("1", "0", [], "limit"),
            ("1", None, [venue("x"), venue("x")], "same name"),
            ("1", None, [venue("x", fee_bps="10000")], "taker fee of x"),
            ("1", None, [venue("x", haircut="1.1")], "haircut of x"),
        ],
    )
    def test_nonsense_is_refused(self, quantity: str, limit: str | None, venues: list[RouteVenue], says: str) -> None:
        with pytest.raises(ValueError, match=says):
            optimize(BUY, D(quantity), venues, limit=limit and D(limit))  # type: ignore[arg-type]

    def test_pairs_are_not_mixed(self) -> None:
        other = venue("y", ("100.00", "1"))
        other = structs.replace(other, rules=structs.replace(other.rules, quote="USD"))
        with pytest.raises(ValueError, match="same pair"):
            optimize(BUY, D(1), [venue("x", ("100.00", "1")), other], limit=None)


class TestComparisons:
    def test_best_single_takes_the_most_first(self) -> None:
        small, large = venue("small", ("99.00", "1")), venue("large", ("100.00", "5"))
        route = best_single(BUY, D(2), [small, large], None)
        assert split(route) == {"large": 2}
        assert route.reason == {"small": "another venue alone is better"}

    def test_proportional_is_by_depth_within_the_limit(self) -> None:
        deep = venue("deep", ("100.00", "6"), ("120.00", "50"))
        thin = venue("thin", ("99.00", "2"))
        assert split(proportional(BUY, D(4), [thin, deep], D(110))) == {"deep": 3, "thin": 1}

    def test_price_only_does_not_see_fees(self) -> None:
        venues = [venue("fee", ("100.00", "5"), fee_bps="100"), venue("free", ("100.01", "5"))]
        route = price_only(BUY, D(1), venues, None)
        assert split(route) == {"fee": 1}
        assert route.cost == 101
        assert route.reason == {"free": "dearer by price"}


class TestWhereItIsNotExact:
    """Both shortcuts are said of the route, give one that can be placed, and cost little."""

    @settings(deadline=None, max_examples=150, derandomize=True)
    @given(cases(venues=4, levels=4, tenths=40, families=("odd",), bounds=False))
    def test_a_narrow_window_over_odd_lots_loses_at_most_one_lot(
        self, case: tuple[Side, Decimal, list[RouteVenue], Decimal | None]
    ) -> None:
        side, quantity, venues, limit = case
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(routing_allocation, "MOST_STEPS", 1)
            route = optimize(side, quantity, venues, limit=limit)
        check_legs(route, venues, limit)
        left, cost = dynamic_programme(side, quantity, venues, limit)
        event(f"exact {route.exact}")
        if route.exact:
            assert Fraction(route.unrouted) == left
        lot = max(venue.rules.lot for venue in venues)
        assert left <= route.unrouted < left + Fraction(lot)
        if route.unrouted == left:
            prices = [level.price for venue in venues for level in venue.book.opposite(side)]
            spread = Fraction(max(prices) - min(prices)) + Fraction(max(prices)) * Fraction("0.0304")
            assert cost <= Fraction(route.cost) * side.sign + Fraction(1, 10**24)
            assert Fraction(route.cost) * side.sign <= cost + Fraction(lot) * spread

    def test_too_many_minimums(self, monkeypatch: pytest.MonkeyPatch) -> None:
        random = Random(7)
        shortcuts = 0
        for _ in range(6):
            venues = [
                venue(
                    f"V{index}",
                    *(
                        (f"{D(price) / 100}", f"{D(random.randint(1, 100)) / 200}")
                        for price in sorted(random.sample(range(10000, 10040), 10))
                    ),
                    fee_bps=random.choice(["5", "5.5", "6"]),
                    lot="0.001",
                    min_quantity="0.7",
                )
                for index in range(12)
            ]
            monkeypatch.undo()
            optimum = optimize(BUY, D(5), venues, limit=None)
            monkeypatch.setattr(routing_allocation, "MOST_NODES", 8)
            route = optimize(BUY, D(5), venues, limit=None)
            check_legs(route, venues, None)
            assert optimum.exact
            assert route.unrouted == optimum.unrouted == 0
            if route.exact:
                assert route.cost == optimum.cost
            else:
                shortcuts += 1
                assert 0 <= (route.cost / optimum.cost - 1) * 10_000 < 1
        assert shortcuts
