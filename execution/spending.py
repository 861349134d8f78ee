"""What the accounts have to spend, for orders that choose between venues.

Balances are asked for while such an order works, and now and then; what an order's own children hold at a venue counts as spent
there already. A balance that is not known bounds nothing: the venue will say.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from decimal import Decimal

import structlog

from adapters.base import Adapter, AdapterError
from schemas.order import ParentOrder
from schemas.terms import Side

log = structlog.get_logger(__name__)

INTERVAL = 2.0
WANTED_SECONDS = 10.0


class Spending:
    def __init__(self, adapters: Mapping[str, Adapter]) -> None:
        self._adapters = adapters
        self._free: dict[str, dict[str, Decimal]] = {}
        self._wanted: dict[str, float] = {}
        self._asked = asyncio.Event()

    def available(self, venue: str, order: ParentOrder) -> Decimal | None:
        """The free quote (for a buy) or base (for a sell) at a venue; None: not known, or not bounded by a balance. An account that
        lists nothing at all does not say."""
        self._wanted[venue] = time.monotonic()
        self._asked.set()
        adapter = self._adapters.get(venue)
        rules = adapter.rules(order.symbol) if adapter is not None else None
        known = self._free.get(venue)
        if rules is None or not known or rules.contract:
            return None
        return known.get(rules.quote if order.side is Side.BUY else rules.base, Decimal(0))

    async def run(self) -> None:
        """Keep the balances of venues that are asked about, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            recent = time.monotonic() - WANTED_SECONDS
            await asyncio.gather(*(self._refresh(venue) for venue, at in self._wanted.items() if at >= recent))
            await asyncio.sleep(INTERVAL)

    async def _refresh(self, venue: str) -> None:
        try:
            balances = await self._adapters[venue].balances()
        except AdapterError as error:
            self._free.pop(venue, None)
            log.warning("balances are not known", venue=venue, error=str(error))
        else:
            self._free[venue] = {balance.asset: balance.free for balance in balances}
