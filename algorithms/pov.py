"""Percentage of volume: trade a fixed share of what the market trades, however long that takes.

With a participation rate r of the *total* volume, own fills included, the quantity meant to be done after others have traded V
since the start is F = r / (1 - r) x V (own volume is not counted twice). Every `interval_seconds` the order looks at the tape
and brings F up to date; between two looks it only works off what is due.

- `style` passive: rests at the touch (best bid of a buy), post-only, moved at the looks. Falls behind where nobody comes.
- `style` aggressive: takes what is due at each look, up to `child_slippage_bps` behind the far touch.
- `style` adaptive: rests like passive; what was due a look ago, has rested since and has not filled is taken, once it is more
  than half of what the last interval's volume asks for, or more than `max_child_quantity`. Not while nobody trades.
- `min_participation` and `max_participation` make a band around the rate: it rests up to the upper bound, never beyond it;
  between the bounds it does not cross; below the lower one it crosses, up to `participation`, in any style.

An order that may only make (`post_only`) never crosses. The order's limit and slippage bound hold at all times.

What is printed while the order is paused, while the market is beyond its limit, or while the tape is not known or had a gap is
never counted, so nothing is made up for later. Beyond means: of the side it would trade at, the far touch when aggressive,
else the own touch; the volume since the last look counts as beyond too. While the tape is missing nothing new becomes due, and
what is resting stays. When `duration_seconds` have passed, the rest is cancelled and the order expires with what it has:
volume decides, so there is no other `at_end` than `leave`.

The formula: Robert Kissell, The Science of Algorithmic Trading and Portfolio Management (2014), participation rate of total
volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_FLOOR, Decimal
from typing import ClassVar, Literal

import msgspec
from pydantic import Field, model_validator

from algorithms.base import Decision, Done, Parameters, Refusal, View, When
from algorithms.bounds import breach, within, worst_price
from algorithms.tape import TapeMemory, accrue
from algorithms.worked import Want, Work, Worked
from schemas.market import ZERO, Candle, MarketRules
from schemas.order import ChildOrder, OrderStatus, ParentOrder
from schemas.terms import OrderType, Side, TimeInForce

MOST_RESTING = 4
"""So many orders rest beside each other at most: one that is there keeps its place in the queue, what becomes due joins."""
_TAKE = "take"
_FINEST = Decimal("1e-18")
"""Finer than any lot."""


class PovParameters(Parameters):
    participation: Decimal = Field(
        default=Decimal("0.10"), gt=0, lt=1, description="Share of the total volume, own trades included (fraction)."
    )
    min_participation: Decimal | None = Field(
        default=None, gt=0, lt=1, description="Below this share of the total volume it crosses the spread (fraction)."
    )
    max_participation: Decimal | None = Field(
        default=None, gt=0, lt=1, description="It rests up to this share of the total volume, never more (fraction)."
    )
    min_child_quantity: Decimal | None = Field(
        default=None, gt=0, description="No child order is smaller, but the last one (units of the base asset)."
    )
    max_child_quantity: Decimal | None = Field(
        default=None, gt=0, description="No child order is larger (units of the base asset)."
    )
    interval_seconds: int = Field(default=5, ge=1, le=3600, description="How often it looks at the tape, in seconds.")
    style: Literal["passive", "aggressive", "adaptive"] = Field(
        default="adaptive", description="Rest at the touch, take at once, or rest first and take what stays behind."
    )
    child_slippage_bps: Decimal = Field(
        default=Decimal(5), ge=0, le=1000, description="How far behind the far touch a child that takes may go, in bps."
    )
    duration_seconds: int | None = Field(
        default=None, ge=1, le=30 * 86_400, description="After so long it expires with what it has; unset: no end."
    )
    at_end: Literal["leave"] = Field(default="leave", description="What is left at the end is left: volume decides.")

    @model_validator(mode="after")
    def _ordered(self) -> PovParameters:
        if self.min_participation is not None and self.min_participation > self.participation:
            raise ValueError("min_participation must not be above participation")
        if self.max_participation is not None and self.max_participation < self.participation:
            raise ValueError("max_participation must not be below participation")
        least, most = self.min_child_quantity, self.max_child_quantity
        if least is not None and most is not None and least > most:
            raise ValueError("min_child_quantity must not be above max_child_quantity")
        return self


class PovPlan(msgspec.Struct, frozen=True, kw_only=True):
    participation: Decimal
    lowest: Decimal | None
    """Crosses below this participation."""
    highest: Decimal
    """Rests up to this participation."""
    style: str
    least: Decimal
    """Quantity of a child, at least."""
    most: Decimal | None
    interval_ms: int
    child_slippage_bps: Decimal
    duration_ms: int | None


class PovMemory(msgspec.Struct, frozen=True):
    """As the last look left it."""

    tape: TapeMemory = TapeMemory()
    look: int = -1
    """The number of the interval it looked in last, from the start."""
    off: bool = False
    """Whether what is printed does not count: paused, or beyond the limit."""
    due: Decimal = ZERO
    """What should be filled even by crossing (units of the base asset)."""


class Pov(Worked[PovParameters, PovPlan]):
    name: ClassVar[str] = "pov"
    Parameters = PovParameters
    Plan = PovPlan
    Memory = PovMemory

    def plan(
        self, order: ParentOrder, parameters: PovParameters, rules: MarketRules, history: Sequence[Candle]
    ) -> PovPlan:
        crosses = parameters.style == "aggressive" or parameters.min_participation is not None
        if order.time_in_force in (TimeInForce.IOC, TimeInForce.FOK):
            raise Refusal("time_in_force", "it follows the volume as it is traded: IOC and FOK do not fit")
        if order.post_only and crosses:
            raise Refusal("post_only", "does not go with a style that crosses the spread")
        most = parameters.max_child_quantity
        if most is not None and rules.round_quantity(most, OrderType.LIMIT) < max(rules.min_quantity, rules.lot):
            raise Refusal("algorithm_params.max_child_quantity", f"{most:f} is below what {rules.symbol} can trade")
        return PovPlan(
            participation=parameters.participation,
            lowest=parameters.min_participation,
            highest=parameters.max_participation or parameters.participation,
            style="passive" if order.post_only else parameters.style,
            least=parameters.min_child_quantity or ZERO,
            most=most,
            interval_ms=parameters.interval_seconds * 1000,
            child_slippage_bps=parameters.child_slippage_bps,
            duration_ms=parameters.duration_seconds * 1000 if parameters.duration_seconds is not None else None,
        )

    def notes(self, order: ParentOrder) -> tuple[str, ...]:
        chosen = PovParameters.model_validate(order.algorithm_params)
        style = "passive, as it may only make" if order.post_only else chosen.style
        return (f"{chosen.participation * 100:f}% of the volume at {order.home}, {style}",)

    def decide(self, plan: PovPlan, view: View) -> Decision:
        decision = super().decide(plan, view)
        memory: PovMemory = view.memory
        if view.order.paused and not memory.off and decision.done is None:
            # What was printed up to here counts, what follows does not.
            tape = accrue(memory.tape, view.market, view.totals.filled, counting=not _beyond(plan, view))
            decision = msgspec.structs.replace(
                decision, memory=msgspec.structs.replace(memory, tape=tape, off=True, due=ZERO)
            )
        return decision

    def work(self, plan: PovPlan, view: View) -> Work:
        start = _start(view.order)
        end = start + plan.duration_ms if plan.duration_ms is not None else None
        if end is not None and view.now >= end:
            return Work(done=Done(OrderStatus.EXPIRED, "its time ran out: the volume asked for no more"))
        before: PovMemory = view.memory
        beyond = _beyond(plan, view)
        number = (view.now - start) // plan.interval_ms
        looks = number > before.look or before.off is not beyond
        memory = _look(plan, view, number, beyond) if looks else before
        wants = _wants(self, plan, view, memory, looks=looks)
        after = start + (number + 1) * plan.interval_ms
        waiting = None
        if not view.market.session:
            waiting = f"the trades of {view.order.symbol} at {view.order.home} are not known"
        elif beyond:
            waiting = _why_beyond(view)
        same = msgspec.structs.replace(memory, look=before.look) == before and _all_stay(view, wants)
        return Work(
            wants=wants,
            wake_at=min(after, end) if end is not None else after,
            wake_when=() if beyond else _leaving(plan, view),
            memory=None if same else memory,  # a look at which nothing changed is not worth a write
            waiting=waiting,
        )


# --- the tape -------------------------------------------------------------------------------------------------------------


def _start(order: ParentOrder) -> int:
    fired = order.trigger.fired_at if order.trigger is not None else None
    return fired if fired is not None else order.created_at


def _goal(participation: Decimal, others: Decimal, view: View) -> Decimal:
    """What should be filled once others have traded so much: r / (1 - r) of it, in whole lots, at most the order."""
    share = (others * participation / (1 - participation)).quantize(_FINEST, ROUND_FLOOR)
    return min(view.rules.round_quantity(share, OrderType.LIMIT), view.order.quantity)


def _look(plan: PovPlan, view: View, number: int, beyond: bool) -> PovMemory:
    """Bring the tape up to date, and with it what is due."""
    before: PovMemory = view.memory
    tape = before.tape
    if not (before.off and beyond):  # the base line need not move while nothing counts
        tape = accrue(tape, view.market, view.totals.filled, counting=not before.off and not beyond)
    earlier = _goal(plan.participation, before.tape.others, view)
    goal = _goal(plan.participation, tape.others, view)
    done = _settled(view)
    due = ZERO
    short = plan.lowest is not None and done < _goal(plan.lowest, tape.others, view)
    if short or plan.style == "aggressive":
        due = goal
    elif plan.style == "adaptive" and plan.lowest is None and goal > earlier:
        late = max((goal - earlier) / 2, plan.least)
        if plan.most is not None:
            late = min(late, plan.most)
        due = earlier if earlier - done > late else ZERO
    return PovMemory(tape, number, beyond, due)


def _own(plan: PovPlan, side: Side) -> str:
    """The touch that says whether the market is within the limit: where it would trade first."""
    return "bid" if (side is Side.BUY) is not (plan.style == "aggressive") else "ask"


def _beyond(plan: PovPlan, view: View) -> bool:
    """Whether the market is out of the order's reach, or it is not known where it is."""
    bound = worst_price(view.order)
    if bound is None:
        return view.order.max_slippage_bps is not None  # nothing to measure slippage by yet
    price = view.market.bid if _own(plan, view.order.side) == "bid" else view.market.ask
    return price is None or not within(view.order.side, price, bound)


def _why_beyond(view: View) -> str:
    bound = worst_price(view.order)
    if bound is None or view.market.book is None:
        return f"the market of {view.order.symbol} at {view.order.home} is not known"
    return f"the market is beyond the limit, {view.rules.round_price(bound, view.order.side):f}"


def _leaving(plan: PovPlan, view: View) -> tuple[When, ...]:
    """To be woken when the market goes beyond the limit: from then on nothing counts."""
    bound, side, rules = worst_price(view.order), view.order.side, view.rules
    if bound is None or not rules.tick:
        return ()
    first = rules.round_price(bound, side) + rules.tick * side.sign
    if side is Side.BUY:
        return (When(source=_own(plan, side), at_or_above=first),)
    return (When(source=_own(plan, side), at_or_below=first),)


# --- orders -----------------------------------------------------------------------------------------------------------------


def _resting(view: View) -> list[ChildOrder]:
    return [child for child in view.live if child.tag != _TAKE]


def _settled(view: View) -> Decimal:
    """What is filled or may be, but for what live orders may still fill."""
    return view.totals.claimed - sum((child.leaves for child in view.live), ZERO)


def _wants(self: Pov, plan: PovPlan, view: View, memory: PovMemory, *, looks: bool) -> tuple[Want, ...]:
    resting = _resting(view)
    if _crosses(plan, view, memory):
        if resting:
            return ()  # they end first: then it is certain how much is to be taken
        quantity = _capped(plan, memory.due - view.claimed_beside(_TAKE))
        want = self.take(view, quantity, tag=_TAKE, slippage_bps=plan.child_slippage_bps)
        return (msgspec.structs.replace(want, at_least=_least(plan, view, view.claimed_beside(_TAKE))),)
    if plan.style == "aggressive":
        return ()
    touch = view.market.touch(view.order.side)
    placed = self.rest(view, ZERO, touch, tag=f"rest{memory.look}") if touch is not None else None
    goal = _goal(plan.highest, memory.tape.others, view)
    joins = placed is not None and all(child.tag != placed.tag for child in resting)
    if joins and looks and len(resting) >= MOST_RESTING:
        resting = _make_room(plan, view, resting, goal)
    room = goal - (view.totals.claimed - sum((child.leaves for child in _resting(view)), ZERO))
    wants: list[Want] = []
    for child in resting:
        moves = looks and placed is not None and child.price != placed.price
        if child.cancel_requested or moves:
            continue
        quantity = max(min(child.leaves, room), ZERO)
        wants.append(Want(tag=child.tag, quantity=quantity, price=child.price, post_only=True))
        room -= quantity
    if joins and placed is not None and len(_resting(view)) < MOST_RESTING:
        quantity = _capped(plan, goal - view.claimed_beside(placed.tag))
        if quantity > 0:
            least = _least(plan, view, view.claimed_beside(placed.tag))
            wants.append(msgspec.structs.replace(placed, quantity=quantity, at_least=least))
    return tuple(wants)


def _make_room(plan: PovPlan, view: View, resting: list[ChildOrder], goal: Decimal) -> list[ChildOrder]:
    """The orders that stay where there are as many as may be: the youngest goes if a larger one can take its place."""
    youngest = resting[-1]
    joint = view.rules.round_quantity(_capped(plan, goal - view.totals.claimed + youngest.leaves), OrderType.LIMIT)
    return (
        resting[:-1] if joint - youngest.leaves >= max(plan.least, view.rules.min_quantity, view.rules.lot) else resting
    )


def _crosses(plan: PovPlan, view: View, memory: PovMemory) -> bool:
    """Whether something is to be taken now that is large enough for an order, where the market can be reached."""
    order, far = view.order, view.market.far(view.order.side)
    quantity = view.rules.round_quantity(_capped(plan, memory.due - _settled(view)), OrderType.LIMIT)
    if quantity < _least(plan, view, _settled(view)) or view.rules.refusal(quantity, OrderType.LIMIT, far) is not None:
        return False
    if plan.style == "aggressive":
        return True
    if far is None:
        return False
    ends = order.slippage_policy == "end" and breach(view, far) is not None
    return ends or within(order.side, far, worst_price(order))


def _capped(plan: PovPlan, quantity: Decimal) -> Decimal:
    return min(quantity, plan.most) if plan.most is not None else quantity


def _least(plan: PovPlan, view: View, claimed: Decimal) -> Decimal:
    """The smallest child worth placing beside what is claimed: the last one may be smaller."""
    return min(plan.least, view.rules.round_quantity(view.order.quantity - claimed, OrderType.LIMIT))


def _all_stay(view: View, wants: Sequence[Want]) -> bool:
    """Whether the resting orders are all left where they are."""
    kept = {(want.tag, want.price) for want in wants}
    return all((child.tag, child.price) in kept or child.cancel_requested for child in _resting(view))
