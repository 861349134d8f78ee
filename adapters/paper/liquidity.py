"""One side of the book that the market shows, less what our own takers took of it."""

from __future__ import annotations

from decimal import Decimal

from schemas.market import BookLevel

ZERO = Decimal(0)


class Liquidity:
    """What is left to take. A level that was taken from is full again once a book shows another quantity at its price."""

    def __init__(self, *, asks: bool) -> None:
        self._asks = asks
        self.levels: tuple[BookLevel, ...] = ()
        self._taken: dict[Decimal, tuple[Decimal, Decimal]] = {}
        """By price: what was shown, and how much of it is taken."""
        self._worst = ZERO
        """The price furthest from the touch in `_taken`."""
        self._first = 0
        """Every level before this index is used up."""

    def show(self, levels: tuple[BookLevel, ...]) -> None:
        """A new book."""
        self._first = 0
        self.levels = levels
        if self._taken:
            asks, worst, taken = self._asks, self._worst, self._taken
            kept: dict[Decimal, tuple[Decimal, Decimal]] = {}
            for level in levels:
                price = level.price
                if price > worst if asks else price < worst:
                    break
                before = taken.get(price)
                if before is not None and before[0] == level.quantity:
                    kept[price] = before
                    self._worst = price
            self._taken = kept

    def void(self) -> None:
        """The book is no longer known."""
        self.levels = ()
        self._taken = {}
        self._first = 0

    def best(self) -> tuple[Decimal, Decimal] | None:
        """The best price with anything left, and how much; None: nothing."""
        levels, taken = self.levels, self._taken
        for at in range(self._first, len(levels)):
            level = levels[at]
            before = taken.get(level.price)
            left = level.quantity if before is None else level.quantity - before[1]
            if left > 0:
                return level.price, left
        return None

    def look(self, quantity: Decimal, limit: Decimal | None) -> list[tuple[Decimal, Decimal]]:
        """What `take` would give now."""
        return self._walk(quantity, limit, take=False)

    def take(self, quantity: Decimal, limit: Decimal | None) -> list[tuple[Decimal, Decimal]]:
        """Take up to a quantity at prices not worse than `limit`, best first: (price, quantity) per level."""
        return self._walk(quantity, limit, take=True)

    def _walk(self, quantity: Decimal, limit: Decimal | None, *, take: bool) -> list[tuple[Decimal, Decimal]]:
        parts: list[tuple[Decimal, Decimal]] = []
        asks, levels, taken = self._asks, self.levels, self._taken
        at, end = self._first, len(levels)
        while at < end:
            level = levels[at]
            price, shown = level.price, level.quantity
            if limit is not None and (price > limit if asks else price < limit):
                break
            before = taken.get(price)
            gone = before[1] if before is not None else ZERO
            left = shown - gone
            if left > 0:
                part = quantity if quantity < left else left
                parts.append((price, part))
                if take:
                    if not taken or (price > self._worst if asks else price < self._worst):
                        self._worst = price
                    taken[price] = (shown, gone + part)
                quantity -= part
                if not quantity:
                    break
            at += 1
        if take:
            self._first = at
        return parts
