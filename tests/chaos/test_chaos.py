"""Real processes under faults: one test for each of the worst, and short runs of seeds in which they come together.

`python -m tests.chaos` (or `make chaos`) runs more and longer ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from adapters.simulator.market import MarketConfig
from execution.ledger import keys, order_key
from tests.chaos.faults import frozen, no_room
from tests.chaos.run import run, settle
from tests.chaos.trading import trade
from tests.chaos.world import PATIENCE, SHARDS, World, holds

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]

STEADY = MarketConfig(volatility=0.0, trades=0.0, permanent_impact=0.0, impact_half_life=0.2)
"""Quotes a basis point off 50 000 on either side."""
FAR = Decimal(40_000)
"""Where a bid rests."""


@contextlib.asynccontextmanager
async def one_venue(folder: Path, replicas: int = 1, **environment: str) -> AsyncIterator[World]:
    """A world with one venue whose price stands still; in the end all must have ended, and everybody's records agree."""
    async with World(folder, venues=("alpha",), replicas=replicas) as world:
        await world.start(STEADY, **environment)
        yield world
        verdict = await settle(world)
        assert not verdict.broken, str(verdict)


async def creates(world: World, signal_id: str | None = None) -> list[str]:
    """The client order ids of the requests to create that reached the venue, in order; of one signal where given."""
    prefix = order_key(signal_id) if signal_id else ""
    asked = [one for one in await world.system.control("alpha").requests() if one["method"] == "POST"]
    return [
        one["parameters"]["newClientOrderId"]
        for one in asked
        if one["parameters"]["newClientOrderId"].startswith(prefix)
    ]


async def becomes(what: Any, reason: str) -> None:
    await holds(what, PATIENCE, lambda: reason)


async def slices(world: World, name: str, seconds: int, count: int) -> None:
    """Publish an order that sends a child every few moments, and wait for its first."""
    params = {"duration_seconds": seconds, "slices": count, "style": "aggressive"}
    await world.signal(name, quantity=Decimal(count) / 100, algorithm="twap", algorithm_params=params)

    async def begun() -> bool:
        return bool(await creates(world, name))

    await becomes(begun, f"{name} has sent nothing")


@pytest.mark.parametrize("seed", [13, 42])
async def test_a_seed(tmp_path: Path, seed: int) -> None:
    outcome = await run(seed, tmp_path, seconds=10, between=1.5, replicas=2)
    assert not outcome.verdict.broken, str(outcome.verdict)
    assert outcome.struck


async def test_a_zombie_wakes_up_late(tmp_path: Path) -> None:
    """A replica stands still for longer than its leases: the other one works its orders, and what it still wants to send does not leave."""
    async with one_venue(tmp_path, replicas=2) as world:
        for number in range(6):
            await slices(world, f"sliced{number}", 8, 40)
        zombie, other = world.seats

        async def owns_all() -> bool:
            beat = await world.system.store.call("GET", keys.heartbeat(f"{other.name}.{other.lives}"))
            return beat is not None and len(json.loads(beat)["shards"]) == SHARDS

        async def goes_on() -> bool:
            return len(await creates(world)) > before + 5

        async with frozen(zombie.running.process.pid):
            await becomes(owns_all, "nobody took over")
            before = len(await creates(world))
            await becomes(goes_on, "the orders are not worked on")
        await world.signal("afterwards")


async def test_the_store_is_killed_under_load(tmp_path: Path) -> None:
    """What was acknowledged is in the append-only file; what was under way is found out."""
    async with one_venue(tmp_path, replicas=2) as world:
        trading = asyncio.create_task(trade(world, random.Random(1), 4.0, 34, longest=6))
        for _ in range(2):
            await asyncio.sleep(1.3)
            await world.end_store()
            await world.start_store()
        await trading


async def test_the_disk_of_the_store_is_full(tmp_path: Path) -> None:
    """While the store refuses writes nothing new is sent and cancels still go out; everything resumes when there is room."""
    async with one_venue(tmp_path, LEASE_TTL="12") as world:
        now = time.time_ns() // 1_000_000
        await slices(world, "sliced", 12, 60)
        for number in range(3):
            await world.signal(f"rests{number}", price=FAR, expires_at=now + 4_000 + 500 * number)
            await world.system.told(f"rests{number}", "working")
        async with no_room(world):
            await world.signal("meanwhile")

            async def canceled() -> bool:
                asked = await world.system.control("alpha").requests()
                return len({one["parameters"]["orderId"] for one in asked if one["method"] == "DELETE"}) >= 3

            async def refuses() -> bool:
                info = await world.system.store.call("INFO", "persistence")
                return bool(b"aof_last_write_status:err" in info)

            await becomes(refuses, "the store still writes")
            await asyncio.sleep(0.5)  # what was committed before may still be on its way
            sent = await creates(world)
            await becomes(canceled, "what ran out was not cancelled")
            assert await creates(world) == sent, "something new was sent while nothing could be written"
        await world.system.told("meanwhile", "filled", PATIENCE)
        for number in range(3):
            await world.system.told(f"rests{number}", "expired", PATIENCE)


async def test_the_answer_to_a_create_is_lost_after_its_effect(tmp_path: Path) -> None:
    """The order is at the venue, its answer on a dead connection: it is asked for, not sent again."""
    async with one_venue(tmp_path) as world:
        link = world.seats[0].links["alpha"]

        async def taken() -> bool:
            record = await world.system.control("alpha").record()
            return any(str(one["clientOrderId"]).startswith(key) for one in record["orders"])

        for number, more in enumerate(({}, {"price": FAR})):
            key = order_key(f"lost{number}")
            async with link.without_answers():
                await world.signal(f"lost{number}", **more)
                await becomes(taken, "the order did not reach the venue")
        await world.system.told("lost0", "filled", PATIENCE)
        await world.system.told("lost1", "working", PATIENCE)
        await world.command(type="order.cancel", signal_id="lost1")
        await world.system.told("lost1", "canceled", PATIENCE)
        for number in range(2):
            assert len(await creates(world, f"lost{number}")) == 1


async def test_pubsub_forgets_everything(tmp_path: Path) -> None:
    """Topics and subscriptions are made anew, and what waited in the outbox comes out."""
    async with one_venue(tmp_path) as world:
        await world.signal("before", price=FAR)
        await world.system.told("before", "working")
        await world.restart_pubsub()
        await world.command(type="order.cancel", signal_id="before")
        await world.system.told("before", "canceled", PATIENCE)
        await world.signal("afterwards")
        await world.system.told("afterwards", "filled", PATIENCE)
