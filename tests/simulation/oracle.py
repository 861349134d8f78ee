"""The judge of a run: the venues' record, the ledger and the published events against each other and against the promises.

The venues' record is the truth. Nothing here asks the service what it thinks of itself. It judges plain records: those of a simulated
world as well as those of real processes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

import msgspec

from execution.ledger import LoadedOrder, keys, order_key
from schemas.event import OrderEvent
from schemas.order import Role

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class AtVenue:
    """An order of ours as a venue has it."""

    child_id: str
    """The client order id it came with."""
    open: bool
    fills: Mapping[str, Decimal]
    """Quantities by trade id."""


@dataclass
class Records:
    """What everybody wrote down of a run."""

    venues: Mapping[str, Sequence[AtVenue]]
    """By the venue's name: every order it ever took."""
    ledger: Mapping[str, LoadedOrder | None]
    """Every order by its key; None: rejected on arrival."""
    events: Mapping[str, Sequence[OrderEvent]]
    """By order id, in order of sequence, each once."""
    signals: Collection[str]
    """What was published and has to be an order or a rejection."""
    waiting_events: int = 0
    """How many still wait in the outbox."""
    deaths: Sequence[str] = ()
    """Replicas that ended by themselves, and of what."""


@dataclass
class Verdict:
    """What a run came to. `broken`: promises that did not hold, in words."""

    seed: int
    broken: list[str] = field(default_factory=list)
    orders: int = 0
    children: int = 0
    fills: int = 0
    events: int = 0
    steps: int = 0
    virtual_seconds: float = 0.0
    history: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        told = "\n  ".join(self.broken) or "every promise held"
        return f"seed {self.seed}: {told}\n  -- what befell whom --\n  " + "\n  ".join(self.history)


def by_order(published: Iterable[OrderEvent]) -> dict[str, list[OrderEvent]]:
    """Events as a consumer has them: each once by its id, by order, in order of sequence."""
    once: dict[str, OrderEvent] = {}
    for event in published:
        once.setdefault(event.event_id, event)
    found: dict[str, list[OrderEvent]] = defaultdict(list)
    for event in once.values():
        found[event.order_id].append(event)
    for told in found.values():
        told.sort(key=lambda event: event.sequence)
    return found


def settled(records: Records) -> bool:
    """Whether nothing is left to be done: every signal is an order that has ended, nothing is open, every event is out."""
    for signal_id in records.signals:
        if order_key(signal_id) not in records.ledger:
            return False
    for order in records.ledger.values():
        if order is not None and (not order.parent.status.terminal or _protecting(order)):
            return False
    if any(order.open for orders in records.venues.values() for order in orders):
        return False
    return not records.waiting_events


def _protecting(order: LoadedOrder) -> bool:
    parent = order.parent
    filled = sum((child.filled for child in order.children if child.role is Role.ENTRY), ZERO)
    return parent.has_bracket and parent.protection_ended is None and filled > 0


def judge(records: Records, verdict: Verdict) -> Verdict:
    """Write into a verdict whatever does not hold, and the counts."""
    say = verdict.broken.append
    for death in records.deaths:
        say(death)
    _venues_against_ledger(records, verdict)
    for signal_id in records.signals:
        if order_key(signal_id) not in records.ledger:
            say(f"signal {signal_id} is nowhere: neither an order nor a rejection")
    for order in records.ledger.values():
        if order is None:
            continue
        verdict.orders += 1
        _judge_order(order, records.events.get(order.parent.order_id, ()), verdict)
    for order_id, sequence in records.events.items():
        numbers = [event.sequence for event in sequence if event.sequence > 0]
        verdict.events += len(sequence)
        if numbers != list(range(1, len(numbers) + 1)):
            say(f"events of {order_id} have gaps or doubles: {numbers}")
    return verdict


def _venues_against_ledger(records: Records, verdict: Verdict) -> None:
    say = verdict.broken.append
    at_venues: dict[str, Decimal] = defaultdict(lambda: ZERO)
    for venue, taken in records.venues.items():
        counts = Counter(at_venue.child_id for at_venue in taken)
        for child_id, count in counts.items():
            if count > 1:
                say(f"{venue} took {count} orders under {child_id}")
        for at_venue in taken:
            verdict.children += 1
            child_id = at_venue.child_id
            address = keys.key_of_child(child_id)
            order = records.ledger.get(address[0]) if address is not None else None
            child = next((c for c in order.children if c.child_id == child_id), None) if order is not None else None
            if child is None or order is None:
                say(f"{venue} has {child_id}, which the ledger does not know")
                continue
            if at_venue.open and order.parent.status.terminal and not _protecting(order):
                say(f"{child_id} is open at {venue}, its order has ended as {order.parent.status}")
            booked = {fill.trade_id: fill.quantity for fill in order.fills if fill.child_id == child_id}
            traded = dict(at_venue.fills)
            verdict.fills += len(traded)
            if booked != traded:
                say(f"fills of {child_id}: the ledger has {booked}, {venue} {traded}")
            at_venues[f"{address[0] if address else ''}:{child.role}"] += sum(traded.values(), ZERO)
    for key, order in records.ledger.items():
        if order is None:
            continue
        entry, closed = at_venues[f"{key}:{Role.ENTRY}"], at_venues[f"{key}:{Role.EXIT}"]
        if entry > order.parent.quantity:
            say(f"{order.parent.order_id} is overfilled: {entry} of {order.parent.quantity}")
        if closed > entry:
            say(f"{order.parent.order_id}: its exits closed {closed} of {entry}")


def _judge_order(order: LoadedOrder, told: Sequence[OrderEvent], verdict: Verdict) -> None:
    say = verdict.broken.append
    parent = order.parent
    if not parent.status.terminal:
        say(f"{parent.order_id} ({parent.algorithm}) has not ended: {parent.status}, waiting: {parent.waiting}")
    elif _protecting(order):
        pass  # its exits wait for their prices
    for child in order.children:
        if not child.state.terminal and parent.status.terminal and child.role is Role.ENTRY:
            say(f"{child.child_id} is {child.state} in the ledger although its order has ended")
    if not told:
        say(f"{parent.order_id} has no events")
        return
    last = [event for event in told if event.sequence > 0][-1]
    filled = sum((child.filled for child in order.children if child.role is Role.ENTRY), ZERO)
    if last.sequence != parent.sequence:
        say(f"{parent.order_id}: {parent.sequence} events committed, {last.sequence} published")
    elif (last.status, last.filled_quantity) != (parent.status, filled):
        say(
            f"{parent.order_id}: the last event says {last.status} {last.filled_quantity}, the ledger {parent.status} {filled}"
        )
    in_events = Counter(
        fill.trade_id for event in told if not isinstance(event.child, msgspec.UnsetType) for fill in event.child.fills
    )
    in_ledger = Counter(fill.trade_id for fill in order.fills)
    if in_events != in_ledger:
        say(f"{parent.order_id}: fills in events {dict(in_events)}, in the ledger {dict(in_ledger)}")
