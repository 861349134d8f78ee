"""What a replica does about reconciliation beside looking: it answers requests, and tells what was found."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence

from execution.reconcile.report import VenueReport, summary
from execution.reconcile.request import Answer, ask
from execution.service_events import ServiceEvents
from execution.store import Store
from schemas.event import EventType
from schemas.order import OrderStatus


class ReconciliationDesk:
    """Requests from the control topic and over REST, and the events `service.reconciled`."""

    def __init__(self, store: Store, events: ServiceEvents, venues: Collection[str]) -> None:
        self._store = store
        self._events = events
        self._venues = venues

    def unknown(self, venue: str | None) -> str | None:
        """Why a venue cannot be asked for; None: it can."""
        if venue is None or venue in self._venues:
            return None
        return f"{venue} is not configured here: {', '.join(sorted(self._venues))}"

    async def ask(self, venue: str | None) -> Answer:
        """Have every replica look now.

        Raises:
            StoreUnavailable, StoreRefused
        """
        return await ask(self._store, venue)

    async def command(self, venue: str | None, command_id: str, reason: str | None) -> None:
        """The same, answered by an event.

        Raises:
            StoreUnavailable, StoreRefused: offer it again.
        """
        answer = await ask(self._store, venue)
        words = summary(answer.by_venue())
        if answer.silent:
            words += f"; no answer from {', '.join(answer.silent)}"
        await self._tell(answer.by_venue(), f"{reason or 'on request'}: {words}", command_id, command_id=command_id)

    async def found(self, reports: Sequence[VenueReport]) -> None:
        """Tell what a look of this replica repaired, or found that was not so before."""
        await self._tell(reports, summary(reports), uuid.uuid4().hex)

    async def _tell(self, reports: Sequence[VenueReport], reason: str, once: str, **more: str) -> None:
        await self._events.tell(
            EventType.RECONCILED,
            once,
            status=OrderStatus.WORKING,
            reason=reason,
            exchange=reports[0].venue if len(reports) == 1 else None,
            metadata={"venues": [report.fields() for report in reports], **more},
        )
