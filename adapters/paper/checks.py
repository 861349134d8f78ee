"""What a venue refuses before it looks at the market."""

from __future__ import annotations

from decimal import Decimal

from adapters.base import NewOrder, Rejected
from schemas.market import MarketRules
from schemas.terms import OrderType

ZERO = Decimal(0)
_MARKET, _TRAILING = OrderType.MARKET, OrderType.TRAILING_STOP


def check(order: NewOrder, rules: MarketRules, position: Decimal) -> None:
    """Whether a venue of these rules takes an order. `position`: what was bought less what was sold there.

    Raises:
        Rejected: with what speaks against it.
    """
    kind, price = order.order_type, order.price
    if not rules.active:
        raise Rejected(f"{rules.symbol} is not traded now")
    if kind is not _MARKET and kind not in rules.native:
        raise Rejected(f"{kind.value} orders are not taken here")
    if kind.has_limit_price:
        if price is None:
            raise Rejected(f"a {kind.value} order needs a price")
        if rules.tick and price % rules.tick:
            raise Rejected(f"price {price:f} is not on the tick {rules.tick:f} of {rules.symbol}")
    lot = rules.market_lot if kind is _MARKET else rules.lot
    if lot and order.quantity % lot:
        raise Rejected(f"quantity {order.quantity:f} is not on the lot {lot:f} of {rules.symbol}")
    refusal = rules.refusal(order.quantity, kind, price)
    if refusal is not None:
        raise Rejected(f"{refusal[0]} {refusal[1]}")
    if kind.has_trigger and order.stop_price is None:
        raise Rejected(f"a {kind.value} order needs a stop price")
    if kind is _TRAILING and (order.trail_bps is None or order.trail_bps <= 0):
        raise Rejected("a trailing stop needs its distance")
    if order.stop_price is not None and (order.stop_price <= 0 or (rules.tick and order.stop_price % rules.tick != 0)):
        raise Rejected(f"stop price {order.stop_price:f} is not on the tick {rules.tick:f} of {rules.symbol}")
    if order.display_quantity is not None:
        _check_iceberg(order, order.display_quantity, rules)
    if order.reduce_only and rules.contract and not ZERO < order.quantity <= -position * order.side.sign:
        raise Rejected(f"a reduce-only order of {order.quantity:f} would not reduce a position of {position:f}")


def _check_iceberg(order: NewOrder, display: Decimal, rules: MarketRules) -> None:
    if not rules.native_iceberg:
        raise Rejected("iceberg orders are not taken here")
    if not order.order_type.has_limit_price:
        raise Rejected(f"a {order.order_type.value} order cannot be hidden in part")
    if display <= 0 or (rules.lot and display % rules.lot):
        raise Rejected(f"display quantity {display:f} is not on the lot {rules.lot:f} of {rules.symbol}")
