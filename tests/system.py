"""The whole service from outside: real processes for the store, Pub/Sub, venues and every replica; driven and read only through Pub/Sub,
Redis and HTTP, as its users do."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp

from adapters.simulator.control import VenueControl
from adapters.simulator.limits import Limits
from adapters.simulator.process import VenueProcess
from adapters.simulator.server import VenueConfig
from adapters.simulator.symbols import SymbolSpec
from execution.dev.audit import audit
from execution.dev.watch import Watch
from execution.embedded.tied import tied_to_us
from execution.ledger import LedgerReader, LoadedOrder, order_key
from execution.pubsub import (
    OutgoingMessage,
    Publisher,
    PubSubChannel,
    Subscriber,
    SubscriptionSpec,
    connect,
    ensure,
    subscription_name,
    topic_name,
)
from execution.store import Store
from schemas import exact_json
from schemas.event import OrderEvent
from tests.replica import until

_numbers = itertools.count(1)
_READ_BY = {
    "order-events": "test-events",
    "approved-signals": "execution-signals",
    "execution-control": "execution-control",
    "approved-signals-dead-letter": "test-dead-letters",
}
"""Subscriptions by topic."""
READY_SECONDS = 40.0


def venue_config(**changes: Any) -> VenueConfig:
    """A venue whose book is still unless a test moves it, with limits that do not get in the way."""
    symbols = [
        SymbolSpec(base="BTC", quote="USDT", price=Decimal(50_000)),
        SymbolSpec(base="ETH", quote="USDT", price=Decimal(3_000)),
    ]
    fields: dict[str, Any] = {
        "symbols": symbols,
        "market": None,
        "limits": Limits(orders_per_10s=10**6, weight_per_minute=10**7),
        **changes,
    }
    return VenueConfig(**fields)


class Replica:
    """One `execution run` process."""

    def __init__(self, process: asyncio.subprocess.Process, port_file: Path, log: Path) -> None:
        self.process = process
        self.log = log
        self._port_file = port_file
        self.port = 0

    async def health(self) -> dict[str, Any] | None:
        """What `/health/ready` says; None while nothing answers."""
        if not self.port:
            for line in self.log.read_text(errors="replace").splitlines():
                if '"listening"' in line or '"port"' in line:
                    with contextlib.suppress(ValueError, KeyError):
                        self.port = int(json.loads(line)["port"])
        if not self.port:
            return None
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{self.port}/health/ready") as answer,
            ):
                report: dict[str, Any] = await answer.json()
                return report
        except aiohttp.ClientError:
            return None

    async def metrics(self) -> str:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}/metrics") as answer:
            return await answer.text()

    async def ready(self) -> Replica:
        """Wait until it is ready.

        Raises:
            AssertionError: it ended, or did not become ready.
        """
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            assert self.process.returncode is None, f"ended at its start:\n{self.words()}"
            report = await self.health()
            if report is not None and report["status"] != "down":
                return self
            await asyncio.sleep(0.05)
        raise AssertionError(f"not ready: {await self.health()}\n{self.words()}")

    def words(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self, seconds: float = 20.0) -> int:
        """Its exit code, once it has ended."""
        return await asyncio.wait_for(self.process.wait(), seconds)

    async def stop(self) -> int:
        """SIGTERM, and its exit code."""
        if self.process.returncode is None:
            self.send(signal.SIGTERM)
        return await self.ended()


class System:
    """A project of its own on a Pub/Sub server, a database of its own in Redis, venues, and any number of replicas."""

    def __init__(self, redis_url: str, pubsub_host: str, folder: Path, venues: Mapping[str, VenueProcess]) -> None:
        self.redis_url = redis_url
        self.pubsub_host = pubsub_host
        self.folder = folder
        self.venues = dict(venues)
        self.project = f"test-{os.getpid()}-{next(_numbers)}"
        self.replicas: list[Replica] = []
        self._replica_numbers = itertools.count()
        self.published: list[str] = []
        self.watch = Watch()
        self._controls: dict[str, VenueControl] = {}
        self._channel: PubSubChannel | None = None
        self._subscriber: Subscriber | None = None
        self._subscribing: asyncio.Task[None] | None = None
        self.environment = {
            "GOOGLE_CLOUD_PROJECT": self.project,
            "PUBSUB_EMULATOR_HOST": pubsub_host,
            "REDIS_URL": redis_url,
            "ADAPTER_ENDPOINTS": ",".join(f"{name}=binance@{venue.url}" for name, venue in self.venues.items()),
            "PORT": "0",
            "LOG_FORMAT": "json",
            "SHARDS": "4",
            "LEASE_TTL": "2",
            "REQUEST_TTL": "1.5",
            "RECONCILE_INTERVAL": "2",
            "POLL_INTERVAL": "0.3",
            "DATA_DIR": str(folder),
            **{f"{name.upper()}_API_KEY": "local" for name in self.venues},
            **{f"{name.upper()}_API_SECRET": "local-secret" for name in self.venues},
        }

    async def open(self) -> System:
        self._channel = connect(self.project, self.pubsub_host)
        self._publisher = Publisher(self._channel)
        self.store = await Store.connect(self.redis_url)
        await self.store.call("FLUSHALL")
        await self.provision(*_READ_BY)
        name = subscription_name(self.project, "test-events")
        self._subscriber = Subscriber(self._channel, name, self.watch.handle)
        self._subscribing = asyncio.create_task(self._subscriber.run())
        return self

    async def provision(self, *topics: str, create: bool = True) -> None:
        """See to it that topics have the subscription by which they are read here.

        Raises:
            PubSubError: Pub/Sub does not answer; or, without `create`, something is missing.
        """
        assert self._channel is not None
        specs = [SubscriptionSpec(_READ_BY[topic], topic) for topic in topics]
        await ensure(self._channel, self.project, topics, specs, create=create)

    async def close(self) -> None:
        for replica in self.replicas:
            replica.kill()
            await replica.ended()
        if self._subscriber is not None and self._subscribing is not None:
            await self._subscriber.stop(1.0)
            self._subscribing.cancel()
            await asyncio.gather(self._subscribing, return_exceptions=True)
        for control in self._controls.values():
            await control.close()
        if self._channel is not None:
            await self._channel.close()
        await self.store.close()

    async def __aenter__(self) -> System:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- replicas ---------------------------------------------------------------------------------------------------

    async def replica(self, *, wait: bool = True, **environment: str) -> Replica:
        """Start a replica; with `wait`, until it is ready."""
        number = next(self._replica_numbers)
        log = self.folder / f"replica-{number}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *tied_to_us([sys.executable, "-m", "execution.cli", "run"]),
                env={**_bare(), **self.environment, "INSTANCE_ID": f"replica-{number}", **environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        replica = Replica(process, self.folder / f"port-{number}", log)
        self.replicas.append(replica)
        return await replica.ready() if wait else replica

    # --- what goes in -----------------------------------------------------------------------------------------------

    async def signal(self, signal_id: str, **fields: Any) -> None:
        """Publish a signal: by default a market buy of 0.01 BTC at the first venue."""
        signal_ = {
            "signal_id": signal_id,
            "strategy_id": "tests",
            "exchange": next(iter(self.venues)),
            "symbol": "BTC/USDT",
            "side": "buy",
            "quantity": Decimal("0.01"),
            "order_type": "market" if fields.get("price") is None else "limit",
            **fields,
        }
        await self.raw(exact_json.encode({name: value for name, value in signal_.items() if value is not None}))
        if signal_id not in self.published:
            self.published.append(signal_id)

    async def raw(self, *bodies: bytes, topic: str = "approved-signals") -> None:
        """Publish bodies as they are."""
        messages = [OutgoingMessage(body, {}) for body in bodies]
        await self._publisher.publish(topic_name(self.project, topic), messages)

    async def command(self, **fields: Any) -> None:
        await self.raw(exact_json.encode(fields), topic="execution-control")

    def control(self, venue: str | None = None) -> VenueControl:
        """The control routes of a venue, the first by default."""
        name = venue or next(iter(self.venues))
        if name not in self._controls:
            self._controls[name] = self.venues[name].control()
        return self._controls[name]

    async def replaced(self, name: str, venue: VenueProcess) -> None:
        """A venue's process is another one now."""
        self.venues[name] = venue
        control = self._controls.pop(name, None)
        if control is not None:
            await control.close()

    async def liquidity(
        self, quantity: str = "1000", symbol: str = "BTCUSDT", price: Decimal = Decimal(50_000)
    ) -> None:
        """Somebody's resting orders on both sides of every venue, one per cent apart."""
        for name in self.venues:
            await self.control(name).trade(symbol, "SELL", quantity, price * Decimal("1.005"))
            await self.control(name).trade(symbol, "BUY", quantity, price * Decimal("0.995"))

    # --- what comes out ---------------------------------------------------------------------------------------------

    def events(self, signal_id: str) -> list[OrderEvent]:
        """The events of a signal's order so far, in their order."""
        return sorted(self.watch.by_signal.get(signal_id, ()), key=lambda event: event.sequence)

    async def told(self, signal_id: str, status: str, seconds: float = 30.0) -> OrderEvent:
        """The first event of a signal's order with a status, once it was published."""

        def found() -> OrderEvent | None:
            return next((event for event in self.events(signal_id) if event.status == status), None)

        try:
            await until(found, seconds)
        except TimeoutError:
            known = [f"{event.event_type} {event.status} {event.reason}" for event in self.events(signal_id)]
            logs = "\n".join(replica.words() for replica in self.replicas)
            raise AssertionError(f"{signal_id} did not become {status}: {known}\n{logs}") from None
        event = found()
        assert event is not None
        return event

    async def creates(self, signal_id: str) -> list[str]:
        """The client order ids of the create requests that reached any venue for a signal."""
        found = []
        for name in self.venues:
            for request in await self.control(name).requests():
                child = request["parameters"].get("newClientOrderId", "")
                if request["method"] == "POST" and child.startswith(order_key(signal_id)):
                    found.append(child)
        return found

    async def order(self, signal_id: str) -> LoadedOrder:
        reader = LedgerReader(self.store)
        await reader.open()
        record = await reader.order(signal_id)
        assert isinstance(record, LoadedOrder)
        return record

    async def agrees(self, seconds: float = 30.0) -> None:
        """Venues' records, ledger and published events say exactly the same, once all orders have ended."""
        reader = LedgerReader(self.store)
        await reader.open()
        deadline = time.monotonic() + seconds
        while True:
            records = {name: await self.control(name).record() for name in self.venues}
            result = await audit(self.published, records, reader, self.watch)
            if result.adds_up:
                break
            if time.monotonic() > deadline:
                raise AssertionError("\n".join([*result.problems[:20], *(r.words() for r in self.replicas)]))
            await asyncio.sleep(0.1)
        for signal_id in self.published:
            sequences = [event.sequence for event in self.events(signal_id) if event.sequence > 0]
            assert sequences == list(range(1, len(sequences) + 1)), signal_id

    async def public_state(self, signal_id: str) -> dict[str, str]:
        """`ORDER:<order_id>` as readers outside see it."""
        order_id = self.events(signal_id)[-1].order_id
        flat = await self.store.call("HGETALL", f"ORDER:{order_id}")
        texts = [value.decode() for value in flat]
        return dict(zip(texts[::2], texts[1::2], strict=True))

    async def public_trades(self) -> list[dict[str, str]]:
        """`STREAM:TRADE` as readers outside see it."""
        entries = await self.store.call("XRANGE", "STREAM:TRADE", "-", "+")
        rows = [[value.decode() for value in fields] for _, fields in entries]
        return [dict(zip(row[::2], row[1::2], strict=True)) for row in rows]

    async def dead_letters(self) -> list[tuple[bytes, dict[str, str]]]:
        """Take what is in the dead-letter topic."""
        assert self._channel is not None
        found: list[tuple[bytes, dict[str, str]]] = []

        def take(message: Any) -> None:
            found.append((message.data, dict(message.attributes)))
            message.ack()

        subscriber = Subscriber(self._channel, subscription_name(self.project, "test-dead-letters"), take)
        task = asyncio.create_task(subscriber.run())
        with contextlib.suppress(TimeoutError):
            await until(lambda: found, 10)
        await subscriber.stop(1.0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return found


def _bare() -> dict[str, str]:
    """Our environment without anything that configures the service."""
    kept = ("PATH", "HOME", "LANG", "PYTHONPATH", "VIRTUAL_ENV", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ}


@contextlib.asynccontextmanager
async def venue(**changes: Any) -> AsyncIterator[VenueProcess]:
    """A venue of a test's own."""
    process = await VenueProcess.start(venue_config(**changes))
    try:
        yield process
    finally:
        await process.stop()


__all__ = ["Replica", "System", "venue", "venue_config"]
