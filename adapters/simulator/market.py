"""A seeded synthetic market: quotes around a price that drifts and trembles, and takers that come at random.

The price is a geometric Brownian motion. At each step the market maker replaces its quotes; where the new ones cross an order of an
account, that order fills as the maker, in part or in full. The same seed and steps give the same market.
"""

from __future__ import annotations

import math
import random
from decimal import ROUND_HALF_EVEN, Decimal

import msgspec

from adapters.simulator.accounts import Account
from adapters.simulator.engine import Engine, Market, NewOrder
from adapters.simulator.errors import VenueError
from adapters.simulator.orders import Order

YEAR_SECONDS = 365 * 86400


class MarketConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`drift` and `volatility` per year, `spread_bps` from bid to ask, `trades` per second, `step` in seconds."""

    seed: int = 1
    drift: float = 0.0
    volatility: float = 0.6
    spread_bps: float = 2.0
    levels: int = 10
    level_value: float = 50_000.0
    """Mean value of a level, in the quote asset."""
    trades: float = 2.0
    trade_value: float = 5_000.0
    step: float = 0.5


class SyntheticMarket:
    """The participants of one symbol."""

    def __init__(self, engine: Engine, market: Market, config: MarketConfig) -> None:
        self._engine = engine
        self._market = market
        self._config = config
        self._random = random.Random(f"{config.seed}:{market.spec.id}")
        self._maker = Account("", "")
        self._taker = Account("", "")
        self._quotes: list[Order] = []
        self.mid = float(market.spec.price)

    def step(self) -> None:
        """One step of time: move the price, requote, let takers come."""
        config, draw = self._config, self._random
        years = config.step / YEAR_SECONDS
        shock = config.volatility * math.sqrt(years) * draw.gauss(0, 1)
        self.mid *= math.exp((config.drift - config.volatility**2 / 2) * years + shock)
        self.requote()
        for _ in range(self._arrivals(config.trades * config.step)):
            self._take(draw.choice(("BUY", "SELL")), draw.expovariate(1 / config.trade_value))

    def move_to(self, price: Decimal) -> None:
        """Put the price elsewhere at once."""
        self.mid = float(price)
        self.requote()

    def requote(self) -> None:
        """Replace all quotes by new ones around the price."""
        spec, config, draw = self._market.spec, self._config, self._random
        for order in self._quotes:
            if order.open:
                self._engine.cancel(self._maker, spec.id, order.order_id, None)
        self._quotes = []
        half = self.mid * config.spread_bps / 20_000
        for level in range(config.levels):
            for side, sign in (("BUY", -1), ("SELL", 1)):
                distance = half * (1 + 1.5 * level) * (1 + 0.2 * draw.random())
                value = config.level_value * draw.uniform(0.5, 1.5)
                self._quote(side, self.mid + sign * distance, value)

    def _quote(self, side: str, price: float, value: float) -> None:
        spec = self._market.spec
        at = max(_steps(price, spec.tick), spec.tick)
        quantity = min(max(_steps(value / price, spec.lot), spec.min_quantity), spec.max_quantity)
        new = NewOrder(symbol=spec.id, side=side, kind="LIMIT", quantity=quantity, price=at, time_in_force="GTC")
        try:
            self._quotes.append(self._engine.place(self._maker, new))
        except VenueError:
            return  # halted, or a price outside the band after a jump: no quote there

    def _take(self, side: str, value: float) -> None:
        spec = self._market.spec
        quantity = min(max(_steps(value / self.mid, spec.lot), spec.min_quantity), spec.max_quantity)
        try:
            self._engine.place(self._taker, NewOrder(symbol=spec.id, side=side, kind="MARKET", quantity=quantity))
        except VenueError:
            return  # halted, or too small to trade

    def _arrivals(self, mean: float) -> int:
        """A Poisson number, by Knuth's method."""
        limit, count, product = math.exp(-mean), 0, self._random.random()
        while product > limit:
            count += 1
            product *= self._random.random()
        return count


def _steps(value: float, step: Decimal) -> Decimal:
    return (Decimal(repr(value)) / step).to_integral_value(ROUND_HALF_EVEN) * step
