"""The best split of one order over several venues, for the order books as they are seen: pure functions.

`optimize` first routes as much of the quantity as books, limit, lots, minimums and balances allow; of all ways to do that
it takes the one of least cost after fees (of most proceeds, for a sell), and of equals the one of better prices.

It is exact, and says so: `Route.exact`. In two cases it may not be; the route can then be placed, but a better one may
exist. Lot sizes that do not divide each other, the coarsest of them above about 110 times (two such sizes) or 20 times
(three) what all have in common: 0.0037, 0.0041 and 0.0043 together, not 0.001 beside 0.00025. And so many minimums in the
way that `routing_allocation.MOST_NODES` is reached: not by ten venues of one minimum each, seldom by twenty.

What the model leaves out: one order per venue, so what is above its maximum quantity stays out; the books stand still; fees
are a fraction of the notional. A venue sets the limit price times the quantity aside, so that is held against the balance.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from math import lcm

import msgspec

from algorithms.routing.allocation import Offer, allocate
from algorithms.routing.depth import ONE, ZERO, Depth, RouteVenue, Unused, exponent, measure
from schemas.terms import MAX_DIGITS, Side

__all__ = ["Route", "RouteLeg", "RouteVenue", "Unused", "best_single", "optimize", "price_only", "proportional"]

_EXACT = Context(prec=300)
_LAST_DIGIT = ONE.scaleb(-MAX_DIGITS)


class RouteLeg(msgspec.Struct, frozen=True, kw_only=True):
    """The part of an order for one venue, to be placed as a limit order that takes."""

    venue: str
    quantity: Decimal
    limit_price: Decimal
    """The worst price it walks to, on the tick."""
    average_price: Decimal
    """Before fees."""
    cost: Decimal
    """In the quote asset, after fees: what is paid on a buy, received on a sell.

    A buy whose fee is taken from what arrives is counted at p / (1 - f): as if the missing part were bought at its price.
    """
    fee: Decimal
    """In the quote asset; negative: a rebate. The difference between the cost and the notional."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """How an order is split."""

    side: Side
    quantity: Decimal
    """Asked for."""
    legs: tuple[RouteLeg, ...]
    """Best price after fees first."""
    unrouted: Decimal
    """What no venue can take within limit, lots, minimums and balances."""
    cost: Decimal
    """The sum of the legs' costs."""
    average_price: Decimal | None
    """Of what is routed, before fees; None when nothing is."""
    effective_price: Decimal | None
    """Of what is routed, after fees."""
    reason: dict[str, str]
    """Per venue that gets nothing: why, one of `Unused`."""
    exact: bool
    """Whether it is proven that no better split exists for these books. False: one may."""

    @property
    def routed(self) -> Decimal:
        return self.quantity - self.unrouted


def optimize(side: Side, quantity: Decimal, venues: Sequence[RouteVenue], *, limit: Decimal | None) -> Route:
    """The most quantity, at the least cost after fees.

    `limit` is the worst price, before fees, that may be traded at. Raises ValueError for a quantity, limit, fee or haircut
    that makes no sense, for venues of one name, and for venues that do not trade the same pair.
    """
    with localcontext(_EXACT):
        depths = _measured(side, quantity, venues, limit)
        return _optimized(side, quantity, depths, [_multiplier(side, venue) for venue in venues], Unused.DEARER)


def price_only(side: Side, quantity: Decimal, venues: Sequence[RouteVenue], limit: Decimal | None) -> Route:
    """The split that is best before fees; its cost is told with them. To compare with."""
    with localcontext(_EXACT):
        depths = _measured(side, quantity, venues, limit)
        route = _optimized(side, quantity, depths, [Fraction(1)] * len(venues), Unused.DEARER_PRICE)
        return msgspec.structs.replace(route, exact=False)


def best_single(side: Side, quantity: Decimal, venues: Sequence[RouteVenue], limit: Decimal | None) -> Route:
    """Everything at one venue: the one that takes the most of it, then the cheapest after fees. To compare with."""
    with localcontext(_EXACT):
        depths = _measured(side, quantity, venues, limit)
        others = [Unused.NOT_CHOSEN] * len(depths)
        best = _route(side, quantity, depths, [0] * len(depths), others, exact=False)
        for index, depth in enumerate(depths):
            lots = [0] * len(depths)
            lots[index] = depth.largest(quantity)
            route = _route(side, quantity, depths, lots, others, exact=False)
            if (route.unrouted, route.cost * side.sign) < (best.unrouted, best.cost * side.sign):
                best = route
        return best


def proportional(side: Side, quantity: Decimal, venues: Sequence[RouteVenue], limit: Decimal | None) -> Route:
    """Split by the depth within the limit; what lots and minimums leave over goes where most is shown. To compare with."""
    with localcontext(_EXACT):
        # Measured without a bound on the quantity: a share is of all that is shown.
        shown = [
            sum((level.quantity for level in depth.levels), ZERO)
            for depth in _measured(side, _all_shown(side, quantity, venues), venues, limit)
        ]
        depths = _measured(side, quantity, venues, limit)
        lots = [0] * len(depths)
        rest, total = quantity, sum(shown, ZERO)
        for index, depth in enumerate(depths):
            if total:
                lots[index] = depth.largest(quantity * shown[index] / total)
                rest -= lots[index] * depth.lot
        for index in sorted(range(len(depths)), key=lambda index: -shown[index]):
            depth = depths[index]
            more = depth.largest(lots[index] * depth.lot + rest)
            rest -= (more - lots[index]) * depth.lot
            lots[index] = more
        return _route(side, quantity, depths, lots, [Unused.MINIMUM] * len(depths), exact=False)


def _all_shown(side: Side, quantity: Decimal, venues: Sequence[RouteVenue]) -> Decimal:
    return quantity + sum((level.quantity for venue in venues for level in venue.book.opposite(side)), ZERO)


def _measured(side: Side, quantity: Decimal, venues: Sequence[RouteVenue], limit: Decimal | None) -> list[Depth]:
    if not quantity.is_finite() or quantity <= 0:
        raise ValueError(f"quantity must be above zero, not {quantity}")
    if limit is not None and (not limit.is_finite() or limit <= 0):
        raise ValueError(f"limit must be above zero, not {limit}")
    if len({venue.name for venue in venues}) < len(venues):
        raise ValueError("two venues have the same name")
    if len({(venue.rules.base, venue.rules.quote) for venue in venues}) > 1:
        raise ValueError("venues do not trade the same pair: their prices cannot be compared")
    for venue in venues:
        if not -1 < venue.rules.taker_fee < 1:
            raise ValueError(f"taker fee of {venue.name} is a fraction of the notional, not {venue.rules.taker_fee}")
        if not 0 <= venue.haircut <= 1:
            raise ValueError(f"haircut of {venue.name} must be from 0 to 1, not {venue.haircut}")
    return measure(side, quantity, venues, limit)


def _multiplier(side: Side, venue: RouteVenue) -> Fraction:
    """The price after fees over the price."""
    fee = Fraction(venue.rules.taker_fee)
    if side is Side.SELL:
        return 1 - fee
    return 1 / (1 - fee) if venue.rules.fee_in_base else 1 + fee


def _optimized(
    side: Side, quantity: Decimal, depths: Sequence[Depth], multipliers: Sequence[Fraction], dearer: Unused
) -> Route:
    """The best allocation, with prices times `multipliers`; worked out in integers, so that equal is equal."""
    numbers = [quantity, *(depth.lot for depth in depths)]
    numbers += [level.quantity for depth in depths for level in depth.levels]
    digits = max(0, *(-exponent(number) for number in numbers))
    asked = int(quantity.scaleb(digits))
    prices = [level.price for depth in depths for level in depth.levels]
    price_digits = max((-exponent(price) for price in prices), default=0)
    scale = lcm(*(multiplier.denominator for multiplier in multipliers))
    # Of routes of equal cost the one of better prices before fees: a notional always weighs less than one unit of cost.
    ahead = 2 * int(max(prices, default=ZERO).scaleb(price_digits)) * asked + 1
    offers = []
    for depth, multiplier in zip(depths, multipliers, strict=True):
        weight = side.sign * (int(multiplier * scale) * ahead + 1)
        levels = [
            (int(level.price.scaleb(price_digits)) * weight, int(level.quantity.scaleb(digits)))
            for level in depth.levels
        ]
        lot = int(depth.lot.scaleb(digits))
        offers.append(Offer(lot, _lots(levels, lot), depth.allowed))
    allocation = allocate(asked, offers)
    wished = [dearer if not lots else Unused.MINIMUM for lots in allocation.wished]
    return _route(side, quantity, depths, allocation.lots, wished, exact=allocation.exact)


def _lots(levels: Sequence[tuple[int, int]], lot: int) -> tuple[tuple[int, int], ...]:
    """Levels of (price, quantity) as runs of whole lots (cost of one, lots). What does not fill a last lot is dropped."""
    runs: list[tuple[int, int]] = []
    held = cost = 0
    for price, quantity in levels:
        left = quantity
        if held:
            used = min(left, lot - held)
            held += used
            cost += used * price
            left -= used
            if held < lot:
                continue
            runs.append((cost, 1))
            held = cost = 0
        if left >= lot:
            runs.append((price * lot, left // lot))
            left %= lot
        held, cost = left, left * price
    return tuple(runs)


def _route(
    side: Side,
    quantity: Decimal,
    depths: Sequence[Depth],
    lots: Sequence[int],
    unchosen: Sequence[Unused],
    *,
    exact: bool,
) -> Route:
    """The route that gives each venue its lots. `unchosen`: per venue, why it gets none although it could."""
    legs, reason = [], {}
    routed = notional = ZERO
    for index, (depth, number) in enumerate(zip(depths, lots, strict=True)):
        if not number:
            reason[depth.venue.name] = str(depth.unused or unchosen[index])
            continue
        leg, value = _leg(side, depth, number * depth.lot)
        legs.append(leg)
        routed += leg.quantity
        notional += value
    legs.sort(key=lambda leg: side.sign * leg.cost / leg.quantity)
    cost = sum((leg.cost for leg in legs), ZERO)
    return Route(
        side=side,
        quantity=quantity,
        legs=tuple(legs),
        unrouted=quantity - routed,
        cost=cost,
        average_price=_quotient(notional, routed) if routed else None,
        effective_price=_quotient(cost, routed) if routed else None,
        reason=reason,
        exact=exact,
    )


def _leg(side: Side, depth: Depth, quantity: Decimal) -> tuple[RouteLeg, Decimal]:
    """A leg, and its notional."""
    left, notional, reach = quantity, ZERO, ZERO
    for level in depth.levels:
        used = min(left, level.quantity)
        notional += used * level.price
        left -= used
        reach = level.reach
        if not left:
            break
    fee = depth.venue.rules.taker_fee
    paid = notional * fee
    if side is Side.BUY and depth.venue.rules.fee_in_base:
        paid = _quotient(paid, 1 - fee)
    leg = RouteLeg(
        venue=depth.venue.name,
        quantity=quantity,
        limit_price=reach,
        average_price=_quotient(notional, quantity),
        cost=notional + paid * side.sign,
        fee=paid,
    )
    return leg, notional


def _quotient(amount: Decimal, divisor: Decimal) -> Decimal:
    """A quotient, rounded to as many decimals as a price may have."""
    exact = amount / divisor
    return exact if exponent(exact) >= -MAX_DIGITS else exact.quantize(_LAST_DIGIT)
