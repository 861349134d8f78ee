"""The base of algorithms that say which orders should be at the venue now, and nothing else.

`work` names the orders wanted. What is there and not wanted is cancelled, what is wanted and not there is placed once the
quantity for it is certainly free: after the end of whatever held it, never before. Cancel requests, pauses, the order's end of
time, limits, slippage bounds, lots, minimums, refusals by the venue and dust are dealt with here, alike for all.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import TypeVar

import msgspec

from algorithms.base import Algorithm, Cancel, Decision, Done, Parameters, Place, View, When
from algorithms.bounds import BPS, better, breach, depth, within, worst_price
from schemas.market import ZERO, MarketRules
from schemas.order import ChildOrder, ChildState, OrderStatus
from schemas.terms import OrderType, Side, TimeInForce

REFUSALS = 5
"""So many refusals by the venue in a row end the order."""
REFUSED_PAUSE_MS = 500
"""After a refusal, or an order that did not reach the venue; doubled by each one that follows, up to REFUSED_MOST_MS."""
REFUSED_MOST_MS = 30_000
USABLE_AGAIN_MS = 5_000
"""A venue that cannot be sent orders is looked at again so late."""
RETAKE_MS = 250
"""Between two attempts to take from the same book, at least; and the book must have been renewed."""
RETAKE_MOST_MS = 2_000
"""A book that does not change is tried again after so long."""
_FAILED = (ChildState.REJECTED, ChildState.VOID)
_ENDED_THERE = (ChildState.CANCELED, ChildState.EXPIRED)
"""Without our asking, of a resting order: the venue, or somebody there, took it off."""


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """An order that should be at a venue. An order there with the same tag and price is left alone as it fills."""

    tag: str
    quantity: Decimal
    """What it should still be able to fill; an order there that could fill more is replaced."""
    price: Decimal | None
    """Limit price; None: whatever the market gives, within the order's bounds."""
    time_in_force: TimeInForce = TimeInForce.GTC
    post_only: bool = False
    venue: str | None = None
    """None: the home venue."""
    display_quantity: Decimal | None = None
    at_least: Decimal = ZERO
    """Not worth placing below this quantity; the venue's own minimum holds anyway."""

    @property
    def takes(self) -> bool:
        """Whether it trades at once or not at all."""
        return self.price is None or self.time_in_force in (TimeInForce.IOC, TimeInForce.FOK)


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What an algorithm wants now, and when it wants to be asked again."""

    wants: tuple[Want, ...] = ()
    wake_at: int | None = None
    wake_when: tuple[When, ...] = ()
    memory: msgspec.Struct | None = None
    """What to note; None: as before."""
    done: Done | None = None
    """Its time is over: what is left at the venue is cancelled, and then the order ends so."""
    waiting: str | None = None
    """Why it wants nothing, where something outside has to change first."""


P = TypeVar("P", bound=Parameters)
L = TypeVar("L", bound=msgspec.Struct)


class Worked(Algorithm[P, L]):
    """An algorithm that says what should be at the venue."""

    def work(self, plan: L, view: View) -> Work:
        """Which orders should be at the venue now."""
        raise NotImplementedError

    def decide(self, plan: L, view: View) -> Decision:
        order = view.order
        stop = _why_stop(view)
        if stop is not None:
            status, reason = stop
            # Once it has passed, there is nothing to wake for: what is awaited is the venue's word.
            wake_at = order.expires_at if order.expires_at is None or view.now < order.expires_at else None
            if view.live:
                return Decision(cancel=_cancels(view.live, reason), wake_at=wake_at)
            if _unsettled(view):
                return Decision(wake_at=wake_at)
            filled = _filled(view)
            if filled is not None:
                return Decision(done=filled)
            if status is None:
                return Decision(wake_at=order.expires_at)
            return Decision(done=Done(status, reason))
        if not view.live and not _unsettled(view):
            filled = _filled(view) or _too_little(view)
            if filled is not None:
                return Decision(done=filled)
            refused = _refused(view, len(order.routes) if self.routes else 1)
            if refused is not None:
                return Decision(done=refused)
        work = self.work(plan, view)
        return _carry(view, work)

    # --- words for `work` -------------------------------------------------------------------------------------------

    def take(
        self, view: View, quantity: Decimal, *, tag: str, slippage_bps: Decimal | None = None, venue: str | None = None
    ) -> Want:
        """Trade a quantity at once: at the far touch and up to `slippage_bps` behind it, within the order's bounds."""
        market = view.markets.get(venue, view.market) if venue is not None else view.market
        far, side = market.far(view.order.side), view.order.side
        price = None
        if far is not None and slippage_bps is not None:
            reach = far * (1 + side.sign * slippage_bps / BPS)
            # Away from the touch at most by the allowance, but never short of the touch itself.
            price = (
                max(far, market.rules.round_price(reach, side))
                if side is Side.BUY
                else min(far, market.rules.round_price(reach, side))
            )
        return Want(tag=tag, quantity=quantity, price=price, time_in_force=TimeInForce.IOC, venue=venue)

    def rest(
        self,
        view: View,
        quantity: Decimal,
        price: Decimal,
        *,
        tag: str,
        venue: str | None = None,
        post_only: bool = True,
    ) -> Want:
        """Rest a quantity at a price, or at the order's own bound where that is the tighter one."""
        bound = worst_price(view.order)
        if not within(view.order.side, price, bound):
            assert bound is not None
            price = bound
        rounded = view.rules_of(venue).round_price(price, view.order.side)
        return Want(tag=tag, quantity=quantity, price=rounded, venue=venue, post_only=post_only)


# --- the order's own end ------------------------------------------------------------------------------------------------


def _why_stop(view: View) -> tuple[OrderStatus | None, str] | None:
    """Why nothing may work now, with the status the order ends in; None as status: it only rests."""
    order = view.order
    if order.cancel_requested:
        return OrderStatus.CANCELED, order.cancel_reason or "canceled on request"
    if order.expires_at is not None and view.now >= order.expires_at:
        return OrderStatus.EXPIRED, "its time ran out"
    if order.paused:
        return None, "paused"
    return None


def _unsettled(view: View) -> bool:
    """Whether something may have been traded that is not booked yet."""
    return bool(view.totals.unknown or view.totals.open)


def _filled(view: View) -> Done | None:
    """The end of an order of which nothing is left that could be traded."""
    free = view.free
    if free <= 0:
        excess = -free
        return Done(
            OrderStatus.FILLED, f"{excess:f} more had filled before the amendment took hold" if excess else None
        )
    if not view.totals.filled:
        return None
    reason = None
    for venue in reversed(view.order.routes):
        reason = _dust(view, venue, free)
        if reason is None:
            return None
    return Done(OrderStatus.FILLED, f"the rest of {free:f} is dust: {reason}")


def _dust(view: View, venue: str, quantity: Decimal) -> str | None:
    """Why a venue would not trade so little; None: it would, as far as is known."""
    rules, market, limit = view.rules_of(venue), view.markets.get(venue), view.order.limit_price
    mid = market.mid if market is not None else None
    # At the price it would have now: a buy does not pay its limit where the market is below it.
    price = better(view.order.side, limit, mid) if limit is not None and mid is not None else limit or mid
    refusal = rules.refusal(rules.round_quantity(quantity, OrderType.LIMIT), OrderType.LIMIT, price)
    return refusal[1] if refusal is not None and refusal[0] == "quantity" and not _too_much(rules, quantity) else None


def _too_little(view: View) -> Done | None:
    """The end of an order that no venue would trade any of, and of which nothing is filled."""
    if view.totals.filled or view.free != view.order.quantity:
        return None
    reason = None
    for venue in reversed(view.order.routes):
        reason = _dust(view, venue, view.free)
        if reason is None:
            return None
    return Done(OrderStatus.REJECTED, reason, "quantity")


def _too_much(rules: MarketRules, quantity: Decimal) -> bool:
    return bool(rules.max_quantity and quantity > rules.max_quantity)


def _refused(view: View, venues: int) -> Done | None:
    """The end of an order that is refused again and again; one venue of several may refuse while the others only wait."""
    refusals = _streak(view, ChildState.REJECTED)
    if refusals < REFUSALS * venues:
        return None
    reason = view.children[-1].reason
    status = OrderStatus.FAILED if view.totals.filled else OrderStatus.REJECTED
    return Done(status, f"{refusals} orders in a row were refused: {reason}")


def _streak(view: View, state: ChildState, venue: str | None = None) -> int:
    """How many of the latest children, of a venue or of all, ended in a state in a row.

    A maker that would have taken is no refusal of the order.
    """
    count = 0
    for child in reversed(view.children[-50:]):
        if venue is not None and child.venue != venue:
            continue
        if child.state is not state or (state is not ChildState.REJECTED and child.cancel_requested):
            break
        count += not child.would_take
    return count


# --- from wants to placements ---------------------------------------------------------------------------------------------


def _carry(view: View, work: Work) -> Decision:
    """Turn what is wanted into what is to be done about it."""
    order = view.order
    wanted = {(want.tag, want.venue or order.home): want for want in work.wants} if work.done is None else {}
    cancel: list[Cancel] = []
    held: dict[tuple[str, str], Decimal] = {}
    for child in view.live:
        identity = (child.tag, child.venue)
        want = wanted.get(identity)
        if want is not None and identity in held:
            # One that was written off and turned up: both together do not fill more than is wanted.
            want = msgspec.structs.replace(want, quantity=max(want.quantity - held[identity], ZERO))
        held[identity] = held.get(identity, ZERO) + child.leaves
        reason = _misfit(view, child, want)
        if reason is not None and not child.cancel_requested:
            cancel.append(Cancel(child.child_id, reason))
    place: list[Place] = []
    waiting, breached = work.waiting, None
    wake_at, wake_when = work.wake_at, list(work.wake_when)
    free = view.free
    for identity, want in wanted.items():
        if identity in held:
            continue
        pause = _pause(view, want)
        if pause is not None:
            wake_at = _sooner(wake_at, pause)
            if want.takes:
                wake_when.append(When(source="book", venue=want.venue))
            continue
        made = _place(view, want, free)
        if isinstance(made, Place):
            place.append(made)
            free -= made.quantity
            waiting = None
        elif made is not None:
            waiting, breached = made
            wake_when.append(When(source="book", venue=want.venue))
            market = view.markets.get(identity[1])
            if market is not None and not market.usable:
                wake_at = _sooner(wake_at, view.now + USABLE_AGAIN_MS)  # its book may stand still meanwhile
        elif want.takes:
            wake_when.append(When(source="book", venue=want.venue))  # it may show more then
            waiting = waiting or f"too little of {order.symbol} to trade is offered at {identity[1]}"
        elif not place and not view.live and waiting is None:
            waiting = f"{want.quantity:f} is less than {identity[1]} trades of {order.symbol}"
    if breached is not None and order.slippage_policy == "end":
        end = Done(OrderStatus.CANCELED, waiting)
        if not view.live:
            if _unsettled(view):
                return Decision(memory=work.memory)
            return Decision(done=end, breach_bps=breached, memory=work.memory)
        cancel = list(_cancels(view.live, waiting or ""))
        place = []
    if work.done is not None and not view.live:
        if _unsettled(view):
            return Decision(memory=work.memory)
        return Decision(done=_filled(view) or work.done, memory=work.memory)
    return Decision(
        place=tuple(place),
        cancel=tuple(cancel),
        wake_at=_sooner(wake_at, order.expires_at),
        wake_when=tuple(dict.fromkeys(wake_when)),
        memory=work.memory,
        waiting=waiting,
        breach_bps=breached,
    )


def _misfit(view: View, child: ChildOrder, want: Want | None) -> str | None:
    """Why an order at the venue is not what is wanted there; None: it is, or it ends by itself at once."""
    if child.time_in_force is not TimeInForce.GTC or child.order_type is OrderType.MARKET:
        return None
    if want is None:
        return "no longer wanted"
    if want.takes:
        return "to be taken at once instead"
    if child.price != want.price:
        return f"moves to {want.price:f}" if want.price is not None else "moves"
    if child.leaves > view.rules_of(child.venue).round_quantity(want.quantity, OrderType.LIMIT):
        return f"shrinks to {want.quantity:f}"
    if child.amendment < view.order.amendments and child.leaves > view.order.quantity - view.totals.filled:
        return "amended"
    return None


def _pause(view: View, want: Want) -> int | None:
    """Until when (ms) a want has to wait for its turn; None: it need not."""
    last = _last(view, want)
    if last is None:
        return None
    gone = last.state in _ENDED_THERE and not want.takes and not last.executed and last.tag == want.tag
    if last.state in _FAILED or gone:
        if last.cancel_requested:
            return None
        failures = 1 if gone else min(max(_streak(view, last.state, last.venue), 1), 10)
        until = last.updated_at + min(REFUSED_PAUSE_MS * 2 ** (failures - 1), REFUSED_MOST_MS)
        return until if view.now < until else None
    if want.takes and (last.time_in_force is TimeInForce.IOC or last.order_type is OrderType.MARKET):
        market = view.markets.get(want.venue or view.order.home)
        renewed = market is not None and market.book_at > last.updated_at
        until = last.created_at + (RETAKE_MS if renewed else RETAKE_MOST_MS)
        return until if view.now < until else None
    return None


def _last(view: View, want: Want) -> ChildOrder | None:
    """The latest child at the same venue that was meant for the same."""
    tag, venue = want.tag, want.venue or view.order.home
    for child in reversed(view.children[-64:]):
        if (child.tag == tag or child.state in _FAILED) and child.venue == venue:
            return child
    return None


def _place(view: View, want: Want, free: Decimal) -> Place | tuple[str, Decimal | None] | None:
    """The order for a want; or why it cannot be, with the slippage if that is why; None: too little to place."""
    order, venue = view.order, want.venue or view.order.home
    market, rules, side = view.markets.get(venue), view.rules_of(venue), view.order.side
    if market is not None and not market.usable:
        return f"{venue} cannot be sent orders now", None
    price, quantity = want.price, min(want.quantity, free)
    bound = worst_price(order)
    if order.max_slippage_bps is not None and order.arrival is None:
        return f"no price of {order.symbol} is known to measure slippage by", None
    if want.takes and order.post_only:
        return f"it may only make, and nothing rests at {venue} now", None
    if want.takes:
        if market is None or market.book is None:
            if bound is None and price is None:
                return f"the market of {order.symbol} at {venue} is not known", None
        else:
            blocked = _too_dear(view, market.far(side), want, bound)
            if blocked is not None:
                return blocked
            if order.max_slippage_bps is not None:
                # Only what the book shows within the bound: the rest waits for what comes after.
                shown = depth(market.book.opposite(side), side, bound)
                quantity = min(quantity, shown) if shown else quantity
        if price is None or not within(side, price, bound):
            price = bound
    elif price is not None and not within(side, price, bound):
        return f"{price:f} is beyond the worst price allowed, {bound:f}", breach(view, price)
    if price is not None:
        price = rules.round_price(price, side)
    kind = OrderType.LIMIT if price is not None else OrderType.MARKET
    if rules.max_quantity:
        quantity = min(quantity, rules.max_quantity)
    if kind is OrderType.MARKET and rules.market_max_quantity:
        quantity = min(quantity, rules.market_max_quantity)
    quantity = rules.round_quantity(quantity, kind)
    judged = price if price is not None else (market.mid if market is not None else None)
    if quantity < want.at_least or rules.refusal(quantity, OrderType.LIMIT, judged) is not None:
        return None
    if kind is OrderType.MARKET and rules.refusal(quantity, kind, None) is not None:
        return None
    display = want.display_quantity
    return Place(
        quantity=quantity,
        order_type=kind,
        price=price,
        time_in_force=want.time_in_force if kind is OrderType.LIMIT else TimeInForce.GTC,
        post_only=(want.post_only or order.post_only) and not want.takes,
        venue=venue,
        tag=want.tag,
        display_quantity=display if display is not None and display < quantity else None,
        reduce_only=order.reduce_only,
    )


def _too_dear(view: View, far: Decimal | None, want: Want, bound: Decimal | None) -> tuple[str, Decimal | None] | None:
    """Why the market is out of reach, with the slippage where that is the reason."""
    order = view.order
    if far is None:
        return f"nobody offers {order.symbol} at {want.venue or order.home}", None
    cost = breach(view, far)
    if cost is not None:
        return (
            f"slippage of {cost:f} bps against the arrival price {order.arrival:f} is above {order.max_slippage_bps:f}",
            cost,
        )
    if not within(order.side, far, bound):
        return f"the market is at {far:f}, beyond the limit {bound:f}", None
    return None


def _cancels(live: Iterable[ChildOrder], reason: str) -> tuple[Cancel, ...]:
    return tuple(Cancel(child.child_id, reason) for child in live if not child.cancel_requested)


def _sooner(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return one if other is None else other
    return min(one, other)
