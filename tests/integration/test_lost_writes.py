"""The store comes back without its last writes, as after a failover to a replica that lagged behind: what was acted upon is not
forgotten, done twice, or left alone."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from adapters.simulator.market import MarketConfig
from execution.embedded.pubsub.process import PubSubProcess
from execution.embedded.redis_server import EmbeddedRedis
from execution.ledger import LedgerReader, LoadedOrder
from tests.replica import until
from tests.system import System, venue

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]

STEADY = MarketConfig(volatility=0.0, trades=0.0, permanent_impact=0.0, impact_half_life=0.2)
FAR = 40_000
"""Where a bid rests, below quotes around 50 000."""


class Forgetful:
    """A store whose data can be put back to an earlier moment."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._kept = folder / "store", folder / "kept"
        self._server: EmbeddedRedis | None = None

    async def start(self) -> str:
        self._server = await EmbeddedRedis.start(self._folder)
        return self._server.url

    def remember(self) -> None:
        """This moment is the one to go back to."""
        shutil.copytree(self._folder / "appendonlydir", self._kept)

    async def fail_over(self, *, meanwhile: Callable[[], Awaitable[object]] | None = None) -> None:
        """The server dies, and one takes its place that knows nothing after that moment; nothing at all where none was remembered."""
        assert self._server is not None
        os.kill(self._server.pid, signal.SIGKILL)
        await self._server.wait()
        await self._server.stop()
        shutil.rmtree(self._folder / "appendonlydir")
        if self._kept.exists():
            shutil.move(self._kept, self._folder / "appendonlydir")
        if meanwhile is not None:
            await meanwhile()
        await self.start()

    async def stop(self) -> None:
        assert self._server is not None
        await self._server.stop()


async def test_who_wrote_it_writes_it_again(tmp_path: Path) -> None:
    """The replica lives: orders accepted, placed, filled and canceled in what was lost are as if nothing had been lost."""
    store = Forgetful(tmp_path)
    async with (
        await PubSubProcess.start() as pubsub,
        venue(market=STEADY) as alpha,
        System(await store.start(), pubsub.host, tmp_path, {"alpha": alpha}) as system,
    ):
        replica = await system.replica()
        await system.signal("early", price=FAR)
        await system.told("early", "working")
        params = {"duration_seconds": 12, "slices": 24, "style": "aggressive"}
        await system.signal("sliced", quantity=Decimal("0.24"), algorithm="twap", algorithm_params=params)
        await until(lambda: any(event.filled_quantity for event in system.events("sliced")))
        store.remember()
        await system.signal("late", price=FAR)
        await system.told("late", "working")
        await system.signal("done")
        await system.told("done", "filled")
        await system.command(type="order.cancel", signal_id="early")
        await system.told("early", "canceled")
        filled = max(event.filled_quantity for event in system.events("sliced"))
        await until(lambda: max(event.filled_quantity for event in system.events("sliced")) > filled)
        told = {name: len(system.events(name)) for name in ("early", "late", "done")}

        await store.fail_over()

        await system.told("sliced", "filled", 60)
        await system.command(type="order.cancel", signal_id="late")
        await system.told("late", "canceled")
        await system.agrees()
        assert told == {"early": len(system.events("early")), "late": told["late"], "done": len(system.events("done"))}
        assert 'execution_store_writes_restored_total{outcome="written"}' in await replica.metrics()
        assert 'execution_store_writes_restored_total{outcome="refused"}' not in await replica.metrics()
    await store.stop()


async def test_the_store_forgets_and_the_writer_is_dead(tmp_path: Path) -> None:
    """Nobody is left who knows what was sent: the next owner asks the venue. No slice is sent twice, what an order had sent is its
    own again, and what is left of a signal that is gone is taken off."""
    store = Forgetful(tmp_path)
    async with (
        await PubSubProcess.start() as pubsub,
        venue(market=STEADY) as alpha,
        System(await store.start(), pubsub.host, tmp_path, {"alpha": alpha}) as system,
    ):
        writer = await system.replica()
        params = {"duration_seconds": 16, "slices": 16, "style": "aggressive"}
        await system.signal("sliced", quantity=Decimal("0.16"), algorithm="twap", algorithm_params=params)
        await system.signal("rests", price=FAR)
        await system.told("rests", "working")
        await until(lambda: _filled(system, "sliced") >= Decimal("0.03"))
        store.remember()
        await system.signal("gone", price=FAR)
        await system.told("gone", "working")
        known = _filled(system, "sliced")
        await until(lambda: _filled(system, "sliced") >= known + Decimal("0.03"))

        async def die() -> None:
            writer.kill()
            await writer.ended()

        sent = set(await system.creates("sliced"))
        await store.fail_over(meanwhile=die)
        second = await system.replica()

        await system.told("sliced", "filled", 60)
        orders = await _orders(system)
        creates = await system.creates("sliced")
        assert sent < set(creates), "it went on"
        assert len(creates) == len(set(creates)), "nothing was sent twice"
        record = await system.order("sliced")
        traded = {name: Decimal(order["executedQty"]) for name, order in orders.items() if name in creates}
        assert sum(traded.values()) == record.parent.quantity == Decimal("0.16")
        assert {child.child_id: child.filled for child in record.children if child.filled} == traded

        def closed(found: dict[str, dict[str, Any]]) -> bool:
            return all(order["status"] == "CANCELED" for name, order in found.items() if name in gone)

        gone = await system.creates("gone")
        assert len(gone) == 1
        while not closed(await _orders(system)):
            await asyncio.sleep(0.2)
        (resting,) = await system.creates("rests")
        assert (await _orders(system))[resting]["status"] == "NEW", "what the ledger knows is left alone"
        await system.command(type="order.cancel", signal_id="rests")
        await until(lambda: system.events("rests")[-1].status == "canceled")
        told = await second.metrics()
        assert 'execution_reconciliation_repairs_total{kind="adopted",venue="alpha"}' in told
        assert 'execution_internal_errors_total{part="search"}' not in told
    await store.stop()


async def test_the_store_forgets_everything_and_a_signal_comes_again(tmp_path: Path) -> None:
    """A store without a disk, a host that restarts: a signal that Pub/Sub brings again is not carried out again, though its child
    order has filled and the venue would take another under the same id; what rests for a signal that is gone is taken off."""
    store = Forgetful(tmp_path)
    async with (
        await PubSubProcess.start() as pubsub,
        venue(market=STEADY) as alpha,
        System(await store.start(), pubsub.host, tmp_path, {"alpha": alpha}) as system,
    ):
        writer = await system.replica()
        await system.signal("done")
        await system.told("done", "filled")
        await system.signal("rests", price=FAR)
        await system.signal("gone", price=FAR)
        await system.told("rests", "working")
        await system.told("gone", "working")

        async def die() -> None:
            writer.kill()
            await writer.ended()
            await system.signal("done")
            await system.signal("rests", price=FAR)

        await store.fail_over(meanwhile=die)
        await system.replica()
        [filled] = await system.creates("done")
        [resting] = await system.creates("rests")
        [gone] = await system.creates("gone")
        while (await _orders(system))[gone]["status"] != "CANCELED":
            await asyncio.sleep(0.2)
        for name, child_id, status in (("done", filled, "filled"), ("rests", resting, "working")):
            record = await _stands(system, name, status)
            assert [child.child_id for child in record.children] == [child_id]
            assert await system.creates(name) == [child_id], "nothing was sent again"
        assert (await _orders(system))[resting]["status"] == "NEW"
    await store.stop()


async def _stands(system: System, signal_id: str, status: str) -> LoadedOrder:
    """An order of the ledger, once it stands so."""
    reader = LedgerReader(system.store)
    await reader.open()
    while True:
        record = await reader.order(signal_id)
        if isinstance(record, LoadedOrder) and record.parent.status == status:
            return record
        await asyncio.sleep(0.2)


def _filled(system: System, signal_id: str) -> Decimal:
    return max((event.filled_quantity for event in system.events(signal_id)), default=Decimal(0))


async def _orders(system: System) -> dict[str, dict[str, Any]]:
    """What the venue took, by client order id."""
    record = await system.control().record()
    return {order["clientOrderId"]: order for order in record["orders"]}
