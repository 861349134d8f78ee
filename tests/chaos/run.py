"""One run: trading under a seeded schedule of faults, then calm, then the judge."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import msgspec

from schemas.order import OrderStatus
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.trading import trade
from tests.chaos.world import PRICES, World
from tests.simulation import oracle

QUIET = 150.0
"""Seconds after the last fault in which everything has to come to its end."""
BETWEEN_FAULTS = 2.5
"""Seconds in the mean; several are under way at a time."""
SWEEP = 10.0
"""Seconds between two sweeps of the prices, which trigger what waits for one."""


@dataclass(frozen=True)
class Strike:
    """A fault at a time, with its own source of chance, so that faults do not change one another's."""

    at: float
    fault: Fault
    seed: int


def schedule(seed: int, seconds: float, between: float) -> list[Strike]:
    """What befalls a run of a seed. The same seed has the same schedule; what it meets is never quite the same."""
    draw = random.Random(seed)
    strikes, at = [], draw.expovariate(1 / between)
    while at < seconds:
        fault = draw.choices(list(FAULTS), list(FAULTS.values()))[0]
        strikes.append(Strike(at, fault, draw.getrandbits(32)))
        at += draw.expovariate(1 / between)
    return strikes


@dataclass(frozen=True)
class Outcome:
    """What a run came to: the verdict, how often each fault struck, and how many seconds all of it took to end after the last one."""

    verdict: oracle.Verdict
    struck: Counter[str]
    ended_in: float


async def run(
    seed: int, folder: Path, *, seconds: float = 30.0, between: float = BETWEEN_FAULTS, replicas: int | None = None
) -> Outcome:
    """A whole run of a seed: so many seconds of trouble, and then until everything has come to its end."""
    draw = random.Random(f"trade {seed}")
    count = replicas or draw.choice((2, 2, 3))
    strikes = schedule(seed, seconds, between)
    async with World(folder, replicas=count) as world:
        await world.start()
        trading = asyncio.create_task(trade(world, draw, seconds * 0.8, draw.randint(17, 40), int(seconds / 2)))
        struck = await asyncio.gather(*(_strike(world, strike) for strike in strikes))
        await trading
        world.note("calm")
        began = time.monotonic()
        verdict = await settle(world, seed)
        return Outcome(verdict, Counter(filter(None, struck)), time.monotonic() - began)


async def _strike(world: World, strike: Strike) -> str | None:
    """Let a fault strike at its time; its name, unless its victim was in the hands of another one."""
    await asyncio.sleep(strike.at)
    return strike.fault.__name__ if await strike.fault(world, random.Random(strike.seed)) else None


async def settle(world: World, seed: int = 0) -> oracle.Verdict:
    """From here on everything works: what is owed has to be paid. Wait for it, and judge."""
    for seat in world.seats:
        await world.ready(seat)
    for name in world.venue_names:
        await world.signal(f"after-{name}", exchange=name)
    deadline = time.monotonic() + QUIET
    swept = 0.0
    records = await world.records()
    while time.monotonic() < deadline:
        if time.monotonic() - swept > SWEEP:
            swept = time.monotonic()
            await _sweep(world)
        before = oracle.settled(records)
        await asyncio.sleep(1.0)
        records = await world.records()
        if before and oracle.settled(records):  # whatever still came of itself has changed nothing
            break
    verdict = oracle.judge(records, oracle.Verdict(seed, history=world.history))
    for name in world.venue_names:
        if not any(event.status is OrderStatus.FILLED for event in world.system.events(f"after-{name}")):
            verdict.broken.append(f"after everything worked again, an order at {name} was not filled")
    verdict.broken += await _public_keys(world, records)
    if verdict.broken:
        await _keep(world, records, verdict)
    return verdict


async def _public_keys(world: World, records: oracle.Records) -> list[str]:
    """What programs outside read from the store must say the same: each fill once in `STREAM:TRADE`, and each order's last state."""
    wrong = []
    orders = [order for order in records.ledger.values() if order is not None]
    told = Counter((row["client_order_id"], row["trade_id"]) for row in await world.system.public_trades())
    booked = Counter((fill.child_id, fill.trade_id) for order in orders for fill in order.fills)
    for fill in sorted(told.keys() | booked.keys()):
        if told[fill] != booked[fill]:
            wrong.append(f"fill {fill} is {told[fill]} times in STREAM:TRADE, {booked[fill]} times in the ledger")
    for order in orders:
        last = records.events[order.parent.order_id][-1]
        flat = await world.system.store.call("HGET", f"ORDER:{last.order_id}", "filled")
        if flat is None or Decimal(flat.decode()) != last.filled_quantity:
            wrong.append(f"ORDER:{last.order_id} says {flat!r} filled, the last event {last.filled_quantity}")
    return wrong


async def _sweep(world: World) -> None:
    """Move every price up and down, so that whatever waits for a price meets it."""
    for way in (Decimal("1.01"), Decimal("0.99"), Decimal(1)):
        for name in world.venue_names:
            for symbol, price in PRICES.items():
                await world.system.control(name).price(symbol.replace("/", ""), (price * way).quantize(Decimal("0.01")))
        await asyncio.sleep(0.2)


async def _keep(world: World, records: oracle.Records, verdict: oracle.Verdict) -> None:
    """Write down what everybody says, beside the logs of the replicas."""
    (world.folder / "verdict.txt").write_text(f"{verdict}\n")
    for name in world.venue_names:
        control = world.system.control(name)
        said = {"record": await control.record(), "requests": await control.requests()}
        (world.folder / f"{name}.json").write_text(json.dumps(said, indent=1))
    events = {order_id: [msgspec.to_builtins(event) for event in told] for order_id, told in records.events.items()}
    (world.folder / "events.json").write_bytes(msgspec.json.format(msgspec.json.encode(events)))
    (world.folder / "ledger.json").write_bytes(msgspec.json.format(msgspec.json.encode(records.ledger)))
    (world.folder / "signals.json").write_bytes(msgspec.json.format(msgspec.json.encode(world.signals)))
