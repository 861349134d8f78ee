"""What goes wrong. Each fault is a coroutine that takes a world and a source of chance, breaks something, and mends it before it returns.

A fault whose victim is already in the hands of another one does nothing, and says so by returning False.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import signal
from collections.abc import Awaitable, Callable

from tests.chaos.proxy import Link
from tests.chaos.world import LEASE, PATIENCE, Seat, World, holds

Fault = Callable[[World, random.Random], Awaitable[bool]]


# --- replicas -----------------------------------------------------------------------------------------------------------


async def kill_replica(world: World, draw: random.Random) -> bool:
    """A replica is killed, and another starts in its place."""
    seat = draw.choice(world.seats)
    async with world.claim(seat.name) as free:
        strikes = free and seat.up
        if strikes:
            away = draw.uniform(0.1, 2 * LEASE)
            world.note(f"{seat.name}.{seat.lives} is killed, another starts in {away:.1f} s")
            world.kill(seat, away=away)
            await asyncio.sleep(away)
    return strikes


async def replace_replica(world: World, draw: random.Random) -> bool:
    """A replica is told to stop, as in a rolling update, and another starts in its place."""
    seat = draw.choice(world.seats)
    async with world.claim(seat.name) as free:
        strikes = free and seat.up
        if strikes:
            world.note(f"{seat.name}.{seat.lives} is told to stop")
            world.strike(seat, signal.SIGTERM, away=0.0)
            await seat.running.ended(PATIENCE)
    return strikes


async def freeze_replica(world: World, draw: random.Random) -> bool:
    """A replica stands still for longer than its leases last, and wakes up as a zombie that believes it still owns its orders."""
    seat = draw.choice(world.seats)
    async with world.claim(seat.name) as free:
        strikes = free and seat.up
        if strikes:
            seconds = LEASE * draw.uniform(1.1, 3)
            world.note(f"{seat.name}.{seat.lives} stands still for {seconds:.1f} s")
            async with frozen(seat.running.process.pid):
                await asyncio.sleep(seconds)
    return strikes


# --- the ways -----------------------------------------------------------------------------------------------------------


async def cut_way(world: World, draw: random.Random) -> bool:
    """The way of a replica to something is cut: connections are reset, new ones refused."""
    link = _any_way(world, draw)
    return await _for_a_while(world, draw, link, link.cut(), "is cut")


async def stall_way(world: World, draw: random.Random) -> bool:
    """Nothing passes on a way, and nothing breaks; what was sent meanwhile arrives late."""
    link = _any_way(world, draw)
    return await _for_a_while(world, draw, link, link.stalled(), "stalls")


async def slow_way(world: World, draw: random.Random) -> bool:
    """Everything takes its time on a way."""
    link, seconds = _any_way(world, draw), draw.choice((0.05, 0.2, 1.0))
    return await _for_a_while(world, draw, link, link.slowed(seconds), f"is slow by up to {seconds:g} s")


async def lose_answers(world: World, draw: random.Random) -> bool:
    """Requests have their effect, but their answers are lost."""
    link = _any_way(world, draw)
    return await _for_a_while(world, draw, link, link.without_answers(), "loses answers")


async def lose_requests(world: World, draw: random.Random) -> bool:
    """Requests are lost on their way, while the other side still talks."""
    link = _any_way(world, draw)
    return await _for_a_while(world, draw, link, link.without_requests(), "loses requests")


async def reset_ways(world: World, draw: random.Random) -> bool:
    """Every connection of one replica breaks at once, and can be made again at once."""
    seat = draw.choice(world.seats)
    world.note(f"all connections of {seat.name} are reset")
    for link in seat.links.values():
        await link.reset()
    return True


def _any_way(world: World, draw: random.Random) -> Link:
    return draw.choice(list(draw.choice(world.seats).links.values()))


async def _for_a_while(
    world: World, draw: random.Random, link: Link, fault: contextlib.AbstractAsyncContextManager[None], how: str
) -> bool:
    seconds = draw.uniform(0.3, 3 * LEASE)
    world.note(f"the way {link.name} {how} for {seconds:.1f} s")
    async with fault:
        await asyncio.sleep(seconds)
    return True


# --- the store ----------------------------------------------------------------------------------------------------------


async def kill_store(world: World, draw: random.Random) -> bool:
    """The store is killed, and started again from its append-only file."""
    async with world.claim("store") as free:
        if free:
            seconds = draw.uniform(0, 2 * LEASE)
            world.note(f"the store is killed, and is back in {seconds:.1f} s")
            await world.end_store()
            await asyncio.sleep(seconds)
            await world.start_store()
    return free


async def freeze_store(world: World, draw: random.Random) -> bool:
    """The store stands still for a while."""
    async with world.claim("store") as free:
        if free:
            seconds = draw.uniform(0.3, 2 * LEASE)
            world.note(f"the store stands still for {seconds:.1f} s")
            async with frozen(world.store.pid):
                await asyncio.sleep(seconds)
    return free


async def full_disk(world: World, draw: random.Random) -> bool:
    """The store's disk is full. Set as it is (appendfsync always) it ends itself at the next write, half of which may be in its file; it is
    started again when there is room."""
    async with world.claim("store") as free:
        if free:
            world.note("the store's disk is full")
            room(world, draw.randrange(2000))
            await asyncio.wait_for(world.store.wait(), PATIENCE)
            seconds = draw.uniform(0, 2 * LEASE)
            world.note(f"the store has ended itself; there is room, and it is back, in {seconds:.1f} s")
            await asyncio.sleep(seconds)
            await world.end_store()
            await world.start_store()
    return free


async def refused_writes(world: World, draw: random.Random) -> bool:
    """The store's disk is full, and the store (appendfsync everysec) lives on and refuses writes until there is room."""
    async with world.claim("store") as free:
        if free:
            seconds = draw.uniform(1, 2 * LEASE)
            world.note(f"the store refuses writes for {seconds:.1f} s")
            async with no_room(world):
                await asyncio.sleep(seconds)
    return free


@contextlib.asynccontextmanager
async def no_room(world: World):  # type: ignore[no-untyped-def]
    """The disk is full for a store that refuses writes then, instead of ending itself."""
    call = world.system.store.call
    await call("CONFIG", "SET", "appendfsync", "everysec")
    room(world, 0)
    try:
        yield
    finally:
        room(world, None)
        await holds(lambda: _writes(world), PATIENCE, lambda: "the store does not write although there is room")
        await call("CONFIG", "SET", "appendfsync", "always")


async def _writes(world: World) -> bool:
    info = await world.system.store.call("INFO", "persistence")
    return b"aof_last_write_status:ok" in info


def room(world: World, more: int | None) -> None:
    """Let the store's append-only file grow by so many bytes and no further; None: without bound.

    The bound is the kernel's on the size of a process's files (RLIMIT_FSIZE): it needs no rights, unlike a small file system, and the store
    meets the same error at the same call.
    """
    largest = max((file.stat().st_size for file in (world.folder / "store").glob("appendonlydir/*.aof")), default=0)
    soft = resource.RLIM_INFINITY if more is None else largest + more
    resource.prlimit(world.store.pid, resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))


# --- Pub/Sub ------------------------------------------------------------------------------------------------------------


async def restart_pubsub(world: World, draw: random.Random) -> bool:
    """The emulator is killed, and an empty one takes its place: topics, subscriptions and what was in them are gone."""
    async with world.claim("pubsub", "store") as free:
        if free:
            world.note("Pub/Sub is replaced by an empty one")
            await world.restart_pubsub()
            world.note("Pub/Sub is whole again")
    return free


async def freeze_pubsub(world: World, draw: random.Random) -> bool:
    """Pub/Sub stands still for a while."""
    async with world.claim("pubsub") as free:
        if free:
            seconds = draw.uniform(0.5, 3 * LEASE)
            world.note(f"Pub/Sub stands still for {seconds:.1f} s")
            async with frozen(world.pubsub._process.pid):
                await asyncio.sleep(seconds)
    return free


# --- venues -------------------------------------------------------------------------------------------------------------


async def freeze_venue(world: World, draw: random.Random) -> bool:
    """A venue stands still; what it was asked meanwhile it does late."""
    name = draw.choice(world.venue_names)
    async with world.claim(name) as free:
        if free:
            seconds = draw.uniform(0.3, 3 * LEASE)
            world.note(f"{name} stands still for {seconds:.1f} s")
            world.venues[name].pause()
            try:
                await asyncio.sleep(seconds)
            finally:
                world.venues[name].resume()
    return free


async def restart_venue(world: World, draw: random.Random) -> bool:
    """A venue is restarted as for maintenance; it keeps its record and resting orders."""
    name = draw.choice(world.venue_names)
    async with world.claim(name) as free:
        if free:
            seconds = draw.uniform(0, 2 * LEASE)
            world.note(f"{name} restarts, and is back in {seconds:.1f} s")
            await world.restart_venue(name, seconds)
    return free


async def spoil_venue(world: World, draw: random.Random) -> bool:
    """A venue answers badly: errors before and after the effect, lost and broken answers, rate limits, rejects, events lost, late and twice."""
    name = draw.choice(world.venue_names)
    async with world.claim(name) as free:
        if free:
            seconds, control = draw.uniform(2, 3 * LEASE), world.system.control(name)
            chosen = [draw.choice(UNANSWERED), *draw.sample(SPOILED, draw.randint(1, 4))]
            world.note(f"{name} answers badly for {seconds:.1f} s: {', '.join(str(fault['kind']) for fault in chosen)}")
            for fault in chosen:
                await control.fault(**fault, count=None, probability=draw.choice((0.2, 0.5)))  # type: ignore[arg-type]
            await asyncio.sleep(seconds)
            await control.clear()
    return free


UNANSWERED: tuple[dict[str, object], ...] = (
    {"kind": "lose_answer", "method": "POST", "path": "/api/v3/order"},
    {"kind": "lose_request", "method": "POST", "path": "/api/v3/order"},
    {"kind": "http_error", "status": 503, "when": "after", "method": "POST", "path": "/api/v3/order"},
)
"""After these nobody knows whether an order is there."""
SPOILED: tuple[dict[str, object], ...] = (
    *UNANSWERED,
    {"kind": "lose_answer", "method": "DELETE", "path": "/api/v3/order"},
    {"kind": "http_error", "status": 503, "when": "after", "path": "/api/v3/order"},
    {"kind": "http_error", "status": 503, "when": "before"},
    {"kind": "broken_body", "path": "/api/v3/order", "body": "<html>502 Bad Gateway</html>"},
    {"kind": "latency", "seconds": 0.05, "jitter": 1.0, "path": "/api/v3/order"},
    {"kind": "rate_limit", "status": 429, "seconds": 1.0, "path": "/api/v3/order"},
    {
        "kind": "reject",
        "method": "POST",
        "path": "/api/v3/order",
        "code": -2010,
        "message": "Account has insufficient balance.",
    },
    {"kind": "drop_event"},
    {"kind": "duplicate_event"},
    {"kind": "delay_event", "seconds": 1.0},
    {"kind": "reorder_event"},
)


@contextlib.asynccontextmanager
async def frozen(pid: int):  # type: ignore[no-untyped-def]
    """A process stands still."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


async def frozen_until(seat: Seat, condition: Callable[[], Awaitable[bool]]) -> None:
    """A replica stands still until something is so."""
    async with frozen(seat.running.process.pid):
        await holds(condition, PATIENCE, lambda: f"it did not come about while {seat.name} stood still")


FAULTS: dict[Fault, int] = {
    kill_replica: 4,
    replace_replica: 2,
    freeze_replica: 4,
    cut_way: 4,
    stall_way: 3,
    slow_way: 3,
    lose_answers: 4,
    lose_requests: 2,
    reset_ways: 2,
    kill_store: 3,
    freeze_store: 2,
    full_disk: 1,
    refused_writes: 1,
    restart_pubsub: 1,
    freeze_pubsub: 2,
    freeze_venue: 3,
    restart_venue: 2,
    spoil_venue: 4,
}
"""Every fault, and how often it comes in comparison."""
