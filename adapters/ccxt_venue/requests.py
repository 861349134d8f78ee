"""Every request to a venue: in which lane it waits, on whose behalf ccxt sends it, and what its failure means."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from adapters.base import AdapterError, AdapterHealth, ClockSkew, RateLimited, Unknown
from adapters.ccxt_venue.errors import Kind, judge, orders_only, scrub
from adapters.ccxt_venue.exchange import Call, current
from adapters.ccxt_venue.limiter import Lane, Limiter

SHORTEST_SECRET = 4
"""Shorter ones cannot be told from ordinary text."""


class Requests:
    """Awaits ccxt's requests and judges their errors."""

    def __init__(
        self, exchange_id: str, limiter: Limiter, health: AdapterHealth, secrets: Iterable[str], seconds: float
    ) -> None:
        self._exchange_id = exchange_id
        self._limiter = limiter
        self._health = health
        self._secrets = tuple(secret for secret in secrets if len(secret) >= SHORTEST_SECRET)
        self._seconds = seconds
        self.on_clock_skew: Callable[[], None] = lambda: None

    async def ask(
        self,
        kind: Kind,
        lane: Lane,
        request: Coroutine[Any, Any, Any],
        *,
        before_send: Callable[[], None] | None = None,
        turn_taken: bool = False,
        client_id: str | None = None,
        row_by_row: bool = False,
    ) -> Any:
        """Await a request of ccxt's. `client_id`: of a create, what its request must hold to leave; `row_by_row`: see `Call`.

        Raises:
            AdapterError: what its failure means. Whatever `before_send` raises.
        """
        call = Call(lane, before_send, client_id)
        call.turn_taken, call.row_by_row = turn_taken, row_by_row
        token = current.set(call)
        try:
            answer = await request
        except AdapterError as error:
            self._health.last_error = str(error)
            raise
        except Exception as error:  # noqa: BLE001 - whatever ccxt raises, it is judged
            if call.refusal is not None:
                raise call.refusal from None
            raise self._judged(kind, error, call) from None
        finally:
            current.reset(token)
            if call.status is not None:
                self._limiter.observe(call.headers, call.sent_at)
        self._health.last_answer_at = time.monotonic()
        return answer

    async def turn(self, lane: Lane) -> None:
        """Await a turn before a request is built, for those whose expiry is written into them."""
        await self._limiter.turn(1, lane)

    def spacing(self, weight: float) -> float:
        """Seconds per request of this weight that use all of the venue's rate limit."""
        return self._limiter.spacing(weight)

    def unreadable(self, what: str) -> Unknown:
        """An answer that came in full, and does not say what it must."""
        error = Unknown(f"the answer {what}")
        self._health.last_error = str(error)
        return error

    def hide(self, text: str) -> str:
        """The text without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return scrub(text)

    def _judged(self, kind: Kind, error: Exception, call: Call) -> AdapterError:
        judged = judge(
            self._exchange_id,
            kind,
            error,
            sent=call.sent,
            status=call.status,
            headers=call.headers,
            body=call.body,
        )
        judged.args = (self.hide(str(judged)),)
        self._health.last_error = str(judged)
        if call.status is not None:
            self._health.last_answer_at = time.monotonic()
        if isinstance(judged, RateLimited):
            self._limiter.refused(judged.until, orders_only=orders_only(self._exchange_id, judged))
        elif isinstance(judged, ClockSkew):
            self.on_clock_skew()
        return judged
