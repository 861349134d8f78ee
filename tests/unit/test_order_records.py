"""The records of orders: which states may follow which, and what children add up to."""

import itertools
from decimal import Decimal

import pytest

from schemas.order import (
    CHILD_TRANSITIONS,
    ORDER_TRANSITIONS,
    ChildOrder,
    ChildState,
    IllegalTransition,
    OrderStatus,
    ParentOrder,
    totals,
)
from schemas.terms import OrderType, Side


def parent(status: OrderStatus = OrderStatus.ACCEPTED) -> ParentOrder:
    return ParentOrder(
        order_id="ord_1",
        signal_id="sig_1",
        strategy_id="s",
        exchange="alpha",
        symbol="BTC/USDT",
        side=Side.BUY,
        quantity=Decimal(10),
        order_type=OrderType.LIMIT,
        price=Decimal(100),
        status=status,
        created_at=1,
        updated_at=1,
    )


def child(
    state: ChildState = ChildState.PENDING, quantity: str = "10", filled: str = "0", told: str = "0", number: int = 1
) -> ChildOrder:
    return ChildOrder(
        child_id=f"c{number}",
        number=number,
        venue="alpha",
        symbol="BTC/USDT",
        side=Side.BUY,
        order_type=OrderType.LIMIT,
        quantity=Decimal(quantity),
        state=state,
        filled=Decimal(filled),
        venue_filled=Decimal(told),
        created_at=1,
        updated_at=1,
    )


@pytest.mark.parametrize(("before", "after"), list(itertools.product(OrderStatus, OrderStatus)))
def test_a_parent_goes_only_where_the_table_allows(before: OrderStatus, after: OrderStatus) -> None:
    order = parent(before)
    if after is before or after in ORDER_TRANSITIONS[before]:
        order.to(after)
        assert order.status is after
    else:
        with pytest.raises(IllegalTransition, match=f"{before} cannot become {after}"):
            order.to(after)
        assert order.status is before


@pytest.mark.parametrize(("before", "after"), list(itertools.product(ChildState, ChildState)))
def test_a_child_goes_only_where_the_table_allows(before: ChildState, after: ChildState) -> None:
    order = child(before)
    if after is before or after in CHILD_TRANSITIONS[before]:
        order.to(after)
        assert order.state is after
    else:
        with pytest.raises(IllegalTransition, match=f"{before} cannot become {after}"):
            order.to(after)
        assert order.state is before


def test_what_must_never_happen_is_not_in_the_tables() -> None:
    for status in OrderStatus:
        assert OrderStatus.ACCEPTED not in ORDER_TRANSITIONS[status], "an order is accepted once"
        if status.terminal:
            assert ORDER_TRANSITIONS[status] <= {OrderStatus.FILLED}, "only a late fill changes what has ended"
    assert ORDER_TRANSITIONS[OrderStatus.FILLED] == frozenset()
    assert ORDER_TRANSITIONS[OrderStatus.REJECTED] == frozenset()
    for state in ChildState:
        assert (ChildState.PENDING in CHILD_TRANSITIONS[state]) == (state is ChildState.UNKNOWN), (
            "resent only from unknown"
        )
    assert ChildState.OPEN not in CHILD_TRANSITIONS[ChildState.FILLED] | CHILD_TRANSITIONS[ChildState.CANCELED]
    assert ChildState.VOID not in CHILD_TRANSITIONS[ChildState.OPEN], "what is at the venue cannot be written off"


@pytest.mark.parametrize(
    ("children", "filled", "open_", "unknown"),
    [
        ([], "0", "0", "0"),
        ([child(ChildState.PENDING)], "0", "0", "10"),
        ([child(ChildState.UNKNOWN)], "0", "0", "10"),
        ([child(ChildState.OPEN, filled="4", told="4")], "4", "6", "0"),
        ([child(ChildState.OPEN, filled="1", told="4")], "1", "6", "3"),
        ([child(ChildState.CANCELED, filled="4", told="4")], "4", "0", "0"),
        ([child(ChildState.CANCELED, filled="1", told="4")], "1", "0", "3"),
        ([child(ChildState.FILLED, filled="10", told="10")], "10", "0", "0"),
        ([child(ChildState.REJECTED)], "0", "0", "0"),
        ([child(ChildState.VOID)], "0", "0", "0"),
        ([child(ChildState.CANCELED, filled="3", told="3"), child(ChildState.PENDING, "7", number=2)], "3", "0", "7"),
    ],
)
def test_children_add_up(children: list[ChildOrder], filled: str, open_: str, unknown: str) -> None:
    sums = totals(children)
    assert (sums.filled, sums.open, sums.unknown) == (Decimal(filled), Decimal(open_), Decimal(unknown))
    assert sums.claimed == sum((one.claim for one in children), Decimal(0))
