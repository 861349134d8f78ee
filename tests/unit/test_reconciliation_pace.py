"""How often a venue is looked at: large accounts less often."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from unittest.mock import Mock

import pytest

from execution.metrics import Metrics
from execution.reconcile import Reconciler, VenueReport


@pytest.mark.parametrize(("open_orders", "fills", "intervals"), [(10, 10, 1), (4_000, 6_000, 2), (90_000, 0, 4)])
async def test_large_accounts_are_looked_at_less_often(
    open_orders: int, fills: int, intervals: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []
    reconciler = Reconciler(
        Mock(), Mock(), {"alpha": Mock()}, Metrics(), poll_interval=0.05, reconcile_interval=0.2, cancel_unknown=False
    )

    async def look(venue: str, *, full: bool) -> VenueReport:
        assert full
        looks.append(time.monotonic())
        return VenueReport(venue=venue, instance="a", at=0, open_orders=open_orders, fills=fills)

    monkeypatch.setattr(reconciler, "_look", look)
    reconciler.on_stream("alpha", up=True, reason=None)
    running: asyncio.Task[Any] = asyncio.create_task(reconciler.run("alpha"))
    while len(looks) < 3:
        await asyncio.sleep(0.01)
    running.cancel()
    assert looks[2] - looks[1] >= 0.2 * intervals - 0.02
