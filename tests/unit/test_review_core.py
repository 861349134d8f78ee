"""Stories that once went wrong: each is a fault that was found by reading, shown here before it was mended."""

from __future__ import annotations

from decimal import Decimal

from schemas.order import OrderStatus
from tests.unit.story import Story


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
