"""What one venue's order book offers an order: its levels within the limit, its whole lots, and what its rules allow."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from enum import StrEnum

import msgspec

from schemas.market import MarketRules, OrderBook
from schemas.terms import Side

ZERO = Decimal(0)
ONE = Decimal(1)


class Unused(StrEnum):
    """Why a venue gets nothing, in words."""

    CLOSED = "not trading"
    EMPTY = "empty book"
    DISTRUSTED = "its book is not trusted"
    LIMIT = "beyond the limit"
    PRICE_BOUNDS = "outside its price bounds"
    BALANCE = "no balance"
    LOT = "below its lot"
    MINIMUM = "below its minimum"
    DEARER = "dearer after fees"
    DEARER_PRICE = "dearer by price"
    NOT_CHOSEN = "another venue alone is better"


class RouteVenue(msgspec.Struct, frozen=True, kw_only=True):
    """A venue that could take a part of an order, as it is known now."""

    name: str
    rules: MarketRules
    """Its taker fee is a fraction of the notional, and may be negative: a rebate."""
    book: OrderBook
    available: Decimal | None = None
    """What the account has to spend there: quote asset for a buy, base asset for a sell. None: unknown, taken as enough."""
    haircut: Decimal = ZERO
    """The fraction of each level that is not to be trusted (0: all is; 1: nothing is), as with a book that is old."""


class Level(msgspec.Struct, frozen=True):
    """What can be traded at one price."""

    price: Decimal
    quantity: Decimal
    """What is left of it after the haircut."""
    reach: Decimal
    """The limit price an order needs to trade here: the price, or the next one on the tick beyond it."""


class Depth(msgspec.Struct, frozen=True):
    """What a venue can take of an order."""

    venue: RouteVenue
    levels: tuple[Level, ...]
    """Best first, no deeper than the asked quantity."""
    lot: Decimal
    allowed: tuple[tuple[int, int], ...]
    """From how many whole lots to how many an order may have: ascending, apart from each other."""
    unused: Unused | None
    """Why nothing is allowed."""

    def largest(self, quantity: Decimal) -> int:
        """The most lots that are allowed and not above `quantity`; 0 when there are none."""
        most = int(quantity // self.lot)
        return max((min(high, most) for low, high in self.allowed if low <= most), default=0)


def measure(side: Side, quantity: Decimal, venues: Sequence[RouteVenue], limit: Decimal | None) -> list[Depth]:
    """What each venue can take of an order for `quantity` at prices up to `limit`.

    A venue that sets no lot is given one: the finest step that the quantity, any lot or any level used is written in.
    """
    levels = [_levels(side, quantity, venue, limit) for venue in venues]
    lots = [venue.rules.lot for venue in venues]
    if not all(lots):
        numbers = [quantity, *(lot for lot in lots if lot), *(level.quantity for book in levels for level in book)]
        finest = ONE.scaleb(min(0, *(exponent(number) for number in numbers)))
        lots = [lot or finest for lot in lots]
    return [_depth(side, quantity, *each) for each in zip(venues, levels, lots, strict=True)]


def exponent(number: Decimal) -> int:
    """The power of ten of the last digit a number is written with."""
    power = number.as_tuple().exponent
    assert isinstance(power, int)
    return power


def _levels(side: Side, quantity: Decimal, venue: RouteVenue, limit: Decimal | None) -> tuple[Level, ...]:
    rules, trusted = venue.rules, 1 - venue.haircut
    rounding = ROUND_CEILING if side is Side.BUY else ROUND_FLOOR
    used: list[Level] = []
    depth = ZERO
    # Sorted once more: a wrong order would make the split wrong without a sign of it.
    for shown in sorted(venue.book.opposite(side), key=lambda level: level.price * side.sign):
        if shown.quantity <= 0 or shown.price <= 0:
            continue
        price = shown.price
        if rules.tick and price % rules.tick:
            price = (price / rules.tick).to_integral_value(rounding) * rules.tick
        if price <= 0 or (limit is not None and (price - limit) * side.sign > 0):
            break
        if trusted:
            used.append(Level(shown.price, shown.quantity * trusted, price))
            depth += used[-1].quantity
        if depth >= quantity:
            break
    return tuple(used)


def _depth(side: Side, quantity: Decimal, venue: RouteVenue, levels: tuple[Level, ...], lot: Decimal) -> Depth:
    allowed = _allowed(side, quantity, venue, levels, lot, funds=True) if venue.rules.active else []
    unused = None
    if not allowed:
        unused = _why_not(side, quantity, venue, levels, lot)
    return Depth(venue, levels, lot, tuple(allowed), unused)


def _allowed(
    side: Side, quantity: Decimal, venue: RouteVenue, levels: Sequence[Level], lot: Decimal, *, funds: bool
) -> list[tuple[int, int]]:
    """The numbers of lots the venue accepts as a limit order at the worst price they walk to.

    Level by level, as that price decides the notional and what has to be available for it. A minimum notional can allow,
    forbid and allow again as the quantity grows: a sell's limit price falls with it.
    """
    rules = venue.rules
    most = quantity
    if rules.max_quantity:
        most = min(most, rules.max_quantity)
    spend = venue.available if funds else None
    if spend is not None and side is Side.SELL:
        most, spend = min(most, max(spend, ZERO)), None
    # A venue sets aside what the limit price may cost, and the fee where it is paid in the same asset.
    aside = ONE if rules.fee_in_base else 1 + max(rules.taker_fee, ZERO)
    ranges: list[tuple[int, int]] = []
    depth, below = ZERO, 0
    for level in levels:
        depth += level.quantity
        low, below = below + 1, int(depth // lot)
        high = min(below, int(most // lot))
        if level.reach < rules.min_price or (rules.max_price and level.reach > rules.max_price):
            continue
        if rules.min_quantity:
            low = max(low, _ceiling(rules.min_quantity, lot))
        if rules.min_notional:
            low = max(low, _ceiling(rules.min_notional, lot * level.reach))
        if spend is not None:
            high = min(high, int(max(spend, ZERO) // (lot * level.reach * aside)))
        if low > high:
            continue
        if ranges and ranges[-1][1] == low - 1:
            ranges[-1] = (ranges[-1][0], high)
        else:
            ranges.append((low, high))
    return ranges


def _ceiling(amount: Decimal, step: Decimal) -> int:
    whole, over = divmod(amount, step)
    return int(whole) + (over > 0)


def _why_not(side: Side, quantity: Decimal, venue: RouteVenue, levels: Sequence[Level], lot: Decimal) -> Unused:
    rules = venue.rules
    if not rules.active:
        return Unused.CLOSED
    if not any(level.quantity > 0 and level.price > 0 for level in venue.book.opposite(side)):
        return Unused.EMPTY
    if venue.haircut == 1:
        return Unused.DISTRUSTED
    if not levels:
        return Unused.LIMIT
    if all(level.reach < rules.min_price or (rules.max_price and level.reach > rules.max_price) for level in levels):
        return Unused.PRICE_BOUNDS
    if min(quantity, sum((level.quantity for level in levels), ZERO)) < lot:
        return Unused.LOT
    if _allowed(side, quantity, venue, levels, lot, funds=False):
        return Unused.BALANCE
    return Unused.MINIMUM
