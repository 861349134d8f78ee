"""A small language to tell an order's life: what happens goes in, what the service wants comes out.

story = Story(quantity="10")
story.starts() == [place 10]
story.venue("open")
story.fills("4")
...
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from adapters.base import VenueFill, VenueOrder, VenueOrderStatus
from algorithms import ALGORITHMS
from algorithms.base import Decision, Market, Place, View
from algorithms.decide import decide
from algorithms.trigger import armed
from execution.ledger import order_key
from execution.order_actor import as_record, parsed
from execution.order_state import OrderState
from schemas.command import AmendOrder
from schemas.event import EventType, OrderEvent
from schemas.market import BookLevel, Candle, MarketRules, OrderBook
from schemas.order import ChildOrder, ChildState, ParentOrder, Role
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
    """One parent order under an algorithm, without any I/O: decisions are carried out by the test's own words.

    `price` None: a market order. `market()` says what the market shows; until then none is known. `source` is the price that a
    trigger counts by, `now` (ms) when the order was accepted.
    """

    def __init__(
        self,
        quantity: str = "10",
        price: str | None = "100",
        *,
        params: dict[str, Any] | None = None,
        history: Sequence[Candle] = (),
        rules: MarketRules = RULES,
        venues: dict[str, MarketRules] | None = None,
        native: bool = False,
        source: str = "last",
        now: int = 1_000,
        **fields: Any,
    ) -> None:
        self.now = now
        order_type = fields.pop("order_type", OrderType.LIMIT if price is not None else OrderType.MARKET)
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
            algorithm_params=params or {},
            venues=tuple(venues) if venues is not None else (),
            created_at=self.now,
            updated_at=self.now,
            **fields,
        )
        self.rules = venues or {"alpha": rules}
        self.algorithm = ALGORITHMS[parent.algorithm]
        parameters = parsed(self.algorithm, parent.algorithm_params)
        if order_type.has_trigger or order_type is OrderType.TRAILING_STOP:
            parent.trigger = armed(
                order_type,
                stop_price=parent.stop_price,
                trail_bps=parameters.trail_bps if hasattr(parameters, "trail_bps") else None,
                activation=parameters.activation_price if hasattr(parameters, "activation_price") else None,
                source=source,
                native=native,
            )
        home = self.rules[parent.home]
        self.plan = self.algorithm.plan(parent, parameters, home, history)
        parent.plan = as_record(self.plan)
        self.memory: Any = self.algorithm.Memory()
        self.state = OrderState(order_key("story"), "here", parent, home)
        self.state.accepted(self.now)
        self.events: list[OrderEvent] = []
        self.markets: dict[str, Market] = {
            venue: Market(venue=venue, rules=known) for venue, known in self.rules.items()
        }
        self.decision = Decision()
        self._trades = itertools.count(1)

    # --- what comes out ---------------------------------------------------------------------------------------------

    def view(self) -> View:
        state = self.state
        return View(
            order=state.parent,
            children=state.entries.children,
            live=state.entries.live,
            totals=state.totals,
            rules=state.rules,
            now=self.now,
            markets=self.markets,
            memory=self.memory,
            exits=state.exits.children,
            exit_totals=state.exits.totals,
        )

    def step(self) -> Decision:
        """Ask the algorithm, carry its decision into the records, commit."""
        state = self.state
        decision = Decision() if state.over else decide(self.algorithm, self.plan, self.view())
        if decision.memory is not None:
            self.memory = decision.memory
        if decision.trigger is not None:
            if decision.arrival is not None:
                state.arrived(decision.arrival, self.now)
            state.triggered(decision.trigger, self.now)
        for cancel in decision.cancel:
            child = state.child(cancel.child_id)
            assert child is not None
            state.cancel_sent(child, cancel.reason, self.now)
        for place in decision.place:
            self._check(place)
            state.place(place, self.now)
        if decision.done is not None:
            state.finish(decision.done, self.now, breach_bps=decision.breach_bps)
        else:
            state.wait(decision.waiting, decision.breach_bps, self.now)
        if decision.stop_fired:
            state.stop_fired(self.now)
        if decision.protection_ended is not None:
            state.unprotected(decision.protection_ended, self.now)
        change = state.take(self.now)
        if change is not None:
            self.events.extend(change.events)
        sums = state.totals
        if decision.place:
            assert sums.claimed <= state.parent.quantity, "children claim more than the parent"
            assert state.exits.totals.claimed <= sums.filled, "exits claim more than the entry holds"
        self.decision = decision
        return decision

    def _check(self, place: Place) -> None:
        """Every child is one the venue takes, within the order's limit."""
        parent, rules = self.state.parent, self.rules[place.venue or self.state.parent.home]
        market = place.order_type is OrderType.MARKET
        kind = OrderType.MARKET if market else OrderType.LIMIT
        assert rules.round_quantity(place.quantity, kind) == place.quantity, "off the lot"
        if place.price is not None:
            assert rules.round_price(place.price, parent.side) == place.price, "off the tick"
        assert rules.refusal(place.quantity, kind, place.price) is None, "refused by the venue's rules"
        if place.role is Role.ENTRY and parent.limit_price is not None:
            assert place.price is not None, "no limit"
            assert (place.price - parent.limit_price) * parent.side.sign <= 0, "beyond the limit"

    @property
    def live(self) -> list[ChildOrder]:
        return self.state.entries.live

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

    def trade(
        self,
        quantity: str,
        price: str = "100",
        trade_id: str | None = None,
        fee: str = "0",
        fee_asset: str = "USDT",
        side: Side | None = None,
    ) -> VenueFill:
        return VenueFill(
            trade_id=trade_id or f"t{next(self._trades)}",
            symbol="BTC/USDT",
            side=side or self.state.parent.side,
            price=Decimal(price),
            quantity=Decimal(quantity),
            fee=Decimal(fee),
            fee_asset=fee_asset,
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
        refusal = self.state.amend(command, self.now, self._replan)
        if refusal is not None:
            self.state.answer(refusal[1], self.now, refusal[0])
        return self.step()

    def _replan(self, parent: ParentOrder) -> dict[str, Any]:
        parameters = parsed(self.algorithm, parent.algorithm_params)
        self.plan = self.algorithm.plan(parent, parameters, self.state.rules, ())
        return as_record(self.plan)

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

    def market(
        self,
        bid: str | None = None,
        ask: str | None = None,
        *,
        last: str | None = None,
        size: str = "1000",
        volume: str | None = None,
        venue: str | None = None,
        bids: Sequence[tuple[str, str]] = (),
        asks: Sequence[tuple[str, str]] = (),
        step: bool = True,
    ) -> Decision:
        """The market shows this now: a touch of `size` on both sides, or whole ladders of (price, quantity); `volume`: traded
        by everybody so far."""
        venue = venue or self.state.parent.home
        known = self.markets[venue]
        book = known.book
        if bid is not None or ask is not None or bids or asks:
            book = OrderBook(
                symbol="BTC/USDT",
                bids=_levels(bids or ([(bid, size)] if bid is not None else [])),
                asks=_levels(asks or ([(ask, size)] if ask is not None else [])),
                received_at=self.now / 1000,
            )
        self.markets[venue] = msgspec.structs.replace(
            known,
            book=book,
            book_at=self.now if book is not known.book else known.book_at,
            last=Decimal(last) if last is not None else known.last,
            session=known.session or "s1",
            volume=Decimal(volume) if volume is not None else known.volume,
        )
        if self.state.parent.arrival is None and venue == self.state.parent.home and book is not None and book.mid:
            self.state.arrived(book.mid, self.now)
        return self.step() if step else Decision()


def _levels(pairs: Sequence[tuple[str, str]]) -> tuple[BookLevel, ...]:
    return tuple(BookLevel(Decimal(price), Decimal(quantity)) for price, quantity in pairs)


__all__ = ["RULES", "ChildState", "EventType", "Story", "TimeInForce"]
