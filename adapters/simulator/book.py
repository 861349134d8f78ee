"""A book of resting orders: best price first, and at one price who came first."""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Iterator
from decimal import Decimal

from adapters.simulator.orders import Order

ZERO = Decimal(0)


class Side:
    """The resting orders of one side."""

    def __init__(self, *, bids: bool) -> None:
        self._sign = -1 if bids else 1
        self._keys: list[Decimal] = []
        """Prices times the sign, ascending: the best first."""
        self._levels: dict[Decimal, deque[Order]] = {}
        self._totals: dict[Decimal, Decimal] = {}
        """What rests at a price, with what icebergs hide."""
        self._shown: dict[Decimal, Decimal] = {}
        self.changed: dict[Decimal, Decimal] = {}
        """Levels that changed since the last look, and what rests there now."""

    def add(self, order: Order) -> None:
        level = self._levels.get(order.price)
        if level is None:
            level = self._levels[order.price] = deque()
            bisect.insort(self._keys, order.price * self._sign)
        level.append(order)
        if order.iceberg:
            order.display = min(order.iceberg, order.rest)
        self._change(order.price, order.rest, order.shown)

    def remove(self, order: Order) -> None:
        """Take an order with what is left of it off the book."""
        level = self._levels[order.price]
        level.remove(order)
        self._change(order.price, -order.rest, -order.shown)
        if not level:
            self._drop(order.price)

    def reduce(self, order: Order, quantity: Decimal) -> None:
        """Some of what an order shows, already counted into `filled`, has traded.

        The next part of an iceberg queues at the back.
        """
        level, shown = self._levels[order.price], -quantity
        if order.iceberg:
            order.display -= quantity
            if not order.display and order.rest:
                level.remove(order)
                level.append(order)
                order.display = min(order.iceberg, order.rest)
                shown += order.display
        self._change(order.price, -quantity, shown)
        if not order.rest:
            level.remove(order)
            if not level:
                self._drop(order.price)

    def best(self) -> Order | None:
        return self._levels[self._keys[0] * self._sign][0] if self._keys else None

    @property
    def best_price(self) -> Decimal | None:
        return self._keys[0] * self._sign if self._keys else None

    def levels(self, depth: int) -> list[tuple[Decimal, Decimal]]:
        """(price, quantity shown), best first."""
        prices = (key * self._sign for key in self._keys[:depth])
        return [(price, self._shown[price]) for price in prices]

    def at(self, price: Decimal) -> Iterator[Order]:
        """The orders at a price, the first in the queue first."""
        return iter(self._levels.get(price, ()))

    def available(self, limit: Decimal | None) -> Iterator[tuple[Decimal, Decimal]]:
        """(price, quantity, hidden and shown) from the best on, as far as a limit allows."""
        for key in self._keys:
            price = key * self._sign
            if limit is not None and key > limit * self._sign:
                return
            yield price, self._totals[price]

    def _change(self, price: Decimal, by: Decimal, shown: Decimal) -> None:
        self._totals[price] = self._totals.get(price, ZERO) + by
        self._shown[price] = self.changed[price] = self._shown.get(price, ZERO) + shown

    def _drop(self, price: Decimal) -> None:
        del self._levels[price]
        del self._totals[price]
        del self._shown[price]
        key = price * self._sign
        self._keys.pop(bisect.bisect_left(self._keys, key))


class Book:
    def __init__(self) -> None:
        self.bids = Side(bids=True)
        self.asks = Side(bids=False)
        self.update_id = 1
        self.flushed_id = 1

    def side(self, order: Order) -> Side:
        return self.bids if order.buys else self.asks

    def against(self, order: Order) -> Side:
        return self.asks if order.buys else self.bids

    def crosses(self, buys: bool, price: Decimal) -> bool:
        """Whether an order at a price would trade at once."""
        best = self.asks.best_price if buys else self.bids.best_price
        return best is not None and (price >= best if buys else price <= best)

    def take_changes(self) -> tuple[int, int, dict[Decimal, Decimal], dict[Decimal, Decimal]] | None:
        """What changed since the last call: first and last update id, bids, asks."""
        if not self.bids.changed and not self.asks.changed:
            return None
        first, self.flushed_id = self.flushed_id + 1, self.update_id
        bids, self.bids.changed = self.bids.changed, {}
        asks, self.asks.changed = self.asks.changed, {}
        return first, self.update_id, bids, asks
