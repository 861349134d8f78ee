"""The dead man's switch on the pulses of strategies and other sources.

The first beat arms a pulse. When one that live orders depend on has been silent for its timeout, it trips once for all replicas:
nothing new is sent for it, entries are taken off, exits stay, `deadman.tripped` is told. A person's `resume` ends it, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable

import structlog

from execution.ledger import Ledger, order_key
from execution.ledger.pulses import PulseStore, Trip, pulse_name
from execution.metrics import Metrics
from execution.order_actor import OrderActor
from execution.pulses import Pulse, Pulses
from execution.service_events import ServiceEvents
from execution.store import STORE_ERRORS
from schemas.event import EventType
from schemas.order import OrderStatus, ParentOrder

log = structlog.get_logger(__name__)

LOOKS = 0.5
"""Seconds between two looks."""
GAP = 4 * LOOKS
"""A look that comes, or an answer that takes, so much later than it should is a stall of ours."""
SHORTEST = 1.0
"""Seconds; shorter timeouts cannot be kept apart from delays on the way."""
SOUNDED = 0.5
"""The part of its timeout after which a silent pulse has us look whether we could hear it."""
CONFIRM = 1.0
"""Seconds for which an overdue pulse is listened for again before it trips."""
FELLOW_SILENT = 3.0
"""Seconds without a heartbeat after which another replica may hold beats that it counts no more."""
FELLOW_DOUBTED = 60.0
"""Seconds after which such a replica is left out of account."""
REDELIVERED = 12.0
"""Seconds in which what such a replica held is delivered again; for so much longer a pulse may be silent meanwhile."""


class DeadMan:
    """Watches the pulses; one per replica."""

    def __init__(
        self,
        store: PulseStore,
        ledger: Ledger,
        metrics: Metrics,
        *,
        instance: str,
        default_timeout: float,
        orders: Callable[[], Iterable[OrderActor]],
        stream: Callable[[], int | None],
        answers: Callable[[], Awaitable[bool]],
        wake_outbox: Callable[[int], None],
        replicas: Callable[[], int] = lambda: 1,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`default_timeout` in seconds, for beats that name none. `orders`: the live ones of this replica. `stream`: which stream
        brings beats now, by number; None while none stands. `answers`: whether who sends them answers now. `replicas`: how many
        are counted as alive."""
        self._store = store
        self._ledger = ledger
        self._metrics = metrics
        self._instance = instance
        self._default_timeout = default_timeout
        self._orders = orders
        self._stream = stream
        self._answers = answers
        self._events = ServiceEvents(ledger, instance=instance, wake_outbox=wake_outbox)
        self._monotonic = monotonic
        self._pulses = Pulses(default_timeout)
        self._nudge = asyncio.Event()
        self._looked_at: float | None = None
        self._last_stream: int | None = None
        self._doubted = True
        """Whether beats may have passed us by since the last look."""
        self._replicas = replicas
        self._last_replicas = 0
        self._fellow_silent_at: float | None = None
        """When another replica was seen to be silent, or gone."""

    # --- what others ask ----------------------------------------------------------------------------------------------

    def halted(self, order: ParentOrder) -> str | None:
        """Why an order may send no entries; None: it may. What only protects a position is never halted."""
        if not self._pulses.tripped or (order.reduce_only and order.order_type.has_trigger):
            return None
        return self._pulses.halted(order.strategy_id)

    @property
    def armed(self) -> int:
        """How many pulses there are."""
        return self._pulses.armed

    @property
    def tripped(self) -> list[str]:
        """What stands still, and why, in words."""
        return [pulse.why() for pulse in self._pulses.tripped]

    # --- commands -----------------------------------------------------------------------------------------------------

    async def beat(self, strategy_id: str | None, source: str | None, timeout: float | None) -> None:
        """A beat came; `timeout` in seconds.

        Raises:
            StoreUnavailable, StoreRefused: it is not counted; offer it again.
        """
        name = pulse_name(strategy_id, source)
        seconds = timeout if timeout is not None else self._default_timeout
        count = await self._store.beat(name, int(seconds * 1000))
        if count == 1:
            log.info("dead man's switch armed", pulse=name, timeout=seconds)

    async def resume(self, strategy_id: str | None, reason: str | None, command_id: str) -> bool:
        """End the halt of a strategy, or with None every halt; returns whether there was any.

        Raises:
            StoreUnavailable, StoreRefused: it is not certain; offer it again.
        """
        key = order_key(f"resume\0{command_id}")
        shard = self._ledger.shard_of(key)
        if await self._ledger.command_seen(shard, command_id):
            return True
        stored = await self._store.all()
        wanted = [pulse_name(strategy_id, None)] if strategy_id is not None else sorted(stored)
        ended = [name for name in wanted if name in stored and stored[name].trip is not None]
        for name in ended:
            # First: repeated, it is told once; after, it could be lost.
            await self._event(EventType.RESUMED, name, f"{command_id}\0{name}", reason or "resumed on request", {})
            await self._store.resume(name)
            log.warning("dead man's switch resumed", pulse=name, reason=reason)
        if ended:
            await self._ledger.remember_command(shard, command_id)
            await self.look()
        return bool(ended)

    # --- the watch ------------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Look now: a pulse tripped or was resumed elsewhere."""
        self._nudge.set()

    def doubt(self) -> None:
        """Beats may have passed us by: every clock starts again."""
        self._doubted = True

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except STORE_ERRORS as error:
                self.doubt()
                log.warning("pulses not read: the store does not answer", error=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._nudge.wait(), LOOKS)
            self._nudge.clear()

    async def look(self) -> None:
        """Take in what the store has, trip what is overdue, and tell what was not told.

        Raises:
            StoreUnavailable, StoreRefused
        """
        before = self._monotonic()
        if self._looked_at is None or before - self._looked_at > GAP:
            self._doubted = True
        self._looked_at = before
        stored = await self._store.all()
        now = self._monotonic()
        stream = self._stream()
        doubted = self._doubted or now - before > GAP or stream is None or stream != self._last_stream
        self._doubted, self._last_stream = False, stream
        replicas = self._replicas()
        if replicas < self._last_replicas:
            self._fellow_silent_at = now  # perhaps before any pulse was silent for long enough to look at it
        self._last_replicas = replicas
        changed, lost = self._pulses.heard(stored, now)
        if doubted:
            self._pulses.restart(now)
        for pulse in lost:
            assert pulse.trip is not None
            log.error("the store had lost a trip of the dead man's switch; it stands", pulse=pulse.name)
            await self._store.restore(pulse.name, pulse.generation, pulse.trip)
        self._apply(changed)
        if await self._trip_overdue(now):
            again, _ = self._pulses.heard(await self._store.all(), self._monotonic())
            self._apply(again)
        for pulse in list(self._pulses.tripped):
            if not pulse.told:
                await self._tell(pulse)
        self._metrics.pulses(self._pulses.armed, len(self._pulses.tripped))

    def depended_on(self) -> list[str]:
        """The pulses that live orders of this replica depend on, for its heartbeat: another replica may have to trip them."""
        standing = self._pulses.standing
        strategies = self._strategies() if standing else set()
        return [pulse.name for pulse in standing if self._depends(pulse, strategies)]

    async def _trip_overdue(self, now: float) -> bool:
        quiet = self._pulses.overdue(now, part=SOUNDED)
        if not quiet:
            return False
        fellows = await self._store.fellows(self._instance)
        if any(fellow.age > FELLOW_SILENT for fellow in fellows):
            self._fellow_silent_at = now
        strategies, elsewhere = self._strategies(), {name for fellow in fellows for name in fellow.pulses}
        depending = [pulse for pulse in quiet if self._depends(pulse, strategies) or pulse.name in elsewhere]
        if depending and not await self._could_hear():
            log.warning("a pulse is silent, and so is what brings it: counted again", pulse=depending[0].name)
            self._pulses.restart(self._monotonic())
            return False
        doubted = self._fellow_silent_at is not None and now - self._fellow_silent_at < FELLOW_DOUBTED
        tripped = False
        for pulse in self._pulses.overdue(now, more=REDELIVERED if doubted else 0.0):
            if self._pulses.trips(pulse, pulse in depending, now) and self._pulses.confirmed(pulse, now, CONFIRM):
                await self._trip(pulse, now)
                tripped = True
        for pulse in self._pulses.forgotten(now):
            if pulse.idle:
                await self._store.prune(pulse.name, pulse.beats)
        return tripped

    async def _trip(self, pulse: Pulse, now: float) -> None:
        silent = now - pulse.counted_from
        trip = Trip(
            at=time.time_ns() // 1_000_000,
            by=self._instance,
            silent_ms=int(silent * 1000),
            timeout_ms=int(pulse.timeout * 1000),
        )
        if await self._store.trip(pulse.name, pulse.beats, trip):
            self._metrics.deadman_tripped()
            log.critical("dead man's switch tripped", pulse=pulse.name, silent=round(silent, 1))

    async def _could_hear(self) -> bool:
        """Whether a beat sent now would reach us: a connection that stands may be dead all the same."""
        asked = self._monotonic()
        return await self._answers() and self._monotonic() - asked <= GAP

    def _strategies(self) -> set[str | None]:
        """Whose orders this replica works."""
        return {
            actor.state.parent.strategy_id
            for actor in self._orders()
            if not actor.state.parent.status.terminal and not actor.closing
        }

    @staticmethod
    def _depends(pulse: Pulse, strategies: set[str | None]) -> bool:
        return pulse.strategy_id in strategies if pulse.strategy_id is not None else bool(strategies)

    def _apply(self, changed: list[Pulse]) -> None:
        """Have the orders concerned decide again."""
        for pulse in changed:
            for actor in self._orders():
                if pulse.strategy_id is None or actor.state.parent.strategy_id == pulse.strategy_id:
                    actor.post(None)

    # --- events -----------------------------------------------------------------------------------------------------------

    async def _tell(self, pulse: Pulse) -> None:
        """Leave the event of a trip in an outbox, once for all replicas; one that died on the way is stood in for."""
        trip = pulse.trip
        assert trip is not None
        once = f"{pulse.name}\0{pulse.generation}\0{trip.at}"
        figures = {"silent_seconds": trip.silent_ms / 1000, "timeout_seconds": trip.timeout_ms / 1000}
        await self._event(EventType.DEADMAN_TRIPPED, pulse.name, once, pulse.why(), figures)
        await self._store.told(pulse.name, pulse.generation)
        pulse.told = True

    async def _event(self, kind: EventType, name: str, once: str, reason: str, figures: dict[str, float]) -> None:
        """Tell of a pulse, once."""
        scope, _, who = name.partition(":")
        await self._events.tell(
            kind,
            once,
            status=OrderStatus.CANCELED if kind is EventType.DEADMAN_TRIPPED else OrderStatus.WORKING,
            reason=reason,
            strategy_id=who if scope == "strategy" else None,
            metadata={"scope": "strategy" if scope == "strategy" else "all", scope: who, **figures},
        )
