"""What may happen to an order: each thing is one byte with another as its argument, so that a test may draw a life as `bytes` and
shrink it."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec

from adapters.base import VenueOrderStatus
from schemas.order import ChildState
from tests.unit.simulated_market import SimulatedMarket


def live_out(sim: SimulatedMarket, happenings: bytes) -> None:
    """Let one thing happen after another, and ask the algorithm after each."""
    for kind, argument in zip(happenings[::2], happenings[1::2], strict=False):
        HAPPENINGS[kind % len(HAPPENINGS)](sim, argument)
        sim.step()


_P, _U, _O = ChildState.PENDING, ChildState.UNKNOWN, ChildState.OPEN


def _nothing(sim: SimulatedMarket, argument: int) -> None:
    pass


def _soon(sim: SimulatedMarket, argument: int) -> None:
    sim.now += argument * 4


def _later(sim: SimulatedMarket, argument: int) -> None:
    sim.now += argument * 40


def _woken(sim: SimulatedMarket, argument: int) -> None:
    if sim.decision.wake_at is not None:
        sim.now = max(min(sim.decision.wake_at, sim.now + 60_000), sim.now)
        sim.shows()


def _walks(sim: SimulatedMarket, argument: int) -> None:
    sim.mid = max(sim.mid + argument % 61 - 30, 1_000)
    sim.now += 100
    sim.shows()


def _jumps(sim: SimulatedMarket, argument: int) -> None:
    sim.mid = max(sim.mid + (argument - 128) * 2, 1_000)
    sim.spread = 1 + argument % 40
    sim.shows()


def _thins(sim: SimulatedMarket, argument: int) -> None:
    sim.depth = Decimal(1 + argument % 100) / (10 if argument % 2 else 1)
    sim.shows()


def _prints(sim: SimulatedMarket, argument: int) -> None:
    sim.volume += Decimal(argument * argument) / 100
    sim.now += 50
    sim.shows()


def _gap(sim: SimulatedMarket, argument: int) -> None:
    sim.session += 1
    sim.volume = Decimal(argument % 3)
    sim.shows()


def _blind(sim: SimulatedMarket, argument: int) -> None:
    sim.shows(book=False)


def _shut(sim: SimulatedMarket, argument: int) -> None:
    for venue, known in sim.markets.items():
        sim.markets[venue] = msgspec.structs.replace(known, usable=argument % 4 != 0)


def _answered(sim: SimulatedMarket, argument: int) -> None:
    child = sim.pick(argument, _P)
    if child is not None:
        sim.arrives(child, argument % 17)
        sim.reports(child, trades=argument % 3 != 0)


def _lost(sim: SimulatedMarket, argument: int) -> None:
    """No answer, whether it arrived or not."""
    child = sim.pick(argument, _P)
    if child is not None:
        if argument % 2:
            sim.arrives(child, argument % 17)
        sim.state.unknown(child, "no answer", sim.now)


def _refused(sim: SimulatedMarket, argument: int) -> None:
    child = sim.pick(argument, _P)
    if child is not None and sim.there(child).status is None:
        if argument % 2:
            sim.there(child).status = VenueOrderStatus.REJECTED
            sim.state.rejected(child, "no", sim.now)
        else:
            sim.state.void(child, "not placed after 3 tries", sim.now)


def _resolved(sim: SimulatedMarket, argument: int) -> None:
    child = sim.pick(argument, _U)
    if child is not None:
        if sim.there(child).status is None:
            sim.state.void(child, "not there", sim.now)
        else:
            sim.reports(child, trades=argument % 2 == 0)


def _fills_some(sim: SimulatedMarket, argument: int) -> None:
    """At the venue; told at once, by a total, or later."""
    child = sim.pick(argument // 4, _O, _U)
    if child is not None:
        sim.fills_resting(child, argument % 17)
        if argument % 4 < 3:
            sim.reports(child, trades=argument % 4 == 0)


def _delivered(sim: SimulatedMarket, argument: int) -> None:
    """Trades come, and some of them again."""
    child = sim.pick(argument, *ChildState)
    if child is not None:
        trades = sim.there(child).trades
        sim.state.venue_fills(child, trades[(argument % 3 == 0 and len(trades) // 2) or 0 :], sim.now)


def _canceled(sim: SimulatedMarket, argument: int) -> None:
    """The venue takes an order off, asked to or (seldom) not; a fill may have come first."""
    asked = [child for child in sim.state.active if child.cancel_requested and not child.state.terminal]
    child = asked[argument % len(asked)] if asked else sim.pick(argument, _O) if argument % 5 == 0 else None
    if child is None:
        return
    there = sim.there(child)
    if there.status is None:
        if child.state is _P:
            sim.state.void(child, "canceled before it was sent", sim.now)
        return
    if argument % 4 == 0:
        sim.fills_resting(child, argument % 17)
    if there.open:
        there.status = VenueOrderStatus.CANCELED
    sim.reports(child, trades=argument % 3 != 0)


def _repeated(sim: SimulatedMarket, argument: int) -> None:
    """A report of before comes again."""
    if sim.told_before:
        child, told = sim.told_before[argument % len(sim.told_before)]
        if told.status is not VenueOrderStatus.REJECTED:
            sim.state.venue_order(sim.mine(child), told, sim.now)


def _told_all(sim: SimulatedMarket, argument: int) -> None:
    for child in sim.state.active:
        sim.reports(child, trades=True)


def _paused(sim: SimulatedMarket, argument: int) -> None:
    sim.state.pause(argument % 4 == 0 and not sim.state.parent.paused, None, sim.now)


def _amended(sim: SimulatedMarket, argument: int) -> None:
    order = sim.state.parent
    before = sim.state.totals.claimed
    changes: dict[str, Any] = {}
    if argument % 2:
        changes["quantity"] = f"{order.quantity * Decimal(8 + argument % 9) / 10:f}"
    elif order.price is not None:
        changes["price"] = f"{order.price + Decimal(argument - 128) / 100:f}"
    if changes:
        sim.amends(**changes)
        sim.ceiling = max(sim.ceiling, before, order.quantity)


def _stopped(sim: SimulatedMarket, argument: int) -> None:
    if argument % 8 == 0:
        sim.state.request_cancel("please", sim.now)


def _restarted(sim: SimulatedMarket, argument: int) -> None:
    sim.restarts()


Happening = Callable[[SimulatedMarket, int], None]
HAPPENINGS: tuple[Happening, ...] = (
    _nothing,
    *[
        _soon,
        _soon,
        _later,
        *[_woken] * 6,
        _walks,
        _walks,
        _walks,
        _jumps,
        _thins,
        _prints,
        _prints,
        _gap,
        _blind,
        _shut,
    ],
    *[_answered] * 10,
    *[_lost, _refused, *[_resolved] * 5],
    *[_fills_some] * 4,
    *[_delivered] * 3,
    *[_canceled] * 6,
    *[_repeated, _told_all, _paused, _amended, _amended, _stopped, _restarted],
)
