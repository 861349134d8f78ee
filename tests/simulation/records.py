"""What was written down in a simulated world, for the judge."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

from adapters.base import VenueOrderStatus
from execution.ledger import keys
from execution.ledger.records import parse_order
from schemas.event import OrderEvent
from tests.simulation.oracle import AtVenue, Records, by_order

if TYPE_CHECKING:
    from tests.simulation.world import World

_event = msgspec.json.Decoder(OrderEvent)


def records(world: World, *, at_the_end: bool = False) -> Records:
    """Everybody's records as they are now; `at_the_end`: with what was seen to go wrong meanwhile."""
    return Records(
        venues={
            venue.name: [
                AtVenue(
                    paper.order.client_order_id,
                    paper.status is VenueOrderStatus.OPEN,
                    {fill.trade_id: fill.quantity for fill in paper.fills},
                    {fill.trade_id: fill.price for fill in paper.fills},
                    paper.order.side,
                    venue.taken_at[paper.order.client_order_id],
                )
                for paper in venue.orders
            ]
            for venue in world.venues.values()
        },
        ledger={name.rpartition(":")[2]: parse_order(flat) for name, flat in world.redis.hashes("}:order:")},
        events=by_order(_event.decode(kept.message.data) for kept in world.bus.topic("events").kept.values()),
        public={
            name.removeprefix("ORDER:"): (fields[b"state"].decode(), Decimal(fields[b"filled"].decode()))
            for name, fields in world.redis.hashes("ORDER:")
        }
        if at_the_end
        else None,
        trades=[
            (fields[b"client_order_id"].decode(), fields[b"trade_id"].decode())
            for _, fields in world.redis.stream(keys.STREAM_TRADE)
        ]
        if at_the_end
        else (),
        signals=world.signals,
        waiting_events=sum(world.redis.stream_length(keys.ShardKeys(shard).outbox) for shard in range(4)),
        deaths=[f"{name} ended by itself: {type(error).__name__}: {error}" for name, error in world.deaths],
        seen=[*world.watch.seen, *world.watch.at_the_end(), *_unforeseen(world)] if at_the_end else (),
        forgotten=world.forgotten,
    )


def _unforeseen(world: World) -> list[str]:
    """Failures that the replicas' own programs did not foresee."""
    found = []
    for replica in world.replicas:
        for family in replica.metrics.registry.collect():
            if family.name == "execution_internal_errors":
                found += [
                    f"{replica.name} failed in {s.labels['part']}"
                    for s in family.samples
                    # Where the store has forgotten something, others find less, or other things, than they know.
                    if s.value and not (world.losses and s.labels["part"] == "LedgerMismatch")
                ]
    return found + [f"the simulated store does not know {word}" for word in dict.fromkeys(world.redis.unknown)]
