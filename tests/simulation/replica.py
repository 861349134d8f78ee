"""One replica of the service in the simulation: the service itself, with what it reaches replaced."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from execution.circuit import Circuits
from execution.metrics import Metrics
from execution.service import Service
from execution.settings import Settings
from execution.store import STORE_ERRORS
from tests.simulation.bus import SimBus
from tests.simulation.loop import REPLICA
from tests.simulation.redis import SimStore
from tests.simulation.venue import SimAdapter

if TYPE_CHECKING:
    from tests.simulation.world import World

SHARDS = 4
LEASE_TTL = 5.0


class SimReplica:
    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.failure: BaseException | None = None
        self.adapters: dict[str, SimAdapter] = {}
        self.store: SimStore | None = None
        self.service: Service | None = None
        self.metrics = Metrics()
        self._tasks: list[asyncio.Task[Any]] = []
        self._context = contextvars.copy_context()
        self._context.run(REPLICA.set, name)

    def start(self) -> None:
        """Start in a context of its own, so that everything it ever does can be told from others."""
        asyncio.get_running_loop().create_task(self._main(), name=f"{self.name} main", context=self._context)

    def kill(self) -> None:
        """As SIGKILL: nothing of it runs any more."""
        self.alive = False
        self.world.loop.kill(self.name)
        if self.store is not None:
            self.store.kill()
        self.world.bus.leave(self.name)
        for adapter in self.adapters.values():
            adapter.gone()

    async def _main(self) -> None:
        try:
            await self._run()
        except Exception as error:
            if not self.alive:
                return  # what the collector does to the dead
            self.failure = error
            self.alive = False
            self.world.died(self, error)

    async def _run(self) -> None:
        world = self.world
        for name, venue in world.venues.items():
            seed = random.Random(f"{world.seed}:{self.name}:{name}")
            self.adapters[name] = SimAdapter(venue, self.name, seed, skew=lambda: world.skews.get(self.name, 0.0))
            await self.adapters[name].start()
        while True:
            try:
                self.store = await world.connect(self.name)
                service = self._assembled(self.store)
                await service.open()
                self.service = service
                break
            except STORE_ERRORS:
                if self.store is not None:
                    self.store.kill()
                await asyncio.sleep(1.0)  # the daemon is started again until the store is there
        for name, part in service.parts():
            self._watch(name, part)
        world.bus.receive("signals", self.name, service.signals.handle)
        world.bus.receive("control", self.name, service.control.handle)

    def _assembled(self, store: SimStore) -> Service:
        world = self.world
        settings = Settings(
            google_cloud_project="simulation",
            instance_id=self.name,
            adapter_endpoints=",".join(world.venues),
            shards=SHARDS,
            lease_ttl=LEASE_TTL,
            poll_interval=1.0,
            reconcile_interval=10.0,
            shutdown_timeout=10.0,
            max_queued_sends=64,
        )
        circuits = Circuits(
            opened=self.metrics.circuit_opened,
            answered=lambda venue: self.adapters[venue].health.last_answer_at,
            monotonic=world.monotonic,
        )
        return Service(
            store,
            world.bus,  # type: ignore[arg-type]
            self.adapters,  # type: ignore[arg-type]
            settings,
            self.metrics,
            circuits,
            _Control(world.bus),
            events_topic="events",
            dead_letter_topic="dead",
            now=world.now_ms,
            monotonic=world.monotonic,
        )

    def stop_soon(self) -> None:
        """As SIGTERM: intake ends, shards are handed over, leases released; what takes too long is left."""
        asyncio.get_running_loop().create_task(self._stop(), name=f"{self.name} stops", context=self._context)

    async def _stop(self) -> None:
        self.world.bus.leave(self.name)
        try:
            if self.service is not None:
                async with asyncio.timeout(9.0):
                    await self.service.finish(10.0)
                    await self.service.hand_over(10.0)
        except TimeoutError:
            pass  # the daemon goes all the same
        except Exception as error:
            if self.alive:
                self.world.died(self, error)
        self.kill()

    def _watch(self, name: str, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"{self.name} {name}")
        self._tasks.append(task)

        def ended(done: asyncio.Task[Any]) -> None:
            self._tasks.remove(done)
            if done.cancelled() or not self.alive:
                return
            error = done.exception()
            if error is not None:
                self.failure = error
                self.world.died(self, error)

        task.add_done_callback(ended)


class _Control:
    """The subscription that brings commands and beats."""

    def __init__(self, bus: SimBus) -> None:
        self._bus = bus

    def stream(self) -> int | None:
        return self._bus.streams if self._bus.up else None

    async def answers(self) -> bool:
        await asyncio.sleep(0.01)
        return self._bus.up
