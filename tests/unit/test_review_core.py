"""Stories that once went wrong: each is a fault that was found by reading, shown here before it was mended."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from adapters.base import VenueFill
from algorithms import ALGORITHMS
from algorithms.base import View
from algorithms.decide import decide
from execution.ledger.ledger import parse_order
from execution.order_state import OrderState
from schemas import exact_json
from schemas.order import OrderStatus
from schemas.terms import Side
from tests.unit.story import RULES, Story


def test_a_book_thinner_than_the_order_does_not_end_it() -> None:
    """What the book shows within the bound was taken in full: the rest is still to be bought."""
    story = Story("10", None, max_slippage_bps=Decimal(50))
    story.market("99.9", "100.1", size="4")
    assert story.child.quantity == 4
    decision = story.venue("filled", "4", story.trade("4", "100.1"))
    assert decision.done is None
    assert decision.wake_when
    story.now += 1_000
    story.market("99.9", "100.2", size="50")
    assert story.child.quantity == 6
    story.venue("filled", "6", story.trade("6", "100.2"))
    assert story.state.parent.status is OrderStatus.FILLED
    assert story.state.totals.filled == 10


def test_a_book_too_thin_to_trade_is_waited_out() -> None:
    """A book that shows less than the venue trades says nothing of the order's rest."""
    story = Story("10", None, max_slippage_bps=Decimal(50))
    decision = story.market("99.9", "100.1", size="0.0001")
    assert (decision.place, decision.done) == ((), None)
    assert decision.wake_when
    story.now += 1_000
    story.market("99.9", "100.1", size="3")
    story.venue("expired", "3", story.trade("3", "100.1"))
    story.now += 1_000
    decision = story.market("99.9", "100.1", size="0.0001")
    assert (decision.place, decision.done) == ((), None)
    assert decision.wake_when
    assert decision.waiting is not None


def test_dust_behind_a_slippage_bound_needs_no_market() -> None:
    story = Story("10.0005", None, max_slippage_bps=Decimal(50))
    story.market("99.9", "100.1")
    assert story.child.quantity == 10
    story.venue("filled", "10", story.trade("10", "100.1"))
    assert story.state.parent.status is OrderStatus.FILLED
    assert "dust" in str(story.state.parent.reason)


def test_numbers_of_a_signal_come_back_from_the_ledger_digit_for_digit() -> None:
    story = Story(metadata={"fair": Decimal("0.1234567890123456789"), "legs": [Decimal("1.10"), 3]})
    kept = exact_json.encode(story.state.parent)
    record = parse_order({b"parent": kept, b"v": b"1"})
    assert record is not None
    assert exact_json.encode(record.parent.metadata) == exact_json.encode(story.state.parent.metadata)


def test_a_record_of_the_first_version_still_works() -> None:
    """Written before there were venues, triggers, plans, roles and tapes."""
    parent = (
        b'{"order_id":"ord_a","signal_id":"s","strategy_id":"m","exchange":"alpha","symbol":"BTC/USDT","side":"buy",'
        b'"quantity":10,"order_type":"limit","price":100.0,"status":"partially_filled","sequence":3,'
        b'"created_at":1,"updated_at":2}'
    )
    child = (
        b'{"child_id":"k1","number":1,"venue":"alpha","symbol":"BTC/USDT","side":"buy","order_type":"limit",'
        b'"quantity":10,"price":100.0,"state":"open","filled":4,"notional":400.0,"created_at":1,"updated_at":2}'
    )
    fill = b'{"trade_id":"t1","child_id":"k1","price":100.0,"quantity":4,"timestamp":2}'
    record = parse_order({b"parent": parent, b"v": b"3", b"c:1": child, b"f:k1:t1": fill, b"k:1": b"0", b"op": b"x"})
    assert record is not None
    state = OrderState.loaded("k", "here", record, RULES)
    direct = ALGORITHMS[record.parent.algorithm]
    plan = msgspec.convert(record.parent.plan, direct.Plan)
    view = View(
        order=state.parent,
        children=state.entries.children,
        live=state.entries.live,
        totals=state.totals,
        rules=RULES,
        now=10,
        memory=msgspec.convert(record.parent.memory, direct.Memory),
        exits=state.exits.children,
    )
    assert decide(direct, plan, view).place == ()
    state.venue_fills(
        state.children[0],
        [
            VenueFill(
                trade_id="t2", symbol="BTC/USDT", side=Side.BUY, price=Decimal(100), quantity=Decimal(6), timestamp=3
            )
        ],
        11,
    )
    assert state.totals.filled == 10
    view = msgspec.structs.replace(view, live=state.entries.live, totals=state.totals)
    assert decide(direct, plan, view).done is not None
