"""The base of algorithms that follow a schedule: TWAP, VWAP and implementation shortfall differ in its shape only.

The time is divided into slices. At each slice's beginning, what should be done by its end and is not is due. How it is traded
is the `style`:

- `aggressive` takes it at once;
- `passive` rests it at the touch, follows the touch, and takes what is left shortly before the slice ends;
- `adaptive` rests it too, but lets up to one slice's quantity wait for the next slices, and takes only what is further behind.
  Where the spread and the difference in fees are next to nothing, it takes at once.

An order that may only make (`post_only`) never takes, whatever its style.

What earlier slices missed is made up by later ones, each at most `catch_up` times its own quantity. A slice too small for the
venue joins the next one. Beyond the order's limit, above `max_participation` or without market data nothing is sent, and what
was missed is caught up so. At the end of the time, `at_end` complete takes the rest, within all bounds, inside the time; what
is left then, or with `leave`, is reported and the order ends `expired`. No child outlives the time.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import accumulate
from typing import Literal, TypeVar

import msgspec
from pydantic import Field, model_validator

from algorithms.base import Done, Parameters, Refusal, View, When
from algorithms.bounds import BPS
from algorithms.tape import TapeMemory, accrue
from algorithms.worked import Want, Work, Worked
from schemas.market import ZERO
from schemas.order import ChildOrder, OrderStatus, ParentOrder
from schemas.terms import OrderType, TimeInForce

ONE = Decimal(1)
DAY = 86_400
DEFAULT_INTERVAL = 30.0
MOST_SLICES = 10_000
LEAST_INTERVAL_MS = 100
MOST_RESTING = 3
"""So many slices may rest at a time; of more, the oldest is given up and its quantity rests anew."""
FOLLOW_LEAST_MS, FOLLOW_MOST_MS = 500, 5_000
"""A resting child follows the touch after a fifth of a slice, within these: sooner it loses its place in the queue for nothing,
later it is left behind (measured with `execution simulate`: 3 s of 15 s cost 0.13 bps less than 1 s)."""
LEAST_GAIN_BPS = Decimal("0.5")
"""Adaptive takes at once where resting saves less: a spread of a tick or two without a difference in fees is no price for the
risk of being left behind."""
_SHARE = Decimal("1e-9")
_FINE = Decimal("1e-12")


class ScheduleParameters(Parameters):
    duration_seconds: float = Field(gt=0, le=7 * DAY, description="How long the order works, in seconds.")
    slices: int | None = Field(
        default=None, ge=1, le=MOST_SLICES, description="Into how many slices the time is divided."
    )
    interval_seconds: float | None = Field(
        default=None, gt=0, description="Or how long a slice lasts, in seconds; default 30, with at least 4 slices."
    )
    jitter: float = Field(
        default=0.0,
        ge=0,
        lt=0.5,
        description="By how much slices vary, as a fraction: their times within the interval, their sizes around the plan. "
        "Drawn from the order's id.",
    )
    style: Literal["passive", "aggressive", "adaptive"] = Field(
        default="adaptive", description="How a slice is traded: see the algorithm's description."
    )
    max_participation: Decimal | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="The most of everybody's volume since the start that may be the order's own.",
    )
    catch_up: Decimal = Field(
        default=Decimal(3),
        ge=1,
        le=100,
        description="The most a late slice may trade, in multiples of its planned quantity.",
    )
    child_slippage_bps: Decimal = Field(
        default=Decimal(5), ge=0, le=1000, description="How far behind the touch a child that takes may reach, in bps."
    )
    at_end: Literal["complete", "leave"] = Field(
        default="complete", description="Whether the rest is taken before the time ends, or left and reported."
    )

    @model_validator(mode="after")
    def _one_division(self) -> ScheduleParameters:
        if self.slices is not None and self.interval_seconds is not None:
            raise ValueError("slices and interval_seconds exclude each other")
        if self.interval_seconds is not None and self.interval_seconds > self.duration_seconds:
            raise ValueError("interval_seconds is longer than duration_seconds")
        if self.count * LEAST_INTERVAL_MS > self.duration_seconds * 1000:
            raise ValueError(f"a slice must last at least {LEAST_INTERVAL_MS} ms: use fewer slices or more time")
        return self

    @property
    def count(self) -> int:
        """The number of slices."""
        if self.slices is not None:
            return self.slices
        if self.interval_seconds is not None:
            return min(max(int(self.duration_seconds / self.interval_seconds + 1e-9), 1), MOST_SLICES)
        return min(max(round(self.duration_seconds / DEFAULT_INTERVAL), 4), MOST_SLICES)


class SchedulePlan(msgspec.Struct, frozen=True, kw_only=True):
    """Times in ms after the start; the share of the quantity that should be done by the end of each slice."""

    duration: int
    starts: tuple[int, ...]
    shares: tuple[Decimal, ...]
    style: str
    at_end: str
    catch_up: Decimal
    child_slippage_bps: Decimal
    max_participation: Decimal | None = None
    source: str = ""
    """Where the shape comes from, in words."""
    expected_volume: Decimal | None = None
    """What everybody is expected to trade over the time; None: not known."""


class ScheduleMemory(msgspec.Struct, frozen=True):
    tape: TapeMemory = TapeMemory()
    slice: int = -1
    """The slice that `done` belongs to."""
    done: Decimal = ZERO
    """The share of the quantity that should have been done when that slice began, in view of the volume by then."""


P = TypeVar("P", bound=ScheduleParameters)


def schedule_plan(
    order: ParentOrder,
    parameters: ScheduleParameters,
    weights: Sequence[float],
    *,
    source: str = "",
    expected_volume: Decimal | None = None,
) -> SchedulePlan:
    """A plan of slices with the given weights. The same order gets the same jitter wherever and whenever it is planned.

    Raises:
        Refusal: the order is to be filled at once, which a schedule is not.
    """
    if order.time_in_force in (TimeInForce.IOC, TimeInForce.FOK):
        raise Refusal("time_in_force", f"{order.time_in_force} does not go with a schedule")
    duration = int(parameters.duration_seconds * 1000)
    if order.expires_at is not None and order.trigger is None:
        duration = max(min(duration, order.expires_at - order.created_at), LEAST_INTERVAL_MS)
    count = len(weights)
    draw = random.Random(f"{order.order_id}:schedule")
    times, sizes = [], []
    for index, weight in enumerate(weights):
        late = draw.uniform(-parameters.jitter, parameters.jitter) if index > 0 else 0.0
        times.append(int((index + late) * duration / count))
        sizes.append(max(weight, 0.0) * (1 + draw.uniform(-parameters.jitter, parameters.jitter)))
    total = sum(sizes) or 1.0
    shares = [Decimal(done / total).quantize(_SHARE, ROUND_HALF_EVEN) for done in accumulate(sizes)]
    shares[-1] = ONE
    return SchedulePlan(
        duration=duration,
        starts=tuple(times),
        shares=tuple(shares),
        style=parameters.style,
        at_end=parameters.at_end,
        catch_up=parameters.catch_up,
        child_slippage_bps=parameters.child_slippage_bps,
        max_participation=parameters.max_participation,
        source=source,
        expected_volume=expected_volume,
    )


def started(order: ParentOrder) -> int:
    """When an order's time begins, in ms: at acceptance, or when its trigger fired."""
    trigger = order.trigger
    return trigger.fired_at if trigger is not None and trigger.fired_at is not None else order.created_at


class Scheduled(Worked[P, SchedulePlan]):
    Plan = SchedulePlan
    Memory = ScheduleMemory

    def schedule(self, plan: SchedulePlan, order: ParentOrder) -> list[tuple[int, Decimal]]:
        start = started(order)
        ends = [*plan.starts[1:], plan.duration]
        return [
            (start, ZERO),
            *((start + end, share * order.quantity) for end, share in zip(ends, plan.shares, strict=True)),
        ]

    def progress(self, plan: SchedulePlan, view: View, index: int, tape: TapeMemory) -> Decimal:
        """The share that should be done when a slice begins: as planned, unless an algorithm knows better."""
        return plan.shares[index - 1] if index else ZERO

    def work(self, plan: SchedulePlan, view: View) -> Work:
        order, memory = view.order, view.memory
        assert isinstance(memory, ScheduleMemory)
        start = started(order)
        elapsed = view.now - start
        if elapsed >= plan.duration:
            left = order.quantity - view.totals.filled
            reason = f"its time is over: {left:f} of {order.quantity:f} left"
            return Work(done=Done(OrderStatus.EXPIRED, reason))
        index = max(bisect_right(plan.starts, elapsed) - 1, 0)
        if memory.slice != index or plan.max_participation is not None:
            tape = accrue(memory.tape, view.market, view.totals.filled, counting=True)
            if memory.slice != index:
                memory = ScheduleMemory(tape, index, self.progress(plan, view, index, tape))
            else:
                memory = msgspec.structs.replace(memory, tape=tape)
        ends = plan.starts[index + 1] if index + 1 < len(plan.starts) else plan.duration
        wants, wakes, waiting = self._wants(plan, view, memory, index, elapsed, ends)
        wake_at = start + min([ends, *[at for at in wakes if at > elapsed]])
        return Work(wants=wants, wake_at=wake_at, wake_when=_follow(view, wants), memory=memory, waiting=waiting)

    def _wants(
        self, plan: SchedulePlan, view: View, memory: ScheduleMemory, index: int, elapsed: int, ends: int
    ) -> tuple[tuple[Want, ...], list[int], str | None]:
        """What should be at the venue, when (ms after the start) to look again, and why nothing is."""
        begins, tag, makes = plan.starts[index], f"s{index}", view.order.post_only
        finish_at = _finish_at(plan)
        finishing = plan.at_end == "complete" and elapsed >= finish_at
        due, waiting = _due(plan, view, memory, index, (tag,), finishing)
        wakes = [finish_at]
        if waiting is not None or plan.max_participation is not None:
            wakes.append(elapsed + max(1_000, (ends - begins) // 10))
        cross_at = max(begins, ends - min(max((ends - begins) // 5, 1_000), (ends - begins) // 2))
        takes = plan.style == "aggressive" or finishing or (plan.style == "passive" and elapsed >= cross_at)
        if plan.style == "adaptive" and not takes and not any(child.tag == tag for child in view.live):
            takes = not _worth_resting(view)
        if takes and not makes:
            due = _merged(view, tag, due)
            if due <= 0 or due < view.rules.lot:
                return (), wakes, waiting  # what the plan's rounding left over: nothing to be woken for
            return (self.take(view, due, tag=tag, slippage_bps=plan.child_slippage_bps),), wakes, waiting
        if plan.style == "passive":
            wakes.append(cross_at)
        touch = view.market.touch(view.order.side)
        if touch is None:
            # What rests keeps its place until the market is back.
            kept = tuple(
                self.rest(view, child.leaves, child.price, tag=child.tag)
                for child in view.live
                if child.tag[0] == "s" and child.price is not None
            )
            return kept, wakes, f"the market of {view.order.symbol} at {view.order.home} is not known"
        follow = min(max((ends - begins) // 5, FOLLOW_LEAST_MS), FOLLOW_MOST_MS)
        wakes += [child.created_at - started(view.order) + follow for child in view.live if child.tag[0] == "s"]
        if plan.style == "passive":
            due = _merged(view, tag, due)
            return ((self._resting(view, due, touch, tag, follow),) if due > 0 else ()), wakes, waiting
        # Earlier slices keep their place in the queue.
        earlier = [child for child in view.live if child.tag[0] == "s" and child.tag != tag][-MOST_RESTING + 1 :]
        wants = [self._resting(view, child.leaves, touch, child.tag, follow) for child in earlier]
        taken, rested = _split(plan, view, memory, index)
        if taken > 0:
            wants.append(self.take(view, taken, tag=f"x{index}", slippage_bps=plan.child_slippage_bps))
        if rested > 0:
            wants.append(self._resting(view, rested, touch, tag, follow))
        return tuple(wants), wakes, waiting

    def _resting(self, view: View, due: Decimal, touch: Decimal, tag: str, follow: int) -> Want:
        """Rest at the touch; an order already there follows it only now and then."""
        for child in view.live:
            if child.tag == tag and child.price is not None and not _left_behind(view, child, touch, follow):
                return self.rest(view, due, child.price, tag=tag)
        return self.rest(view, due, touch, tag=tag)


def _due(
    plan: SchedulePlan, view: View, memory: ScheduleMemory, index: int, tags: tuple[str, ...], finishing: bool
) -> tuple[Decimal, str | None]:
    """What the slice's own orders, of these tags, should still be able to fill; and why that is nothing where a bound says so."""
    quantity, beside = view.order.quantity, _beside(view, tags)
    before = plan.shares[index - 1] if index else ZERO
    planned, done = plan.shares[index] - before, memory.done
    # The rest of the plan is kept in proportion when its beginning is not as planned.
    target = plan.shares[index]
    if done != before:
        target = (done + (ONE - done) * planned / (ONE - before)).quantize(_FINE)
    due = (ONE if finishing else target) * quantity - beside
    if not finishing:
        most = max(plan.catch_up * planned * quantity, view.rules.min_quantity or view.rules.lot)
        due = min(due, most - _traded(view, index))
    if plan.max_participation is None or due <= 0:
        return due, None
    room = _room(plan, view, memory, beside)
    if room >= due:
        return due, None
    return room, f"more would be above {plan.max_participation * 100:f} % of the volume" if room <= 0 else None


def _room(plan: SchedulePlan, view: View, memory: ScheduleMemory, beside: Decimal) -> Decimal:
    """What may still be filled beside what is claimed, without being too large a part of the volume."""
    rate = plan.max_participation
    if rate is None:
        return view.order.quantity
    return max(rate * memory.tape.others / (1 - rate) - beside, ZERO)


def _split(plan: SchedulePlan, view: View, memory: ScheduleMemory, index: int) -> tuple[Decimal, Decimal]:
    """What adaptive takes and what it rests. Whatever of it is at the venue already, the answer is the same.

    It takes what is behind by more than one slice; only what fills is done, what rests may never fill.
    """
    tags = (f"s{index}", f"x{index}")
    beside = _beside(view, tags)
    whole = view.order.quantity - beside
    due, _ = _due(plan, view, memory, index, tags, False)
    planned = plan.shares[index] - (plan.shares[index - 1] if index else ZERO)
    settled = view.totals.claimed - sum((child.leaves for child in view.live), ZERO)
    behind = (memory.done - planned) * view.order.quantity - settled
    taken = ZERO if view.order.post_only else min(behind, whole, _room(plan, view, memory, beside))
    taken = view.rules.round_quantity(max(taken, ZERO), OrderType.LIMIT)
    if _too_small(view, taken):
        taken = ZERO
    rested = view.rules.round_quantity(max(due - taken, ZERO), OrderType.LIMIT)
    over = whole - taken - rested
    if over > 0 and _too_small(view, over):
        if rested:
            rested += over
        elif taken:
            taken += over
    return taken, rested


def _beside(view: View, tags: tuple[str, ...]) -> Decimal:
    """What is claimed, not counting what live children of some tags may still fill."""
    return view.totals.claimed - sum((child.leaves for child in view.live if child.tag in tags), ZERO)


def _merged(view: View, tag: str, due: Decimal) -> Decimal:
    """What is due, with a remainder of the order that would be too small to be traded by itself."""
    rest = view.order.quantity - view.claimed_beside(tag)
    # Rounded down, what is due leaves a part of a lot more.
    due = view.rules.round_quantity(due, OrderType.LIMIT) if due > 0 else due
    return rest if rest > due > 0 and _too_small(view, rest - due) else due


def _worth_resting(view: View) -> bool:
    """Whether a maker saves enough, in spread and fees, to make up for what moves away from it while it waits."""
    book, rules = view.market.book, view.rules
    if book is None or book.bid is None or book.ask is None:
        return True
    spread = (book.ask - book.bid) / book.ask
    return (spread + rules.taker_fee - rules.maker_fee) * BPS >= LEAST_GAIN_BPS


def _left_behind(view: View, child: ChildOrder, touch: Decimal, follow: int) -> bool:
    """Whether others offer a better price by now, and the child has had its time."""
    assert child.price is not None
    worse = (touch - child.price) * view.order.side.sign >= (view.rules.tick or ZERO) and touch != child.price
    return worse and view.now - child.created_at >= follow


def _follow(view: View, wants: Sequence[Want]) -> tuple[When, ...]:
    """Wake when the touch leaves a resting child behind, or when the market appears."""
    side = view.order.side
    source = "bid" if side.sign > 0 else "ask"
    if view.market.book is None:
        return (When(source="book"),)
    for want in wants:
        if not want.takes and want.price is not None:
            beyond = want.price + side.sign * (view.rules.tick or want.price * _SHARE)
            if side.sign > 0:
                return (When(source=source, at_or_above=beyond),)
            return (When(source=source, at_or_below=beyond),)
    return ()


def _traded(view: View, index: int) -> Decimal:
    """What the ended children of a slice have filled: they are among the latest."""
    total, mark = ZERO, str(index)
    for child in reversed(view.children):
        if child.tag[1:] == mark:
            if child.state.terminal:
                total += child.executed
        elif child.state.terminal:
            break
    return total


def _too_small(view: View, quantity: Decimal) -> bool:
    """Whether a rest would be too small to be traded by itself."""
    rules = view.rules
    price = view.order.limit_price or view.market.mid
    kept = rules.round_quantity(quantity, view.order.works_as)
    return kept <= 0 or kept < rules.min_quantity or (price is not None and kept * price < rules.min_notional)


def _finish_at(plan: SchedulePlan) -> int:
    """When the last part of the time begins, in which the rest is taken."""
    interval = plan.duration // len(plan.starts)
    last = min(max(interval // 5, 3_000), interval // 2, plan.duration // 4)
    return plan.duration - max(last, 1)
