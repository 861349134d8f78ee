"""Stops, take-profits and trailing stops that the service itself watches: when they fire, and what to look out for until then.

A stop fires when the price moves against the order's side (up for a buy), a take-profit when it moves in its favour. A trailing
stop follows the best price seen at a distance and never moves back.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from algorithms.base import Market, When
from algorithms.bounds import BPS
from schemas.order import Trigger
from schemas.terms import OrderType, Side

_STEP_BPS = Decimal(1)
"""A trailing stop's move is noted when it is at least this much: each one is a write."""


def armed(
    order_type: OrderType,
    *,
    stop_price: Decimal | None,
    trail_bps: Decimal | None,
    activation: Decimal | None,
    source: str,
    native: bool,
) -> Trigger:
    """The trigger of a new order."""
    if order_type is OrderType.TRAILING_STOP:
        return Trigger(native=native, source=source, price=stop_price, trail_bps=trail_bps, activation=activation)
    return Trigger(native=native, source=source, price=stop_price)


def watch(trigger: Trigger, order_type: OrderType, side: Side, market: Market, now: int) -> Trigger:
    """The trigger as the market leaves it: moved, fired, or as it was."""
    if trigger.fired_at is not None:
        return trigger
    seen = _seen(trigger, side, market)
    if seen is None:
        return trigger
    if order_type is OrderType.TRAILING_STOP:
        trigger = _trail(trigger, side, seen)
    if trigger.price is not None and _reached(order_type, side, seen, trigger.price):
        return msgspec.structs.replace(trigger, fired_at=now, fired_price=_short(seen))
    return trigger


def arrival(trigger: Trigger, market: Market) -> Decimal | None:
    """The price at which an order arrives when its trigger fires: the mid, unless a trade has shown that the book is behind."""
    seen, bid, ask = trigger.fired_price, market.bid, market.ask
    if bid is None or ask is None or seen is None or bid <= seen <= ask:
        return market.mid or seen
    return seen


def until(trigger: Trigger, order_type: OrderType, side: Side, market: Market) -> tuple[When, ...]:
    """What to be woken by."""
    source = _source(trigger, side)
    if source == "last" and market.last is None:
        # No trade has been seen yet: whatever comes first counts.
        other = msgspec.structs.replace(trigger, source="mid")
        return (*_until(trigger, order_type, side, "last"), *_until(other, order_type, side, "mid"))
    return _until(trigger, order_type, side, source)


def _until(trigger: Trigger, order_type: OrderType, side: Side, source: str) -> tuple[When, ...]:
    if order_type is OrderType.TRAILING_STOP:
        return (_until_moved(trigger, side, source),)
    assert trigger.price is not None
    if _fires_upwards(order_type, side):
        return (When(source=source, at_or_above=trigger.price),)
    return (When(source=source, at_or_below=trigger.price),)


def _until_moved(trigger: Trigger, side: Side, source: str) -> When:
    """What moves a trailing stop, or fires it: ten thousand of them do not each look at every trade."""
    if trigger.extreme is not None:
        follow: Decimal | None = trigger.extreme * (1 - side.sign * _STEP_BPS / BPS)
    else:
        follow = trigger.activation
    if follow is None:
        return When(source="book" if source in ("mid", "bid", "ask") else "trade")
    if side is Side.SELL:
        return When(source=source, at_or_below=trigger.price, at_or_above=follow)
    return When(source=source, at_or_below=follow, at_or_above=trigger.price)


def _seen(trigger: Trigger, side: Side, market: Market) -> Decimal | None:
    if trigger.source == "mid":
        return market.mid
    if trigger.source == "touch":
        return market.far(side)
    # A venue may show no trades, or none yet: a stop does not wait for one while the market is beyond it.
    return market.last if market.last is not None else market.mid


def _source(trigger: Trigger, side: Side) -> str:
    if trigger.source == "touch":
        return "ask" if side is Side.BUY else "bid"
    return trigger.source


def _fires_upwards(order_type: OrderType, side: Side) -> bool:
    profit = order_type in (OrderType.TAKE_PROFIT, OrderType.TAKE_PROFIT_LIMIT)
    return (side is Side.BUY) is not profit


def _reached(order_type: OrderType, side: Side, seen: Decimal, price: Decimal) -> bool:
    return seen >= price if _fires_upwards(order_type, side) else seen <= price


def _trail(trigger: Trigger, side: Side, seen: Decimal) -> Trigger:
    """A trailing stop after a price: a sell's is below the highest price seen, a buy's above the lowest."""
    if trigger.extreme is None and trigger.activation is not None:
        active = seen >= trigger.activation if side is Side.SELL else seen <= trigger.activation
        if not active:
            return trigger
    assert trigger.trail_bps is not None
    extreme = trigger.extreme
    if extreme is not None:
        gain = (seen - extreme) * -side.sign
        if gain * BPS < extreme * _STEP_BPS:
            return trigger
    price = seen * (1 + side.sign * trigger.trail_bps / BPS)
    before = trigger.price
    if before is not None:
        price = max(price, before) if side is Side.SELL else min(price, before)
    return msgspec.structs.replace(trigger, extreme=seen, price=_short(price))


def _short(price: Decimal) -> Decimal:
    """Twelve significant digits are finer than any tick; without the zeros that a venue's text may end in."""
    short = price.quantize(Decimal(1).scaleb(price.adjusted() - 11)).normalize()
    return short.quantize(Decimal(1)) if short == short.to_integral_value() else short
