"""What a route costs: against the mid, and against the one venue that alone would do best. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from algorithms.routing import Route, RouteVenue, best_single, optimize
from schemas.market import MarketRules, OrderBook
from schemas.terms import Side

ZERO = Decimal(0)
BPS = Decimal(10_000)
BPS_STEP = Decimal("0.0001")
DEPTH = 50
"""Levels a venue is asked for."""


class Seen(msgspec.Struct, kw_only=True):
    """A venue's market of a symbol as it is known now."""

    name: str
    rules: MarketRules
    book: OrderBook | None = None
    source: str | None = None
    """Where the book comes from: `stream` or `request`."""
    free: dict[str, Decimal] | None = None
    """What the account has to spend, by asset; None: not known, or not what bounds an order."""
    missing: str | None = None
    """Why nothing can be routed there."""
    warnings: list[str] = []


def split(side: Side, quantity: Decimal, limit: Decimal | None, seen: Sequence[Seen]) -> dict[str, Any]:
    """The best route over venues that have a book, and what it costs. Pure computing, of up to about a second.

    Raises:
        ValueError: the venues' markets cannot be compared.
    """
    venues = []
    for one in seen:
        assert one.book is not None
        spent = one.rules.quote if side is Side.BUY else one.rules.base
        available = one.free[spent] if one.free is not None else None
        venues.append(RouteVenue(name=one.name, rules=one.rules, book=one.book, available=available))
    route = optimize(side, quantity, venues, limit=limit)
    single = best_single(side, quantity, venues, limit)
    return {
        "legs": [msgspec.structs.asdict(leg) for leg in route.legs],
        "routed": route.routed,
        "unrouted": route.unrouted,
        "reasons": route.reason,
        "cost": route.cost,
        "fee": sum((leg.fee for leg in route.legs), ZERO),
        "average_price": route.average_price,
        "effective_price": route.effective_price,
        **_against_mid(route, venues),
        "best_single": _against_single(route, single),
        "exact": route.exact,
        "used_up": [one.name for one in seen if _all_used(route, one)],
    }


def _against_mid(route: Route, venues: Sequence[RouteVenue]) -> dict[str, Any]:
    """The cost, fees included, against the mid of the best bid and the best ask of all venues; positive: worse than it."""
    bids = [venue.book.bid for venue in venues if venue.book.bid is not None]
    asks = [venue.book.ask for venue in venues if venue.book.ask is not None]
    mid = (max(bids) + min(asks)) / 2 if bids and asks else None
    if mid is None or not route.routed:
        return {"mid": mid, "cost_against_mid": None, "cost_against_mid_bps": None}
    worth = mid * route.routed
    over = (route.cost - worth) * route.side.sign
    return {"mid": mid, "cost_against_mid": over, "cost_against_mid_bps": _bps(over, worth)}


def _against_single(route: Route, single: Route) -> dict[str, Any] | None:
    """The one venue that alone would do best, and what the split saves; None of that when it cannot take as much."""
    if not single.legs:
        return None
    [leg] = single.legs
    alike = single.unrouted == route.unrouted
    saving = (single.cost - route.cost) * route.side.sign if alike else None
    return {
        "venue": leg.venue,
        "routed": single.routed,
        "unrouted": single.unrouted,
        "cost": single.cost,
        "effective_price": single.effective_price,
        "saving": saving,
        "saving_bps": _bps(saving, single.cost) if saving is not None and single.cost else None,
    }


def _all_used(route: Route, one: Seen) -> bool:
    assert one.book is not None
    levels = one.book.opposite(route.side)
    used = sum((leg.quantity for leg in route.legs if leg.venue == one.name), ZERO)
    # A venue that answers with fewer levels than it was asked for has no more.
    more = one.source == "stream" or len(levels) >= DEPTH
    left = sum((level.quantity for level in levels), ZERO) - used
    return bool(more and used) and (not left or left < one.rules.lot)


def _bps(amount: Decimal, basis: Decimal) -> Decimal:
    return (amount / basis * BPS).quantize(BPS_STEP)
