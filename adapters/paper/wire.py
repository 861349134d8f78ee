"""The way to the venue and back: what is sent arrives later, in order."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from adapters.base import Unknown

T = TypeVar("T")


class Wire:
    """Calls due later, carried out in the order of their times; of one time, in the order in which they were sent.

    One timer of the event loop serves them all (a loop's own timers of one time have no order).
    """

    def __init__(self) -> None:
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: set[asyncio.Future[Any]] = set()

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Carry out a call in so many seconds."""
        loop = asyncio.get_running_loop()
        entry = (loop.time() + seconds, next(self._numbers), call)
        heapq.heappush(self._calls, entry)
        if self._calls[0] is entry:
            self._set(loop)

    async def round_trip(self, there: float, back: float, effect: Callable[[], T]) -> T:
        """Let a request take effect after `there` seconds, and its answer (or error) come `back` seconds later.

        A caller that gives up waiting changes nothing: what was sent arrives.
        """
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.add(answer)
        answer.add_done_callback(self._waiting.discard)

        def arrives() -> None:
            try:
                result = effect()
            except Exception as error:  # noqa: BLE001 - it is raised where the request was made
                self.after(back, partial(_fail, answer, error))
            else:
                self.after(back, partial(_answer, answer, result))

        self.after(there, arrives)
        return await answer

    def close(self) -> None:
        """Drop what is under way."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._calls.clear()
        for answer in list(self._waiting):
            _fail(answer, Unknown("the paper venue was closed while a request was under way"))

    def _set(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(self._calls[0][0], self._carry_out, loop)

    def _carry_out(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        # The loop calls up to its clock's resolution early: what was due at this call's own time is due.
        due = max(loop.time(), self._calls[0][0]) if self._calls else 0.0
        while self._calls and self._calls[0][0] <= due:
            heapq.heappop(self._calls)[2]()
        if self._calls:
            self._set(loop)


def _answer(answer: asyncio.Future[T], result: T) -> None:
    if not answer.done():
        answer.set_result(result)


def _fail(answer: asyncio.Future[T], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
