"""What holds for the paper venue's matching in any market: nothing is filled that was not there, and nothing worse than asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.base import AdapterError, VenueFill
from adapters.paper.accounts import Account
from adapters.paper.capabilities import paper_rules
from adapters.paper.matching import Change, Matcher
from adapters.paper.orders import PaperOrder
from schemas.market import BookLevel, MarketRules, OrderBook, PublicTrade
from schemas.terms import OrderType, Side, TimeInForce
from tests.unit.test_paper_adapter import SYMBOL, new
from tests.unit.test_paper_matching import FREE

ZERO = Decimal(0)
D = Decimal

quantities = st.integers(1, 40).map(lambda lots: D(lots) / 4)
prices = st.integers(90, 110).map(D)


@st.composite
def books(draw: st.DrawFn) -> OrderBook:
    middle = draw(st.integers(92, 108))
    bids = sorted(draw(st.sets(st.integers(middle - 6, middle - 1), max_size=4)), reverse=True)
    asks = sorted(draw(st.sets(st.integers(middle, middle + 6), max_size=4)))
    return OrderBook(
        symbol=SYMBOL,
        bids=tuple(BookLevel(D(price), draw(quantities)) for price in bids),
        asks=tuple(BookLevel(D(price), draw(quantities)) for price in asks),
        received_at=0.0,
    )


trades = st.builds(
    PublicTrade,
    trade_id=st.just("t"),
    price=prices,
    quantity=quantities,
    timestamp=st.just(0),
    side=st.sampled_from([Side.BUY, Side.SELL, None]),
)


@st.composite
def orders(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from([OrderType.LIMIT] * 6 + [OrderType.MARKET] * 2 + list(OrderType)))
    return {
        "side": draw(st.sampled_from(list(Side))),
        "order_type": kind,
        "quantity": str(draw(quantities)),
        "price": str(draw(prices)) if kind.has_limit_price else None,
        "stop_price": draw(prices) if kind.has_trigger else None,
        "trail_bps": D(200) if kind is OrderType.TRAILING_STOP else None,
        "time_in_force": draw(st.sampled_from([TimeInForce.GTC] * 4 + list(TimeInForce))),
        "display_quantity": draw(st.sampled_from([None, None, D(1)])) if kind.has_limit_price else None,
    }


steps = st.lists(
    st.one_of(books(), st.lists(trades, min_size=1, max_size=3), orders(), st.integers(0, 30)), max_size=40
)
"""A book, trades, an order, or the cancel of one of the orders so far."""
stories = st.tuples(steps, st.sampled_from([D(0), D("0.5"), D(1)]))

Log = list[tuple[Any, list[VenueFill]]]


def run(
    story: tuple[Sequence[Any], Decimal], rules: MarketRules = FREE, account: Account | None = None
) -> tuple[list[PaperOrder], Log]:
    """Play a story: the orders taken, and what each step filled."""
    matcher = Matcher(rules, queue_ahead=story[1], account=account)
    papers: list[PaperOrder] = []
    log: Log = []
    for now, step in enumerate(story[0]):
        changes: Sequence[Change] = ()
        fills: list[VenueFill] = []
        if isinstance(step, OrderBook):
            changes = matcher.on_book(step, now)
        elif isinstance(step, list):
            changes = matcher.on_trades(step, now)
        else:
            try:
                if isinstance(step, int):
                    if step < len(papers):
                        matcher.cancel(papers[step], now)
                else:
                    paper = matcher.place(new(f"o{now}", **step), now)
                    papers.append(paper)
                    fills = list(paper.fills)
            except AdapterError:
                pass
        log.append((step, fills + [fill for _, fill in changes if fill is not None]))
    return papers, log


@settings(max_examples=200, deadline=None)
@given(stories)
def test_an_order_gets_what_it_asked_for_at_most_and_nothing_worse(story: tuple[Any, Decimal]) -> None:
    papers, log = run(story)
    told = Counter[str]()
    for _, fills in log:
        for fill in fills:
            assert fill.quantity > 0
            told[fill.client_order_id or ""] += fill.quantity  # type: ignore[assignment]
    assert len({fill.trade_id for _, fills in log for fill in fills}) == sum(len(fills) for _, fills in log)
    for paper in papers:
        order, filled = paper.order, sum((fill.quantity for fill in paper.fills), ZERO)
        assert filled == told[order.client_order_id], "every fill is told, once"
        assert filled == paper.told().filled == order.quantity - paper.rest <= order.quantity
        assert (paper.status == "filled") == (paper.rest == 0)
        assert paper.ahead >= 0
        for fill in paper.fills:
            if paper.limit is not None:
                assert fill.price <= paper.limit if paper.buys else fill.price >= paper.limit
                assert not fill.maker or fill.price == paper.limit
        if order.time_in_force is TimeInForce.FOK and paper.status != "open":
            assert filled in (ZERO, order.quantity) or any(fill.maker for fill in paper.fills)
        if order.time_in_force is TimeInForce.PO and order.order_type is OrderType.LIMIT:
            assert all(fill.maker for fill in paper.fills)


@settings(max_examples=200, deadline=None)
@given(stories)
def test_nothing_is_filled_that_was_neither_shown_nor_traded(story: tuple[Any, Decimal]) -> None:
    _, log = run(story)
    book: dict[tuple[Side, Decimal], Decimal] = {}
    for step, fills in log:
        if isinstance(step, OrderBook):
            # All that is taken from one side of one book, by takers and by what crosses us, was shown there.
            book = {(Side.BUY, level.price): level.quantity for level in step.asks}
            book |= {(Side.SELL, level.price): level.quantity for level in step.bids}
        traded = sum((trade.quantity for trade in step), ZERO) if isinstance(step, list) else ZERO
        for fill in fills:
            if not fill.maker:
                book[fill.side, fill.price] -= fill.quantity
                assert book[fill.side, fill.price] >= 0, "a taker got more than the book showed"
            elif isinstance(step, list):
                traded -= fill.quantity
                assert traded >= 0, "makers got more than traded"
            else:
                assert isinstance(step, OrderBook)
                rest = fill.quantity
                for price in sorted((p for s, p in book if s is fill.side), reverse=fill.side is Side.SELL):
                    if fill.price >= price if fill.side is Side.BUY else fill.price <= price:
                        part = min(rest, book[fill.side, price])
                        book[fill.side, price] -= part
                        rest -= part
                assert rest == 0, "a book that came to us gave more than it showed"


@settings(max_examples=200, deadline=None)
@given(stories)
def test_no_taker_gets_what_trades_have_gone_through_since_the_book(story: tuple[Any, Decimal]) -> None:
    _, log = run(story)
    latest: dict[Side | None, Decimal] = {}
    """Since the book: the price of the latest trade of each side's takers."""
    last: list[Decimal] = []
    for step, fills in log:
        if isinstance(step, OrderBook):
            latest, last = {}, []
        elif isinstance(step, list):
            latest |= {trade.side: trade.price for trade in step}
            last = [step[-1].price]
        for fill in fills:
            if not fill.maker:
                for price in last + [price for side, price in latest.items() if side is fill.side]:
                    assert fill.price >= price if fill.side is Side.BUY else fill.price <= price


@settings(max_examples=100, deadline=None)
@given(stories)
def test_the_same_inputs_give_the_same_fills(story: tuple[Any, Decimal]) -> None:
    assert run(story)[1] == run(story)[1]


@settings(max_examples=100, deadline=None)
@given(steps)
def test_who_queues_further_back_is_never_filled_more(story: list[Any]) -> None:
    """Compared over one passive order, since what an order got changes what later ones meet."""
    market = [step for step in story if not isinstance(step, (dict, int))]
    start = OrderBook(symbol=SYMBOL, bids=(BookLevel(D(99), D(5)),), asks=(BookLevel(D(101), D(5)),), received_at=0.0)
    passive = {"side": Side.BUY, "quantity": "8", "price": "99"}
    filled = []
    for fraction in (D(0), D("0.5"), D(1)):
        papers, _ = run(([start, passive, *market], fraction))
        filled.append(8 - papers[0].rest)
    assert filled == sorted(filled, reverse=True)


@settings(max_examples=150, deadline=None)
@given(stories, st.booleans(), st.integers(1, 60))
def test_money_is_conserved_and_what_nothing_uses_is_free(
    story: tuple[Any, Decimal], in_base: bool, units: int
) -> None:
    start = {"USDT": D(units) * 100, "BTC": D(units)}
    account = Account(start)
    rules = paper_rules(FREE, None, D("-0.0001"), D("0.001"))
    rules = MarketRules(**{name: getattr(rules, name) for name in rules.__struct_fields__} | {"fee_in_base": in_base})
    papers, log = run(story, rules, account)
    expected = dict(start)
    for _, fills in log:
        for fill in fills:
            sign = fill.side.sign
            expected["BTC"] += sign * fill.quantity
            expected["USDT"] -= sign * fill.quantity * fill.price
            assert fill.fee_asset is not None
            expected[fill.fee_asset] -= fill.fee
    for asset in start:
        assert account.free[asset] + account.used[asset] == expected[asset]
        assert account.free[asset] > D("-1e-9")
        assert account.used[asset] > D("-1e-9")
    if not any(paper.status == "open" for paper in papers):
        assert set(account.used.values()) == {ZERO}
