"""The judge of a run: the venues' record, the ledger and the published events against each other and against the promises.

The venues' record is the truth. Nothing here asks the service what it thinks of itself.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

from adapters.base import VenueOrderStatus
from execution.ledger import LoadedOrder, keys, order_key
from execution.ledger.ledger import parse_order
from schemas.event import OrderEvent
from schemas.order import Role

if TYPE_CHECKING:
    from tests.simulation.world import World

ZERO = Decimal(0)
_event = msgspec.json.Decoder(OrderEvent)


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


def orders(world: World) -> dict[str, LoadedOrder | None]:
    """Every order of the ledger by its key; None: rejected on arrival."""
    found: dict[str, LoadedOrder | None] = {}
    for name, flat in world.redis.hashes("order:"):
        found[name.rpartition(":")[2]] = parse_order(flat)
    return found


def events(world: World) -> dict[str, list[OrderEvent]]:
    """The events as a consumer has them: each once by its id, by order, in order of sequence."""
    once: dict[str, OrderEvent] = {}
    for kept in world.bus.topic("events").kept.values():
        event = _event.decode(kept.message.data)
        once.setdefault(event.event_id, event)
    by_order: dict[str, list[OrderEvent]] = defaultdict(list)
    for event in once.values():
        by_order[event.order_id].append(event)
    for told in by_order.values():
        told.sort(key=lambda event: event.sequence)
    return by_order


def settled(world: World) -> bool:
    """Whether nothing is left to be done: every signal is an order that has ended, nothing is open, every event is out."""
    ledger = orders(world)
    for signal_id in world.signals:
        if order_key(signal_id) not in ledger:
            return False
    for order in ledger.values():
        if order is not None and (not order.parent.status.terminal or _protecting(order)):
            return False
    if any(paper.status is VenueOrderStatus.OPEN for venue in world.venues.values() for paper in venue.orders):
        return False
    return all(not world.redis.stream_length(keys.ShardKeys(shard).outbox) for shard in range(4))


def _protecting(order: LoadedOrder) -> bool:
    parent = order.parent
    filled = sum((child.filled for child in order.children if child.role is Role.ENTRY), ZERO)
    return parent.has_bracket and parent.protection_ended is None and filled > 0


def judge(world: World) -> Verdict:
    verdict = Verdict(world.seed, history=world.history, steps=world.loop.steps, virtual_seconds=world.loop.time())
    say = verdict.broken.append
    for name, error in world.deaths:
        say(f"{name} ended by itself: {type(error).__name__}: {error}")
    ledger, told = orders(world), events(world)
    _venues_against_ledger(world, ledger, verdict)
    for signal_id in world.signals:
        if order_key(signal_id) not in ledger:
            say(f"signal {signal_id} is nowhere: neither an order nor a rejection")
    for key, order in ledger.items():
        if order is None:
            continue
        verdict.orders += 1
        _judge_order(world, key, order, told.get(order.parent.order_id, []), say)
    for order_id, sequence in told.items():
        numbers = [event.sequence for event in sequence if event.sequence > 0]
        verdict.events += len(sequence)
        if numbers != list(range(1, len(numbers) + 1)):
            say(f"events of {order_id} have gaps or doubles: {numbers}")
    return verdict


def _venues_against_ledger(world: World, ledger: dict[str, LoadedOrder | None], verdict: Verdict) -> None:
    say = verdict.broken.append
    at_venues: dict[str, Decimal] = defaultdict(lambda: ZERO)
    for venue in world.venues.values():
        counts = Counter(paper.order.client_order_id for paper in venue.orders)
        for child_id, count in counts.items():
            if count > 1:
                say(f"{venue.name} took {count} orders under {child_id}")
        for paper in venue.orders:
            verdict.children += 1
            child_id = paper.order.client_order_id
            address = keys.key_of_child(child_id)
            order = ledger.get(address[0]) if address is not None else None
            child = next((c for c in order.children if c.child_id == child_id), None) if order is not None else None
            if child is None or order is None:
                say(f"{venue.name} has {child_id}, which the ledger does not know")
                continue
            if paper.status is VenueOrderStatus.OPEN and order.parent.status.terminal and not _protecting(order):
                say(f"{child_id} is open at {venue.name}, its order has ended as {order.parent.status}")
            booked = {fill.trade_id: fill.quantity for fill in order.fills if fill.child_id == child_id}
            traded = {fill.trade_id: fill.quantity for fill in paper.fills}
            verdict.fills += len(traded)
            if booked != traded:
                say(f"fills of {child_id}: the ledger has {booked}, {venue.name} {traded}")
            at_venues[f"{address[0] if address else ''}:{child.role}"] += sum(traded.values(), ZERO)
    for key, order in ledger.items():
        if order is None:
            continue
        entry, closed = at_venues[f"{key}:{Role.ENTRY}"], at_venues[f"{key}:{Role.EXIT}"]
        if entry > order.parent.quantity:
            say(f"{order.parent.order_id} is overfilled: {entry} of {order.parent.quantity}")
        if closed > entry:
            say(f"{order.parent.order_id}: its exits closed {closed} of {entry}")


def _judge_order(world: World, key: str, order: LoadedOrder, told: list[OrderEvent], say: object) -> None:
    assert callable(say)
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
