"""A seeded synthetic market: a mid that drifts at random, books around it, takers that come at random. Of any length.

Prices do not react to us: no order of ours moves the mid, takes from the depth of a later book, or changes a taker's mind. Neither a
permanent nor a temporary impact is in it; who replays it must count the cost of its own orders by the book's levels.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from decimal import Decimal

import msgspec

from adapters.recorded.estimates import inferred_rules
from adapters.recorded.events import Book, MarketEvent, Trades
from adapters.recorded.ladder import DepthProfile, Ladders
from schemas.market import BookLevel, Candle, MarketRules, PublicTrade
from schemas.terms import Side

DAY_SECONDS = 86_400


class SyntheticConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A market. Times in ms, `seconds` None: without end.

    `volatility` and `drift` are of the log price per day, as fractions. Takers come by a Poisson process of `trades_per_second`
    on average, their sizes lognormal with median `trade_quantity` and `trade_sigma`.
    """

    symbol: str = "BTC/USDT"
    venue: str | None = None
    seed: int = 1
    start_ms: int = 1_735_689_600_000
    seconds: float | None = DAY_SECONDS
    price: Decimal = Decimal(100_000)
    tick: Decimal = Decimal("0.1")
    lot: Decimal = Decimal("0.00001")
    volatility: float = 0.03
    drift: float = 0.0
    spread_bps: float = 1.0
    depth: DepthProfile = DepthProfile()
    book_interval_ms: int = 250
    trades_per_second: float = 1.0
    trade_quantity: Decimal = Decimal("0.02")
    trade_sigma: float = 1.0
    curve: float = 0.0
    """`a` of the volume curve 1 + a(12(t - 1/2)^2 - 1) over each period, t from 0 to 1: its mean is 1, its ends 1 + 2a, its middle 1 - a. 0: flat."""
    curve_seconds: float = DAY_SECONDS
    imbalance: float = 0.0
    """Standard deviation of the order imbalance (-1 to 1; 0: none): it tilts the book's quantities and the takers' sides, not the mid."""
    imbalance_half_life: float = 30.0
    """Seconds until half of an imbalance is gone."""
    history_seconds: int = 0
    """How much of candles of 60 s from before the start `history()` gives; drawn on their own, ending at `price`."""

    def __post_init__(self) -> None:
        if not -0.5 <= self.curve <= 1:
            raise ValueError("curve is between -0.5 and 1, since volume is not negative")
        if not 0 <= self.imbalance <= 0.9:
            raise ValueError("imbalance is between 0 and 0.9")
        if min(self.price, self.tick, self.lot, self.trade_quantity) <= 0 or self.book_interval_ms <= 0:
            raise ValueError("price, tick, lot, trade_quantity and book_interval_ms are positive")
        if self.volatility < 0 or self.trades_per_second < 0 or self.spread_bps < 0 or self.curve_seconds <= 0:
            raise ValueError("volatility, trades_per_second and spread_bps are not negative; curve_seconds is positive")


def volume_curve(t: float, a: float) -> float:
    """The volume at a part `t` (0 to 1) of a period, as a multiple of its mean: 1 + a(12(t - 1/2)^2 - 1)."""
    return 1 + a * (12 * (t - 0.5) ** 2 - 1)


class SyntheticMarket:
    """Events of a synthetic market. An `EventSource`; the same configuration gives the same events."""

    def __init__(self, config: SyntheticConfig | None = None) -> None:
        self.config = config or SyntheticConfig()
        self.symbol = self.config.symbol
        self.venue = self.config.venue

    def rules(self) -> MarketRules:
        return inferred_rules(self.symbol, self.config.tick, self.config.lot)

    def events(self) -> Iterator[MarketEvent]:
        """A book every `book_interval_ms`, and the trades between; made as they are asked for."""
        config = self.config
        draw = random.Random(f"synthetic:{config.seed}")
        gauss = draw.gauss
        quantity = config.depth.quantity or 4 * config.trade_quantity
        ladders = Ladders(
            tick=config.tick,
            lot=config.lot,
            price=config.price,
            quantity=quantity,
            profile=config.depth,
            seed=config.seed,
        )
        step = config.book_interval_ms
        days = step / 1000 / DAY_SECONDS
        drift = (config.drift - config.volatility**2 / 2) * days
        shock = config.volatility * math.sqrt(days)
        keep = 0.5 ** (step / 1000 / config.imbalance_half_life) if config.imbalance else 0.0
        jolt = config.imbalance * math.sqrt(1 - keep * keep)
        half_spread = config.spread_bps / 20_000
        tick = float(config.tick)
        price = float(config.price)
        rate = config.trades_per_second * step / 1000
        imbalance = 0.0
        number = 0
        end = None if config.seconds is None else config.start_ms + int(config.seconds * 1000)
        ts = config.start_ms
        while end is None or ts < end:
            tilt = min(0.9, max(-0.9, imbalance))
            bid = max(1, math.floor(price * (1 - half_spread) / tick + 0.5))
            ask = max(bid + 1, math.floor(price * (1 + half_spread) / tick + 0.5))
            shape = draw.getrandbits(16)
            book = Book(
                ts,
                config.symbol,
                ladders.side(bid, -1, shape, tilt),
                ladders.side(ask, 1, shape >> 8, -tilt),
                config.venue,
            )
            yield book
            t = (ts - config.start_ms) / 1000 / config.curve_seconds % 1
            arrivals = _poisson(rate * volume_curve(t, config.curve), draw)
            moments = sorted(draw.randrange(step) for _ in range(arrivals))
            for moment in moments:
                side = Side.BUY if draw.random() < (1 + tilt) / 2 else Side.SELL
                prints = self._taken(book.asks if side is Side.BUY else book.bids, side, ts + moment, number, draw)
                number += len(prints)
                if end is None or ts + moment < end:
                    yield Trades(ts + moment, config.symbol, prints, config.venue)
            price *= math.exp(drift + shock * gauss(0, 1))
            if config.imbalance:
                imbalance = keep * imbalance + jolt * gauss(0, 1)
            ts += step

    def history(self) -> tuple[list[Candle], int]:
        config = self.config
        draw = random.Random(f"history:{config.seed}")
        begin = config.start_ms // 60_000 * 60_000
        spread = config.volatility * math.sqrt(60 / DAY_SECONDS)
        candles: list[Candle] = []
        close = config.price
        for number in range(1, config.history_seconds // 60 + 1):
            start = begin - number * 60_000
            open_ = self._on_tick(float(close) * math.exp(spread * draw.gauss(0, 1)))
            reach = abs(spread * draw.gauss(0, 0.5))
            high = max(open_, close, self._on_tick(float(max(open_, close)) * (1 + reach)))
            low = min(open_, close, self._on_tick(float(min(open_, close)) * (1 - reach)))
            t = (start - config.start_ms) / 1000 / config.curve_seconds % 1
            mean = float(config.trade_quantity) * math.exp(config.trade_sigma**2 / 2) * config.trades_per_second * 60
            lots = round(mean * volume_curve(t, config.curve) * draw.lognormvariate(-0.02, 0.2) / float(config.lot))
            candles.append(Candle(start=start, open=open_, high=high, low=low, close=close, volume=config.lot * lots))
            close = open_
        candles.reverse()
        return candles, 60

    def describe(self) -> list[str]:
        config = self.config
        told = [
            f"{self.symbol}: synthetic, seed {config.seed}; prices do not react to our orders",
            f"mid: geometric Brownian motion from {config.price:f}, volatility {config.volatility:.2%} and drift {config.drift:.2%} a day",
            f"books: every {config.book_interval_ms} ms, spread {config.spread_bps:g} bps, {config.depth.levels} levels",
            f"trades: Poisson, {config.trades_per_second:g} a second, sizes lognormal with median {config.trade_quantity:f} "
            f"and sigma {config.trade_sigma:g}",
            f"volume: 1 + a(12(t - 1/2)^2 - 1) with a = {config.curve:g} over {config.curve_seconds:g} s"
            if config.curve
            else "volume: flat",
        ]
        if config.imbalance:
            told.append(
                f"order imbalance: mean-reverting, standard deviation {config.imbalance:g}, half-life {config.imbalance_half_life:g} s"
            )
        return told

    def _taken(
        self, levels: tuple[BookLevel, ...], side: Side, ts: int, number: int, draw: random.Random
    ) -> tuple[PublicTrade, ...]:
        """What a taker gets from the levels: one trade per level, not more than they hold."""
        config = self.config
        lots = max(1, round(float(config.trade_quantity / config.lot) * draw.lognormvariate(0, config.trade_sigma)))
        left = config.lot * lots
        prints: list[PublicTrade] = []
        for level in levels:
            quantity = min(left, level.quantity)
            number += 1
            prints.append(
                PublicTrade(trade_id=f"s{number}", price=level.price, quantity=quantity, timestamp=ts, side=side)
            )
            left -= quantity
            if not left:
                break
        return tuple(prints)

    def _on_tick(self, price: float) -> Decimal:
        return self.config.tick * max(1, round(price / float(self.config.tick)))


def _poisson(mean: float, draw: random.Random) -> int:
    """A Poisson number (Knuth 1969 in steps of a mean up to 30, so that exp(-mean) stays above zero)."""
    count = 0
    while mean > 0:
        part = min(mean, 30.0)
        mean -= part
        bound = math.exp(-part)
        product = draw.random()
        while product > bound:
            count += 1
            product *= draw.random()
    return count
