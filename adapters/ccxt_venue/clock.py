"""How far the venue's clock and ours are apart."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import structlog

from adapters.base import AdapterError, AdapterHealth, ClockSkew, NotReady, NotReadyYet, Unavailable
from adapters.ccxt_venue.limiter import Lane, Limiter
from adapters.ccxt_venue.requests import Requests

log = structlog.get_logger(__name__)

EVERY_SECONDS = 60.0
PROBES = 3
"""Questions per measurement; the one that was answered fastest says most."""


class Clock:
    """Measures the venue's clock, and has requests signed by it. `bound`: ms that may lie between the clocks."""

    def __init__(
        self, name: str, exchange: Any, requests: Requests, limiter: Limiter, health: AdapterHealth, bound: int
    ) -> None:
        self._name = name
        self._exchange = exchange
        self._requests = requests
        self._limiter = limiter
        self._health = health
        self._bound = bound
        self._again = asyncio.Event()
        requests.on_clock_skew = self._again.set

    async def first(self) -> None:
        """Measure before trading.

        Raises:
            NotReady: the clocks are too far apart. NotReadyYet: the venue cannot be reached.
        """
        try:
            await self._measure()
        except Unavailable as error:
            raise NotReadyYet(f"it cannot be reached: {error}") from error
        except AdapterError as error:
            log.warning("the venue does not tell its time", venue=self._name, error=str(error))
        if self._off():
            raise NotReady(f"{self._difference()}; synchronise the machine's clock (NTP), or raise CLOCK_BOUND_MS")

    def check(self) -> None:
        """Raises: ClockSkew: no new orders while the clocks are this far apart."""
        if self._off():
            raise ClockSkew(self._difference())

    def ahead(self) -> float:
        """The venue's clock minus ours, in ms."""
        return self._health.clock_offset_ms or 0.0

    async def watch(self) -> None:
        """Measure again and again: on an interval, and when the venue has refused our time."""
        while True:
            try:
                async with asyncio.timeout(EVERY_SECONDS):
                    await self._again.wait()
                await asyncio.sleep(0.1)
            except TimeoutError:
                pass
            self._again.clear()
            was = self._off()
            try:
                await self._measure()
            except AdapterError as error:
                log.warning("the venue's clock could not be read", venue=self._name, error=str(error))
            if self._off() != was:
                log.warning("the clocks", venue=self._name, too_far_apart=self._off(), offset_ms=round(self.ahead()))

    async def _measure(self) -> None:
        exchange = self._exchange
        if not exchange.has.get("fetchTime"):
            return
        best: tuple[float, float] | None = None
        for _ in range(PROBES):
            before = time.time()
            told = await self._requests.ask("read", Lane.URGENT, exchange.fetch_time())
            after = time.time()
            if told is None:
                raise self._requests.unreadable("holds no time")
            probe = (after - before, float(told) - (before + after) * 500)
            best = min(best, probe) if best is not None else probe
        if best is not None:
            self._health.clock_offset_ms = best[1]
            self._limiter.skew_ms = round(best[1])
            exchange.options["timeDifference"] = -round(best[1])

    def _off(self) -> bool:
        return abs(self.ahead()) > self._bound

    def _difference(self) -> str:
        offset = self.ahead()
        side = "behind" if offset > 0 else "ahead of"
        return f"our clock is {abs(offset):.0f} ms {side} the venue's, and {self._bound} ms are allowed"
