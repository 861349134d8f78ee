"""Candles of one symbol: from its tape since the venue began, and a made-up history before.

The history is a function of the seed, the symbol and the minute: each UTC day draws its own returns and volumes, and prices are
chained backwards from where the market starts. It is made a day at a time, when somebody asks.
"""

from __future__ import annotations

import functools
import math
import random
from bisect import bisect_left
from collections.abc import Iterator
from decimal import Decimal

import msgspec

from adapters.simulator.orders import PublicTrade
from adapters.simulator.symbols import SymbolSpec

ZERO = Decimal(0)
MINUTE = 60_000
DAY_MINUTES = 1440
_DAY = DAY_MINUTES * MINUTE
_YEAR_MINUTES = 365 * DAY_MINUTES
_WEEKEND = 0.6
_NOISE = 0.5
"""Standard deviation of the logarithm of a minute's volume around its mean."""


class Candle(msgspec.Struct):
    """What was traded from `start` (ms) for one interval: base and quote volume, and the takers' buys of both."""

    start: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal = ZERO
    value: Decimal = ZERO
    trades: int = 0
    bought: Decimal = ZERO
    bought_value: Decimal = ZERO
    first_id: int = -1
    last_id: int = -1

    def add(self, other: Candle) -> None:
        """Take in a later candle."""
        self.high, self.low, self.close = max(self.high, other.high), min(self.low, other.low), other.close
        self.volume += other.volume
        self.value += other.value
        self.trades += other.trades
        self.bought += other.bought
        self.bought_value += other.bought_value
        self.first_id = other.first_id if self.first_id < 0 else self.first_id
        self.last_id = max(self.last_id, other.last_id)


class HistoryConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How the time before the venue's start is made up. `volatility` per year, `daily_value` in the quote asset."""

    days: int = 30
    seed: int = 1
    volatility: float = 0.6
    daily_value: float = 864_000_000.0


def volume_curve(minute_of_day: float) -> float:
    """How busy a minute of the UTC day is; 1 on average over the day.

    Three bells on a flat ground: the mornings of Asia (01:00) and Europe (08:00), and New York (14:30), the busiest.
    """
    hour = minute_of_day / 60
    bells = ((1.0, 1.5, 0.5), (8.0, 2.0, 0.7), (14.5, 2.0, 1.8))
    rise = sum(height * math.exp(-(((_away(hour, at)) / width) ** 2)) for at, width, height in bells)
    mean = 0.5 + sum(height * width * math.sqrt(math.pi) / 24 for _, width, height in bells)
    return (0.5 + rise) / mean


@functools.cache
def _curve() -> tuple[float, ...]:
    return tuple(volume_curve(minute) for minute in range(DAY_MINUTES))


def _away(hour: float, other: float) -> float:
    """Hours between two times of day, the short way round."""
    return (hour - other + 12) % 24 - 12


class Candles:
    """Minutes since the venue began, and before."""

    def __init__(self) -> None:
        self._minutes: list[Candle] = []
        """Those with trades, oldest first."""
        self._history: History | None = None
        self._began = 0
        self._open = ZERO

    def begin(self, spec: SymbolSpec, now: int, history: HistoryConfig | None) -> None:
        """Say when the venue began, and what was before."""
        self._began, self._open = now // MINUTE * MINUTE, spec.price
        if history is not None and history.days:
            self._history = History(spec, history, self._began)

    def add(self, trade: PublicTrade) -> None:
        one = _of(trade, trade.time // MINUTE * MINUTE)
        if self._minutes and self._minutes[-1].start >= one.start:
            self._minutes[-1].add(one)
        else:
            self._minutes.append(one)

    def rows(self, step: int, now: int, *, since: int | None, until: int | None, limit: int) -> list[Candle]:
        """Candles of `step` ms (whole minutes): the first ones from `since`, or the last ones up to `until` or now.

        Intervals without a trade repeat the last price with no volume.
        """
        last = min(now, until if until is not None else now) // step * step
        oldest = self._history.oldest if self._history is not None else self._began
        first = -(-since // step) * step if since is not None else last - (limit - 1) * step
        first = max(first, oldest // step * step)
        if since is not None:
            last = min(last, first + (limit - 1) * step)
        if first > last:
            return []
        rows: dict[int, Candle] = {}
        for minute in self._between(max(first, oldest), min(last + step, now // MINUTE * MINUTE + MINUTE)):
            start = minute.start // step * step
            if start in rows:
                rows[start].add(minute)
            else:
                row = rows[start] = msgspec.structs.replace(minute)
                row.start = start
        return list(rows.values())

    def _between(self, start: int, end: int) -> Iterator[Candle]:
        """One candle for every minute."""
        if self._history is not None and start < self._began:
            yield from self._history.minutes(start, min(end, self._began))
            start = self._began
        at = bisect_left(self._minutes, start, key=lambda candle: candle.start)
        price = self._minutes[at - 1].close if at else self._open
        for minute in range(start, end, MINUTE):
            if at < len(self._minutes) and self._minutes[at].start <= minute:
                yield self._minutes[at]
                price = self._minutes[at].close
                at += 1
            else:
                yield Candle(minute, price, price, price, price)


class History:
    """The minutes before the venue began."""

    def __init__(self, spec: SymbolSpec, config: HistoryConfig, end: int) -> None:
        self._spec = spec
        self._tick, self._lot = float(spec.tick), float(spec.lot)
        self._config = config
        self._end = end
        self.oldest = end - config.days * _DAY
        self._days: dict[int, list[Candle]] = {}
        self._price = float(spec.price)
        """Where the earliest minute made so far opened."""
        self._next = (end - MINUTE) // _DAY

    def minutes(self, start: int, end: int) -> Iterator[Candle]:
        """From `start` until before `end`, both whole minutes."""
        while self._next >= start // _DAY:
            self._make(self._next)
            self._next -= 1
        for day in range(start // _DAY, (end - 1) // _DAY + 1):
            yield from (candle for candle in self._days[day] if start <= candle.start < end)

    def _make(self, day: int) -> None:
        spec, config = self._spec, self._config
        draw = random.Random(f"{config.seed}:{spec.id}:{day}")
        sigma = config.volatility / math.sqrt(_YEAR_MINUTES)
        weekend = _WEEKEND if (day + 3) % 7 >= 5 else 1.0
        mean = config.daily_value / DAY_MINUTES * weekend
        drawn = [
            (
                draw.gauss(0, sigma),
                abs(draw.gauss(0, sigma)),
                abs(draw.gauss(0, sigma)),
                draw.gauss(0, 1),
                draw.random(),
            )
            for _ in range(DAY_MINUTES)
        ]
        curve, made = _curve(), list[Candle]()
        for number in range(DAY_MINUTES - 1, -1, -1):
            start = day * _DAY + number * MINUTE
            if start >= self._end:
                continue
            change, up, down, noise, taken = drawn[number]
            close, open_ = self._price, self._price / math.exp(change)
            self._price = open_
            value = mean * curve[number] * math.exp(_NOISE * noise - _NOISE**2 / 2)
            made.append(self._candle(start, open_, close, up, down, value, 0.35 + 0.3 * taken))
        self._days[day] = made[::-1]

    def _candle(
        self, start: int, open_: float, close: float, up: float, down: float, value: float, bought: float
    ) -> Candle:
        tick, lot = self._tick, self._lot
        high, low = max(open_, close) * (1 + up / 2), min(open_, close) * (1 - down / 2)
        steps = [max(round(price / tick), 1) for price in (open_, high, low, close)]
        a, b, c, d = (step * self._spec.tick for step in steps)
        mean = sum(steps) / 4 * tick
        lots = max(round(value / mean / lot), 2)
        taken = max(round(lots * bought), 1)
        money = [Decimal(round(mean * number * lot * 100)).scaleb(-2) for number in (lots, taken)]
        count = max(int(value / 5000), 1)
        return Candle(start, a, b, c, d, lots * self._spec.lot, money[0], count, taken * self._spec.lot, money[1])


def tape_rows(trades: list[PublicTrade], step: int) -> list[Candle]:
    """Candles of `step` ms of some trades; intervals without one are left out."""
    rows: dict[int, Candle] = {}
    for trade in trades:
        start = trade.time // step * step
        if start in rows:
            rows[start].add(_of(trade, start))
        else:
            rows[start] = _of(trade, start)
    return list(rows.values())


def _of(trade: PublicTrade, start: int) -> Candle:
    price, quantity, value = trade.price, trade.quantity, trade.price * trade.quantity
    bought = (ZERO, ZERO) if trade.buyer_is_maker else (quantity, value)
    return Candle(
        start, price, price, price, price, quantity, value, 1, *bought, first_id=trade.trade_id, last_id=trade.trade_id
    )
