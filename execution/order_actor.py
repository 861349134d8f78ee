"""One live parent order: what happens to it, what its algorithm decides, and carrying that out.

Whatever happens - an answer, a fill, a command, a timer - is posted; one task at a time books what was posted, asks the
algorithm, commits, and only then acts. Requests run beside it and post their outcomes. An idle order costs no task.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import structlog

from adapters.base import Adapter
from algorithms.base import Algorithm, Decision, View
from execution import failpoints
from execution.gates import WireGate
from execution.ledger import Fenced, Lease, Ledger, LedgerMismatch, Overfill
from execution.metrics import Metrics
from execution.order_state import OrderState
from execution.store import STORE_ERRORS
from execution.venue_requests import Requests
from schemas.order import ChildOrder, ChildState, IllegalTransition

log = structlog.get_logger(__name__)

Booking = Callable[[int], None]
"""Books something on the order's state, given the time in ms."""


class Arrival(NamedTuple):
    """When a signal came: by our monotonic clock in seconds, and its publish time in ms since the epoch."""

    received_at: float
    published_ms: int


@dataclass(frozen=True, slots=True)
class Desk:
    """What all orders of a replica share."""

    ledger: Ledger
    gate: WireGate
    metrics: Metrics
    max_retries: int
    now: Callable[[], int]
    committed: Callable[[int], None]
    """Called with the shard after a commit that may have left events in its outbox."""
    closed: Callable[[OrderActor], None]
    """Called when an order needs no more attention."""
    lost: Callable[[OrderActor, Exception], None]
    """Called when the ledger refused this replica's view of the order."""
    sends: Callable[[int], None]
    """Called with +1 and -1 as requests to place begin and end."""


class OrderActor:
    def __init__(self, desk: Desk, state: OrderState, lease: Lease, algorithm: Algorithm, adapter: Adapter) -> None:
        self.desk = desk
        self.state = state
        self.lease = lease
        self.adapter = adapter
        self.closing = False
        self.arrival: Arrival | None = None
        """When its signal came, until its first request leaves."""
        self._algorithm = algorithm
        self._requests = Requests(self)
        self._mailbox: list[tuple[Booking | None, asyncio.Future[None] | None]] = []
        self._running: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._gone = False

    @property
    def key(self) -> str:
        return self.state.key

    @property
    def log(self) -> Any:
        """A logger that names the order."""
        parent = self.state.parent
        return log.bind(order_id=parent.order_id, signal_id=parent.signal_id)

    # --- life -------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Decide for the first time, before the order is committed."""
        self._carry(self._decide())

    def begun(self) -> None:
        """The order and its first children are committed: act."""
        self._act()

    def resume(self) -> None:
        """Go on with an order that was loaded: what may be at the venue is asked for before anything new is decided."""
        for child in self.state.children:
            if child.state is ChildState.PENDING:
                # The request may have left until the previous owner's lease ended, and be executed until it expires.
                last = self.lease.inherited_until + self.adapter.request_ttl_ms
                child.valid_until = max(child.valid_until, last, child.created_at + self.adapter.request_ttl_ms)
                self.state.unknown(child, "its sender stopped before the outcome was known", self.desk.now())
            elif child.state is ChildState.OPEN:
                self.refresh(child)
        self.post(None)

    def refresh(self, child: ChildOrder) -> None:
        """Ask the venue for a child; nothing new is decided until it has answered."""
        self._requests.refresh(child)

    def post(self, booking: Booking | None) -> None:
        """Book something soon; None only wakes the order."""
        self._mailbox.append((booking, None))
        self._start()

    async def booked(self, booking: Booking) -> None:
        """Book something and wait until it is committed.

        Raises:
            Fenced: another replica owns the order now.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._mailbox.append((booking, done))
        self._start()
        await done

    def leaving(self, child: ChildOrder, now: int) -> None:
        """A request to place leaves; the first one ends the way of the signal."""
        arrival, self.arrival = self.arrival, None
        if arrival is not None:
            since_publish = (now - arrival.published_ms) / 1000 if arrival.published_ms else 0.0
            self.desk.metrics.first_sent(child.venue, time.monotonic() - arrival.received_at, since_publish)

    async def quiesce(self, seconds: float) -> None:
        """Stop deciding; wait for requests under way, as long as given, and commit what they brought."""
        self.closing = True
        self._stop_timer()
        await self._requests.settle(seconds)
        while self._running is not None:
            await asyncio.wait([self._running])
        self.drop()

    def drop(self) -> None:
        """Forget the order at once; the ledger has it."""
        self._gone = True
        self._stop_timer()
        self._requests.abandon()
        self._refuse(Fenced(f"shard {self.lease.shard}"))

    # --- the loop ---------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._gone:
            self._refuse(Fenced(f"shard {self.lease.shard}"))
        elif self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._mailbox and not self._gone:
                await self._step()
        except (Fenced, Overfill, LedgerMismatch, *STORE_ERRORS) as error:
            self.desk.lost(self, error)
        finally:
            self._running = None

    async def _step(self) -> None:
        mail, self._mailbox = self._mailbox, []
        now = self.desk.now()
        for booking, _ in mail:
            if booking is not None:
                try:
                    booking(now)
                except IllegalTransition as error:
                    self.desk.metrics.illegal_transition()
                    self.log.error("a report was not booked", error=str(error))
        if self.state.parent.status.terminal:
            self._cancel_leftovers(now)
        elif not self.closing:
            self._carry(self._decide())
        change = self.state.take(now)
        if change is not None:
            started = time.monotonic()
            try:
                await self.desk.ledger.commit(self.key, change, self.lease)
            except BaseException as error:
                for _, done in mail:
                    if done is not None and not done.done():
                        done.set_exception(error if isinstance(error, Exception) else Fenced("stopped"))
                raise
            self.desk.metrics.committed(time.monotonic() - started)
            for _ in change.fills:
                self.desk.metrics.fill_booked(self.state.parent.exchange)
            if change.events:
                self.desk.committed(self.lease.shard)
            failpoints.hit("order.committed")
        for _, done in mail:
            if done is not None and not done.done():
                done.set_result(None)
        self._act()

    def _cancel_leftovers(self, now: int) -> None:
        """Whatever turns up at a venue after its order has ended is taken off: no algorithm watches it any more."""
        for child in self.state.children:
            if child.state is ChildState.OPEN and not child.cancel_requested:
                self.log.error("an order that was written off is open at its venue", client_order_id=child.child_id)
                self.state.cancel_sent(child, "its order had ended", now)

    def _decide(self) -> Decision:
        state = self.state
        if state.parent.status.terminal or self._requests.refreshing:
            return Decision()
        return self._algorithm.decide(View(state.parent, state.children, state.totals, state.rules, self.desk.now()))

    def _carry(self, decision: Decision) -> None:
        """Book a decision; cancels leave at once, since they can only reduce what may fill."""
        state, now = self.state, self.desk.now()
        for cancel in decision.cancel:
            child = state.child(cancel.child_id)
            assert child is not None
            state.cancel_sent(child, cancel.reason, now)
            self._requests.cancel(child)
        for place in decision.place:
            state.place(place, now)
        if decision.done is not None:
            state.finish(decision.done, now)
            self.desk.metrics.order_ended(state.parent.status)
            self.log.info(
                "order ended",
                status=state.parent.status.value,
                filled=str(state.totals.filled),
                reason=state.parent.reason,
            )
        self._set_timer(decision.wake_at, now)

    def _act(self) -> None:
        for child in self.state.children:
            if child.state.terminal:
                self.desk.gate.settle(self.key, child)
            self._requests.tend(child)
        if self.state.parent.status.terminal and not self._requests.busy and not self._mailbox:
            self._stop_timer()
            self.desk.gate.forget(self.key)
            self.desk.closed(self)

    def _set_timer(self, wake_at: int | None, now: int) -> None:
        self._stop_timer()
        if wake_at is not None:
            delay = max(wake_at - now, 0) / 1000
            self._timer = asyncio.get_running_loop().call_later(delay, self.post, None)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, error: Exception) -> None:
        mail, self._mailbox = self._mailbox, []
        for _, done in mail:
            if done is not None and not done.done():
                done.set_exception(error)
