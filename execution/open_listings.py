"""How many open orders stand at a venue, asked for by one listing where many want to know.

Who takes a shard over asks for each open child. One by one, thousands take minutes at a venue's rate limit; one listing of the account's
open orders tells of nearly all of them. Few are asked for by themselves: a listing costs as much as some twenty questions.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from adapters.base import AdapterError, VenueOrder
from execution.venue_reads import Reads

log = structlog.get_logger(__name__)

AT_ONCE = 20
"""Questions about single orders that are under way at a venue at a time; the next ones wait, and so may be many enough to list."""
ENOUGH = 50
"""From so many on that wait, all open orders are listed."""
PART = 20
"""And from this part of what the last listing had: reading thousands for a handful costs more than asking."""

Alone = Callable[[], Awaitable[VenueOrder | None]]


class OpenListing:
    """Of one venue."""

    def __init__(self, open_orders: Callable[[], Awaitable[list[VenueOrder]]]) -> None:
        self._open_orders = open_orders
        self._under_way = 0
        self._waiting: dict[str, asyncio.Future[VenueOrder | None]] = {}
        """Who waits for a turn or a listing, by client order id, in the order of their coming."""
        self._unlisted: deque[asyncio.Future[VenueOrder | None]] = deque()
        """Who was in no listing, and waits for a turn."""
        self._listing: asyncio.Task[None] | None = None
        self._listed = 0

    async def find(self, client_order_id: str, alone: Alone) -> VenueOrder | None:
        """The venue's record of an open order of ours, from a listing asked for from now on, or else as `alone` has it.

        Raises:
            AdapterError: of `alone`.
        """
        if self._under_way < AT_ONCE and not self._waiting and not self._unlisted:
            self._under_way += 1
        else:
            turn: asyncio.Future[VenueOrder | None] = asyncio.get_running_loop().create_future()
            self._waiting[client_order_id] = turn
            self._go_on()
            try:
                listed = await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled() and turn.result() is None:
                    self._leave()
                raise
            finally:
                if self._waiting.get(client_order_id) is turn:
                    del self._waiting[client_order_id]
            if listed is not None:
                return listed
        try:
            return await alone()
        finally:
            self._leave()

    def _leave(self) -> None:
        self._under_way -= 1
        self._go_on()

    def _go_on(self) -> None:
        """List what waits, where it is many; give turns to ask alone."""
        if self._listing is None and len(self._waiting) >= max(ENOUGH, self._listed // PART):
            wanted, self._waiting = self._waiting, {}
            self._listing = asyncio.get_running_loop().create_task(self._list(wanted))
        while self._under_way < AT_ONCE:
            if self._unlisted:
                turn = self._unlisted.popleft()
            elif self._waiting and self._listing is None:
                turn = self._waiting.pop(next(iter(self._waiting)))
            else:
                return
            if not turn.done():
                self._under_way += 1
                turn.set_result(None)

    async def _list(self, wanted: dict[str, asyncio.Future[VenueOrder | None]]) -> None:
        found: dict[str | None, VenueOrder] = {}
        try:
            listed = await self._open_orders()
            self._listed = len(listed)
            found = {told.client_order_id: told for told in listed}
        except AdapterError as error:
            log.warning("open orders not listed; they are asked for singly", error=str(error))
        finally:
            self._listing = None
            for client_order_id, turn in wanted.items():
                if turn.done():
                    continue
                if client_order_id in found:
                    turn.set_result(found[client_order_id])
                else:
                    self._unlisted.append(turn)
            self._go_on()


class OpenListings:
    """Of every venue."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._listings: dict[str, OpenListing] = {}

    def of(self, venue: str) -> OpenListing:
        listing = self._listings.get(venue)
        if listing is None:
            listing = self._listings[venue] = OpenListing(lambda: self._reads.open_orders(venue))
        return listing
