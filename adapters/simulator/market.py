"""A seeded synthetic market: quotes around a price that drifts and trembles, and takers that come at random.

The price is a geometric Brownian motion. Takers come at the times of a Poisson process, with sizes of a log-normal distribution, buying
or selling with equal chance. The market maker quotes on a grid of half the spread and leaves its quotes where they are while the price
stays in its cell, so an order that joins a level waits behind what is there, and what the maker adds later queues behind it. Where the
price moves through an order of an account, that order fills as the maker.

Impact is that of Obizhaeva and Wang ("Optimal trading strategy and supply/demand dynamics", 2013): what is eaten of a side, measured in
value, is missing from the best quotes on, and comes back exponentially with a half-life of `impact_half_life` seconds. Before it has,
the next taker pays more, so that the same quantity in slices costs less than at once. The fraction `permanent_impact` of the way that
was eaten moves the price itself.

The same seed gives the same market, whatever the clock of the machine, as long as nobody else trades.
"""

from __future__ import annotations

import math
import random
from decimal import Decimal

import msgspec

from adapters.simulator.engine import Engine, Market
from adapters.simulator.quotes import Quotes, on_step

YEAR_SECONDS = 365 * 86400
_HYSTERESIS = 0.75
"""How far the price leaves the middle of its cell, in cells, before the quotes follow."""
_LEAST_REFILL = 0.1
"""Share of a level that must be missing before the maker adds to it."""


class MarketConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`drift` and `volatility` per year, `spread_bps` from bid to ask, `trades` per second, `step` in seconds."""

    seed: int = 1
    drift: float = 0.0
    volatility: float = 0.6
    spread_bps: float = 2.0
    levels: int = 20
    level_value: float = 100_000.0
    """Mean value of a level, in the quote asset; levels are half a spread apart."""
    trades: float = 2.0
    trade_value: float = 5_000.0
    """Mean value of a taker's order, in the quote asset."""
    trade_sigma: float = 1.0
    """Standard deviation of the logarithm of that value."""
    step: float = 0.5
    impact_half_life: float = 3.0
    permanent_impact: float = 0.1
    speed: float = 1.0
    """Seconds of the market per second of the clock."""


class SyntheticMarket:
    """The participants of one symbol, in a time of their own: seconds since they began."""

    def __init__(self, engine: Engine, market: Market, config: MarketConfig) -> None:
        self._engine = engine
        self._market = market
        self._config = config
        self._random = random.Random(f"{config.seed}:{market.spec.id}")
        self._quotes = Quotes(engine, market)
        self._missing = {"BUY": 0.0, "SELL": 0.0}
        """Value eaten of a side that has not come back."""
        self._values: dict[tuple[str, int], float] = {}
        self.paused = False
        self.mid = float(market.spec.price)
        self._grid, self._centre = self._cells()
        self._next_step = config.step
        self._next_trade = self._wait()

    @property
    def due(self) -> float:
        """When something happens next."""
        return min(self._next_step, self._next_trade)

    def happen(self) -> None:
        """What happens next: the price moves and the quotes follow, or a taker comes."""
        if self._next_trade < self._next_step:
            self._next_trade += self._wait()
            self._take()
        else:
            self._next_step += self._config.step
            self._move()

    def step(self) -> None:
        """All that happens up to the price's next move, and that move."""
        until = self._next_step
        while self.due <= until:
            self.happen()

    def requote(self) -> None:
        """Bring the quotes to the price, as far as they have come back."""
        self._note_eaten()
        where = self.mid / float(self._grid)
        if abs(where - self._centre) > _HYSTERESIS:
            self._centre = round(where)
        wanted = {**self._wanted("BUY", -1), **self._wanted("SELL", 1)}
        with self._engine.together(self._market):
            for side in ("BUY", "SELL"):
                for price in self._quotes.prices(side):
                    if (side, price) not in wanted:
                        self._quotes.drop(side, price)
            for (side, price), (value, full) in wanted.items():
                lacking = value - float(self._quotes.rest(side, price) * price)
                if lacking > _LEAST_REFILL * full:
                    self._quotes.place(side, price, on_step(lacking / float(price), self._market.spec.lot))

    def move_to(self, price: Decimal) -> None:
        """Put the price elsewhere at once: fresh quotes around it, and a small trade at it."""
        tick = self._market.spec.tick
        price = max(on_step(float(price), tick), tick)
        with self._engine.together(self._market):
            self._quotes.drop_all()
            self._quotes.eaten("BUY"), self._quotes.eaten("SELL")
            self._missing = {"BUY": 0.0, "SELL": 0.0}
            self._values.clear()
            self.mid = float(price)
            self._market.last = price
            self._grid, self._centre = self._cells()
            self.requote()
            self._print(price)
        if self._market.last != price:
            self._engine.mark(self._market.spec.id, price)

    def leave(self) -> None:
        """Take the quotes off, and come no more until `paused` is taken back."""
        self.paused = True
        self._quotes.drop_all()

    def _print(self, price: Decimal) -> None:
        spec = self._market.spec
        quantity = max(on_step(float(2 * spec.min_notional / price), spec.lot), spec.min_quantity)
        self._quotes.place("SELL", price, quantity)
        self._quotes.take("BUY", quantity, price)
        self._quotes.drop("SELL", price)
        self._quotes.eaten("SELL")

    def _cells(self) -> tuple[Decimal, int]:
        """Half the spread, on the tick, and the cell in which the price is."""
        tick = self._market.spec.tick
        grid = max(on_step(self.mid * self._config.spread_bps / 20_000, tick), tick)
        return grid, round(self.mid / float(grid))

    def _wanted(self, side: str, sign: int) -> dict[tuple[str, Decimal], tuple[float, float]]:
        """By side and price: the value to quote there, and the level's full value."""
        wanted: dict[tuple[str, Decimal], tuple[float, float]] = {}
        missing = self._missing[side]
        values: dict[tuple[str, int], float] = {}
        for level in range(1, self._config.levels + 1):
            cell = self._centre + sign * level
            if cell <= 0:
                break
            full = self._values.get((side, cell))
            if full is None:
                full = self._config.level_value * self._random.uniform(0.5, 1.5)
            values[side, cell] = full
            gone = min(missing, full)
            missing -= gone
            wanted[side, cell * self._grid] = (full - gone, full)
        self._values = {key: value for key, value in self._values.items() if key[0] != side} | values
        return wanted

    def _note_eaten(self) -> None:
        depth = self._config.levels * self._config.level_value
        for side, sign in (("BUY", -1), ("SELL", 1)):
            eaten = self._quotes.eaten(side)
            self._missing[side] = min(self._missing[side] + eaten, depth)
            way = eaten / self._config.level_value * float(self._grid)
            self.mid = max(self.mid + sign * self._config.permanent_impact * way, float(self._grid))

    def _move(self) -> None:
        config = self._config
        years = config.step / YEAR_SECONDS
        shock = config.volatility * math.sqrt(years) * self._random.gauss(0, 1)
        self.mid *= math.exp((config.drift - config.volatility**2 / 2) * years + shock)
        back = 0.5 ** (config.step / config.impact_half_life)
        self._missing = {side: value * back for side, value in self._missing.items()}
        self.requote()

    def _take(self) -> None:
        config, spec = self._config, self._market.spec
        side = self._random.choice(("BUY", "SELL"))
        value = config.trade_value * self._random.lognormvariate(-(config.trade_sigma**2) / 2, config.trade_sigma)
        self._quotes.take(side, on_step(max(value, 2 * float(spec.min_notional)) / self.mid, spec.lot))

    def _wait(self) -> float:
        return self._random.expovariate(self._config.trades) if self._config.trades > 0 else math.inf
