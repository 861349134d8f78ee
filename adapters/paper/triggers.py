"""Orders that wait for the last price to reach their trigger."""

from __future__ import annotations

from decimal import Decimal

from adapters.paper.orders import PaperOrder
from schemas.terms import OrderType

_BPS = Decimal(10_000)
_RISES_FOR_BUY = frozenset({OrderType.STOP, OrderType.STOP_LIMIT, OrderType.TRAILING_STOP})


class Triggers:
    """A stop waits for a price against its position, a take-profit for one in its favour.

    A trailing stop waits for the last price to come back by `trail_bps` from its best since placement (lowest for a buy, highest
    for a sell); a `stop_price` given with it is where it stands at first, and it only ever moves in its favour.
    """

    def __init__(self) -> None:
        self._waiting: list[PaperOrder] = []
        self._above: Decimal | None = None
        self._below: Decimal | None = None
        """Nothing happens while the last price is below `_above` and above `_below`, but for trailing stops."""
        self._trailing = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, order: PaperOrder, last: Decimal | None) -> None:
        order.best = last
        self._waiting.append(order)
        self._measure()

    def remove(self, order: PaperOrder) -> bool:
        """Whether the order was waiting here."""
        if order not in self._waiting:
            return False
        self._waiting.remove(order)
        self._measure()
        return True

    def reached(self, last: Decimal) -> list[PaperOrder]:
        """The orders that a last price sets off, in the order in which they were placed. They wait no longer."""
        if (
            not self._trailing
            and (self._above is None or last < self._above)
            and (self._below is None or last > self._below)
        ):
            return []
        fired = [order for order in self._waiting if _fires(order, last)]
        if fired:
            self._waiting = [order for order in self._waiting if order not in fired]
            self._measure()
        return fired

    def _measure(self) -> None:
        above: Decimal | None = None
        below: Decimal | None = None
        self._trailing = 0
        for order in self._waiting:
            stop = order.order.stop_price
            if order.order.order_type is OrderType.TRAILING_STOP:
                self._trailing += 1
            elif stop is not None and waits_for_rise(order):
                above = stop if above is None else min(above, stop)
            elif stop is not None:
                below = stop if below is None else max(below, stop)
        self._above, self._below = above, below


def waits_for_rise(order: PaperOrder) -> bool:
    """Whether the trigger lies above the price (else below)."""
    return order.buys == (order.order.order_type in _RISES_FOR_BUY)


def stop_price(order: PaperOrder) -> Decimal | None:
    """Where the trigger stands now; None: a trailing stop that has not seen a price."""
    stop, trail = order.order.stop_price, order.order.trail_bps
    if order.order.order_type is not OrderType.TRAILING_STOP or trail is None or order.best is None:
        return stop
    if order.buys:
        trailed = order.best * (1 + trail / _BPS)
        return trailed if stop is None else min(stop, trailed)
    trailed = order.best * (1 - trail / _BPS)
    return trailed if stop is None else max(stop, trailed)


def _fires(order: PaperOrder, last: Decimal) -> bool:
    if order.order.order_type is OrderType.TRAILING_STOP and (
        order.best is None or (last < order.best if order.buys else last > order.best)
    ):
        order.best = last
    stop = stop_price(order)
    return stop is not None and (last >= stop if waits_for_rise(order) else last <= stop)
