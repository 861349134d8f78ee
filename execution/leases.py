"""Which shards this replica owns.

Every beat the replica renews its leases, writes its heartbeat, counts the replicas alive, and takes or gives shards so that
each holds its share. A lease counts as valid here for less time than it really lasts, by our monotonic clock from before the
renewal was sent: a replica that cannot renew stops sending before another can take over.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from execution.ledger import Lease, Ledger, Restored, keys
from execution.metrics import Metrics
from execution.store import STORE_ERRORS, Store
from schemas import exact_json

log = structlog.get_logger(__name__)

MARGIN = 0.2
"""The part of a lease's time, at its end, during which we no longer rely on it."""
BEATS = 5
"""Renewals per lease time."""


RESTORE_PAUSE = 0.2
"""Seconds until the store is given again what could not be written for lack of another replica's writes."""


class ShardLeases:
    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        metrics: Metrics,
        *,
        instance: str,
        ttl: float,
        describe: Callable[[], dict[str, Any]],
        acquired: Callable[[Lease], Awaitable[None]],
        lost: Callable[[int], None],
        hand_over: Callable[[set[int]], Awaitable[None]],
        inbox: Callable[[int], Awaitable[None]],
    ) -> None:
        """`ttl` in seconds. `describe` says what goes into the heartbeat; the others are told when a shard was acquired, was
        lost, is to be handed over (its lease is released when that returns), or has something in its inbox."""
        self._store = store
        self._ledger = ledger
        self._metrics = metrics
        self._instance = instance
        self._ttl = ttl
        self._describe = describe
        self._acquired = acquired
        self._lost = lost
        self._hand_over = hand_over
        self._inbox = inbox
        self._owned: dict[int, Lease] = {}
        self._giving: set[int] = set()
        self._taking: set[tuple[int, int]] = set()
        """Shard and epoch of what was acquired and is not loaded yet: it is not given away before."""
        self._leaving = asyncio.Event()
        self._nudge = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._restoring = False
        self.replicas = 0
        self.last_beat: float | None = None
        """Monotonic time of the last beat at which the store answered and every lease was renewed."""

    @property
    def owned(self) -> dict[int, Lease]:
        return self._owned

    async def run(self) -> None:
        """Beat until cancelled: renew what is owned at every beat, and beside it see what should be owned.

        Renewing waits for nothing else: with little time to be had, the rest of a beat can take longer than a lease lasts.
        """
        arranging: asyncio.Task[None] | None = None
        try:
            while True:
                started = time.monotonic()
                try:
                    await self._renew()
                except STORE_ERRORS as error:
                    self._metrics.lease_failed()
                    log.error("leases not renewed: the store does not answer", error=str(error))
                self._drop_invalid()
                if arranging is None or arranging.done():
                    arranging = asyncio.ensure_future(self._guard(self._arrange()))
                rest = self._ttl / BEATS - (time.monotonic() - started)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._nudge.wait(), max(rest, 0.05))
                if self._nudge.is_set() and not arranging.done():
                    await asyncio.wait([arranging], timeout=max(rest, 0.05))  # it may have looked before
                self._nudge.clear()
        finally:
            if arranging is not None:
                arranging.cancel()

    def wake(self) -> None:
        """Beat now: a shard may have been released."""
        self._nudge.set()

    async def release_all(self) -> None:
        """Give every shard up, as its work has been finished or handed over. No beat takes any from now on."""
        self._leaving.set()
        for task in self._tasks:
            task.cancel()
        leases, self._owned = list(self._owned.values()), {}
        try:
            # Not counted any more before a shard is free: the others then take theirs at once, and leave none to us.
            await self._store.call("ZREM", keys.REPLICAS, self._instance)
            await asyncio.gather(*(self._ledger.release(lease) for lease in leases))
            await self._store.call("DEL", keys.heartbeat(self._instance))
        except STORE_ERRORS as error:
            log.warning("leases not released: they run out by themselves", error=str(error))

    async def _renew(self) -> None:
        leases = list(self._owned.values())
        if not leases:
            await self._store.server_time_ms()  # whether it answers is to be known all the same
        waiting = await asyncio.gather(*(self._ledger.renew(lease, self._ttl, self._ttl * MARGIN) for lease in leases))
        for lease, entries in zip(leases, waiting, strict=True):
            if self._owned.get(lease.shard) is not lease:
                continue  # given away meanwhile
            if entries is None:
                self._lose(lease.shard)
            elif entries and lease.shard not in self._giving:
                self._start(self._inbox(lease.shard))
        self.last_beat = time.monotonic()

    async def _arrange(self) -> None:
        """Be counted, hold our share of the shards, and tell that we live."""
        await self._register()
        await self._balance()
        if not self._ledger.whole and not self._restoring:
            self._restoring = True
            self._start(self._restore())  # leases are renewed meanwhile
        await self._pulse()
        self._metrics.shards_owned(len(self._owned))

    async def _pulse(self) -> None:
        """Written only after the leases were renewed: the pulse says that this replica can act, not merely that it runs."""
        now = await self._store.server_time_ms()
        if self._leaving.is_set():
            return
        beat = {"instance": self._instance, "timestamp": now, "shards": sorted(self._owned), **self._describe()}
        await self._store.call(
            "SET", keys.heartbeat(self._instance), exact_json.encode(beat), "PX", int(self._ttl * 2000)
        )

    async def _register(self) -> None:
        """Be counted among the replicas alive, and count them. Who has not beaten for the time of a lease holds none any more: were
        it counted for longer, its shards would be left to it while nobody owns them."""
        now = await self._store.server_time_ms()
        if self._leaving.is_set():
            return
        await self._store.call("ZADD", keys.REPLICAS, now, self._instance)
        await self._store.call("ZREMRANGEBYSCORE", keys.REPLICAS, "-inf", int(now - self._ttl * 1000))
        self.replicas = int(await self._store.call("ZCARD", keys.REPLICAS))

    async def _restore(self) -> None:
        """The store is another process than before: it may lack the last writes."""
        try:
            found = await self._ledger.restore({shard: lease for shard, lease in self._owned.items() if lease.valid})
        finally:
            self._restoring = False
        self._metrics.restored(found)
        told = {outcome.name.lower(): count for outcome, count in found.items()}
        if not self._ledger.whole:
            log.warning("the store lacks what others have to write again", **told)
            asyncio.get_running_loop().call_later(RESTORE_PAUSE, self.wake)
        elif found[Restored.REFUSED] or found[Restored.MISSING]:
            log.error("the store lacks writes that cannot be made again: the venues are asked", **told)
        elif found[Restored.WRITTEN]:
            log.error("the store had lost writes; they were made again", **told)
        else:
            log.info("the store has every write of the last seconds", **told)

    @property
    def _returning(self) -> bool:
        """Whether the store came back so recently that a shard is left to who owned it last, and knows what it may lack."""
        restarted = self._ledger.restarted_at
        return restarted is not None and time.monotonic() - restarted < self._ttl

    async def _balance(self) -> None:
        count = len(self._ledger.shards)
        share = -(-count // max(self.replicas, 1))
        surplus = len(self._owned) - len(self._giving) - share
        if surplus > 0:
            loaded = {shard for shard, lease in self._owned.items() if (shard, lease.epoch) not in self._taking}
            chosen = set(sorted(loaded - self._giving)[:surplus])
            self._giving |= chosen
            self._start(self._give(chosen))
        missing = share - (len(self._owned) - len(self._giving))
        if missing <= 0:
            return
        # Start at a place of our own, so that replicas starting together do not all ask for the same shards.
        offset = zlib.crc32(self._instance.encode()) % count
        taken: list[int] = []
        for step in range(count):
            shard = (offset + step) % count
            if shard in self._owned:
                continue
            if self._leaving.is_set():
                return
            lease = await self._ledger.acquire(shard, self._ttl, self._ttl * MARGIN, own=self._returning)
            if lease is None:
                continue
            if self._leaving.is_set():
                await self._ledger.release(lease)
                return
            self._owned[shard] = lease
            self._taking.add((shard, lease.epoch))
            self._start(self._take(lease))
            taken.append(shard)
            if len(taken) >= missing:
                break
        if taken:
            log.info("shards acquired", shards=sorted(taken), owned=len(self._owned))

    async def _take(self, lease: Lease) -> None:
        log.debug("shard acquired", shard=lease.shard, epoch=lease.epoch)
        try:
            # Before it is read: what the store lacks of it may be known here.
            self._metrics.restored(await self._ledger.restore_shard(lease.shard, lease))
            if self._owned.get(lease.shard) is not lease:
                return
            await self._acquired(lease)
            await self._inbox(lease.shard)
        except STORE_ERRORS as error:
            log.error("shard could not be loaded, and is given up", shard=lease.shard, error=str(error))
            self._lose(lease.shard)
        finally:
            self._taking.discard((lease.shard, lease.epoch))

    async def _give(self, shards: set[int]) -> None:
        try:
            await self._hand_over(shards)
            for shard in shards:
                lease = self._owned.pop(shard, None)
                # Both at once: counted as still being given, it would look as if we had one too few, and we took it back.
                self._giving.discard(shard)
                if lease is not None:
                    await self._ledger.release(lease)
                    log.info("shard handed over", shard=shard, epoch=lease.epoch)
        except STORE_ERRORS as error:
            log.warning("shards not released: their leases run out by themselves", error=str(error))
            for shard in shards & self._owned.keys():
                self._lose(shard)  # its orders are not worked here any more: it must not be renewed
        finally:
            self._giving -= shards

    def _drop_invalid(self) -> None:
        for lease in list(self._owned.values()):
            if not lease.valid:
                self._lose(lease.shard)

    def _lose(self, shard: int) -> None:
        if self._owned.pop(shard, None) is not None:
            log.error("shard lost", shard=shard)
            self._lost(shard)

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(self._guard(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guard(self, work: Awaitable[None]) -> None:
        try:
            await work
        except STORE_ERRORS as error:
            log.warning("put off: the store does not answer", error=str(error))
        except Exception:
            log.exception("a task about shards failed unexpectedly")
            self._metrics.internal_error("leases")
