"""One symbol's market data, for the matcher and for whoever else listens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

import structlog

from adapters.base import MarketSink, VenueFill
from adapters.paper.matching import Change, Matcher
from adapters.paper.source import MarketSource
from schemas.market import OrderBook, PublicTrade

log = structlog.get_logger(__name__)

RETRY = 1.0
"""Seconds until a source that failed is asked again."""


class Feed:
    """The only subscription of a symbol; runs until it is closed, or a recording ends. A `MarketSink` of the source."""

    def __init__(
        self,
        venue: str,
        source: MarketSource,
        matcher: Matcher,
        now: Callable[[], int],
        publish: Callable[[Sequence[Change]], None],
    ) -> None:
        self.matcher = matcher
        self.has_book = asyncio.Event()
        self._venue = venue
        self._source = source
        self._now = now
        self._publish = publish
        self._sinks: tuple[MarketSink, ...] = ()
        self._up = False
        symbol = matcher.rules.symbol
        self._task = asyncio.get_running_loop().create_task(self._run(symbol), name=f"market of {symbol} at {venue}")

    async def deliver(self, symbol: str, sink: MarketSink) -> None:
        """Deliver to one more sink until cancelled, or the feed ends. It is told at once what is known."""
        self._sinks = (*self._sinks, sink)
        try:
            if self._up:
                sink.on_market(self._venue, symbol, up=True, reason=None)
            if self.matcher.book is not None:
                sink.on_book(self._venue, self.matcher.book)
            await asyncio.wait([self._task])
        finally:
            self._sinks = tuple(other for other in self._sinks if other is not sink)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self, symbol: str) -> None:
        while True:
            try:
                await self._source.run_market(symbol, self)
            except Exception as error:
                log.exception("market data failed", venue=self._venue, symbol=symbol)
                self.on_market(self._venue, symbol, up=False, reason=str(error))
                await asyncio.sleep(RETRY)
            else:
                return

    # --- the source's sink: the matcher first, then the others -------------------------------------------------------

    def on_book(self, venue: str, book: OrderBook) -> None:
        changes = self.matcher.on_book(book, self._now())
        if changes:
            self._publish(changes)
            self.print_taken(fill for _, fill in changes if fill is not None)
        if not self.has_book.is_set():
            self.has_book.set()
        for sink in self._sinks:
            sink.on_book(self._venue, book)

    def on_trades(self, venue: str, symbol: str, trades: Sequence[PublicTrade]) -> None:
        changes = self.matcher.on_trades(trades, self._now())
        if changes:
            self._publish(changes)
        for sink in self._sinks:
            sink.on_trades(self._venue, symbol, trades)
        if changes:
            self.print_taken(fill for _, fill in changes if fill is not None)

    def print_taken(self, fills: Iterable[VenueFill]) -> None:
        """Show on the tape what orders of ours took, as a venue does; as makers they stand in others' trades already."""
        trades = [
            PublicTrade(
                trade_id=fill.trade_id,
                price=fill.price,
                quantity=fill.quantity,
                timestamp=fill.timestamp,
                side=fill.side,
            )
            for fill in fills
            if fill.maker is False
        ]
        if trades and self._up:
            for sink in self._sinks:
                sink.on_trades(self._venue, self.matcher.rules.symbol, trades)

    def on_market(self, venue: str, symbol: str, *, up: bool, reason: str | None) -> None:
        self._up = up
        if not up:
            self.matcher.void()
            self.has_book.clear()
        for sink in self._sinks:
            sink.on_market(self._venue, symbol, up=up, reason=reason)
