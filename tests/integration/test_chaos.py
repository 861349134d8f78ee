"""Everything at once: faults at the venue at random, a replica killed, the store restarted. Then everybody's record must agree."""

from __future__ import annotations

import random
from decimal import Decimal
from pathlib import Path

import pytest

from execution.embedded.redis_server import EmbeddedRedis
from tests.replica import until
from tests.system import System, venue

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]

ORDERS = 80
FAULTS = (
    {"kind": "lose_answer", "method": "POST", "path": "/api/v3/order"},
    {"kind": "lose_request", "method": "POST", "path": "/api/v3/order"},
    {"kind": "http_error", "status": 503, "when": "after", "path": "/api/v3/order"},
    {"kind": "broken_body", "path": "/api/v3/order"},
    {"kind": "latency", "seconds": 0.05, "jitter": 0.3},
    {"kind": "drop_event"},
    {"kind": "duplicate_event"},
    {"kind": "reorder_event"},
)


@pytest.mark.parametrize("seed", [1, 2])
async def test_everything_goes_wrong_and_nothing_is_lost(embedded_pubsub: str, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    store = await EmbeddedRedis.start(tmp_path / "store")
    async with venue() as alpha, System(store.url, embedded_pubsub, tmp_path, {"alpha": alpha}) as system:
        await system.liquidity()
        control = system.control()
        first = await system.replica()
        await system.replica()
        faults = [await control.fault(**fault, count=None, probability=0.08) for fault in FAULTS]
        for number in range(ORDERS):
            resting = chance.random() < 0.4
            await system.signal(
                f"c{number}",
                side=chance.choice(("buy", "sell")),
                quantity=Decimal(chance.randint(1, 400)) / 1000,
                price=chance.choice((49_900, 50_100)) if resting else None,
            )
            if number % 7 == 3:
                await system.command(type="order.cancel", signal_id=f"c{chance.randrange(number)}")
            if number % 11 == 5:
                await system.command(type="order.amend", signal_id=f"c{chance.randrange(number)}", price=50_000)
            if number == ORDERS // 3:
                first.kill()
                await first.ended()
            if number == ORDERS // 2:
                await store.stop()
                store = await EmbeddedRedis.start(tmp_path / "store")
                await system.replica(wait=False)
        for fault in faults:
            await control.clear(fault.id)
        await until(lambda: len(system.watch.by_signal) >= ORDERS, 60)
        for number in range(ORDERS):
            await system.command(type="order.cancel", signal_id=f"c{number}", reason="the end")
        await system.agrees(90)
        record = await control.record()
        ids = [order["clientOrderId"] for order in record["orders"]]
        assert len(ids) == len(set(ids)), "a client order id was used twice"
    await store.stop()
