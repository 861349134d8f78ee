"""What is watched while a run goes on: promises that a look at the records afterwards could miss.

Each rule is written here once more, from the outside: of what the store, the venues and Pub/Sub see.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from adapters.base import VenueOrderStatus
from adapters.paper.orders import PaperOrder
from execution.ledger import keys, order_key
from execution.ledger.pulses import PULSES
from schemas import exact_json
from schemas.event import EventType, OrderEvent
from schemas.order import ChildState, OrderStatus
from schemas.terms import OrderType, Side
from tests.simulation.redis_data import Hash, Reply
from tests.simulation.replica import SHARDS
from tests.simulation.venue import RULES

if TYPE_CHECKING:
    from tests.simulation.world import World

ZERO = Decimal(0)
BOOKED_SECONDS = 30.0
"""How long a trade may stay unbooked while nothing fails: two looks at the venue, and a takeover."""
BEAT_TIMEOUT = 8.0
"""Seconds without a beat after which the dead man's switch may trip."""
SILENT_SECONDS = 45.0
"""How long after the last beat it must have tripped, whatever befell the replicas meanwhile."""
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
        self._trips = 0
        self._missed = False
        self._left_open: set[str] = set()
        self._written_under: dict[str, bytes] = {}
        """By child id: the epoch under which its intent was written."""
        self._taken_over_at: dict[str, float] = {}
        """By the key of a shard's lease: when it changed hands last."""
        self._told: dict[tuple[str, str], float] = {}
        """By replica and child id: when a venue told it last how that child stands."""

    def _say(self, what: str) -> None:
        self.seen.append(f"at {self._world.loop.time():.3f} {what}")

    def unhandled(self, context: dict[str, Any]) -> None:
        """A callback raised: what is simulated is at fault, or who looks on."""
        if "handle" in context:
            error = context.get("exception")
            at = traceback.extract_tb(error.__traceback__)[-1] if error is not None else None
            self._say(f"a callback failed: {error!r} at {at}")

    # --- at the venues --------------------------------------------------------------------------------------------------

    def taken(self, paper: PaperOrder) -> None:
        """A venue took an order: its intent is in the ledger, and all that may trade of its parent is not more than was ordered."""
        world, key, child_id = self._world, key_of(paper), paper.order.client_order_id
        number = child_id.removeprefix(f"{key}n")
        if key not in world.lost and f"c:{number}".encode() not in self._order(key):
            self._say(f"{child_id} is at a venue before its intent is in the ledger")
        family = [one for venue in world.venues.values() for one in venue.orders if key_of(one) == key]
        side = self._side(key)
        entries = [one for one in family if one.order.side is side]
        exits = [one for one in family if one.order.side is not side]
        held = sum((one.order.quantity - one.rest for one in entries), ZERO)
        if (
            self._tripped_at is not None
            and self._world.loop.time() > self._tripped_at + HEARD_SECONDS
            and paper in entries
            and not self._world.forgotten_since(self._tripped_at)
        ):
            self._say(f"{child_id} is taken though the dead man's switch tripped at {self._tripped_at:.3f}")
        if not _legal(paper):
            self._say(f"{child_id} is not on the venue's lots and ticks, or below its minimum")
        for role, orders, most in (("entries", entries, world.most[key]), ("exits", exits, held)):
            under_way = sum((_may_trade(one) for one in orders), ZERO)
            if under_way > most:
                self._say(f"the {role} of {key} may trade {under_way} of {most}")

    def sent_again(self, child_id: str) -> None:
        """A venue was sent an order that it has: that may not be, whatever the store has forgotten meanwhile."""
        if keys.key_of_child(child_id) is not None:
            self._say(f"{child_id} was sent again although it had been taken")

    def overtaken(self, replica: str, child_id: str) -> None:
        """A replica sends a create while a cancel, or a create that only closes a position, waits for its turn at the same venue."""
        self._say(f"{replica} sent {child_id} while what only reduces waited")

    def told(self, replica: str, child_id: str) -> None:
        """A replica has been told how an order stands."""
        self._told[replica, child_id] = self._world.loop.time()

    def entries_are_off(self) -> None:
        """Nothing fails any more: a silent strategy's entries are taken off before long."""
        world = self._world
        silent = world.beat_at and not world.beating and not self._trips and not world.losses
        since = world.loop.time() - SILENT_SECONDS
        if silent and world.beat_at < since and not self._missed:
            rests = [name for name in world.signals if self._works(order_key(name), since)]
            if rests:
                self._missed = True
                self._say(f"{rests} are worked on though the strategy was heard last at {world.beat_at:.3f}")
        if self._tripped_at is None or world.loop.time() < self._tripped_at + BOOKED_SECONDS:
            return
        if world.forgotten_since(self._tripped_at):
            return
        for venue in world.venues.values():
            for paper in venue.orders:
                child_id = paper.order.client_order_id
                resting = paper.status is VenueOrderStatus.OPEN and paper.order.side is self._side(key_of(paper))
                if resting and child_id not in self._left_open:
                    self._left_open.add(child_id)
                    self._say(f"{child_id} rests though the dead man's switch tripped at {self._tripped_at:.3f}")

    def ends_are_kept(self) -> None:
        """Nothing fails any more: what has no time left does not rest."""
        world = self._world
        for name, signal in world.signals.items():
            key, ends = order_key(name), signal.get("expires_at")
            if ends is None or world.now_ms() < ends + BOOKED_SECONDS * 1000 or key in self._left_open:
                continue
            for venue in world.venues.values():
                for paper in venue.orders:
                    entry = key_of(paper) == key and paper.order.side is self._side(key)
                    if entry and paper.status is VenueOrderStatus.OPEN:
                        self._left_open.add(key)
                        self._say(f"{paper.order.client_order_id} rests though its order's time ended at {ends}")

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
        if not isinstance(reply, list) or reply[:1] != [b"OK"]:
            return
        if touched[0].endswith(b":lease") and words[0] == b"acquire":
            self._taken_over_at[touched[0].decode()] = self._world.loop.time()
        if b":order:" not in touched[0]:
            return
        if len(touched) == 6:
            self._intended(touched[0], words[4])
        if len(touched) != 5 or len(reply) > 1:
            return  # another script; or it had been written before
        self._under_lease(touched, words)
        for number in self._intended(touched[0], words[2]):
            self._with_knowledge(touched[0], touched[3], words[1], words[2], number)

    def _under_lease(self, touched: Sequence[bytes], words: Sequence[bytes]) -> None:
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

    def _intended(self, order: bytes, epoch: bytes) -> list[bytes]:
        """The numbers of the children whose intent this write brought."""
        key, fresh = order.rpartition(b":")[2].decode(), []
        for name in self._hash(order.decode()):
            if name.startswith(b"c:") and f"{key}n{name[2:].decode()}" not in self._written_under:
                self._written_under[f"{key}n{name[2:].decode()}"] = epoch
                fresh.append(name[2:])
        return fresh

    def _with_knowledge(self, order: bytes, lease: bytes, replica: bytes, epoch: bytes, number: bytes) -> None:
        """A new child was decided: its order was not paused, and whoever took the order over had been told how its open ones stand."""
        key, record = order.rpartition(b":")[2].decode(), self._hash(order.decode())
        entry = b"k:" + number in record
        if key in self._world.lost or not entry:
            return
        if exact_json.decode(record[b"parent"]).get("paused"):
            self._say(f"{key}n{number.decode()} was decided while its order was paused")
        for name, value in record.items():
            child_id = f"{key}n{name[2:].decode()}"
            if not name.startswith(b"c:") or self._written_under.get(child_id) == epoch:
                continue
            told_at = self._told.get((replica.decode(), child_id), -1.0)
            if exact_json.decode(value).get("state") == ChildState.OPEN and told_at < self._taken_over_at.get(
                lease.decode(), 0.0
            ):
                self._say(
                    f"{key}n{number.decode()} was decided before {replica.decode()} was told how {child_id} stands"
                )

    # --- the dead man's switch --------------------------------------------------------------------------------------------

    def _pulse(self, verb: bytes) -> None:
        world, tripped = self._world, any(name.startswith(b"x:") for name in self._hash(PULSES))
        if tripped and self._tripped_at is None:
            self._tripped_at = world.loop.time()
            self._trips += 1
            world.note("the dead man's switch trips")
            if world.beating or self._tripped_at < world.beat_at + BEAT_TIMEOUT:
                self._say(f"the dead man's switch tripped though the strategy beat at {world.beat_at:.3f}")
        elif not tripped:
            if self._tripped_at is not None and verb != b"resume" and not world.losses:
                self._say(f"a trip was ended by {verb.decode()}")
            self._tripped_at = None

    def at_the_end(self) -> list[str]:
        """What can be said when everything has come to its end."""
        world, found = self._world, []
        told = [event for event in world.service_events() if event.event_type is EventType.DEADMAN_TRIPPED]
        if self._tripped_at is not None and not told:
            found.append("the dead man's switch tripped, and nobody was told")
        return found + self._published(world.published())

    # --- events -----------------------------------------------------------------------------------------------------------

    def _published(self, events: Iterable[OrderEvent]) -> list[str]:
        """What the order in which events came out shows: the first time, they come one after the other; a command shows once."""
        found, last = [], Counter[str]()
        lost = {f"ord_{key}" for key in self._world.lost}
        commands: dict[tuple[str, str], set[str]] = {}
        for event in events:
            if event.order_id in lost or not event.sequence:
                continue
            if event.sequence > last[event.order_id] + 1:
                found.append(f"event {event.sequence} of {event.order_id} came out before {last[event.order_id] + 1}")
            last[event.order_id] = max(last[event.order_id], event.sequence)
            if event.event_type is EventType.AMENDED and isinstance(event.reason, str) and event.reason[:1] == "c":
                commands.setdefault((event.order_id, event.reason), set()).add(event.event_id)
        for (order_id, command_id), ids in commands.items():
            if len(ids) > 1 and command_id in self._world.commands:
                found.append(f"command {command_id} was carried out {len(ids)} times on {order_id}")
        return found

    def _works(self, key: str, since: float) -> bool:
        """Whether an order that was accepted before a time has not ended."""
        record = self._order(key)
        if b"parent" not in record:
            return False
        parent = exact_json.decode(record[b"parent"])
        accepted = parent["created_at"] / 1000 - self._world.epoch < since
        return accepted and not OrderStatus(parent["status"]).terminal

    def _side(self, key: str) -> Side:
        """Of an order's entry."""
        world = self._world
        return next(Side(signal["side"]) for name, signal in world.signals.items() if order_key(name) == key)

    def _order(self, key: str) -> dict[bytes, bytes]:
        return self._hash(keys.ShardKeys(keys.shard_of(key, SHARDS)).order(key))

    def _hash(self, name: str) -> dict[bytes, bytes]:
        return dict(self._world.redis.keyspace.find(name.encode(), Hash) or {})


def _legal(paper: PaperOrder) -> bool:
    """Whether a venue with these rules would have taken it."""
    order = paper.order
    # What trades at the market is valued by the market, which moves.
    notional = order.quantity * order.price if order.price is not None else None
    return (
        order.quantity % (RULES.market_lot if order.order_type is OrderType.MARKET else RULES.lot) == 0
        and order.quantity >= RULES.min_quantity
        and (order.price is None or order.price % RULES.tick == 0)
        and (notional is None or notional >= RULES.min_notional)
    )


def key_of(paper: PaperOrder) -> str:
    """The key of the order that a child is of."""
    address = keys.key_of_child(paper.order.client_order_id)
    assert address is not None
    return address[0]


def _may_trade(paper: PaperOrder) -> Decimal:
    """What has traded, and what still may."""
    return paper.order.quantity if paper.status is VenueOrderStatus.OPEN else paper.order.quantity - paper.rest
