"""The rules of each venue's markets - ticks, lots, minimums, what is halted - kept as they are there now.

Venues change them, some every few weeks. They are read again on an interval, and when a venue has refused an order for good, as it
does with what no longer fits: what is decided from then on fits again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import structlog

from adapters.base import Adapter, AdapterError
from schemas.market import MarketRules

if TYPE_CHECKING:
    from execution.order_actor import OrderActor

log = structlog.get_logger(__name__)

INTERVAL = 3600.0
"""Seconds between two reads."""
LEAST_INTERVAL = 600.0
"""Seconds, also where orders are refused again and again: a large venue's list is much to read, for both sides."""


class VenueRules:
    def __init__(self, adapters: Mapping[str, Adapter], live: Callable[[], Iterable[OrderActor]]) -> None:
        self._adapters = adapters
        self._live = live
        self._doubts = {name: asyncio.Event() for name in adapters}

    def doubt(self, venue: str) -> None:
        """It has refused an order for good: perhaps by rules that are not known here."""
        self._doubts[venue].set()

    async def run(self, venue: str) -> None:
        """Read them again whenever it is time, until cancelled."""
        adapter, doubt = self._adapters[venue], self._doubts[venue]
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(doubt.wait(), INTERVAL)
            doubt.clear()
            if adapter.health.ready:
                try:
                    await self.read(venue)
                except AdapterError as error:
                    log.warning("the rules of a venue were not read again", venue=venue, error=str(error))
                except Exception:
                    log.exception("the rules of a venue were not read again", venue=venue)
            await asyncio.sleep(LEAST_INTERVAL)

    async def read(self, venue: str) -> None:
        """Read them now; live orders go on by them.

        Raises:
            AdapterError: they stay as they were.
        """
        adapter = self._adapters[venue]
        before = {symbol: adapter.rules(symbol) for symbol in adapter.symbols()}
        await adapter.refresh_rules()
        changed = {symbol for symbol, rules in before.items() if adapter.rules(symbol) != rules}
        if not changed:
            return
        for symbol in sorted(changed):
            log.info(
                "rules changed", venue=venue, symbol=symbol, what=_differences(before[symbol], adapter.rules(symbol))
            )
        for actor in self._live():
            rules = adapter.rules(actor.state.parent.symbol)
            if actor.state.parent.symbol in changed and venue in actor.state.parent.routes:
                if rules is not None and venue == actor.state.parent.home:
                    actor.state.rules = rules
                actor.post(None)


def _differences(before: MarketRules | None, after: MarketRules | None) -> str:
    if before is None or after is None:
        return "not traded any more" if after is None else "traded now"
    names = [name for name in MarketRules.__struct_fields__ if getattr(before, name) != getattr(after, name)]
    return ", ".join(f"{name} {getattr(before, name)} -> {getattr(after, name)}" for name in names)
