"""A market that follows a recorded tape: its prices, its sizes, its takers.

The layout of a recording is CSV: `ts_ms,price,quantity,side`, oldest first, a heading line allowed; `side` is the taker's, `buy` or
`sell`. Around each trade the quotes stand so that the recorded taker trades at the recorded price. Whoever rests in front of them at
that price or better is filled first, and the tape then shows the recorded size in parts. Prices and sizes are put on the symbol's tick
and lot.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

import msgspec

from adapters.simulator.engine import Engine, Market
from adapters.simulator.quotes import Quotes, on_step


class RecordedTrade(msgspec.Struct, frozen=True, array_like=True):
    """One line of a recording; `side` is the taker's."""

    ts_ms: int
    price: Decimal
    quantity: Decimal
    side: str


def read_recording(path: Path) -> list[RecordedTrade]:
    """The trades of a file.

    Raises:
        ValueError: a line that is none, with its number.
        OSError: the file cannot be read.
    """
    with path.open(newline="") as file:
        return list(_trades(csv.reader(file), str(path)))


def _trades(lines: Iterable[Sequence[str]], name: str) -> Iterator[RecordedTrade]:
    last = 0
    for number, line in enumerate(lines, 1):
        if not line or (number == 1 and not line[0].strip().isdigit()):
            continue
        try:
            at, price, quantity, side = (field.strip() for field in line)
            trade = RecordedTrade(int(at), Decimal(price), Decimal(quantity), side.upper())
        except (ValueError, InvalidOperation):
            raise ValueError(
                f"{name}, line {number}: expected ts_ms,price,quantity,side, not {','.join(line)}"
            ) from None
        if trade.side not in ("BUY", "SELL") or trade.price <= 0 or trade.quantity <= 0 or trade.ts_ms < last:
            raise ValueError(f"{name}, line {number}: a side, number or time that cannot be: {','.join(line)}")
        last = trade.ts_ms
        yield trade


class ReplayConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How the recording's quotes look; `speed` is seconds of the recording per second of the clock."""

    speed: float = 1.0
    spread_bps: float = 2.0
    levels: int = 10
    level_value: float = 100_000.0


class Replay:
    """A recorded tape on one symbol, in its own time: seconds since its first trade."""

    def __init__(self, engine: Engine, market: Market, trades: Sequence[RecordedTrade], config: ReplayConfig) -> None:
        self._engine = engine
        self._market = market
        self._trades = trades
        self._config = config
        self._quotes = Quotes(engine, market)
        self._at = 0
        self.paused = False

    @property
    def done(self) -> int:
        """How many of the trades have been made."""
        return self._at

    @property
    def finished(self) -> bool:
        return self._at >= len(self._trades)

    @property
    def due(self) -> float:
        """When the next trade comes; raises IndexError when there is none."""
        return (self._trades[self._at].ts_ms - self._trades[0].ts_ms) / 1000

    def happen(self) -> None:
        """The next recorded trade."""
        trade = self._trades[self._at]
        self._at += 1
        maker = "SELL" if trade.side == "BUY" else "BUY"
        spec = self._market.spec
        price = max(on_step(float(trade.price), spec.tick), spec.tick)
        quantity = max(on_step(float(trade.quantity), spec.lot), spec.min_quantity)
        trade = RecordedTrade(trade.ts_ms, price, quantity, trade.side)
        if self._at == 1:  # far from where the symbol began, quotes would be outside its price band
            self._market.last = trade.price
        with self._engine.together(self._market):
            self._quote(maker, trade)
            self._quotes.take(trade.side, trade.quantity, trade.price)

    def stop(self) -> None:
        """Take the quotes off."""
        self._quotes.drop_all()

    def _quote(self, maker: str, trade: RecordedTrade) -> None:
        spec, config = self._market.spec, self._config
        gap = max(on_step(float(trade.price) * config.spread_bps / 20_000, spec.tick), spec.tick)
        out = 1 if maker == "SELL" else -1
        self._ladder(maker, trade.price, out * gap, beyond=(len(self._quotes.prices(maker)) == 0))
        other = trade.price - 2 * out * gap
        best = next(iter(self._quotes.prices(trade.side)), None)
        if best is None or (best - trade.price) * out >= 0 or (other - best) * out > 0:
            self._ladder(trade.side, other, -out * gap, beyond=True)
        self._stock(maker, trade)

    def _ladder(self, side: str, touch: Decimal, gap: Decimal, *, beyond: bool) -> None:
        """Nothing of ours before the touch, nothing far behind it, and enough levels in between."""
        levels = self._config.levels
        for price in self._quotes.prices(side):
            if (price - touch) / gap < 0 or (price - touch) / gap > 2 * levels:
                self._quotes.drop(side, price)
        have = self._quotes.prices(side)
        if beyond and touch not in have:
            self._put(side, touch)
            have = [touch, *have]
        price = have[-1] if have else touch
        while len(have) < levels and price + gap > 0:
            price += gap
            self._put(side, price)
            have.append(price)

    def _put(self, side: str, price: Decimal) -> None:
        if price > 0:
            self._quotes.place(side, price, on_step(self._config.level_value / float(price), self._market.spec.lot))

    def _stock(self, maker: str, trade: RecordedTrade) -> None:
        """Have enough at the trade's price, and, where nobody else waits there, in one order, so that the tape shows one trade."""
        book = self._market.book
        side = book.asks if maker == "SELL" else book.bids
        others = any(not order.account.unlimited for order in side.at(trade.price))
        resting = self._quotes.rest(maker, trade.price)
        if not others:
            first = next(side.at(trade.price), None)
            if first is not None and first.rest >= trade.quantity:
                return
            self._quotes.drop(maker, trade.price)
            resting = Decimal(0)
        full = on_step(self._config.level_value / float(trade.price), self._market.spec.lot)
        if resting < trade.quantity:
            self._quotes.place(maker, trade.price, max(full, trade.quantity - resting))
