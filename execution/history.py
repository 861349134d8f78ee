"""The candles that algorithms plan with, fetched once and shared for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

import structlog

from adapters.base import Adapter
from algorithms.base import Lookback
from schemas.market import Candle

log = structlog.get_logger(__name__)

FRESH_SECONDS = 600.0
PATIENCE = 5.0
"""Seconds that acceptance waits for a venue's history; without it, algorithms fall back and say so."""


class Histories:
    def __init__(
        self, adapters: Mapping[str, Adapter], *, now: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    ) -> None:
        """`now`: ms since the epoch."""
        self._adapters = adapters
        self._now = now
        self._known: dict[tuple[str, str, Lookback], tuple[float, asyncio.Task[Sequence[Candle]]]] = {}

    async def candles(self, venue: str, symbol: str, lookback: Lookback) -> Sequence[Candle]:
        """The candles before now, oldest first; empty when the venue does not tell them in time."""
        key = (venue, symbol, lookback)
        now = asyncio.get_running_loop().time()
        known = self._known.get(key)
        if known is None or now - known[0] > FRESH_SECONDS or (known[1].done() and not known[1].result()):
            known = self._known[key] = (now, asyncio.create_task(self._fetch(venue, symbol, lookback)))
        try:
            # Counted from when it was asked: a venue that does not answer keeps the signals of one symbol once, not each.
            return await asyncio.wait_for(asyncio.shield(known[1]), max(known[0] + PATIENCE - now, 0.001))
        except TimeoutError:
            log.warning("no history in time", venue=venue, symbol=symbol, seconds=PATIENCE)
            return ()

    async def _fetch(self, venue: str, symbol: str, lookback: Lookback) -> Sequence[Candle]:
        since = self._now() - lookback.back * 1000
        try:
            return await self._adapters[venue].candles(
                symbol, seconds=lookback.interval, since_ms=since, limit=lookback.back // lookback.interval + 1
            )
        except Exception as error:  # noqa: BLE001 - whatever it was, there is no history, and signals go on without
            log.warning("no history", venue=venue, symbol=symbol, error=str(error))
            return ()
