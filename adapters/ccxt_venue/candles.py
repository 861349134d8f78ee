"""Candles through ccxt: the interval that was asked for, from whichever the exchange has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from adapters.base import Rejected, Unknown
from adapters.ccxt_venue import parsing
from adapters.ccxt_venue.limiter import Lane
from adapters.ccxt_venue.requests import Requests
from schemas.market import Candle

PAGE = 1000
ANSWER_SECONDS = 5.0
"""How long one page is waited for."""
MOST_EMPTY = 10
"""Pages in a row without a candle, after which there are no more."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
"""Months are left out: they are not of one length."""


async def fetch(
    exchange: Any, requests: Requests, symbol: str, *, seconds: int, since_ms: int, limit: int
) -> list[Candle]:
    """See `Adapter.candles`. Starts are multiples of the interval since the epoch; the one that still runs comes as it is.

    Raises:
        Rejected: the exchange has no candles that such intervals could be made of. Whatever a request fails with.
    """
    name, length = timeframe(exchange.timeframes if exchange.has.get("fetchOHLCV") else {}, seconds)
    step, width = length * 1000, seconds * 1000
    first = since_ms if length == seconds else -(-since_ms // width) * width
    parts = seconds // length
    page = _page(exchange, symbol)
    found: dict[int, Candle] = {}
    since, now, empty = first, time.time_ns() // 1_000_000, 0
    while since <= now and empty < MOST_EMPTY:
        wanted = limit * parts - len(found)
        if wanted <= 0:
            break
        asked = min(page, wanted)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                rows = await requests.ask("read", Lane.READ, exchange.fetch_ohlcv(symbol, name, since, asked))
        except TimeoutError:
            raise Unknown(f"no candles within {ANSWER_SECONDS:g} s") from None
        candles = _read(requests, rows)
        fresh = [candle for candle in candles if candle.start >= since]
        found |= {candle.start: candle for candle in fresh}
        # Some exchanges answer for a span of time, which may be empty without being the last.
        empty = 0 if fresh else empty + 1
        since = max((candle.start for candle in fresh), default=since + (asked - 1) * step) + step
    candles = [found[start] for start in sorted(found)]
    return (candles if parts == 1 else merged(candles, width))[:limit]


def timeframe(known: Mapping[str, Any], seconds: int) -> tuple[str, int]:
    """The exchange's name of an interval, and its length: the same, or the longest that divides it.

    Raises:
        Rejected: there is none.
    """
    best: tuple[int, str] | None = None
    for name in known:
        count, unit = str(name)[:-1], str(name)[-1:]
        length = int(count) * _UNITS[unit] if count.isdigit() and unit in _UNITS else 0
        # A week begins on a Monday, and the epoch did not.
        if 0 < length == seconds or (0 < length < seconds and seconds % length == 0 and unit != "w"):
            best = max(best, (length, str(name))) if best is not None else (length, str(name))
    if best is None:
        raise Rejected(f"no candles of {seconds} s, nor any that they could be made of")
    return best[1], best[0]


def merged(candles: Sequence[Candle], width: int) -> list[Candle]:
    """Candles of `width` ms, made of shorter ones in order."""
    found: list[Candle] = []
    for candle in candles:
        start = candle.start // width * width
        last = found[-1] if found else None
        if last is None or last.start != start:
            last = Candle(
                start=start,
                open=candle.open,
                high=candle.high,
                low=candle.low,
                close=candle.close,
                volume=candle.volume,
            )
            found.append(last)
            continue
        found[-1] = Candle(
            start=start,
            open=last.open,
            high=max(last.high, candle.high),
            low=min(last.low, candle.low),
            close=candle.close,
            volume=last.volume + candle.volume,
        )
    return found


def _page(exchange: Any, symbol: str) -> int:
    """How many candles the exchange gives at once, where ccxt knows it."""
    market = exchange.markets.get(symbol) or {}
    most = exchange.feature_value(symbol, "fetchOHLCV", "limit") if market and exchange.features else None
    return min(int(most), PAGE) if isinstance(most, int | str) and str(most).isdigit() and int(most) else PAGE


def _read(requests: Requests, rows: Any) -> list[Candle]:
    if not isinstance(rows, list):
        raise requests.unreadable("is not a list of candles")
    try:
        return [_candle(row) for row in rows]
    except (IndexError, KeyError, ValueError, TypeError, ArithmeticError):
        raise requests.unreadable("is not a list of candles") from None


def _candle(row: Any) -> Candle:
    opened, high, low, close = (parsing.number(value) for value in row[1:5])
    if opened is None or high is None or low is None or close is None:
        raise ValueError(row)
    volume = parsing.number(row[5]) or parsing.ZERO
    return Candle(start=int(row[0]), open=opened, high=high, low=low, close=close, volume=volume)
