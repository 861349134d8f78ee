"""Taking up an order that a venue holds under an id of ours and the ledger does not know: a store that lost its last second.

Its intent was committed before it was sent, so it is what its order had decided. It becomes a child of it again, as the venue tells
it; what it was for is seen from what the order would decide now.
"""

from __future__ import annotations

from collections.abc import Sequence

from adapters.base import VenueOrder, VenueOrderStatus
from algorithms import bracket
from algorithms.base import Place
from execution.ledger import keys
from execution.order_state import OrderState
from schemas.order import ChildOrder, ChildState, Role
from schemas.terms import OrderType, TimeInForce

ADOPTED = "adopted"
"""The tag of a child of which nothing says what it was for."""
WHY = "adopted by reconciliation: it is at the venue, and the ledger had lost it"


def adopt(state: OrderState, venue: str, told: VenueOrder, expected: Sequence[Place], now: int) -> ChildOrder | None:
    """Book an order of the venue as a child; `expected`: what the order would place now.

    None: it is known already, or cannot be one of the order's: another symbol, or no quantity told.
    """
    address, parent = keys.key_of_child(told.client_order_id), state.parent
    quantity = told.quantity if told.quantity is not None else told.filled
    if address is None or address[0] != state.key or told.symbol != parent.symbol or not quantity:
        return None
    if state.child(told.client_order_id) is not None:
        return None
    role = Role.ENTRY if told.side in (None, parent.side) else Role.EXIT
    order_type = told.order_type or (OrderType.LIMIT if told.price is not None else OrderType.MARKET)
    alike = [place for place in expected if place.role is role and (place.venue or parent.home) == venue]
    same = [
        place
        for place in alike
        if (place.order_type, place.quantity, place.price) == (order_type, quantity, told.price)
    ]
    place = next(iter(same or [place for place in alike if place.order_type is order_type]), None)
    at = min(told.timestamp or now, now)
    child = ChildOrder(
        child_id=keys.child_id(*address),
        number=address[1],
        venue=venue,
        symbol=told.symbol,
        side=told.side or parent.side,
        order_type=order_type,
        quantity=quantity,
        price=told.price if order_type.has_limit_price else None,
        time_in_force=told.time_in_force if told.time_in_force in _INSTANT else TimeInForce.GTC,
        post_only=place.post_only if place is not None else False,
        tag=_tag(state, venue, role, order_type, place),
        role=role,
        stop_price=told.stop_price,
        reduce_only=parent.reduce_only if role is Role.ENTRY else state.rules.contract,
        sends=1,
        state=ChildState.UNKNOWN,
        amendment=parent.amendments,
        created_at=at,
        updated_at=at,
    )
    state.adopt(child, _standing(told), WHY, now)
    excess = state.totals.claimed - parent.quantity
    if child.state is ChildState.OPEN and role is Role.ENTRY and excess > 0:
        state.cancel_sent(child, f"{excess:f} more than its order may trade", now)
    elif child.state is ChildState.OPEN and role is Role.EXIT and not parent.has_bracket:
        state.cancel_sent(child, "its order has no exits", now)
    return child


_INSTANT = (TimeInForce.IOC, TimeInForce.FOK)


def _standing(told: VenueOrder) -> VenueOrder:
    """What a venue lists without a state is open there."""
    if told.status is not None:
        return told
    return VenueOrder(
        symbol=told.symbol,
        client_order_id=told.client_order_id,
        venue_order_id=told.venue_order_id,
        status=VenueOrderStatus.OPEN,
        filled=told.filled,
        fills=told.fills,
    )


def _tag(state: OrderState, venue: str, role: Role, order_type: OrderType, place: Place | None) -> str:
    """What the child was for, by its algorithm's mark: as the one expected now, else as the latest like it."""
    if place is not None:
        return place.tag
    if role is Role.EXIT:
        return bracket.tag_of(order_type)
    for child in reversed(state.entries.children):
        if child.venue == venue and child.order_type is order_type:
            return child.tag
    return ADOPTED
