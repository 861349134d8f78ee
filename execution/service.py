"""What works a replica's orders: every part between Pub/Sub, the store and the venues, put together.

The daemon gives it the real ones, the simulation in tests/simulation those that fail on purpose; between them nothing differs.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Protocol

import structlog

from adapters.base import Adapter, AdapterError
from execution.accept import Acceptor
from execution.adrift import Adrift
from execution.circuit import Circuits
from execution.commands import Commands
from execution.costs import Costs
from execution.dead_letters import DeadLetters
from execution.dead_man import DeadMan
from execution.history import Histories
from execution.intake import Intake
from execution.leases import ShardLeases
from execution.ledger import Lease, Ledger, keys
from execution.ledger.outbox import OutboxStore
from execution.ledger.pulses import WAKE as WAKE_PULSES
from execution.ledger.pulses import PulseStore
from execution.market_data import MarketData
from execution.metrics import Metrics
from execution.outbox import Outbox
from execution.planning import Planner
from execution.projections import Projections
from execution.pubsub import Publisher
from execution.reconcile import Reconciler, request
from execution.reconcile.desk import ReconciliationDesk
from execution.reconcile.positions import StoredTrades
from execution.reconcile.trades import StoredSymbols
from execution.runner import Runner
from execution.service_events import ServiceEvents
from execution.settings import Settings
from execution.spending import Spending
from execution.store import STORE_ERRORS, Store
from execution.tca.stored import save_report
from execution.venue_rules import VenueRules
from execution.venue_timers import OPEN_AT, VenueTimers
from schemas.order import ParentOrder
from schemas.tca import CostReport

log = structlog.get_logger(__name__)

DAY = 86400
LATE_SECONDS = 15.0
"""The longest pause between attempts to start a venue that was away at our start."""
READY_LOOKS = 0.2

Part = tuple[str, Coroutine[Any, Any, None]]
"""Something that runs as long as the service does, and its name."""


class ControlWay(Protocol):
    """How commands, and with them beats, reach this replica."""

    def stream(self) -> int | None:
        """Which stream brings them, by number; None while none does, or while more of them wait than are taken."""

    async def answers(self) -> bool:
        """Whether whoever brings them can be reached now."""


class Service:
    """One replica's orders. `open` it, run its `parts`, offer messages to `signals` and `control`; at the end `finish`,
    `hand_over`, cancel its parts, `close`."""

    def __init__(
        self,
        store: Store,
        publisher: Publisher,
        adapters: dict[str, Adapter],
        settings: Settings,
        metrics: Metrics,
        circuits: Circuits,
        control_way: ControlWay,
        *,
        events_topic: str,
        dead_letter_topic: str,
        now: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._adapters = adapters
        self._settings = settings
        self._tasks: set[asyncio.Task[None]] = set()
        instance = settings.instance_id
        retention = int(settings.order_retention_days * DAY)
        self.ledger = ledger = Ledger(
            store,
            shards=settings.shards,
            instance=instance,
            order_retention=retention,
            signal_retention=int(settings.signal_retention_days * DAY),
        )
        outbox_store = OutboxStore(store, ledger.shards)
        projections = Projections(outbox_store, order_retention=retention, most_trades=settings.stream_trade_maxlen)
        self.outbox = outbox = Outbox(
            ledger,
            outbox_store,
            publisher,
            projections,
            metrics,
            topic=events_topic,
            source=f"//execution/{settings.google_cloud_project}",
        )
        self.market = market = MarketData(adapters, now=now, monotonic=monotonic, circuits=circuits)
        self._costs = costs = Costs(market, self._save_report if settings.cost_reports else None)
        self._spending = spending = Spending(adapters)
        self.dead_man = dead_man = DeadMan(
            PulseStore(store),
            ledger,
            metrics,
            instance=instance,
            default_timeout=settings.dead_man_timeout,
            orders=lambda: self.runner.actors(),
            stream=control_way.stream,
            answers=control_way.answers,
            wake_outbox=outbox.wake,
            replicas=lambda: self.leases.replicas,
            monotonic=monotonic,
        )
        self._adrift = adrift = Adrift(
            adapters,
            circuits,
            metrics,
            max_retries=settings.max_retries,
            live=lambda: self.runner.actors(),
            away=self._store_is_away,
            monotonic=monotonic,
        )

        def halted(order: ParentOrder) -> str | None:
            return dead_man.halted(order) or adrift.halted(order)

        self._rules = rules = VenueRules(adapters, live=lambda: self.runner.actors())
        self.runner = runner = Runner(
            ledger,
            adapters,
            metrics,
            instance=instance,
            max_retries=settings.max_retries,
            committed=outbox.wake,
            market=market,
            costs=costs,
            available=spending.available,
            halted=halted,
            let_go=adrift.keep,
            refused=rules.doubt,
            now=now,
            monotonic=monotonic,
        )
        runner.bound(sends=settings.max_queued_sends, live=settings.max_live_orders)
        dead_letter = DeadLetters(publisher, dead_letter_topic)
        histories = Histories(adapters, now=now)
        planner = Planner(
            adapters,
            market,
            histories,
            execution_timeout=settings.execution_timeout,
            signal_max_age=settings.signal_max_age,
            bracket_distance_bps=settings.bracket_distance_bps,
            bracket_policy=settings.bracket_policy,
            now=now,
        )
        acceptor = Acceptor(
            runner,
            ledger,
            planner,
            metrics,
            dead_letter,
            instance=instance,
            wake_outbox=outbox.wake,
            halted=halted,
        )
        events = ServiceEvents(ledger, instance=instance, wake_outbox=outbox.wake)
        reconciliation = ReconciliationDesk(store, events, adapters)
        self._commands = commands = Commands(
            runner,
            ledger,
            metrics,
            dead_letter,
            histories,
            instance=instance,
            wake_outbox=outbox.wake,
            dead_man=dead_man,
            adrift=adrift,
            reconciliation=reconciliation,
        )
        self.reconciliation = reconciliation
        self.reconciler = Reconciler(
            runner,
            ledger,
            adapters,
            metrics,
            poll_interval=settings.poll_interval,
            reconcile_interval=settings.reconcile_interval,
            cancel_unknown=settings.unknown_orders == "cancel",
            instance=instance,
            traded=StoredSymbols(store),
            booked=StoredTrades(store),
            tell=reconciliation.found,
        )
        self.leases = ShardLeases(
            store,
            ledger,
            metrics,
            instance=instance,
            ttl=settings.lease_ttl,
            describe=self._describe,
            acquired=self._shard_acquired,
            lost=self._shard_lost,
            hand_over=self._hand_over,
            inbox=commands.read_inbox,
        )
        self._timers = VenueTimers(
            adapters,
            store,
            ledger,
            self.leases,
            metrics,
            instance=instance,
            seconds=settings.venue_timer,
            lease_ttl=settings.lease_ttl,
            orders=runner.actors,
            monotonic=monotonic,
        )
        self.signals = Intake("signals", acceptor.take, dead_letter, metrics, room=runner.room)
        self.control = Intake("commands", commands.take, dead_letter, metrics)

    async def open(self) -> None:
        """Get ready to own shards: what tripped before stays tripped, and what others say is heard.

        Raises:
            ShardsDiffer: the ledger was made with another number of shards.
            StoreUnavailable, StoreRefused: the store does not answer.
        """
        await self.ledger.open()
        await self.dead_man.look()
        self._store.on_reconnect(self._store_reconnected)
        await self._store.subscribe(keys.WAKE_CHANNEL, callback=self._woken, resubscribed=self.leases.wake)

    def parts(self) -> Iterator[Part]:
        """What is to run, until cancelled."""
        yield "balances", self._spending.run()
        for name, adapter in self._adapters.items():
            yield f"stream of {name}", self._follow(name, adapter)
            yield f"reconciliation of {name}", self._reconcile(name, adapter)
            yield f"rules of {name}", self._rules.run(name)
        yield "leases", self.leases.run()
        yield "dead man's switch", self.dead_man.run()
        yield "orders adrift", self._adrift.run()
        yield "timers of venues", self._timers.run()

    async def finish(self, seconds: float) -> None:
        """Bring to its end what was taken in: of `seconds` for a whole stop, the part that is meant for that."""
        await asyncio.gather(self.signals.finish(seconds * 0.15), self.control.finish(seconds * 0.15))

    async def hand_over(self, seconds: float) -> None:
        """Give every shard to the others, once nothing is taken in any more."""
        steps: list[Callable[[], Awaitable[None]]] = [
            lambda: self._timers.stop(seconds * 0.1),
            lambda: self._hand_over(set(self.leases.owned)),
            self.leases.release_all,
            self._costs.close,
        ]
        for step in steps:
            try:
                await step()
            except STORE_ERRORS as error:
                log.warning("not handed over in full: leases run out by themselves", error=str(error))

    async def close(self) -> None:
        """Let go of whatever still runs, once its parts were cancelled."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)
        await self.market.close()

    # --- venues ---------------------------------------------------------------------------------------------------------

    async def _follow(self, name: str, adapter: Adapter) -> None:
        """Start a venue that was away at our start, and follow its stream."""
        if not adapter.health.ready:
            await self._start_late(name, adapter)
        await adapter.run_stream(self.reconciler)
        await asyncio.Event().wait()  # a venue without a stream: polling serves it

    async def _start_late(self, name: str, adapter: Adapter) -> None:
        pause = 1.0
        while True:
            await asyncio.sleep(pause)
            pause = min(pause * 2, LATE_SECONDS)
            try:
                await adapter.start()
            except AdapterError as error:
                adapter.health.last_error = str(error)
                log.warning("venue not started yet", venue=name, error=str(error))
            else:
                break
        log.info("venue started", venue=name)
        for lease in list(self.leases.owned.values()):
            try:
                for key in await self.ledger.live(lease.shard):
                    await self.runner.find(key)  # loads what could not be worked without it
            except STORE_ERRORS as error:
                log.warning("orders are loaded when the shard is taken next", shard=lease.shard, error=str(error))

    async def _reconcile(self, name: str, adapter: Adapter) -> None:
        while not adapter.health.ready:
            await asyncio.sleep(READY_LOOKS)
        await self.reconciler.run(name)

    # --- shards -----------------------------------------------------------------------------------------------------------

    async def _shard_acquired(self, lease: Lease) -> None:
        await self.runner.take_over(lease)
        self.reconciler.shards_changed()
        self.outbox.own(lease)

    def _shard_lost(self, shard: int) -> None:
        if self._store_is_away():
            self._adrift.keep(actor for actor in self.runner.actors() if actor.lease.shard == shard)
        self.runner.forget(shard)
        self.outbox.disown(shard)

    async def _hand_over(self, shards: set[int]) -> None:
        await self.runner.hand_over(shards, self._settings.shutdown_timeout * 0.4)
        await self.outbox.drain(shards, self._settings.shutdown_timeout * 0.15)
        for shard in shards:
            self.outbox.disown(shard)

    # --- the store ----------------------------------------------------------------------------------------------------------

    def _store_is_away(self) -> bool:
        """Whether the ledger cannot be written, as far as is known: not reached, or no lease renewed for several beats."""
        beat = self.leases.last_beat
        silent = time.monotonic() - beat if beat is not None else 0.0
        return not self._store.connected or silent > self._settings.lease_ttl / 2

    def _store_reconnected(self, run_id_changed: bool) -> None:
        self.dead_man.doubt()
        if run_id_changed:
            # Another server answers: what it acknowledged before may be lost, and the venues know best.
            log.error("the state store was replaced or restarted; venues are reconciled")
            self.reconciler.nudge()
        self.leases.wake()
        self.outbox.wake_all()

    def _woken(self, _channel: str, payload: bytes | str) -> None:
        text = payload.decode() if isinstance(payload, bytes) else payload
        if text == "release":
            self.leases.wake()
            return
        if text.startswith(request.WORD):
            self._spawn(request.answer(text, self._store, self.reconciler, self._settings.instance_id))
            return
        if text == WAKE_PULSES:
            self.dead_man.wake()
            return
        tag, _, kind = text.partition("}:")
        shard = int(tag.removeprefix("{s")) if tag.startswith("{s") and tag[2:].isdigit() else None
        if shard is None or shard not in self.leases.owned:
            return
        if kind == "inbox":
            self._spawn(self._commands.read_inbox(shard))
        else:
            self.outbox.wake(shard)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)

        def done(finished: asyncio.Task[None]) -> None:
            self._tasks.discard(finished)
            if not finished.cancelled() and finished.exception() is not None:
                log.warning("an inbox is left for the next beat", error=str(finished.exception()))

        task.add_done_callback(done)

    async def _save_report(self, report: CostReport) -> None:
        retention = int(self._settings.order_retention_days * DAY)
        await save_report(self._store, report, retention, self._settings.cost_reports)

    def _describe(self) -> dict[str, Any]:
        return {
            "live_orders": self.runner.live,
            OPEN_AT: dict(self._timers.open_entries()),
            "pulses": self.dead_man.depended_on(),
            "venues": {name: adapter.health.ready for name, adapter in self._adapters.items()},
            "pid": os.getpid(),
        }
