"""What each order's execution cost: measured when it ends, told in its last event, and kept.

Mark-outs look at the price up to a minute after a fill, so a report is kept at once and once more when they are known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from itertools import takewhile

import msgspec
import structlog

from algorithms.base import Done
from execution.market_data import MarketData
from execution.order_state import OrderState
from execution.store import STORE_ERRORS
from execution.tca import marked_out, measure
from schemas.order import Tape
from schemas.tca import MARKOUT_HORIZONS, CostReport, MarketWindow

log = structlog.get_logger(__name__)

Save = Callable[[CostReport], Awaitable[None]]

BEFORE_MS = 5_000
AFTER = MARKOUT_HORIZONS[-1] + 2.0
"""Seconds after the end at which the last mark-out is known."""
MOST_WAITING = 20_000
"""Beyond so many reports that wait for their mark-outs, further ones are kept without."""


class Costs:
    """The cost reports of a replica's orders."""

    def __init__(self, market: MarketData, save: Save | None) -> None:
        """`save`: keeps a report, replacing one of the same order; None: reports are told in events only."""
        self._market = market
        self._save = save
        self._waiting: dict[str, tuple[asyncio.TimerHandle, Callable[[], CostReport]]] = {}
        self._saving: set[asyncio.Task[None]] = set()

    def report(
        self, state: OrderState, schedule: Sequence[tuple[int, Decimal]], done: Done, now: int
    ) -> CostReport | None:
        """What the last event of an order that ends now tells: the report without its series; None for one without a child."""
        if not state.entries.children or self._save is None:
            return None
        parent = msgspec.structs.replace(state.parent, status=done.status, reason=done.reason, updated_at=now)
        children = state.entries.children
        exits = {child.child_id for child in state.exits.children}
        fills = [fill for fill in state.fills if fill.child_id not in exits] if exits else list(state.fills)

        report = measure(parent, children, fills, self._window(state, now), schedule=schedule, timings=state.timings)

        def marked() -> CostReport:
            window = self._window(state, now)
            if state.parent.updated_at > now:
                # Something came after its end.
                return measure(parent, children, fills, window, schedule=schedule, timings=state.timings)
            return marked_out(report, fills, window)

        self._keep(report)
        if fills and len(self._waiting) < MOST_WAITING:
            timer = asyncio.get_running_loop().call_later(AFTER, self._marked, parent.order_id)
            self._waiting[parent.order_id] = (timer, marked)
        return msgspec.structs.replace(report, schedule=(), path=(), fills=())

    def _window(self, state: OrderState, now: int) -> MarketWindow:
        parent = state.parent
        tape = parent.tape or Tape()
        samples = [(fill.timestamp, fill.mid) for fill in state.fills if fill.mid is not None]
        halves = [(fill.timestamp, fill.half_spread) for fill in state.fills if fill.half_spread is not None]
        end = None
        feed = self._market.feed(parent.home, parent.symbol)
        if feed is not None:
            start = parent.created_at - BEFORE_MS
            # From the latest back: most orders are short, and hours are kept.
            fine = list(takewhile(lambda sample: sample[0] >= start, reversed(feed.fine)))
            samples += [(at, mid) for at, mid, _ in fine]
            halves += [(at, half) for at, _, half in fine]
            fine_from = feed.fine[0][0] if feed.fine else 0
            if start < fine_from:
                samples += [(at, mid) for at, mid, _ in feed.coarse if start <= at < fine_from]
            end = next((mid for at, mid, _ in reversed(feed.fine) if at <= now), None)
        return MarketWindow(
            decision=parent.decision_price,
            arrival=parent.arrival,
            arrival_at=parent.arrival_at or None,
            end=end,
            volume=tape.volume,
            notional=tape.notional,
            mid_integral=tape.mid_integral,
            observed_ms=tape.observed_ms,
            samples=tuple(sorted(samples)),
            half_spreads=tuple(sorted(halves)),
        )

    def _marked(self, order_id: str) -> None:
        """Its mark-outs are known now."""
        waiting = self._waiting.pop(order_id, None)
        if waiting is not None:
            self._keep(waiting[1]())

    def _keep(self, report: CostReport) -> None:
        if self._save is not None:
            task = asyncio.get_running_loop().create_task(self._kept(report))
            self._saving.add(task)
            task.add_done_callback(self._saving.discard)

    async def _kept(self, report: CostReport) -> None:
        assert self._save is not None
        try:
            await self._save(report)
        except STORE_ERRORS as error:
            log.warning("a cost report was not kept", order_id=report.order_id, error=str(error))

    async def close(self) -> None:
        """Keep what is known of the reports that still wait."""
        for order_id, (timer, _) in list(self._waiting.items()):
            timer.cancel()
            self._marked(order_id)
        if self._saving:
            await asyncio.wait(self._saving, timeout=2.0)
