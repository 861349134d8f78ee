"""What others trade at a venue while an order works, counted so that a restart, a pause or a gap adds nothing to it."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from algorithms.base import Market
from schemas.market import ZERO


class TapeMemory(msgspec.Struct, frozen=True):
    """How far the tape has been counted. Quantities are in units of the base asset."""

    session: str = ""
    """Of the tape last seen; empty: none was."""
    volume: Decimal = ZERO
    """The session's volume last seen."""
    filled: Decimal = ZERO
    """Own fills that the volume last seen accounts for."""
    others: Decimal = ZERO
    """What others traded while it was counted."""


def accrue(memory: TapeMemory, market: Market, filled: Decimal, *, counting: bool) -> TapeMemory:
    """Count the tape on: what was traded since, less own fills since. `filled` is what is filled of the order by now.

    Only within one session of the tape and while `counting`; else the base line moves and nothing is added. Fills and the tape
    come by different ways: own fills that the tape has not shown yet are held against what it shows next, so `others` never
    falls. A tape that is not known (no session) leaves everything as it was.
    """
    if not market.session:
        return memory
    if market.session != memory.session:
        return TapeMemory(market.session, market.volume, filled, memory.others)
    traded = max(market.volume - memory.volume, ZERO)
    own = max(filled - memory.filled, ZERO)
    shown = min(own, traded)
    return TapeMemory(
        session=memory.session,
        volume=max(market.volume, memory.volume),
        filled=memory.filled + shown,
        others=memory.others + (traded - shown if counting else ZERO),
    )
