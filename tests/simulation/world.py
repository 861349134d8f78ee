"""One seeded run: signals, replicas, venues, store and bus on virtual time, and what befalls them."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import sys
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec
import structlog

from execution import open_listings
from schemas.event import OrderEvent
from tests.simulation import faults, oracle, traders
from tests.simulation.bus import SimBus
from tests.simulation.loop import REPLICA, SimLoop
from tests.simulation.records import records
from tests.simulation.redis import Faults as StoreFaults
from tests.simulation.redis import SimRedis, SimStore
from tests.simulation.replica import SimReplica
from tests.simulation.venue import SimVenue
from tests.simulation.watch import BOOKED_SECONDS, SILENT_SECONDS, Watch

_event = msgspec.json.Decoder(OrderEvent)
EPOCH = 1_800_000_000.0
REST = 60.0
"""Virtual seconds after which orders without an end of their own are canceled."""
QUIET = 240.0
"""Virtual seconds after that in which everything has to come to its end."""


@dataclass
class World:
    """What a run consists of. Everything random comes from `seed`."""

    seed: int
    loop: SimLoop
    redis: SimRedis
    bus: SimBus
    venues: dict[str, SimVenue]
    store_faults: StoreFaults = field(default_factory=StoreFaults)
    replicas: list[SimReplica] = field(default_factory=list)
    signals: dict[str, dict[str, Any]] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)
    """What befell whom, for people."""
    deaths: list[tuple[str, BaseException]] = field(default_factory=list)
    commands: set[str] = field(default_factory=set)
    """The ids of the commands that were given."""
    most: dict[str, Decimal] = field(default_factory=dict)
    """The largest quantity that was ever asked for, by order key."""
    fates: list[tuple[float, float]] = field(default_factory=list)
    """When a replica was killed, or frozen until when."""
    losses: list[tuple[float, float, frozenset[str]]] = field(default_factory=list)
    """What the store forgot: from when, until when it was back, and the keys of the orders."""
    beating: bool = False
    """Whether the strategy goes on beating."""
    beat_at: float = 0.0
    """When it beat last."""
    skews: dict[str, float] = field(default_factory=dict)
    """Seconds by which replicas' wall clocks are wrong."""
    passed_on: set[str] = field(default_factory=set)
    """Keys of forgotten orders that another replica worked next."""

    epoch = EPOCH

    def __post_init__(self) -> None:
        self.watch = Watch(self)

    def now_ms(self) -> int:
        """Ms since the epoch, by the clock of the replica that asks."""
        return int((EPOCH + self.loop.time() + self.skew) * 1000)

    @property
    def skew(self) -> float:
        return self.skews.get(REPLICA.get(), 0.0)

    def monotonic(self) -> float:
        return self.loop.time()

    async def connect(self, replica: str) -> SimStore:
        """The store as a replica reaches it."""
        return await SimStore.join(self.redis, seed=f"{self.seed}:{replica}", faults=self.store_faults)

    def died(self, replica: SimReplica, error: BaseException) -> None:
        self.deaths.append((replica.name, error))

    def note(self, what: str) -> None:
        self.history.append(f"{self.loop.time():8.3f} {what}")

    # --- what is watched ------------------------------------------------------------------------------------------------

    @property
    def forgotten(self) -> set[str]:
        """Keys of orders of which the store lost something that nobody alive could write again."""
        found = set(self.passed_on)
        for since, until, lost in self.losses:
            if self._struck(since, until):
                found |= lost
        return found

    def forgotten_since(self, at: float) -> bool:
        """Whether the store lost something after a moment that perhaps nobody alive could write again."""
        return any(until > at and self._struck(since, until) for since, until, _ in self.losses)

    def _struck(self, since: float, until: float) -> bool:
        """Whether a replica died, or stood still, about then."""
        return any(begin < until + faults.PATIENCE and end > since - faults.PATIENCE for begin, end in self.fates)

    @property
    def lost(self) -> set[str]:
        """Keys of orders of which the store has ever lost something."""
        return {key for _, _, keys_lost in self.losses for key in keys_lost}

    def published(self) -> Iterator[OrderEvent]:
        """Every event as often as it was published, in that order."""
        return (_event.decode(kept.message.data) for kept in self.bus.topic("events").kept.values())

    def service_events(self) -> list[OrderEvent]:
        """What was published that belongs to no order."""
        return [event for event in self.published() if event.sequence == 0]

    # --- replicas -------------------------------------------------------------------------------------------------------

    @property
    def living(self) -> list[SimReplica]:
        return [replica for replica in self.replicas if replica.alive]

    def start_replica(self) -> SimReplica:
        replica = SimReplica(self, f"r{len(self.replicas) + 1}")
        self.replicas.append(replica)
        self.note(f"{replica.name} starts")
        replica.start()
        return replica


@contextmanager
def virtual_clock(loop: SimLoop, skews: Mapping[str, float]) -> Iterator[None]:
    """The process's clocks are the loop's: whatever asks the time is told the virtual one, by its replica's wrong clock.
    What is drawn from the machine is drawn from the seed."""
    real = time.monotonic, time.time, time.time_ns, uuid.uuid4
    time.monotonic = loop.time  # type: ignore[assignment]
    time.time = lambda: EPOCH + loop.time() + skews.get(REPLICA.get(), 0.0)
    time.time_ns = lambda: int(time.time() * 1e9)
    uuid.uuid4 = lambda: uuid.UUID(int=random.getrandbits(128))
    try:
        yield
    finally:
        time.monotonic, time.time, time.time_ns, uuid.uuid4 = real


def simulate(seed: int, *, calm: bool = False) -> oracle.Verdict:
    """Run a seed to its end and judge it. The same seed gives the same run."""
    structlog.configure(processors=[_silence])
    gc.disable()  # when the collector comes, what the dead left behind would do something: a run may not depend on that
    if not gc.get_freeze_count():
        gc.freeze()  # what was imported need not be looked through when the dead are buried
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
    random.seed(seed)  # what the service draws by itself (jitter) repeats too
    open_listings.AT_ONCE, open_listings.ENOUGH = 1, 2  # so few orders as here are listed too
    loop = SimLoop()
    skews: dict[str, float] = {}
    with virtual_clock(loop, skews):
        try:
            return loop.run_until_complete(_run(seed, loop, skews, calm))
        finally:
            _bury(loop)


def _silence(*_: Any) -> Any:
    raise structlog.DropEvent


def _bury(loop: SimLoop) -> None:
    """Let what the dead left behind go in silence: nothing of them may run, so nothing of them can be cancelled."""
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loop.close()
            gc.collect()
    finally:
        sys.unraisablehook = hook


async def _run(seed: int, loop: SimLoop, skews: dict[str, float], calm: bool) -> oracle.Verdict:
    draw = random.Random(seed)
    monotonic = loop.time

    def now_ms() -> int:
        return int((EPOCH + loop.time()) * 1000)

    bus = SimBus(random.Random(f"{seed}:bus"), now_ms, monotonic)
    venues = {
        name: SimVenue(
            name,
            random.Random(f"{seed}:{name}"),
            now_ms,
            monotonic,
            request_ttl_ms=draw.choice((2000, 8000)),
            rate_limit=1000 if calm else draw.choice((1000, 1000, 8, 3)),
        )
        for name in ("alpha", "beta")[: draw.choice((1, 2))]
    }
    world = World(seed, loop, SimRedis(lambda: EPOCH + loop.time()), bus, venues, skews=skews)
    watch = world.watch
    loop.set_exception_handler(lambda _, context: watch.unhandled(context))
    bus.acknowledged, world.redis.written = watch.acknowledged, watch.written
    for venue in venues.values():
        venue.taken, venue.refused_twice = watch.taken, watch.sent_again
        venue.told, venue.overtaken = watch.told, watch.overtaken
    markets = [asyncio.create_task(venue.run()) for venue in venues.values()]
    if not calm:
        faults.weather(world, draw)
    for _ in range(draw.choice((1, 1, 2, 3))):
        world.start_replica()
    if not calm:
        faults.strike_senders(world, random.Random(f"{seed}:senders"))
    beating = asyncio.create_task(traders.beat(world, random.Random(f"{seed}:beats")))
    fates = asyncio.create_task(faults.fates(world, draw)) if not calm else None
    await traders.trade(world, draw)
    await asyncio.sleep(max(traders.LIFE - loop.time(), 0))
    if fates is not None:
        assert not fates.done(), fates.exception()
        fates.cancel()
    faults.calm(world)
    calm_at, ends, called_off = loop.time(), loop.time() + QUIET, False
    while loop.time() < ends:
        await asyncio.sleep(2.0)
        if not world.living:
            world.start_replica()
        if loop.time() > calm_at + BOOKED_SECONDS:
            world.watch.fills_are_booked()
            world.watch.ends_are_kept()
        if loop.time() > calm_at + SILENT_SECONDS:
            world.watch.entries_are_off()
        if loop.time() > calm_at + REST and not called_off:
            called_off = True
            world.note("what still rests is called off")
            for signal_id in world.signals:
                await traders.publish(
                    world, "control", {"type": "order.cancel", "signal_id": signal_id, "reason": "the end"}
                )
        if oracle.settled(records(world)):
            break
    verdict = oracle.judge(
        records(world, at_the_end=True),
        oracle.Verdict(seed, history=world.history, steps=loop.steps, virtual_seconds=loop.time()),
    )
    for replica in world.replicas:
        replica.kill()
    for market in (*markets, beating):
        market.cancel()
    await asyncio.gather(*markets, beating, return_exceptions=True)
    return verdict
