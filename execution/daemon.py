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
from collections.abc import Coroutine, Mapping
from typing import Any

import structlog

from adapters.base import Adapter, AdapterError, NotReadyYet
from adapters.ccxt_venue import CcxtAdapter, parse_endpoints
from adapters.paper import PaperAdapter
from execution import failpoints, garbage, logs
from execution.circuit import Circuits, State
from execution.component_health import (
    dead_man_health,
    intake_health,
    outbox_health,
    shards_health,
    store_health,
    subscription_health,
    venue_health,
)
from execution.embedded.redis_server import EmbeddedRedis, EmbeddedRedisError
from execution.emulator import keep_provided
from execution.health import ComponentHealth, HealthReport
from execution.http_server import HttpServer
from execution.metrics import Metrics
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
from execution.routes import Routes
from execution.service import Service
from execution.settings import Settings
from execution.store import Store, StoreRefused, StoreTooOld, StoreUnavailable

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


class _Control:
    """The subscription that brings commands and beats."""

    def __init__(
        self, channel: PubSubChannel, name: str, subscribers: Mapping[str, Subscriber | LibrarySubscriber]
    ) -> None:
        self._channel = channel
        self._name = name
        self._subscribers = subscribers

    def stream(self) -> int | None:
        control = self._subscribers.get(self._name)
        if control is None or not control.status.connected or control.outstanding >= MOST_COMMANDS:
            return None
        return control.status.streams_opened

    async def answers(self) -> bool:
        return await self._channel.answers(self._name, ANSWER_SECONDS)


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
        self._service: Service | None = None
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
                reconciliation=lambda: self._service.reconciliation if self._service is not None else None,
            )
            self.http_port = await self._http.start()
            store = await self._open_store()
            channel = await self._open_pubsub()
            await self._start_adapters(adapters)
            await self._serve(store, channel)
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

    async def _serve(self, store: Store, channel: PubSubChannel) -> None:
        """Own shards, and take messages in."""
        settings, project = self.settings, self.settings.google_cloud_project
        self._service = service = Service(
            store,
            Publisher(channel),
            self._adapters,
            settings,
            self.metrics,
            self._circuits,
            _Control(channel, subscription_name(project, settings.control_subscription), self._subscribers),
            events_topic=topic_name(project, settings.events_topic),
            dead_letter_topic=topic_name(project, settings.dead_letter_topic),
        )
        await service.open()
        self._routes = Routes(self._adapters, service.market)
        for name, part in service.parts():
            self._watch(name, part)
        self._watch("pulse", self._pulse(service))
        self._subscribe(settings.signals_subscription, service.signals.handle, settings.max_outstanding)
        self._subscribe(settings.control_subscription, service.control.handle, MOST_COMMANDS)
        if channel.is_emulator:
            self._watch("Pub/Sub emulator", keep_provided(lambda: self._provide_pubsub(channel), self._lacks_pubsub))

    def _lacks_pubsub(self) -> bool:
        failing = self._service is not None and self._service.outbox.failing_since is not None
        return failing or not all(subscriber.status.connected for subscriber in self._subscribers.values())

    def _subscribe(self, setting: str, handler: Any, most: int) -> None:
        assert self._channel is not None
        name = subscription_name(self.settings.google_cloud_project, setting)
        made = LibrarySubscriber if self.settings.subscriber == "library" else Subscriber
        subscriber = made(self._channel, name, handler, max_outstanding=most, ack_deadline=ACK_SECONDS)
        self._subscribers[name] = subscriber
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

    async def _pulse(self, service: Service) -> None:
        """Notice that the loop runs, and keep the gauges."""
        signals = subscription_name(self.settings.google_cloud_project, self.settings.signals_subscription)
        while True:
            self._loop_seen = time.monotonic()
            metrics, runner = self.metrics, service.runner
            metrics.live_orders(runner.live)
            metrics.sends_waiting(runner.sends_waiting)
            metrics.outbox_backlog(sum(service.outbox.backlog.values()))
            subscriber = self._subscribers.get(signals)
            if subscriber is not None:
                metrics.subscriber(
                    subscriber.status.connected, subscriber.outstanding, subscriber.status.oldest_unacked_age
                )
            unknown = runner.unknown_children()
            for name, adapter in self._adapters.items():
                metrics.venue(name, adapter.health)
                metrics.unknown_children(name, unknown[name])
            for (name, endpoint), state in self._circuits.states().items():
                metrics.circuit(name, endpoint, _OPENED[state])
            await asyncio.sleep(0.5)

    # --- health ------------------------------------------------------------------------------------------------------

    def health(self) -> HealthReport:
        """The truth about each component, as it is now."""
        service = self._service if self._started else None
        alive = time.monotonic() - self._loop_seen < LOOP_SECONDS or not self._started
        parts = [store_health(self._store)]
        if service is not None:
            parts += [
                shards_health(service.leases, service.runner, self.settings),
                outbox_health(service.outbox),
                intake_health(service.runner),
                dead_man_health(service.dead_man),
            ]
            parts += [
                subscription_health(name.rpartition("/")[2], subscriber)
                for name, subscriber in self._subscribers.items()
            ]
        for name, adapter in self._adapters.items():
            unwatched = service.reconciler.unwatched.get(name, 0) if service is not None else 0
            troubles = self._circuits.troubles(name)
            troubles += service.reconciler.troubles(name) if service is not None else []
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
        service = self._service
        if self._started and service is not None:
            log.info("stopping", live_orders=service.runner.live)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(budget * 0.9):
                    await asyncio.gather(
                        *(subscriber.stop(budget * 0.1) for subscriber in self._subscribers.values()),
                        service.finish(budget),
                    )
                    await service.hand_over(budget)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)
        if service is not None:
            await service.close()
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
