"""A story that anything can happen to: a market that walks, a venue that answers late, twice or not at all, and operators.

After whatever happened the algorithm is asked, and what must hold of every decision is checked. `tests.unit.simulated_life` says
what may happen.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec

from adapters.base import VenueFill, VenueOrder, VenueOrderStatus
from algorithms.base import Decision, Place, When
from algorithms.bounds import slippage_limit, within
from algorithms.decide import decide
from execution.ledger import LoadedOrder
from execution.order_actor import as_record
from execution.order_state import OrderState
from schemas import exact_json
from schemas.command import AmendOrder
from schemas.market import ZERO, BookLevel, OrderBook
from schemas.order import ChildOrder, ChildState, Fill, ParentOrder, Role, totals
from schemas.terms import OrderType, Side, TimeInForce
from tests.unit.story import Story

_parent = msgspec.json.Decoder(ParentOrder)
_children = msgspec.json.Decoder(list[ChildOrder])
_fills = msgspec.json.Decoder(list[Fill])
_STOPS = (OrderType.STOP, OrderType.STOP_LIMIT, OrderType.TAKE_PROFIT, OrderType.TRAILING_STOP)
PATIENCE = 1_000
"""So many wake-ups a friendly market gives an order to end."""


@dataclass
class AtVenue:
    """What is true of a child at its venue, told or not."""

    child: ChildOrder
    status: VenueOrderStatus | None = None
    """None: it has not arrived."""
    trades: list[VenueFill] = field(default_factory=list)

    @property
    def filled(self) -> Decimal:
        return sum((trade.quantity for trade in self.trades), ZERO)

    @property
    def leaves(self) -> Decimal:
        return self.child.quantity - self.filled

    @property
    def open(self) -> bool:
        return self.status is VenueOrderStatus.OPEN


class SimulatedMarket(Story):
    """A parent order in a market that nobody tells what to do. `fee` is a buy's fee in the base asset, as a fraction."""

    def __init__(self, *args: Any, mid: int = 10_000, fee: str = "0", **fields: Any) -> None:
        super().__init__(*args, **fields)
        self.truth: dict[str, AtVenue] = {}
        self.told_before: list[tuple[ChildOrder, VenueOrder]] = []
        self.mid = mid
        """In ticks of 0.01."""
        self.spread, self.depth = 10, Decimal(50)
        self.fee = Decimal(fee)
        self.volume = ZERO
        self.ceiling = self.state.parent.quantity
        """The most that may fill: what was open when the quantity was amended down may still."""
        self.session = 1
        self._waited = 0

    def __repr__(self) -> str:
        order = self.state.parent
        terms = {
            "max_slippage_bps": order.max_slippage_bps,
            "slippage_policy": order.slippage_policy if order.max_slippage_bps is not None else None,
            "expires_at": order.expires_at,
            "stop_price": order.stop_price,
            "time_in_force": order.time_in_force,
            "post_only": order.post_only,
        }
        told = ", ".join(f"{name}={value}" for name, value in terms.items() if value)
        return (
            f"{order.side} {order.quantity} {order.order_type} {order.price} {order.algorithm} {order.algorithm_params} "
            f"{told}, lot {self.state.rules.lot}"
        )

    # --- what must hold -----------------------------------------------------------------------------------------------

    def step(self) -> Decision:
        self._sums()
        decision = Decision()
        if not self.state.over:
            view = self.view()
            before = self._records()
            decision = decide(self.algorithm, self.plan, view)
            assert decide(self.algorithm, self.plan, view) == decision, "asked twice, decided twice"
            assert self._restarted(before) == decision, "a restart decides otherwise"
            assert self._records() == before, "deciding changed a record"
        self._carry(decision, self.state)
        change = self.state.take(self.now)
        if change is not None:
            self.events.extend(change.events)
        self.state.settle()
        self._sums()
        self.decision = decision
        if not self.state.over:
            self._takes_nothing_back()
            self._will_be_woken()
        return decision

    def _records(self) -> tuple[bytes, bytes, bytes]:
        state = self.state
        return exact_json.encode(state.parent), exact_json.encode(state.children), exact_json.encode(state.fills)

    def _loaded(self, records: tuple[bytes, bytes, bytes]) -> tuple[OrderState, Any, Any]:
        """State, plan and memory as another replica would load them."""
        parent = _parent.decode(records[0])
        loaded = LoadedOrder(parent, _children.decode(records[1]), _fills.decode(records[2]))
        state = OrderState.loaded(self.state.key, "there", loaded, self.state.rules)
        return (
            state,
            msgspec.convert(parent.plan, self.algorithm.Plan),
            msgspec.convert(parent.memory, self.algorithm.Memory),
        )

    def _restarted(self, records: tuple[bytes, bytes, bytes]) -> Decision:
        state, plan, memory = self._loaded(records)
        mine, kept = self.state, self.memory
        self.state, self.memory = state, memory
        try:
            return decide(type(self.algorithm)(), plan, self.view())
        finally:
            self.state, self.memory = mine, kept

    def _carry(self, decision: Decision, state: OrderState) -> None:
        if decision.memory is not None and decision.memory != self.memory:
            self.memory = decision.memory
            state.remember(as_record(decision.memory), self.now)
        if decision.trigger is not None:
            if decision.arrival is not None:
                state.arrived(decision.arrival, self.now)
            state.triggered(decision.trigger, self.now)
        for cancel in decision.cancel:
            child = state.child(cancel.child_id)
            assert child is not None
            assert not child.state.terminal, "canceled what has ended"
            assert not child.cancel_requested, "canceled twice"
            state.cancel_sent(child, cancel.reason, self.now)
        for place in decision.place:
            self._check(place)
            state.place(place, self.now)
        self._room(decision)
        if decision.done is not None:
            assert not state.entries.live, "ended with a live child"
            assert not state.totals.unknown, "ended with trades unknown"
            state.finish(decision.done, self.now, breach_bps=decision.breach_bps)
        elif not state.parent.status.terminal:
            state.wait(decision.waiting, decision.breach_bps, self.now)
        if decision.stop_fired:
            state.stop_fired(self.now)
        if decision.protection_ended is not None:
            assert not state.exits.live, "unprotected with a live exit"
            state.unprotected(decision.protection_ended, self.now)

    def _room(self, decision: Decision) -> None:
        state = self.state
        if any(place.role is Role.ENTRY for place in decision.place):
            assert state.totals.claimed <= state.parent.quantity, "children claim more than the parent"
        if any(place.role is Role.EXIT for place in decision.place):
            paid = state.totals.fees.get(state.rules.base, ZERO)
            assert state.exits.totals.claimed <= state.totals.filled - paid, "exits claim more than there is"
        beside = Counter((child.tag, child.venue) for child in state.entries.live)
        assert max(beside.values(), default=0) <= 1, f"several live children of one tag: {beside}"
        assert len(state.exits.live) <= 1, "several live exits"

    def _check(self, place: Place) -> None:
        if place.order_type not in _STOPS:
            super()._check(place)
        order = self.state.parent
        if place.role is Role.EXIT:
            return
        assert not order.cancel_requested, "placed after a cancel"
        assert not order.paused, "placed while paused"
        assert order.expires_at is None or self.now < order.expires_at, "placed after its expiry"
        schedule = self.algorithm.schedule(self.plan, order)
        assert not schedule or self.now < schedule[-1][0], "placed after its time"
        bound = slippage_limit(order)
        if order.max_slippage_bps is not None:
            assert bound is not None, "placed without a price to measure slippage by"
            assert place.price is not None, "no price within the slippage bound"
            assert within(order.side, place.price, bound), "beyond the slippage bound"
        assert not order.post_only or place.post_only, "takes, though it may only make"
        usable = self.markets[place.venue or order.home].usable
        assert usable or not self.algorithm.needs_market(order), "placed at a venue that cannot be sent orders"

    def _sums(self) -> None:
        """The sums agree with the records, and count all that may be true at the venue."""
        state = self.state
        sums, records = state.totals, totals(state.entries.children)
        assert (sums.filled, sums.open, sums.unknown) == (records.filled, records.open, records.unknown)
        assert sums.filled + sums.open + sums.unknown + self.view().free == state.parent.quantity
        entries = {child.child_id for child in state.entries.children}
        assert sum((fill.quantity for fill in state.fills if fill.child_id in entries), ZERO) == sums.filled
        true = sum((there.filled for name, there in self.truth.items() if name in entries), ZERO)
        possible = true + sum(
            (there.leaves for name, there in self.truth.items() if name in entries and there.open), ZERO
        )
        assert sums.claimed >= possible, "more may fill than is counted"
        assert true <= self.ceiling, "more has filled than was ordered"

    def _takes_nothing_back(self) -> None:
        """What was decided is done: asked again at once, nothing of it is taken back."""
        again = decide(self.algorithm, self.plan, self.view())
        assert again.cancel == (), f"taken back at once: {decision_of(self.decision)} then {decision_of(again)}"
        assert again.done is None or not self.decision.place, "placed, then ended"

    def _will_be_woken(self) -> None:
        """An order that could go on has asked to be woken, unless an operator or a venue owes it an answer."""
        decision, state = self.decision, self.state
        owed = state.parent.paused or state.active or state.parent.status.terminal or decision.place
        assert owed or decision.wake_at is not None or decision.wake_when, "nobody will wake it"
        assert decision.wake_at is None or decision.wake_at > self.now, "to be woken at once, without end"

    # --- the market ---------------------------------------------------------------------------------------------------

    def shows(self, *, book: bool = True) -> None:
        """Every venue shows the market as it is now."""
        rules = self.state.rules
        for venue, known in self.markets.items():
            tick = known.rules.tick
            levels = OrderBook(
                symbol=rules.symbol,
                bids=self._levels(-1, tick),
                asks=self._levels(1, tick),
                received_at=self.now / 1000,
            )
            self.markets[venue] = msgspec.structs.replace(
                known,
                book=levels if book else None,
                book_at=self.now,
                last=Decimal(self.mid) / 100,
                session=f"s{self.session}",
                volume=self.volume,
            )
        mid = self.markets[self.state.parent.home].mid
        if self.state.parent.arrival is None and mid is not None:
            self.state.arrived(mid, self.now)

    def _levels(self, way: int, tick: Decimal) -> tuple[BookLevel, ...]:
        best = Decimal(self.mid + way * self.spread) / 100
        best = (best / tick).to_integral_value("ROUND_CEILING" if way > 0 else "ROUND_FLOOR") * tick
        return tuple(BookLevel(best + way * tick * step * 3, self.depth) for step in range(3))

    # --- the venue ----------------------------------------------------------------------------------------------------

    def there(self, child: ChildOrder) -> AtVenue:
        return self.truth.setdefault(child.child_id, AtVenue(child))

    def arrives(self, child: ChildOrder, share: int) -> None:
        """The request reaches the venue, which fills what it can: of what the book shows, `share` sixteenths at most."""
        there, side = self.there(child), child.side
        if there.status is not None:
            return
        there.status = VenueOrderStatus.OPEN
        if child.order_type in _STOPS:
            return
        book = self.markets[child.venue].book
        levels = book.opposite(side) if book is not None else ()
        crossing = [level for level in levels if within(side, level.price, child.price)]
        if child.post_only and crossing:
            there.status = VenueOrderStatus.REJECTED
            return
        offered = sum((level.quantity for level in crossing), ZERO) * share / 16
        quantity = self._lots(child, min(offered, child.quantity))
        if child.time_in_force is TimeInForce.FOK and quantity < child.quantity:
            quantity = ZERO
        if quantity > 0:
            self.trades(child, quantity, crossing[0].price)
        ends = child.order_type is OrderType.MARKET or child.time_in_force in (TimeInForce.IOC, TimeInForce.FOK)
        if ends and there.open:
            there.status = VenueOrderStatus.EXPIRED

    def _lots(self, child: ChildOrder, quantity: Decimal) -> Decimal:
        return self.markets[child.venue].rules.round_quantity(quantity, OrderType.LIMIT)

    def trades(self, child: ChildOrder, quantity: Decimal, price: Decimal) -> None:
        there = self.there(child)
        fee = quantity * self.fee if child.side is Side.BUY else ZERO
        there.trades.append(
            self.trade(f"{quantity:f}", f"{price:f}", fee=f"{fee:f}", fee_asset=self.state.rules.base, side=child.side)
        )
        if not there.leaves:
            there.status = VenueOrderStatus.FILLED

    def fills_resting(self, child: ChildOrder, share: int) -> None:
        there = self.there(child)
        if there.open:
            quantity = self._lots(child, there.leaves * max(share, 1) / 16) or there.leaves
            self.trades(child, quantity, child.price or Decimal(self.mid) / 100)

    def reports(self, child: ChildOrder, *, trades: bool) -> None:
        """The venue tells what is true of a child now."""
        there = self.there(child)
        if there.status is None:
            return
        told = VenueOrder(
            symbol=child.symbol,
            client_order_id=child.child_id,
            venue_order_id=f"v{child.number}",
            status=there.status,
            filled=there.filled,
            fills=tuple(there.trades) if trades else (),
        )
        self.told_before.append((child, told))
        if there.status is VenueOrderStatus.REJECTED:
            self.state.rejected(child, "would take", self.now)
        else:
            self.state.venue_order(self.mine(child), told, self.now)

    def mine(self, child: ChildOrder) -> ChildOrder:
        found = self.state.child(child.child_id)
        assert found is not None
        return found

    def restarts(self) -> None:
        """Another replica takes over: what was under way is unknown to it."""
        self.state, self.plan, self.memory = self._loaded(self._records())
        for child in self.state.children:
            if child.child_id in self.truth:
                self.truth[child.child_id].child = child
            if child.state is ChildState.PENDING:
                self.state.unknown(child, "its sender stopped", self.now)

    def amends(self, **changes: Any) -> None:
        command = AmendOrder.model_validate({"type": "order.amend", "order_id": "ord_story", **changes})
        self.state.amend(command, self.now)

    # --- one thing after another ----------------------------------------------------------------------------------------

    def pick(self, argument: int, *states: ChildState) -> ChildOrder | None:
        found = [child for child in self.state.active if child.state in states]
        return found[argument % len(found)] if found else None

    def ends_well(self) -> None:
        """From now on all goes well; the order is asked only when it asked to be woken, and must come to its end."""
        order = self.state.parent
        if order.paused:
            self.state.pause(False, None, self.now)
        for venue, known in self.markets.items():
            self.markets[venue] = msgspec.structs.replace(known, usable=True)
        trigger = order.trigger
        if trigger is not None and trigger.fired_at is None and trigger.price is not None:
            self.mid = int(trigger.price * 100)
            self.shows()
            self.step()
        self.shows()  # from now on there is a price to measure slippage by
        bound = self.worst()
        if bound is not None:
            self.mid = int(bound * 100) - order.side.sign * 60
        self.spread, self.depth = 10, Decimal(100_000)
        self.shows()
        self.step()
        for _ in range(PATIENCE):
            if self.state.over:
                break
            if not self._answers():
                if self._too_little() and not self.state.parent.cancel_requested:
                    self.state.request_cancel("too little is left to trade", self.now)
                    self.step()
                else:
                    self._waits()
        assert self.state.over, f"still {self.state.parent.status} after {PATIENCE} wake-ups"
        assert not self.state.entries.live, "ended with a live child"
        assert not self.state.exits.live, "ended with a live exit"

    def _too_little(self) -> bool:
        """Whether what is left is so near the venue's minimum that it hangs on the price whether it can be traded."""
        rules = self.state.rules
        free = min(self.view().free, rules.max_quantity)
        low = Decimal(self.mid) / 100 * Decimal("0.95")
        untradable = rules.refusal(rules.round_quantity(free, OrderType.MARKET), OrderType.LIMIT, low) is not None
        return untradable and not self.state.active and not self.state.parent.status.terminal

    def worst(self) -> Decimal | None:
        """The worst price that may be traded at."""
        order = self.state.parent
        bounds = [bound for bound in (order.limit_price, slippage_limit(order)) if bound is not None]
        return (min(bounds) if order.side is Side.BUY else max(bounds)) if bounds else None

    def _answers(self) -> bool:
        """The venue answers one request; False when none is open."""
        for child in self.state.active:
            there = self.there(child)
            if child.state is ChildState.PENDING and child.cancel_requested and there.status is None:
                self.state.void(child, "canceled before it was sent", self.now)
            elif child.state is ChildState.PENDING:
                self.arrives(child, 16)
                self.reports(child, trades=True)
            elif child.state is ChildState.UNKNOWN and there.status is None:
                self.state.void(child, "not there", self.now)
            elif child.state is ChildState.UNKNOWN or child.executed > child.filled:
                self.reports(child, trades=True)
            elif child.cancel_requested and not child.state.terminal:
                if there.open:
                    there.status = VenueOrderStatus.CANCELED
                self.reports(child, trades=True)
            elif not child.state.terminal and not there.open:
                self.reports(child, trades=True)
            else:
                continue
            self.step()
            return True
        return False

    def _waits(self) -> None:
        """Time passes to the next moment the order asked for, or a while; the market renews, and resting orders fill a bit."""
        asked = self.decision
        soon = self.now + 500
        self.now = soon if asked.wake_at is None else max(min(asked.wake_at, self.now + 3_600_000), self.now)
        self.volume += 100
        order = self.state.parent
        if order.status.terminal and order.stop_loss is not None:
            self.mid = int(order.stop_loss * 100) - order.side.sign * 100
        self.shows()
        self._waited += 1
        for child in self.state.active:
            if self.there(child).open and self._waited % 3 == 0:
                self.fills_resting(child, 16)
                self.reports(child, trades=True)
                self.step()
                return
        if (asked.wake_at is not None and self.now >= asked.wake_at) or any(map(self._true, asked.wake_when)):
            self.step()
        else:
            assert asked.wake_when or self.state.active, "nobody will wake it"

    def _true(self, when: When) -> bool:
        market = self.markets[when.venue or self.state.parent.home]
        if when.source in ("book", "trade"):
            return True
        seen = {"bid": market.bid, "ask": market.ask, "mid": market.mid, "last": market.last}[when.source]
        if seen is None:
            return False
        if when.at_or_above is None and when.at_or_below is None:
            return True
        return (when.at_or_above is not None and seen >= when.at_or_above) or (
            when.at_or_below is not None and seen <= when.at_or_below
        )


def decision_of(decision: Decision) -> str:
    """A decision in short."""
    places = [f"{p.tag} {p.order_type} {p.quantity} at {p.price} {p.time_in_force}" for p in decision.place]
    return f"place {places}, cancel {[c.reason for c in decision.cancel]}, waiting {decision.waiting}"
