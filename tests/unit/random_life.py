"""Random lives of an order: market, fills, refusals, time and restarts in any sequence, and what has to hold all along."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import strategies as st

from algorithms.decide import decide
from execution.order_actor import as_record
from schemas.order import ChildState
from schemas.terms import TimeInForce
from tests.unit.story import Story

TICK = Decimal("0.01")
Step = tuple[Any, ...]

STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.tuples(st.just("market"), st.integers(-300, 300), st.integers(1, 30), st.integers(0, 8000)),
        st.tuples(st.just("time"), st.sampled_from([1, 100, 499, 500, 1000, 5000, 40_000])),
        st.tuples(st.just("fill"), st.integers(1, 1000)),
        st.tuples(
            st.sampled_from(["open", "end", "end", "reject", "expire", "unknown", "void", "lost", "resume", "pause"])
        ),
        st.tuples(st.just("amend"), st.integers(-200, 200)),
    ),
    max_size=40,
)


def live_through(story: Story, steps: list[Step], holds: Callable[[Story], None] = lambda story: None) -> None:
    """Tell the steps; after each one the decision is asked for a second time, of a plan and memory as after a restart."""
    limit = story.state.parent.price
    for step in steps:
        if story.state.over:
            break
        _tell(story, step, limit)
        _restarted(story)
        holds(story)


def ends_filled(story: Story) -> None:
    """From here on everything goes well: the order fills."""
    story.state.pause(False, None, story.now)
    for _ in range(500):
        if story.state.over:
            break
        story.now += 40_000
        near = story.state.parent.price or Decimal(100)
        sign = story.state.parent.side.sign
        bid, ask = sorted((near - sign * 2 * TICK, near - sign * TICK))
        story.market(f"{bid}", f"{ask}", size="1000")
        for child in list(story.live):
            if child.cancel_requested:
                story.venue("canceled", f"{child.executed}", child=child)
            else:
                _fill(story, child, child.leaves)
    assert story.state.over, "it would never end"
    assert story.last.status.value == "filled", story.last.reason


def _tell(story: Story, step: Step, limit: Decimal | None) -> None:
    kind, parent = step[0], story.state.parent
    first = next(iter(story.live), None)
    if kind == "market":
        _, shift, spread, size = step
        bid = Decimal(100) + shift * TICK
        story.market(f"{bid}", f"{bid + spread * TICK}", size=f"{Decimal(size) / 1000}")
    elif kind == "time":
        story.at(story.now + step[1])
    elif kind == "lost":
        story.markets["alpha"] = msgspec.structs.replace(story.markets["alpha"], book=None)
        story.step()
    elif kind == "amend" and limit is not None:
        story.amend(price=f"{limit + step[1] * TICK}")
    elif kind in ("pause", "resume"):
        story.state.pause(kind == "pause", None, story.now)
        story.step()
    elif first is None:
        story.step()
    elif kind == "fill":
        part = story.rules["alpha"].round_quantity(first.leaves * step[1] / 1000, first.order_type)
        _fill(story, first, part or first.leaves)
    elif kind == "open":
        story.venue("open", child=first)
    elif kind == "end" and (first.cancel_requested or first.time_in_force is TimeInForce.IOC):
        story.venue("canceled", f"{first.executed}", child=first)
    elif kind == "expire":
        story.venue("expired", f"{first.executed}", child=first)
    elif kind == "reject" and first.post_only and first.state is ChildState.PENDING:
        story.state.rejected(first, "would have taken", story.now)
        story.step()
    elif kind == "unknown" and first.state is ChildState.PENDING:
        story.state.unknown(first, "no answer", story.now)
        story.step()
    elif kind == "void" and first.state in (ChildState.PENDING, ChildState.UNKNOWN):
        story.state.void(first, "not there", story.now)
        story.step()
    assert parent.order_id


def _fill(story: Story, child: Any, quantity: Decimal) -> None:
    price = child.price if child.price is not None else Decimal(100)
    done = quantity == child.leaves
    trade = story.trade(f"{quantity}", f"{price}")
    story.venue("filled" if done else "open", f"{child.executed + quantity}", trade, child=child)


def _restarted(story: Story) -> None:
    """What is decided after a restart is what would have been decided without."""
    if story.state.over:
        return
    view = story.view()
    plan = msgspec.convert(as_record(story.plan), story.algorithm.Plan)
    memory = msgspec.convert(as_record(story.memory), story.algorithm.Memory)
    again = decide(story.algorithm, plan, msgspec.structs.replace(view, memory=memory))
    assert decide(story.algorithm, story.plan, view) == again
