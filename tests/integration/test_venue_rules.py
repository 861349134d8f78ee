"""A venue changes by what it trades while orders are worked: they go on by the new rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from unittest.mock import Mock

import pytest

from adapters.base import AdapterError, Unavailable
from adapters.ccxt_venue import CcxtAdapter, parse_endpoints
from adapters.simulator.control import VenueControl
from adapters.simulator.market import MarketConfig
from adapters.simulator.process import VenueProcess
from execution import venue_rules
from execution.embedded.pubsub.process import PubSubProcess
from execution.embedded.redis_server import EmbeddedRedis
from execution.venue_rules import VenueRules
from tests.replica import until
from tests.scripted_venue import ScriptedVenue
from tests.system import System, venue

BTC = "BTC/USDT"
STEADY = MarketConfig(volatility=0.0, trades=0.0, permanent_impact=0.0, impact_half_life=0.2)


@pytest.mark.process
@pytest.mark.timeout(120)
async def test_a_schedule_goes_on_by_a_larger_lot(tmp_path: Path) -> None:
    async with (
        await EmbeddedRedis.start(tmp_path / "store") as redis,
        await PubSubProcess.start() as pubsub,
        venue(market=STEADY) as alpha,
        System(redis.url, pubsub.host, tmp_path, {"alpha": alpha}) as system,
    ):
        await system.replica()
        params = {"duration_seconds": 15, "slices": 15, "style": "aggressive"}
        await system.signal("sliced", quantity=Decimal("0.1515"), algorithm="twap", algorithm_params=params)
        await until(lambda: any(event.filled_quantity for event in system.events("sliced")))
        await system.control().rules("BTCUSDT", lot="0.001", min_quantity="0.001")
        await system.told("sliced", "filled", 60)
        record = await system.order("sliced")
        refused = [child for child in record.children if child.state == "rejected"]
        assert refused, "what was decided by the old rules is refused"
        assert all("LOT_SIZE" in (child.reason or "") for child in refused)
        later = [child for child in record.children if child.number > refused[-1].number]
        assert later
        assert all(child.quantity % Decimal("0.001") == 0 for child in later)
        traded = sum(fill.quantity for fill in record.fills)
        assert Decimal("0.1505") < traded <= Decimal("0.1515"), "less than a lot is left"
        await system.agrees()


@pytest.fixture
async def place() -> AsyncIterator[VenueProcess]:
    async with venue(market=STEADY) as started:
        yield started


@pytest.mark.process
async def test_rules_are_read_again_and_stay_where_they_cannot_be(place: VenueProcess) -> None:
    [endpoint] = parse_endpoints(f"alpha=binance@{place.url}")
    adapter = CcxtAdapter(endpoint, {"apiKey": "local", "secret": "local-secret"})
    await adapter.start()
    try:
        before = adapter.rules(BTC)
        assert before is not None
        async with VenueControl(place.url) as control:
            await control.rules("BTCUSDT", tick="0.5")
            await adapter.refresh_rules()
            after = adapter.rules(BTC)
            assert after is not None
            assert (before.tick, after.tick) == (Decimal("0.01"), Decimal("0.5"))
            assert (after.maker_fee, after.taker_fee) == (before.maker_fee, before.taker_fee), "the account's own"
            await control.halt("BTCUSDT")
            await adapter.refresh_rules()
            halted = adapter.rules(BTC)
            assert halted is not None
            assert not halted.active
        place.kill()
        with pytest.raises(AdapterError):
            await adapter.refresh_rules()
        assert adapter.rules(BTC) == halted
    finally:
        await adapter.close()


async def test_refusals_have_them_read_but_not_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(venue_rules, "LEAST_INTERVAL", 0.3)
    alpha, reads = ScriptedVenue(), Mock()

    async def read() -> None:
        reads()
        if reads.call_count == 1:
            raise Unavailable("not now")

    monkeypatch.setattr(alpha, "refresh_rules", read)
    watched = VenueRules({"alpha": alpha}, lambda: ())
    running = asyncio.create_task(watched.run("alpha"))
    await asyncio.sleep(0.1)
    assert reads.call_count == 0
    for _ in range(5):
        watched.doubt("alpha")
        await asyncio.sleep(0.02)
    assert reads.call_count == 1
    await until(lambda: reads.call_count == 2)
    running.cancel()
