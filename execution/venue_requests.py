"""What is under way at the venues for one order's children, each until its outcome is certain.

When the outcome of a create is not certain, the venue is asked for its client order id until it is; a cancel is repeated until the
venue says how the child ended. What is asked again, how often and when, is in `retry_policy`. Outcomes are posted to the order;
nothing is booked here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from adapters.base import AdapterError, OrderUnknown, RateLimited, VenueFill, VenueOrder, VenueOrderStatus
from execution import failpoints
from execution.child_sends import Sends
from execution.circuit import Endpoint
from execution.ledger import Fenced, LedgerMismatch
from execution.retry_policy import Request
from execution.venue_calls import EXPIRY_MARGIN_MS, NO_EXPIRY_MS, Calls
from schemas.order import ChildOrder, ChildState

if TYPE_CHECKING:
    from execution.order_actor import OrderActor

AGREEING_READS = 2
GONE_READS = 5
TRADES_GRACE = 0.2
"""Seconds that the stream is given to bring the trades of a quantity already reported."""
FAILED_PAUSE = 1.0
"""Seconds after a failure of this program, before it may meet the same again."""


class Requests:
    """The requests of one order now under way, at most one of a kind per child."""

    __slots__ = ("_actor", "_calls", "_may_resend", "_refreshing", "_sends", "_tasks")

    def __init__(self, actor: OrderActor) -> None:
        self._actor = actor
        self._calls = Calls(actor)
        self._sends = Sends(actor, self._calls)
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._may_resend: set[str] = set()
        self._refreshing: set[str] = set()

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
        if child.child_id in self._sends.parked and self._sends.why_not(child) is not None:
            self._sends.parked[child.child_id]()
        if ("send", child.child_id) in self._tasks or self._actor.mail_waits:
            return  # its answer may be what waits to be booked
        if child.child_id in self._sends.left:
            return
        if child.sends == 0 or child.child_id in self._may_resend:
            self._may_resend.discard(child.child_id)
            self._start("send", child, self._sends.send)
        else:
            # It was sent, and what came back was not booked: whatever that was, it is no reason to send again.
            self._sends.unknown(child, "its answer could not be booked")

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
            if kind in ("send", "cancel") and child_id not in self._sends.parked:
                waiting.append(task)
            else:
                task.cancel()
        if waiting:
            await asyncio.wait(waiting, timeout=seconds)

    def abandon(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    # --- creates without a certain answer ---------------------------------------------------------------------------

    async def _resolve(self, child: ChildOrder) -> None:
        """Ask for an unknown create until the venue has it, or certainly will not."""
        actor, desk = self._actor, self._actor.desk
        ttl = actor.adapter(child).request_ttl_ms
        # By the monotonic clock: the other may have jumped since the request left, here or at the last owner.
        sent_at = self._sends.sent_at.get(child.child_id, actor.lease.quiet_from)
        final_at = sent_at + ((ttl or NO_EXPIRY_MS) + EXPIRY_MARGIN_MS) / 1000
        absent = 0

        async def look() -> bool:
            nonlocal absent
            if child.state is not ChildState.UNKNOWN:
                return True
            told = await self._calls.find(child, "resolve")
            if told is not None:
                desk.metrics.unknown_resolved(child.venue, found=True)
                await actor.booked(partial(actor.state.venue_order, child, told))
                return True
            if desk.monotonic() > final_at and child.child_id not in self._sends.proven:
                absent += 1
                if absent >= AGREEING_READS:
                    desk.metrics.unknown_resolved(child.venue, found=False)
                    self._absent(child, resend=bool(ttl))
                    return True
            return False

        await self._calls.repeater(Request.READ, child).run(look, final=bool)

    def _absent(self, child: ChildOrder, *, resend: bool) -> None:
        """It certainly does not exist: send it again under its id, or write it off."""
        actor = self._actor
        actor.log.warning("the venue does not have it", venue=child.venue, client_order_id=child.child_id)
        child.sends = max(child.sends, 1)
        if self._sends.why_not(child) is None and resend and child.sends < actor.desk.max_retries:
            self._may_resend.add(child.child_id)
            actor.post(partial(actor.state.resend, child))
        else:
            self._sends.void(child, f"did not reach {child.venue} after {child.sends} tries")

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
                told = await self._calls.timed(child.venue, "cancel", request)
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

        await self._calls.repeater(Request.CANCEL, child).run(cancel, final=bool)
        actor.state.timed("cancel_to_end", actor.desk.now() - asked)

    async def _record(self, child: ChildOrder, gone: int) -> tuple[VenueOrder | None, int]:
        """The record of an order that is being cancelled, where the venue tells it now, and how often in a row it knew none."""
        if not self._calls.circuit(child, Endpoint.READS).admits:
            return None, 0
        try:
            told = await self._calls.find(child, "cancel")
        except AdapterError as error:
            self._calls.warn(child, error, 0)
            return None, 0
        gone = gone + 1 if told is None else 0
        return (self._vanished(child) if gone >= GONE_READS else told), gone

    # --- reads ------------------------------------------------------------------------------------------------------

    async def _refresh(self, child: ChildOrder) -> None:
        actor, gone = self._actor, 0
        listing = actor.desk.listings.of(child.venue)

        async def look() -> bool:
            nonlocal gone
            if child.state.terminal:
                return True
            try:
                told = await listing.find(child.child_id, partial(self._calls.find, child, "refresh"))
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
            await self._calls.repeater(Request.READ, child).run(look, final=bool)
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
            await self._calls.turn(child, "trades")
            if child.venue_order_id is None:
                told = await self._calls.find(child, "trades")
                if told is not None:
                    await actor.booked(partial(actor.state.venue_order, child, told))
            if child.venue_order_id is None:
                return False
            request = actor.adapter(child).fills(child.symbol, child.venue_order_id)
            fills = await self._calls.timed(child.venue, "fills", request)
            own = [fill for fill in fills if _is_of(fill, child)]
            await actor.booked(partial(actor.state.venue_fills, child, own))
            return child.executed <= child.filled

        await self._calls.repeater(Request.TRADES, child).run(fetch, final=bool)

    # --- tasks ------------------------------------------------------------------------------------------------------

    def _start(self, kind: str, child: ChildOrder, work: Any) -> None:
        name = (kind, child.child_id)
        if name not in self._tasks:
            self._tasks[name] = asyncio.get_running_loop().create_task(self._supervised(name, work(child)))

    async def _supervised(self, name: tuple[str, str], work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (Fenced, LedgerMismatch):
            pass  # another replica owns the order now, or it is loaded again: who goes on with it asks for itself
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
