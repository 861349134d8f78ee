"""Smart order routing: one order over several venues, split so that it costs least after fees.

- `mode` sweep: what is within the limit is taken now, from all venues at once, with orders that trade immediately or not at
  all (IOC), one per venue and round. `algorithms.routing` splits it: by books, fees, lots, minimums and balances. What a venue
  did not fill is routed again, once the orders of the round have ended; the rest is swept again as books renew.
- `mode` post: what is within the limit is taken in the same way; what remains rests post-only at one venue's touch: the one
  whose touch, less its maker fee, is best; each bp behind the best touch counts as much as one bp of fee. It moves when another
  place is better by more than `repost_bps`. An order that may only make (`post_only`) just rests.

A book is trusted less as it ages beyond half of `stale_ms`: by half at `stale_ms`, then not at all. After an order at a venue its book must have been
renewed before it is taken from again; a new round waits up to a quarter of a second for that. A venue that refused an order,
or filled nothing of two in a row, is left out for half a second, doubled each time that follows; one that cannot be sent
orders is left out as long as that lasts. A venue with an order whose end is not known is left out until it is; the others go
on without it after two seconds.

Without a limit price an order takes only what is within `max_sweep_bps` of the best price of all venues, so that it does not
walk up an empty book; books that fill up again are swept again. While every venue is beyond the limit or the slippage bound,
or no book is known, it waits. When `duration_seconds` have passed it expires with what it has (`at_end` leave). An IOC order
is one round.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import combinations
from math import comb
from typing import ClassVar, Literal

import msgspec
from pydantic import Field

from algorithms.base import Done, Nothing, Parameters, Refusal, View, When
from algorithms.bounds import BPS, breach, within, worst_price
from algorithms.routing import Route, RouteLeg, RouteVenue, optimize
from algorithms.routing.resting import best_place, gain_bps, improves
from algorithms.routing.venues import Venue, assess, is_leg, started, wakes
from algorithms.worked import Want, Work, Worked
from schemas.market import ZERO, Candle, MarketRules
from schemas.order import ChildOrder, OrderStatus, ParentOrder
from schemas.terms import OrderType, Side, TimeInForce

SETTLE_MS = 250
"""A new round waits so long for the books of the last round's venues to be renewed."""
FIRST_BOOKS_MS = 1_500
PATIENCE_MS = 2_000
"""A round waits so long for all of its orders to end; after that, for what is free without them."""
MOST_CHOICES = 35
"""With `max_venues`: so many choices of venues are compared at most."""


class SmartRouterParameters(Parameters):
    mode: Literal["sweep", "post"] = Field(
        default="sweep", description="Take what is within the limit until filled, or rest what cannot be taken."
    )
    max_venues: int | None = Field(default=None, ge=1, description="A round uses no more venues (count).")
    child_slippage_bps: Decimal = Field(
        default=Decimal(2), ge=0, le=1000, description="How far beyond the worst price seen a child may trade, in bps."
    )
    max_sweep_bps: Decimal = Field(
        default=Decimal(50), gt=0, le=5000, description="Without a limit: how far from the best price it takes, in bps."
    )
    repost_bps: Decimal = Field(
        default=Decimal(2), ge=0, le=1000, description="Of post: it moves for a place better by more than this, in bps."
    )
    stale_ms: int = Field(default=10_000, ge=100, le=60_000, description="Books older than this are not used, in ms.")
    duration_seconds: int | None = Field(
        default=None, ge=1, le=30 * 86_400, description="After so long it expires with what it has; unset: no end."
    )
    at_end: Literal["leave"] = Field(default="leave", description="What is left at the end is left.")


class SmartRouterPlan(msgspec.Struct, frozen=True, kw_only=True):
    posts: bool
    takes: bool
    max_venues: int | None
    child_slippage_bps: Decimal
    max_sweep_bps: Decimal
    repost_bps: Decimal
    stale_ms: int
    duration_ms: int | None


class SmartRouter(Worked[SmartRouterParameters, SmartRouterPlan]):
    name: ClassVar[str] = "smart_router"
    Parameters = SmartRouterParameters
    Plan = SmartRouterPlan
    Memory = Nothing
    routes: ClassVar[bool] = True

    def plan(
        self, order: ParentOrder, parameters: SmartRouterParameters, rules: MarketRules, history: Sequence[Candle]
    ) -> SmartRouterPlan:
        posts = parameters.mode == "post"
        if order.time_in_force is TimeInForce.FOK:
            raise Refusal("time_in_force", "several venues cannot fill all or nothing: FOK does not fit")
        if posts and order.time_in_force is TimeInForce.IOC:
            raise Refusal("time_in_force", "what may not rest cannot be posted: IOC does not fit")
        if order.post_only and not posts:
            raise Refusal("post_only", "a sweep takes: it needs the mode post")
        return SmartRouterPlan(
            posts=posts,
            takes=not order.post_only,
            max_venues=parameters.max_venues,
            child_slippage_bps=parameters.child_slippage_bps,
            max_sweep_bps=parameters.max_sweep_bps,
            repost_bps=parameters.repost_bps,
            stale_ms=parameters.stale_ms,
            duration_ms=parameters.duration_seconds * 1000 if parameters.duration_seconds is not None else None,
        )

    def notes(self, order: ParentOrder) -> tuple[str, ...]:
        said = [f"routed over {', '.join(order.routes)}"]
        if order.limit_price is None and not order.post_only:
            reach = SmartRouterParameters.model_validate(order.algorithm_params).max_sweep_bps
            said.append(f"without a limit it takes what is within {reach:f} bps of the best price")
        return tuple(said)

    def work(self, plan: SmartRouterPlan, view: View) -> Work:
        end = started(view.order) + plan.duration_ms if plan.duration_ms is not None else None
        if end is not None and view.now >= end:
            return Work(done=Done(OrderStatus.EXPIRED, "its time ran out"))
        work = self._routed(plan, view)
        at = [moment for moment in (work.wake_at, end) if moment is not None]
        return msgspec.structs.replace(work, wake_at=min(at, default=None))

    def _routed(self, plan: SmartRouterPlan, view: View) -> Work:
        posts = [child for child in view.live if not is_leg(child)]
        kept = tuple(_keep(child) for child in posts if not child.cancel_requested)
        legs = _last_round(view)
        unfinished = _unfinished(view, legs)
        if unfinished is not None:
            return msgspec.structs.replace(unfinished, wants=kept)
        once = view.order.time_in_force is TimeInForce.IOC
        if once and view.children:
            return Work(done=Done(OrderStatus.EXPIRED, "what could not be taken at once expired"))
        venues = [
            assess(view, view.markets[name], posts, stale_ms=plan.stale_ms, slippage_bps=plan.child_slippage_bps)
            for name in sorted(view.markets)
        ]
        if not view.children and plan.takes:
            first = _first_books(view)
            if first is not None:
                return first
        settling = _settling(view, legs, venues)
        if settling is not None:
            return msgspec.structs.replace(settling, wants=kept)
        quantity = view.free + sum((child.leaves for child in posts), ZERO)
        bound = _bound(plan, view, venues)
        route = _best(plan, view.order.side, quantity, [venue.open for venue in venues if venue.open], bound)
        if plan.takes and route is not None and route.legs:
            if posts and route.routed > view.free:
                return Work()  # what rests ends first
            number = _round(legs) + 1
            wants = tuple(_leg(plan, view, leg, number, bound) for leg in route.legs)
            return Work(wants=kept + wants)
        if once and route is not None:
            return Work(done=Done(OrderStatus.EXPIRED, "nothing could be taken at once"))
        blocked = wakes(view, venues, route, bound)
        if plan.posts:
            return self._posted(plan, view, venues, posts, blocked)
        if route is not None:
            judged = self._judged(view, venues, quantity, _round(legs) + 1)
            if judged is not None:
                return msgspec.structs.replace(judged, wake_at=blocked.wake_at, wake_when=blocked.wake_when)
        return blocked

    def _judged(self, view: View, venues: Sequence[Venue], quantity: Decimal, number: int) -> Work | None:
        """With every venue beyond the slippage bound: the best of them as a want, for the base to say what follows."""
        side = view.order.side
        fars = [(far, venue.market.venue) for venue in venues if venue.open and (far := venue.market.far(side))]
        if not fars or any(breach(view, far) is None for far, _ in fars):
            return None
        _, venue = min(fars, key=lambda each: each[0] * side.sign)
        return Work(wants=(self.take(view, quantity, tag=f"r{number}", venue=venue),))

    # --- what rests -----------------------------------------------------------------------------------------------------

    def _posted(
        self, plan: SmartRouterPlan, view: View, venues: Sequence[Venue], posts: Sequence[ChildOrder], blocked: Work
    ) -> Work:
        """Rest what cannot be taken at the best place, and leave alone what rests well enough."""
        bound, side = worst_price(view.order), view.order.side
        best = best_place(view, venues, view.free + sum((child.leaves for child in posts), ZERO))
        kept = [
            child
            for child in posts
            if view.free >= 0  # an amendment may have left less than what rests
            and not child.cancel_requested
            and child.price is not None
            and within(side, child.price, bound)
            and (best is None or gain_bps(view, child, best) <= plan.repost_bps)
        ]
        wants = [_keep(child) for child in kept]
        renewing = plan.takes and any(venue.renews for venue in venues)
        if len(kept) == len(posts) and not renewing:
            # Beside its own order at a venue only where that cannot have used up the balance.
            taken = {child.venue for child in kept if view.markets[child.venue].available is not None}
            place = best_place(view, [venue for venue in venues if venue.market.venue not in taken], view.free)
            if place is not None:
                number = view.children[-1].number + 1 if view.children else 1
                wants.append(self.rest(view, place.quantity, place.price, tag=f"post{number}", venue=place.venue))
        idle = not wants
        whens = list(blocked.wake_when) if plan.takes or idle else []
        whens += [
            when
            for child in kept[:1]
            for venue in venues
            if (when := improves(view, venue, child, plan.repost_bps)) is not None
        ]
        return Work(
            wants=tuple(wants),
            wake_at=blocked.wake_at if plan.takes or idle else None,
            wake_when=tuple(dict.fromkeys(whens)),
            waiting=blocked.waiting if idle else None,
        )


# --- rounds -----------------------------------------------------------------------------------------------------------------


def _last_round(view: View) -> list[ChildOrder]:
    """The orders of the last round."""
    legs: list[ChildOrder] = []
    for child in reversed(view.children):
        if is_leg(child):
            if legs and child.tag != legs[0].tag:
                break
            legs.append(child)
    return legs


def _round(legs: Sequence[ChildOrder]) -> int:
    return int(legs[0].tag[1:]) if legs else 0


def _unfinished(view: View, legs: Sequence[ChildOrder]) -> Work | None:
    """While orders of the last round may still fill, and it is not certain that this takes long."""
    live = [child for child in legs if not child.state.terminal]
    if not live:
        return None
    until = live[0].created_at + PATIENCE_MS
    if view.free <= 0 or view.now < until:
        return Work(wake_at=until if view.now < until else None)
    return None


def _first_books(view: View) -> Work | None:
    """For a moment after its beginning an order waits for the books it has not seen yet: a better one may be among them."""
    until = started(view.order) + FIRST_BOOKS_MS
    missing = [name for name, market in view.markets.items() if market.usable and market.book is None]
    if not missing or view.now >= until:
        return None
    return Work(wake_at=until, wake_when=tuple(When(source="book", venue=name) for name in missing))


def _settling(view: View, legs: Sequence[ChildOrder], venues: Sequence[Venue]) -> Work | None:
    """While the books of the last round's venues may be about to be renewed."""
    if not legs:
        return None
    until = max(child.updated_at for child in legs) + SETTLE_MS
    whens = tuple(venue.wake_when for venue in venues if venue.renews and venue.wake_when is not None)
    if not whens or view.now >= until:
        return None
    return Work(wake_at=until, wake_when=whens)


def _leg(plan: SmartRouterPlan, view: View, leg: RouteLeg, number: int, bound: Decimal | None) -> Want:
    """The order for a leg: at its worst price and somewhat beyond it, within the bound."""
    side, rules = view.order.side, view.rules_of(leg.venue)
    price = leg.limit_price * (1 + side.sign * plan.child_slippage_bps / BPS)
    if bound is not None and not within(side, price, bound):
        price = bound
    price = rules.round_price(price, side)
    if rules.refusal(leg.quantity, OrderType.LIMIT, price) is not None:
        price = leg.limit_price  # a sell further down may be worth too little
    return Want(tag=f"r{number}", quantity=leg.quantity, price=price, time_in_force=TimeInForce.IOC, venue=leg.venue)


def _bound(plan: SmartRouterPlan, view: View, venues: Sequence[Venue]) -> Decimal | None:
    """The worst price of a round: the order's own; without a limit, not far from the best price of all."""
    side = view.order.side
    if view.order.limit_price is not None:
        return worst_price(view.order)
    fars = [far for venue in venues if venue.open is not None and (far := venue.market.far(side)) is not None]
    if not fars:
        return worst_price(view.order)
    best = min(fars, key=lambda far: far * side.sign)
    return worst_price(view.order, best * (1 + side.sign * plan.max_sweep_bps / BPS))


def _best(
    plan: SmartRouterPlan, side: Side, quantity: Decimal, venues: Sequence[RouteVenue], bound: Decimal | None
) -> Route | None:
    """The cheapest split, over no more venues than allowed; None: there is nothing to split, or nowhere to."""
    if quantity <= 0 or not venues:
        return None
    route = optimize(side, quantity, venues, limit=bound)
    most = plan.max_venues
    if most is None or len(route.legs) <= most:
        return route
    if comb(len(venues), most) > MOST_CHOICES:
        largest = {leg.venue for leg in sorted(route.legs, key=lambda leg: -leg.quantity)[:most]}
        return optimize(side, quantity, [venue for venue in venues if venue.name in largest], limit=bound)
    routes = (optimize(side, quantity, chosen, limit=bound) for chosen in combinations(venues, most))
    return min(routes, key=lambda each: (each.unrouted, each.cost * side.sign))


def _keep(child: ChildOrder) -> Want:
    return Want(tag=child.tag, quantity=child.leaves, price=child.price, post_only=child.post_only, venue=child.venue)
