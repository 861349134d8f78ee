"""What a route costs, for random books."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from execution.route_costs import DEPTH, Seen, split
from schemas.market import BookLevel, MarketRules, OrderBook
from schemas.terms import Side

LOT = Decimal("0.1")


def rules(taker_bps: int = 0) -> MarketRules:
    return MarketRules(
        symbol="BTC/USDT",
        base="BTC",
        quote="USDT",
        tick=Decimal("0.01"),
        lot=LOT,
        market_lot=LOT,
        taker_fee=Decimal(taker_bps) / 10_000,
    )


def book(bids: list[tuple[int, int]], asks: list[tuple[int, int]]) -> OrderBook:
    """Levels of (price, quantity in lots), best first."""
    sides = [tuple(BookLevel(Decimal(price), lots * LOT) for price, lots in side) for side in (bids, asks)]
    return OrderBook(symbol="BTC/USDT", bids=sides[0], asks=sides[1], received_at=0.0)


@st.composite
def venues(draw: st.DrawFn) -> list[Seen]:
    found = []
    for number in range(draw(st.integers(1, 4))):
        quantities = st.lists(st.integers(1, 30), max_size=4)
        below = [(1000 - 2 * step - draw(st.integers(0, 1)), lots) for step, lots in enumerate(draw(quantities))]
        above = [(1001 + 2 * step + draw(st.integers(0, 1)), lots) for step, lots in enumerate(draw(quantities))]
        one = Seen(name=f"v{number}", rules=rules(draw(st.integers(-5, 30))), book=book(below, above))
        if draw(st.booleans()):
            one.free = {"BTC": draw(st.integers(0, 40)) * LOT, "USDT": Decimal(draw(st.integers(0, 20_000)))}
        found.append(one)
    return found


@settings(deadline=None, max_examples=200)
@given(venues(), st.sampled_from(Side), st.integers(1, 100), st.none() | st.integers(990, 1010))
def test_the_figures_fit_each_other(seen: list[Seen], side: Side, lots: int, limit: int | None) -> None:
    quantity = lots * LOT
    told = split(side, quantity, Decimal(limit) if limit is not None else None, seen)
    legs = told["legs"]
    assert sum(leg["quantity"] for leg in legs) == told["routed"] == quantity - told["unrouted"]
    assert {leg["venue"] for leg in legs} | set(told["reasons"]) == {one.name for one in seen}
    assert sum(leg["cost"] for leg in legs) == told["cost"]
    assert sum(leg["fee"] for leg in legs) == told["fee"]
    assert told["cost"] == told["routed"] * (told["average_price"] or 0) + told["fee"] * side.sign or (
        # The average price is rounded to 28 decimals.
        abs(told["cost"] - told["routed"] * told["average_price"] - told["fee"] * side.sign) < Decimal("1e-24")
    )
    single = told["best_single"]
    assert (single is None) == (not legs)
    if single is not None:
        assert single["routed"] <= told["routed"]
        assert (single["saving"] is None) == (single["routed"] < told["routed"])
        assert single["saving"] is None or single["saving"] >= 0
    bids = [one.book.bids[0].price for one in seen if one.book is not None and one.book.bids]
    asks = [one.book.asks[0].price for one in seen if one.book is not None and one.book.asks]
    if not bids or not asks:
        assert (told["mid"], told["cost_against_mid"]) == (None, None)
    elif legs:
        assert told["mid"] * 2 == max(bids) + min(asks)
        assert told["cost_against_mid"] * side.sign == told["cost"] - told["mid"] * told["routed"]
        assert told["cost_against_mid_bps"] * told["cost_against_mid"] >= 0
    assert told["used_up"] == [], "books of fewer levels than asked for are all there is"


def test_what_may_lie_deeper() -> None:
    deep = book([(999, 1)], [(1001 + step, 1) for step in range(DEPTH)])
    short = book([(999, 1)], [(1001, 1)])
    whole = DEPTH * LOT

    def used_up(seen: Seen, quantity: Decimal) -> bool:
        return bool(split(Side.BUY, quantity, None, [seen])["used_up"])

    asked = Seen(name="a", rules=rules(), book=deep, source="request")
    assert used_up(asked, whole)
    assert used_up(asked, whole + LOT)
    assert not used_up(asked, whole - LOT)
    assert not used_up(Seen(name="a", rules=rules(), book=short, source="request"), whole)
    assert used_up(Seen(name="a", rules=rules(), book=short, source="stream"), whole)
