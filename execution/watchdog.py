"""The watchdog: takes our orders off the venues when no replica has lived for a while. A process of its own, beside the service.

A beat is a heartbeat that has changed since we last looked, and its age is counted by our own monotonic clock: no other clock, and no
jump of one, decides anything. While the store cannot be asked nothing is known, and the count starts again; so it does after a stall of
ours. Nothing is written to the ledger: replicas that come back find at the venues what was done.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from adapters.base import Adapter, AdapterError, OrderUnknown, VenueOrder
from execution.ledger import LedgerReader, LoadedOrder, keys
from execution.store import STORE_ERRORS, Store
from schemas.order import ChildOrder, ParentOrder, Role

LOOKS = 1.0
"""Seconds between two looks."""
GAP = 5.0
"""A look that comes so many seconds late was kept from coming: what happened meanwhile is not known."""
CANCELS_AT_ONCE = 10
PASSES = 5
"""So often a venue is asked what is left, one after the other, before it is left to the next round."""
ROUNDS = 10.0
"""Seconds between two rounds of cancels while no replica lives."""

Report = Callable[[str, dict[str, Any]], None]
"""Called with what happened, and its details."""


class Beats:
    """When a replica was last seen to beat. Times are monotonic seconds."""

    def __init__(self, now: float) -> None:
        self._known: dict[str, bytes] = {}
        self._since = now

    @property
    def ever(self) -> bool:
        """Whether there was any."""
        return bool(self._known)

    def seen(self, beats: Mapping[str, bytes], now: float) -> bool:
        """Take in the heartbeats that there are; whether one is new."""
        new = any(self._known.get(name) != beat for name, beat in beats.items())
        self._known.update(beats)
        if new:
            self._since = now
        return new

    def restart(self, now: float) -> None:
        """Count again from now."""
        self._since = now

    def silent(self, now: float) -> float:
        """Seconds without a beat."""
        return now - self._since


class Watchdog:
    def __init__(
        self,
        store: Store,
        venues: Mapping[str, Callable[[], Adapter]],
        report: Report,
        *,
        timeout: float,
        every_order: bool = False,
        keep_exits: bool = False,
        without_store: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`venues` make an adapter each, by name; `timeout` in seconds. `every_order`: also those that are not ours.
        `keep_exits`: not those that the ledger knows to protect a position. `without_store`: a store that does not answer
        counts as silence."""
        self._store = store
        self._venues = venues
        self._report = report
        self._timeout = timeout
        self._every_order = every_order
        self._keep_exits = keep_exits
        self._without_store = without_store
        self._monotonic = monotonic
        self._beats = Beats(monotonic())
        self._looked_at = monotonic()
        self._unreachable = False
        self._round_at = 0.0
        self.tripped = False
        """Whether no replica lives, and orders of ours were left."""
        self.left = 0
        """Orders, and venues that could not be asked, left after the last round."""

    async def check_venues(self) -> None:
        """Try every venue once, so that a wrong key is known before it is needed."""
        for name in self._venues:
            try:
                async with self._started(name):
                    self._report("venue_ready", {"venue": name})
            except AdapterError as error:
                self._report("venue_not_ready", {"venue": name, "error": str(error)})

    async def run(self, *, once: bool = False) -> None:
        """Watch until cancelled; with `once`, until the first trip and its cancels."""
        while not (once and self.tripped):
            await self.look()
            await asyncio.sleep(LOOKS)

    async def look(self) -> None:
        """Look once, and do what is to be done."""
        now = self._monotonic()
        if now - self._looked_at > LOOKS + GAP:
            self._report("stalled", {"seconds": round(now - self._looked_at, 1)})
            self._restart(now)
        await self._listen()
        self._looked_at = now = self._monotonic()
        if self._beats.silent(now) <= self._timeout:
            if self.tripped:
                self._report("beating_again", {})
            self.tripped, self._round_at = False, 0.0
        elif now >= self._round_at:
            await self._round()
            self._looked_at = self._monotonic()

    async def _round(self) -> None:
        """No replica lives: cancel, if orders were left."""
        live: list[LoadedOrder] | None = None
        if not self._unreachable:
            try:
                live = await self._live()
            except STORE_ERRORS as error:
                self._lost_store(error)
                return
            if live is None:
                self._report("ledger_lost", {})
            elif not live and not self.tripped:
                return  # nobody is needed
            if await self._listen():
                return
        if not self.tripped:
            silent = round(self._beats.silent(self._monotonic()), 1)
            known = len(live) if live is not None else None
            self._report("tripped", {"silent_seconds": silent, "timeout_seconds": self._timeout, "live_orders": known})
        self.tripped = True
        self.left = sum(await asyncio.gather(*(self._clear(name, live) for name in self._venues)))
        self._round_at = self._monotonic() + ROUNDS

    # --- the store ----------------------------------------------------------------------------------------------------

    async def _listen(self) -> bool:
        """Whether a beat has come; while the store does not answer, nothing is known."""
        try:
            beats = await self._read()
        except STORE_ERRORS as error:
            self._lost_store(error)
            return False
        now = self._monotonic()
        if self._unreachable:
            self._unreachable = False
            self._report("store_back", {})
            self._restart(now)
        return self._beats.seen(beats, now)

    def _lost_store(self, error: Exception) -> None:
        if not self._unreachable:
            self._report("store_unreachable", {"error": str(error), "counts_as_silence": self._without_store})
        self._unreachable = True
        if not self._without_store:
            self._restart(self._monotonic())

    def _restart(self, now: float) -> None:
        """What was not heard is not known, and the count starts again; a trip stands until a beat is heard."""
        if not self.tripped:
            self._beats.restart(now)

    async def _read(self) -> dict[str, bytes]:
        found = {}
        for name in await self._store.call("ZRANGE", keys.REPLICAS, 0, -1):
            beat = await self._store.call("GET", keys.heartbeat(name.decode()))
            if beat is not None:
                found[name.decode()] = beat
        return found

    async def _live(self) -> list[LoadedOrder] | None:
        """The orders that have not ended; None: there was a ledger here and now there is none, so only the venues can say."""
        reader = LedgerReader(self._store)
        try:
            await reader.open()
        except LookupError:
            return None if self._beats.ever else []
        return await reader.live()

    # --- the venues -----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _started(self, name: str) -> AsyncIterator[Adapter]:
        adapter = self._venues[name]()
        await adapter.start()
        try:
            yield adapter
        finally:
            await adapter.close()

    async def _clear(self, name: str, live: list[LoadedOrder] | None) -> int:
        """Cancel what is to go at a venue; returns how much may be left."""
        children = [child for order in live or () for child in order.children if child.venue == name]
        kept = {
            child.child_id
            for order in live or ()
            for child in order.children
            if self._keep_exits and _protects(order.parent, child)
        }
        canceled, left = 0, 0
        try:
            async with self._started(name) as adapter:
                for number in range(PASSES):
                    await asyncio.sleep(number)
                    chosen = self._chosen(await self._open(adapter, children), children, kept)
                    left = len(chosen)
                    if not chosen or not self._still_silent():
                        break
                    canceled += await self._cancel(name, adapter, chosen)
        except Exception as error:  # noqa: BLE001 - whatever it was, the other venues are cleared, and this one is tried again
            self._report("venue_failed", {"venue": name, "error": str(error)})
            left = max(left, 1)
        if canceled or left:
            self._report("venue_done", {"venue": name, "canceled": canceled, "left": left})
        return left

    async def _open(self, adapter: Adapter, children: list[ChildOrder]) -> list[VenueOrder]:
        try:
            return await adapter.open_orders()
        except AdapterError:
            symbols = sorted({child.symbol for child in children})
            if not symbols:
                raise
            # Some venues list orders only by symbol.
            return [order for symbol in symbols for order in await adapter.open_orders(symbol)]

    def _chosen(self, orders: list[VenueOrder], children: list[ChildOrder], kept: set[str]) -> list[VenueOrder]:
        """Those that are to go: ours by their client order id or by the ledger, or all of them."""
        by_id = {child.child_id: child for child in children}
        by_venue_id = {child.venue_order_id: child for child in children if child.venue_order_id is not None}
        chosen = []
        for order in orders:
            child = by_id.get(order.client_order_id or "") or by_venue_id.get(order.venue_order_id or "")
            if child is not None and child.child_id in kept:
                continue
            if self._every_order or child is not None or keys.key_of_child(order.client_order_id) is not None:
                chosen.append(order)
        return chosen

    async def _cancel(self, name: str, adapter: Adapter, orders: list[VenueOrder]) -> int:
        turns = asyncio.Semaphore(CANCELS_AT_ONCE)

        async def cancel(order: VenueOrder) -> bool:
            told = {
                "venue": name,
                "symbol": order.symbol,
                "client_order_id": order.client_order_id,
                "venue_order_id": order.venue_order_id,
            }
            async with turns:
                await self._listen()
                if not self._still_silent():
                    return False
                try:
                    await adapter.cancel(order.symbol, order.client_order_id or "", order.venue_order_id)
                except OrderUnknown:
                    return False  # it ended meanwhile
                except AdapterError as error:
                    self._report("not_canceled", {**told, "error": str(error)})
                    return False
            self._report("canceled", told)
            return True

        return sum(await asyncio.gather(*(cancel(order) for order in orders)))

    def _still_silent(self) -> bool:
        """Whether still no replica has come back; that the store is lost on the way changes nothing."""
        return self._unreachable or self._beats.silent(self._monotonic()) > self._timeout


def _protects(parent: ParentOrder, child: ChildOrder) -> bool:
    """Whether a child only protects a position: an exit of a bracket, or a stop that can only reduce."""
    return child.role is Role.EXIT or (parent.reduce_only and parent.order_type.has_trigger)
