"""Writing orders: acceptance, transitions and shard leases, each one atomic script."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import structlog

from execution import failpoints
from execution.ledger import keys
from execution.ledger.keys import ShardKeys
from execution.store import Script, Store, StoreRefused, StoreUnavailable
from schemas import exact_json
from schemas.event import OrderEvent
from schemas.order import ChildOrder, Fill, ParentOrder, Role
from schemas.terms import MAX_DIGITS

log = structlog.get_logger(__name__)

_SCRIPTS = Path(__file__).parent / "scripts"
_ACCEPT = Script.load(_SCRIPTS / "accept.lua")
_COMMIT = Script.load(_SCRIPTS / "commit.lua")
_LEASE = Script.load(_SCRIPTS / "lease.lua")
_NOTE = Script.load(_SCRIPTS / "note.lua")

_parent = msgspec.json.Decoder(ParentOrder, float_hook=Decimal)
"""What a signal says in its own words (metadata, parameters) keeps its digits too."""
_child = msgspec.json.Decoder(ChildOrder)
_fill = msgspec.json.Decoder(Fill)

COMMAND_MEMORY_SECONDS = 7 * 86400
_UNIT = Decimal(1).scaleb(MAX_DIGITS)


class Fenced(Exception):
    """The shard is not, or no longer, ours: another replica may own the order. Nothing was written."""


class Overfill(Exception):
    """A commit would have let the children claim more than the parent's quantity. Nothing was written."""


class LedgerMismatch(Exception):
    """The order in the ledger is not as this replica knows it. Nothing was written."""


class ShardsDiffer(ValueError):
    """SHARDS differs from what the ledger was made with; set it to the ledger's number."""


class Lease(msgspec.Struct):
    """Ownership of one shard. `valid_until` is our monotonic clock, with a margin before the lease really ends."""

    shard: int
    owner: str
    epoch: int
    valid_until: float
    inherited_until: int
    """Ms since the epoch, the store's clock: until then the previous owner may have sent requests."""

    @property
    def valid(self) -> bool:
        return time.monotonic() < self.valid_until


class Accepted(msgspec.Struct, frozen=True):
    """The order is in the ledger, by this call."""


class Duplicate(msgspec.Struct, frozen=True):
    """The same signal was accepted (or rejected) before; it has an order already."""

    order_id: str


class Conflict(msgspec.Struct, frozen=True):
    """The signal id belongs to a signal with other content."""

    order_id: str


AcceptOutcome = Accepted | Duplicate | Conflict


class Change(msgspec.Struct, kw_only=True):
    """What one commit writes."""

    parent: ParentOrder
    children: Sequence[ChildOrder] = ()
    fills: Sequence[Fill] = ()
    events: Sequence[OrderEvent] = ()
    places: frozenset[Role] = frozenset()
    """The roles for which new claims are made, which must fit: entries the parent's quantity, exits what is held."""
    over: bool = False
    """Nothing more is to be decided: the order leaves the live ones, and is kept for a while."""
    reopened: bool = False
    """It was over and is not any more: a fill came late that needs protection."""
    held: Decimal = Decimal(0)
    """What the entry has filled: the most that exits may close."""


class LoadedOrder(msgspec.Struct):
    parent: ParentOrder
    children: list[ChildOrder]
    fills: list[Fill]


class Ledger:
    """Every write goes through here. Writes are repeated with the same operation id until their outcome is certain."""

    def __init__(
        self,
        store: Store,
        *,
        shards: int,
        instance: str,
        order_retention: int = 30 * 86400,
        signal_retention: int = 90 * 86400,
        patience: float = 30.0,
    ) -> None:
        """Retentions are in seconds, counted from the end of an order; `patience` is for how many seconds an acceptance is
        tried while the store does not answer."""
        self._store = store
        self._instance = instance
        self._order_retention = order_retention
        self._signal_retention = max(signal_retention, order_retention)
        self._patience = patience
        self._operation = 0
        self._prefix = f"{instance}:{time.time_ns():x}:"
        self.shards = [ShardKeys(shard) for shard in range(shards)]

    async def open(self) -> None:
        """Check that this replica divides orders into shards as the ledger does.

        Raises:
            ShardsDiffer: it does not.
        """
        count = len(self.shards)
        await self._store.call("SET", keys.SHARDS, count, "NX")
        stored = int(await self._store.call("GET", keys.SHARDS))
        if stored != count:
            raise ShardsDiffer(
                f"SHARDS is {count}, but this ledger was made with {stored}: set SHARDS={stored}, or use an empty Redis"
            )

    def shard_of(self, key: str) -> int:
        return keys.shard_of(key, len(self.shards))

    # --- acceptance -------------------------------------------------------------------------------------------------

    async def accept(self, key: str, content: str, change: Change, lease: Lease | None) -> AcceptOutcome:
        """Write a new order. With a lease it is ours to work at once; without, it is handed to the shard's owner.

        Raises:
            Fenced: the lease does not hold any more; accept without it.
            Overfill: the first children claim more than the quantity.
            StoreUnavailable: no certain answer within the patience; the signal must be offered again.
        """
        shard = self.shards[self.shard_of(key)]
        parent = change.parent
        claimed = sum((child.claim for child in change.children), Decimal(0))
        parent.version = 1
        fields: list[Any] = ["v", 1, "parent", exact_json.encode(parent)]
        for child in change.children:
            fields += [f"c:{child.number}", exact_json.encode(child), f"k:{child.number}", _fixed(child.claim)]
        mode = "end" if change.over else "hand" if lease is None else "own"
        return await self._accept(
            shard,
            key,
            content,
            parent.order_id,
            mode,
            lease,
            _fixed(parent.quantity),
            _fixed(claimed),
            change.events,
            fields,
        )

    async def reject(self, key: str, content: str, event: OrderEvent) -> AcceptOutcome:
        """Write that a signal was refused. Its id is used up: the same signal again is a duplicate.

        Raises:
            StoreUnavailable: no certain answer within the patience.
        """
        shard = self.shards[self.shard_of(key)]
        zero = _fixed(Decimal(0))
        fields = ["v", 1, "rejected", exact_json.encode(event)]
        return await self._accept(shard, key, content, event.order_id, "end", None, zero, zero, [event], fields)

    async def _accept(
        self,
        shard: ShardKeys,
        key: str,
        content: str,
        order_id: str,
        mode: str,
        lease: Lease | None,
        quantity: str,
        claimed: str,
        events: Sequence[OrderEvent],
        fields: list[Any],
    ) -> AcceptOutcome:
        reply = await self._certainly(
            _ACCEPT,
            [shard.order(key), shard.signal(key), shard.live, shard.outbox, shard.lease, shard.inbox],
            [
                self._next_operation(),
                f"{content} {order_id}",
                mode,
                self._instance,
                lease.epoch if lease else "",
                quantity,
                claimed,
                self._order_retention,
                self._signal_retention,
                key,
                len(events),
                *[exact_json.encode(event) for event in events],
                *fields,
            ],
            None,
        )
        outcome = reply[0]
        if outcome == b"OK":
            return Accepted()
        if outcome in (b"DUPLICATE", b"CONFLICT"):
            known = reply[1].decode().partition(" ")[2]
            return Duplicate(known) if outcome == b"DUPLICATE" else Conflict(known)
        if outcome == b"FENCED":
            raise Fenced(shard.tag)
        raise Overfill(f"order {order_id}: children claim more than its quantity")

    async def claim_alias(self, order_id: str, key: str) -> str:
        """Reserve an order id that a client chose; returns the key of the order that has it, ours or another."""
        alias = self.shards[self.shard_of(order_id)].alias(order_id)
        await self._store.call("SET", alias, key, "NX")
        return str((await self._store.call("GET", alias)).decode())

    async def find_key(self, order_id: str | None, signal_id: str | None) -> str | None:
        """The key of an order by either id; None when no such order is known."""
        if signal_id is not None and order_id is None:
            key = keys.order_key(signal_id)
        else:
            assert order_id is not None
            found = keys.key_of_generated(order_id)
            if found is None:
                alias = await self._store.call("GET", self.shards[self.shard_of(order_id)].alias(order_id))
                if alias is None:
                    return None
                found = alias.decode()
            key = found
        exists = await self._store.call("EXISTS", self.shards[self.shard_of(key)].order(key))
        return key if exists else None

    # --- transitions ------------------------------------------------------------------------------------------------

    async def commit(self, key: str, change: Change, lease: Lease) -> None:
        """Write one transition and its events. `change.parent.version` is raised by one.

        A lost connection is waited out for as long as the lease holds.

        Raises:
            Fenced: the shard is not ours any more.
            Overfill: the children would claim more than the parent's quantity.
            LedgerMismatch: the stored version is another one.
            StoreUnavailable: the lease ran out before the store answered; what was written is unknown.
        """
        shard = self.shards[lease.shard]
        parent = change.parent
        expected = parent.version
        parent.version = expected + 1
        claims: list[Any] = []
        fields: list[Any] = ["parent", exact_json.encode(parent)]
        for child in change.children:
            claims += [f"{'x' if child.role is Role.EXIT else 'k'}:{child.number}", _fixed(child.claim)]
            fields += [f"c:{child.number}", exact_json.encode(child)]
        for fill in change.fills:
            fields += [f"f:{fill.child_id}:{fill.trade_id}", exact_json.encode(fill)]
        arguments = [
            self._next_operation(),
            self._instance,
            lease.epoch,
            expected,
            int(Role.ENTRY in change.places) + 2 * int(Role.EXIT in change.places),
            _fixed(parent.quantity),
            2 if change.reopened else int(change.over),
            self._order_retention,
            self._signal_retention,
            len(change.children),
            len(change.events),
            _fixed(change.held),
            *claims,
            *[exact_json.encode(event) for event in change.events],
            *fields,
        ]
        order = shard.order(key)
        touched = [order, shard.live, shard.outbox, shard.lease, shard.signal(key)]
        try:
            reply = await self._certainly(_COMMIT, touched, arguments, lease)
        except BaseException:
            parent.version = expected
            raise
        outcome = reply[0]
        if outcome == b"OK":
            return
        parent.version = expected
        if outcome == b"FENCED":
            raise Fenced(shard.tag)
        if outcome == b"OVERFILL":
            raise Overfill(f"order {parent.order_id}: children claim more than {parent.quantity:f}")
        raise LedgerMismatch(f"order {parent.order_id}: {reply!r} where version {expected} was expected")

    async def note(self, key: str, command_id: str, event: OrderEvent) -> None:
        """Publish an event that changes no order, once per command."""
        shard = self.shards[self.shard_of(key)]
        await self._certainly(
            _NOTE,
            [shard.outbox, shard.command(command_id)],
            [exact_json.encode(event), COMMAND_MEMORY_SECONDS],
            None,
        )

    async def command_seen(self, shard: int, command_id: str) -> bool:
        return bool(await self._store.call("EXISTS", self.shards[shard].command(command_id)))

    async def remember_command(self, shard: int, command_id: str) -> None:
        """A command was carried out: repeating it does nothing."""
        await self._store.call("SET", self.shards[shard].command(command_id), "1", "EX", COMMAND_MEMORY_SECONDS)

    async def hand_command(self, shard: int, command: bytes) -> None:
        """Leave a command for the shard's owner."""
        inbox = self.shards[shard].inbox
        await self._store.call("XADD", inbox, "*", "command", command)
        await self._store.call("PUBLISH", keys.WAKE_CHANNEL, inbox)

    async def read_inbox(self, shard: int, count: int = 500) -> list[tuple[str, str, bytes]]:
        """What other replicas left for the owner: (entry id, `order` or `command`, its key or JSON)."""
        entries = await self._store.call("XRANGE", self.shards[shard].inbox, "-", "+", "COUNT", count)
        return [(entry.decode(), fields[0].decode(), fields[1]) for entry, fields in entries]

    async def settle_inbox(self, shard: int, entries: Sequence[str]) -> None:
        if entries:
            await self._store.call("XDEL", self.shards[shard].inbox, *entries)

    # --- reading, for the owner -------------------------------------------------------------------------------------

    async def live(self, shard: int) -> list[str]:
        """The keys of a shard's orders that have not ended."""
        return [key.decode() for key in await self._store.call("SMEMBERS", self.shards[shard].live)]

    async def load(self, key: str) -> LoadedOrder | None:
        """An order with its children in order and its fills; None when there is none, or it was rejected on arrival."""
        return parse_order(await self._store.call("HGETALL", self.shards[self.shard_of(key)].order(key)))

    # --- leases -----------------------------------------------------------------------------------------------------

    async def acquire(self, shard: int, seconds: float, margin: float) -> Lease | None:
        """Take a shard that nobody holds; None while somebody does."""
        asked = time.monotonic()
        reply = await self._lease("acquire", shard, "", seconds)
        if reply[0] != b"OK":
            return None
        return Lease(shard, self._instance, int(reply[2]), asked + seconds - margin, int(reply[3]))

    async def renew(self, lease: Lease, seconds: float, margin: float) -> int | None:
        """Extend a lease in place; returns how many entries wait in the shard's inbox, None when the lease is lost."""
        asked = time.monotonic()
        reply = await self._lease("renew", lease.shard, lease.epoch, seconds)
        if reply[0] != b"OK":
            return None
        lease.valid_until = asked + seconds - margin
        return int(reply[3])

    async def release(self, lease: Lease) -> None:
        """Give a shard up at once."""
        lease.valid_until = 0.0
        await self._lease("release", lease.shard, lease.epoch, 0)

    async def _lease(self, verb: str, shard: int, epoch: int | str, seconds: float) -> list[Any]:
        at = self.shards[shard]
        reply: list[Any] = await self._store.script(
            _LEASE, [at.lease, at.inbox], [verb, self._instance, epoch, int(seconds * 1000)]
        )
        return reply

    # --- certainty --------------------------------------------------------------------------------------------------

    def _next_operation(self) -> str:
        self._operation += 1
        return f"{self._prefix}{self._operation:x}"

    async def _certainly(
        self, script: Script, touched: list[str], arguments: list[Any], lease: Lease | None
    ) -> list[Any]:
        """Run a script until its outcome is known. The operation id among the arguments makes repeating it harmless.

        A cancelled caller does not interrupt it: a commit under way is finished, then the cancellation is felt.
        """
        return await asyncio.shield(self._repeat(script, touched, arguments, lease))

    async def _repeat(self, script: Script, touched: list[str], arguments: list[Any], lease: Lease | None) -> list[Any]:
        give_up = time.monotonic() + self._patience
        pause = 0.05
        while True:
            try:
                failpoints.hit("ledger.before")
                reply: list[Any] = await self._store.script(script, touched, arguments)
            except (StoreUnavailable, StoreRefused) as error:
                if isinstance(error, StoreRefused) and not error.transient:
                    raise
                if lease is not None and not lease.valid:
                    raise
                if lease is None and time.monotonic() > give_up:
                    raise
                log.warning("ledger write repeated", error=str(error))
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)
            else:
                failpoints.hit("ledger.after")
                return reply


def parse_order(flat: Any) -> LoadedOrder | None:
    """An order from its hash, as `HGETALL` gives it."""
    pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
    parent: ParentOrder | None = None
    children: list[ChildOrder] = []
    fills: list[Fill] = []
    for name, value in pairs:
        if name == b"parent":
            parent = _parent.decode(value)
        elif name.startswith(b"c:"):
            children.append(_child.decode(value))
        elif name.startswith(b"f:"):
            fills.append(_fill.decode(value))
        elif name == b"v":
            version = int(value)
    if parent is None:
        return None
    parent.version = version
    children.sort(key=lambda child: child.number)
    fills.sort(key=lambda fill: (fill.timestamp, fill.trade_id))
    return LoadedOrder(parent, children, fills)


def _fixed(number: Decimal) -> str:
    """The number as 56 digits, 28 before and 28 after the point, so that text compares and adds as the number does."""
    return f"{int(number * _UNIT):056d}"
