"""Asking the venues for children that a store which came back without its last writes no longer knows.

Who wrote them writes them again (`execution.ledger.journal`), unless it is gone too. Then the venues of an order are asked for the
ids that it would use next. An id counts as unused when a request under it could no longer be carried out and the venue, asked
again, still knows none. Nothing new is decided meanwhile: it would go out under those ids.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from adapters.base import AdapterError, VenueOrder
from execution.circuit import Endpoint
from execution.ledger import keys
from execution.venue_calls import EXPIRY_MARGIN_MS, NO_EXPIRY_MS
from execution.venue_requests import AGREEING_READS

if TYPE_CHECKING:
    from execution.order_actor import OrderActor

AHEAD = 3
"""So many ids after the last one known are asked for: as many children may have been lost in one moment and never reached a venue,
before one that did."""
PAUSE = 0.5
"""Seconds between two reads of a venue."""


async def search(actor: OrderActor) -> None:
    """Adopt what the venues have of an order and the ledger has not.

    Raises:
        Fenced: another replica owns the order now.
    """
    first = max((child.number for child in actor.state.children), default=0) + 1
    await asyncio.gather(*(_search(actor, venue, first) for venue in actor.state.parent.routes))


async def _search(actor: OrderActor, venue: str, first: int) -> None:
    desk = actor.desk
    expiry_ms = (desk.adapters[venue].request_ttl_ms or NO_EXPIRY_MS) + EXPIRY_MARGIN_MS
    agreeing = 0
    while True:
        asked_at = desk.monotonic()
        try:
            found = await _look(actor, venue, first)
        except AdapterError as error:
            actor.log.warning("a venue was asked in vain for lost orders", venue=venue, error=str(error))
            await asyncio.sleep(2 * PAUSE)
            continue
        settled = actor.lease.quiet_from + expiry_ms / 1000
        agreeing = agreeing + 1 if asked_at > settled and not found else 0
        if agreeing >= AGREEING_READS:
            return
        # What may still arrive is asked for when it no longer can: many orders may be in doubt, and a venue's patience is limited.
        await asyncio.sleep(PAUSE if found else max(PAUSE, settled - desk.monotonic()))


async def _look(actor: OrderActor, venue: str, first: int) -> bool:
    """Ask for every id that may have been used; whether one was."""
    last = max((child.number for child in actor.state.children), default=0)
    for number in range(first, max(last + 1, first) + AHEAD):
        child_id = keys.child_id(actor.key, number)
        if actor.state.child(child_id) is None:
            told = await _find(actor, venue, child_id)
            if told is not None and await actor.adopt(venue, told) is not None:
                return True
    return False


async def _find(actor: OrderActor, venue: str, child_id: str) -> VenueOrder | None:
    circuit = actor.desk.market.circuits.of(venue, Endpoint.READS)
    while not circuit.admits:
        await circuit.wait(f"search {child_id}")
    with circuit.passage():
        return await actor.desk.adapters[venue].find(actor.state.parent.symbol, child_id)
