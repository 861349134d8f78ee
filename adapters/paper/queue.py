"""Our resting orders of one side, and how much of the market trades before each.

A level's displayed quantity is the market's alone: nobody there knows of our order. What is displayed when it is placed is ahead
of it (times `queue_ahead`), what comes later is behind. A trade at the price eats the queue from its front; what reaches us fills
us. What a level lost and no trade explains was cancelled, evenly along the queue. Trades and books come on separate streams and
in no fixed order: so a loss is first held against the trades that follow, and credited when the next book comes. Otherwise one
trade would move us ahead twice.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator
from decimal import ROUND_CEILING, Decimal

from adapters.paper.orders import PaperOrder
from schemas.market import BookLevel

ZERO = Decimal(0)
_STEP = Decimal("1e-12")

Fill = Callable[[PaperOrder, Decimal], None]
"""Fill a resting order by a quantity, at its own price. Keeps `rest` and `visible`, nothing of the queue."""


class QueueLevel:
    """Our orders at one price, in the order in which they queue."""

    __slots__ = ("orders", "price", "shown", "traded", "unexplained")

    def __init__(self, price: Decimal) -> None:
        self.price = price
        self.orders: list[PaperOrder] = []
        self.shown: Decimal | None = None
        """The market's quantity in the last book; None: the price lies deeper than the books reached so far."""
        self.traded = ZERO
        """Traded since the last book, and not yet seen in one."""
        self.unexplained = ZERO
        """What the last book showed less, and no trade explained so far."""

    @property
    def left(self) -> Decimal:
        """The market's quantity as it should be now."""
        return max(self.shown - self.traded, ZERO) if self.shown is not None else ZERO

    def show(self, quantity: Decimal, queue_ahead: Decimal) -> None:
        """A book shows the price with a quantity."""
        if self.shown is None:
            for order in self.orders:
                order.ahead = quantity * queue_ahead
        else:
            self.credit()
            self.unexplained = max(self.shown - self.traded - quantity, ZERO)
        self.shown = quantity
        self.traded = ZERO

    def credit(self) -> None:
        """Take what no trade explained for cancelled, evenly along the queue."""
        if self.unexplained and self.shown is not None:
            whole = self.shown + self.unexplained
            for order in self.orders:
                if order.ahead:
                    order.ahead = (order.ahead * self.shown / whole).quantize(_STEP, ROUND_CEILING)
            self.unexplained = ZERO

    def sweep(self) -> None:
        """The market has gone past the price: nobody of it is left there."""
        for order in self.orders:
            order.ahead = ZERO
        self.shown = self.traded = self.unexplained = ZERO

    def trade(self, quantity: Decimal, queue_ahead: Decimal, fill: Fill) -> Decimal:
        """A trade at the price; what of it our orders left over."""
        if self.shown is None:
            return quantity
        standing = self.left + self.unexplained
        explained = min(quantity, self.unexplained)
        self.unexplained -= explained
        self.traded += quantity - explained
        eaten, at, orders = ZERO, 0, self.orders
        while quantity and at < len(orders):
            order = orders[at]
            before = order.ahead - eaten
            if before > 0:
                part = min(before, quantity)
                eaten += part
                quantity -= part
                if not quantity:
                    break
            part = min(order.visible, quantity)
            fill(order, part)
            quantity -= part
            if not order.rest:
                del orders[at]
            elif not order.visible:
                # The next part of an iceberg comes to the back of the queue.
                refresh(order)
                order.ahead = eaten + max(standing - eaten, ZERO) * queue_ahead
                orders.append(orders.pop(at))
        if eaten:
            for order in orders:
                order.ahead = max(order.ahead - eaten, ZERO)
        return quantity


class RestingOrders:
    """Our resting orders of one side, best price first."""

    def __init__(self, *, buys: bool, queue_ahead: Decimal) -> None:
        self._buys = buys
        self._queue_ahead = queue_ahead
        self._keys: list[Decimal] = []
        """Prices, of a buy negated: ascending, the best first."""
        self._levels: dict[Decimal, QueueLevel] = {}

    def __bool__(self) -> bool:
        return bool(self._keys)

    def __iter__(self) -> Iterator[PaperOrder]:
        for key in list(self._keys):
            yield from list(self._levels[key].orders)

    def add(self, order: PaperOrder, levels: tuple[BookLevel, ...]) -> None:
        """Queue an order at its limit price. `levels`: the book's side that it joins."""
        price = order.limit
        assert price is not None
        key = -price if self._buys else price
        level = self._levels.get(key)
        if level is None:
            level = self._levels[key] = QueueLevel(price)
            bisect.insort(self._keys, key)
            level.shown = self._shown(levels, price)
        else:
            level.credit()
        refresh(order)
        order.ahead = level.left * self._queue_ahead
        level.orders.append(order)

    def remove(self, order: PaperOrder) -> None:
        """Take an order out of its queue."""
        assert order.limit is not None
        level = self._levels[-order.limit if self._buys else order.limit]
        if order in level.orders:
            level.orders.remove(order)
        self._drop_if_empty(level)

    def sweep(self, order: PaperOrder) -> None:
        """The market's other side has come to an order's price."""
        assert order.limit is not None
        self._levels[-order.limit if self._buys else order.limit].sweep()

    def show(self, levels: tuple[BookLevel, ...]) -> None:
        """A new book: what its side of ours shows. Levels beyond its depth keep what they were last seen with."""
        at, end, buys = 0, len(levels), self._buys
        for key in self._keys:
            level = self._levels[key]
            price = level.price
            while at < end and (levels[at].price > price if buys else levels[at].price < price):
                at += 1
            if at == end and end:
                return
            there = at < end and levels[at].price == price
            level.show(levels[at].quantity if there else ZERO, self._queue_ahead)

    def trade(self, price: Decimal, quantity: Decimal, *, reaches: bool, fill: Fill) -> Decimal:
        """Somebody traded at a price; what of it our orders left over.

        What we have at better prices comes first, whatever is ahead of it: the market would not have got there otherwise. At the
        price itself we queue, and only if the taker's side `reaches` us.
        """
        key = -price if self._buys else price
        while quantity and self._keys and self._keys[0] < key:
            level = self._levels[self._keys[0]]
            level.sweep()
            while quantity and level.orders:
                order = level.orders[0]
                part = min(order.rest, quantity)
                fill(order, part)
                quantity -= part
                if not order.rest:
                    del level.orders[0]
                elif not order.visible:
                    refresh(order)
            self._drop_if_empty(level)
        if quantity and reaches:
            here = self._levels.get(key)
            if here is not None:
                quantity = here.trade(quantity, self._queue_ahead, fill)
                self._drop_if_empty(here)
        return quantity

    def _shown(self, levels: tuple[BookLevel, ...], price: Decimal) -> Decimal | None:
        for level in levels:
            if level.price == price:
                return level.quantity
        if levels and (price < levels[-1].price if self._buys else price > levels[-1].price):
            return None
        return ZERO

    def _drop_if_empty(self, level: QueueLevel) -> None:
        if not level.orders:
            key = -level.price if self._buys else level.price
            del self._levels[key]
            self._keys.pop(bisect.bisect_left(self._keys, key))


def refresh(order: PaperOrder) -> None:
    """Show the next part of an order: of an iceberg its display quantity, else all of it."""
    display = order.order.display_quantity
    order.visible = order.rest if display is None else min(display, order.rest)
