"""The venues' own dead man's timers: armed and wound up while entries of ours are open, so that a dead machine leaves none behind.

Such a timer cancels everything on its account, exits of brackets and other people's orders too. It is wound up only by a replica that
has just renewed its leases, of these only by the owner of the venue's shard, and only while every shard is held by a replica whose
heartbeat lives: where orders may be nobody's, it runs out. A crash never disarms it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, cast

import structlog

from adapters.base import Adapter, AdapterError
from execution.leases import ShardLeases
from execution.ledger import Ledger, keys
from execution.metrics import Metrics
from execution.order_actor import OrderActor
from execution.store import STORE_ERRORS, Store
from schemas.order import Role

log = structlog.get_logger(__name__)

LOOKS = 1.0
"""Seconds between two looks."""
REFRESHES = 3
"""Windings per time of the timer."""
OPEN_AT = "open_entries"
"""The field of a heartbeat that says at which venues a replica has entries, and how many."""


class _Timed(Protocol):
    """A venue that may have a timer."""

    async def cancel_all_after(self, seconds: float) -> bool: ...


class VenueTimers:
    """The timers of one replica's venues."""

    def __init__(
        self,
        adapters: Mapping[str, Adapter],
        store: Store,
        ledger: Ledger,
        leases: ShardLeases,
        metrics: Metrics,
        *,
        instance: str,
        seconds: float,
        lease_ttl: float,
        orders: Callable[[], Iterable[OrderActor]],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`seconds`: after which a venue cancels, 0 for no timers. `orders`: the live ones of this replica."""
        self._adapters = {name: adapter for name, adapter in adapters.items() if hasattr(adapter, "cancel_all_after")}
        if not seconds:
            self._adapters = {}
        self._store = store
        self._ledger = ledger
        self._leases = leases
        self._metrics = metrics
        self._instance = instance
        self._seconds = seconds
        self._lease_ttl = lease_ttl
        self._orders = orders
        self._monotonic = monotonic
        self._wound: dict[str, float] = {}
        """When each armed timer of ours was wound up last, monotonic seconds."""
        self._settled: set[str] = set()
        """Venues of ours whose timer is as we set it; a previous owner may have armed any other."""
        self._not_before: dict[str, float] = {}
        """Where a request failed: when the next may be made, monotonic seconds."""
        self._clear_since: dict[str, float] = {}
        """Since when an armed timer of ours guards no entry that is known, monotonic seconds."""
        self._stopped = False
        self._winding = asyncio.Lock()

    def open_entries(self) -> Counter[str]:
        """How many entries of this replica are, or may be, open at each venue."""
        return Counter(
            child.venue for actor in self._orders() for child in actor.state.active if child.role is Role.ENTRY
        )

    async def run(self) -> None:
        """Keep the timers until cancelled."""
        while True:
            if self._adapters:
                try:
                    await self.look()
                except STORE_ERRORS as error:
                    log.warning("timers at venues not wound up: the store does not answer", error=str(error))
            await asyncio.sleep(LOOKS)

    async def look(self) -> None:
        """Arm, wind up and disarm what is due.

        Raises:
            StoreUnavailable, StoreRefused
        """
        if self._stopped or not self._proven():
            return
        mine = [venue for venue in self._adapters if self._is_mine(venue) and self._adapters[venue].health.ready]
        for venue in self._settled - set(mine):
            self._forget(venue)  # its shard has another owner, who winds it up
        if not mine:
            return
        everywhere = await self._open_everywhere()
        if everywhere is None:
            return
        async with self._winding:
            if not self._stopped:
                await asyncio.gather(*(self._keep(venue, everywhere[venue]) for venue in mine))

    async def stop(self, seconds: float) -> None:
        """At a clean stop, before orders are handed over: disarm where nothing is open anywhere; else it stays for the next owner.

        Nothing is asked of a timer after that: orders that are handed over are no longer counted here. A venue that does not
        answer within `seconds` keeps nobody from stopping.
        """
        self._stopped = True
        try:
            async with asyncio.timeout(seconds), self._winding:  # what is on its way arrives before what disarms
                everywhere = await self._open_everywhere() if self._wound and self._proven() else None
                if everywhere is not None:
                    await asyncio.gather(*(self._set(venue, 0) for venue in list(self._wound) if not everywhere[venue]))
        except (TimeoutError, *STORE_ERRORS) as error:
            log.warning("timers at venues are left as they are", venues=sorted(self._wound), error=str(error))

    def _proven(self) -> bool:
        """Whether this replica has just shown that it can act: it renewed all of its leases."""
        beat = self._leases.last_beat
        return beat is not None and self._monotonic() - beat < self._lease_ttl

    def _is_mine(self, venue: str) -> bool:
        lease = self._leases.owned.get(self._ledger.shard_of(keys.order_key(f"venue\0{venue}")))
        return lease is not None and lease.valid

    async def _open_everywhere(self) -> Counter[str] | None:
        """Entries by venue of all replicas; None while a shard is held by none that lives, so that nobody can know."""
        found = self.open_entries()
        covered = set(self._leases.owned)
        for name in await self._store.call("ZRANGE", keys.REPLICAS, 0, -1):
            if name.decode() == self._instance:
                continue
            data = await self._store.call("GET", keys.heartbeat(name.decode()))
            beat = _read(data) if data is not None else None
            if beat is None:
                continue
            covered |= set(beat.get("shards", ()))
            told = beat.get(OPEN_AT)
            # A replica that does not say so may have some.
            found.update(told if isinstance(told, dict) else dict.fromkeys(self._adapters, 1))
        return found if len(covered) >= len(self._ledger.shards) else None

    async def _keep(self, venue: str, entries: int) -> None:
        wound, now = self._wound.get(venue), self._monotonic()
        if now < self._not_before.get(venue, now):
            return
        since = self._clear_since.setdefault(venue, now) if not entries else self._clear_since.pop(venue, now)
        # Orders that change hands are in nobody's count for a moment: it is wound up on until none was seen for a while.
        if not entries and (wound is None or now - since > self._lease_ttl):
            if wound is not None or venue not in self._settled:
                await self._set(venue, 0)
        elif wound is None or now - wound >= self._seconds / REFRESHES - LOOKS / 2:
            await self._set(venue, self._seconds)

    def _forget(self, venue: str) -> None:
        self._settled.discard(venue)
        self._wound.pop(venue, None)
        self._not_before.pop(venue, None)
        self._clear_since.pop(venue, None)
        self._metrics.venue_timer(venue, False)

    async def _set(self, venue: str, seconds: float) -> None:
        asked = self._monotonic()
        try:
            offered = await cast(_Timed, self._adapters[venue]).cancel_all_after(seconds)
        except AdapterError as error:
            self._not_before[venue] = asked + self._seconds / REFRESHES / 4
            self._metrics.venue_timer_failed(venue)
            log.error("the venue's own timer was not set", venue=venue, seconds=seconds, error=str(error))
            return
        if not offered:
            self._adapters.pop(venue, None)  # it has none
            return
        if bool(seconds) is not (venue in self._wound):
            log.info("the venue's own timer", venue=venue, seconds=seconds, now="armed" if seconds else "disarmed")
        self._settled.add(venue)
        if seconds:
            self._wound[venue] = asked
        else:
            self._wound.pop(venue, None)
        self._metrics.venue_timer(venue, bool(seconds))


def _read(data: bytes) -> dict[str, Any] | None:
    try:
        beat = json.loads(data)
    except ValueError:
        return None
    return beat if isinstance(beat, dict) else None
