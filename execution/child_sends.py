"""How a child order leaves: when its venue takes orders, the gate has approved it and nothing speaks against it any more.

A create is sent at most once per decision to send. What came of it is posted to the order; nothing is booked here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from adapters.base import AdapterError, DuplicateClientOrderId, PostOnlyRejected, Rejected, Unavailable, VenueOrder
from execution import failpoints
from execution.circuit import Endpoint, State
from execution.gates import GateRefused
from execution.retry_policy import TABLE, Request, Then, rule
from execution.venue_calls import NO_EXPIRY_MS, Calls
from schemas.order import ChildOrder, Role
from schemas.terms import OrderType, TimeInForce

if TYPE_CHECKING:
    from execution.order_actor import OrderActor

T = TypeVar("T")


class _NotSent(Exception):
    """The last look before the wire said no."""


class _Withheld(Exception):
    """Nothing leaves any more. `reason`: why the child is void; None: it is left as it is, to whoever goes on with the order."""

    def __init__(self, reason: str | None) -> None:
        super().__init__(reason)
        self.reason = reason


class Sends:
    """The creates of one order."""

    __slots__ = ("_actor", "_calls", "_left_at", "left", "parked", "proven", "sent_at")

    def __init__(self, actor: OrderActor, calls: Calls) -> None:
        self._actor = actor
        self._calls = calls
        self.proven: set[str] = set()
        """Children that the venue has, as it refused another under their id."""
        self.parked: dict[str, Callable[[], None]] = {}
        """Children whose request waits before its venue, and what ends the wait."""
        self.left: set[str] = set()
        """Children that whoever goes on with the order is to send."""
        self.sent_at: dict[str, float] = {}
        """When the last request to place a child left here, on the monotonic clock."""
        self._left_at: dict[str, int] = {}
        """When a request to place left, in ms, until it was answered."""

    async def send(self, child: ChildOrder) -> None:
        """Have a child placed, or book why it was not."""
        actor, desk = self._actor, self._actor.desk
        nap = partial(self._nap, child)
        repeater = self._calls.repeater(Request.CREATE, child, may_wait=lambda: self._may_wait(child), sleep=nap)
        desk.sends(+1)
        try:
            told = await repeater.run(partial(self._place, child))
        except _Withheld as why:
            if why.reason is not None:
                self.void(child, why.reason)
            else:
                self.left.add(child.child_id)
        except AdapterError as error:
            self._not_placed(child, error, repeater.tries)
        else:
            failpoints.hit("send.answered")
            actor.state.timed("send_to_ack", desk.now() - self._left_at.pop(child.child_id, desk.now()))
            if told.status is None and told.venue_order_id is None:
                self.unknown(child, "the answer does not say what became of the order")
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
        circuit, turns = self._calls.circuit(child, Endpoint.ORDERS), desk.turns.of(child.venue)
        while True:
            while not actor.lease.valid:
                await asyncio.sleep(0.05)
            refusal = self.why_not(child)
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
                return await self._calls.timed(child.venue, "place", place)
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
            if type(error) is Rejected:
                actor.desk.refused(child.venue)
            would_take = isinstance(error, PostOnlyRejected)
            actor.post(partial(actor.state.rejected, child, _said(error), would_take=would_take))
        elif then is Then.RESOLVE:
            if isinstance(error, DuplicateClientOrderId):
                self.proven.add(child.child_id)
            self.unknown(child, str(error))
        else:
            self.void(child, f"not placed after {tries} tries: {error}")

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
        self.parked[child.child_id] = wake
        try:
            return await waiting
        finally:
            del self.parked[child.child_id]
            self._actor.desk.sends(+1)

    async def _nap(self, child: ChildOrder, seconds: float) -> None:
        """The pause before another try; it may be as long as a venue's ban."""
        woken = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            await self._park(child, asyncio.wait_for(woken.wait(), seconds), woken.set)

    def _leaving(self, child: ChildOrder) -> None:
        """The last look, directly before the bytes leave."""
        actor = self._actor
        if not actor.lease.valid or self.why_not(child) is not None:
            raise _NotSent
        if not self._protects(child) and self._calls.circuit(child, Endpoint.ORDERS).state is State.OPEN:
            raise _NotSent  # it opened while this one waited for its turn
        now = actor.desk.now()
        failpoints.hit("send.before")
        actor.state.sending(child, now + (actor.adapter(child).request_ttl_ms or NO_EXPIRY_MS))
        actor.desk.metrics.child_sent(child.venue, now - child.created_at)
        actor.state.timed("decision_to_send", now - child.created_at)
        self._left_at[child.child_id] = now
        self.sent_at[child.child_id] = actor.desk.monotonic()
        actor.leaving(child, now)

    def why_not(self, child: ChildOrder) -> str | None:
        """What speaks against sending a child now; None: nothing."""
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

    def void(self, child: ChildOrder, reason: str) -> None:
        """Book that a child certainly is at no venue, and is not going to be."""
        actor = self._actor

        def book(now: int) -> None:
            if self.why_not(child) is not None:
                actor.state.cancel_sent(child, reason, now)
            actor.state.void(child, reason, now)
            actor.desk.gate.settle(actor.key, child)

        actor.post(book)

    def unknown(self, child: ChildOrder, reason: str) -> None:
        """Book that a child may be at its venue."""
        actor = self._actor
        actor.desk.metrics.child_unknown(child.venue)
        actor.log.warning("outcome unknown", venue=child.venue, client_order_id=child.child_id, error=reason)
        actor.post(partial(actor.state.unknown, child, reason))


def _said(error: AdapterError) -> str:
    return f"{error} (code {error.code})" if error.code is not None and error.code not in str(error) else str(error)
