"""What should be done about a parent order now: its trigger first, then its algorithm, and beside them the exits of its bracket."""

from __future__ import annotations

import copy
from typing import Any

import msgspec

from algorithms import bracket, trigger
from algorithms.base import Algorithm, Cancel, Decision, Done, View
from schemas.order import OrderStatus, Trigger

AGAIN_MS = 5_000
"""An algorithm that failed is asked again so late."""


def decide(algorithm: Algorithm[Any, Any], plan: Any, view: View) -> Decision:
    """Pure: the same view gives the same decision."""
    entry = Decision() if view.order.status.terminal else _entry(algorithm, plan, _closing(view))
    return _protected(view, entry)


def without(view: View, why: str) -> Decision:
    """What is done while an order's algorithm fails: its entry is taken off, its end is kept, its exits are watched."""
    order = view.order
    if order.status.terminal:
        return _protected(view, Decision())
    if view.live:
        cancel = tuple(Cancel(child.child_id, why) for child in view.live if not child.cancel_requested)
        return _protected(view, Decision(cancel=cancel, waiting=why))
    if view.totals.unknown or view.totals.open:
        return _protected(view, Decision(waiting=why))
    done = None
    if view.free <= 0:
        done = Done(OrderStatus.FILLED)
    elif order.cancel_requested:
        done = Done(OrderStatus.CANCELED, order.cancel_reason or "canceled on request")
    elif order.expires_at is not None and view.now >= order.expires_at:
        done = Done(OrderStatus.EXPIRED, "its time ran out")
    again = min(view.now + AGAIN_MS, order.expires_at or view.now + AGAIN_MS)
    return _protected(view, Decision(waiting=why, wake_at=again) if done is None else Decision(done=done))


def reduced(view: View) -> Decision:
    """What may be done before the venue has confirmed what the ledger holds: nothing but cancels, which only reduce."""
    order, reason = view.order, None
    live = list(view.live)
    if order.cancel_requested:
        reason = order.cancel_reason or "canceled on request"
        live += [child for child in view.exits if order.status.terminal and not child.state.terminal]
    elif order.expires_at is not None and view.now >= order.expires_at:
        reason = "its time ran out"
    elif order.paused:
        reason = "paused"
    if reason is not None:
        cancel = tuple(Cancel(child.child_id, reason) for child in live if not child.cancel_requested)
        return Decision(cancel=cancel, waiting=order.waiting)
    return Decision(waiting=order.waiting, wake_at=order.expires_at)


def _protected(view: View, entry: Decision) -> Decision:
    """A decision on the entry, with what its exits need."""
    if not view.order.has_bracket or not view.totals.filled:
        return entry
    if entry.done is not None:
        # The exits see the entry as it will be: nobody may ask again.
        ended = copy.copy(view.order)
        ended.status, ended.cancel_requested, ended.cancel_reason = entry.done.status, False, None
        view = msgspec.structs.replace(view, order=ended)
    exits = bracket.protect(view)
    wakes = [at for at in (entry.wake_at, exits.wake_at) if at is not None]
    return msgspec.structs.replace(
        entry,
        place=entry.place + exits.place,
        cancel=entry.cancel + exits.cancel,
        wake_at=min(wakes, default=None),
        wake_when=entry.wake_when + exits.wake_when,
        stop_fired=exits.stop_fired,
        protection_ended=exits.protection_ended,
    )


def _closing(view: View) -> View:
    """While a bracket's exits close the position, or begin to now, the entry does not go on opening it."""
    order = view.order
    if not order.has_bracket or not view.totals.filled or order.cancel_requested:
        return view
    closed = view.exit_totals is not None and view.exit_totals.filled > 0
    if not (closed or order.stop_fired or bracket.protect(view).stop_fired):
        return view
    ending = copy.copy(order)
    ending.cancel_requested, ending.cancel_reason = True, "the exits of its bracket have begun to close it"
    return msgspec.structs.replace(view, order=ending)


def _entry(algorithm: Algorithm[Any, Any], plan: Any, view: View) -> Decision:
    order = view.order
    waiting = order.trigger
    if waiting is None or waiting.native or waiting.fired_at is not None:
        return algorithm.decide(plan, view)
    if order.cancel_requested:
        return Decision(done=Done(OrderStatus.CANCELED, order.cancel_reason or "canceled on request"))
    if order.expires_at is not None and view.now >= order.expires_at:
        return Decision(done=Done(OrderStatus.EXPIRED, "its time ran out before its trigger was reached"))
    if order.paused:
        return Decision(wake_at=order.expires_at)
    now = trigger.watch(waiting, order.order_type, order.side, view.market, view.now)
    changed = now if now != waiting else None
    if now.fired_at is None:
        return Decision(
            trigger=changed,
            wake_at=order.expires_at,
            wake_when=trigger.until(now, order.order_type, order.side, view.market),
            waiting=_waiting(now),
        )
    fired = copy.copy(order)
    fired.trigger = now
    # It arrives at the market now: what it may cost is not measured against the price of its acceptance.
    arrival = trigger.arrival(now, view.market)
    if arrival is not None:
        fired.arrival, fired.arrival_at = arrival, view.now
    decision = algorithm.decide(plan, msgspec.structs.replace(view, order=fired))
    return msgspec.structs.replace(decision, trigger=now, arrival=arrival)


def _waiting(waiting: Trigger) -> str:
    if waiting.price is not None:
        return f"its trigger ({waiting.price:f}) has not been reached"
    if waiting.activation is not None:
        return f"its trigger (activation at {waiting.activation:f}) has not been reached"
    return "its trigger has no price yet: none has been seen to trail from"
