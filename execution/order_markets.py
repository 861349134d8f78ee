"""The markets of one order: kept coming while it lives, seen by its algorithm, watched for what it waits for, and measured."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING

from algorithms.base import Market, When
from execution.order_state import OrderState
from schemas.market import MarketRules
from schemas.order import Tape

if TYPE_CHECKING:
    from execution.order_actor import Desk


class OrderMarkets:
    def __init__(self, desk: Desk, state: OrderState, wake: Callable[[], None]) -> None:
        """`wake` is called when the market reaches what the order waits for."""
        self._desk = desk
        self._state = state
        self._wake = wake
        self._held: tuple[str, ...] = ()
        self._watching = False
        """Whether it may be waiting for the market to wake it."""
        self.watches_owed = False
        """Whether a decision asked to be woken by the market before the order followed any."""
        self._tape_from: Tape | None = None
        self._tape_seen: Tape | None = None
        self._tape_before = state.parent.tape or Tape()
        state.quote = self.quote

    @property
    def followed(self) -> bool:
        return bool(self._held)

    def follow(self) -> None:
        """Keep the data of the venues coming that the order may trade at."""
        if not self._held:
            parent = self._state.parent
            self._held = tuple(venue for venue in parent.routes if venue in self._desk.adapters)
            for venue in self._held:
                self._desk.market.hold(venue, parent.symbol, self._state.key)

    def leave(self) -> None:
        """The order needs no market any more."""
        for venue in self._held:
            self._desk.market.release(venue, self._state.parent.symbol, self._state.key)
        self._held = ()

    def release(self) -> None:
        """Let go of what leads back to the order: it is kept no more."""
        self._wake = _nobody
        self._state.quote = _unquoted

    def seen(self) -> dict[str, Market]:
        """What its algorithm sees, by venue."""
        desk, parent = self._desk, self._state.parent
        found = {}
        for venue in parent.routes:
            rules = self._rules(venue)
            if rules is not None:
                available = desk.available(venue, parent) if parent.venues else None
                found[venue] = desk.market.market(venue, parent.symbol, rules, available)
        return found

    def mid(self) -> Decimal | None:
        """The mid at its home venue; None: not known."""
        parent = self._state.parent
        return self._desk.market.mid(parent.home, parent.symbol)

    def quote(self, venue: str) -> tuple[Decimal, Decimal] | None:
        """The mid of a venue now and half its spread; None: not known."""
        return self._desk.market.quote(venue, self._state.parent.symbol)

    def keep_tape(self, now: int) -> None:
        """Bring the order's record of the market up to date, for the commit that follows; from the first call on it counts."""
        parent = self._state.parent
        feed = self._desk.market.feed(parent.home, parent.symbol)
        if feed is None or parent.status.terminal or parent.arrival is None:
            return
        feed.integrate(now)
        seen = feed.seen
        if seen is self._tape_seen:
            return
        if self._tape_from is None:
            self._tape_from = seen
        self._tape_seen = seen
        since, before = self._tape_from, self._tape_before
        parent.tape = Tape(
            volume=before.volume + seen.volume - since.volume,
            notional=before.notional + seen.notional - since.notional,
            mid_integral=before.mid_integral + seen.mid_integral - since.mid_integral,
            observed_ms=before.observed_ms + seen.observed_ms - since.observed_ms,
        )

    def watch(self, whens: tuple[When, ...]) -> None:
        """Be woken by the market when one of these is so; replaces what was waited for."""
        self.watches_owed = bool(whens) and not self._held
        if not self._held:
            return  # what is not committed may be a repetition: the watches under its key are the order's own
        if not whens and not self._watching:
            return
        self._watching = bool(whens)
        parent = self._state.parent
        by_venue: dict[str, list[When]] = {}
        for when in whens:
            by_venue.setdefault(when.venue or parent.home, []).append(when)
        for venue in self._held:
            waits = tuple(by_venue.get(venue, ()))
            self._desk.market.watch(venue, parent.symbol, self._state.key, self._wake, waits)

    def _rules(self, venue: str) -> MarketRules | None:
        adapter = self._desk.adapters.get(venue)
        return adapter.rules(self._state.parent.symbol) if adapter is not None else None


def _nobody() -> None:
    """Whom the market wakes for an order that is kept no more."""


def _unquoted(_venue: str) -> None:
    """What such an order knows of a market."""
