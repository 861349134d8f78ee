"""The judge of a run: the venues' record, the ledger and the published events against each other and against the promises.

The venues' record is the truth. Nothing here asks the service what it thinks of itself. It judges plain records: those of a simulated
world as well as those of real processes.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal

import msgspec

from execution.ledger import LoadedOrder, keys, order_key
from schemas.event import OrderEvent
from schemas.order import ChildOrder, OrderStatus, Role
from schemas.terms import Side

ZERO = Decimal(0)
PUBLIC = {
    OrderStatus.ACCEPTED: "OPEN",
    OrderStatus.WORKING: "OPEN",
    OrderStatus.PARTIALLY_FILLED: "PARTIAL",
    OrderStatus.FILLED: "FILLED",
    OrderStatus.CANCELED: "CANCELED",
    OrderStatus.REJECTED: "REJECTED",
    OrderStatus.EXPIRED: "EXPIRED",
    OrderStatus.FAILED: "FAILED",
}
"""How `ORDER:<id>` names what an order's status is."""
LONGEST_REQUEST_MS = 16_000
"""How long after it was sent a venue may still take a request, in any of the worlds judged here."""


@dataclass(frozen=True, slots=True)
class AtVenue:
    """An order of ours as a venue has it."""

    child_id: str
    """The client order id it came with."""
    open: bool
    fills: Mapping[str, Decimal]
    """Quantities by trade id."""
    prices: Mapping[str, Decimal] = field(default_factory=dict)
    """Prices by trade id, where the venue's record is asked for them."""
    side: Side | None = None
    taken_at: int = 0
    """When the venue took it, in ms; 0: not told."""


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
    public: Mapping[str, tuple[str, Decimal]] | None = None
    """The state and what has filled, by order id, as `ORDER:<id>` says; None: not looked at."""
    trades: Sequence[tuple[str, str]] = ()
    """The (client order id, trade id) of each entry of `STREAM:TRADE`, where `public` is looked at."""
    waiting_events: int = 0
    """How many still wait in the outbox."""
    deaths: Sequence[str] = ()
    """Replicas that ended by themselves, and of what."""
    seen: Sequence[str] = ()
    """What was seen to go wrong while it ran: more under way than ordered, a request sent again that had been carried out, failures
    that nobody foresaw."""
    forgotten: Collection[str] = ()
    """Keys of orders of which the store lost something while whoever wrote it was killed. Of such a signal nothing may be left but
    trades, and its events may be told twice; nothing may be open or done twice all the same."""


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
        ran = f"{self.steps:,} steps, {self.virtual_seconds:.3f} virtual seconds"
        return f"seed {self.seed}: {told}\n  {ran}\n  -- what befell whom --\n  " + "\n  ".join(self.history)


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
        if order_key(signal_id) not in records.ledger.keys() | set(records.forgotten):
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
    for what in (*records.deaths, *records.seen):
        say(what)
    _venues_against_ledger(records, verdict)
    for signal_id in records.signals:
        if order_key(signal_id) not in records.ledger.keys() | set(records.forgotten):
            say(f"signal {signal_id} is nowhere: neither an order nor a rejection")
    forgotten = set()
    for key, order in records.ledger.items():
        if order is None:
            continue
        verdict.orders += 1
        if key in records.forgotten:
            forgotten.add(order.parent.order_id)
        _judge_order(order, verdict)
        _judge_events(order, records.events.get(order.parent.order_id, ()), verdict, twice=key in records.forgotten)
    if records.public is not None:
        _judge_public(records, records.public, verdict)
    for order_id, sequence in records.events.items():
        if order_id in forgotten or order_id in {f"ord_{key}" for key in records.forgotten}:
            continue
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
                lost = address is not None and address[0] in records.forgotten
                if at_venue.open or not lost or (order is not None and at_venue.fills):
                    say(f"{venue} has {child_id}, which the ledger does not know")
                continue
            if at_venue.open and order.parent.status.terminal and not _protecting(order):
                say(f"{child_id} is open at {venue}, its order has ended as {order.parent.status}")
            booked = {fill.trade_id: fill.quantity for fill in order.fills if fill.child_id == child_id}
            traded = dict(at_venue.fills)
            verdict.fills += len(traded)
            if booked != traded:
                say(f"fills of {child_id}: the ledger has {booked}, {venue} {traded}")
            _judge_child(at_venue, child, order, verdict)
            at_venues[f"{address[0] if address else ''}:{child.role}"] += sum(traded.values(), ZERO)
    for key, order in records.ledger.items():
        if order is None:
            continue
        entry, closed = at_venues[f"{key}:{Role.ENTRY}"], at_venues[f"{key}:{Role.EXIT}"]
        if entry > order.parent.quantity:
            say(f"{order.parent.order_id} is overfilled: {entry} of {order.parent.quantity}")
        if closed > entry:
            say(f"{order.parent.order_id}: its exits closed {closed} of {entry}")


def _judge_public(records: Records, public: Mapping[str, tuple[str, Decimal]], verdict: Verdict) -> None:
    """What outside readers find against the ledger."""
    say, told = verdict.broken.append, Counter(records.trades)
    for key, order in records.ledger.items():
        if order is None or key in records.forgotten:
            continue
        parent = order.parent
        filled = sum((child.filled for child in order.children if child.role is Role.ENTRY), ZERO)
        found = public.get(parent.order_id)
        if found != (PUBLIC[parent.status], filled):
            say(f"ORDER:{parent.order_id} says {found}, the ledger {parent.status} {filled}")
        for fill in order.fills:
            times = told[fill.child_id, fill.trade_id]
            if times != 1:
                say(f"STREAM:TRADE has {fill.trade_id} of {fill.child_id} {times} times")


def _judge_child(at_venue: AtVenue, child: ChildOrder, order: LoadedOrder, verdict: Verdict) -> None:
    """What the venue took against what was ordered."""
    say, parent = verdict.broken.append, order.parent
    if at_venue.side is not None and (at_venue.side is parent.side) != (child.role is Role.ENTRY):
        say(f"{child.child_id} ({child.role}) is a {at_venue.side} of a {parent.side} order")
    prices = {fill.trade_id: fill.price for fill in order.fills if fill.child_id == child.child_id}
    notional = sum((fill.price * fill.quantity for fill in order.fills if fill.child_id == child.child_id), ZERO)
    if child.notional != notional:
        say(f"{child.child_id} sums up to {child.notional}, its fills to {notional}")
    if at_venue.prices and prices != at_venue.prices:
        say(f"prices of {child.child_id}: the ledger has {prices}, its venue {dict(at_venue.prices)}")
    if child.role is Role.ENTRY and parent.price is not None:
        for price in at_venue.prices.values():
            if price > parent.price if parent.side is Side.BUY else price < parent.price:
                say(f"{child.child_id} traded at {price}, beyond its order's limit of {parent.price}")
    late = parent.expires_at is not None and at_venue.taken_at > parent.expires_at + LONGEST_REQUEST_MS
    if child.role is Role.ENTRY and late:
        say(f"{child.child_id} was taken at {at_venue.taken_at}, its order's time ended at {parent.expires_at}")


def _judge_order(order: LoadedOrder, verdict: Verdict) -> None:
    say, parent = verdict.broken.append, order.parent
    if not parent.status.terminal:
        say(f"{parent.order_id} ({parent.algorithm}) has not ended: {parent.status}, waiting: {parent.waiting}")
    for child in order.children:
        if not child.state.terminal and parent.status.terminal and child.role is Role.ENTRY:
            say(f"{child.child_id} is {child.state} in the ledger although its order has ended")


def _judge_events(order: LoadedOrder, told: Sequence[OrderEvent], verdict: Verdict, *, twice: bool) -> None:
    """The events against the order they tell of; `twice`: the store went back in time, and some may have been told again."""
    say, parent = verdict.broken.append, order.parent
    told = [event for event in told if event.sequence > 0]
    if not told:
        say(f"{parent.order_id} has no events")
        return
    filled = sum((child.filled for child in order.children if child.role is Role.ENTRY), ZERO)
    ends = [event for event in told if event.sequence == parent.sequence]
    if told[-1].sequence < parent.sequence or (told[-1].sequence > parent.sequence and not twice):
        say(f"{parent.order_id}: {parent.sequence} events committed, {told[-1].sequence} published")
    elif (parent.status, filled) not in [(event.status, event.filled_quantity) for event in ends]:
        found = [(str(event.status), str(event.filled_quantity)) for event in ends]
        say(f"{parent.order_id}: the last event says {found}, the ledger {parent.status} {filled}")
    notional = sum((child.notional for child in order.children if child.role is Role.ENTRY), ZERO)
    average = Context(prec=28).divide(notional, filled) if filled else None
    if ends and average not in [event.average_price for event in ends]:
        say(f"{parent.order_id}: the last event says an average price of {ends[-1].average_price}, its fills {average}")
    in_events = Counter(
        fill.trade_id for event in told if not isinstance(event.child, msgspec.UnsetType) for fill in event.child.fills
    )
    in_ledger = Counter(fill.trade_id for fill in order.fills)
    if in_ledger - in_events or (in_events != in_ledger and not twice):
        say(f"{parent.order_id}: fills in events {dict(in_events)}, in the ledger {dict(in_ledger)}")
    if twice:
        return
    for before, after in itertools.pairwise(told):
        if after.filled_quantity < before.filled_quantity:
            say(f"{parent.order_id}: filled falls from {before.filled_quantity} to {after.filled_quantity}")
        if (
            before.status.terminal
            and after.status is not before.status
            and after.filled_quantity == before.filled_quantity
        ):
            say(f"{parent.order_id}: {after.status} follows {before.status}")
