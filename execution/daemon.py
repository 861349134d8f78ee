"""The daemon: everything started in order, watched while it runs, and stopped in order.

Start: settings, HTTP (so that probes are answered), state store, Pub/Sub, venues, then shards, and intake last. Stop: intake first,
then shards are finished or handed over, and the store last.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Coroutine
from typing import Any

import structlog

from adapters.base import Adapter, AdapterError, NotReadyYet
from adapters.ccxt_venue import CcxtAdapter, parse_endpoints
from adapters.paper import PaperAdapter
from execution import failpoints, garbage, logs
from execution.accept import Acceptor
from execution.adrift import Adrift
from execution.circuit import Circuits, State
from execution.commands import Commands
from execution.component_health import (
    dead_man_health,
    intake_health,
    outbox_health,
    shards_health,
    store_health,
    subscription_health,
    venue_health,
)
from execution.costs import Costs
from execution.dead_letters import DeadLetters
from execution.dead_man import DeadMan
from execution.embedded.redis_server import EmbeddedRedis, EmbeddedRedisError
from execution.emulator import keep_provided
from execution.health import ComponentHealth, HealthReport
from execution.history import Histories
from execution.http_server import HttpServer
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
from execution.pubsub import (
    Publisher,
    PubSubChannel,
    Subscriber,
    SubscriptionSpec,
    connect,
    ensure,
    subscription_name,
    topic_name,
)
from execution.pubsub.errors import PubSubError
from execution.pubsub.library_subscriber import LibrarySubscriber
from execution.reconcile import Reconciler, request
from execution.reconcile.desk import ReconciliationDesk
from execution.reconcile.positions import StoredTrades
from execution.reconcile.trades import StoredSymbols
from execution.routes import Routes
from execution.runner import Runner
from execution.service_events import ServiceEvents
from execution.settings import Settings
from execution.spending import Spending
from execution.store import STORE_ERRORS, Store, StoreRefused, StoreTooOld, StoreUnavailable
from execution.tca.stored import save_report
from execution.venue_timers import OPEN_AT, VenueTimers
from schemas.order import ParentOrder
from schemas.tca import CostReport

log = structlog.get_logger(__name__)


DAY = 86400
PATIENCE = 1.0
"""Seconds after a signal to stop in which the same signal again, as a process group may get it, changes nothing."""
MOST_COMMANDS = 100
"""Commands held unacknowledged at a time."""
ACK_SECONDS = 10
"""How long Pub/Sub waits for us before it gives a message to another replica: what a replica that died held comes back then."""
ANSWER_SECONDS = 2.0
"""What Pub/Sub does not answer within that counts as not to be reached."""
LATE_SECONDS = 15.0
"""The longest pause between attempts to start a venue that was away at our start."""
READY_LOOKS = 0.2
LOOP_SECONDS = 10.0
"""An event loop that has not come round for so long is dead."""
STORE_PATIENCE = 10.0
"""Seconds that a store which starts beside us, or still loads, is waited for."""


_OPENED = {State.CLOSED: 0.0, State.HALF_OPEN: 0.5, State.OPEN: 1.0}


class CannotStart(Exception):
    """The daemon cannot start; the message says what to do."""


async def run(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code."""
    logs.configure(settings)
    failpoints.arm(settings.failpoints or "")
    daemon = Daemon(settings)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    asked: list[float] = []

    def stop() -> None:
        asked.append(loop.time())
        if asked[-1] - asked[0] > PATIENCE:
            os._exit(130)  # asked again: at once
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        starting = asyncio.create_task(daemon.start())
        stopped = asyncio.create_task(stopping.wait())
        await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.wait([starting])
            return 0
        starting.result()
        garbage.settle()
        failed = asyncio.create_task(daemon.failed())
        await asyncio.wait([stopped, failed], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        failed.cancel()
        return 1 if daemon.failure is not None else 0
    except CannotStart as error:
        log.critical("cannot start", reason=str(error))
        return 1
    finally:
        await daemon.stop()


class Daemon:
    """One replica."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.failure: BaseException | None = None
        self.http_port: int | None = None
        self._failed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = False
        self._stopping = False
        self._embedded: EmbeddedRedis | None = None
        self._store: Store | None = None
        self._channel: PubSubChannel | None = None
        self._http: HttpServer | None = None
        self._routes: Routes | None = None
        self._reconciliation: ReconciliationDesk | None = None
        self._adapters: dict[str, Adapter] = {}
        self._subscribers: dict[str, Subscriber | LibrarySubscriber] = {}
        self._loop_seen = time.monotonic()
        self._circuits = Circuits(
            opened=self.metrics.circuit_opened,
            answered=lambda venue: self._adapters[venue].health.last_answer_at,
        )

    # --- starting ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start everything in order.

        Raises:
            CannotStart: naming what is missing and what to do.
        """
        settings = self.settings
        try:
            adapters = self._build_adapters()
            self._http = HttpServer(
                settings.host,
                settings.port,
                self.metrics,
                self.health,
                api_keys=settings.keys(),
                routes=lambda: self._routes,
                reconciliation=lambda: self._reconciliation,
            )
            self.http_port = await self._http.start()
            store = await self._open_store()
            channel = await self._open_pubsub()
            await self._start_adapters(adapters)
            await self._assemble(store, channel)
        except StoreUnavailable as error:
            raise CannotStart(
                f"{error}: is the server up and REDIS_URL right? Unset, a server is started here"
            ) from error
        except (OSError, StoreRefused, StoreTooOld, EmbeddedRedisError, PubSubError, AdapterError, ValueError) as error:
            raise CannotStart(str(error)) from error
        self._started = True
        log.info(
            "execution service ready",
            instance=settings.instance_id,
            project=settings.google_cloud_project,
            venues=sorted(self._adapters),
            port=self.http_port,
        )

    def _build_adapters(self) -> dict[str, Adapter]:
        settings = self.settings
        adapters: dict[str, Adapter] = {}
        for endpoint in parse_endpoints(settings.adapter_endpoints):
            if endpoint.where == "paper":
                market = CcxtAdapter(endpoint, None, public_only=True, clock_bound_ms=settings.clock_bound_ms)
                adapters[endpoint.name] = PaperAdapter(
                    endpoint.name, market, latency_ms=settings.paper_latency_ms, capabilities=None
                )
                continue
            credentials = settings.credentials(endpoint.name)
            adapters[endpoint.name] = CcxtAdapter(
                endpoint,
                credentials.for_ccxt() if credentials is not None else None,
                request_ttl_ms=int(settings.request_ttl * 1000),
                clock_bound_ms=settings.clock_bound_ms,
            )
        return adapters

    async def _open_store(self) -> Store:
        settings = self.settings
        url = settings.redis_url
        if url is None:
            self._embedded = await EmbeddedRedis.start(settings.data_dir / "redis")
            url = self._embedded.url
            self._watch("embedded redis", self._embedded_died(self._embedded))
        store = await Store.connect(url, patience=STORE_PATIENCE)
        self._store = store
        report = await store.check()
        for warning in report.warnings:
            log.warning("state store", warning=warning)
        return store

    async def _embedded_died(self, server: EmbeddedRedis) -> None:
        code = await server.wait()
        raise RuntimeError(
            f"the embedded state store ended (exit code {code}); see redis.log in {self.settings.data_dir}"
        )

    async def _open_pubsub(self) -> PubSubChannel:
        settings = self.settings
        project = settings.google_cloud_project
        channel = connect(project, settings.pubsub_emulator_host)
        self._channel = channel
        for remark in await self._provide_pubsub(channel):
            log.warning("Pub/Sub", remark=remark)
        return channel

    async def _provide_pubsub(self, channel: PubSubChannel) -> list[str]:
        """Check topics and subscriptions, and make them on an emulator; remarks for the log."""
        settings = self.settings
        subscriptions = [
            SubscriptionSpec(settings.signals_subscription, settings.signals_topic),
            SubscriptionSpec(settings.control_subscription, settings.control_topic),
        ]
        if channel.is_emulator:
            # What is published to a topic without a subscription is gone; dead letters are to be read.
            subscriptions.append(SubscriptionSpec(settings.dead_letter_topic, settings.dead_letter_topic))
        return await ensure(
            channel,
            settings.google_cloud_project,
            topics=[settings.events_topic, settings.dead_letter_topic],
            subscriptions=subscriptions,
            create=settings.pubsub_emulator_host is not None,
        )

    async def _start_adapters(self, adapters: dict[str, Adapter]) -> None:
        """Start every venue. One that cannot be reached is started later, if there are others to work for.

        Raises:
            CannotStart
        """
        self._adapters = adapters
        results = await asyncio.gather(*(adapter.start() for adapter in adapters.values()), return_exceptions=True)
        problems, late = [], []
        for name, result in zip(adapters, results, strict=True):
            if isinstance(result, NotReadyYet):
                late.append(f"{name}: {result}")
                adapters[name].health.last_error = str(result)
            elif isinstance(result, AdapterError):
                problems.append(f"{name}: {result}")
            elif isinstance(result, BaseException):
                raise result
        if problems or len(late) == len(adapters):
            raise CannotStart("; ".join([*problems, *late]))
        for problem in late:
            log.error("a venue is started later: its orders and signals wait", problem=problem)

    async def _follow(self, name: str, adapter: Adapter) -> None:
        """Start a venue that was away at our start, and follow its stream."""
        if not adapter.health.ready:
            await self._start_late(name, adapter)
        await adapter.run_stream(self._reconciler)
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
        for lease in list(self._leases.owned.values()):
            try:
                for key in await self._ledger.live(lease.shard):
                    await self._runner.find(key)  # loads what could not be worked without it
            except STORE_ERRORS as error:
                log.warning("orders are loaded when the shard is taken next", shard=lease.shard, error=str(error))

    async def _reconcile(self, name: str, adapter: Adapter) -> None:
        while not adapter.health.ready:
            await asyncio.sleep(READY_LOOKS)
        await self._reconciler.run(name)

    async def _assemble(self, store: Store, channel: PubSubChannel) -> None:
        settings, metrics, instance = self.settings, self.metrics, self.settings.instance_id
        project = settings.google_cloud_project
        self._ledger = ledger = Ledger(
            store,
            shards=settings.shards,
            instance=instance,
            order_retention=int(settings.order_retention_days * DAY),
            signal_retention=int(settings.signal_retention_days * DAY),
        )
        await ledger.open()
        publisher = Publisher(channel)
        outbox_store = OutboxStore(store, ledger.shards)
        projections = Projections(
            outbox_store,
            order_retention=int(settings.order_retention_days * DAY),
            most_trades=settings.stream_trade_maxlen,
        )
        self._outbox = outbox = Outbox(
            ledger,
            outbox_store,
            publisher,
            projections,
            metrics,
            topic=topic_name(project, settings.events_topic),
            source=f"//execution/{project}",
        )
        self._market = market = MarketData(
            self._adapters,
            now=lambda: time.time_ns() // 1_000_000,
            monotonic=time.monotonic,
            circuits=self._circuits,
        )
        self._routes = Routes(self._adapters, market)
        self._costs = costs = Costs(market, self._save_report if settings.cost_reports else None)
        spending = Spending(self._adapters)
        self._watch("balances", spending.run())
        self._dead_man = dead_man = DeadMan(
            PulseStore(store),
            ledger,
            metrics,
            instance=instance,
            default_timeout=settings.dead_man_timeout,
            orders=lambda: self._runner.actors(),
            stream=self._control_stream,
            answers=self._control_answers,
            wake_outbox=outbox.wake,
        )
        self._adrift = adrift = Adrift(
            self._adapters,
            self._circuits,
            metrics,
            max_retries=settings.max_retries,
            live=lambda: self._runner.actors(),
            away=self._store_is_away,
        )

        def halted(order: ParentOrder) -> str | None:
            return dead_man.halted(order) or adrift.halted(order)

        self._runner = runner = Runner(
            ledger,
            self._adapters,
            metrics,
            instance=instance,
            max_retries=settings.max_retries,
            committed=outbox.wake,
            market=market,
            costs=costs,
            available=spending.available,
            halted=halted,
            let_go=adrift.keep,
        )
        await dead_man.look()  # before anything is accepted or taken over: what tripped stays tripped
        runner.bound(sends=settings.max_queued_sends, live=settings.max_live_orders)
        dead_letter = DeadLetters(publisher, topic_name(project, settings.dead_letter_topic))
        histories = Histories(self._adapters)
        planner = Planner(
            self._adapters,
            market,
            histories,
            execution_timeout=settings.execution_timeout,
            signal_max_age=settings.signal_max_age,
            bracket_distance_bps=settings.bracket_distance_bps,
            bracket_policy=settings.bracket_policy,
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
        self._reconciliation = reconciliation = ReconciliationDesk(store, events, self._adapters)
        self._commands = Commands(
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
        self._reconciler = Reconciler(
            runner,
            ledger,
            self._adapters,
            metrics,
            poll_interval=settings.poll_interval,
            reconcile_interval=settings.reconcile_interval,
            cancel_unknown=settings.unknown_orders == "cancel",
            instance=instance,
            traded=StoredSymbols(store),
            booked=StoredTrades(store),
            tell=reconciliation.found,
        )
        self._leases = ShardLeases(
            store,
            ledger,
            metrics,
            instance=instance,
            ttl=settings.lease_ttl,
            describe=self._describe,
            acquired=self._shard_acquired,
            lost=self._shard_lost,
            hand_over=self._hand_over,
            inbox=self._commands.read_inbox,
        )
        self._timers = VenueTimers(
            self._adapters,
            store,
            ledger,
            self._leases,
            metrics,
            instance=instance,
            seconds=settings.venue_timer,
            lease_ttl=settings.lease_ttl,
            orders=runner.actors,
        )
        store.on_reconnect(self._store_reconnected)
        await store.subscribe(keys.WAKE_CHANNEL, callback=self._woken, resubscribed=self._leases.wake)
        for name, adapter in self._adapters.items():
            self._watch(f"stream of {name}", self._follow(name, adapter))
            self._watch(f"reconciliation of {name}", self._reconcile(name, adapter))
        self._watch("leases", self._leases.run())
        self._watch("dead man's switch", dead_man.run())
        self._watch("orders adrift", adrift.run())
        self._watch("timers of venues", self._timers.run())
        self._watch("pulse", self._pulse())
        self._signals = Intake("signals", acceptor.take, dead_letter, metrics, room=runner.room)
        self._control = Intake("commands", self._commands.take, dead_letter, metrics)
        self._subscribe(settings.signals_subscription, self._signals.handle, settings.max_outstanding)
        self._subscribe(settings.control_subscription, self._control.handle, MOST_COMMANDS)
        if channel.is_emulator:
            self._watch("Pub/Sub emulator", keep_provided(lambda: self._provide_pubsub(channel), self._lacks_pubsub))

    def _lacks_pubsub(self) -> bool:
        return self._outbox.failing_since is not None or not all(
            subscriber.status.connected for subscriber in self._subscribers.values()
        )

    def _subscribe(self, setting: str, handler: Any, most: int) -> None:
        assert self._channel is not None
        name = subscription_name(self.settings.google_cloud_project, setting)
        made = LibrarySubscriber if self.settings.subscriber == "library" else Subscriber
        subscriber = made(self._channel, name, handler, max_outstanding=most, ack_deadline=ACK_SECONDS)
        self._subscribers[setting] = subscriber
        self._watch(f"subscriber of {setting}", subscriber.run())

    # --- running ----------------------------------------------------------------------------------------------------

    async def failed(self) -> None:
        """Wait until a part of the daemon fails for good."""
        await self._failed.wait()

    def _watch(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run a part of the daemon; one that ends by itself ends the daemon."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or self._stopping:
            return
        error = task.exception()
        log.critical("a part of the service ended; stopping", part=task.get_name(), error=str(error) if error else None)
        self.failure = error or RuntimeError(f"{task.get_name()} ended")
        self._failed.set()

    async def _save_report(self, report: CostReport) -> None:
        assert self._store is not None
        retention = int(self.settings.order_retention_days * DAY)
        await save_report(self._store, report, retention, self.settings.cost_reports)

    async def _pulse(self) -> None:
        """Notice that the loop runs, and keep the gauges."""
        while True:
            self._loop_seen = time.monotonic()
            metrics, runner = self.metrics, self._runner
            metrics.live_orders(runner.live)
            metrics.sends_waiting(runner.sends_waiting)
            metrics.outbox_backlog(sum(self._outbox.backlog.values()))
            signals = self._subscribers.get(self.settings.signals_subscription)
            if signals is not None:
                metrics.subscriber(signals.status.connected, signals.outstanding, signals.status.oldest_unacked_age)
            unknown = runner.unknown_children()
            for name, adapter in self._adapters.items():
                metrics.venue(name, adapter.health)
                metrics.unknown_children(name, unknown[name])
            for (name, endpoint), state in self._circuits.states().items():
                metrics.circuit(name, endpoint, _OPENED[state])
            await asyncio.sleep(0.5)

    async def _shard_acquired(self, lease: Lease) -> None:
        await self._runner.take_over(lease)
        self._reconciler.shards_changed()
        self._outbox.own(lease)

    def _store_is_away(self) -> bool:
        """Whether the ledger cannot be written, as far as is known: not reached, or no lease renewed for several beats."""
        assert self._store is not None
        beat = self._leases.last_beat
        silent = time.monotonic() - beat if beat is not None else 0.0
        return not self._store.connected or silent > self.settings.lease_ttl / 2

    def _shard_lost(self, shard: int) -> None:
        if self._store_is_away():
            self._adrift.keep(actor for actor in self._runner.actors() if actor.lease.shard == shard)
        self._runner.forget(shard)
        self._outbox.disown(shard)

    async def _hand_over(self, shards: set[int]) -> None:
        await self._runner.hand_over(shards, self.settings.shutdown_timeout * 0.4)
        await self._outbox.drain(shards, self.settings.shutdown_timeout * 0.15)
        for shard in shards:
            self._outbox.disown(shard)

    def _control_stream(self) -> int | None:
        """Which stream brings commands, by number; None while none does, or while more of them wait than are taken."""
        control = self._subscribers.get(self.settings.control_subscription)
        if control is None or not control.status.connected or control.outstanding >= MOST_COMMANDS:
            return None
        return control.status.streams_opened

    async def _control_answers(self) -> bool:
        assert self._channel is not None
        name = subscription_name(self.settings.google_cloud_project, self.settings.control_subscription)
        return await self._channel.answers(name, ANSWER_SECONDS)

    def _store_reconnected(self, run_id_changed: bool) -> None:
        self._dead_man.doubt()
        if run_id_changed:
            # Another server answers: what it acknowledged before may be lost, and the venues know best.
            log.error("the state store was replaced or restarted; venues are reconciled")
            self._reconciler.nudge()
        self._leases.wake()
        self._outbox.wake_all()

    def _woken(self, _channel: str, payload: bytes | str) -> None:
        text = payload.decode() if isinstance(payload, bytes) else payload
        if text == "release":
            self._leases.wake()
            return
        if text.startswith(request.WORD):
            assert self._store is not None
            self._spawn(request.answer(text, self._store, self._reconciler, self.settings.instance_id))
            return
        if text == WAKE_PULSES:
            self._dead_man.wake()
            return
        tag, _, kind = text.partition("}:")
        shard = int(tag.removeprefix("{s")) if tag.startswith("{s") and tag[2:].isdigit() else None
        if shard is None or shard not in self._leases.owned:
            return
        if kind == "inbox":
            self._spawn(self._commands.read_inbox(shard))
        else:
            self._outbox.wake(shard)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)

        def done(finished: asyncio.Task[None]) -> None:
            self._tasks.discard(finished)
            if not finished.cancelled() and finished.exception() is not None:
                log.warning("an inbox is left for the next beat", error=str(finished.exception()))

        task.add_done_callback(done)

    def _describe(self) -> dict[str, Any]:
        return {
            "live_orders": self._runner.live,
            OPEN_AT: dict(self._timers.open_entries()),
            "pulses": self._dead_man.depended_on(),
            "venues": {name: adapter.health.ready for name, adapter in self._adapters.items()},
            "pid": os.getpid(),
        }

    # --- health ------------------------------------------------------------------------------------------------------

    def health(self) -> HealthReport:
        """The truth about each component, as it is now."""
        alive = time.monotonic() - self._loop_seen < LOOP_SECONDS or not self._started
        parts = [store_health(self._store)]
        if self._started:
            parts += [
                shards_health(self._leases, self._runner, self.settings),
                outbox_health(self._outbox),
                intake_health(self._runner),
                dead_man_health(self._dead_man),
            ]
            parts += [subscription_health(name, subscriber) for name, subscriber in self._subscribers.items()]
        for name, adapter in self._adapters.items():
            unwatched = self._reconciler.unwatched.get(name, 0) if self._started else 0
            troubles = self._circuits.troubles(name) + (self._reconciler.troubles(name) if self._started else [])
            parts.append(venue_health(name, adapter.health, unwatched, troubles))
        if self._stopping or not self._started:
            parts.append(ComponentHealth("service", "down", "stopping" if self._stopping else "starting"))
        return HealthReport(instance=self.settings.instance_id, live=alive, components=parts)

    # --- stopping ---------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Stop everything in order, within the shutdown timeout: intake, then shards, then the rest."""
        if self._stopping:
            return
        self._stopping = True
        started = time.monotonic()
        budget = self.settings.shutdown_timeout
        if self._started:
            log.info("stopping", live_orders=self._runner.live)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(budget * 0.9):
                    await asyncio.gather(
                        *(subscriber.stop(budget * 0.1) for subscriber in self._subscribers.values()),
                        self._signals.finish(budget * 0.15),
                        self._control.finish(budget * 0.15),
                    )
                    await self._timers.stop(budget * 0.1)
                    await self._hand_over(set(self._leases.owned))
                    await self._leases.release_all()
                    await self._costs.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)
        if self._started:
            await self._market.close()
        closing = [adapter.close() for adapter in self._adapters.values()]
        if self._channel is not None:
            closing.append(self._channel.close())
        if self._http is not None:
            closing.append(self._http.stop())
        await asyncio.gather(*closing, return_exceptions=True)
        if self._store is not None:
            await self._store.close()
        if self._embedded is not None:
            await self._embedded.stop()
        log.info("stopped", seconds=round(time.monotonic() - started, 2))
