"""Candles through ccxt: page by page, digit for digit, and of intervals that a venue lacks."""

from __future__ import annotations

from decimal import Decimal

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.base import Rejected, Unknown
from adapters.ccxt_venue import candles
from schemas.market import Candle
from tests.integration.test_ccxt_adapter_foreign import started
from tests.integration.test_ccxt_market import BTC, market

MINUTE = 60_000


def kline(start: int, *numbers: str) -> str:
    quoted = ",".join(numbers)
    return f'[{start},{quoted},{start + MINUTE - 1},"0",1,"0","0","0"]'


class Klines:
    """Answers as Binance does: at most `page` candles of a minute, from `startTime` on."""

    def __init__(self, rows: dict[int, str], page: int = 3) -> None:
        self._rows = rows
        self._page = page
        self.asked: list[dict[str, str]] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(dict(request.query))
        since, limit = int(request.query["startTime"]), min(int(request.query["limit"]), self._page)
        chosen = [row for start, row in sorted(self._rows.items()) if start >= since][:limit]
        return web.Response(text=f"[{','.join(chosen)}]", content_type="application/json")


async def test_candles_come_page_by_page_and_digit_for_digit() -> None:
    first = 1_700_000_040_000
    starts = [first + n * MINUTE for n in range(8) if n != 4]  # nobody traded in one of them
    exact = ('"60000.12345678901234567890"', "60001.1", '"59999"', "60000.123456789012345678901", '"0.1"')
    klines = Klines({start: kline(start, *exact) for start in starts})
    async with started(GET_klines=klines) as (_, adapter):
        found = await adapter.candles(BTC, seconds=60, since_ms=first, limit=6)
    assert [candle.start for candle in found] == starts[:6]
    assert found[0] == Candle(
        start=first,
        open=Decimal("60000.12345678901234567890"),
        high=Decimal("60001.1"),
        low=Decimal(59999),
        close=Decimal("60000.123456789012345678901"),
        volume=Decimal("0.1"),
    )
    assert [(one["interval"], one["startTime"]) for one in klines.asked] == [
        ("1m", str(first)),
        ("1m", str(first + 3 * MINUTE)),
    ]


async def test_an_interval_that_the_venue_lacks_is_made_of_shorter_ones() -> None:
    first = 1_700_000_400_000  # a multiple of ten minutes
    rows = {}
    for n in range(10):
        start = first + n * 5 * MINUTE
        numbers = (str(100 + n), str(110 + n), str(90 + n), str(101 + n), "0.5")
        rows[start] = kline(start, *(f'"{number}"' for number in numbers))
    klines = Klines(rows, page=1000)
    async with started(GET_klines=klines) as (_, adapter):
        found = await adapter.candles(BTC, seconds=600, since_ms=first + 1, limit=3)
        assert {one["interval"] for one in klines.asked} == {"5m"}
        with pytest.raises(Rejected):
            await adapter.candles(BTC, seconds=0, since_ms=first)
        with pytest.raises(Rejected):
            await adapter.candles("NO/SUCH", seconds=60, since_ms=first)
    assert [candle.start for candle in found] == [first + n * 10 * MINUTE for n in (1, 2, 3)]
    assert found[0] == Candle(
        start=first + 10 * MINUTE,
        open=Decimal(102),
        high=Decimal(113),
        low=Decimal(92),
        close=Decimal(104),
        volume=Decimal("1.0"),
    )


@pytest.mark.parametrize("text", ["[[1,2]]", '[[1,"x","1","1","1","1",2]]'])
async def test_what_is_no_candle_is_no_answer(text: str) -> None:
    async with started(GET_klines=text) as (_, adapter):
        with pytest.raises(Unknown):
            await adapter.candles(BTC, seconds=60, since_ms=0, limit=1)


async def test_candles_of_the_local_venue() -> None:
    async with market() as scene:
        await scene.quote("49999", "50001")
        for quantity in ("0.25", "0.5"):
            await scene.control.trade("BTCUSDT", "BUY", quantity)
        found = await scene.adapter.candles(BTC, seconds=1, since_ms=scene.venue.now() - 60_000)
    assert sum(candle.volume for candle in found) == Decimal("0.75")
    assert {candle.close for candle in found} == {Decimal(50001)}


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 200), unique=True, min_size=1), st.integers(1, 12))
def test_merging_loses_no_volume_and_keeps_the_extremes(minutes: list[int], parts: int) -> None:
    short = [
        Candle(
            start=n * MINUTE,
            open=Decimal(n),
            high=Decimal(n + 3),
            low=Decimal(n - 3),
            close=Decimal(n + 1),
            volume=Decimal(n) / 8,
        )
        for n in sorted(minutes)
    ]
    merged = candles.merged(short, parts * MINUTE)
    assert sum(candle.volume for candle in merged) == sum(candle.volume for candle in short)
    assert max(candle.high for candle in merged) == max(candle.high for candle in short)
    assert min(candle.low for candle in merged) == min(candle.low for candle in short)
    assert (merged[0].open, merged[-1].close) == (short[0].open, short[-1].close)
    starts = [candle.start for candle in merged]
    assert starts == sorted(set(starts))
    assert all(start % (parts * MINUTE) == 0 for start in starts)


def test_the_longest_interval_that_divides_is_taken() -> None:
    known = {"1s": "", "1m": "", "5m": "", "1h": "", "1d": "", "1w": "", "1M": "", "tick": ""}
    for seconds, expected in ((60, "1m"), (600, "5m"), (7200, "1h"), (90, "1s"), (604_800, "1w"), (1_209_600, "1d")):
        assert candles.timeframe(known, seconds)[0] == expected
    with pytest.raises(Rejected):
        candles.timeframe({"5m": ""}, 60)
    assert candles.timeframe({"5m": ""}, 900) == ("5m", 300)
