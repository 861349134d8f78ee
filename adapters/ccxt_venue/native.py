"""Orders that wait, trail or hide at the venue itself: which a venue holds, and why it is not sent others.

What an exchange, or ccxt, does not know it may drop in silence: a trailing stop that became a market order. So nothing is sent that a
captured request did not show to arrive.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters.base import ApprovedOrder
from schemas.market import MarketRules
from schemas.terms import OrderType, TimeInForce

PLAIN = (OrderType.MARKET, OrderType.LIMIT)
BINANCE_TYPES = {
    OrderType.MARKET: "MARKET",
    OrderType.LIMIT: "LIMIT",
    OrderType.STOP: "STOP_LOSS",
    OrderType.STOP_LIMIT: "STOP_LOSS_LIMIT",
    OrderType.TAKE_PROFIT: "TAKE_PROFIT",
    OrderType.TAKE_PROFIT_LIMIT: "TAKE_PROFIT_LIMIT",
    OrderType.TRAILING_STOP: "STOP_LOSS",
}


def of_binance(market: Mapping[str, Any]) -> tuple[tuple[OrderType, ...], bool]:
    """The types that Binance's `exchangeInfo` lists for a symbol, and whether it takes icebergs."""
    info = market.get("info")
    told = info.get("orderTypes") if isinstance(info, Mapping) else None
    if not isinstance(info, Mapping) or not isinstance(told, list):
        return PLAIN, False
    trails = bool(info.get("allowTrailingStop"))
    found = [
        kind
        for kind, name in BINANCE_TYPES.items()
        if kind in PLAIN or (name in told and (trails or kind is not OrderType.TRAILING_STOP))
    ]
    return tuple(found), bool(info.get("icebergAllowed"))


def refusal(order: ApprovedOrder, rules: MarketRules, *, reduces: bool) -> str | None:
    """Why an order is not sent; None when it may be. `reduces`: whether the venue is known to heed `reduce_only`."""
    kind = order.order_type
    waits = kind not in PLAIN
    if kind not in rules.native:
        return f"{rules.symbol} has no {kind.value} orders at this venue"
    if kind.has_limit_price and order.price is None:
        return f"a {kind.value} order needs a price"
    if waits and not kind.has_limit_price and order.price is not None:
        return f"a {kind.value} order has no limit price"
    if kind.has_trigger and (order.stop_price is None or order.stop_price <= 0):
        return f"a {kind.value} order needs a stop price"
    if not waits and order.stop_price is not None:
        return f"a {kind.value} order has no stop price"
    if kind is OrderType.TRAILING_STOP and (order.trail_bps is None or order.trail_bps <= 0):
        return "a trailing stop needs a distance"
    if kind is not OrderType.TRAILING_STOP and order.trail_bps is not None:
        return f"a {kind.value} order does not trail"
    if waits and (order.post_only or order.time_in_force is TimeInForce.PO):
        return f"a {kind.value} order cannot be post-only"
    if order.display_quantity is not None:
        if not rules.native_iceberg:
            return f"{rules.symbol} has no icebergs at this venue"
        if not kind.has_limit_price or order.time_in_force in (TimeInForce.IOC, TimeInForce.FOK):
            return "an iceberg rests: it needs a limit price, and no time in force that ends it at once"
        if order.display_quantity <= 0:
            return "an iceberg must show something"
    if order.reduce_only and not rules.contract:
        return f"{rules.symbol} is not a contract: reduce-only has no meaning"
    if order.reduce_only and not reduces:
        return "it is not known whether this venue heeds reduce-only"
    return None
