"""What befalls replicas, store, bus and venues in a run."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from execution.ledger import keys
from tests.simulation.loop import REPLICA
from tests.simulation.redis import Faults as StoreFaults
from tests.simulation.replica import SHARDS, SimReplica
from tests.simulation.traders import LIFE

if TYPE_CHECKING:
    from tests.simulation.world import World

PATIENCE = 12.0
"""Seconds around a loss in which the death of a replica may leave nobody who knows what was lost."""


def weather(world: World, draw: random.Random) -> None:
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


async def fates(world: World, draw: random.Random) -> None:
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


def strike_senders(world: World, draw: random.Random) -> None:
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
    away = draw.choice((0.0, draw.uniform(0, 8)))
    if draw.random() < 0.2:
        _wipe(world, away)
    else:
        _fail_over(world, draw.uniform(0.05, 1.5), away)


def _wipe(world: World, away: float) -> None:
    """The store comes back empty, as one without a disk does."""
    lost = frozenset(_versions(world))
    world.redis.wipe(away=away)
    world.losses.append((world.loop.time(), world.loop.time() + away, lost))
    world.passed_on |= lost
    world.note(f"the store comes back empty: {len(lost)} orders")


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


def calm(world: World) -> None:
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
