"""Positions in contracts: what the venue says, against what our fills explain.

The position of the first look is taken as given; from then on every fill booked by any replica, as `STREAM:TRADE` has it, must
explain the changes. A difference that two looks in a row agree on is drift: somebody else trades there, a liquidation, a fill that
is missing here. It is reported, and never traded away.
"""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from typing import Protocol

import structlog

from execution.ledger import keys
from execution.metrics import Metrics
from execution.reconcile.report import Drift, VenueReport
from execution.runner import Runner
from execution.store import Store
from execution.venue_reads import Reads

log = structlog.get_logger(__name__)

ZERO = Decimal(0)
PAGE = 1000
"""Trades read from the store at a time."""


class BookedTrades(Protocol):
    """The fills that all replicas booked, in order."""

    async def last(self) -> str:
        """The position of the newest one."""

    async def after(self, position: str) -> tuple[str, list[tuple[str, str, Decimal]]]:
        """Those after a position, as (venue, symbol, signed quantity), and the position of the last of them."""


class StoredTrades:
    """The same, from the Redis stream of trades."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def last(self) -> str:
        """Raises: StoreUnavailable, StoreRefused"""
        newest = await self._store.call("XREVRANGE", keys.STREAM_TRADE, "+", "-", "COUNT", 1)
        return str(newest[0][0].decode()) if newest else "0-0"

    async def after(self, position: str) -> tuple[str, list[tuple[str, str, Decimal]]]:
        """Raises: StoreUnavailable, StoreRefused"""
        found: list[tuple[str, str, Decimal]] = []
        while True:
            page = await self._store.call("XRANGE", keys.STREAM_TRADE, f"({position}", "+", "COUNT", PAGE)
            for entry, flat in page:
                position = entry.decode()
                fields = {name.decode(): value.decode() for name, value in zip(flat[::2], flat[1::2], strict=True)}
                sign = 1 if fields["side"] == "buy" else -1
                found.append((fields["venue"], fields["symbol"], sign * Decimal(fields["qty"])))
            if len(page) < PAGE:
                return position, found


class Positions:
    def __init__(self, runner: Runner, reads: Reads, metrics: Metrics, booked: BookedTrades) -> None:
        self._runner = runner
        self._reads = reads
        self._metrics = metrics
        self._booked = booked
        self._read_to: dict[str, str] = {}
        self._expected: dict[str, dict[str, Decimal]] = {}
        self._suspected: dict[str, dict[str, Decimal]] = {}

    async def look(self, venue: str, report: VenueReport) -> None:
        """Compare; by one replica for all.

        Raises:
            AdapterError, StoreUnavailable, StoreRefused
        """
        if self._runner.lease_of(keys.order_key(f"venue\0{venue}")) is None:
            self._read_to.pop(venue, None)
            return
        adapter = self._reads.adapters[venue]
        if not any(self._is_contract(venue, symbol) for symbol in adapter.symbols()):
            return
        first = venue not in self._read_to
        if first:
            self._read_to[venue] = await self._booked.last()
        told = await self._reads.positions(venue)
        actual = {position.symbol: position.quantity for position in told}
        if first:
            self._expected[venue], self._suspected[venue] = defaultdict(Decimal, actual), {}
            return
        expected = self._expected[venue]
        self._read_to[venue], trades = await self._booked.after(self._read_to[venue])
        for name, symbol, quantity in trades:
            if name == venue and self._is_contract(venue, symbol):
                expected[symbol] += quantity
        amounts = {
            symbol: actual.get(symbol, ZERO) - expected.get(symbol, ZERO) for symbol in actual.keys() | expected.keys()
        }
        before, self._suspected[venue] = self._suspected[venue], amounts
        for symbol, amount in sorted(amounts.items()):
            drifts = amount != 0 and before.get(symbol) == amount
            if drifts:
                drift = Drift(symbol=symbol, at_venue=actual.get(symbol, ZERO), expected=expected.get(symbol, ZERO))
                report.drifts.append(drift)
            self._metrics.position_drift(venue, symbol, amount if drifts else ZERO)

    def _is_contract(self, venue: str, symbol: str) -> bool:
        rules = self._reads.adapters[venue].rules(symbol)
        return rules is not None and rules.contract
