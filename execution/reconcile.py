"""Keeping the ledger and the venues in agreement.

A venue's stream brings changes as they happen. When it connects (something may have been missed), while it is down, and on an
interval in any case, the venue is asked which orders are open. Quantities and ends that differ are booked; trades are fetched by
the order concerned, never invented. Orders open at a venue that nobody watches are reported, and by policy cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping

import structlog

from adapters.base import Adapter, AdapterError, VenueFill, VenueOrder
from execution.ledger import Ledger, keys
from execution.metrics import Metrics
from execution.runner import Runner
from execution.store import STORE_ERRORS
from schemas.order import ChildState

log = structlog.get_logger(__name__)

RECENT_MS = 2000
"""Children that changed this recently are left alone: an answer may be older than what is known."""
SYMBOLS_ASKED_SINGLY = 5


class Reconciler:
    def __init__(
        self,
        runner: Runner,
        ledger: Ledger,
        adapters: Mapping[str, Adapter],
        metrics: Metrics,
        *,
        poll_interval: float,
        reconcile_interval: float,
        cancel_unknown: bool,
    ) -> None:
        """`poll_interval`: seconds between looks while a venue's stream is down; `reconcile_interval`: otherwise."""
        self._runner = runner
        self._ledger = ledger
        self._adapters = adapters
        self._metrics = metrics
        self._poll_interval = poll_interval
        self._reconcile_interval = reconcile_interval
        self._cancel_unknown = cancel_unknown
        self._nudges = {name: asyncio.Event() for name in adapters}
        self._stream_up = dict.fromkeys(adapters, False)
        self._sightings: dict[tuple[str, str], int] = {}
        self.unwatched: dict[str, int] = dict.fromkeys(adapters, 0)
        """Open orders per venue that the ledger does not know, at the last full look."""

    # --- the sink of the venues' streams ----------------------------------------------------------------------------

    def on_order(self, venue: str, order: VenueOrder) -> None:
        self._runner.on_order(venue, order)

    def on_fill(self, venue: str, fill: VenueFill) -> None:
        self._metrics.fill_reported(venue)
        self._runner.on_fill(venue, fill)

    def on_stream(self, venue: str, *, up: bool, reason: str | None) -> None:
        if up != self._stream_up[venue]:
            log.info("stream up" if up else "stream down", venue=venue, reason=reason)
        self._stream_up[venue] = up
        self._metrics.stream_up(venue, up)
        self._nudges[venue].set()

    # --- looking ----------------------------------------------------------------------------------------------------

    def nudge(self) -> None:
        """Look at every venue soon."""
        for event in self._nudges.values():
            event.set()

    async def run(self, venue: str) -> None:
        """Look at a venue whenever it is due, until cancelled."""
        last_full = 0.0
        while True:
            nudge = self._nudges[venue]
            interval = self._reconcile_interval if self._stream_up[venue] else self._poll_interval
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(nudge.wait(), interval)
            full = nudge.is_set() or time.monotonic() - last_full >= self._reconcile_interval
            nudge.clear()
            try:
                await self._look(venue, full=full)
            except (AdapterError, *STORE_ERRORS) as error:
                log.warning("venue not reconciled", venue=venue, error=str(error))
                await asyncio.sleep(min(self._poll_interval, 1.0))
                nudge.set() if full else None
            else:
                last_full = time.monotonic() if full else last_full

    async def _look(self, venue: str, *, full: bool) -> None:
        adapter = self._adapters[venue]
        watched = [
            (actor, child)
            for actor in self._runner.actors()
            for child in actor.state.active
            if child.venue == venue and child.state is ChildState.OPEN
        ]
        symbols = {child.symbol for _, child in watched}
        if not full and not symbols:
            return
        before = time.time_ns() // 1_000_000
        if full or len(symbols) > SYMBOLS_ASKED_SINGLY:
            open_orders = await adapter.open_orders()
        else:
            open_orders = [order for symbol in sorted(symbols) for order in await adapter.open_orders(symbol)]
        listed = {order.client_order_id for order in open_orders} | {order.venue_order_id for order in open_orders}
        for order in open_orders:
            self._runner.on_order(venue, order)
        for actor, child in watched:
            missing = child.child_id not in listed and child.venue_order_id not in listed
            if missing and child.state is ChildState.OPEN and child.updated_at < before - RECENT_MS:
                actor.refresh(child)
        if full:
            await self._find_unwatched(venue, adapter, open_orders)

    async def _find_unwatched(self, venue: str, adapter: Adapter, open_orders: list[VenueOrder]) -> None:
        """Orders that are open at the venue and that no replica works. Twice seen is meant: one may just be appearing."""
        seen: dict[tuple[str, str], int] = {}
        for order in open_orders:
            if await self._watched(venue, order):
                continue
            identity = (venue, order.venue_order_id or order.client_order_id or "")
            seen[identity] = self._sightings.get(identity, 0) + 1
            if seen[identity] == 2:
                log.error(
                    "an open order at the venue is not in the ledger",
                    venue=venue,
                    symbol=order.symbol,
                    client_order_id=order.client_order_id,
                    venue_order_id=order.venue_order_id,
                    policy="cancel" if self._cancel_unknown else "report",
                )
            if seen[identity] >= 2 and self._cancel_unknown:
                try:
                    await adapter.cancel(order.symbol, order.client_order_id or "", order.venue_order_id)
                except AdapterError as error:
                    log.error("it could not be cancelled", venue_order_id=order.venue_order_id, error=str(error))
        for identity in [known for known in self._sightings if known[0] == venue]:
            del self._sightings[identity]
        self._sightings.update(seen)
        self.unwatched[venue] = sum(1 for sightings in seen.values() if sightings >= 2)
        self._metrics.unwatched_orders(venue, self.unwatched[venue])

    async def _watched(self, venue: str, order: VenueOrder) -> bool:
        """Whether an open order is somebody's to watch; what belongs to another replica's shard is left to it."""
        address = keys.key_of_child(order.client_order_id)
        key = address[0] if address is not None else keys.order_key(f"venue\0{venue}")
        if self._runner.lease_of(key) is None:
            return True
        if address is None:
            return False
        actor = await self._runner.find(key)
        child = actor.state.child(order.client_order_id, order.venue_order_id) if actor is not None else None
        if child is None:
            return False
        if child.state.terminal:
            self._runner.on_order(venue, order)  # its order, loaded again, takes it off
            return False
        return True
