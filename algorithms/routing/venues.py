"""Which venues an order may be routed to now, and what has to happen at the others first."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import msgspec

from algorithms.base import Market, View, When
from algorithms.bounds import BPS
from algorithms.routing import Route, RouteVenue, Unused
from algorithms.worked import REFUSED_MOST_MS, REFUSED_PAUSE_MS, RETAKE_MOST_MS, Work
from schemas.market import ZERO, MarketRules
from schemas.order import ChildOrder, ChildState, ParentOrder
from schemas.terms import Side

BALANCE_MS = 5_000
"""Balances are looked at again after so long."""
_FAILED = (ChildState.REJECTED, ChildState.VOID)


class Venue(msgspec.Struct, frozen=True, kw_only=True):
    """A venue as a round finds it."""

    market: Market
    open: RouteVenue | None = None
    """What the router may use of it; None: nothing now."""
    wake_at: int | None = None
    wake_when: When | None = None
    renews: bool = False
    """Whether only the renewal of its book is waited for."""


def started(order: ParentOrder) -> int:
    """When the order began to work, in ms: as it was accepted, or its trigger fired."""
    fired = order.trigger.fired_at if order.trigger is not None else None
    return fired if fired is not None else order.created_at


def is_leg(child: ChildOrder) -> bool:
    """Whether a child is part of a round, not one that rests."""
    return child.tag.startswith("r")


def assess(view: View, market: Market, posts: Sequence[ChildOrder], *, stale_ms: int, slippage_bps: Decimal) -> Venue:
    """What may be used of a venue now, or what has to happen first.

    `posts`: the order's own that rest; `slippage_bps`: how far beyond the worst price seen a leg may trade.
    """
    name, now = market.venue, view.now
    if not market.usable:
        idle = now - max((child.updated_at for child in view.children[-8:]), default=started(view.order))
        return Venue(market=market, wake_at=now + min(max(idle // 2, 2 * REFUSED_PAUSE_MS), REFUSED_MOST_MS))
    last = next((child for child in reversed(view.children[-64:]) if child.venue == name and is_leg(child)), None)
    if last is not None and not last.state.terminal:
        return Venue(market=market)  # woken by what becomes of it
    until = _left_out_until(view, name)
    if until is not None and now < until:
        return Venue(market=market, wake_at=until)
    changed = When(source="book", venue=name)
    age = max(now - market.book_at, 0)
    if market.book is None or age > stale_ms:
        return Venue(market=market, wake_when=changed)
    if last is not None and last.state not in _FAILED and market.book_at <= last.updated_at:
        again = last.created_at + RETAKE_MOST_MS
        if now < again:
            return Venue(market=market, wake_at=again, wake_when=changed, renews=True)
    return Venue(
        market=market,
        open=RouteVenue(
            name=name,
            rules=market.rules,
            book=market.book,
            available=_available(view.order.side, market, posts, slippage_bps),
            haircut=Decimal(max(10_000 * age // stale_ms - 5_000, 0)).scaleb(-4),
        ),
    )


def _left_out_until(view: View, venue: str) -> int | None:
    """Until when (ms) a venue is left out that refused its latest orders, or filled nothing of two legs or more in a row."""
    refused = missed = 0
    last = None
    for child in reversed(view.children[-64:]):
        if child.venue != venue or (child.cancel_requested and not child.executed):
            continue
        if child.state in _FAILED:
            refused += not child.post_only or child.state is ChildState.VOID
        elif is_leg(child) and child.state.terminal and not child.executed:
            missed += 1
        else:
            break
        last = last or child
    failures = max(refused + missed, 1) if last is not None and last.state in _FAILED else refused + missed - 1
    if last is None or failures < 1:
        return None
    return last.updated_at + min(REFUSED_PAUSE_MS << min(failures - 1, 10), REFUSED_MOST_MS)


def _available(side: Side, market: Market, posts: Sequence[ChildOrder], slippage_bps: Decimal) -> Decimal | None:
    """What could be spent on legs at a venue, with what its own resting orders have set aside."""
    if market.available is None:
        return None
    total = market.available
    for child in posts:
        if child.venue == market.venue and child.price is not None:
            total += child.leaves * (1 if side is Side.SELL else unit_cost(market.rules, child.price))
    # An order that may go beyond the worst price seen has more set aside than that price.
    return total / (1 + slippage_bps / BPS) if side is Side.BUY else total


def unit_cost(rules: MarketRules, price: Decimal) -> Decimal:
    """What a resting buy sets aside for each unit of the base asset."""
    return price * (1 if rules.fee_in_base else 1 + max(rules.maker_fee, ZERO))


def wakes(view: View, venues: Sequence[Venue], route: Route | None, bound: Decimal | None) -> Work:
    """What has to change before more can be taken, per venue: a price where that says it, else its book, or time.

    `route`: what was found, without legs; `bound`: the worst price it was found for.
    """
    if view.free <= 0 and all(is_leg(child) for child in view.live):
        return Work()
    whens, moments, beyond = [], [], bool(venues)
    for venue in venues:
        if venue.wake_at is not None:
            moments.append(venue.wake_at)
        if venue.wake_when is not None:
            whens.append(venue.wake_when)
        name = venue.market.venue
        reason = route.reason.get(name) if route is not None and venue.open is not None else None
        beyond = beyond and reason == Unused.LIMIT
        if reason == Unused.LIMIT and bound is not None:
            whens.append(reaches(view.order.side, bound, name))
        elif venue.open is not None:
            whens.append(When(source="book", venue=name))
        if reason == Unused.BALANCE:
            moments.append(view.now + BALANCE_MS)
    waiting = (
        f"{view.order.symbol} is beyond the limit at every venue" if beyond else "no venue can take more of it now"
    )
    return Work(
        wake_at=min(moments, default=None),
        wake_when=tuple(whens),
        waiting=None if any(venue.renews for venue in venues) else waiting,
    )


def reaches(side: Side, bound: Decimal, venue: str) -> When:
    """When a side could trade at a price or better."""
    if side is Side.BUY:
        return When(source="ask", at_or_below=bound, venue=venue)
    return When(source="bid", at_or_above=bound, venue=venue)
