"""Candles of what has passed: of history from before, and of trades as they come. Nothing of what is to come is in them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from decimal import Decimal

import msgspec

from schemas.market import Candle, PublicTrade

FINE_SECONDS, FINE_KEPT = 1, 7200
COARSE_SECONDS, COARSE_KEPT = 60, 60 * 24 * 60


class _Bar(msgspec.Struct):
    start: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal

    def candle(self) -> Candle:
        return Candle(
            start=self.start, open=self.open, high=self.high, low=self.low, close=self.close, volume=self.volume
        )


class Tape:
    """Trades of one symbol gathered into bars of a second (the last two hours) and of a minute (the last 60 days)."""

    def __init__(self) -> None:
        self._fine: deque[_Bar] = deque(maxlen=FINE_KEPT)
        self._coarse: deque[_Bar] = deque(maxlen=COARSE_KEPT)

    def __bool__(self) -> bool:
        return bool(self._coarse)

    def add(self, trades: Iterable[PublicTrade]) -> None:
        """Trades that happened, oldest first, none older than those before."""
        for trade in trades:
            _gather(self._fine, FINE_SECONDS, trade)
            _gather(self._coarse, COARSE_SECONDS, trade)

    def bars(self, seconds: int) -> list[Candle]:
        """Bars that intervals of `seconds` can be made of."""
        bars = self._coarse if seconds % COARSE_SECONDS == 0 else self._fine
        return [bar.candle() for bar in bars]


def _gather(bars: deque[_Bar], seconds: int, trade: PublicTrade) -> None:
    start = trade.timestamp - trade.timestamp % (seconds * 1000)
    price = trade.price
    if not bars or bars[-1].start != start:
        bars.append(_Bar(start, price, price, price, price, trade.quantity))
        return
    bar = bars[-1]
    bar.high, bar.low = max(bar.high, price), min(bar.low, price)
    bar.close = price
    bar.volume += trade.quantity


def candles_of(bars: Iterable[Candle], *, seconds: int, since_ms: int, limit: int) -> list[Candle]:
    """Bars in time order, joined to candles of `seconds` that start at or after `since_ms`; at most the first `limit`."""
    joined: list[_Bar] = []
    for bar in bars:
        start = bar.start - bar.start % (seconds * 1000)
        if start < since_ms:
            continue
        if joined and joined[-1].start == start:
            last = joined[-1]
            last.high, last.low = max(last.high, bar.high), min(last.low, bar.low)
            last.close = bar.close
            last.volume += bar.volume
        elif len(joined) == limit:
            break
        else:
            joined.append(_Bar(start, bar.open, bar.high, bar.low, bar.close, bar.volume))
    return [bar.candle() for bar in joined]


def ended(history: Sequence[Candle], seconds: int, before_ms: int) -> list[Candle]:
    """Candles of `seconds` that were over at a time."""
    return [candle for candle in history if candle.start + seconds * 1000 <= before_ms]
