"""The store comes back without its last writes, as after a failover to a replica that lagged behind: what was acted upon is not
forgotten, done twice, or left alone."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path

import pytest

from adapters.simulator.market import MarketConfig
from execution.embedded.pubsub.process import PubSubProcess
from execution.embedded.redis_server import EmbeddedRedis
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
        """The server dies, and one takes its place that knows nothing after that moment."""
        assert self._server is not None
        os.kill(self._server.pid, signal.SIGKILL)
        await self._server.wait()
        await self._server.stop()
        shutil.rmtree(self._folder / "appendonlydir")
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
