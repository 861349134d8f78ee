"""Stops that wait for their price: fixed ones, and trailing ones that follow the market.

The last price counts. A trailing stop tracks from its placing on, or from the first trade that meets its stop price; it is reached when
a trade has come back from the best price since by its delta: for a sell down from the highest, for a buy up from the lowest, whether it
is a STOP_LOSS or a TAKE_PROFIT (Binance, spot trailing stop FAQ).
"""

from __future__ import annotations

from collections import deque
from decimal import Decimal

from adapters.simulator.orders import Order

STOPS = frozenset({"STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT"})
_BIPS = Decimal(10_000)


def reached(kind: str, side: str, stop: Decimal, last: Decimal) -> bool:
    """Whether the last price meets a stop price."""
    rises = (side == "BUY") == kind.startswith("STOP_LOSS")
    return last >= stop if rises else last <= stop


class Stops:
    """The waiting stops of one symbol."""

    def __init__(self) -> None:
        self._waiting: list[Order] = []
        self._reached: deque[Order] = deque()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._reached)

    def add(self, order: Order, last: Decimal, now: int) -> None:
        """Let an order wait. `last`: where a trailing stop without a stop price begins to track."""
        if order.trailing_delta and not order.stop_price:
            order.extreme, order.tracking_since = last, now
        self._waiting.append(order)

    def remove(self, order: Order) -> None:
        if order in self._waiting:
            self._waiting.remove(order)
        else:
            self._reached.remove(order)

    def see(self, price: Decimal, now: int) -> None:
        """Note a trade, and which stops it reaches."""
        if not self._waiting:
            return
        ready = [order for order in self._waiting if _meets(order, price, now)]
        for order in ready:
            self._waiting.remove(order)
        self._reached.extend(ready)

    def next_reached(self) -> Order | None:
        """The stop that was reached first and is not worked yet."""
        return self._reached.popleft() if self._reached else None


def _meets(order: Order, price: Decimal, now: int) -> bool:
    if not order.trailing_delta:
        return reached(order.kind, order.side, order.stop_price, price)
    if order.extreme is None:
        if reached(order.kind, order.side, order.stop_price, price):
            order.extreme, order.tracking_since = price, now
        return False
    order.extreme = min(order.extreme, price) if order.buys else max(order.extreme, price)
    if order.buys:
        return price * _BIPS >= order.extreme * (_BIPS + order.trailing_delta)
    return price * _BIPS <= order.extreme * (_BIPS - order.trailing_delta)
