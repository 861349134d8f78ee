"""Everything that a run consists of: real processes, the ways between them, and whoever starts again what ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from adapters.simulator.market import MarketConfig
from adapters.simulator.process import VenueProcess
from adapters.simulator.server import VenueConfig
from execution.embedded.pubsub.process import PubSubProcess
from execution.embedded.redis_server import EmbeddedRedis
from execution.ledger import keys, order_key
from execution.ledger.records import LoadedOrder, parse_order
from execution.pubsub.errors import PubSubError
from execution.store import STORE_ERRORS
from schemas import exact_json
from tests.chaos.proxy import Link, Proxies, Target
from tests.simulation.oracle import AtVenue, Records, by_order
from tests.system import Replica, System, venue_config

LEASE = 2.0
"""Seconds of a lease of `tests.system`'s replicas."""
SHARDS = 8
SYMBOLS = ("BTC/USDT", "ETH/USDT")
PRICES = {"BTC/USDT": Decimal(50_000), "ETH/USDT": Decimal(3_000)}
LIVELY = MarketConfig(volatility=1.0, trades=4.0, permanent_impact=0.0)
PATIENCE = 60.0
"""Seconds for whatever has to come about by itself, on a machine with other work."""


@dataclass
class Seat:
    """Where a replica runs, and its ways: to the `store`, to `pubsub`, and to each venue by name."""

    name: str
    links: dict[str, Link]
    replica: Replica | None = None
    lives: int = 0
    away: float = 0.3
    """Seconds after its end in which another is started."""
    expected: set[int] = field(default_factory=set)
    """The pids whose end was meant."""

    @property
    def running(self) -> Replica:
        assert self.replica is not None
        return self.replica

    @property
    def up(self) -> bool:
        return self.replica is not None and self.replica.process.returncode is None


class World:
    """A store on disk, a Pub/Sub emulator, venues, and replicas that are started again whenever they end."""

    def __init__(self, folder: Path, *, venues: tuple[str, ...] = ("alpha", "beta"), replicas: int = 2) -> None:
        self.folder = folder
        self.venue_names = venues
        self.seats: list[Seat] = []
        self.history: list[str] = []
        """What befell whom, for people."""
        self.deaths: list[str] = []
        self.signals: dict[str, dict[str, Any]] = {}
        self._replicas = replicas
        self._began = time.monotonic()
        self._taken: set[object] = set()
        self._publishing = asyncio.Lock()
        self._closing = contextlib.AsyncExitStack()
        self.venues: dict[str, VenueProcess] = {}
        self._market: MarketConfig | None = LIVELY

    # --- starting and stopping ------------------------------------------------------------------------------------------

    async def start(self, market: MarketConfig | None = LIVELY, **environment: str) -> World:
        """Start everything, and wait until every replica is ready. `environment` is the replicas'."""
        self._market = market
        closing = self._closing
        closing.callback(self._write_history)
        self.store = await EmbeddedRedis.start(self.folder / "store")
        closing.push_async_callback(lambda: self.store.stop())
        self.pubsub = await PubSubProcess.start()
        closing.push_async_callback(lambda: self.pubsub.stop())
        for name in self.venue_names:
            self.venues[name] = await VenueProcess.start(self._venue(name))
            closing.push_async_callback(lambda name=name: self.venues[name].stop())  # type: ignore[misc]
        self.proxies = Proxies()
        closing.push_async_callback(self.proxies.close)
        self.own_link = await self.proxies.link("ours-pubsub", _address(self.pubsub.host))
        self.system = System(self.store.url, self.own_link.address, self.folder, self.venues)
        await closing.enter_async_context(self.system)
        self._environment = {"SHARDS": str(SHARDS), **environment}
        self.seats = [await self._seat(f"r{number + 1}") for number in range(self._replicas)]
        supervisors = [asyncio.create_task(self._supervise(seat)) for seat in self.seats]
        closing.push_async_callback(_cancelled, supervisors)
        await asyncio.gather(*(self.ready(seat) for seat in self.seats))
        self._began = time.monotonic()
        return self

    def _write_history(self) -> None:
        (self.folder / "history.txt").write_text("".join(f"{line}\n" for line in self.history))

    async def __aenter__(self) -> World:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._closing.aclose()

    def _venue(self, name: str) -> VenueConfig:
        return venue_config(name=name, market=self._market, state=str(self.folder / f"{name}.state"))

    async def _seat(self, name: str) -> Seat:
        links = {"store": await self.proxies.link(f"{name}-store", self._socket())}
        links["pubsub"] = await self.proxies.link(f"{name}-pubsub", _address(self.pubsub.host))
        for venue, process in self.venues.items():
            links[venue] = await self.proxies.link(f"{name}-{venue}", _address(process.url.removeprefix("http://")))
        return Seat(name, links)

    def _socket(self) -> Path:
        return Path(self.store.url.removeprefix("unix://"))

    # --- replicas -------------------------------------------------------------------------------------------------------

    async def _supervise(self, seat: Seat) -> None:
        """Start the seat's replica, and another whenever it ends, as a platform does."""
        while True:
            seat.lives += 1
            endpoints = ",".join(f"{name}=binance@http://{seat.links[name].address}" for name in self.venue_names)
            seat.replica = replica = await self.system.replica(
                wait=False,
                REDIS_URL=f"redis://{seat.links['store'].address}",
                PUBSUB_EMULATOR_HOST=seat.links["pubsub"].address,
                ADAPTER_ENDPOINTS=endpoints,
                INSTANCE_ID=f"{seat.name}.{seat.lives}",
                **self._environment,
            )
            code = await replica.process.wait()
            if replica.process.pid not in seat.expected:
                was_ready = '"execution service ready"' in replica.log.read_text(errors="replace")
                self.note(
                    f"{seat.name}.{seat.lives} ended with {code}, {'though it' if was_ready else 'before it'} was ready"
                )
                if was_ready:
                    self.deaths.append(f"{seat.name}.{seat.lives} ended by itself with {code}: {replica.log}")
            await asyncio.sleep(seat.away)

    async def ready(self, seat: Seat, seconds: float = PATIENCE) -> None:
        """Wait until the seat's replica is ready, whichever it is by then.

        Raises:
            AssertionError: none became so.
        """

        report: dict[str, Any] | None = None

        async def is_ready() -> bool:
            nonlocal report
            report = None
            if seat.up:
                with contextlib.suppress(TimeoutError):
                    report = await asyncio.wait_for(seat.running.health(), 3.0)
            return report is not None and report["status"] != "down"

        await holds(is_ready, seconds, lambda: f"{seat.name} is not ready: {report}\n{seat.running.words()}")

    def kill(self, seat: Seat, *, away: float = 0.3) -> None:
        """End a replica as SIGKILL does; another is started after so many seconds."""
        self.strike(seat, signal.SIGKILL, away=away)

    def strike(self, seat: Seat, number: signal.Signals, *, away: float = 0.3) -> None:
        """End a replica by a signal."""
        seat.away = away
        if seat.up:
            seat.expected.add(seat.running.process.pid)
            seat.running.send(number)

    # --- what everything leans on -----------------------------------------------------------------------------------------

    async def end_store(self) -> None:
        """End the store as SIGKILL does, if it still runs."""
        if self.store.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.store._process.kill()
        await self.store.wait()
        await self.store.stop()

    async def start_store(self) -> None:
        """Start a store on the same folder: it has what is on disk."""
        self.store = await EmbeddedRedis.start(self.folder / "store")

    async def restart_venue(self, name: str, away: float) -> None:
        """Restart a venue as for maintenance: it keeps its record and resting orders, and every connection is gone."""
        async with contextlib.AsyncExitStack() as cuts:
            for seat in self.seats:
                await cuts.enter_async_context(seat.links[name].cut())
            process = self.venues[name]._process
            process.terminate()
            await asyncio.wait_for(process.wait(), PATIENCE)
            await self.venues[name].stop()
            await asyncio.sleep(away)
            self.venues[name] = await VenueProcess.start(self._venue(name))
            await self.system.replaced(name, self.venues[name])
            for seat in self.seats:
                seat.links[name].target = _address(self.venues[name].url.removeprefix("http://"))

    async def restart_pubsub(self) -> None:
        """Replace the emulator by an empty one. What it held is gone, so whatever a consumer was owed is waited for first, and
        what strategies published and nobody has taken is published again afterwards."""
        async with self._publishing:  # what is published to a topic that has no subscription yet, nobody ever gets
            unheard = await self._replace_pubsub()
            await holds(self._provisioned, PATIENCE, lambda: "the service did not make its subscriptions anew")
        for one in unheard:
            await self.publish("approved-signals", one)

    async def _replace_pubsub(self) -> list[dict[str, Any]]:
        """Start an empty emulator instead of the one there is; the signals that nobody has taken."""
        async with contextlib.AsyncExitStack() as cuts:
            for seat in self.seats:
                await cuts.enter_async_context(seat.links["pubsub"].cut())
            await holds(self._heard, PATIENCE, lambda: "events that left the outbox did not arrive")
            ledger = await self.ledger()
            unheard = [one for name, one in self.signals.items() if order_key(name) not in ledger]
            self.pubsub.kill()
            await self.pubsub.stop()
            self.pubsub = await PubSubProcess.start()
            for link in (self.own_link, *(seat.links["pubsub"] for seat in self.seats)):
                link.target = _address(self.pubsub.host)
            await self.own_link.reset()
            await self.system.provision("order-events")
        return unheard

    async def _heard(self) -> bool:
        """Whether every event that was committed has reached our subscription, or still waits in an outbox."""
        try:
            ledger, waiting = await self.ledger(), await self.outbox()
        except STORE_ERRORS:
            return False
        told = by_order(self.system.watch.events.values())
        for order in ledger.values():
            if order is not None:
                parent = order.parent
                have = {event.sequence for event in told.get(parent.order_id, ())} | waiting.get(parent.order_id, set())
                if not set(range(1, parent.sequence + 1)) <= have:
                    return False
        return True

    async def _provisioned(self) -> bool:
        try:
            await self.system.provision("approved-signals", "execution-control", create=False)
        except PubSubError:
            return False
        return True

    @contextlib.asynccontextmanager
    async def claim(self, *things: object) -> AsyncIterator[bool]:
        """Have things for oneself; False when somebody has one of them."""
        free = self._taken.isdisjoint(things)
        if free:
            self._taken.update(things)
        try:
            yield free
        finally:
            if free:
                self._taken.difference_update(things)

    # --- what goes in ---------------------------------------------------------------------------------------------------

    async def signal(self, signal_id: str, **fields: Any) -> None:
        """Publish a signal until it is certain that Pub/Sub has it: by default a market buy of 0.01 BTC at the first venue."""
        signal_ = {
            "signal_id": signal_id,
            "strategy_id": "chaos",
            "exchange": self.venue_names[0],
            "symbol": "BTC/USDT",
            "side": "buy",
            "quantity": Decimal("0.01"),
            "order_type": "limit" if "price" in fields else "market",
            **fields,
        }
        self.signals[signal_id] = signal_
        await self.publish("approved-signals", signal_)

    async def command(self, **fields: Any) -> None:
        await self.publish("execution-control", fields)

    async def publish(self, topic: str, fields: dict[str, Any]) -> None:
        """As a strategy publishes: again, until it is certain."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                async with self._publishing:
                    await self.system.raw(exact_json.encode(fields), topic=topic)
                return
            except PubSubError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)

    # --- what comes out ---------------------------------------------------------------------------------------------------

    def note(self, what: str) -> None:
        self.history.append(f"{time.monotonic() - self._began:7.2f} {what}")

    async def ledger(self) -> dict[str, LoadedOrder | None]:
        """Every order by its key, read straight from the store; None: rejected on arrival."""
        store = self.system.store
        found = {}
        async for name in store.scan("{s*}:order:*"):
            flat = await store.call("HGETALL", name)
            found[name.decode().rpartition(":")[2]] = parse_order(flat)
        return found

    async def outbox(self) -> dict[str, set[int]]:
        """The sequence numbers of the events that are not out yet, by order id."""
        found: dict[str, set[int]] = {}
        for shard in range(SHARDS):
            for _, fields in await self.system.store.call("XRANGE", keys.ShardKeys(shard).outbox, "-", "+"):
                event = json.loads(fields[1])
                found.setdefault(event["order_id"], set()).add(event["sequence"])
        return found

    async def records(self) -> Records:
        """Everybody's records as they are now: the venues' from the venues themselves, the ledger from the store, the events from a
        subscription of our own."""
        venues = {}
        for name in self.venue_names:
            record = await self.system.control(name).record()
            fills: dict[str, dict[str, Decimal]] = {}
            for trade in record["trades"]:
                fills.setdefault(trade["clientOrderId"], {})[str(trade["id"])] = Decimal(trade["qty"])
            venues[name] = [
                AtVenue(
                    one["clientOrderId"],
                    one["status"] in ("NEW", "PARTIALLY_FILLED"),
                    fills.get(one["clientOrderId"], {}),
                )
                for one in record["orders"]
            ]
        return Records(
            venues=venues,
            ledger=await self.ledger(),
            events=by_order(self.system.watch.events.values()),
            signals=self.signals,
            waiting_events=sum(map(len, (await self.outbox()).values())),
            deaths=[*self.deaths, *self._unexpected()],
        )

    def _unexpected(self) -> list[str]:
        """Exceptions that nobody foresaw, as the replicas' logs have them."""
        found = []
        for replica in self.system.replicas:
            for line in replica.log.read_text(errors="replace").splitlines():
                if '"stack_trace"' in line or "Traceback" in line:
                    with contextlib.suppress(ValueError):
                        said = json.loads(line)
                        line = f"{said['message']}: {said['stack_trace'].strip().splitlines()[-1]}"
                    found.append(f"{replica.log.name}: {line[:300]}")
        return sorted(set(found))


async def _cancelled(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def holds(condition: Callable[[], Awaitable[Any]], seconds: float, otherwise: Callable[[], str]) -> None:
    """Wait until something is so.

    Raises:
        AssertionError: it did not come about.
    """
    deadline = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > deadline:
            raise AssertionError(otherwise())
        await asyncio.sleep(0.05)


def _address(text: str) -> Target:
    host, _, port = text.rpartition(":")
    return host, int(port)
