"""How a request of an order goes to its venue: measured, told to the venue's circuit, and repeated as `retry_policy` says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from adapters.base import AdapterError, RateLimited, VenueOrder
from execution.circuit import Circuit, Endpoint
from execution.metrics import Metrics
from execution.retry_policy import Repeater, Request
from schemas.order import ChildOrder

if TYPE_CHECKING:
    from execution.order_actor import OrderActor

T = TypeVar("T")

EXPIRY_MARGIN_MS = 1000
"""Beyond a request's own expiry: clocks differ, and a venue's reads lag its writes."""
NO_EXPIRY_MS = 60_000
"""Where a venue's requests carry no expiry: how long one may still be under way."""
_ENDPOINTS = {
    "place": Endpoint.ORDERS,
    "cancel": Endpoint.CANCELS,
    "find": Endpoint.READS,
    "fills": Endpoint.READS,
}


@contextlib.contextmanager
def measured(
    metrics: Metrics, circuit: Circuit, venue: str, kind: str, monotonic: Callable[[], float]
) -> Iterator[None]:
    """Let one request's outcome and duration be counted, and its circuit know."""
    started, outcome = monotonic(), "canceled"
    try:
        with circuit.passage():
            yield
        outcome = "ok"
    except Exception as error:
        outcome = type(error).__name__
        raise
    finally:
        metrics.venue_request(venue, kind, outcome, monotonic() - started)


class Calls:
    """The ways of one order to its venues."""

    __slots__ = ("_actor",)

    def __init__(self, actor: OrderActor) -> None:
        self._actor = actor

    def circuit(self, child: ChildOrder, endpoint: Endpoint) -> Circuit:
        return self._actor.desk.market.circuits.of(child.venue, endpoint)

    async def timed(self, venue: str, kind: str, request: Coroutine[Any, Any, T]) -> T:
        """Await a request, measured."""
        desk = self._actor.desk
        with measured(desk.metrics, desk.market.circuits.of(venue, _ENDPOINTS[kind]), venue, kind, desk.monotonic):
            return await request

    async def find(self, child: ChildOrder, who: str) -> VenueOrder | None:
        """The venue's record of a child; None: it knows none.

        Raises:
            AdapterError: no answer.
        """
        await self.turn(child, who)
        find = self._actor.adapter(child).find(child.symbol, child.child_id, child.venue_order_id)
        return await self.timed(child.venue, "find", find)

    async def turn(self, child: ChildOrder, who: str) -> None:
        """Wait until the venue may be asked."""
        circuit = self.circuit(child, Endpoint.READS)
        while not circuit.admits:
            await circuit.wait(f"{who} {child.child_id}")

    def repeater(
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
            failed=partial(self.warn, child),
            escalate=escalate,
            sleep=sleep,
        )

    def warn(self, child: ChildOrder, error: AdapterError, tries: int) -> None:
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
