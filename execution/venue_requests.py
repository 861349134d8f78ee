"""Requests to venues for one order's children, each until its outcome is certain.

A create is sent at most once per decision to send. When its outcome is not certain, the venue is asked for its client order id
until it is. Outcomes are posted to the order; nothing is booked here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from adapters.base import (
    AdapterError,
    DuplicateClientOrderId,
    OrderUnknown,
    PostOnlyRejected,
    RateLimited,
    Rejected,
    Retryable,
    Unknown,
    VenueFill,
    VenueOrder,
    VenueOrderStatus,
)
from execution import failpoints
from execution.gates import GateRefused
from execution.ledger import Fenced
from schemas.order import ChildOrder, ChildState, Role

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
LONGEST_PAUSE = 1.0


class _NotSent(Exception):
    """The last look before the wire said no."""


class Requests:
    """The requests of one order now under way, at most one of a kind per child."""

    def __init__(self, actor: OrderActor) -> None:
        self._actor = actor
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._proven: set[str] = set()
        self._may_resend: set[str] = set()
        self._refreshing: set[str] = set()
        self._left_at: dict[str, int] = {}
        """When a request to place left, in ms, until it was answered."""

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
        if ("send", child.child_id) in self._tasks or self._actor.closing or self._actor.mail_waits:
            return  # its answer may be what waits to be booked
        if child.sends == 0 or child.child_id in self._may_resend:
            self._may_resend.discard(child.child_id)
            self._start("send", child, self._send)
        else:
            # It was sent, and what came back was not booked: whatever that was, it is no reason to send again.
            self._unknown(child, "its answer could not be booked")

    def cancel(self, child: ChildOrder) -> None:
        if child.state is ChildState.OPEN:
            self._start("cancel", child, self._cancel)

    def refresh(self, child: ChildOrder) -> None:
        """Ask the venue for a child that the ledger holds for open."""
        self._refreshing.add(child.child_id)
        self._start("refresh", child, self._refresh)

    async def settle(self, seconds: float) -> None:
        """Wait for answers to what has been sent; drop the rest."""
        for (kind, _), task in list(self._tasks.items()):
            if kind not in ("send", "cancel"):
                task.cancel()
        waiting = [task for (kind, _), task in self._tasks.items() if kind in ("send", "cancel")]
        if waiting:
            await asyncio.wait(waiting, timeout=seconds)

    def abandon(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    # --- creates ----------------------------------------------------------------------------------------------------

    async def _send(self, child: ChildOrder) -> None:
        actor, desk = self._actor, self._actor.desk
        gate, key, parent = desk.gate, actor.key, actor.state.parent
        tries, pause = 0, 0.2
        desk.sends(+1)
        try:
            while True:
                while not actor.lease.valid:
                    await asyncio.sleep(0.05)
                refusal = self._why_not(child)
                if refusal is not None:
                    return self._void(child, refusal)
                if actor.closing:
                    return None
                held = actor.state.totals.filled if child.role is Role.EXIT else parent.quantity
                try:
                    approved = gate.approve(key, held, child)
                except GateRefused as error:
                    actor.log.critical("the gate before the wire refused a child order", error=str(error))
                    desk.metrics.gate_refused()
                    return self._void(child, str(error))
                try:
                    place = actor.adapter(child).place(approved, before_send=partial(self._leaving, child))
                    told = await self._timed(child.venue, "place", place)
                except _NotSent:
                    continue
                except Rejected as error:
                    gate.settle(key, child)
                    desk.metrics.child_rejected(child.venue, error.code)
                    would_take = isinstance(error, PostOnlyRejected)
                    return actor.post(partial(actor.state.rejected, child, _said(error), would_take=would_take))
                except DuplicateClientOrderId:
                    self._proven.add(child.child_id)
                    return self._unknown(child, "the venue holds an order of this id already")
                except RateLimited as error:
                    actor.log.warning("rate limited", venue=child.venue, until=error.until, error=str(error))
                    await asyncio.sleep(max(error.until - desk.now(), 50) / 1000)
                except Retryable as error:
                    tries += 1
                    actor.log.warning("not placed", venue=child.venue, tries=tries, error=str(error))
                    if tries >= desk.max_retries:
                        return self._void(child, f"not placed after {tries} tries: {error}")
                    await asyncio.sleep(pause)
                    pause *= 2
                except Unknown as error:
                    return self._unknown(child, str(error))
                else:
                    failpoints.hit("send.answered")
                    actor.state.timed("send_to_ack", desk.now() - self._left_at.pop(child.child_id, desk.now()))
                    if told.status is None and told.venue_order_id is None:
                        return self._unknown(child, "the answer does not say what became of the order")
                    return actor.post(partial(actor.state.venue_order, child, told))
        finally:
            self._left_at.pop(child.child_id, None)
            desk.sends(-1)

    def _leaving(self, child: ChildOrder) -> None:
        """The last look, directly before the bytes leave."""
        actor = self._actor
        if actor.closing or not actor.lease.valid or self._why_not(child) is not None:
            raise _NotSent
        now = actor.desk.now()
        failpoints.hit("send.before")
        actor.state.sending(child, now + (actor.adapter(child).request_ttl_ms or NO_EXPIRY_MS))
        actor.desk.metrics.child_sent(child.venue, now - child.created_at)
        actor.state.timed("decision_to_send", now - child.created_at)
        self._left_at[child.child_id] = now
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
        final_at = max(child.valid_until, child.created_at + (ttl or NO_EXPIRY_MS)) + EXPIRY_MARGIN_MS
        absent, pause = 0, 0.05
        while child.state is ChildState.UNKNOWN:
            told, answered = await self._find(child)
            if told is not None:
                desk.metrics.unknown_resolved(child.venue, found=True)
                return await actor.booked(partial(actor.state.venue_order, child, told))
            if answered and desk.now() > final_at and child.child_id not in self._proven:
                absent += 1
                if absent >= AGREEING_READS:
                    desk.metrics.unknown_resolved(child.venue, found=False)
                    return self._absent(child, resend=bool(ttl))
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE)
        return None

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
        """Cancel until the venue says that the child has ended, however it ended."""
        actor = self._actor
        gone, pause, asked = 0, 0.05, actor.desk.now()
        while child.state is ChildState.OPEN:
            told: VenueOrder | None = None
            try:
                failpoints.hit("cancel.before")
                actor.desk.metrics.cancel_sent(child.venue)
                cancel = actor.adapter(child).cancel(child.symbol, child.child_id, child.venue_order_id)
                told = await self._timed(child.venue, "cancel", cancel)
            except RateLimited as error:
                await asyncio.sleep(max(error.until - actor.desk.now(), 50) / 1000)
                continue
            except OrderUnknown:
                pass  # it ended, or is not there yet: its record says which
            except AdapterError as error:
                actor.log.warning("cancel not confirmed", client_order_id=child.child_id, error=str(error))
            if told is None or told.status in (None, VenueOrderStatus.OPEN):
                told, answered = await self._find(child)
                gone = gone + 1 if answered and told is None else 0
                if gone >= GONE_READS:
                    told = self._vanished(child)
            if told is not None:
                await actor.booked(partial(actor.state.venue_order, child, told))
            if child.state is ChildState.OPEN:
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
        actor.state.timed("cancel_to_end", actor.desk.now() - asked)

    # --- reads ------------------------------------------------------------------------------------------------------

    async def _find(self, child: ChildOrder) -> tuple[VenueOrder | None, bool]:
        """The venue's record of a child, and whether the venue answered at all."""
        adapter = self._actor.adapter(child)
        try:
            find = adapter.find(child.symbol, child.child_id, child.venue_order_id)
            return await self._timed(child.venue, "find", find), True
        except RateLimited as error:
            await asyncio.sleep(max(error.until - self._actor.desk.now(), 50) / 1000)
        except AdapterError as error:
            self._actor.log.warning("no answer about an order", client_order_id=child.child_id, error=str(error))
        return None, False

    async def _refresh(self, child: ChildOrder) -> None:
        actor = self._actor
        gone, pause = 0, 0.05
        try:
            while not child.state.terminal:
                told, answered = await self._find(child)
                gone = gone + 1 if answered and told is None else 0
                if gone >= GONE_READS:
                    told = self._vanished(child)
                if told is not None:
                    await actor.booked(partial(actor.state.venue_order, child, told))
                    return
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
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
        pause = TRADES_GRACE
        while child.executed > child.filled:
            await asyncio.sleep(pause)
            if child.executed <= child.filled:
                return
            try:
                fetch = actor.adapter(child).fills(child.symbol, venue_order_id=child.venue_order_id)
                fills = await self._timed(child.venue, "fills", fetch)
            except AdapterError as error:
                actor.log.warning("trades not fetched", client_order_id=child.child_id, error=str(error))
            else:
                own = [fill for fill in fills if _is_of(fill, child)]
                await actor.booked(partial(actor.state.venue_fills, child, own))
            pause = min(pause * 2, 5.0)

    async def _timed(self, venue: str, kind: str, request: Coroutine[Any, Any, T]) -> T:
        """Measure a request by its kind and outcome."""
        actor = self._actor
        started, outcome = actor.desk.monotonic(), "canceled"
        try:
            answer = await request
            outcome = "ok"
        except Exception as error:
            outcome = type(error).__name__
            raise
        finally:
            elapsed = actor.desk.monotonic() - started
            actor.desk.metrics.venue_request(venue, kind, outcome, elapsed)
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
            await asyncio.sleep(LONGEST_PAUSE)
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
