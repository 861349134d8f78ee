"""Writing orders: acceptance, transitions and shard leases, each one atomic script."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import structlog

from execution import failpoints
from execution.ledger import journal, keys
from execution.ledger.journal import Journal, Restored, Write
from execution.ledger.keys import ShardKeys
from execution.ledger.records import (
    Accepted,
    AcceptOutcome,
    Change,
    Conflict,
    Duplicate,
    Fenced,
    Lease,
    LedgerMismatch,
    LoadedOrder,
    Overfill,
    ShardsDiffer,
    parse_order,
)
from execution.store import Script, Store, StoreRefused, StoreUnavailable
from schemas import exact_json
from schemas.event import OrderEvent
from schemas.order import Role
from schemas.terms import MAX_DIGITS

log = structlog.get_logger(__name__)

_SCRIPTS = Path(__file__).parent / "scripts"
_ACCEPT = Script.load(_SCRIPTS / "accept.lua")
_COMMIT = Script.load(_SCRIPTS / "commit.lua")
_LEASE = Script.load(_SCRIPTS / "lease.lua")
_NOTE = Script.load(_SCRIPTS / "note.lua")
_HAND = Script.load(_SCRIPTS / "hand.lua")

OTHERS_SECONDS = 3.0
"""How long after the store came back other replicas are waited for to write again what our writes build upon."""
COMMAND_MEMORY_SECONDS = 7 * 86400
_UNIT = Decimal(1).scaleb(MAX_DIGITS)


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
        self._journal = Journal()
        self._whole = asyncio.Event()
        self._whole.set()
        self.restarted_at: float | None = None
        """Monotonic time at which the store was last found to be another process than before."""
        self._answered_at = time.monotonic()
        self._in_doubt_since = self._answered_at
        self._held: dict[int, Lease] = {}
        """The last lease of each shard that this process held."""
        self._lost_at = 0.0
        """When the store was last seen to be lost that came back as another process, on the monotonic clock."""
        self._continued: set[int] = set()
        """Shards that nobody else owned between our last two leases, and that were whole under the former."""
        store.on_reconnect(self._reconnected)

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
            published=parent.published_at,
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
        *,
        published: int = 0,
    ) -> AcceptOutcome:
        touched = [shard.order(key), shard.signal(key), shard.live, shard.outbox, shard.lease, shard.inbox]
        arguments = [
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
            published,
            *[exact_json.encode(event) for event in events],
            *fields,
        ]
        reply = await self._certainly(_ACCEPT, touched, arguments, None)
        outcome = reply[0]

        async def again(held: Lease | None) -> Restored:
            if mode == "own":
                arguments[2:5] = ["own", self._instance, held.epoch] if held else ["hand", self._instance, ""]
            reply = await self._store.script(_ACCEPT, touched, arguments)
            if reply[0] == b"OK":
                return Restored.THERE if len(reply) > 1 else Restored.WRITTEN
            return Restored.REFUSED if reply[0] == b"FENCED" else Restored.THERE

        if outcome == b"OK":
            self._keep(shard, arguments, again)
            # Written by this call, whose answer was lost, and worked since: no longer to be worked as it was accepted.
            return Duplicate(reply[2].decode().partition(" ")[2]) if reply[1:2] == [b"SINCE"] else Accepted()
        if outcome in (b"DUPLICATE", b"CONFLICT"):
            known = reply[1].decode().partition(" ")[2]
            return Duplicate(known) if outcome == b"DUPLICATE" else Conflict(known)
        if outcome == b"FENCED":
            raise Fenced(shard.tag)
        raise Overfill(f"order {order_id}: children claim more than its quantity")

    async def believed(self, key: str) -> None:
        """The venues were asked for what an order of a `doubt`ed signal may have been: the ledger has all of it.

        Raises:
            StoreUnavailable, StoreRefused: it will be asked again by who loads it next.
        """
        await self._store.call("HDEL", self.shards[self.shard_of(key)].order(key), "doubt")

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
        for command_id in change.commands:
            fields += [f"m:{command_id}", ""]
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

        async def again(held: Lease | None) -> Restored:
            if held is None:
                return Restored.REFUSED
            arguments[2] = held.epoch
            reply = await self._store.script(_COMMIT, touched, arguments)
            if reply[0] == b"OK":
                return Restored.THERE if len(reply) > 1 else Restored.WRITTEN
            if reply[0] == b"VERSION" and int(reply[1]) > expected:
                return Restored.THERE
            return Restored.REFUSED if reply[0] == b"FENCED" else Restored.MISSING

        if outcome == b"OK":
            self._keep(shard, arguments, again)
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
        touched = [shard.outbox, shard.command(command_id)]
        await self._written(shard, _NOTE, touched, [exact_json.encode(event), COMMAND_MEMORY_SECONDS])

    async def command_seen(self, shard: int, command_id: str) -> bool:
        return bool(await self._store.call("EXISTS", self.shards[shard].command(command_id)))

    async def remember_command(self, shard: int, command_id: str) -> None:
        """A command that concerns no order was carried out: repeating it does nothing. What an order was told is in its own record."""
        await self._store.call("SET", self.shards[shard].command(command_id), "1", "EX", COMMAND_MEMORY_SECONDS)

    async def hand_command(self, shard: int, command: bytes) -> None:
        """Leave a command for the shard's owner.

        Raises:
            StoreUnavailable: no certain answer within the patience; the command must be offered again.
        """
        at = self.shards[shard]
        await self._written(
            at, _HAND, [at.inbox, at.command(self._next_operation())], [command, COMMAND_MEMORY_SECONDS]
        )

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

    async def acquire(self, shard: int, seconds: float, margin: float, *, own: bool = False) -> Lease | None:
        """Take a shard that nobody holds; None while somebody does. `own`: only if it was ours last."""
        asked, run = time.monotonic(), self._store.run_id
        began = "" if shard in self._held else str(self._store.began_ms)
        reply = await self._lease("acquire", shard, "", seconds, "own" if own else "", run or "", began)
        if reply[0] != b"OK":
            return None
        before = reply[5].decode()
        epoch = int(reply[2])
        # Whoever held it before may not have come to confirm anything, and have acted all the same.
        suspect = bool(run) and before != run and epoch > 1
        last = self._held.get(shard)
        ours = reply[1].decode() == self._instance  # epochs may start again
        # Ours was valid when the store was lost: it cannot have forgotten that somebody else held it in between.
        stood = last is not None and last.valid_until > self._lost_at
        continued = last is not None and ours and stood and last.epoch == epoch - 1 and not last.suspect
        (self._continued.add if continued else self._continued.discard)(shard)
        # Renewals may be among what is missing: an owner of then may have sent for one lease more.
        ended, now, doubted = int(reply[3]), int(reply[4]), int(reply[6])
        inherited = max(ended, doubted + int(seconds * 1000))
        lease = self._held[shard] = Lease(
            shard,
            self._instance,
            epoch,
            asked + seconds - margin,
            inherited,
            quiet_from=time.monotonic() + max(inherited - now, 0) / 1000,
            suspect=suspect,
            doubted_until=doubted,
        )
        return lease

    async def renew(self, lease: Lease, seconds: float, margin: float) -> int | None:
        """Extend a lease in place; returns how many entries wait in the shard's inbox, None when the lease is lost."""
        asked = time.monotonic()
        reply = await self._lease("renew", lease.shard, lease.epoch, seconds, self._confirmed(lease))
        if reply[0] != b"OK":
            return None
        lease.valid_until = asked + seconds - margin
        return int(reply[3])

    async def release(self, lease: Lease) -> None:
        """Give a shard up at once."""
        lease.valid_until = 0.0
        await self._lease("release", lease.shard, lease.epoch, 0, self._confirmed(lease))

    def _confirmed(self, lease: Lease) -> str:
        """The store's process, if its shard lacks nothing there."""
        return (self._store.run_id or "") if self._whole.is_set() and not lease.suspect else ""

    async def _lease(
        self, verb: str, shard: int, epoch: int | str, seconds: float, more: str = "", *rest: str
    ) -> list[Any]:
        at = self.shards[shard]
        reply: list[Any] = await self._store.script(
            _LEASE, [at.lease, at.inbox], [verb, self._instance, epoch, int(seconds * 1000), more, *rest]
        )
        self._answered_at = time.monotonic()
        return reply

    # --- a store that came back without its last writes ---------------------------------------------------------------

    @property
    def whole(self) -> bool:
        """Whether the store has what this replica wrote, as far as it remembers. Until then orders are not written to."""
        return self._whole.is_set()

    def _reconnected(self, changed: bool) -> None:
        if changed:
            self._lost_at = self._store.lost_at
            if self._whole.is_set():
                self._in_doubt_since = self._answered_at - journal.SECONDS
            self._whole.clear()
            self.restarted_at = time.monotonic()

    async def restore(self, leases: Mapping[int, Lease]) -> dict[Restored, int]:
        """Write again what the store may lack, each shard's under the lease held now, and let new writes through.

        Returns what became of the writes of the last seconds. While the store is still not `whole`, it is to be called again.

        Raises:
            StoreUnavailable: the store went away again; to be called again.
        """
        restarted = self.restarted_at
        found = dict.fromkeys(Restored, 0)
        shards = self._journal.shards(self._in_doubt_since)
        for part in await asyncio.gather(*(self.restore_shard(shard, leases.get(shard)) for shard in shards)):
            for outcome, count in part.items():
                found[outcome] += count
        patient = restarted is not None and time.monotonic() - restarted < OTHERS_SECONDS
        if self.restarted_at == restarted and not (found[Restored.MISSING] and patient):
            self._whole.set()
        return found

    async def restore_shard(self, shard: int, lease: Lease | None) -> dict[Restored, int]:
        """Write again what the store may lack of one shard; see `restore`."""
        found = dict.fromkeys(Restored, 0)
        for write in self._journal.of(shard, self._in_doubt_since):
            found[await write.again(lease)] += 1
        whole = not (found[Restored.REFUSED] or found[Restored.MISSING])
        if lease is not None and shard in self._continued and whole:
            lease.suspect, lease.doubted_until = False, 0  # nobody but this process has written to it
        return found

    def _keep(
        self, shard: ShardKeys, arguments: Sequence[Any], again: Callable[[Lease | None], Awaitable[Restored]]
    ) -> None:
        size = sum(len(word) for word in arguments if isinstance(word, (str, bytes)))
        self._journal.keep(Write(time.monotonic(), shard.number, size, again))

    async def _written(self, shard: ShardKeys, script: Script, touched: list[str], arguments: list[Any]) -> None:
        """Run a script that needs no lease, and remember it."""
        await self._certainly(script, touched, arguments, None)

        async def again(_: Lease | None) -> Restored:
            reply = await self._store.script(script, touched, arguments)
            return Restored.THERE if len(reply) > 1 else Restored.WRITTEN

        self._keep(shard, arguments, again)

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
                await self._until_whole()
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
                self._answered_at = time.monotonic()
                failpoints.hit("ledger.after")
                return reply

    async def _until_whole(self) -> None:
        """Let nothing new be written before what it builds upon is there again."""
        if not self._whole.is_set():
            try:
                async with asyncio.timeout(1.0):
                    await self._whole.wait()
            except TimeoutError:
                raise StoreUnavailable("the store is being restored", maybe_applied=False) from None


def _fixed(number: Decimal) -> str:
    """The number as 56 digits, 28 before and 28 after the point, so that text compares and adds as the number does."""
    return f"{int(number * _UNIT):056d}"
