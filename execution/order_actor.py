"""One live parent order: what happens to it, what its algorithm decides, and carrying that out.

Whatever happens - an answer, a fill, a command, a timer - is posted; one task at a time books what was posted, asks the
algorithm, commits, and only then acts. Requests run beside it and post their outcomes. An idle order costs no task.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import structlog
from pydantic import ValidationError

from adapters.base import Adapter, VenueOrder
from algorithms.base import Algorithm, Cancel, Decision, Done, Nothing, Refusal, View
from algorithms.decide import decide, reduced, without
from algorithms.worked import Worked
from execution import failpoints
from execution.adoption import adopt
from execution.costs import Costs
from execution.gates import WireGate
from execution.ledger import Fenced, Lease, LedgerMismatch
from execution.ledger.port import OrderLedger
from execution.lost_children import search
from execution.market_data import MarketData
from execution.metrics import Metrics
from execution.open_listings import OpenListings
from execution.order_markets import OrderMarkets
from execution.order_state import OrderState
from execution.venue_calls import NO_EXPIRY_MS
from execution.venue_requests import Requests
from execution.venue_turns import VenueTurns
from schemas.market import Candle
from schemas.order import ChildOrder, ChildState, IllegalTransition, ParentOrder, Role
from schemas.tca import CostReport

log = structlog.get_logger(__name__)

SEARCH_PAUSE = 5.0
"""Seconds after a search that failed for a reason of ours, until it is tried again."""

Booking = Callable[[int], None]
"""Books something on the order's state, given the time in ms."""


class Arrival(NamedTuple):
    """When a signal came: by our monotonic clock in seconds, and its publish time in ms since the epoch."""

    received_at: float
    published_ms: int


@dataclass(frozen=True, slots=True)
class Desk:
    """What all orders of a replica share."""

    ledger: OrderLedger
    gate: WireGate
    metrics: Metrics
    adapters: Mapping[str, Adapter]
    market: MarketData
    costs: Costs
    halted: Callable[[ParentOrder], str | None]
    """Why an order may send no entries now, whatever its algorithm wants; None: it may."""
    available: Callable[[str, ParentOrder], Decimal | None]
    """What the account at a venue has to spend on an order's side; None: not known."""
    turns: VenueTurns
    """How many new orders wait at each venue."""
    listings: OpenListings
    """Of the venues' open orders, for those that were taken over."""
    max_retries: int
    now: Callable[[], int]
    """Ms since the epoch."""
    monotonic: Callable[[], float]
    """Seconds of the clock by which leases and delays are measured."""
    committed: Callable[[int], None]
    """Called with the shard after a commit that may have left events in its outbox."""
    closed: Callable[[OrderActor], None]
    """Called when an order needs no more attention."""
    reopened: Callable[[OrderActor], None]
    """Called when an order that was closed needs attention again."""
    lost: Callable[[OrderActor, Exception], None]
    """Called when the ledger refused this replica's view of the order, or a step of it failed."""
    sends: Callable[[int], None]
    """Called with +1 and -1 as requests to place begin and end."""
    refused: Callable[[str], None]
    """Called with the venue that refused an order for good, for what is none of the reasons that have a name."""


class OrderActor:
    def __init__(self, desk: Desk, state: OrderState, lease: Lease, algorithm: Algorithm[Any, Any]) -> None:
        self.desk = desk
        self.state = state
        self.lease = lease
        self.closing = False
        self.arrival: Arrival | None = None
        """When its signal came, until its first request leaves."""
        self._algorithm = algorithm
        self._plan: Any = msgspec.convert(state.parent.plan, algorithm.Plan)
        self._memory: Any = msgspec.convert(state.parent.memory, algorithm.Memory)
        self._requests_made: Requests | None = None
        self._searching: asyncio.Task[bool] | None = None
        self._mailbox: list[tuple[Booking | None, asyncio.Future[None] | None]] = []
        self._running: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0
        """When it wakes the order, in ms."""
        self._committed = state.parent.version > 0
        """Whether the ledger has it: until then nothing of it may act, also not when its timer rings."""
        self._gone = False
        self._markets = OrderMarkets(desk, state, self._wake)

    @property
    def _requests(self) -> Requests:
        if self._requests_made is None:
            self._requests_made = Requests(self)
        return self._requests_made

    @property
    def key(self) -> str:
        return self.state.key

    @property
    def log(self) -> Any:
        """A logger that names the order."""
        parent = self.state.parent
        return log.bind(order_id=parent.order_id, signal_id=parent.signal_id)

    @property
    def replans(self) -> bool:
        """Whether its algorithm decides anew what could not be sent; else it is sent later, as it is."""
        return isinstance(self._algorithm, Worked)

    @property
    def mail_waits(self) -> bool:
        """Whether something was posted that is not booked yet; another step follows."""
        return bool(self._mailbox)

    def adapter(self, child: ChildOrder) -> Adapter:
        """The venue that a child is for."""
        return self.desk.adapters[child.venue]

    # --- life -------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Decide for the first time, before the order is committed."""
        now = self.desk.now()
        self._look(now)
        self._carry(decide(self._algorithm, self._plan, self._view(now)), now)

    def begun(self) -> None:
        """The order and its first children are committed: act."""
        self._committed = True
        self._markets.follow()
        self._markets.keep_tape(self.desk.now())
        self._act()
        if self._markets.watches_owed or self._mailbox:
            self.post(None)

    def resume(self) -> None:
        """Go on with an order that was loaded: what may be at the venue is asked for before anything new is decided."""
        self._markets.follow()
        self._markets.keep_tape(self.desk.now())
        for child in self.state.active:
            if child.state is ChildState.PENDING:
                # The request may have left until the previous owner's lease ended, and be executed until it expires.
                ttl = self.adapter(child).request_ttl_ms or NO_EXPIRY_MS
                child.valid_until = max(child.valid_until, self.lease.inherited_until + ttl, child.created_at + ttl)
                self.state.unknown(child, "its sender stopped before the outcome was known", self.desk.now())
            elif child.state is ChildState.OPEN:
                self.refresh(child)
        self.post(None)

    def refresh(self, child: ChildOrder) -> asyncio.Task[None]:
        """Ask the venue for a child; nothing new is decided until it has answered."""
        return self._requests.refresh(child)

    def search(self) -> asyncio.Task[bool]:
        """Ask the venues for children that the ledger may have lost; nothing new is decided until they are found. Whether that came to
        its end: not where the order turned out to be another's by then, or other than it is known here."""
        assert self._searching is None
        self._searching = asyncio.get_running_loop().create_task(self._search())
        return self._searching

    async def _search(self) -> bool:
        while True:
            try:
                await search(self)
            except (Fenced, LedgerMismatch):
                return False
            except Exception:
                self.log.exception("looking for lost orders failed unexpectedly")
                self.desk.metrics.internal_error("search")
                await asyncio.sleep(SEARCH_PAUSE)
            else:
                break
        self._searching = None
        self.post(None)
        return True

    async def adopt(self, venue: str, told: VenueOrder) -> ChildOrder | None:
        """Take up an order that a venue holds under an id of this one and that the ledger does not know; wait until it is committed.

        None: it cannot be one of this order's, or it was known already.

        Raises:
            Fenced: another replica owns the order now.
        """
        adopted: list[ChildOrder] = []

        def book(now: int) -> None:
            # What the algorithm would place now says what this one was for.
            expected = self._decide(now).place if not self.state.parent.status.terminal else ()
            child = adopt(self.state, venue, told, expected, now)
            if child is not None:
                adopted.append(child)
                self._tell_adopted(child, venue)

        await self.booked(book)
        return adopted[0] if adopted else None

    def _tell_adopted(self, child: ChildOrder, venue: str) -> None:
        self.desk.gate.adopt(self.key, child)
        self.desk.metrics.repaired(venue, "adopted")
        claimed, quantity = self.state.totals.claimed, self.state.parent.quantity
        excess = f"{claimed - quantity:f}" if claimed > quantity else None
        tell = self.log.critical if excess is not None else self.log.error
        tell(
            "an order at the venue that the ledger had lost was adopted",
            venue=venue,
            client_order_id=child.child_id,
            state=child.state.value,
            quantity=str(child.quantity),
            beyond_the_order=excess,
        )

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

    @property
    def halted(self) -> str | None:
        """Why no entries may be sent now; None: they may."""
        return self.desk.halted(self.state.parent)

    def leaving(self, child: ChildOrder, now: int) -> None:
        """A request to place leaves; the first one ends the way of the signal."""
        arrival, self.arrival = self.arrival, None
        if arrival is not None:
            since_publish = (now - arrival.published_ms) / 1000 if arrival.published_ms else 0.0
            self.desk.metrics.first_sent(child.venue, self.desk.monotonic() - arrival.received_at, since_publish)

    async def quiesce(self, seconds: float) -> None:
        """Stop deciding; let what is committed leave, wait for requests under way, as long as given, and commit what they brought.

        A child that is committed and never leaves would keep the next owner waiting until its request can no longer be executed:
        nobody else knows that it did not leave.
        """
        self.closing = True
        self._stop_timer()
        deadline = self.desk.monotonic() + seconds
        await self._requests.settle(seconds)
        while self._running is not None:
            await asyncio.wait([self._running])
            await self._requests.settle(max(deadline - self.desk.monotonic(), 0.0))
        self.drop()

    def drop(self) -> None:
        """Forget the order at once; the ledger has it."""
        self._gone = True
        self._stop_timer()
        self._markets.leave()
        self._requests.abandon()
        if self._searching is not None:
            self._searching.cancel()
        self._refuse(Fenced(f"shard {self.lease.shard}"))

    def release(self) -> None:
        """Let go of what leads back to it, where nothing of it is under way: it is kept no more. Otherwise only one of the collector's
        full passes would free it, which come once in millions of objects."""
        if self._running is None and not self._mailbox and not self._requests.busy:
            self._requests_made = None
            self._markets.release()

    # --- the loop ---------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._gone:
            self._refuse(Fenced(f"shard {self.lease.shard}"))
        elif self._running is None and self._committed:
            self._running = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._mailbox and not self._gone:
                await self._step()
        except Exception as error:  # noqa: BLE001 - whatever it was, the order goes on from what the ledger has
            self.desk.lost(self, error)
        finally:
            self._running = None

    async def _step(self) -> None:
        mail, self._mailbox = self._mailbox, []
        try:
            await self._take(mail)
        except BaseException as error:
            for _, done in mail:
                if done is not None and not done.done():
                    done.set_exception(error if isinstance(error, Exception) else Fenced("stopped"))
            raise
        for _, done in mail:
            if done is not None and not done.done():
                done.set_result(None)
        self._act()

    async def _take(self, mail: Sequence[tuple[Booking | None, asyncio.Future[None] | None]]) -> None:
        """Book, decide, commit."""
        now = self.desk.now()
        for booking, _ in mail:
            if booking is not None:
                try:
                    booking(now)
                except IllegalTransition as error:
                    self.desk.metrics.illegal_transition()
                    self.log.error("a report was not booked", error=str(error))
        if not self._markets.followed and not self.state.over:
            self.desk.reopened(self)
            self._markets.follow()
        self._look(now)
        if self.state.parent.status.terminal:
            self._cancel_leftovers(now)
        if not self.closing and not self.state.over:
            self._carry(self._decide(now) if self._searching is None else reduced(self._view(now)), now)
        change = self.state.take(now)
        if change is not None:
            self._markets.keep_tape(now)
            started = self.desk.monotonic()
            await self.desk.ledger.commit(self.key, change, self.lease)
            self.desk.metrics.committed(self.desk.monotonic() - started)
            for fill in change.fills:
                booked = self.state.child(fill.child_id)
                self.desk.metrics.fill_booked(booked.venue if booked is not None else self.state.parent.exchange)
            if change.events:
                self.desk.committed(self.lease.shard)
            failpoints.hit("order.committed")

    def _cancel_leftovers(self, now: int) -> None:
        """Whatever turns up at a venue after its order has ended is taken off: no algorithm watches it any more."""
        leftovers = self.state.active if self.state.over else self.state.entries.active
        for child in leftovers:
            if child.state is ChildState.OPEN and not child.cancel_requested:
                self.log.error("an order that was written off is open at its venue", client_order_id=child.child_id)
                self.state.cancel_sent(child, "its order had ended", now)

    def replan(self, parent: ParentOrder, *, history: Sequence[Candle] = ()) -> dict[str, Any]:
        """The plan for changed parameters; `history`: the candles that the algorithm plans with.

        Raises:
            Refusal: they are impossible.
        """
        algorithm = self._algorithm
        parameters = parsed(algorithm, parent.algorithm_params)
        plan = algorithm.plan(parent, parameters, self.state.rules, history)
        self._plan = plan
        return as_record(plan)

    def _decide(self, now: int) -> Decision:
        if self.state.over:
            return Decision()
        view = self._view(now)
        if self._requests.refreshing:
            return reduced(view)
        try:
            return decide(self._algorithm, self._plan, view)
        except Exception as error:
            why = f"its algorithm failed: {error}"
            self.desk.metrics.internal_error("algorithm")
            if self.state.parent.waiting != why:  # the trace once, and not each time it is asked again
                self.log.exception("an algorithm failed", algorithm=self.state.parent.algorithm)
            return without(view, why)

    def _view(self, now: int) -> View:
        state, parent = self.state, self.state.parent
        return View(
            order=parent if parent.paused or self.halted is None else _standing_still(parent),
            children=state.entries.children,
            live=state.entries.live,
            totals=state.totals,
            rules=state.rules,
            now=now,
            markets=self._markets.seen(),
            memory=self._memory,
            exits=state.exits.children,
            exit_totals=state.exits.totals if parent.has_bracket else None,
        )

    def _look(self, now: int) -> None:
        """Note the arrival price as soon as one is known."""
        parent = self.state.parent
        if parent.arrival is None and not parent.status.terminal:
            mid = self._markets.mid()
            if mid is not None:
                self.state.arrived(mid, now)

    def _carry(self, decision: Decision, now: int) -> None:
        """Book a decision; cancels leave at once, since they can only reduce what may fill."""
        state, halted = self.state, self.halted
        if halted is not None:
            decision = _told_why(decision, halted)
        if decision.memory is not None and decision.memory != self._memory:
            self._memory = decision.memory
            state.remember(as_record(decision.memory), now)
        if decision.trigger is not None:
            if decision.arrival is not None:
                state.arrived(decision.arrival, now)
            state.triggered(decision.trigger, now)
        for cancel in decision.cancel:
            child = state.child(cancel.child_id)
            assert child is not None
            state.cancel_sent(child, cancel.reason, now)
            self._requests.cancel(child)
        for place in decision.place:
            state.place(place, now)
        if decision.done is not None:
            self._finish(decision, now)
        elif not state.parent.status.terminal:
            state.wait(decision.waiting, decision.breach_bps, now)
        if decision.stop_fired:
            state.stop_fired(now)
        if decision.protection_ended is not None:
            state.unprotected(decision.protection_ended, now)
        self._set_timer(decision.wake_at, now)
        self._markets.watch(decision.wake_when)

    def _finish(self, decision: Decision, now: int) -> None:
        state, done = self.state, decision.done
        assert done is not None
        self._markets.keep_tape(now)
        state.finish(done, now, breach_bps=decision.breach_bps, tca=self._cost(done, now))
        self.desk.metrics.order_ended(state.parent.status)
        self.log.info(
            "order ended",
            status=state.parent.status.value,
            filled=str(state.totals.filled),
            reason=state.parent.reason,
        )

    def _cost(self, done: Done, now: int) -> CostReport | None:
        """What the order cost. Figures that cannot be had never keep it from ending."""
        try:
            schedule = self._algorithm.schedule(self._plan, self.state.parent)
            return self.desk.costs.report(self.state, schedule, done, now)
        except Exception:
            self.log.exception("the cost of an order was not measured")
            self.desk.metrics.internal_error("costs")
            return None

    def _act(self) -> None:
        for child in self.state.active:
            if child.state.terminal:
                self.desk.gate.settle(self.key, child)
            self._requests.tend(child)
        self.state.settle()
        if not self._mailbox and not self._requests.busy and self.state.over:
            self._stop_timer()
            self._markets.leave()
            self.desk.gate.forget(self.key)
            self.desk.closed(self)

    # --- timers -------------------------------------------------------------------------------------------------------

    def _set_timer(self, wake_at: int | None, now: int) -> None:
        if self._timer is not None and wake_at == self._timer_at:
            return
        self._stop_timer()
        if wake_at is not None:
            delay = max(wake_at - now, 0) / 1000
            self._timer = asyncio.get_running_loop().call_later(delay, self._ring)
            self._timer_at = wake_at

    def _wake(self) -> None:
        self.post(None)

    def _ring(self) -> None:
        self._timer = None
        self.post(None)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, error: Exception) -> None:
        mail, self._mailbox = self._mailbox, []
        for _, done in mail:
            if done is not None and not done.done():
                done.set_exception(error)


def parsed(algorithm: Algorithm[Any, Any], given: Mapping[str, Any]) -> Any:
    """An algorithm's parameters.

    Raises:
        Refusal: naming the first wrong one.
    """
    try:
        return algorithm.Parameters.model_validate(given)
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(["algorithm_params", *(str(part) for part in detail["loc"])])
        raise Refusal(where, str(detail["msg"]).removeprefix("Value error, ")) from None


def _standing_still(parent: ParentOrder) -> ParentOrder:
    """An order as its algorithm sees it while it is halted: as a paused one."""
    still = copy.copy(parent)
    still.paused = True
    return still


def _told_why(decision: Decision, halted: str) -> Decision:
    """A halted order's decision, without entries and with the reason for what it takes off."""
    return msgspec.structs.replace(
        decision,
        place=tuple(place for place in decision.place if place.role is Role.EXIT),
        cancel=tuple(Cancel(one.child_id, halted) if one.reason == "paused" else one for one in decision.cancel),
        waiting=halted,
    )


def as_record(value: msgspec.Struct) -> dict[str, Any]:
    """A plan or memory as the ledger keeps it: numbers as text, so that they come back digit for digit."""
    record: dict[str, Any] = msgspec.to_builtins(value) if not isinstance(value, Nothing) else {}
    return record
