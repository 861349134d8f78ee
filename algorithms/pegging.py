"""Where an order rests that follows a price, and when it moves: for algorithms that keep one order near the market.

It moves only when the price it should have differs from the price it has by the threshold, and not before the interval has
passed since it was placed. A move gives up the place in the queue, so neither happens at every change of the book. While
nothing is to be done, the order waits for the price at which it would have to move.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import ROUND_CEILING, Context, Decimal

import msgspec

from algorithms.base import Market, View, When
from algorithms.bounds import BPS, better, worst_price
from schemas.market import ZERO, MarketRules
from schemas.order import ChildOrder, ChildState
from schemas.terms import Side

TOUCH, MID, OPPOSITE, FIXED = "touch", "mid", "opposite", "fixed"

LOOK_AGAIN_MS = 5_000
"""What no price bound tells (others left the touch to this order alone) is looked at this often."""
REFUSED_PAUSE_MS = 500
"""After a maker order that the venue did not keep; doubled with every step away from the market, up to REFUSED_MOST_MS."""
REFUSED_MOST_MS = 30_000
_ENDED_BY_VENUE = (ChildState.REJECTED, ChildState.EXPIRED, ChildState.CANCELED)
_SHORT = Context(prec=28)
_ROUND_UP = Context(prec=28, rounding=ROUND_CEILING)


class Resting(msgspec.Struct, frozen=True, kw_only=True):
    """What a pegged order should be now, and when to ask again."""

    price: Decimal | None = None
    """None: nothing is to be placed now."""
    wake_at: int | None = None
    wake_when: tuple[When, ...] = ()
    waiting: str | None = None


class Pegging(msgspec.Struct, frozen=True, kw_only=True):
    """How an order follows the market."""

    reference: str
    """`touch` (of its own side, without its own orders), `mid`, `opposite`, or `fixed`: the order's own limit price."""
    offset_bps: Decimal = ZERO
    """Positive: further from the market."""
    offset_ticks: int = 0
    requote_bps: Decimal = Decimal("0.5")
    """It moves when the price differs by this much, and by a tick."""
    min_interval_ms: int = 500
    post_only: bool = True
    """Stay one tick behind the opposite touch, so that it does not take."""
    furthest: Decimal | None = None
    """The worst price it may follow to, beside the order's own bounds."""
    max_rejects: int = 5
    """So many orders in a row that the venue did not keep move it one tick away."""

    def follow(self, view: View, tag: str) -> Resting:
        """Where the order of a tag should rest now."""
        order, market, side = view.order, view.market, view.order.side
        live = next((child for child in view.live if child.tag == tag and child.price is not None), None)
        here = live.price if live is not None and not live.cancel_requested else None
        rejects = refused_makers(view, tag)
        seen = self._reference(view)
        if seen is None:
            missing = "is not known" if market.book is None else "has nobody to follow"
            return Resting(
                price=here,
                wake_when=(When(source="book"),),
                waiting=f"the market of {order.symbol} at {market.venue} {missing}" if here is None else None,
            )
        wanted, unclipped = self._price(view, seen, rejects // self.max_rejects)
        if here is None:
            until = _refused_until(view, tag, rejects, self.max_rejects)
            if until is not None and view.now < until:
                return Resting(wake_at=until)
            return Resting(price=wanted, wake_at=view.now + LOOK_AGAIN_MS)
        assert live is not None
        fixed = self.reference == FIXED and wanted == unclipped
        threshold = _step(market.rules, here)  # an amended limit is meant to the tick
        if not fixed:
            # In whole ticks, so that the price to be woken at is exactly the price to move at.
            ticks = (here * self.requote_bps / BPS / threshold).to_integral_value(ROUND_CEILING)
            threshold *= max(ticks, Decimal(1))
        if _gap(side, here, wanted, unclipped) >= threshold:
            due = live.created_at + self.min_interval_ms
            return Resting(price=wanted) if view.now >= due else Resting(price=here, wake_at=due)
        return Resting(
            price=here,
            wake_at=view.now + LOOK_AGAIN_MS if not fixed else None,
            wake_when=self._until(market, side, here, threshold, behind=wanted != unclipped),
        )

    def _reference(self, view: View) -> Decimal | None:
        """The price that it follows; None: not known."""
        if self.reference == FIXED:
            hold = (self.post_only or view.order.post_only) and view.market.book is None
            return view.order.limit_price if not hold else None
        far = view.market.far(view.order.side)
        if self.reference == OPPOSITE:
            return far
        near = others_touch(view)
        if self.reference == TOUCH or near is None:
            return near
        return (near + far) / 2 if far is not None else None

    def unbounded(self, view: View) -> Decimal | None:
        """Where it would rest without any bound, off the tick; None: not known."""
        seen = self._reference(view)
        return self._offset(seen, view) if seen is not None else None

    def _offset(self, seen: Decimal, view: View) -> Decimal:
        side, step = view.order.side, _step(view.market.rules, seen)
        return seen * self._factor(side) - side.sign * self.offset_ticks * step

    def _factor(self, side: Side) -> Decimal:
        return 1 - side.sign * self.offset_bps / BPS

    def _price(self, view: View, seen: Decimal, away: int) -> tuple[Decimal, Decimal]:
        """The price to rest at, and what it were without the opposite side; `away`: ticks further from the market."""
        order, market, side = view.order, view.market, view.order.side
        rules, far = market.rules, market.far(side)
        step = _step(rules, seen)
        price = rules.round_price(self._offset(seen, view), side)
        bound = worst_price(order, self.furthest)
        if bound is not None:
            price = better(side, price, rules.round_price(bound, side))
        clipped = price
        if (self.post_only or order.post_only) and far is not None:
            clipped = better(side, price, rules.round_price(far - side.sign * step, side))
        clipped -= side.sign * away * step
        return max(clipped, step), price

    def reaching(self, view: View, price: Decimal) -> tuple[When, ...]:
        """What to be woken by when it would rest at a price, or beyond it, if nothing bounded it."""
        market, side = view.market, view.order.side
        source, raw = self._source(market, side)
        at = self._behind(price, market, side)
        if raw is not None and side.sign * (raw - at) >= 0:
            return ()
        above, below = (at, None) if side is Side.BUY else (None, at)
        return (When(source=source, at_or_above=above, at_or_below=below),)

    def _source(self, market: Market, side: Side) -> tuple[str, Decimal | None]:
        """What the reference is called in a `When`, and its price now, with the own orders in it."""
        if self.reference == MID:
            return "mid", market.mid
        bid = (self.reference == TOUCH) is (side is Side.BUY)
        return ("bid", market.bid) if bid else ("ask", market.ask)

    def _behind(self, price: Decimal, market: Market, side: Side) -> Decimal:
        """The reference's price with which it would rest at a price."""
        shift = side.sign * self.offset_ticks * _step(market.rules, price)
        return _SHORT.divide(price + shift, self._factor(side))

    def _until(
        self, market: Market, side: Side, here: Decimal, threshold: Decimal, *, behind: bool
    ) -> tuple[When, ...]:
        """The prices at which the order would have to move. One that holds already says nothing, and is left out."""
        far, far_source = market.far(side), "ask" if side is Side.BUY else "bid"
        whens = []
        beyond = here + side.sign * (threshold + _step(market.rules, here))
        if behind and far is not None and side.sign * (far - beyond) < 0:
            # Held back by the opposite touch: it may go on when that gives way.
            whens.append(
                When(source=far_source, at_or_above=beyond)
                if side is Side.BUY
                else When(source=far_source, at_or_below=beyond)
            )
        if self.reference == FIXED:
            return tuple(whens)
        # Rounding goes away from the market, so nearly a tick more is needed on one of the two sides.
        slack = market.rules.tick * Decimal("0.999")
        up = self._behind(here + threshold - (slack if side is Side.SELL else 0), market, side)
        down = self._behind(here - threshold + (slack if side is Side.BUY else 0), market, side)
        source, raw = self._source(market, side)
        above = up if raw is None or raw < up else None
        below = down if raw is None or raw > down else None
        if above is not None or below is not None:
            whens.append(When(source=source, at_or_above=above, at_or_below=below))
        return tuple(whens)


def others_touch(view: View) -> Decimal | None:
    """The best price of the order's own side at which somebody else rests; None: nobody does, or not known.

    An order that followed a touch made by itself alone would follow itself.
    """
    market, side = view.market, view.order.side
    if market.book is None:
        return None
    own: dict[Decimal, Decimal] = {}
    for child in _recent(view.children):
        gone = child.state.terminal and child.updated_at < market.book_at
        unseen = child.created_at >= market.book_at
        if child.price is not None and not gone and not unseen:
            own[child.price] = own.get(child.price, ZERO) + child.quantity - child.executed
    for level in market.book.opposite(side.opposite):
        if level.quantity > own.get(level.price, ZERO):
            return level.price
    return None


def refused_makers(view: View, tag: str) -> int:
    """How many of the latest orders of a tag, in a row, ended unfilled at once without having been cancelled by us.

    Venues tell a maker order that would have taken as rejected, expired or cancelled.
    """
    count = 0
    for child in _recent(view.children):
        if child.tag != tag:
            continue
        if not _not_kept(child):
            break
        count += 1
    return count


def least_quantity(rules: MarketRules, price: Decimal | None) -> Decimal:
    """The smallest quantity that the venue takes at a price; without one, its notional is not judged."""
    least = max(rules.min_quantity, rules.lot)
    if price and rules.min_notional:
        least = max(least, _ROUND_UP.divide(rules.min_notional, price))
    return (least / rules.lot).to_integral_value(ROUND_CEILING) * rules.lot if rules.lot else least


def _recent(children: Sequence[ChildOrder]) -> Iterable[ChildOrder]:
    return reversed(children[-64:])


def _not_kept(child: ChildOrder) -> bool:
    return child.state in _ENDED_BY_VENUE and not child.cancel_requested and not child.executed


def _refused_until(view: View, tag: str, rejects: int, max_rejects: int) -> int | None:
    """Until when (ms) to leave the venue alone."""
    if not rejects:
        return None
    last = next(child for child in _recent(view.children) if child.tag == tag)
    return last.updated_at + min(REFUSED_PAUSE_MS << (rejects // max_rejects), REFUSED_MOST_MS)


def _gap(side: Side, here: Decimal, wanted: Decimal, unclipped: Decimal) -> Decimal:
    """How far an order is from where it should be. It is not taken away because the opposite touch comes to it: it fills."""
    if side.sign * (unclipped - here) < 0:
        return abs(unclipped - here)
    return max(side.sign * (wanted - here), ZERO)


def _step(rules: MarketRules, price: Decimal) -> Decimal:
    """A tick; a hundred-thousandth of the price where the venue has none."""
    return rules.tick or price.scaleb(-5)
