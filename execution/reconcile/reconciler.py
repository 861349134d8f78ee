"""When a venue is looked at, and what is told of it.

A venue's stream brings changes as they happen. When it connects (something may have been missed), on an interval in any case, when
shards were taken over and on command, all of the account is compared; while the stream is down, open orders are more often.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from adapters.base import Adapter, AdapterError, VenueFill, VenueOrder
from execution.ledger import Ledger
from execution.metrics import Metrics
from execution.reconcile.open_orders import OpenOrders
from execution.reconcile.positions import BookedTrades, Positions
from execution.reconcile.report import VenueReport
from execution.reconcile.trades import TradedSymbols, Trades
from execution.runner import Runner
from execution.store import STORE_ERRORS
from execution.venue_reads import Reads

log = structlog.get_logger(__name__)

LONG = 5
"""Health tells of a venue that was not looked at in full for so many intervals."""
LEAST_LONG = 60.0
LARGE = 5_000
"""Open orders and trades that one full look per interval may compare. Of larger accounts looks come less often: they are work, for the
venue too."""
SELDOMEST = 4
"""Intervals; so often it comes in any case."""
MOST_STRAYS = 100
"""Orders of ours told by a stream, and not known to their order, that are looked up at a time; a full look finds the rest."""

Told = Callable[[Sequence[VenueReport]], Awaitable[None]]


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
        instance: str = "",
        traded: TradedSymbols | None = None,
        booked: BookedTrades | None = None,
        tell: Told | None = None,
    ) -> None:
        """`poll_interval`: seconds between looks while a venue's stream is down; `reconcile_interval`: otherwise. `cancel_unknown`:
        whether orders under ids of ours that nobody works are cancelled. `tell` is given what a look repaired, or found anew."""
        self._runner = runner
        self._adapters = adapters
        self._metrics = metrics
        self._poll_interval = poll_interval
        self._reconcile_interval = reconcile_interval
        self._instance = instance
        self._tell = tell
        reads = Reads(adapters, runner.circuits, metrics)
        self._orders = OpenOrders(runner, ledger, reads, metrics, cancel_unknown=cancel_unknown)
        self._trades = Trades(runner, reads, metrics, traded)
        self._positions = Positions(runner, reads, metrics, booked) if booked is not None else None
        self._nudges = {name: asyncio.Event() for name in adapters}
        self._turns = {name: asyncio.Lock() for name in adapters}
        self._stream_up = dict.fromkeys(adapters, False)
        self._found: dict[str, object] = {}
        self._good_at = dict.fromkeys(adapters, time.monotonic())
        self._failed: dict[str, str] = {}
        self._strays: dict[str, asyncio.Task[None]] = {}

    # --- the sink of the venues' streams ----------------------------------------------------------------------------

    def on_order(self, venue: str, order: VenueOrder) -> None:
        if not self._runner.on_order(venue, order):
            self._stray(venue, order.symbol, order.client_order_id)

    def on_fill(self, venue: str, fill: VenueFill) -> None:
        self._metrics.fill_reported(venue)
        if not self._runner.on_fill(venue, fill):
            self._stray(venue, fill.symbol, fill.client_order_id)

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

    def shards_changed(self) -> None:
        """Orders were taken over: look at every venue soon, and far enough back."""
        self._trades.restart()
        self.nudge()

    async def run(self, venue: str) -> None:
        """Look at a venue whenever it is due, until cancelled."""
        last_full, pause = 0.0, self._reconcile_interval
        while True:
            nudge = self._nudges[venue]
            interval = pause if self._stream_up[venue] else self._poll_interval
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(nudge.wait(), interval)
            full = nudge.is_set() or time.monotonic() - last_full >= pause
            nudge.clear()
            report = await self._looked(venue, full=full)
            if report is not None:
                if full:
                    last_full = time.monotonic()
                    pause = self._reconcile_interval * min(max(report.size / LARGE, 1), SELDOMEST)
            else:
                await asyncio.sleep(min(self._poll_interval, 1.0))
                nudge.set() if full else None

    async def reconcile(self, venues: Sequence[str] = ()) -> list[VenueReport]:
        """Look at venues now, by default at all of them; what could not be had is among the errors of a report."""
        wanted = [venue for venue in venues or self._adapters if venue in self._adapters]
        return list(await asyncio.gather(*(self._report(venue) for venue in wanted)))

    # --- what operators see -------------------------------------------------------------------------------------------

    @property
    def unwatched(self) -> dict[str, int]:
        """Open orders by venue, under ids of ours, that nobody works."""
        return {venue: self._orders.unwatched(venue) for venue in self._adapters}

    def troubles(self, venue: str) -> list[str]:
        """Why the ledger and a venue may differ unseen, in words; empty: they were compared lately."""
        age = time.monotonic() - self._good_at[venue]
        if age < max(LONG * self._reconcile_interval, LEAST_LONG):
            return []
        return [f"not reconciled for {age:.0f} s: {self._failed.get(venue, 'no look has ended')}"]

    # --- inside -------------------------------------------------------------------------------------------------------

    async def _looked(self, venue: str, *, full: bool) -> VenueReport | None:
        """Look once; None: the venue, the store or this program did not let it be done."""
        try:
            return await self._look(venue, full=full)
        except (AdapterError, *STORE_ERRORS) as error:
            self._failed[venue] = str(error)
            log.warning("venue not reconciled", venue=venue, error=str(error))
        except Exception as error:
            self._failed[venue] = str(error)
            log.exception("reconciliation failed unexpectedly", venue=venue)
            self._metrics.internal_error("reconciliation")
        return None

    async def _report(self, venue: str) -> VenueReport:
        try:
            report = await self._look(venue, full=True)
        except (AdapterError, *STORE_ERRORS) as error:
            report = self._new_report(venue)
            report.errors.append(str(error))
        return report

    async def _look(self, venue: str, *, full: bool) -> VenueReport:
        async with self._turns[venue]:
            started, report = time.monotonic(), self._new_report(venue)
            await self._orders.look(venue, report, full=full)
            if full:
                await self._part(report, "trades", self._trades.look(venue, report))
                if self._positions is not None:
                    await self._part(report, "positions", self._positions.look(venue, report))
            report.seconds = round(time.monotonic() - started, 3)
        if full and not report.errors:
            self._good_at[venue] = time.monotonic()
            self._metrics.reconciled(venue)
        elif report.errors:
            self._failed[venue] = report.errors[0]
        if full:
            await self._account(report)
        return report

    async def _part(self, report: VenueReport, what: str, look: Awaitable[None]) -> None:
        """One part that fails does not keep the others from being compared."""
        try:
            await look
        except AdapterError as error:
            report.errors.append(f"{what}: {error}")
            log.warning("not reconciled", venue=report.venue, what=what, error=str(error))

    async def _account(self, report: VenueReport) -> None:
        """Tell what was repaired, and what was found that was not so the last time."""
        news = report.findings != self._found.get(report.venue, (0, False, 0, ()))
        self._found[report.venue] = report.findings
        if not (news or report.repaired):
            return
        log.warning("venue reconciled", venue=report.venue, found=report.words())
        if self._tell is not None:
            await self._tell([report])

    def _new_report(self, venue: str) -> VenueReport:
        return VenueReport(venue=venue, instance=self._instance, at=time.time_ns() // 1_000_000)

    # --- strays -------------------------------------------------------------------------------------------------------

    def _stray(self, venue: str, symbol: str, client_order_id: str | None) -> None:
        """A stream told of an order of ours that its order does not know: have it adopted."""
        if client_order_id is None or client_order_id in self._strays or len(self._strays) >= MOST_STRAYS:
            return
        task = asyncio.get_running_loop().create_task(self._adopt(venue, symbol, client_order_id))
        self._strays[client_order_id] = task
        task.add_done_callback(lambda _: self._strays.pop(client_order_id, None))

    async def _adopt(self, venue: str, symbol: str, client_order_id: str) -> None:
        try:
            await self._trades.adopt(venue, symbol, client_order_id)
        except (AdapterError, *STORE_ERRORS) as error:
            log.warning("left to the next look", venue=venue, client_order_id=client_order_id, error=str(error))
        except Exception:
            log.exception("an order of ours was not adopted", venue=venue, client_order_id=client_order_id)
            self._metrics.internal_error("reconciliation")
