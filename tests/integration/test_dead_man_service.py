"""The dead man's switch from outside, on real servers: what a silent strategy leaves behind, and what must not trip it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from adapters.simulator.market import MarketConfig
from execution.embedded.pubsub.process import PubSubProcess
from execution.embedded.redis_server import EmbeddedRedis
from execution.ledger import order_key
from execution.ledger.pulses import StoredPulse, parse
from schemas.event import EventType, OrderEvent
from tests.console import Console
from tests.replica import until
from tests.system import System, venue

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]

STEADY = MarketConfig(volatility=0.0, trades=0.0, permanent_impact=0.0, impact_half_life=0.2)
REST: dict[str, Any] = {"price": 45_000, "quantity": Decimal("0.1")}


@pytest.fixture
async def system(redis_url: str, pubsub_host: str, tmp_path: Path) -> AsyncIterator[System]:
    async with venue(market=STEADY) as alpha, System(redis_url, pubsub_host, tmp_path, {"alpha": alpha}) as started:
        yield started


async def open_at_venue(system: System) -> list[str]:
    """The client order ids that may still fill."""
    record = await system.control().record()
    return [order["clientOrderId"] for order in record["orders"] if order["status"] in ("NEW", "PARTIALLY_FILLED")]


async def rests(system: System, signal_id: str, seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while not any(name.startswith(order_key(signal_id)) for name in await open_at_venue(system)):
            await asyncio.sleep(0.05)


async def leaves(system: System, signal_id: str, seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while any(name.startswith(order_key(signal_id)) for name in await open_at_venue(system)):
            await asyncio.sleep(0.05)


def told(system: System, kind: EventType) -> list[OrderEvent]:
    return [event for event in system.watch.events.values() if event.event_type is kind]


async def pulses(system: System) -> dict[str, StoredPulse]:
    return parse(await system.store.call("HGETALL", "execution:pulses"))


async def beat(system: System, strategy_id: str = "dead", timeout: float = 3) -> None:
    """One beat, once it has been counted."""
    name = f"strategy:{strategy_id}"
    before = (await pulses(system)).get(name, StoredPulse()).beats
    await system.command(type="heartbeat", strategy_id=strategy_id, timeout_seconds=timeout)
    async with asyncio.timeout(15):
        while (await pulses(system)).get(name, StoredPulse()).beats <= before:
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def beating(system: System, strategy_id: str, timeout: float) -> AsyncIterator[None]:
    async def run() -> None:
        while True:
            await system.command(type="heartbeat", strategy_id=strategy_id, timeout_seconds=timeout)
            await asyncio.sleep(timeout / 6)

    task = asyncio.create_task(run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_silent_strategy_is_halted_once_until_a_person_resumes_it(system: System) -> None:
    await system.replica()
    await system.replica()
    bracket = {"quantity": Decimal("0.1"), "take_profit": 51_000, "stop_loss": 49_000}
    await system.signal("held", strategy_id="dead", **bracket)
    await system.signal("rests", strategy_id="dead", **REST)
    await system.signal("other", strategy_id="alive", **REST)
    await system.told("held", "filled")
    for name in ("held", "rests", "other"):
        await rests(system, name)
    exits = [name for name in await open_at_venue(system) if name.startswith(order_key("held"))]
    async with beating(system, "alive", 4):
        async with beating(system, "dead", 4):
            await asyncio.sleep(6)  # longer than the timeout: what beats does not trip
            assert told(system, EventType.DEADMAN_TRIPPED) == []
            await rests(system, "rests")
        await leaves(system, "rests")
        await until(lambda: told(system, EventType.DEADMAN_TRIPPED))

        # Its exits stay, and so do the orders of others.
        assert set(exits) <= set(await open_at_venue(system))
        await rests(system, "other", 0.5)
        assert (await system.order("rests")).parent.status == "working"
        assert "halted by the dead man's switch" in str((await system.order("rests")).parent.waiting)

        # New signals are refused, and beats alone end nothing.
        await beat(system)
        await system.signal("late", strategy_id="dead", **REST)
        refused = await system.told("late", "rejected")
        assert refused.field == "strategy_id"
        assert "halted by the dead man's switch: strategy dead was silent" in str(refused.reason)
        await system.signal("fine", strategy_id="alive", **REST)
        await rests(system, "fine")

        # Only one replica tripped it, and told it once.
        tripped = told(system, EventType.DEADMAN_TRIPPED)
        assert [(event.strategy_id, event.sequence) for event in tripped] == [("dead", 0)]
        assert tripped[0].metadata["scope"] == "strategy"  # type: ignore[index]
        assert tripped[0].metadata["timeout_seconds"] == 4  # type: ignore[index]
        metrics = "".join([await replica.metrics() for replica in system.replicas])
        assert metrics.count("execution_deadman_trips_total 1.0") == 1
        assert metrics.count("execution_pulses_tripped 1.0") == 2
        report = await system.replicas[0].health()
        assert report is not None
        (part,) = [one for one in report["components"] if one["name"] == "dead man's switch"]
        assert part["status"] == "degraded"
        assert "strategy dead was silent" in part["detail"]

        # A replica that starts now, and no other is left, knows of it.
        await system.replica()
        for replica in system.replicas[:2]:
            await replica.stop()
        await asyncio.sleep(2)
        assert not any(name.startswith(order_key("rests")) for name in await open_at_venue(system))
        await system.command(type="resume", scope="strategy", value="nobody", command_id="r0")
        await system.command(type="resume", scope="venue", value="alpha", command_id="r1")
        await until(lambda: len([e for e in system.events("") if "resume refused" in str(e.reason)]) == 2)

        async with beating(system, "dead", 4):
            await system.command(type="resume", scope="strategy", value="dead", reason="looked at", command_id="r2")
            await rests(system, "rests")
            await until(lambda: told(system, EventType.RESUMED))
            resumed = told(system, EventType.RESUMED)
            assert [(event.strategy_id, event.reason) for event in resumed] == [("dead", "looked at")]
            await system.signal("again", strategy_id="dead", **REST)
            await rests(system, "again")
            # The same command again, delivered late, ends nothing more and says nothing more.
            await system.command(type="resume", scope="strategy", value="dead", command_id="r2")
            await asyncio.sleep(5)
            assert len(told(system, EventType.RESUMED)) == 1
            assert len(told(system, EventType.DEADMAN_TRIPPED)) == 1


async def test_a_source_stands_for_all_orders(system: System, tmp_path: Path) -> None:
    await system.replica()
    await system.signal("one", strategy_id="a", **REST)
    await system.signal("two", strategy_id="b", **REST)
    await rests(system, "one")
    await rests(system, "two")
    await system.command(type="heartbeat", command_id="nobody")
    await system.command(type="heartbeat", source="risk", timeout_seconds=0.2, command_id="hasty")
    await system.command(type="heartbeat", source="risk", timeout_seconds=2)
    await leaves(system, "one")
    await leaves(system, "two")
    await until(lambda: told(system, EventType.DEADMAN_TRIPPED))
    (event,) = told(system, EventType.DEADMAN_TRIPPED)
    assert (event.strategy_id, event.metadata["scope"], event.metadata["source"]) == (None, "all", "risk")  # type: ignore[index]
    refusals = {event.field for event in system.events("") if event.event_type is EventType.REJECTED}
    assert refusals == {"strategy_id", "timeout_seconds"}
    console = Console(tmp_path, **system.environment)
    assert (await console("resume")).code == 2
    resumed = await console("resume", "--all", "--reason", "seen to")
    assert resumed.code == 0, resumed.err
    await rests(system, "one")
    await rests(system, "two")


async def test_no_stall_of_ours_trips_it(tmp_path: Path) -> None:
    """The replica, its store or Pub/Sub stands still, or the replica is restarted, each for longer than the timeout."""
    store = await EmbeddedRedis.start(tmp_path / "redis")
    try:
        async with (
            await PubSubProcess.start() as pubsub,
            venue(market=STEADY) as alpha,
            System(store.url, pubsub.host, tmp_path, {"alpha": alpha}) as system,
        ):
            replica = await system.replica()
            await system.signal("rests", strategy_id="dead", **REST)
            await rests(system, "rests")
            await beat(system)

            replica.send(signal.SIGSTOP)
            await asyncio.sleep(5)
            replica.send(signal.SIGCONT)
            await beat(system)

            os.kill(store.pid, signal.SIGSTOP)
            await asyncio.sleep(5)
            os.kill(store.pid, signal.SIGCONT)
            await beat(system)

            os.kill(pubsub._process.pid, signal.SIGSTOP)  # its connections stand, and nothing comes
            await asyncio.sleep(6)
            os.kill(pubsub._process.pid, signal.SIGCONT)
            await beat(system)

            assert await replica.stop() == 0
            await asyncio.sleep(4)
            replica = await system.replica()
            await beat(system)

            assert told(system, EventType.DEADMAN_TRIPPED) == []
            assert (await pulses(system))["strategy:dead"].trip is None
            await rests(system, "rests")
            # And silence that is watched does.
            await leaves(system, "rests")
            await until(lambda: told(system, EventType.DEADMAN_TRIPPED))
    finally:
        await store.stop()
