"""One replica of the service in the simulation: the daemon's own parts, put together as the daemon does."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Coroutine
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from execution.accept import Acceptor
from execution.commands import Commands
from execution.costs import Costs
from execution.dead_letters import DeadLetters
from execution.history import Histories
from execution.intake import Intake
from execution.leases import ShardLeases
from execution.ledger import Lease, Ledger, keys
from execution.ledger.outbox import OutboxStore
from execution.market_data import MarketData
from execution.metrics import Metrics
from execution.outbox import Outbox
from execution.planning import Planner
from execution.projections import Projections
from execution.reconcile import Reconciler
from execution.runner import Runner
from execution.store import STORE_ERRORS
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
        world, metrics = self.world, self.metrics
        while True:
            try:
                store = self.store = await world.connect(self.name)
                ledger = Ledger(store, shards=SHARDS, instance=self.name, patience=20.0)
                await ledger.open()
                break
            except STORE_ERRORS:
                await asyncio.sleep(1.0)  # the daemon is started again until the store is there
        for name, venue in world.venues.items():
            seed = random.Random(f"{world.seed}:{self.name}:{name}")
            self.adapters[name] = SimAdapter(venue, self.name, seed, skew=lambda: world.skews.get(self.name, 0.0))
            await self.adapters[name].start()
        adapters: dict[str, Any] = dict(self.adapters)
        now, monotonic = world.now_ms, world.monotonic
        outbox_store = OutboxStore(store, ledger.shards)
        outbox = Outbox(
            ledger,
            outbox_store,
            world.bus,  # type: ignore[arg-type]
            Projections(outbox_store, order_retention=86_400, most_trades=10_000),
            metrics,
            topic="events",
            source="//simulation",
        )
        market = MarketData(adapters, now=now, monotonic=monotonic, linger=30.0)
        costs = Costs(market, _forget)
        self.runner = runner = Runner(
            ledger,
            adapters,
            metrics,
            instance=self.name,
            max_retries=3,
            committed=outbox.wake,
            market=market,
            costs=costs,
            now=now,
            monotonic=monotonic,
        )
        runner.bound(sends=64, live=1000)
        histories = Histories(adapters, now=now)
        planner = Planner(
            adapters,
            market,
            histories,
            execution_timeout=None,
            signal_max_age=3600.0,
            bracket_distance_bps=Decimal(5),
            bracket_policy="adjust",
            now=now,
        )
        dead_letter = DeadLetters(world.bus, "dead")  # type: ignore[arg-type]
        acceptor = Acceptor(runner, ledger, planner, metrics, dead_letter, instance=self.name, wake_outbox=outbox.wake)
        commands = Commands(
            runner, ledger, metrics, dead_letter, histories, instance=self.name, wake_outbox=outbox.wake
        )
        reconciler = Reconciler(
            runner, ledger, adapters, metrics, poll_interval=1.0, reconcile_interval=10.0, cancel_unknown=True
        )

        async def acquired(lease: Lease) -> None:
            await runner.take_over(lease)
            outbox.own(lease)

        def lost(shard: int) -> None:
            runner.forget(shard)
            outbox.disown(shard)

        async def hand_over(shards: set[int]) -> None:
            await runner.hand_over(shards, 3.0)
            await outbox.drain(shards, 1.0)
            for shard in shards:
                outbox.disown(shard)

        leases = ShardLeases(
            store,
            ledger,
            metrics,
            instance=self.name,
            ttl=LEASE_TTL,
            describe=dict,
            acquired=acquired,
            lost=lost,
            hand_over=hand_over,
            inbox=commands.read_inbox,
        )

        def woken(_channel: str, payload: bytes | str) -> None:
            text = payload.decode() if isinstance(payload, bytes) else payload
            if text == "release":
                return leases.wake()
            tag, _, kind = text.partition("}:")
            shard = int(tag.removeprefix("{s"))
            if shard in leases.owned:
                if kind == "inbox":
                    self._watch("inbox", commands.read_inbox(shard), may_end=True)
                else:
                    outbox.wake(shard)
            return None

        def reconnected(changed: bool) -> None:
            if changed:
                reconciler.nudge()
            leases.wake()
            outbox.wake_all()

        store.on_reconnect(reconnected)
        await store.subscribe(keys.WAKE_CHANNEL, callback=woken, resubscribed=leases.wake)
        for name, adapter in adapters.items():
            self._watch(f"stream {name}", adapter.run_stream(reconciler))
            self._watch(f"reconciliation {name}", reconciler.run(name))
        self._watch("leases", leases.run())
        signals = Intake("signals", acceptor.take, dead_letter, metrics, room=runner.room)
        control = Intake("commands", commands.take, dead_letter, metrics)
        world.bus.receive("signals", self.name, signals.handle)
        world.bus.receive("control", self.name, control.handle)
        self._finish = (signals, control, leases, hand_over)

    async def stop(self) -> None:
        """As SIGTERM: intake ends, shards are handed over, leases released."""
        self.world.bus.leave(self.name)
        signals, control, leases, hand_over = self._finish
        await asyncio.gather(signals.finish(1.0), control.finish(1.0))
        await hand_over(set(leases.owned))
        await leases.release_all()
        self.kill()

    def _watch(self, name: str, work: Coroutine[Any, Any, Any], *, may_end: bool = False) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"{self.name} {name}")
        self._tasks.append(task)

        def ended(done: asyncio.Task[Any]) -> None:
            self._tasks.remove(done)
            if done.cancelled() or not self.alive:
                return
            error = done.exception()
            if error is not None and not may_end:
                self.failure = error
                self.world.died(self, error)

        task.add_done_callback(ended)


async def _forget(_report: Any) -> None:
    pass
