"""How far an order may reach: its limit price, and its slippage bound against the arrival price."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from algorithms.base import View
from schemas.market import BookLevel
from schemas.order import ParentOrder
from schemas.terms import Side

BPS = Decimal(10_000)


def slippage_bps(side: Side, price: Decimal, reference: Decimal) -> Decimal:
    """How much worse a price is than a reference, in bps; positive is cost."""
    return (side.sign * (price - reference) / reference * BPS).quantize(Decimal("0.01"))


def slippage_limit(order: ParentOrder) -> Decimal | None:
    """The worst price within `max_slippage_bps` of the arrival price; None: no bound, or no arrival price yet."""
    if order.max_slippage_bps is None or order.arrival is None:
        return None
    return order.arrival * (1 + order.side.sign * order.max_slippage_bps / BPS)


def worst_price(order: ParentOrder, *others: Decimal | None) -> Decimal | None:
    """The worst price the order may trade at: the tightest of its limit, its slippage bound and the others given."""
    bounds = [bound for bound in (order.limit_price, slippage_limit(order), *others) if bound is not None]
    if not bounds:
        return None
    return min(bounds) if order.side is Side.BUY else max(bounds)


def within(side: Side, price: Decimal, bound: Decimal | None) -> bool:
    """Whether a price is not worse than a bound."""
    return bound is None or (price <= bound if side is Side.BUY else price >= bound)


def better(side: Side, one: Decimal, other: Decimal) -> Decimal:
    """The better of two prices for a side: the lower for a buy."""
    return min(one, other) if side is Side.BUY else max(one, other)


def depth(levels: Iterable[BookLevel], side: Side, bound: Decimal | None) -> Decimal:
    """What a book shows within a bound."""
    total = Decimal(0)
    for level in levels:
        if not within(side, level.price, bound):
            break
        total += level.quantity
    return total


def breach(view: View, price: Decimal) -> Decimal | None:
    """By how many bps a price is worse than the arrival price, where that is beyond the order's bound; else None."""
    order = view.order
    if order.max_slippage_bps is None or order.arrival is None:
        return None
    cost = slippage_bps(order.side, price, order.arrival)
    return cost if cost > order.max_slippage_bps else None
