"""Synthetic sides of a book on the tick, cheap to make: their quantities are one of a few shapes, made once."""

from __future__ import annotations

import random
from decimal import ROUND_HALF_EVEN, Decimal

import msgspec

from schemas.market import BookLevel

SHAPES = 16
TILT_STEPS = 10


class DepthProfile(msgspec.Struct, frozen=True, kw_only=True):
    """What a synthetic side shows. Level k (0: best) has `quantity` x (1 + `growth` x k), times a lognormal of `noise`.

    `spacing_bps`: from one level to the next, at least one tick. `quantity` None: 4 typical trades.
    """

    levels: int = 10
    quantity: Decimal | None = None
    growth: float = 0.3
    noise: float = 0.3
    spacing_bps: float = 1.0


class Ladders:
    """Sides of books around a best price, which is counted in ticks.

    A side is one of a few seeded shapes; `shape` (any number) says which, `tilt` (-0.9 to 0.9) makes it larger or smaller.
    """

    def __init__(
        self, *, tick: Decimal, lot: Decimal, price: Decimal, quantity: Decimal, profile: DepthProfile, seed: int
    ) -> None:
        draw = random.Random(f"depth:{seed}")
        self._tick, self._lot = tick, lot
        self.spacing = max(1, round(float(price) * profile.spacing_bps / 10_000 / float(tick)))
        """Ticks from one level to the next."""
        lots = float(quantity) / float(lot)
        self._shapes = [
            [
                max(1.0, lots * (1 + profile.growth * level) * draw.lognormvariate(0, profile.noise))
                for level in range(profile.levels)
            ]
            for _ in range(SHAPES)
        ]
        self._quantities: dict[tuple[int, int], tuple[Decimal, ...]] = {}

    def side(self, best: int, direction: int, shape: int, tilt: float = 0.0) -> tuple[BookLevel, ...]:
        """Levels from the tick `best` on, away from the other side: `direction` -1 for bids, +1 for asks."""
        key = (shape % SHAPES, round(tilt * TILT_STEPS))
        quantities = self._quantities.get(key)
        if quantities is None:
            quantities = self._quantities[key] = self._weighted(*key)
        end = max(0, best + direction * self.spacing * len(quantities))
        prices = map(self._tick.__mul__, map(Decimal, range(best, end, direction * self.spacing)))
        return tuple(map(BookLevel, prices, quantities))

    def _weighted(self, shape: int, step: int) -> tuple[Decimal, ...]:
        weight = 1 + step / TILT_STEPS
        return tuple(self._lot * max(1, round(lots * weight)) for lots in self._shapes[shape])


def ticks_of(price: Decimal, tick: Decimal) -> int:
    """The nearest whole number of ticks, at least 1."""
    return max(1, int((price / tick).to_integral_value(ROUND_HALF_EVEN)))
