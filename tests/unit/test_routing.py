"""The optimal split, against two solvers that know nothing of how it works: every combination, and a dynamic programme."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import product
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from algorithms import routing_allocation
from algorithms.routing import Route, RouteVenue, Unused, best_single, optimize, price_only, proportional
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
        assert abs(route.effective_price * 5 - route.cost) < D("1e-26")  # type: ignore[operator]
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
    draw: st.DrawFn, *, venues: int, levels: int, tenths: int
) -> tuple[Side, Decimal, list[RouteVenue], Decimal | None]:
    side = draw(st.sampled_from(list(Side)))
    family = draw(st.sampled_from(list(LOTS)))
    bounded = draw(st.booleans())

    def now_and_then(values: st.SearchStrategy[str]) -> str:
        return draw(st.one_of(st.just("0"), values)) if bounded else "0"

    def number(low: int, high: int, digits: int) -> st.SearchStrategy[str]:
        return st.integers(low, high).map(lambda value: f"{D(value).scaleb(-digits):f}")

    made = []
    for index in range(draw(st.integers(1, venues))):
        # Few prices, far apart in places, so that levels tie and a sell's notional can fall as its quantity grows.
        prices = draw(st.lists(st.sampled_from([1, 40, 90, 95, 98, 99, 100, 101, 104, 130]), max_size=levels))
        book = [(str(price), draw(number(1, tenths * 10, 2))) for price in sorted(prices, reverse=side is SELL)]
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
                min_quantity=now_and_then(number(1, tenths, 1)),
                max_quantity=now_and_then(number(1, tenths, 1)),
                min_notional=now_and_then(number(1, tenths * 10, 0)),
                available=scarce,
                haircut=draw(st.sampled_from(["0", "0", "0.1", "0.5", "1"])),
            )
        )
    finest = min(venue.rules.lot for venue in made)
    lots = tenths if finest >= TENTH else 3 * tenths
    quantity = draw(st.integers(1, lots)) * finest + draw(st.sampled_from([D(0), D("0.03"), D("0.005")]))
    return side, quantity, made, draw(st.one_of(st.none(), st.sampled_from([D(95), D(100), D("100.5")])))


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
