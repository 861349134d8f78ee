"""The state of one parent order in memory, and every way it may change. No I/O, no clock.

Each method books one thing that happened. What changed since the last `take()` is written by one commit, with the events that
it causes. Booking the same thing again changes nothing.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable
from decimal import Decimal
from operator import attrgetter
from typing import Any

import msgspec

from adapters.base import VenueFill, VenueOrder, VenueOrderStatus
from algorithms.base import Done, Place
from algorithms.bracket import RESUMABLE
from execution.amend import Replan, amend
from execution.ledger import Change, LoadedOrder, keys
from execution.order_events import AVERAGE, END_EVENTS, STANDING_EVENTS, order_event, told_child
from execution.running_totals import RunningTotals
from schemas.command import AmendOrder
from schemas.event import EventType, OrderEvent
from schemas.market import MarketRules
from schemas.order import ChildOrder, ChildState, Fill, OrderStatus, ParentOrder, Role, Totals, Trigger
from schemas.tca import CostReport

ZERO = Decimal(0)

_CHILD_STATE = {
    VenueOrderStatus.OPEN: ChildState.OPEN,
    VenueOrderStatus.FILLED: ChildState.FILLED,
    VenueOrderStatus.CANCELED: ChildState.CANCELED,
    VenueOrderStatus.REJECTED: ChildState.REJECTED,
    VenueOrderStatus.EXPIRED: ChildState.EXPIRED,
}

MOST_TIMINGS = 10_000


class OrderState:
    """One parent order, its children, and what is not yet committed."""

    def __init__(self, key: str, instance: str, parent: ParentOrder, rules: MarketRules) -> None:
        """`rules` are those of the order's home venue."""
        self.key = key
        self.parent = parent
        self.rules = rules
        self.children: list[ChildOrder] = []
        """Every child, in the order in which they were decided: by number, which may have gaps."""
        self.entries = RunningTotals()
        """The children that build the position."""
        self.exits = RunningTotals()
        """The children that close it again."""
        self.timings: dict[str, list[int]] = {}
        """How long the steps took on this replica, in ms, by name: for the cost report."""
        self.fills: list[Fill] = []
        """Every fill booked."""
        self.quote: Callable[[str], tuple[Decimal, Decimal] | None] = lambda _: None
        """The mid of a venue now and half its spread; None: not known."""
        self._instance = instance
        self._by_id: dict[str, ChildOrder] = {}
        self._booked: set[tuple[str, str]] = set()
        self._dirty: dict[str, ChildOrder] = {}
        self._fills: list[Fill] = []
        self._untold: dict[str, list[Fill]] = {}
        self._events: list[OrderEvent] = []
        self._places: set[Role] = set()
        self._commands: set[str] | None = None
        """The ids of the commands that were carried out; None: none, as of most."""
        self._new_commands: list[str] = []
        self._touched = False
        self._was_over = False

    @classmethod
    def loaded(cls, key: str, instance: str, record: LoadedOrder, rules: MarketRules) -> OrderState:
        """The state as the ledger holds it."""
        state = cls(key, instance, record.parent, rules)
        state.children = record.children
        for child in record.children:
            state._sums(child).add(child)
        state._by_id = {child.child_id: child for child in record.children}
        state.fills = list(record.fills)
        state._was_over = state.over
        state._commands = record.commands or None
        state._booked = {(fill.child_id, fill.trade_id) for fill in record.fills}
        return state

    # --- reading ----------------------------------------------------------------------------------------------------

    @property
    def totals(self) -> Totals:
        """What the children that build the position add up to."""
        return self.entries.totals

    @property
    def active(self) -> list[ChildOrder]:
        """The children that may still fill, or whose trades are not all booked."""
        return self.entries.active + self.exits.active

    @property
    def protecting(self) -> bool:
        """Whether exits of a bracket are to be kept in place for what has filled."""
        parent = self.parent
        return parent.has_bracket and parent.protection_ended is None and bool(self.entries.filled)

    @property
    def over(self) -> bool:
        """Whether the order needs nothing more to be decided."""
        return self.parent.status.terminal and not self.protecting

    def timed(self, step: str, ms: int) -> None:
        """Note how long a step took."""
        kept = self.timings.setdefault(step, [])
        if len(kept) < MOST_TIMINGS:
            kept.append(max(ms, 0))

    def settle(self) -> None:
        """Count what has ended for good: it is not looked at any more."""
        self.entries.settle()
        self.exits.settle()

    def _sums(self, child: ChildOrder) -> RunningTotals:
        return self.exits if child.role is Role.EXIT else self.entries

    def child(self, client_order_id: str | None, venue_order_id: str | None = None) -> ChildOrder | None:
        """A child by its client order id, or else by the venue's id."""
        if client_order_id in self._by_id:
            return self._by_id[client_order_id]
        if venue_order_id is not None:
            for child in self.children:
                if child.venue_order_id == venue_order_id:
                    return child
        return None

    def knows(self, child: ChildOrder, told: VenueOrder) -> bool:
        """Whether a report says nothing that is not booked: what streams echo and polls repeat costs no step then."""
        state = _CHILD_STATE[told.status] if told.status is not None else child.state
        return (
            not told.fills
            and (state is child.state or not self._advances(child, state))
            and (told.filled is None or told.filled <= child.venue_filled)
            and (told.venue_order_id is None or told.venue_order_id == child.venue_order_id)
        )

    def knows_fill(self, child: ChildOrder, told: VenueFill) -> bool:
        """Whether a trade is booked already."""
        return (child.child_id, told.trade_id) in self._booked

    def take(self, now: int) -> Change | None:
        """What changed since the last call; None when nothing did."""
        self._tell_fills(now)
        if not (self._touched or self._dirty or self._events or self._new_commands):
            return None
        over = self.over
        change = Change(
            parent=self.parent,
            children=list(self._dirty.values()),
            fills=self._fills,
            events=self._events,
            places=frozenset(self._places),
            over=over,
            reopened=self._was_over and not over,
            held=self.entries.filled,
            commands=self._new_commands,
        )
        self._dirty, self._fills, self._events, self._places, self._touched = {}, [], [], set(), False
        self._new_commands = []
        self._was_over = over
        return change

    # --- the parent's life ------------------------------------------------------------------------------------------

    def accepted(self, now: int) -> None:
        self._emit(EventType.ACCEPTED, now, ignored_fields=self.parent.ignored_fields, notes=self.parent.notes)

    def remember(self, memory: dict[str, Any], now: int) -> None:
        """Keep what the algorithm noted."""
        self.parent.memory = memory
        self._touch(now)

    def arrived(self, mid: Decimal, now: int) -> None:
        """Keep the arrival price."""
        self.parent.arrival = mid
        self.parent.arrival_at = now
        self._touch(now)

    def triggered(self, trigger: Trigger, now: int) -> None:
        """Keep what became of the order's trigger."""
        fired = trigger.fired_at is not None and (self.parent.trigger is None or self.parent.trigger.fired_at is None)
        self.parent.trigger = trigger
        self._touch(now)
        if fired:
            seen = f"{trigger.fired_price:f}" if trigger.fired_price is not None else "?"
            self._emit(EventType.AMENDED, now, reason=f"its trigger was reached at {seen}")

    def wait(self, reason: str | None, breach_bps: Decimal | None, now: int) -> None:
        """Keep why nothing is traded now; a breach of the slippage bound is told, once while it lasts."""
        before, self.parent.waiting = self.parent.waiting, reason
        if (before is None) is not (reason is None) or _kind(before) != _kind(reason):
            self._touch(now)
            if breach_bps is not None and reason is not None:
                self._emit(EventType.AMENDED, now, reason=f"paused: {reason}", slippage_bps=breach_bps)

    def stop_fired(self, now: int) -> None:
        """Keep that a watched stop-loss was reached."""
        if not self.parent.stop_fired:
            self.parent.stop_fired = True
            self._touch(now)

    def unprotected(self, reason: str, now: int) -> None:
        """The exits of a bracket need no more watching."""
        self._tell_fills(now)
        self.parent.protection_ended = reason
        self._touch(now)
        entry, exits = self.totals, self.exits.totals
        # An entry's fee in the base asset is in the sums already: less could be closed than was opened.
        fees = entry.fees.get(self.rules.quote, ZERO) + exits.quote_fees
        pnl = self.parent.side.sign * (exits.notional - entry.notional) - fees
        closed = exits.filled > 0
        self._emit(
            EventType.TRADE_CLOSED if closed else EventType.AMENDED,
            now,
            reason=f"exits ended: {reason}",
            realized_pnl=AVERAGE.plus(pnl) if closed else None,
        )

    def place(self, place: Place, now: int) -> ChildOrder:
        """Intend a child order; nothing may be sent before this is committed."""
        number = self.children[-1].number + 1 if self.children else 1
        child = ChildOrder(
            child_id=keys.child_id(self.key, number),
            number=number,
            venue=place.venue or self.parent.home,
            symbol=self.parent.symbol,
            side=self.parent.side if place.role is Role.ENTRY else self.parent.side.opposite,
            order_type=place.order_type,
            quantity=place.quantity,
            price=place.price,
            time_in_force=place.time_in_force,
            post_only=place.post_only,
            tag=place.tag,
            role=place.role,
            stop_price=place.stop_price,
            trail_bps=place.trail_bps,
            display_quantity=place.display_quantity,
            reduce_only=place.reduce_only,
            amendment=self.parent.amendments,
            created_at=now,
            updated_at=now,
        )
        self.children.append(child)
        self._by_id[child.child_id] = child
        self._sums(child).add(child)
        self._mark(child, now)
        self._places.add(place.role)
        return child

    def finish(self, done: Done, now: int, *, breach_bps: Decimal | None = None, tca: CostReport | None = None) -> None:
        """End the parent. The event of a complete fill tells the last fills with it."""
        parent = self.parent
        parent.quantity = max(parent.quantity, self.entries.filled)
        parent.waiting = None
        last = self.entries.children[-1] if self.entries.children else None
        fills = self._untold.pop(last.child_id, []) if last is not None and done.status is OrderStatus.FILLED else []
        self._tell_fills(now)
        parent.to(done.status)
        parent.reason = done.reason
        if self.protecting:
            # What was asked of the entry is done; asked again, it is meant for the exits.
            parent.cancel_requested, parent.cancel_reason = False, None
        self._touch(now)
        self._emit(
            END_EVENTS[done.status],
            now,
            child=last,
            fills=fills,
            reason=done.reason,
            field=done.field if done.status is OrderStatus.REJECTED else None,
            slippage_bps=breach_bps,
            tca=tca,
        )
        if last is not None:
            self._tell_opened(last, fills, now)

    def commanded(self, command_id: str) -> bool:
        """Note that a command is carried out, with the commit that does it; False: it was before."""
        if self._commands is None:
            self._commands = set()
        if command_id in self._commands:
            return False
        self._commands.add(command_id)
        self._new_commands.append(command_id)
        return True

    def request_cancel(self, reason: str | None, now: int) -> str | None:
        """Book a request to cancel; returns why it cannot be, or None."""
        if self.over:
            return f"the order is {self.parent.status} already"
        if not self.parent.cancel_requested:
            self.parent.cancel_requested = True
            self.parent.cancel_reason = reason
            self._touch(now)
        return None

    def amend(self, command: AmendOrder, now: int, replan: Replan | None = None) -> tuple[str, str] | None:
        """Book new terms; returns the (field, reason) why they cannot be, or None.

        `replan` gives the plan for changed parameters, and raises `Refusal` for impossible ones.
        """
        refusal = amend(self.parent, self.totals, self.rules, command, replan)
        if refusal is not None:
            return refusal
        self._touch(now)
        self._emit(EventType.AMENDED, now, reason=command.reason)
        return None

    def pause(self, paused: bool, reason: str | None, now: int) -> str | None:
        """Book a pause or its end; returns why it cannot be, or None."""
        if self.parent.status.terminal:
            return f"the order is {self.parent.status} already"
        if self.parent.paused != paused:
            self.parent.paused = paused
            self._touch(now)
            self._emit(EventType.AMENDED, now, reason=reason or ("paused" if paused else "resumed"))
        return None

    def answer(self, reason: str, now: int, field: str | None = None) -> None:
        """Tell that a command could not be done. The event says what the order's state is; nothing changed."""
        self._emit(STANDING_EVENTS[self.parent.status], now, reason=reason, field=field)

    # --- what venues tell -------------------------------------------------------------------------------------------

    def sending(self, child: ChildOrder, valid_until: int) -> None:
        """The request is about to leave. Not committed by itself: the intent is, and says enough."""
        child.sends += 1
        child.valid_until = max(child.valid_until, valid_until)

    def unknown(self, child: ChildOrder, reason: str, now: int) -> None:
        """No certain answer came."""
        if child.state in (ChildState.PENDING, ChildState.UNKNOWN):
            child.to(ChildState.UNKNOWN)
            child.reason = reason
            self._mark(child, now)

    def resend(self, child: ChildOrder, now: int) -> None:
        """It certainly does not exist, and will be sent again under the same id."""
        child.to(ChildState.PENDING)
        child.reason = None
        self._mark(child, now)

    def rejected(self, child: ChildOrder, reason: str, now: int, *, would_take: bool = False) -> None:
        """The venue refused it for certain; `would_take`: because it was to rest and would have traded at once."""
        if not child.state.terminal:
            child.to(ChildState.REJECTED)
            child.would_take = would_take
            child.reason = reason
            self._mark(child, now)

    def void(self, child: ChildOrder, reason: str, now: int) -> None:
        """It certainly does not exist, and will not be sent."""
        if child.state in (ChildState.PENDING, ChildState.UNKNOWN):
            child.to(ChildState.VOID)
            child.reason = reason
            self._mark(child, now)

    def cancel_sent(self, child: ChildOrder, reason: str, now: int) -> None:
        if not child.cancel_requested:
            child.cancel_requested = True
            child.reason = reason
            self._mark(child, now)

    def adopt(self, child: ChildOrder, told: VenueOrder, reason: str, now: int) -> None:
        """Take up a child that the venue has and the ledger has not. What is there is a fact, also where it claims too much."""
        bisect.insort(self.children, child, key=attrgetter("number"))
        self._by_id[child.child_id] = child
        self._sums(child).add(child)
        self._mark(child, now)
        trigger = self.parent.trigger
        if child.role is Role.ENTRY and trigger is not None and not trigger.native and trigger.fired_at is None:
            self.triggered(msgspec.structs.replace(trigger, fired_at=child.created_at), now)
        self.venue_order(child, told, now, reason=reason)

    def venue_order(self, child: ChildOrder, told: VenueOrder, now: int, *, reason: str | None = None) -> None:
        """Book what the venue says of a child: its fills, its cumulative quantity, its state.

        Reports may come late, twice and out of order: quantities only grow, and what has ended stays ended. `reason`: why it
        is only known now.
        """
        self._sums(child).revive(child)
        first = child.state in (ChildState.PENDING, ChildState.UNKNOWN, ChildState.VOID) and told.status is not None
        changed = False
        if told.venue_order_id is not None and child.venue_order_id is None:
            child.venue_order_id = told.venue_order_id
            changed = True
        if told.filled is not None and told.filled > child.venue_filled:
            child.venue_filled = told.filled
            changed = True
        state = _CHILD_STATE[told.status] if told.status is not None else None
        if state is not None and self._advances(child, state):
            child.to(state)
            changed = True
            if told.reason is not None or state is ChildState.OPEN:
                child.reason = told.reason
        if first and child.state not in (ChildState.REJECTED, ChildState.PENDING, ChildState.UNKNOWN):
            if self.parent.status is OrderStatus.ACCEPTED:
                self.parent.to(OrderStatus.WORKING)
            self._touch(now)
            self._emit(EventType.PLACED, now, child=child, reason=reason)
        self._book(child, told.fills, now)
        if changed:
            self._mark(child, now)

    def venue_fills(self, child: ChildOrder, fills: Iterable[VenueFill], now: int) -> None:
        """Book trades of a child, each once by its trade id."""
        self._book(child, fills, now)

    def _advances(self, child: ChildOrder, state: ChildState) -> bool:
        """Whether a reported state is news: an open report never reopens what has ended."""
        before = child.state
        if state is before:
            return False
        if before in (ChildState.CANCELED, ChildState.EXPIRED):
            return state is ChildState.FILLED
        if before is ChildState.REJECTED:
            return state is not ChildState.OPEN or child.venue_order_id is not None
        return before is not ChildState.FILLED

    def _book(self, child: ChildOrder, told: Iterable[VenueFill], now: int) -> None:
        new: list[Fill] = []
        quote = None
        for trade in told:
            identity = (child.child_id, trade.trade_id)
            if identity in self._booked:
                continue
            if not new:
                self._sums(child).revive(child)
                quote = self.quote(child.venue)
            self._booked.add(identity)
            fill = Fill(
                trade_id=trade.trade_id,
                child_id=child.child_id,
                price=trade.price,
                quantity=trade.quantity,
                fee=trade.fee,
                fee_asset=trade.fee_asset,
                maker=trade.maker,
                timestamp=trade.timestamp,
                mid=quote[0] if quote is not None else None,
                half_spread=quote[1] if quote is not None else None,
            )
            new.append(fill)
            self.timed("fill_to_booked", now - fill.timestamp)
            child.filled += fill.quantity
            child.notional += fill.quantity * fill.price
            if fill.fee and fill.fee_asset is not None:
                child.fees = {**child.fees, fill.fee_asset: child.fees.get(fill.fee_asset, ZERO) + fill.fee}
                if fill.fee_asset == self.rules.quote:
                    child.quote_fees += fill.fee
                elif fill.fee_asset == self.rules.base:
                    child.quote_fees += fill.fee * fill.price
        if not new:
            return
        self._fills.extend(new)
        self.fills.extend(new)
        if child.state in (ChildState.PENDING, ChildState.UNKNOWN, ChildState.VOID):
            # A fill is proof that the order is at the venue.
            child.to(ChildState.OPEN)
            self._emit(EventType.PLACED, now, child=child)
        if not child.state.terminal and child.filled >= child.quantity:
            child.to(ChildState.FILLED)
        if child.role is Role.ENTRY:
            if not self.parent.status.terminal:
                self.parent.to(OrderStatus.PARTIALLY_FILLED)
            elif self.parent.protection_ended in RESUMABLE:
                # A fill that raced the entry's end is protected as those before it were.
                self.parent.protection_ended = None
        self._untold.setdefault(child.child_id, []).extend(new)
        self._mark(child, now)

    def _tell_fills(self, now: int) -> None:
        if not self._untold:
            return
        parent = self.parent
        for child_id, fills in self._untold.items():
            child = self._by_id[child_id]
            if child.role is Role.EXIT:
                self._emit(EventType.PLACED if not fills else EventType.POSITION_UPDATED, now, child=child, fills=fills)
            elif (
                parent.status.terminal
                and parent.status not in (OrderStatus.REJECTED, OrderStatus.FILLED)
                and self._complete
            ):
                # A fill that raced the end completes an order that had ended short.
                parent.to(OrderStatus.FILLED)
                parent.reason = None
                self._emit(EventType.FILLED, now, child=child, fills=fills)
            else:
                self._emit(EventType.PARTIALLY_FILLED, now, child=child, fills=fills)
            self._tell_opened(child, fills, now)
        self._untold = {}

    def _tell_opened(self, child: ChildOrder, fills: list[Fill], now: int) -> None:
        """The first fills of a bracket's entry open a trade."""
        first = self.parent.has_bracket and child.role is Role.ENTRY
        if first and sum((fill.quantity for fill in fills), ZERO) == self.entries.filled:
            self._emit(EventType.TRADE_OPENED, now, child=child)

    @property
    def _complete(self) -> bool:
        return self.entries.filled >= self.parent.quantity

    # --- bookkeeping ------------------------------------------------------------------------------------------------

    def _touch(self, now: int) -> None:
        if now > self.parent.updated_at:
            self.parent.updated_at = now
        self._touched = True

    def _mark(self, child: ChildOrder, now: int) -> None:
        if now > child.updated_at:
            child.updated_at = now
        self._dirty[child.child_id] = child
        self._touch(now)

    def _emit(
        self,
        event_type: EventType,
        now: int,
        *,
        child: ChildOrder | None = None,
        fills: list[Fill] | None = None,
        reason: str | None = None,
        field: str | None = None,
        ignored_fields: tuple[str, ...] = (),
        notes: tuple[str, ...] = (),
        slippage_bps: Decimal | None = None,
        realized_pnl: Decimal | None = None,
        tca: CostReport | None = None,
    ) -> None:
        self.parent.sequence += 1
        self._events.append(
            order_event(
                self.key,
                self._instance,
                self.parent,
                self.totals,
                event_type,
                now,
                child=told_child(child, fills or ()) if child is not None else None,
                reason=reason,
                field=field,
                ignored_fields=ignored_fields,
                notes=notes,
                slippage_bps=slippage_bps,
                realized_pnl=realized_pnl,
                tca=tca,
            )
        )


def _kind(reason: str | None) -> str | None:
    """A reason without its figures: 12.3 bps and 12.4 bps are the same pause."""
    return "".join(c for c in reason if not c.isdigit()) if reason is not None else None
