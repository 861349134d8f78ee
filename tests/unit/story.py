"""A small language to tell an order's life: what happens goes in, what the service wants comes out.

story = Story(quantity="10")
story.starts() == [place 10]
story.venue("open")
story.fills("4")
...
"""

from __future__ import annotations

import itertools
from decimal import Decimal
from typing import Any

from adapters.base import VenueFill, VenueOrder, VenueOrderStatus
from algorithms import ALGORITHMS
from algorithms.base import Decision, View
from execution.ledger import order_key
from execution.order_state import OrderState
from schemas.command import AmendOrder
from schemas.event import EventType, OrderEvent
from schemas.market import MarketRules
from schemas.order import ChildOrder, ChildState, ParentOrder
from schemas.terms import OrderType, Side, TimeInForce

RULES = MarketRules(
    symbol="BTC/USDT",
    base="BTC",
    quote="USDT",
    tick=Decimal("0.01"),
    lot=Decimal("0.001"),
    market_lot=Decimal("0.001"),
    min_quantity=Decimal("0.001"),
    max_quantity=Decimal(1000),
    min_notional=Decimal(10),
)


class Story:
    """One parent order under an algorithm, without any I/O: decisions are carried out by the test's own words."""

    def __init__(self, quantity: str = "10", price: str | None = "100", **fields: Any) -> None:
        self.now = 1_000
        order_type = OrderType.LIMIT if price is not None else OrderType.MARKET
        parent = ParentOrder(
            order_id="ord_story",
            signal_id="story",
            strategy_id="tests",
            exchange="alpha",
            symbol="BTC/USDT",
            side=fields.pop("side", Side.BUY),
            quantity=Decimal(quantity),
            order_type=order_type,
            price=Decimal(price) if price is not None else None,
            created_at=self.now,
            updated_at=self.now,
            **fields,
        )
        self.state = OrderState(order_key("story"), "here", parent, RULES)
        self.state.accepted(self.now)
        self.events: list[OrderEvent] = []
        self._trades = itertools.count(1)

    # --- what comes out ---------------------------------------------------------------------------------------------

    def step(self) -> Decision:
        """Ask the algorithm, carry its decision into the records, commit."""
        state = self.state
        if state.parent.status.terminal:
            decision = Decision()
        else:
            decision = ALGORITHMS[state.parent.algorithm].decide(
                View(state.parent, state.children, state.totals, state.rules, self.now)
            )
        for cancel in decision.cancel:
            child = state.child(cancel.child_id)
            assert child is not None
            state.cancel_sent(child, cancel.reason, self.now)
        for place in decision.place:
            state.place(place, self.now)
        if decision.done is not None:
            state.finish(decision.done, self.now)
        change = state.take(self.now)
        if change is not None:
            self.events.extend(change.events)
        sums = state.totals
        if decision.place:
            assert sums.claimed <= state.parent.quantity, "children claim more than the parent"
        return decision

    @property
    def child(self) -> ChildOrder:
        return self.state.children[-1]

    @property
    def told(self) -> list[str]:
        """The types of the events so far, without their common prefix."""
        return [event.event_type.removeprefix("order.") for event in self.events]

    @property
    def last(self) -> OrderEvent:
        return self.events[-1]

    # --- what goes in -----------------------------------------------------------------------------------------------

    def venue(
        self, status: str, filled: str | None = None, *fills: VenueFill, child: ChildOrder | None = None
    ) -> Decision:
        """The venue reports an order."""
        target = child or self.child
        order = VenueOrder(
            symbol="BTC/USDT",
            client_order_id=target.child_id,
            venue_order_id=f"v{target.number}",
            status=VenueOrderStatus(status),
            filled=Decimal(filled) if filled is not None else None,
            fills=fills,
        )
        self.state.venue_order(target, order, self.now)
        return self.step()

    def trade(self, quantity: str, price: str = "100", trade_id: str | None = None, fee: str = "0") -> VenueFill:
        return VenueFill(
            trade_id=trade_id or f"t{next(self._trades)}",
            symbol="BTC/USDT",
            side=self.state.parent.side,
            price=Decimal(price),
            quantity=Decimal(quantity),
            fee=Decimal(fee),
            fee_asset="USDT",
            timestamp=self.now,
        )

    def fills(self, *trades: VenueFill, child: ChildOrder | None = None) -> Decision:
        """Trades arrive."""
        self.state.venue_fills(child or self.child, trades, self.now)
        return self.step()

    def cancel(self, reason: str = "please") -> Decision:
        refusal = self.state.request_cancel(reason, self.now)
        if refusal is not None:
            self.state.answer(refusal, self.now)
        return self.step()

    def amend(self, **changes: Any) -> Decision:
        command = AmendOrder.model_validate({"type": "order.amend", "order_id": "ord_story", **changes})
        refusal = self.state.amend(command, self.now)
        if refusal is not None:
            self.state.answer(refusal[1], self.now, refusal[0])
        return self.step()

    def unknown(self) -> Decision:
        self.state.unknown(self.child, "no answer", self.now)
        return self.step()

    def void(self, reason: str = "not there") -> Decision:
        self.state.void(self.child, reason, self.now)
        return self.step()

    def at(self, now: int) -> Decision:
        """Time passes."""
        self.now = now
        return self.step()


__all__ = ["RULES", "ChildState", "EventType", "Story", "TimeInForce"]
