"""Open orders of a venue against the ledger.

What the ledger holds for open and the venue does not list is asked for by its order. What the venue lists under an id of ours is
somebody's to watch: a child that the ledger lost is adopted by its order; one whose order is unknown, or holds it for ended, is
reported, and by policy cancelled. Whatever carries no id of ours is foreign: counted, and never touched.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import msgspec
import structlog

from adapters.base import AdapterError, OrderUnknown, VenueOrder
from execution.ledger import Fenced, Ledger, LedgerMismatch, keys
from execution.metrics import Metrics
from execution.reconcile.report import VenueReport
from execution.reconcile.turns import in_turns
from execution.runner import Runner
from execution.venue_calls import EXPIRY_MARGIN_MS, NO_EXPIRY_MS
from execution.venue_reads import Reads
from schemas.order import ChildOrder, ChildState

log = structlog.get_logger(__name__)

RECENT_MS = 2000
"""Children that changed this recently are left alone: an answer may be older than what is known."""
SYMBOLS_ASKED_SINGLY = 5
ANSWER_SECONDS = 10.0
"""How long a look waits for the answers about children that the venue does not list."""


@dataclass(slots=True)
class _Sighting:
    """An order of ours that nobody works. It is acted on when it was seen twice, and could no longer be just appearing."""

    times: int
    first: int
    """Ms since the epoch."""


class OpenOrders:
    def __init__(self, runner: Runner, ledger: Ledger, reads: Reads, metrics: Metrics, *, cancel_unknown: bool) -> None:
        self._runner = runner
        self._ledger = ledger
        self._reads = reads
        self._metrics = metrics
        self._cancel_unknown = cancel_unknown
        self._sightings: dict[str, dict[str, _Sighting]] = {}

    async def look(self, venue: str, report: VenueReport, *, full: bool) -> None:
        """Compare; not `full`: only what the ledger holds for open.

        Raises:
            AdapterError: the venue gave no list. StoreUnavailable, StoreRefused
        """
        watched = [
            (actor, child)
            async for actor in in_turns(self._runner.actors())
            for child in actor.state.active
            if child.venue == venue and child.state is ChildState.OPEN
        ]
        symbols = {child.symbol for _, child in watched}
        if not full and not symbols:
            return
        before = _now()
        if full or len(symbols) > SYMBOLS_ASKED_SINGLY:
            listed = await self._reads.open_orders(venue)
        else:
            listed = []
            for symbol in sorted(symbols):
                listed += await self._reads.open_orders(venue, symbol)
        report.open_orders, report.compared = len(listed), len(watched)
        ids = {order.client_order_id for order in listed} | {order.venue_order_id for order in listed}
        by_venue_id = {child.venue_order_id for _, child in watched}
        ours = [
            order
            async for order in in_turns(listed)
            if order.venue_order_id in by_venue_id or keys.key_of_child(order.client_order_id) is not None
        ]
        async for order in in_turns(ours):
            self._runner.on_order(venue, order)
        missing: list[tuple[ChildOrder, asyncio.Task[None]]] = []
        async for actor, child in in_turns(watched):
            unlisted = child.child_id not in ids and child.venue_order_id not in ids
            if unlisted and child.state is ChildState.OPEN and child.updated_at < before - RECENT_MS:
                missing.append((child, actor.refresh(child)))
        if full:
            await self._unworked(venue, ours, report)
            if self._runner.lease_of(keys.order_key(f"venue\0{venue}")) is not None:
                report.foreign_orders = len(listed) - len(ours)
                self._metrics.foreign_orders(venue, report.foreign_orders)
        if missing:
            await asyncio.wait([task for _, task in missing], timeout=ANSWER_SECONDS if full else 0.0)
            report.ended = sum(child.state.terminal for child, _ in missing)
            if report.ended:
                self._metrics.repaired(venue, "ended", report.ended)

    def unwatched(self, venue: str) -> int:
        """Open orders under ids of ours that nobody works, seen more than once."""
        return sum(sighting.times >= 2 for sighting in self._sightings.get(venue, {}).values())

    # --- what nobody works --------------------------------------------------------------------------------------------

    async def _unworked(self, venue: str, ours: list[VenueOrder], report: VenueReport) -> None:
        before, seen = self._sightings.get(venue, {}), dict[str, _Sighting]()
        async for order in in_turns(
            sorted(ours, key=lambda order: (order.timestamp or 0, order.client_order_id or ""))
        ):
            why = await self._nobody(venue, order, report)
            if why is None:
                continue
            identity = order.venue_order_id or order.client_order_id or ""
            sighting = seen[identity] = before.get(identity) or _Sighting(0, _now())
            sighting.times += 1
            report.unwatched += 1
            if sighting.times >= 2 and _now() - sighting.first >= self._patience_ms(venue):
                await self._act(venue, order, why, sighting, report)
        self._sightings[venue] = seen
        self._metrics.unwatched_orders(venue, self.unwatched(venue))

    async def _nobody(self, venue: str, order: VenueOrder, report: VenueReport) -> str | None:
        """Why nobody works an order of ours; None: somebody does, or another replica has to know."""
        address = keys.key_of_child(order.client_order_id)
        if address is None:
            return None  # known by the venue's id
        key = address[0]
        if self._runner.lease_of(key) is None:
            return None
        actor = await self._runner.find(key)
        if actor is None:
            return None if await self._in_ledger(key) else "its order is not in the ledger"
        child = actor.state.child(order.client_order_id)
        if child is None:
            try:
                adopted = await actor.adopt(venue, order)
            except (Fenced, LedgerMismatch):
                return None  # its next owner finds it, or the next look
            if adopted is None:
                return "it cannot be what its order placed"
            report.adopted.append(order.client_order_id or "")
            return None
        if child.venue != venue:
            return f"its order has it at {child.venue}"
        if child.state.terminal:
            self._runner.on_order(venue, order)  # its order, loaded again, takes it off
            return f"its order holds it for {child.state.value}"
        if actor.state.over:
            actor.post(None)  # cancelled before, by a replica that is gone: asked again until it is off
        return None

    async def _in_ledger(self, key: str) -> bool:
        """Whether the ledger has an order that this replica cannot work: then it is not for this replica to cancel."""
        if not self._ledger.whole:
            return True  # what the store lost may be on its way back
        try:
            return await self._ledger.load(key) is not None
        except msgspec.MsgspecError:
            return True  # not readable by this version

    async def _act(self, venue: str, order: VenueOrder, why: str, sighting: _Sighting, report: VenueReport) -> None:
        told = {
            "venue": venue,
            "symbol": order.symbol,
            "client_order_id": order.client_order_id,
            "venue_order_id": order.venue_order_id,
            "why": why,
        }
        if not self._cancel_unknown:
            if sighting.times == 2 or sighting.times % 100 == 0:
                log.error("an open order of ours is worked by nobody", **told)
            return
        address = keys.key_of_child(order.client_order_id)
        lease = self._runner.lease_of(address[0]) if address is not None else None
        if lease is None or lease.suspect or not self._ledger.whole:
            return
        log.error("an open order of ours that nobody works is cancelled", filled=str(order.filled), **told)
        try:
            await self._reads.adapters[venue].cancel(order.symbol, order.client_order_id or "", order.venue_order_id)
        except OrderUnknown:
            return
        except AdapterError as error:
            log.error("it could not be cancelled", venue_order_id=order.venue_order_id, error=str(error))
            report.errors.append(f"{order.client_order_id} could not be cancelled: {error}")
            return
        report.cancelled.append(order.client_order_id or "")
        self._metrics.repaired(venue, "cancelled")

    def _patience_ms(self, venue: str) -> int:
        """After so long, a request that was on its way when the order was first seen can no longer be."""
        return (self._reads.adapters[venue].request_ttl_ms or NO_EXPIRY_MS) + EXPIRY_MARGIN_MS


def _now() -> int:
    return time.time_ns() // 1_000_000
