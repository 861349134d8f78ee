"""The long measurements, for a few seconds each: they run, and what they count adds up. No time is judged here."""

from __future__ import annotations

import pytest

from benchmarks import load, rolling_restart
from benchmarks.rolling_restart import KILL, START_FIRST

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]


async def test_load_with_a_slow_store(capsys: pytest.CaptureFixture[str]) -> None:
    options = load.Options(
        parents=50,
        seconds=3.0,
        rate=10.0,
        replicas=1,
        twap_seconds=2.0,
        grow=100.0,
        slow="store",
        delay=0.01,
        report_seconds=1.0,
        settling=0.5,
    )
    assert await load.measure(options) == 0
    told = capsys.readouterr().out
    assert "nothing lost, nothing doubled" in told
    assert "slices, ms behind their schedule" in told


async def test_rolling_restart() -> None:
    options = rolling_restart.Options(
        replicas=2,
        parents=50,
        rate=10.0,
        restarts=1,
        kills=1,
        shards=4,
        lease_ttl=1.0,
        request_ttl=1.0,
        calm=0.2,
        stops=(START_FIRST,),
    )
    reckoning, figures, table = await rolling_restart.measure(options)
    assert reckoning.problems == []
    assert reckoning.published == reckoning.accepted == reckoning.ended > 50
    for kind in (START_FIRST, KILL):
        assert len(figures[kind].leaseless) >= 2, kind
        assert kind in table
