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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any

import msgspec
import structlog

from execution import open_listings
from execution.ledger import keys, order_key
from execution.pubsub import OutgoingMessage
from schemas import exact_json
from schemas.event import OrderEvent
from tests.simulation import oracle
from tests.simulation.bus import SimBus
from tests.simulation.loop import REPLICA, SimLoop
from tests.simulation.records import records
from tests.simulation.redis import Faults as StoreFaults
from tests.simulation.redis import SimRedis, SimStore
from tests.simulation.replica import SHARDS, SimReplica
from tests.simulation.venue import SYMBOL, SimVenue
from tests.simulation.watch import BEAT_TIMEOUT, BOOKED_SECONDS, SILENT_SECONDS, Watch

_event = msgspec.json.Decoder(OrderEvent)
EPOCH = 1_800_000_000.0
LIFE = 60.0
"""Virtual seconds in which signals come and things go wrong."""
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
            if any(begin < until + PATIENCE and end > since - PATIENCE for begin, end in self.fates):
                found |= lost
        return found

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


STRATEGY = "simulation"
PATIENCE = 12.0
"""Seconds around a loss in which the death of a replica may leave nobody who knows what was lost."""


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
        _weather(world, draw)
    for _ in range(draw.choice((1, 1, 2, 3))):
        world.start_replica()
    if not calm:
        _strike_senders(world, random.Random(f"{seed}:senders"))
    beating = asyncio.create_task(_beat(world, random.Random(f"{seed}:beats")))
    fates = asyncio.create_task(_fates(world, draw)) if not calm else None
    await _trade(world, draw)
    await asyncio.sleep(max(LIFE - loop.time(), 0))
    if fates is not None:
        assert not fates.done(), fates.exception()
        fates.cancel()
    _calm(world)
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
                await _publish(world, "control", {"type": "order.cancel", "signal_id": signal_id, "reason": "the end"})
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


# --- what is traded -----------------------------------------------------------------------------------------------------


async def _trade(world: World, draw: random.Random) -> None:
    """Publish signals and commands over the life of the run; some signals twice."""
    await asyncio.sleep(draw.uniform(0.5, 3))
    count, burst = draw.randint(4, 14), 0
    for number in range(count):
        if burst:
            burst -= 1  # more at once than a venue takes in a second or two
        else:
            await asyncio.sleep(draw.expovariate(count / (LIFE * 0.7)))
            burst = 8 if draw.random() < 0.05 else 0
        signal = _signal(world, draw, number)
        world.signals[signal["signal_id"]] = signal
        world.most[order_key(signal["signal_id"])] = signal["quantity"]
        await _publish(world, "signals", signal)
        if draw.random() < 0.15:
            await _publish(world, "signals", signal)
        if draw.random() < 0.4:
            await _command(world, draw)
    for signal_id in list(world.signals):
        if draw.random() < 0.3:
            await asyncio.sleep(draw.uniform(0, 2))
            await _publish(world, "control", {"type": "order.cancel", "signal_id": signal_id, "reason": "enough"})


async def _beat(world: World, draw: random.Random) -> None:
    """The strategy beats, in some runs; in some of those it stops, and a person resumes it after a while, or does not."""
    if draw.random() < 0.4:
        return
    stops = draw.uniform(6, 35) if draw.random() < 0.5 else float("inf")
    beat = {"type": "heartbeat", "strategy_id": STRATEGY, "timeout_seconds": BEAT_TIMEOUT}
    while world.loop.time() < stops:
        world.beating = True
        world.beat_at = world.loop.time()
        await _publish(world, "control", beat)
        await asyncio.sleep(2.0)
    world.beating = False
    world.note("the strategy is silent from now on")
    if draw.random() < 0.5:
        await asyncio.sleep(draw.uniform(20, 60))
        world.note("a person resumes it")
        await _publish(world, "control", {"type": "resume", "scope": "strategy", "value": STRATEGY, "command_id": "r"})


async def _publish(world: World, topic: str, fields: dict[str, Any]) -> None:
    """As a strategy publishes: again, until it is certain."""
    while True:
        try:
            await world.bus.publish(topic, [OutgoingMessage(exact_json.encode(fields), {})])
            return
        except Exception:
            await asyncio.sleep(0.5)


def _signal(world: World, draw: random.Random, number: int) -> dict[str, Any]:
    side = draw.choice(("buy", "sell"))
    quantity = Decimal(draw.randint(200, 6000)) / 1000
    signal: dict[str, Any] = {
        "signal_id": f"s{number}",
        "strategy_id": STRATEGY,
        "exchange": draw.choice(sorted(world.venues)),
        "symbol": SYMBOL,
        "side": side,
        "quantity": quantity,
        "order_type": "market",
        "expires_at": world.now_ms() + draw.randint(20_000, 80_000),
    }
    price = Decimal(100) + draw.randint(-100, 100) / Decimal(100)
    if draw.random() < 0.2:
        price += -5 if side == "buy" else 5  # it rests until its time is over, or somebody cancels it
    seconds = draw.randint(5, 40)
    kind = draw.choice(
        (
            "market",
            "limit",
            "limit",
            "ioc",
            "twap",
            "twap",
            "vwap",
            "pov",
            "iceberg",
            "peg",
            "router",
            "bracket",
            "bracket",
            "stop",
        )
    )
    if kind in ("limit", "ioc", "iceberg"):
        signal |= {"order_type": "limit", "price": price}
        if draw.random() < 0.5 and kind != "ioc":
            del signal["expires_at"]
    match kind:
        case "ioc":
            signal["time_in_force"] = "IOC"
        case "twap" | "vwap":
            style = draw.choice(("passive", "aggressive", "adaptive"))
            signal |= {
                "algorithm": kind,
                "algorithm_params": {"duration_seconds": seconds, "slices": draw.randint(2, 8), "style": style},
            }
        case "pov":
            signal |= {"algorithm": "pov", "algorithm_params": {"participation": "0.3", "interval_seconds": 2}}
        case "iceberg":
            signal |= {"algorithm": "iceberg", "algorithm_params": {"display_quantity": "0.5"}}
        case "peg":
            signal |= {"algorithm": "peg", "algorithm_params": {"duration_seconds": seconds, "at_end": "cross"}}
        case "router":
            signal |= {"algorithm": "smart_router", "exchange": "auto"}
        case "bracket":
            up, down = Decimal("101.5"), Decimal("98.5")
            signal |= {"take_profit": up if side == "buy" else down, "stop_loss": down if side == "buy" else up}
        case "stop":
            beyond = Decimal("100.3") if side == "buy" else Decimal("99.7")
            signal |= {"order_type": "stop", "stop_price": beyond}
    return signal


async def _command(world: World, draw: random.Random) -> None:
    """Give an order one command, or some one after the other; who is not sure that it arrived sends an earlier one again."""
    signal_id = draw.choice(sorted(world.signals))
    kinds = draw.choice(
        (
            ("order.cancel",),
            ("order.amend",),
            ("order.pause", "order.resume"),
            ("order.amend", "order.amend"),
            ("order.pause",),
        )
    )
    given = []
    for kind in kinds:
        command_id = f"c{draw.getrandbits(60):x}"
        # The id is the reason too: the events tell it.
        command: dict[str, Any] = {
            "type": kind,
            "signal_id": signal_id,
            "command_id": command_id,
            "reason": command_id,
        }
        if kind == "order.amend":
            command["quantity"] = Decimal(draw.randint(200, 6000)) / 1000
            key = order_key(signal_id)
            world.most[key] = max(world.most[key], command["quantity"])
        given.append(command)
        world.commands.add(command_id)
        await _publish(world, "control", command)
        await asyncio.sleep(draw.uniform(0.2, 3))
    if draw.random() < 0.4:
        await _publish(world, "control", given[0])


# --- what goes wrong ------------------------------------------------------------------------------------------------------


def _weather(world: World, draw: random.Random) -> None:
    """How unreliable everything is in this run: some runs are nearly calm, some are wild."""

    def chance(most: float) -> float:
        return draw.choice((0.0, 0.0, most / 4, most))

    bus = world.bus.faults
    bus.duplicate, bus.late, bus.lost_answer = chance(0.3), chance(0.3), chance(0.2)
    for venue in world.venues.values():
        faults = venue.faults
        faults.lost_before, faults.lost_after = chance(0.15), chance(0.15)
        faults.slow, faults.slowest = chance(0.1), draw.choice((1.0, 3.0, 8.0))
        faults.rejected, faults.busy, faults.rate_limited = chance(0.05), chance(0.1), chance(0.05)
        faults.not_found = chance(0.5)
        faults.update_lost, faults.update_twice, faults.update_late = chance(0.7), chance(0.3), chance(0.3)
        faults.book_gap, faults.book_empty = chance(0.02), chance(0.1)
    world.store_faults = StoreFaults(
        request_lost=chance(0.01),
        reply_lost=chance(0.01),
        stalled=chance(0.004),
        refused=chance(0.01),
        message_lost=chance(0.1),
    )


async def _fates(world: World, draw: random.Random) -> None:
    """What befalls replicas, store, bus and venues, one thing after another."""
    while True:
        await asyncio.sleep(draw.expovariate(1 / 7))
        living = world.living
        fate = draw.choice(
            (
                "kill",
                "kill",
                "freeze",
                "freeze",
                "stop",
                "restart",
                "forget",
                "store",
                "bus",
                "venue",
                "ban",
                "silence",
                "clock",
                "more",
            )
        )
        if fate == "kill" and living:
            victim = draw.choice(living)
            steps = draw.randint(0, 400)
            world.loop.after(victim.name, steps, partial(_kill, world, victim, draw.uniform(1, 8)))
        elif fate == "freeze" and living:
            victim = draw.choice(living)
            seconds = draw.uniform(1, 15)
            world.loop.after(victim.name, draw.randint(0, 400), partial(_freeze, world, victim, seconds))
        elif fate == "stop" and len(living) > 1:
            victim = draw.choice(living)
            world.note(f"{victim.name} is told to stop")
            victim.stop_soon()
            world.loop.call_later(draw.uniform(0, 5), world.start_replica)
        elif fate == "restart":
            world.note("the store restarts")
            world.redis.restart()
        elif fate == "forget":
            _forget(world, draw)
        elif fate == "store":
            seconds = draw.uniform(0.5, 10)
            world.note(f"the store is away for {seconds:.1f} s")
            world.redis.down(seconds)
        elif fate == "bus":
            world.bus.down(draw.uniform(0.5, 10))
            world.note("Pub/Sub is away")
        elif fate == "venue":
            venue = draw.choice(sorted(world.venues))
            world.venues[venue].down_until = world.loop.time() + draw.uniform(0.5, 10)
            world.note(f"{venue} is away")
        elif fate == "ban":
            venue = draw.choice(sorted(world.venues))
            world.venues[venue].banned_until = world.loop.time() + draw.uniform(1, 15)
            world.note(f"{venue} bans everybody")
        elif fate == "silence":
            venue = draw.choice(sorted(world.venues))
            world.venues[venue].silent_until = world.loop.time() + draw.uniform(1, 15)
            world.note(f"{venue}'s market is silent")
        elif fate == "clock" and living:
            victim = draw.choice(living)
            jump = draw.uniform(-4, 4)
            world.skews[victim.name] = world.skews.get(victim.name, 0.0) + jump
            world.note(f"{victim.name}'s clock jumps by {jump:+.1f} s")
        elif fate == "more" and len(living) < 3:
            world.start_replica()


def _strike_senders(world: World, draw: random.Random) -> None:
    """In some runs replicas freeze just before a create leaves them, or die just after, some together with the store's memory of the
    last moment: as bad a moment as there is."""
    freezing, dying, forgotten = draw.choice((0.0, 0.05)), draw.choice((0.0, 0.1)), draw.choice((0.0, 0.0, 0.3))

    def find(name: str) -> SimReplica:
        return next(replica for replica in world.replicas if replica.name == name)

    def sending(name: str) -> None:
        if draw.random() < freezing and world.loop.time() < LIFE:
            _freeze(world, find(name), draw.uniform(3, 12))

    def sent(name: str) -> bool:
        if draw.random() >= dying or world.loop.time() >= LIFE:
            return False
        victim, forgets = find(name), draw.random() < forgotten
        if forgets and draw.random() < 0.7:
            # A little later: by then the signal is acknowledged, and comes no more.
            later(draw.uniform(0.02, 0.5), lambda after: victim.alive and strike(victim, after))
            return False
        strike(victim, 0.0 if forgets else None)
        return True

    def later(seconds: float, what: Callable[[float], object]) -> None:
        token = REPLICA.set("")
        try:
            world.loop.call_later(seconds, what, seconds)
        finally:
            REPLICA.reset(token)

    def strike(victim: SimReplica, ago: float | None) -> None:
        """It dies; with it goes what the store was told since so many seconds, and a little before."""
        _kill(world, victim, draw.uniform(0.5, 5))
        if ago is not None:
            token = REPLICA.set("")
            try:
                _fail_over(world, ago + draw.uniform(0.05, 0.6), draw.choice((0.0, draw.uniform(0, 8))))
            finally:
                REPLICA.reset(token)

    for venue in world.venues.values():
        venue.sending, venue.sent = sending, sent


def _kill(world: World, victim: SimReplica, seconds: float) -> None:
    """It is gone; another starts after some seconds."""
    world.note(f"{victim.name} is killed")
    world.fates.append((world.loop.time(), world.loop.time()))
    victim.kill()
    token = REPLICA.set("")
    try:
        world.loop.call_later(seconds, world.start_replica)
    finally:
        REPLICA.reset(token)


def _freeze(world: World, victim: SimReplica, seconds: float) -> None:
    """It stands still between two of its steps, most likely when it has much to do."""
    world.note(f"{victim.name} freezes for {seconds:.1f} s")
    world.fates.append((world.loop.time(), world.loop.time() + seconds))
    world.loop.freeze(victim.name)
    token = REPLICA.set("")  # who wakes it is not itself
    try:
        world.loop.call_later(seconds, world.loop.thaw, victim.name)
    finally:
        REPLICA.reset(token)


def _forget(world: World, draw: random.Random) -> None:
    """A replica of the store that lags takes over; sometimes whoever wrote what it lacks dies with the old one."""
    now = world.loop.time()
    if draw.random() < 0.4:
        for victim in world.living:
            if draw.random() < 0.7:
                world.note(f"{victim.name} is killed")
                world.fates.append((now, now))
                victim.kill()
                world.loop.call_later(draw.uniform(0.1, 4), world.start_replica)
    _fail_over(world, draw.uniform(0.05, 1.5), draw.choice((0.0, draw.uniform(0, 8))))


def _fail_over(world: World, lost: float, away: float) -> None:
    """The store lacks its last seconds, and is away for some."""
    before, now = _versions(world), world.loop.time()
    changes = world.redis.failover(lost, away=away)
    after = _versions(world)
    keys_lost = frozenset(key for key, version in before.items() if after.get(key) != version)
    world.losses.append((now - lost, now + away, keys_lost))
    world.loop.create_task(_watch_owners(world, keys_lost, now + away))
    world.note(f"the store fails over and lacks the last {lost:.2f} s: {changes} changes, {len(keys_lost)} orders")


async def _watch_owners(world: World, lost: frozenset[str], back_at: float) -> None:
    """See whether another replica than before works an order that was forgotten."""
    owners = _owners(world)
    while world.loop.time() < back_at + PATIENCE:
        await asyncio.sleep(0.2)
        now = _owners(world)
        world.passed_on |= {key for key in lost if now.get(_shard(key)) != owners.get(_shard(key))}


def _owners(world: World) -> dict[str, bytes]:
    return {name: fields[b"owner"] for name, fields in world.redis.hashes(":lease")}


def _shard(key: str) -> str:
    return keys.ShardKeys(keys.shard_of(key, SHARDS)).lease


def _versions(world: World) -> dict[str, bytes]:
    return {name.rpartition(":")[2]: fields[b"v"] for name, fields in world.redis.hashes("}:order:")}


def _calm(world: World) -> None:
    """From here on everything works: what is owed has to be paid."""
    world.note("calm")
    world.bus.faults.__init__()  # type: ignore[misc]
    world.bus.down_until = 0.0
    world.store_faults = StoreFaults()
    for replica in world.living:
        if replica.store is not None:
            replica.store.faults = world.store_faults
    for venue in world.venues.values():
        venue.faults.__init__()  # type: ignore[misc]
        venue.down_until = venue.banned_until = venue.silent_until = 0.0
        venue.rate_limit = 1000
        for adapter in venue.adapters:
            adapter.relieved()
    if not world.living:
        world.start_replica()
