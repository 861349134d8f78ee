"""The route beforehand: how the first order would best be split over the venues' books as they are when it starts."""

from __future__ import annotations

from typing import Any

import msgspec

from algorithms import ALGORITHMS
from algorithms.routing import RouteVenue, best_single, optimize
from execution.simulate.plan import Plan, Wanted, significant
from schemas.market import ZERO


def first_route(plan: Plan, wanted: Wanted) -> dict[str, Any] | None:
    """How the first order would be split over the books as they are then; None unless asked for."""
    routing = any(one.algorithm in ALGORITHMS and ALGORITHMS[one.algorithm].routes for one in plan.contestants)
    if wanted.signals or not (wanted.route or routing):
        return None
    venues = [
        RouteVenue(
            name=one.venue,
            rules=msgspec.structs.replace(one.rules, taker_fee=wanted.model.fees_of(one.venue)[1]),
            book=one.opening,
        )
        for one in plan.surveys
        if one.opening is not None
    ]
    order = plan.order
    route = optimize(order.side, order.quantity, venues, limit=order.price)
    single = best_single(order.side, order.quantity, venues, order.price)
    saved = None
    if route.routed == single.routed and route.routed and single.cost:
        saved = (single.cost - route.cost) * order.side.sign / abs(single.cost) * 10_000
    return {
        "legs": [msgspec.structs.asdict(leg) for leg in route.legs],
        "unrouted": route.unrouted,
        "cost": route.cost,
        "average_price": route.average_price,
        "effective_price": route.effective_price,
        "reasons": route.reason,
        "exact": route.exact,
        "best_single": {
            "venue": single.legs[0].venue if single.legs else None,
            "routed": single.routed,
            "effective_price": single.effective_price,
        },
        "saved_bps": None if saved is None else significant(saved, 4) if saved else ZERO,
    }
