"""What is watched while a run goes on: promises that a look at the records afterwards could miss.

Each rule is written here once more, from the outside: of what the store, the venues and Pub/Sub see.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from adapters.base import VenueOrderStatus
from adapters.paper.orders import PaperOrder
from execution.ledger import keys, order_key
from execution.ledger.pulses import PULSES
from schemas import exact_json
from schemas.event import EventType
from schemas.terms import Side
from tests.simulation.redis_data import Hash, Reply
from tests.simulation.replica import SHARDS

if TYPE_CHECKING:
    from tests.simulation.world import World

ZERO = Decimal(0)
BOOKED_SECONDS = 30.0
"""How long a trade may stay unbooked while nothing fails: two looks at the venue, and a takeover."""
BEAT_TIMEOUT = 8.0
"""Seconds without a beat after which the dead man's switch may trip."""
HEARD_SECONDS = 15.0
"""How long after a trip a request may still arrive that left before every replica had heard of it: until then each looks at the
store, or loses its leases, and what it has sent may be carried out until it expires."""


class Watch:
    def __init__(self, world: World) -> None:
        self._world = world
        self.seen: list[str] = []
        """What went wrong, in words."""
        self._unbooked: set[str] = set()
        self._tripped_at: float | None = None
        """When the store took in a trip of the dead man's switch that stands."""

    def _say(self, what: str) -> None:
        self.seen.append(f"at {self._world.loop.time():.3f} {what}")

    # --- at the venues --------------------------------------------------------------------------------------------------

    def taken(self, paper: PaperOrder) -> None:
        """A venue took an order: its intent is in the ledger, and all that may trade of its parent is not more than was ordered."""
        world, key, child_id = self._world, key_of(paper), paper.order.client_order_id
        number = child_id.removeprefix(f"{key}n")
        if key not in world.lost and f"c:{number}".encode() not in self._order(key):
            self._say(f"{child_id} is at a venue before its intent is in the ledger")
        family = [one for venue in world.venues.values() for one in venue.orders if key_of(one) == key]
        side = next(Side(signal["side"]) for name, signal in world.signals.items() if order_key(name) == key)
        entries = [one for one in family if one.order.side is side]
        exits = [one for one in family if one.order.side is not side]
        held = sum((one.order.quantity - one.rest for one in entries), ZERO)
        if (
            self._tripped_at is not None
            and self._world.loop.time() > self._tripped_at + HEARD_SECONDS
            and paper in entries
        ):
            self._say(f"{child_id} is taken though the dead man's switch tripped at {self._tripped_at:.3f}")
        for role, orders, most in (("entries", entries, world.most[key]), ("exits", exits, held)):
            under_way = sum((_may_trade(one) for one in orders), ZERO)
            if under_way > most:
                self._say(f"the {role} of {key} may trade {under_way} of {most}")

    def sent_again(self, child_id: str) -> None:
        """A venue was sent an order that it has."""
        address = keys.key_of_child(child_id)
        if address is not None and address[0] not in self._world.lost:
            self._say(f"{child_id} was sent again although it had been taken")

    def fills_are_booked(self) -> None:
        """Nothing fails any more, and has not for a while: what has traded is in the ledger before long, whoever told of it."""
        world = self._world
        for venue in world.venues.values():
            for paper in venue.orders:
                key, child_id = key_of(paper), paper.order.client_order_id
                booked = self._order(key)
                for fill in paper.fills:
                    name = f"f:{child_id}:{fill.trade_id}"
                    late = world.loop.time() - (fill.timestamp / 1000 - world.epoch) > BOOKED_SECONDS
                    if booked and late and name.encode() not in booked and name not in self._unbooked:
                        self._unbooked.add(name)
                        self._say(
                            f"{fill.trade_id} of {child_id} at {venue.name} is not in the ledger after {BOOKED_SECONDS:g} s"
                        )

    # --- in Pub/Sub -----------------------------------------------------------------------------------------------------

    def acknowledged(self, topic: str, data: bytes) -> None:
        """A signal was acknowledged: it is in the ledger."""
        if topic != "signals":
            return
        key = order_key(exact_json.decode(data)["signal_id"])
        if key not in self._world.lost and not self._order(key):
            self._say(f"signal {exact_json.decode(data)['signal_id']} was acknowledged before it was in the ledger")

    # --- in the store ---------------------------------------------------------------------------------------------------

    def written(self, touched: Sequence[bytes], words: Sequence[bytes], reply: Reply) -> None:
        """A script has run: what changes an order is its owner's, under the lease held at that moment."""
        if tuple(touched) == (PULSES.encode(),):
            self._pulse(words[0])
        if not isinstance(reply, list) or reply[:1] != [b"OK"] or len(touched) != 5 or b":order:" not in touched[0]:
            return
        if len(reply) > 1:
            return  # it had been written before
        fields, now = (
            dict(self._world.redis.hashes(touched[3].decode()))[touched[3].decode()],
            self._world.redis.keyspace.now,
        )
        if (words[1], words[2]) != (fields[b"owner"], fields[b"epoch"]) or now >= int(fields[b"until"]):
            held = (
                f"{fields[b'owner'].decode()} under epoch {fields[b'epoch'].decode()} until {fields[b'until'].decode()}"
            )
            self._say(
                f"{words[1].decode()} wrote under epoch {words[2].decode()} at {now}; the shard was held by {held}"
            )

    # --- the dead man's switch --------------------------------------------------------------------------------------------

    def _pulse(self, verb: bytes) -> None:
        world, tripped = self._world, any(name.startswith(b"x:") for name in self._hash(PULSES))
        if tripped and self._tripped_at is None:
            self._tripped_at = world.loop.time()
            world.note("the dead man's switch trips")
            if world.beating or self._tripped_at < world.beat_at + BEAT_TIMEOUT:
                self._say(f"the dead man's switch tripped though the strategy beat at {world.beat_at:.3f}")
        elif not tripped:
            if self._tripped_at is not None and verb != b"resume" and not world.losses:
                self._say(f"a trip was ended by {verb.decode()}")
            self._tripped_at = None

    def at_the_end(self) -> list[str]:
        """What can be said when everything has come to its end."""
        told = [event for event in self._world.service_events() if event.event_type is EventType.DEADMAN_TRIPPED]
        if self._tripped_at is not None and not told:
            return ["the dead man's switch tripped, and nobody was told"]
        return []

    def _order(self, key: str) -> dict[bytes, bytes]:
        return self._hash(keys.ShardKeys(keys.shard_of(key, SHARDS)).order(key))

    def _hash(self, name: str) -> dict[bytes, bytes]:
        return dict(self._world.redis.keyspace.find(name.encode(), Hash) or {})


def key_of(paper: PaperOrder) -> str:
    """The key of the order that a child is of."""
    address = keys.key_of_child(paper.order.client_order_id)
    assert address is not None
    return address[0]


def _may_trade(paper: PaperOrder) -> Decimal:
    """What has traded, and what still may."""
    return paper.order.quantity if paper.status is VenueOrderStatus.OPEN else paper.order.quantity - paper.rest
