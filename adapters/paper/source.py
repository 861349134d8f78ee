"""What paper trading needs of a market: its data, and no way to order anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from adapters.base import MarketSink
from schemas.market import Candle, MarketRules, OrderBook


class MarketSource(Protocol):
    """The read side of `adapters.base.Adapter`, with the same meanings and errors: every adapter is one, and so is a recording."""

    name: str

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def rules(self, symbol: str) -> MarketRules | None: ...

    def symbols(self) -> Sequence[str]: ...

    async def refresh_rules(self) -> None: ...

    async def order_book(self, symbol: str, depth: int = 20) -> OrderBook: ...

    async def candles(self, symbol: str, *, seconds: int, since_ms: int, limit: int = 1000) -> list[Candle]: ...

    async def run_market(self, symbol: str, sink: MarketSink) -> None:
        """Deliver until cancelled. A recording returns at its end, and then the paper venue's `run_market` does too."""
