"""The exits of a bracket: a take-profit and a stop-loss for what the entry has filled so far.

One order holds the exit quantity at a time, so both together can never close more than was opened, and one need not be
cancelled by the venue when the other fills. Which one rests at the venue follows the price: the stop-loss, where the venue can
hold one, since protection should outlive this process; the take-profit once the price is near it, and always where the venue
holds no stops. The other is watched by the service and takes its place when its price is reached. An exit that disappears at
the venue is placed again. When the entry fills more, the exit grows with it.
"""

from __future__ import annotations

from decimal import Decimal

from algorithms.base import Cancel, Decision, Place, View, When
from schemas.market import ZERO
from schemas.order import ChildOrder, ChildState, Role
from schemas.terms import OrderType, Side

NEAR = Decimal("0.1")
"""The take-profit rests at the venue within this part of the way between both prices; it leaves beyond twice that."""
RESIZE_MS = 1_000
"""Between two changes of an exit's size, at least."""
REFUSED_PAUSE_MS = 500
_STOP, _PROFIT, _CLOSE = "stop_loss", "take_profit", "stop_loss_fired"
CLOSED, NOTHING = "closed", "nothing to protect"
RESUMABLE = (CLOSED, NOTHING)
"""Ends of a protection after which a late fill of the entry is protected again."""
_LIMIT_REACH = Decimal("0.02")
"""How far behind its trigger a stop-limit may trade, where the venue has no stop at market."""


def tag_of(order_type: OrderType) -> str:
    """Which exit an order of a type is."""
    if order_type is OrderType.MARKET:
        return _CLOSE
    return _PROFIT if order_type is OrderType.LIMIT else _STOP


def protect(view: View) -> Decision:
    """What should be done about the exits now."""
    order = view.order
    if order.protection_ended is not None or not order.has_bracket:
        return Decision()
    held, totals = _held(view), view.exit_totals
    assert totals is not None
    live = [child for child in view.exits if not child.state.terminal]
    if order.status.terminal and order.cancel_requested:
        if live:
            return Decision(cancel=_cancels(live, order.cancel_reason or "canceled on request"))
        return Decision() if _unsettled(view) else Decision(protection_ended="canceled on request")
    rest = held - totals.filled
    if not live and order.status.terminal and not _unsettled(view) and _untradable(view, rest):
        return Decision(protection_ended=CLOSED if totals.filled else NOTHING)
    wanted = _wanted(view)
    fired = wanted == _CLOSE
    keep, cancel = [], []
    for child in live:
        reason = _misfit(view, child, wanted, held - totals.claimed + child.leaves)
        if reason is None:
            keep.append(child)
        elif not child.cancel_requested:
            cancel.append(Cancel(child.child_id, reason))
    watch = _watch(view)
    if live or cancel:
        resize = max((child.created_at for child in keep), default=0) + RESIZE_MS
        grown = any(child.leaves < held - totals.filled for child in keep)
        again = resize if grown and view.now < resize else None
        return Decision(cancel=tuple(cancel), wake_when=watch, wake_at=again, stop_fired=fired)
    pause = _pause(view)
    if pause is not None:
        return Decision(wake_at=pause, wake_when=watch, stop_fired=fired)
    place = _place(view, wanted, held - totals.claimed)
    return Decision(place=(place,) if place is not None else (), wake_when=watch, stop_fired=fired)


def _held(view: View) -> Decimal:
    """What the entry has brought and an exit can close: a buy that pays its fee in the base asset brings less."""
    base_fee = view.totals.fees.get(view.rules.base, ZERO) if view.order.side is Side.BUY else ZERO
    return view.totals.filled - base_fee


def _unsettled(view: View) -> bool:
    assert view.exit_totals is not None
    return bool(view.exit_totals.unknown or view.exit_totals.open or view.totals.unknown or view.totals.open)


def _untradable(view: View, quantity: Decimal) -> bool:
    """Whether so little can be closed at none of the exits' prices."""
    prices = [price for price in (view.order.take_profit, view.order.stop_loss) if price is not None]
    return all(_refused(view, quantity, price) for price in prices)


def _refused(view: View, quantity: Decimal, price: Decimal) -> bool:
    return view.rules.refusal(_sized(view, quantity, OrderType.LIMIT), OrderType.LIMIT, price) is not None


def _sized(view: View, quantity: Decimal, kind: OrderType) -> Decimal:
    """What one order can close of a quantity: on the lot, and no more than the venue takes at once; the rest follows."""
    rules = view.rules
    most = rules.market_max_quantity if kind is OrderType.MARKET else rules.max_quantity
    return rules.round_quantity(min(quantity, most) if most else quantity, kind)


def _wanted(view: View) -> str:
    """Which exit should hold the quantity now."""
    order, side = view.order, view.order.side
    if order.stop_fired or any(child.tag == _CLOSE for child in view.exits):
        return _CLOSE
    seen = _price(view)
    if (
        order.stop_loss is not None
        and seen is not None
        and side.sign * (seen - order.stop_loss) <= 0
        and not _resting_stop(view, seen)
    ):
        return _CLOSE
    if order.take_profit is None:
        return _STOP if _holds_stops(view) else ""
    if order.stop_loss is None or not _holds_stops(view):
        return _PROFIT
    if seen is None:
        return view.exits[-1].tag if view.exits else _STOP
    way = abs(order.take_profit - order.stop_loss)
    resting = bool(view.exits) and view.exits[-1].tag == _PROFIT
    distance = side.sign * (order.take_profit - seen)
    return _PROFIT if distance <= way * (NEAR * 2 if resting else NEAR) else _STOP


def _resting_stop(view: View, seen: Decimal) -> bool:
    """Whether the venue holds the stop for everything: then it is the venue's to fire. One with a limit may be passed by."""
    last = view.exits[-1] if view.exits else None
    return (
        last is not None
        and last.tag == _STOP
        and last.state in (ChildState.OPEN, ChildState.PENDING, ChildState.UNKNOWN)
        and (last.price is None or last.side.sign * (last.price - seen) >= 0)
    )


def _holds_stops(view: View) -> bool:
    """Whether the venue can hold the stop-loss, and has not refused it twice in a row."""
    if not {OrderType.STOP, OrderType.STOP_LIMIT} & set(view.rules.native):
        return False
    latest = [child for child in view.exits if child.tag == _STOP][-2:]
    return not (len(latest) == 2 and all(child.state is ChildState.REJECTED for child in latest))


def _price(view: View) -> Decimal | None:
    """What a closing order would trade at, else the last trade."""
    return view.market.far(view.order.side.opposite) or view.market.last


def _misfit(view: View, child: ChildOrder, wanted: str, could: Decimal) -> str | None:
    """Why an exit at the venue is not the one that should be there; None: it is."""
    if child.tag != wanted:
        return f"the {wanted or 'watched exit'} takes its place"
    if child.tag == _CLOSE:
        return None
    order = view.order
    price = order.take_profit if child.tag == _PROFIT else order.stop_loss
    assert price is not None
    at = child.price if child.tag == _PROFIT else child.stop_price
    if at != view.rules.round_price(price, child.side):
        return f"moves to {price:f}"
    size = _sized(view, could, OrderType.LIMIT)
    if child.leaves > size:
        return "shrinks"
    if child.leaves < size and view.now >= child.created_at + RESIZE_MS:
        return f"grows to {size:f}"
    return None


def _pause(view: View) -> int | None:
    """After refusals by the venue, or two exits in a row that it ended by itself: until when (ms) to wait."""
    refused, latest = 0, view.exits[-2:]
    if len(latest) == 2 and all(_ended_there(child) for child in latest):
        until = latest[-1].updated_at + REFUSED_PAUSE_MS
        return until if view.now < until else None
    for child in reversed(view.exits[-8:]):
        if child.state is ChildState.REJECTED or (child.state is ChildState.VOID and not child.cancel_requested):
            refused += 1
        else:
            break
    if not refused:
        return None
    until = view.exits[-1].updated_at + REFUSED_PAUSE_MS * 2 ** (refused - 1)
    return until if view.now < until else None


def _ended_there(child: ChildOrder) -> bool:
    ended = child.state in (ChildState.CANCELED, ChildState.EXPIRED)
    return ended and not child.cancel_requested and not child.executed


def _place(view: View, wanted: str, quantity: Decimal) -> Place | None:
    order, rules, side = view.order, view.rules, view.order.side.opposite
    whole, quantity = quantity, _sized(view, quantity, OrderType.LIMIT)
    if not wanted or _untradable(view, quantity):
        return None
    reduce_only = rules.contract
    if wanted == _CLOSE:
        return Place(
            quantity=_sized(view, whole, OrderType.MARKET),
            order_type=OrderType.MARKET,
            tag=_CLOSE,
            role=Role.EXIT,
            reduce_only=reduce_only,
        )
    if wanted == _PROFIT:
        assert order.take_profit is not None
        price = rules.round_price(order.take_profit, side)
        if _refused(view, quantity, price):
            return None
        return Place(
            quantity=quantity,
            order_type=OrderType.LIMIT,
            price=price,
            tag=_PROFIT,
            role=Role.EXIT,
            reduce_only=reduce_only,
        )
    assert order.stop_loss is not None
    stop = rules.round_price(order.stop_loss, side)
    if OrderType.STOP in rules.native:
        return Place(
            quantity=quantity,
            order_type=OrderType.STOP,
            stop_price=stop,
            tag=_STOP,
            role=Role.EXIT,
            reduce_only=reduce_only,
        )
    reach = rules.round_price(stop * (1 + side.sign * _LIMIT_REACH), side)
    if _refused(view, quantity, min(stop, reach)):
        return None
    return Place(
        quantity=quantity,
        order_type=OrderType.STOP_LIMIT,
        stop_price=stop,
        price=reach,
        tag=_STOP,
        role=Role.EXIT,
        reduce_only=reduce_only,
    )


def _watch(view: View) -> tuple[When, ...]:
    """The prices at which another exit is wanted."""
    order, buy = view.order, view.order.side is Side.BUY
    source = "bid" if buy else "ask"
    found = []
    if order.stop_loss is not None:
        found += [
            When(source=source, at_or_below=order.stop_loss)
            if buy
            else When(source=source, at_or_above=order.stop_loss)
        ]
    if order.take_profit is not None and order.stop_loss is not None:
        way = order.take_profit - order.stop_loss
        near, left = order.take_profit - way * NEAR, order.take_profit - way * NEAR * 2
        resting = bool(view.exits) and view.exits[-1].tag == _PROFIT
        bound, above = (left, not buy) if resting else (near, buy)
        found += [When(source=source, at_or_above=bound) if above else When(source=source, at_or_below=bound)]
    return tuple(found)


def _cancels(live: list[ChildOrder], reason: str) -> tuple[Cancel, ...]:
    return tuple(Cancel(child.child_id, reason) for child in live if not child.cancel_requested)
