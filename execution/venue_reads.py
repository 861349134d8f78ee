"""Questions to venues that can wait: they go behind orders, and a venue that does not work is spared them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from adapters.base import Adapter, Position, Unavailable, VenueFill, VenueOrder
from execution.circuit import Circuits, Endpoint
from execution.metrics import Metrics
from execution.venue_calls import measured

T = TypeVar("T")


class Reads:
    """Each question is asked once, and raises what the adapter does, or `Unavailable` while the venue is spared."""

    def __init__(self, adapters: Mapping[str, Adapter], circuits: Circuits, metrics: Metrics) -> None:
        self.adapters = adapters
        self._circuits = circuits
        self._metrics = metrics

    async def open_orders(self, venue: str, symbol: str | None = None) -> list[VenueOrder]:
        return await self._ask(venue, "open_orders", lambda: self.adapters[venue].open_orders(symbol))

    async def trades(self, venue: str, symbol: str, since_ms: int) -> AsyncIterator[list[VenueFill]]:
        """Page by page, each asked for when the one before was let go."""
        page = await self._ask(venue, "trades", lambda: self.adapters[venue].fills_since(symbol, since_ms))
        while True:
            yield page.fills
            if page.following is None:
                return
            page = await self._ask(venue, "trades", page.following)

    async def find(self, venue: str, symbol: str, client_id: str, venue_id: str | None) -> VenueOrder | None:
        return await self._ask(venue, "find", lambda: self.adapters[venue].find(symbol, client_id, venue_id))

    async def positions(self, venue: str) -> list[Position]:
        return await self._ask(venue, "positions", self.adapters[venue].positions)

    async def _ask(self, venue: str, kind: str, question: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Ask once.

        Raises:
            Unavailable: nothing was asked, while reads are kept back from the venue. AdapterError: the venue's, or the way's.
        """
        circuit = self._circuits.of(venue, Endpoint.READS)
        if not circuit.admits:
            raise Unavailable(f"{venue} is not asked now: {circuit.reason}")
        with measured(self._metrics, circuit, venue, kind, time.monotonic):
            return await question()
