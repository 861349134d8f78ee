"""The resting orders of one of the market's own participants, and its takers."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

from adapters.simulator.accounts import Account
from adapters.simulator.engine import Engine, Market
from adapters.simulator.errors import VenueError
from adapters.simulator.orders import NewOrder, Order

ZERO = Decimal(0)


def on_step(value: float, step: Decimal) -> Decimal:
    """The nearest multiple of a step."""
    return (Decimal(repr(value)) / step).to_integral_value(ROUND_HALF_EVEN) * step


class Quotes:
    """What one participant quotes on one symbol."""

    def __init__(self, engine: Engine, market: Market) -> None:
        self._engine = engine
        self._market = market
        self._account = Account("", "")
        self._taker = Account("", "")
        self._orders: dict[tuple[str, Decimal], list[tuple[Order, Decimal]]] = {}
        """By side and price: the orders, and what of their value was not taken by others."""
        self._eaten = {"BUY": ZERO, "SELL": ZERO}

    def prices(self, side: str) -> list[Decimal]:
        """Where it quotes, best first."""
        return sorted((price for where, price in self._orders if where == side), reverse=side == "BUY")

    def rest(self, side: str, price: Decimal) -> Decimal:
        """What rests of it at a price."""
        return sum((order.rest for order, _ in self._orders.get((side, price), ()) if order.open), ZERO)

    def place(self, side: str, price: Decimal, quantity: Decimal) -> None:
        """Quote; what crosses others trades with them."""
        spec = self._market.spec
        quantity = min(max(quantity, spec.min_quantity), spec.max_quantity)
        new = NewOrder(symbol=spec.id, side=side, kind="LIMIT", quantity=quantity, price=price, time_in_force="GTC")
        try:
            order = self._engine.place(self._account, new)
        except VenueError:
            return  # halted, or a price outside the band after a jump: no quote there
        self._orders.setdefault((side, price), []).append((order, order.notional))

    def take(self, side: str, quantity: Decimal, price: Decimal | None = None) -> None:
        """Take at market, or at once up to a price."""
        spec = self._market.spec
        new = NewOrder(
            symbol=spec.id,
            side=side,
            kind="MARKET" if price is None else "LIMIT",
            quantity=min(max(quantity, spec.min_quantity), spec.max_quantity),
            price=price,
            time_in_force=None if price is None else "IOC",
        )
        try:
            self._engine.place(self._taker, new)
        except VenueError:
            return  # halted, or too small to trade

    def drop(self, side: str, price: Decimal) -> None:
        """Quote no longer at a price."""
        for order, own in self._orders.pop((side, price), ()):
            self._eaten[side] += order.notional - own
            if order.open:
                self._engine.cancel(self._account, self._market.spec.id, order.order_id, None)

    def drop_all(self) -> None:
        for side, price in list(self._orders):
            self.drop(side, price)

    def eaten(self, side: str) -> float:
        """Value that others took of a side's quotes since the last call, in the quote asset."""
        total, self._eaten[side] = self._eaten[side], ZERO
        for key, orders in list(self._orders.items()):
            if key[0] != side:
                continue
            total += sum((order.notional - own for order, own in orders), ZERO)
            left = [(order, order.notional) for order, _ in orders if order.open]
            if left:
                self._orders[key] = left
            else:
                del self._orders[key]
        return float(total)
