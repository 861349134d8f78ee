"""Requests to venues for one order's children, each until its outcome is certain.

A create is sent at most once per decision to send. When its outcome is not certain, the venue is asked for its client order id
until it is. What is asked again, how often and when, is in `retry_policy`; a venue that does not work is kept from new orders by
its circuit. Outcomes are posted to the order; nothing is booked here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from adapters.base import (
    AdapterError,
    DuplicateClientOrderId,
    OrderUnknown,
    PostOnlyRejected,
    RateLimited,
    Unavailable,
    VenueFill,
    VenueOrder,
    VenueOrderStatus,
)
from execution import failpoints
from execution.circuit import Circuit, Endpoint, State
from execution.gates import GateRefused
from execution.ledger import Fenced
from execution.retry_policy import TABLE, Repeater, Request, Then, rule
from schemas.order import ChildOrder, ChildState, Role
from schemas.terms import OrderType, TimeInForce

if TYPE_CHECKING:
    from execution.order_actor import OrderActor

T = TypeVar("T")

EXPIRY_MARGIN_MS = 1000
"""Beyond a request's own expiry: clocks differ, and a venue's reads lag its writes."""
NO_EXPIRY_MS = 60_000
"""Where a venue's requests carry no expiry: how long one may still be under way."""
AGREEING_READS = 2
GONE_READS = 5
TRADES_GRACE = 0.2
"""Seconds that the stream is given to bring the trades of a quantity already reported."""
FAILED_PAUSE = 1.0
"""Seconds after a failure of this program, before it may meet the same again."""
_ENDPOINTS = {
    "place": Endpoint.ORDERS,
    "cancel": Endpoint.CANCELS,
    "find": Endpoint.READS,
    "fills": Endpoint.READS,
}


class _NotSent(Exception):
    """The last look before the wire said no."""


class _Withheld(Exception):
    """Nothing leaves any more. `reason`: why the child is void; None: it is left as it is, to whoever goes on with the order."""

    def __init__(self, reason: str | None) -> None:
        super().__init__(reason)
        self.reason = reason


class Requests:
    """The requests of one order now under way, at most one of a kind per child."""

    def __init__(self, actor: OrderActor) -> None:
        self._actor = actor
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._proven: set[str] = set()
        self._may_resend: set[str] = set()
        self._refreshing: set[str] = set()
        self._parked: dict[str, Callable[[], None]] = {}
        """Children whose request waits before its venue, and what ends the wait."""
        self._left: set[str] = set()
        """Children that whoever goes on with the order is to send."""
        self._left_at: dict[str, int] = {}
        """When a request to place left, in ms, until it was answered."""
        self._sent_at: dict[str, float] = {}
        """When the last request to place a child left here, on the monotonic clock."""

    @property
    def busy(self) -> bool:
        return bool(self._tasks)

    @property
    def refreshing(self) -> bool:
        """Whether a child that was loaded as open has yet to be confirmed by its venue."""
        return bool(self._refreshing)

    def tend(self, child: ChildOrder) -> None:
        """Start whatever a child's state asks for and is not under way."""
        if child.state is ChildState.PENDING:
            self._tend_pending(child)
        elif child.state is ChildState.UNKNOWN:
            self._start("resolve", child, self._resolve)
        elif child.state is ChildState.OPEN and child.cancel_requested:
            self.cancel(child)
        if child.executed > child.filled:
            self._start("trades", child, self._fetch_trades)

    def _tend_pending(self, child: ChildOrder) -> None:
        if child.child_id in self._parked and self._why_not(child) is not None:
            self._parked[child.child_id]()
        if ("send", child.child_id) in self._tasks or self._actor.mail_waits:
            return  # its answer may be what waits to be booked
        if child.child_id in self._left:
            return
        if child.sends == 0 or child.child_id in self._may_resend:
            self._may_resend.discard(child.child_id)
            self._start("send", child, self._send)
        else:
            # It was sent, and what came back was not booked: whatever that was, it is no reason to send again.
            self._unknown(child, "its answer could not be booked")

    def cancel(self, child: ChildOrder) -> None:
        if child.state is ChildState.OPEN:
            self._start("cancel", child, self._cancel)

    def refresh(self, child: ChildOrder) -> asyncio.Task[None]:
        """Ask the venue for a child that the ledger holds for open."""
        self._refreshing.add(child.child_id)
        self._start("refresh", child, self._refresh)
        return self._tasks["refresh", child.child_id]

    async def settle(self, seconds: float) -> None:
        """Wait for answers to what has been sent; drop the rest."""
        waiting = []
        for (kind, child_id), task in list(self._tasks.items()):
            if kind in ("send", "cancel") and child_id not in self._parked:
                waiting.append(task)
            else:
                task.cancel()
        if waiting:
            await asyncio.wait(waiting, timeout=seconds)

    def abandon(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    # --- creates ----------------------------------------------------------------------------------------------------

    async def _send(self, child: ChildOrder) -> None:
        actor, desk = self._actor, self._actor.desk
        nap = partial(self._nap, child)
        repeater = self._repeater(Request.CREATE, child, may_wait=lambda: self._may_wait(child), sleep=nap)
        desk.sends(+1)
        try:
            told = await repeater.run(partial(self._place, child))
        except _Withheld as why:
            if why.reason is not None:
                self._void(child, why.reason)
            else:
                self._left.add(child.child_id)
        except AdapterError as error:
            self._not_placed(child, error, repeater.tries)
        else:
            failpoints.hit("send.answered")
            actor.state.timed("send_to_ack", desk.now() - self._left_at.pop(child.child_id, desk.now()))
            if told.status is None and told.venue_order_id is None:
                self._unknown(child, "the answer does not say what became of the order")
            else:
                actor.post(partial(actor.state.venue_order, child, told))
        finally:
            self._left_at.pop(child.child_id, None)
            desk.sends(-1)

    async def _place(self, child: ChildOrder) -> VenueOrder:
        """Send one request, once it may leave.

        Raises:
            _Withheld: nothing left, and nothing will. AdapterError: what came of it.
        """
        actor, desk = self._actor, self._actor.desk
        circuit, turns = self._circuit(child, Endpoint.ORDERS), desk.turns.of(child.venue)
        while True:
            while not actor.lease.valid:
                await asyncio.sleep(0.05)
            refusal = self._why_not(child)
            if refusal is not None:
                raise _Withheld(refusal)
            # What protects a position is not kept back: it probes.
            at_once = self._protects(child)
            kept_back = not circuit.admits and not at_once
            if actor.closing and (kept_back or not (turns.free or at_once)):
                raise _Withheld(None)  # it would have to wait: that is left to the next owner
            if kept_back:
                if circuit.state is State.OPEN and not self._may_wait(child):
                    raise _Withheld(f"{child.venue} cannot be sent orders: {circuit.reason}")
                waiting = circuit.wait(child.child_id, self._patience(child) or None)
                await self._park(child, waiting, partial(circuit.wake, child.child_id))
                continue
            if turns.free or at_once:
                turns.take()
            elif not await self._park(child, turns.wait(child.child_id), partial(turns.wake, child.child_id)):
                continue
            try:
                held = actor.state.totals.filled if child.role is Role.EXIT else actor.state.parent.quantity
                approved = desk.gate.approve(actor.key, held, child, protects=at_once)
                place = actor.adapter(child).place(approved, before_send=partial(self._leaving, child))
                return await self._timed(child.venue, "place", place)
            except GateRefused as error:
                actor.log.critical("the gate before the wire refused a child order", error=str(error))
                desk.metrics.gate_refused()
                raise _Withheld(str(error)) from None
            except _NotSent:
                continue
            finally:
                turns.leave()

    def _not_placed(self, child: ChildOrder, error: AdapterError, tries: int) -> None:
        """What follows of a create that is not tried again."""
        actor, then = self._actor, rule(Request.CREATE, error).then
        if then is Then.REFUSE:
            actor.desk.gate.settle(actor.key, child)
            actor.desk.metrics.child_rejected(child.venue, error.code)
            would_take = isinstance(error, PostOnlyRejected)
            actor.post(partial(actor.state.rejected, child, _said(error), would_take=would_take))
        elif then is Then.RESOLVE:
            if isinstance(error, DuplicateClientOrderId):
                self._proven.add(child.child_id)
            self._unknown(child, str(error))
        else:
            self._void(child, f"not placed after {tries} tries: {error}")

    def _protects(self, child: ChildOrder) -> bool:
        """Whether a child only protects a position: an exit of a bracket, or a stop that can only reduce."""
        parent = self._actor.state.parent
        return child.role is Role.EXIT or (parent.reduce_only and parent.order_type.has_trigger)

    def _patience(self, child: ChildOrder) -> float | None:
        """Seconds that a child may still wait for its venue, as it was decided; None: as long as its order lives."""
        if self._protects(child):
            return None
        if self._actor.replans:
            return 0.0  # its algorithm decides anew, by the market as it is then
        rests = child.order_type is not OrderType.MARKET and child.time_in_force is TimeInForce.GTC
        deadline = TABLE[Request.CREATE][Unavailable].deadline
        if rests or deadline is None or self._actor.state.parent.expires_at is not None:
            return None
        return max(deadline - (self._actor.desk.now() - child.created_at) / 1000, 0.0)

    def _may_wait(self, child: ChildOrder) -> bool:
        return self._patience(child) != 0.0

    async def _park(self, child: ChildOrder, waiting: Awaitable[T], wake: Callable[[], None]) -> T:
        """Wait before a venue, or until `wake` finds a reason not to; meanwhile it counts as no send, so that other venues' orders
        are taken."""
        self._actor.desk.sends(-1)
        self._parked[child.child_id] = wake
        try:
            return await waiting
        finally:
            del self._parked[child.child_id]
            self._actor.desk.sends(+1)

    async def _nap(self, child: ChildOrder, seconds: float) -> None:
        """The pause before another try; it may be as long as a venue's ban."""
        woken = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            await self._park(child, asyncio.wait_for(woken.wait(), seconds), woken.set)

    def _leaving(self, child: ChildOrder) -> None:
        """The last look, directly before the bytes leave."""
        actor = self._actor
        if not actor.lease.valid or self._why_not(child) is not None:
            raise _NotSent
        if not self._protects(child) and self._circuit(child, Endpoint.ORDERS).state is State.OPEN:
            raise _NotSent  # it opened while this one waited for its turn
        now = actor.desk.now()
        failpoints.hit("send.before")
        actor.state.sending(child, now + (actor.adapter(child).request_ttl_ms or NO_EXPIRY_MS))
        actor.desk.metrics.child_sent(child.venue, now - child.created_at)
        actor.state.timed("decision_to_send", now - child.created_at)
        self._left_at[child.child_id] = now
        self._sent_at[child.child_id] = actor.desk.monotonic()
        actor.leaving(child, now)

    def _why_not(self, child: ChildOrder) -> str | None:
        parent = self._actor.state.parent
        if child.role is Role.EXIT:
            # A pause, an end of time or new terms concern the entry; what protects it stays.
            return child.reason or "canceled before it was sent" if child.cancel_requested else None
        if child.cancel_requested or parent.cancel_requested:
            return parent.cancel_reason or child.reason or "canceled before it was sent"
        if parent.paused:
            return "paused before it was sent"
        halted = self._actor.halted
        if halted is not None:
            return halted
        if parent.expires_at is not None and self._actor.desk.now() >= parent.expires_at:
            return "its time ran out before it was sent"
        if child.amendment < parent.amendments:
            return "amended before it was sent"
        return None

    def _void(self, child: ChildOrder, reason: str) -> None:
        actor = self._actor

        def book(now: int) -> None:
            if self._why_not(child) is not None:
                actor.state.cancel_sent(child, reason, now)
            actor.state.void(child, reason, now)
            actor.desk.gate.settle(actor.key, child)

        actor.post(book)

    def _unknown(self, child: ChildOrder, reason: str) -> None:
        actor = self._actor
        actor.desk.metrics.child_unknown(child.venue)
        actor.log.warning("outcome unknown", venue=child.venue, client_order_id=child.child_id, error=reason)
        actor.post(partial(actor.state.unknown, child, reason))

    async def _resolve(self, child: ChildOrder) -> None:
        """Ask for an unknown create until the venue has it, or certainly will not."""
        actor, desk = self._actor, self._actor.desk
        ttl = actor.adapter(child).request_ttl_ms
        # By the monotonic clock: the other may have jumped since the request left, here or at the last owner.
        sent_at = self._sent_at.get(child.child_id, actor.lease.quiet_from)
        final_at = sent_at + ((ttl or NO_EXPIRY_MS) + EXPIRY_MARGIN_MS) / 1000
        absent = 0

        async def look() -> bool:
            nonlocal absent
            if child.state is not ChildState.UNKNOWN:
                return True
            told = await self._find(child, "resolve")
            if told is not None:
                desk.metrics.unknown_resolved(child.venue, found=True)
                await actor.booked(partial(actor.state.venue_order, child, told))
                return True
            if desk.monotonic() > final_at and child.child_id not in self._proven:
                absent += 1
                if absent >= AGREEING_READS:
                    desk.metrics.unknown_resolved(child.venue, found=False)
                    self._absent(child, resend=bool(ttl))
                    return True
            return False

        await self._repeater(Request.READ, child).run(look, final=bool)

    def _absent(self, child: ChildOrder, *, resend: bool) -> None:
        """It certainly does not exist: send it again under its id, or write it off."""
        actor = self._actor
        actor.log.warning("the venue does not have it", venue=child.venue, client_order_id=child.child_id)
        child.sends = max(child.sends, 1)
        if self._why_not(child) is None and resend and child.sends < actor.desk.max_retries:
            self._may_resend.add(child.child_id)
            actor.post(partial(actor.state.resend, child))
        else:
            self._void(child, f"did not reach {child.venue} after {child.sends} tries")

    # --- cancels ----------------------------------------------------------------------------------------------------

    async def _cancel(self, child: ChildOrder) -> None:
        """Cancel until the venue says that the child has ended, however it ended. No circuit keeps a cancel back."""
        actor, asked, gone = self._actor, self._actor.desk.now(), 0

        async def cancel() -> bool:
            nonlocal gone
            if child.state is not ChildState.OPEN:
                return True
            told: VenueOrder | None = None
            failpoints.hit("cancel.before")
            actor.desk.metrics.cancel_sent(child.venue)
            try:
                request = actor.adapter(child).cancel(child.symbol, child.child_id, child.venue_order_id)
                told = await self._timed(child.venue, "cancel", request)
            except RateLimited:
                raise
            except OrderUnknown:
                pass  # it ended, or is not there yet: its record says which
            except AdapterError as error:
                actor.log.warning("cancel not confirmed", client_order_id=child.child_id, error=str(error))
            if told is None or told.status in (None, VenueOrderStatus.OPEN):
                told, gone = await self._record(child, gone)
            if told is not None:
                await actor.booked(partial(actor.state.venue_order, child, told))
            return child.state is not ChildState.OPEN

        await self._repeater(Request.CANCEL, child).run(cancel, final=bool)
        actor.state.timed("cancel_to_end", actor.desk.now() - asked)

    async def _record(self, child: ChildOrder, gone: int) -> tuple[VenueOrder | None, int]:
        """The record of an order that is being cancelled, where the venue tells it now, and how often in a row it knew none."""
        if not self._circuit(child, Endpoint.READS).admits:
            return None, 0
        try:
            told = await self._find(child, "cancel")
        except AdapterError as error:
            self._warn(child, error, 0)
            return None, 0
        gone = gone + 1 if told is None else 0
        return (self._vanished(child) if gone >= GONE_READS else told), gone

    # --- reads ------------------------------------------------------------------------------------------------------

    async def _find(self, child: ChildOrder, who: str) -> VenueOrder | None:
        """The venue's record of a child; None: it knows none.

        Raises:
            AdapterError: no answer.
        """
        await self._turn(child, who)
        find = self._actor.adapter(child).find(child.symbol, child.child_id, child.venue_order_id)
        return await self._timed(child.venue, "find", find)

    async def _refresh(self, child: ChildOrder) -> None:
        actor, gone = self._actor, 0
        listing = actor.desk.listings.of(child.venue)

        async def look() -> bool:
            nonlocal gone
            if child.state.terminal:
                return True
            try:
                told = await listing.find(child.child_id, partial(self._find, child, "refresh"))
            except AdapterError:
                gone = 0
                raise
            gone = gone + 1 if told is None else 0
            if gone >= GONE_READS:
                told = self._vanished(child)
            if told is not None:
                await actor.booked(partial(actor.state.venue_order, child, told))
            return told is not None

        try:
            await self._repeater(Request.READ, child).run(look, final=bool)
        finally:
            self._refreshing.discard(child.child_id)

    def _vanished(self, child: ChildOrder) -> VenueOrder:
        """An order that was open there and that the venue, asked again and again, no longer knows."""
        self._actor.log.error("the venue no longer knows an open order", client_order_id=child.child_id)
        return VenueOrder(
            symbol=child.symbol,
            client_order_id=child.child_id,
            venue_order_id=child.venue_order_id,
            status=VenueOrderStatus.CANCELED,
            reason=f"{child.venue} no longer knows the order",
        )

    async def _fetch_trades(self, child: ChildOrder) -> None:
        """Fetch the trades of a quantity that the venue has reported in total only."""
        actor = self._actor
        await asyncio.sleep(TRADES_GRACE)

        async def fetch() -> bool:
            if child.executed <= child.filled:
                return True
            await self._turn(child, "trades")
            if child.venue_order_id is None:
                told = await self._find(child, "trades")
                if told is not None:
                    await actor.booked(partial(actor.state.venue_order, child, told))
            if child.venue_order_id is None:
                return False
            request = actor.adapter(child).fills(child.symbol, child.venue_order_id)
            fills = await self._timed(child.venue, "fills", request)
            own = [fill for fill in fills if _is_of(fill, child)]
            await actor.booked(partial(actor.state.venue_fills, child, own))
            return child.executed <= child.filled

        await self._repeater(Request.TRADES, child).run(fetch, final=bool)

    async def _turn(self, child: ChildOrder, who: str) -> None:
        """Wait until the venue may be asked."""
        circuit = self._circuit(child, Endpoint.READS)
        while not circuit.admits:
            await circuit.wait(f"{who} {child.child_id}")

    # --- how they are repeated ----------------------------------------------------------------------------------------

    def _repeater(
        self,
        request: Request,
        child: ChildOrder,
        *,
        may_wait: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> Repeater:
        desk = self._actor.desk

        def escalate(seconds: float) -> None:
            desk.metrics.request_escalated(child.venue, request)
            self._actor.log.error(
                "a venue gives no final answer; it is asked on",
                request=request.value,
                venue=child.venue,
                client_order_id=child.child_id,
                seconds=round(seconds, 1),
            )

        return Repeater(
            request,
            max_retries=desk.max_retries,
            now=desk.now,
            monotonic=desk.monotonic,
            may_wait=may_wait,
            failed=partial(self._warn, child),
            escalate=escalate,
            sleep=sleep,
        )

    def _warn(self, child: ChildOrder, error: AdapterError, tries: int) -> None:
        log = self._actor.log
        if isinstance(error, RateLimited):
            log.warning("rate limited", venue=child.venue, until=error.until, error=str(error))
        else:
            log.warning(
                "a venue was asked in vain",
                venue=child.venue,
                client_order_id=child.child_id,
                tries=tries,
                error=str(error),
            )

    def _circuit(self, child: ChildOrder, endpoint: Endpoint) -> Circuit:
        return self._actor.desk.market.circuits.of(child.venue, endpoint)

    async def _timed(self, venue: str, kind: str, request: Coroutine[Any, Any, T]) -> T:
        """Measure a request by its kind and outcome, and let its circuit know."""
        desk = self._actor.desk
        started, outcome = desk.monotonic(), "canceled"
        try:
            with desk.market.circuits.of(venue, _ENDPOINTS[kind]).passage():
                answer = await request
            outcome = "ok"
        except Exception as error:
            outcome = type(error).__name__
            raise
        finally:
            desk.metrics.venue_request(venue, kind, outcome, desk.monotonic() - started)
        return answer

    # --- tasks ------------------------------------------------------------------------------------------------------

    def _start(self, kind: str, child: ChildOrder, work: Any) -> None:
        name = (kind, child.child_id)
        if name not in self._tasks:
            self._tasks[name] = asyncio.get_running_loop().create_task(self._supervised(name, work(child)))

    async def _supervised(self, name: tuple[str, str], work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Fenced:
            pass  # another replica owns the order now, and asks for itself
        except Exception:
            self._actor.log.exception("a request failed unexpectedly", request=name[0], client_order_id=name[1])
            self._actor.desk.metrics.internal_error("requests")
            await asyncio.sleep(FAILED_PAUSE)
        finally:
            del self._tasks[name]
            self._actor.post(None)


def _is_of(fill: VenueFill, child: ChildOrder) -> bool:
    """Whether a trade is a child's: by the venue's order id, else by ours; one that names neither, only if no others were asked for."""
    if fill.venue_order_id is not None and child.venue_order_id is not None:
        return fill.venue_order_id == child.venue_order_id
    if fill.client_order_id is not None:
        return fill.client_order_id == child.child_id
    return child.venue_order_id is not None


def _said(error: AdapterError) -> str:
    return f"{error} (code {error.code})" if error.code is not None and error.code not in str(error) else str(error)
