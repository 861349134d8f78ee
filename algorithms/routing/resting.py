"""Where the part of a routed order that cannot be taken rests best.

A place is worth its price less the maker fee. Nearer to the other side is sooner filled, so each bp behind the best touch
counts as much as one bp of fee: the better place has the higher such price for a buy, the lower one for a sell.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import msgspec

from algorithms.base import View, When
from algorithms.bounds import BPS, within, worst_price
from algorithms.routing.venues import Venue, unit_cost
from schemas.market import MarketRules
from schemas.order import ChildOrder
from schemas.terms import OrderType, Side


class RestingPlace(msgspec.Struct, frozen=True, kw_only=True):
    """A price at a venue where an order could rest."""

    venue: str
    price: Decimal
    quantity: Decimal
    """What could rest there, by balance and rules."""
    worth: Decimal


def worth(side: Side, price: Decimal, rules: MarketRules) -> Decimal:
    """A resting price less its maker fee."""
    return price * (1 - side.sign * rules.maker_fee)


def best_place(view: View, venues: Sequence[Venue], quantity: Decimal) -> RestingPlace | None:
    """The best place for a quantity of those that can hold it, but for a percent; else the one that holds most of it.

    None: nowhere.
    """
    nearly, sign = quantity * Decimal("0.99"), view.order.side.sign
    places = [place for venue in venues if (place := _place(view, venue, quantity)) is not None]
    return max(places, key=lambda place: (min(place.quantity, nearly), place.worth * sign), default=None)


def _place(view: View, venue: Venue, quantity: Decimal) -> RestingPlace | None:
    side, bound = view.order.side, worst_price(view.order)
    rules, touch = venue.market.rules, venue.market.touch(side)
    if venue.open is None or touch is None:
        return None
    price = touch if bound is None or within(side, touch, bound) else bound
    price = rules.round_price(price, side)
    if price <= 0:
        return None
    spend = venue.open.available
    if spend is not None:
        quantity = min(quantity, spend / unit_cost(rules, price) if side is Side.BUY else spend)
    if rules.max_quantity:
        quantity = min(quantity, rules.max_quantity)
    quantity = rules.round_quantity(quantity, OrderType.LIMIT)
    if rules.refusal(quantity, OrderType.LIMIT, price) is not None:
        return None
    return RestingPlace(venue=venue.market.venue, price=price, quantity=quantity, worth=worth(side, price, rules))


def gain_bps(view: View, child: ChildOrder, place: RestingPlace) -> Decimal:
    """By how much a place is better than where an order rests, in bps."""
    assert child.price is not None
    now = worth(view.order.side, child.price, view.rules_of(child.venue))
    return view.order.side.sign * (place.worth - now) / now * BPS


def improves(view: View, venue: Venue, child: ChildOrder, by_bps: Decimal) -> When | None:
    """When a venue's touch is a place better by more than so many bps than where an order rests.

    None: the order may not rest at such a price, or the touch is there already and something else stands against it.
    """
    side, bound, touch = view.order.side, worst_price(view.order), venue.market.touch(view.order.side)
    assert child.price is not None
    now = worth(side, child.price, view.rules_of(child.venue))
    price = now * (1 + side.sign * by_bps / BPS) / (1 - side.sign * venue.market.rules.maker_fee)
    if bound is not None and not within(side, price, bound):
        return None
    if touch is not None and (touch - price) * side.sign >= 0:
        return None
    if side is Side.BUY:
        return When(source="bid", at_or_above=price, venue=venue.market.venue)
    return When(source="ask", at_or_below=price, venue=venue.market.venue)
