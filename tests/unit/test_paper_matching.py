"""The paper venue's matching model, one story per rule. The market shows 99 / 101 unless a story says otherwise."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from adapters.base import DuplicateClientOrderId, InsufficientFunds, OrderUnknown, PostOnlyRejected, Rejected
from adapters.paper.accounts import Account
from adapters.paper.capabilities import Capabilities, paper_rules
from adapters.paper.matching import Matcher
from adapters.paper.orders import PaperOrder
from schemas.market import MarketRules, PublicTrade
from schemas.terms import OrderType, Side, TimeInForce
from tests.unit.test_paper_adapter import RULES, new, shown

D = Decimal
FREE = paper_rules(msgspec.structs.replace(RULES, min_notional=D(0)), Capabilities(), D(0), D(0))
IOC, FOK, PO = TimeInForce.IOC, TimeInForce.FOK, TimeInForce.PO


class Desk:
    """What happens goes in, our fills come out as "QUANTITY@PRICE"."""

    def __init__(self, bids: str = "99x10", asks: str = "101x10", *, rules: MarketRules = FREE, **options: Any) -> None:
        self.matcher = Matcher(rules, **options)
        self.now = 0
        self.number = 0
        self.shows(bids, asks)

    def shows(self, bids: str = "99x10", asks: str = "101x10") -> list[str]:
        """The market shows a book."""
        self.now += 1
        return [_said(fill) for _, fill in self.matcher.on_book(shown(bids, asks), self.now) if fill is not None]

    def sold(self, quantity: str, price: str = "99", side: Side | None = Side.SELL) -> list[str]:
        """Somebody sells into the bids."""
        self.now += 1
        trade = PublicTrade(trade_id="t", price=D(price), quantity=D(quantity), timestamp=self.now, side=side)
        return [_said(fill) for _, fill in self.matcher.on_trades([trade], self.now) if fill is not None]

    def bought(self, quantity: str, price: str = "101") -> list[str]:
        """Somebody buys from the asks."""
        return self.sold(quantity, price, Side.BUY)

    def buys(self, quantity: str, price: str | None = None, **fields: Any) -> PaperOrder:
        return self.places(Side.BUY, quantity, price, **fields)

    def sells(self, quantity: str, price: str | None = None, **fields: Any) -> PaperOrder:
        return self.places(Side.SELL, quantity, price, **fields)

    def places(self, side: Side, quantity: str, price: str | None, **fields: Any) -> PaperOrder:
        self.now += 1
        self.number += 1
        name = fields.pop("name", f"o{self.number}")
        return self.matcher.place(new(name, side, quantity, price, **fields), self.now)

    def cancels(self, paper: PaperOrder) -> None:
        self.matcher.cancel(paper, self.now)


def _said(fill: Any) -> str:
    return f"{fill.quantity.normalize():f}@{fill.price:f}"


def fills(paper: PaperOrder) -> list[str]:
    return [_said(fill) for fill in paper.fills]


# --- takers -----------------------------------------------------------------------------------------------------------


def test_a_taker_walks_the_levels_at_their_prices() -> None:
    desk = Desk(asks="101x2 102x3 105x5")
    order = desk.buys("6")
    assert fills(order) == ["2@101", "3@102", "1@105"]
    assert order.status == "filled"
    assert not any(fill.maker for fill in order.fills)


def test_a_limit_is_never_passed_and_the_rest_rests() -> None:
    desk = Desk(asks="101x2 102x3")
    order = desk.buys("4", "101")
    assert fills(order) == ["2@101"]
    assert (order.status, order.rest) == ("open", D(2))


def test_immediate_or_cancel_takes_what_is_there() -> None:
    desk = Desk(asks="101x2")
    order = desk.buys("4", "101", time_in_force=IOC)
    assert (fills(order), order.status, order.reason) == (["2@101"], "expired", "immediate or cancel")


def test_fill_or_kill_is_all_or_nothing() -> None:
    desk = Desk(asks="101x2 102x2")
    killed = desk.buys("3", "101", time_in_force=FOK)
    assert (fills(killed), killed.status) == ([], "expired")
    assert fills(desk.buys("3", "102", time_in_force=FOK)) == ["2@101", "1@102"]


def test_a_market_order_beyond_the_book_expires_with_the_rest() -> None:
    desk = Desk(bids="99x1 98x1")
    order = desk.sells("5")
    assert (fills(order), order.status, order.rest) == (["1@99", "1@98"], "expired", D(3))
    assert order.reason == "beyond the depth of the book"


def test_what_we_took_stays_taken_until_the_level_changes() -> None:
    desk = Desk(asks="101x2 102x3")
    assert fills(desk.buys("1")) == ["1@101"]
    assert fills(desk.buys("2")) == ["1@101", "1@102"]
    desk.shows(asks="101x2 102x4")
    assert fills(desk.buys("1")) == ["1@102"], "101 still shows what we took; 102 is another level now"
    desk.shows(asks="100.5x1 101x2 102x4")
    assert fills(desk.buys("2")) == ["1@100.5", "1@102"], "a better level is new"
    desk.shows(asks="101x3")
    assert fills(desk.buys("5")) == ["3@101"]


def test_a_book_that_repeats_itself_gives_nothing_back() -> None:
    desk = Desk(bids="99x2 98x2 97x2", asks="101x2 102x2 103x2")
    for _ in range(2):
        desk.sells("2")
        desk.buys("2")
        desk.shows(bids="99x2 98x2 97x2", asks="101x2 102x2 103x2")
    assert fills(desk.sells("1")) == ["1@97"]
    assert fills(desk.buys("1")) == ["1@103"]


def test_a_level_that_went_and_came_back_is_another() -> None:
    desk = Desk(asks="101x2 102x3")
    desk.buys("2")
    desk.shows(asks="102x3")
    desk.shows(asks="101x2 102x3")
    assert fills(desk.buys("1")) == ["1@101"]


# --- the queue --------------------------------------------------------------------------------------------------------


def test_what_is_displayed_trades_first() -> None:
    desk = Desk()
    order = desk.buys("3", "99")
    assert desk.sold("10") == []
    assert desk.sold("2") == ["2@99"]
    assert order.fills[0].maker
    assert desk.sold("5") == ["1@99"]
    assert order.status == "filled"


def test_one_trade_can_eat_the_queue_and_us() -> None:
    desk = Desk()
    desk.sells("3", "101")
    assert desk.bought("11.5") == ["1.5@101"]


@pytest.mark.parametrize(("fraction", "reached"), [("0", "3"), ("0.5", "2"), ("1", "0")])
def test_how_much_is_ahead_can_be_chosen(fraction: str, reached: str) -> None:
    desk = Desk(queue_ahead=D(fraction))
    order = desk.buys("3", "99")
    desk.sold("7")
    assert order.order.quantity - order.rest == D(reached)


def test_nobody_is_ahead_inside_the_spread() -> None:
    desk = Desk()
    desk.buys("3", "100")
    assert desk.sold("1", "100") == ["1@100"]


def test_what_comes_later_is_behind() -> None:
    desk = Desk()
    desk.buys("3", "99")
    desk.shows(bids="99x50")
    assert desk.sold("11") == ["1@99"]


def test_a_buyer_of_the_same_price_is_no_trade_for_a_bid() -> None:
    desk = Desk(bids="99x0.001")
    desk.buys("3", "99")
    assert desk.sold("5", side=Side.BUY) == []
    assert desk.sold("5", side=None) == ["3@99"], "a tape that does not say the taker is believed"
    desk.sells("3", "100")
    assert desk.sold("5", "100", side=Side.SELL) == []
    assert desk.sold("5", "100", side=None) == ["3@100"]


def test_one_trade_is_shared_by_our_bids_and_asks() -> None:
    for side in (Side.BUY, Side.SELL, None):
        desk = Desk()
        desk.buys("2", "100.5")
        desk.sells("2", "99.5")
        first, second = ("99.5", "100.5") if side is Side.BUY else ("100.5", "99.5")
        assert desk.sold("3", "100", side) == [f"2@{first}", f"1@{second}"]


def test_cancellations_ahead_move_us_up_in_proportion() -> None:
    desk = Desk()
    order = desk.buys("3", "99")
    desk.shows(bids="99x20")
    desk.shows(bids="99x10")  # of 20 half went: 5 of the 10 ahead
    desk.shows(bids="99x10")  # and no trade explained it
    assert order.ahead == 5
    assert desk.sold("6") == ["1@99"]


def test_a_trade_explains_what_the_level_lost_whichever_comes_first() -> None:
    for book_first in (False, True):
        desk = Desk()
        order = desk.buys("3", "99")
        if book_first:
            desk.shows(bids="99x6")
            assert desk.sold("4") == []
        else:
            assert desk.sold("4") == []
            desk.shows(bids="99x6")
        desk.shows(bids="99x6")
        assert order.ahead == 6, f"the book first: {book_first}"
        assert desk.sold("7") == ["1@99"]


def test_only_the_part_that_no_trade_explains_was_cancelled() -> None:
    desk = Desk()
    order = desk.buys("3", "99")
    desk.shows(bids="99x4")
    desk.sold("2")  # of the six lost: 8 were left, of which 4 were cancelled
    desk.shows(bids="99x4")
    assert order.ahead == 4


@pytest.mark.parametrize("book_first", [True, False])
def test_a_trade_explains_a_loss_once(book_first: bool) -> None:
    desk = Desk()
    order = desk.buys("3", "99")
    if book_first:
        desk.shows(bids="99x6")
        desk.sold("4")
    else:
        desk.sold("4")
        desk.shows(bids="99x6")
    desk.shows(bids="99x3")
    desk.shows(bids="99x3")
    assert order.ahead == 3


def test_who_joins_after_a_cancellation_gains_nothing_from_it() -> None:
    desk = Desk()
    first = desk.buys("1", "99")
    desk.shows(bids="99x6")
    second = desk.buys("1", "99")
    desk.shows(bids="99x6")
    assert (first.ahead, second.ahead) == (D(6), D(6))


def test_a_market_that_moves_away_leaves_the_queue_as_it_was() -> None:
    desk = Desk()
    order = desk.buys("3", "99")
    for _ in range(2):
        desk.shows(bids="110x1 105x1", asks="111x1")
    assert order.ahead == 10
    desk.shows(bids="99x8")
    desk.shows(bids="99x8")
    assert order.ahead == 8


def test_a_level_that_vanished_leaves_us_in_front() -> None:
    desk = Desk()
    order = desk.buys("3", "99")
    desk.shows(bids="98x10")
    desk.shows(bids="99x7 98x10")
    assert order.ahead == 0
    assert desk.sold("2") == ["2@99"]


def test_a_price_deeper_than_the_book_queues_from_when_it_is_seen() -> None:
    desk = Desk(bids="99x10 98x10")
    order = desk.buys("3", "97")
    assert desk.sold("50", "97") == [], "the queue there is not known"
    desk.shows(bids="98x10 97x4")
    assert order.ahead == 4
    assert desk.sold("5", "97") == ["1@97"]


def test_our_own_orders_at_one_price_queue_behind_one_another() -> None:
    desk = Desk()
    first, second = desk.buys("2", "99"), desk.buys("2", "99")
    assert desk.sold("11") == ["1@99"]
    assert (first.rest, second.rest) == (D(1), D(2))
    assert desk.sold("2") == ["1@99", "1@99"]
    desk.cancels(second)
    assert desk.sold("5") == []


def test_our_own_orders_never_trade_with_each_other() -> None:
    desk = Desk()
    buy, sell = desk.buys("2", "100"), desk.sells("2", "100")
    assert (buy.status, sell.status) == ("open", "open")
    desk.shows()
    assert (buy.fills, sell.fills) == ([], [])


# --- through, and crossed ---------------------------------------------------------------------------------------------


def test_a_trade_through_our_price_fills_us_at_it_up_to_what_traded() -> None:
    desk = Desk()
    order = desk.buys("3", "99")
    assert desk.sold("2", "98.5") == ["2@99"]
    assert desk.sold("2", "98.5") == ["1@99"]
    assert order.status == "filled"


def test_a_trade_through_has_swept_the_queue_before_us() -> None:
    desk = Desk()
    desk.buys("3", "99")
    assert desk.sold("1", "98.5") == ["1@99"]
    assert desk.sold("1", "99") == ["1@99"]


def test_the_better_price_trades_before_the_worse() -> None:
    desk = Desk(bids="90x1")
    worse, better = desk.buys("2", "95"), desk.buys("2", "96")
    assert desk.sold("3", "94") == ["2@96", "1@95"]
    assert (better.status, worse.status) == ("filled", "open")


def test_a_book_that_comes_to_us_fills_us_as_maker_at_our_price() -> None:
    desk = Desk()
    order = desk.buys("3", "99")
    assert desk.shows(bids="97x1", asks="98x2") == ["2@99"]
    assert order.fills[0].maker
    assert desk.shows(bids="97x1", asks="98x2") == [], "that quantity is used up"
    assert desk.shows(bids="97x1", asks="98x4") == ["1@99"]


def test_what_crossed_us_is_not_there_for_a_taker_too() -> None:
    desk = Desk()
    desk.buys("3", "99")
    desk.shows(bids="97x1", asks="98x4 100x1")
    assert fills(desk.buys("2")) == ["1@98", "1@100"]


def test_post_only_never_takes() -> None:
    desk = Desk()
    with pytest.raises(PostOnlyRejected):
        desk.buys("1", "101", post_only=True)
    with pytest.raises(PostOnlyRejected):
        desk.sells("1", "98", time_in_force=PO)
    assert desk.buys("1", "100.99", post_only=True).status == "open"


# --- triggers ---------------------------------------------------------------------------------------------------------


def test_a_stop_waits_for_a_trade_at_its_price() -> None:
    desk = Desk()
    order = desk.sells("2", order_type=OrderType.STOP, stop_price=D(98))
    desk.shows(bids="97x10", asks="98x10")
    assert order.status == "open", "a quote is no trade"
    assert desk.sold("1", "98.01") == []
    assert desk.sold("1", "98") == ["2@97"]
    assert order.status == "filled"


@pytest.mark.parametrize(
    ("kind", "side", "quiet", "reached"),
    [
        (OrderType.STOP, Side.BUY, "104", "105"),
        (OrderType.STOP, Side.SELL, "106", "105"),
        (OrderType.TAKE_PROFIT, Side.BUY, "106", "105"),
        (OrderType.TAKE_PROFIT, Side.SELL, "104", "105"),
        (OrderType.STOP_LIMIT, Side.BUY, "104", "106"),
        (OrderType.TAKE_PROFIT_LIMIT, Side.SELL, "104", "106"),
    ],
)
def test_which_way_a_trigger_looks(kind: OrderType, side: Side, quiet: str, reached: str) -> None:
    desk = Desk()
    price = {Side.BUY: "108", Side.SELL: "104"}[side] if kind.has_limit_price else None
    order = desk.places(side, "1", price, order_type=kind, stop_price=D(105))
    desk.sold("1", quiet)
    desk.shows(bids="104x10", asks="107x10")
    assert order.status == "open"
    assert desk.sold("1", reached) == [f"1@{107 if side is Side.BUY else 104}"]
    assert order.status == "filled"


def test_a_stop_limit_rests_at_its_limit_once_triggered() -> None:
    desk = Desk()
    order = desk.buys("2", "100", order_type=OrderType.STOP_LIMIT, stop_price=D(105))
    assert desk.sold("5", "95") == [], "it does not work before"
    desk.bought("1", "105")
    assert desk.sold("1", "100") == ["1@100"]
    assert order.fills[0].maker


def test_a_stop_that_is_reached_already_works_at_once() -> None:
    desk = Desk(asks="105x10")
    desk.bought("1", "105")
    assert fills(desk.buys("1", order_type=OrderType.STOP, stop_price=D(104))) == ["1@105"]


def test_a_trailing_stop_follows_the_best_price_only() -> None:
    desk = Desk()
    desk.bought("1", "100")
    order = desk.sells("1", order_type=OrderType.TRAILING_STOP, trail_bps=D(100))
    desk.bought("1", "110")
    desk.sold("1", "109")
    assert order.status == "open", "109 is above 110 less 1 %"
    assert desk.sold("1", "108.9") == ["1@99"]


def test_a_trailing_stop_of_a_buy_follows_down() -> None:
    desk = Desk()
    order = desk.buys("1", order_type=OrderType.TRAILING_STOP, trail_bps=D(100))
    desk.sold("1", "110")
    desk.sold("1", "100")
    desk.bought("1", "100.9")
    assert order.status == "open"
    assert desk.bought("1", "101") == ["1@101"]


def test_a_trailing_stop_may_start_at_a_price() -> None:
    desk = Desk()
    desk.bought("1", "100")
    order = desk.buys("1", order_type=OrderType.TRAILING_STOP, trail_bps=D(1000), stop_price=D(105))
    assert desk.bought("1", "104") == []
    desk.shows(asks="105x10")
    assert desk.bought("1", "105") == ["1@105"]
    assert order.status == "filled"


def test_a_waiting_stop_can_be_cancelled() -> None:
    desk = Desk()
    order = desk.sells("2", order_type=OrderType.STOP, stop_price=D(98))
    desk.cancels(order)
    assert desk.sold("1", "98") == []
    assert order.status == "canceled"
    with pytest.raises(OrderUnknown):
        desk.cancels(order)


def test_a_stop_set_off_without_a_book_works_with_the_next() -> None:
    desk = Desk()
    order = desk.sells("2", order_type=OrderType.STOP, stop_price=D(98))
    desk.matcher.void()
    assert desk.sold("1", "98") == []
    assert order.status == "open"
    second = desk.sells("2", order_type=OrderType.STOP, stop_price=D(98))
    desk.cancels(second)
    assert desk.shows(bids="95x5") == ["2@95"]
    assert second.status == "canceled"


def test_a_triggered_order_that_is_post_only_does_not_take() -> None:
    desk = Desk()
    order = desk.buys("1", "105", order_type=OrderType.STOP_LIMIT, stop_price=D(105), post_only=True)
    assert desk.bought("1", "105") == []
    assert (order.status, order.rest) == ("rejected", D(1))


# --- gaps: a trade is newer than the book -----------------------------------------------------------------------------


def test_a_stop_in_a_gap_gets_the_other_side_of_the_gap() -> None:
    desk = Desk(bids="49985x2 49980x5", asks="49990x2")
    order = desk.sells("3", order_type=OrderType.STOP, stop_price=D(49600))
    assert desk.sold("4", "49400") == []
    assert order.status == "open"
    assert desk.shows(bids="49395x1 49390x5", asks="49410x1") == ["1@49395", "2@49390"]
    assert not any(fill.maker for fill in order.fills)


def test_a_stop_of_a_buy_in_a_gap_waits_whoever_the_taker_was() -> None:
    for side in (Side.BUY, Side.SELL, None):
        desk = Desk(asks="101x10 104x10")
        desk.buys("1", order_type=OrderType.STOP, stop_price=D(103))
        assert desk.sold("1", "106", side) == []
        assert desk.shows(bids="105x1", asks="107x1") == ["1@107"]


def test_a_stop_comes_after_the_whole_sweep_that_set_it_off() -> None:
    desk = Desk(bids="99x1 98x1 97x1")
    order = desk.sells("1", order_type=OrderType.STOP, stop_price=D(99))
    trades = [
        PublicTrade(trade_id=f"{price}", price=D(price), quantity=D("0.5"), timestamp=1, side=Side.SELL)
        for price in (99, 98, 97)
    ]
    desk.matcher.on_trades(trades, 2)
    assert order.fills == []
    assert desk.shows(bids="96.5x1") == ["1@96.5"]
    assert order.status == "filled"


def test_a_stop_does_not_get_what_the_trade_that_set_it_off_has_used_up() -> None:
    desk = Desk(bids="99x3 98x1")
    desk.sells("1", order_type=OrderType.STOP, stop_price=D(99))
    assert desk.sold("3", "99") == []
    assert desk.shows(bids="90x1") == ["1@90"]
    desk = Desk(bids="99x3 98x1")
    desk.sells("1", order_type=OrderType.STOP, stop_price=D("98.5"))
    assert desk.sold("2", "99") == []
    assert desk.sold("2", "98.5") == []
    assert desk.shows(bids="98.5x1") == ["1@98.5"]
    desk = Desk(bids="99x3 98x1")
    desk.sells("1", order_type=OrderType.STOP, stop_price=D(99))
    assert desk.sold("2", "99") == ["1@99"], "there is something left"
    desk = Desk(bids="99x3 98x1")
    desk.sells("1", order_type=OrderType.STOP, stop_price=D(98))
    desk.sold("2", "98.5")
    desk.shows(bids="98x3")
    desk.sells("2.5", "98", time_in_force=IOC)
    assert desk.sold("0.5", "98") == [], "others left what we had taken already"
    assert desk.shows(bids="97x1") == ["1@97"]


def test_what_trades_use_up_together_is_used_up() -> None:
    desk = Desk(bids="99x3 98x1")
    stop = desk.sells("1", order_type=OrderType.STOP, stop_price=D(99))
    parts = [
        PublicTrade(trade_id=quantity, price=D(99), quantity=D(quantity), timestamp=1, side=Side.SELL)
        for quantity in ("2", "1")
    ]
    desk.matcher.on_trades(parts, 2)
    assert (stop.status, stop.fills) == ("open", [])


def test_a_take_profit_sells_at_once_to_the_bids_that_nobody_touched() -> None:
    desk = Desk()
    desk.sells("1", order_type=OrderType.TAKE_PROFIT, stop_price=D(104))
    assert desk.bought("50", "105") == ["1@99"]


def test_a_trailing_stop_in_a_gap_waits_for_the_book() -> None:
    desk = Desk()
    desk.bought("1", "101")
    desk.sells("1", order_type=OrderType.TRAILING_STOP, trail_bps=D(300))
    assert desk.sold("1", "90") == []
    assert desk.sold("1", "89") == []
    assert desk.bought("1", "100") == [], "that it came back does not show what is bid"
    assert desk.shows(bids="88x1") == ["1@88"]


def test_a_stop_limit_set_off_beyond_its_limit_rests_there_at_once() -> None:
    desk = Desk()
    order = desk.sells("2", "97", order_type=OrderType.STOP_LIMIT, stop_price=D(98))
    assert desk.sold("1", "95") == [], "the bids at 99 are gone, and nobody bids 97"
    assert desk.bought("1", "97") == ["1@97"]
    assert desk.shows(bids="94x1", asks="96x1") == []
    assert desk.shows(bids="98x5") == ["1@97"]
    assert [fill.maker for fill in order.fills] == [True, True]


def test_a_stop_limit_set_off_within_its_limit_takes_from_the_next_book() -> None:
    desk = Desk()
    order = desk.sells("2", "94", order_type=OrderType.STOP_LIMIT, stop_price=D(98))
    assert desk.sold("1", "95") == []
    assert desk.shows(bids="94.5x1 93x9") == ["1@94.5"]
    assert (order.status, order.fills[0].maker) == ("open", False)


def test_a_triggered_order_that_is_post_only_rests_where_its_price_has_been_passed() -> None:
    desk = Desk()
    order = desk.buys("1", "101", order_type=OrderType.STOP_LIMIT, stop_price=D(105), post_only=True)
    assert desk.bought("1", "105") == []
    assert order.status == "open"
    assert desk.sold("1", "101") == ["1@101"]


@pytest.mark.parametrize("side", [Side.BUY, None])
def test_a_market_order_after_a_sweep_waits_for_the_next_book(side: Side | None) -> None:
    desk = Desk(asks="101x1 102x1 109x9")
    desk.sold("2", "102", side)
    order = desk.buys("1")
    assert (fills(order), order.status) == ([], "open")
    assert desk.shows(asks="103x9") == ["1@103"]
    assert order.status == "filled"
    assert fills(desk.buys("1")) == ["1@103"], "with a book newer than the trades orders work at once"


def test_a_market_order_that_waits_may_be_cancelled() -> None:
    desk = Desk()
    desk.bought("1", "102")
    order = desk.buys("1")
    desk.cancels(order)
    assert desk.shows() == []
    assert (order.status, order.fills) == ("canceled", [])


def test_what_was_swept_is_not_back_because_somebody_sold_to_the_bids() -> None:
    desk = Desk(asks="101x1 102x1 103x1")
    desk.bought("2", "103")
    desk.sold("1", "99")
    assert fills(desk.buys("1")) == []
    assert fills(desk.sells("1")) == ["1@99"]


def test_a_buyer_at_a_better_price_shows_that_the_market_came_back() -> None:
    desk = Desk(asks="101x1 102x1 103x1")
    desk.bought("2", "103")
    desk.bought("2", "101")
    assert fills(desk.buys("1")) == ["1@101"]


@pytest.mark.parametrize(
    ("in_force", "status", "reason"),
    [(IOC, "expired", "immediate or cancel"), (FOK, "expired", "fill or kill: the book had 0"), (PO, "open", None)],
)
def test_a_limit_that_the_market_has_left_behind_takes_nothing(
    in_force: TimeInForce, status: str, reason: str | None
) -> None:
    desk = Desk(asks="101x1 102x1 103x1")
    desk.bought("2", "103")
    order = desk.buys("1", "102", time_in_force=in_force)
    assert (fills(order), order.status, order.reason) == ([], status, reason)


@pytest.mark.parametrize(("in_force", "got"), [(IOC, ["1@102.5"]), (FOK, [])])
def test_a_limit_that_goes_as_far_as_the_trades_works_with_the_next_book(in_force: TimeInForce, got: list[str]) -> None:
    desk = Desk(asks="101x1 102x1 103x1")
    desk.bought("2", "103")
    order = desk.buys("2", "103", time_in_force=in_force)
    assert order.status == "open"
    assert desk.shows(asks="102.5x1 103.5x1") == got
    assert order.status == "expired"


def test_post_only_does_not_go_as_far_as_the_trades() -> None:
    desk = Desk(asks="101x1 102x1 103x1")
    desk.bought("2", "103")
    assert desk.buys("1", "102.99", post_only=True).status == "open"
    with pytest.raises(PostOnlyRejected):
        desk.buys("1", "103", post_only=True)


def test_a_market_order_that_waited_is_held_to_the_account_again() -> None:
    account = Account({"USDT": D(110)})
    desk = Desk(account=account)
    desk.bought("1", "105")
    order = desk.buys("1")
    assert account.used["USDT"] == 101
    desk.shows(asks="111x1")
    assert (order.status, account.free["USDT"], account.used["USDT"]) == ("rejected", D(110), D(0))


# --- icebergs ---------------------------------------------------------------------------------------------------------


def test_each_part_of_an_iceberg_starts_at_the_back() -> None:
    desk = Desk(bids="99x2")
    desk.buys("5", "99", display_quantity=D(2))
    assert desk.sold("3") == ["1@99"]
    assert desk.sold("1") == ["1@99"], "the part shown is used up; the next one stands behind all that is there"
    desk.shows(bids="99x4")
    assert desk.sold("1") == ["1@99"], "nobody was there when it joined"
    desk.shows(bids="99x4")
    assert desk.sold("1") == ["1@99"]


def test_the_next_part_of_an_iceberg_waits_behind_what_came_meanwhile() -> None:
    desk = Desk(bids="99x2")
    order = desk.buys("5", "99", display_quantity=D(2))
    desk.shows(bids="99x6")  # four came behind us
    assert desk.sold("5") == ["2@99"]
    assert order.ahead == 3, "of the six two traded before our first part, and one after it"
    assert desk.sold("4") == ["1@99"]


def test_our_other_order_comes_before_the_next_part_of_an_iceberg() -> None:
    desk = Desk()
    iceberg, plain = desk.buys("3", "100", display_quantity=D(1)), desk.buys("5", "100")
    assert desk.sold("4", "100") == ["1@100", "3@100"]
    assert (iceberg.rest, plain.rest) == (D(2), D(2))


def test_a_book_that_comes_to_an_iceberg_takes_the_hidden_part_too() -> None:
    desk = Desk()
    order = desk.buys("5", "99", display_quantity=D(1))
    assert desk.shows(bids="97x1", asks="98x3") == ["3@99"]
    assert order.visible == 1
    assert desk.sold("3", "99") == ["1@99", "1@99"]


def test_a_trade_through_takes_the_hidden_part_too() -> None:
    desk = Desk()
    order = desk.buys("5", "99", display_quantity=D(1))
    desk.sold("4", "98")
    assert order.rest == 1
    assert order.visible == 1


# --- fees, checks, accounts -------------------------------------------------------------------------------------------


def test_fees_are_paid_in_quote_by_makers_and_takers_at_their_rates() -> None:
    rules = paper_rules(FREE, None, D("-0.0001"), D("0.001"))
    desk = Desk(rules=rules)
    assert [(fill.fee, fill.fee_asset) for fill in desk.buys("2").fills] == [(D("0.202"), "USDT")]
    resting = desk.sells("1", "101")
    desk.bought("20")
    assert [(fill.fee, fill.fee_asset) for fill in resting.fills] == [(D("-0.0101"), "USDT")], "a rebate"


def test_a_buy_may_pay_in_base_and_fees_have_twelve_decimals() -> None:
    rules = msgspec.structs.replace(FREE, fee_in_base=True, taker_fee=D("0.00033333333333"))
    desk = Desk(rules=rules)
    assert [(fill.fee, fill.fee_asset) for fill in desk.buys("0.001").fills] == [(D("0.000000333333"), "BTC")]
    assert desk.sells("0.001").fills[0].fee_asset == "USDT"


@pytest.mark.parametrize(
    ("order", "why"),
    [
        ({"quantity": "1.0005"}, "lot"),
        ({"quantity": "1", "price": "99.005"}, "tick"),
        ({"quantity": "0.0001", "price": "99"}, "quantity"),
        ({"quantity": "0"}, "lot"),
        ({"quantity": "2000", "price": "99"}, "maximum"),
        ({"quantity": "0.1", "price": "99"}, "notional"),
        ({"quantity": "1", "order_type": OrderType.LIMIT}, "price"),
        ({"quantity": "1", "order_type": OrderType.STOP}, "stop price"),
        ({"quantity": "1", "order_type": OrderType.STOP, "stop_price": D("90.001")}, "tick"),
        ({"quantity": "1", "order_type": OrderType.TRAILING_STOP}, "distance"),
        ({"quantity": "1", "price": "99", "display_quantity": D("0.0001")}, "display"),
        ({"quantity": "1", "display_quantity": D("0.1")}, "hidden"),
    ],
)
def test_what_a_venue_would_refuse_is_refused(order: dict[str, Any], why: str) -> None:
    desk = Desk(rules=paper_rules(RULES, Capabilities(), None, None))
    with pytest.raises(Rejected, match=why):
        desk.buys(**order)


def test_an_open_order_keeps_its_client_order_id() -> None:
    desk = Desk()
    first = desk.buys("1", "99", name="a")
    with pytest.raises(DuplicateClientOrderId):
        desk.buys("1", "99", name="a")
    desk.cancels(first)
    assert desk.buys("1", "99", name="a").status == "open"


def test_reduce_only_refuses_to_open_a_position() -> None:
    desk = Desk(rules=msgspec.structs.replace(FREE, contract=True))
    with pytest.raises(Rejected, match="reduce"):
        desk.sells("1", reduce_only=True)
    desk.buys("2")
    with pytest.raises(Rejected, match="reduce"):
        desk.sells("3", reduce_only=True)
    assert fills(desk.sells("2", reduce_only=True)) == ["2@99"]


def test_the_exits_of_a_short_reduce_it_and_no_more() -> None:
    desk = Desk(rules=msgspec.structs.replace(FREE, contract=True))
    desk.sells("2")
    with pytest.raises(Rejected, match="reduce"):
        desk.sells("1", reduce_only=True)
    with pytest.raises(Rejected, match="reduce"):
        desk.buys("2.5", order_type=OrderType.STOP, stop_price=D(105), reduce_only=True)
    stop = desk.buys("2", order_type=OrderType.STOP, stop_price=D(105), reduce_only=True)
    desk.cancels(stop)
    profit = desk.buys("2", "99", reduce_only=True)
    assert desk.sold("10.5") == ["0.5@99"]
    desk.cancels(profit)
    with pytest.raises(Rejected, match="reduce"):
        desk.buys("2", order_type=OrderType.STOP, stop_price=D(105), reduce_only=True)
    stop = desk.buys("1.5", order_type=OrderType.STOP, stop_price=D(105), reduce_only=True)
    assert desk.bought("20", "106") == []
    assert desk.shows(bids="106x1", asks="107x9") == ["1.5@107"]
    assert (stop.status, desk.matcher.position) == ("filled", D(0))


def test_an_account_is_held_to_what_it_has() -> None:
    account = Account({"USDT": D(300)})
    desk = Desk(account=account, asks="101x2 150x2")
    with pytest.raises(InsufficientFunds):
        desk.buys("4")
    resting = desk.buys("2", "99")
    assert account.free["USDT"] == 102
    with pytest.raises(InsufficientFunds):
        desk.buys("2", "60")
    desk.sold("11")
    assert (account.free["USDT"], account.used["USDT"], account.free["BTC"]) == (D(102), D(99), D(1))
    desk.cancels(resting)
    assert (account.free["USDT"], account.used["USDT"]) == (D(201), D(0))


def test_contracts_are_not_held_to_the_account() -> None:
    desk = Desk(account=Account({}), rules=msgspec.structs.replace(FREE, contract=True))
    assert fills(desk.sells("1")) == ["1@99"]


def test_a_stop_that_became_too_dear_is_refused_when_it_is_set_off() -> None:
    account = Account({"USDT": D(110)})
    desk = Desk(account=account)
    order = desk.buys("1", order_type=OrderType.STOP, stop_price=D(105))
    desk.shows(asks="120x1")
    desk.bought("1", "120")
    assert (order.status, account.free["USDT"], account.used["USDT"]) == ("rejected", D(110), D(0))
