"""Orders of this replica while it cannot reach the store: nothing of them can be booked, and nothing new is sent, but cancels leave.

An order is let go as soon as a step of it cannot be written, or its lease has run out. What is at the venues stays known here: what was
to be cancelled, what a command asks to cancel and what comes to the end of its time is cancelled. That can only reduce what may fill,
whoever owns the order meanwhile. Once the store is back, orders are loaded from it and learn at their venues what was done.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import structlog

from adapters.base import Adapter, AdapterError, OrderUnknown, VenueOrderStatus
from execution.circuit import Circuits, Endpoint
from execution.ledger import keys
from execution.metrics import Metrics
from execution.order_actor import OrderActor
from execution.retry_policy import Repeater, Request
from schemas.command import CancelOrder
from schemas.order import ChildOrder, ChildState, ParentOrder, Role

log = structlog.get_logger(__name__)

LOOKS = 0.25
"""Seconds between two looks at what is due."""
KEPT = 10.0
"""Seconds for which an order that was let go is remembered while the store answers: the first refusal may tell of an outage."""
WHY = "a cancel was asked for while the store was away"


class _Left(NamedTuple):
    """What may be at venues of an order that was let go."""

    parent: ParentOrder
    children: tuple[ChildOrder, ...]
    since: float
    """Monotonic seconds."""


class Adrift:
    """What this replica knows of orders that it cannot work now."""

    def __init__(
        self,
        adapters: Mapping[str, Adapter],
        circuits: Circuits,
        metrics: Metrics,
        *,
        max_retries: int,
        live: Callable[[], Iterable[OrderActor]],
        away: Callable[[], bool],
        now: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`live`: the orders that are worked. `away`: whether the store is. `now` in ms since the epoch, `monotonic` in seconds."""
        self._adapters = adapters
        self._circuits = circuits
        self._metrics = metrics
        self._max_retries = max_retries
        self._live = live
        self._away = away
        self._now = now
        self._monotonic = monotonic
        self._orders: dict[str, _Left] = {}
        self._asked: set[str] = set()
        """Keys of orders that a command wants cancelled and that has not been carried out yet."""
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def halted(self, order: ParentOrder) -> str | None:
        """Why an order may send no entries; None: it may. What was cancelled is not placed again before its command is carried out."""
        return WHY if self._asked and keys.order_key(order.signal_id) in self._asked else None

    def keep(self, actors: Iterable[OrderActor]) -> None:
        """Keep what is known of orders that are let go."""
        for actor in actors:
            active = tuple(actor.state.active)
            if active:
                self._orders[actor.key] = _Left(actor.state.parent, active, self._monotonic())

    def ask(self, command: CancelOrder) -> None:
        """Cancel the entries of an order at its venue now: the command itself waits for the store. Repeating it does nothing."""
        if not self._away():
            return
        actors = {actor.key: actor for actor in self._live()}
        parents = {key: left.parent for key, left in self._orders.items()}
        parents |= {key: actor.state.parent for key, actor in actors.items()}
        for key, parent in parents.items():
            if key in self._asked or not _names(command, parent):
                continue
            log.warning(
                "canceled at its venue while the store is away", order_id=parent.order_id, reason=command.reason
            )
            self._asked.add(key)
            if key in actors:
                self.keep([actors[key]])

    def carried_out(self, command: CancelOrder) -> None:
        """The command is in the ledger, or was answered."""
        if command.signal_id is not None:
            self._asked.discard(keys.order_key(command.signal_id))
        if command.order_id is not None:
            self._asked -= {key for key in self._asked if keys.generated_order_id(key) == command.order_id}
            self._asked -= {key for key, left in self._orders.items() if left.parent.order_id == command.order_id}

    async def run(self) -> None:
        """Cancel what is due until cancelled."""
        try:
            while True:
                await asyncio.sleep(LOOKS)
                if self._orders:
                    self.look()
        finally:
            self._let_go()

    def look(self) -> None:
        """Start the cancels that are due; forget everything once the store is back."""
        if not self._away():
            self._let_go(self._monotonic() - KEPT)
            return
        now = self._now()
        for key, (parent, children, _) in self._orders.items():
            ends = key in self._asked or parent.cancel_requested
            ends = ends or (parent.expires_at is not None and now >= parent.expires_at)
            for child in children:
                due = child.cancel_requested or (ends and child.role is Role.ENTRY)
                if due and child.child_id not in self._tasks and child.venue in self._adapters:
                    work = self._cancel(child, self._adapters[child.venue])
                    self._tasks[child.child_id] = asyncio.get_running_loop().create_task(work)

    def _let_go(self, before: float = float("inf")) -> None:
        """The store is back, or we end: no cancel goes on, and what was kept before a time is forgotten."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()
        self._orders = {key: left for key, left in self._orders.items() if left.since > before}

    async def _cancel(self, child: ChildOrder, adapter: Adapter) -> None:
        """Cancel until the venue says that it has ended, or, of one that was there, that it knows none."""

        async def attempt() -> bool:
            self._metrics.cancel_sent(child.venue)
            try:
                with self._circuits.of(child.venue, Endpoint.CANCELS).passage():
                    told = await adapter.cancel(child.symbol, child.child_id, child.venue_order_id)
            except OrderUnknown:
                return child.state is ChildState.OPEN  # else its request may still be on the way
            return told is not None and told.status not in (None, VenueOrderStatus.OPEN)

        def failed(error: AdapterError, tries: int) -> None:
            log.warning(
                "cancel not confirmed", venue=child.venue, client_order_id=child.child_id, tries=tries, error=str(error)
            )

        repeater = Repeater(
            Request.CANCEL, max_retries=self._max_retries, now=self._now, monotonic=self._monotonic, failed=failed
        )
        await repeater.run(attempt, final=bool)
        log.info("canceled while the store is away", venue=child.venue, client_order_id=child.child_id)


def _names(command: CancelOrder, parent: ParentOrder) -> bool:
    """Whether a command is about an order."""
    if command.order_id is not None:
        return command.order_id == parent.order_id
    return command.signal_id == parent.signal_id
