"""Orders through the whole service and through a bare loop of ccxt, in turns on one venue, and both checked order by order."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.processes import cpu_seconds
from benchmarks.rig import Rig, Signal, signals
from benchmarks.service import Buckets, Service
from execution.ledger import LedgerReader, LoadedOrder
from schemas.order import OrderStatus

WARM_UP = 200
AT_ONCE = 16
WRITES = 200


@dataclass(frozen=True)
class Sizes:
    """How much is measured: orders per repetition, repetitions, and seconds at each paced rate (signals per second)."""

    backlog: int
    rounds: int
    sequential: int
    at_once: int
    paced: dict[int, float]


@dataclass
class Repetition:
    """One saturated run: `orders` placed, the rate from the first to the last request, and CPU seconds of the client and of the
    servers beside it."""

    orders: int
    per_second: float
    cpu: float
    servers: dict[str, float] = field(default_factory=dict)

    @property
    def per_cpu_second(self) -> float:
        return self.orders / self.cpu


@dataclass
class Pace:
    """Signals at a steady rate: from publishing to the request at the venue, and from arrival at the service to the wire."""

    publish_to_wire: list[float] = field(default_factory=list)
    """Seconds."""
    arrival_to_wire: Buckets = field(default_factory=lambda: Buckets({}))


@dataclass
class Results:
    """Everything measured."""

    pubsub: str
    ccxt_version: str
    load: float
    """Processes of others and ours that wanted a processor before the run, as an average of a minute."""
    sequential: list[Repetition] = field(default_factory=list)
    at_once: list[Repetition] = field(default_factory=list)
    service: list[Repetition] = field(default_factory=list)
    call_to_wire: list[float] = field(default_factory=list)
    """Seconds from a sequential call of ccxt to its request at the venue."""
    durable_write: list[float] = field(default_factory=list)
    """Seconds of one write to the store by itself: each order waits for one before it may be sent."""
    paces: dict[int, Pace] = field(default_factory=dict)
    profile: dict[str, float] = field(default_factory=dict)
    checked: int = 0
    """Orders of the service found exactly right."""


class WrongOrders(Exception):
    """The orders at the venue or in the ledger are not those that were asked for: no figure of this run means anything."""


async def measure(rig: Rig, sizes: Sizes, say: Callable[[str], None]) -> Results:
    """Run everything; `say` is told what is under way.

    Raises:
        WrongOrders: an order is missing, doubled or not filled.
    """
    results = Results(
        rig.pubsub_name, rig.ccxt.version, os.getloadavg()[0], paces={rate: Pace() for rate in sizes.paced}
    )
    published: list[Signal] = []
    service = await rig.service()
    say("warming up")
    await rig.ccxt.place("warm", WARM_UP, AT_ONCE)
    warm = signals("warm", WARM_UP)
    await rig.publish(warm)
    await rig.settled(service, warm)
    published += warm
    for number in range(1, sizes.rounds + 1):
        say(f"round {number} of {sizes.rounds}: ccxt")
        repetition, called = await bare(rig, f"s{number}x", sizes.sequential, 1)
        results.sequential.append(repetition)
        results.call_to_wire += called
        repetition, _ = await bare(rig, f"p{number}x", sizes.at_once, AT_ONCE)
        results.at_once.append(repetition)
        results.durable_write += [await rig.durable_write() for _ in range(WRITES)]
        say(f"round {number} of {sizes.rounds}: the service, {sizes.backlog} signals at once")
        backlog = signals(f"backlog{number}", sizes.backlog)
        results.service.append(await saturated(rig, service, backlog))
        published += backlog
        for rate, seconds in sizes.paced.items():
            say(f"round {number} of {sizes.rounds}: the service, {rate} signals/s")
            steady = signals(f"paced{number}-{rate}", round(rate * seconds))
            await paced(rig, service, steady, rate, results.paces[rate])
            published += steady
    await service.stop()
    say("profile")
    profiled = signals("profiled", sizes.backlog)
    results.profile = await profile(rig, profiled)
    published += profiled
    say("checking every order")
    results.checked = await check(rig, published)
    return results


async def bare(rig: Rig, prefix: str, orders: int, at_once: int) -> tuple[Repetition, list[float]]:
    """One repetition of the ccxt loop, and how long each call took to reach the venue, in seconds."""
    answer = await rig.ccxt.place(prefix, orders, at_once)
    requests = await rig.requests()
    arrived = _once_each(requests, list(answer["called"]))
    waits = [(at - called) / 1e9 for at, called in zip(arrived, answer["called"].values(), strict=True)]
    return Repetition(orders, _rate(arrived), answer["cpu"]), waits


async def saturated(rig: Rig, service: Service, backlog: list[Signal]) -> Repetition:
    """A backlog through the service, from its publishing until the last event is out."""
    pids = {"service": service.pid, **rig.pids}
    before = {name: cpu_seconds(pid) for name, pid in pids.items()}
    await rig.publish(backlog)
    await rig.settled(service, backlog)
    used = {name: cpu_seconds(pid) - before[name] for name, pid in pids.items()}
    arrived = _once_each(await rig.requests(), [signal.child_id for signal in backlog])
    return Repetition(len(backlog), _rate(arrived), used.pop("service"), used)


async def paced(rig: Rig, service: Service, steady: list[Signal], rate: int, pace: Pace) -> None:
    """Publish at a steady rate, each signal by itself, and note when each request arrived."""
    before = await service.arrival_to_wire()
    published: list[int] = []
    publishing: list[asyncio.Task[None]] = []
    started = time.monotonic()
    for number, one in enumerate(steady):
        await asyncio.sleep(started + number / rate - time.monotonic())
        published.append(time.time_ns())
        publishing.append(asyncio.create_task(rig.publish([one])))
    await asyncio.gather(*publishing)
    await rig.settled(service, steady)
    pace.arrival_to_wire += await service.arrival_to_wire() - before
    arrived = _once_each(await rig.requests(), [signal.child_id for signal in steady])
    pace.publish_to_wire += [(at - since) / 1e9 for at, since in zip(arrived, published, strict=True)]


async def profile(rig: Rig, backlog: list[Signal]) -> dict[str, float]:
    """Seconds of the service's time by part of the program, for a backlog."""
    file = rig.folder / "profile.json"
    service = await rig.service(file)
    warm = signals("warm-profile", WARM_UP)
    await rig.publish(warm)
    await rig.settled(service, warm)
    service.send(signal.SIGUSR1)
    await rig.publish(backlog)
    await rig.settled(service, backlog)
    service.send(signal.SIGUSR2)
    while not file.exists():
        service.check()
        await asyncio.sleep(0.05)
    await service.stop()
    parts: dict[str, float] = json.loads(file.read_bytes())
    return parts


async def check(rig: Rig, published: list[Signal]) -> int:
    """See that each signal became exactly one order, filled at the venue and in the ledger; returns how many there are.

    Raises:
        WrongOrders: one did not.
    """
    requests = await rig.requests()
    _once_each(requests, [signal.child_id for signal in published])
    at_venue: dict[str, list[str]] = {}
    for order in (await rig.venue.record())["orders"]:
        at_venue.setdefault(order["clientOrderId"], []).append(order["status"])
    reader = LedgerReader(rig.store)
    await reader.open()
    for one in published:
        if at_venue.get(one.child_id) != ["FILLED"]:
            raise WrongOrders(f"{one.signal_id}: the venue has {at_venue.get(one.child_id)}, not one filled order")
        order = await reader.order(one.signal_id)
        if not isinstance(order, LoadedOrder) or order.parent.status is not OrderStatus.FILLED:
            raise WrongOrders(f"{one.signal_id}: not filled in the ledger, but {order}")
        filled = sum(fill.quantity for fill in order.fills)
        if len(order.children) != 1 or filled != order.parent.quantity:
            raise WrongOrders(f"{one.signal_id}: {len(order.children)} children filled {filled}")
    return len(published)


def _once_each(requests: dict[str, list[int]], names: Sequence[str]) -> list[int]:
    """When each order's one request arrived."""
    arrived = []
    for name in names:
        times = requests.get(name, [])
        if len(times) != 1:
            raise WrongOrders(f"{len(times)} requests for order {name} reached the venue")
        arrived.append(times[0])
    return arrived


def _rate(arrived: Sequence[int]) -> float:
    return (len(arrived) - 1) / ((max(arrived) - min(arrived)) / 1e9)
