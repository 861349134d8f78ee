"""When a request to a venue is repeated: one table, by what was asked and what came of it.

Rule above all: a create is sent again only where it certainly did not happen. Where that is not known, the venue is asked for
the client order id, and the same id is sent again only once it is certain that the venue will never have it. Cancels and reads
may be repeated without harm, and are, for ever.

An amendment has no request of its own: it is a cancel, and a create once the cancelled order has certainly ended.
"""

from __future__ import annotations

import asyncio
import copy
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, retry_if_result
from tenacity.wait import wait_exponential_jitter

from adapters.base import (
    AdapterError,
    ClockSkew,
    DuplicateClientOrderId,
    OrderUnknown,
    PostOnlyRejected,
    RateLimited,
    Rejected,
    Retryable,
    Unavailable,
    Unknown,
)

T = TypeVar("T")

LEAST_PAUSE = 0.05
"""Seconds, also where a venue says that the time to try again is now."""


class Request(StrEnum):
    CREATE = "create"
    CANCEL = "cancel"
    READ = "read"
    TRADES = "trades"


class Tries(StrEnum):
    ONCE = "once"
    MAX_RETRIES = "MAX_RETRIES"
    FOR_EVER = "for ever"


class Then(StrEnum):
    """What comes after the last try, or after the deadline."""

    REFUSE = "refuse"
    RESOLVE = "resolve"
    VOID = "void"
    WAIT = "wait"
    ESCALATE = "escalate"


class Rule(NamedTuple):
    """One cell of the table. All times in seconds."""

    tries: Tries
    first: float = 0.0
    growth: float = 1.0
    longest: float = 0.0
    """The longest pause before the deadline."""
    jitter: float = 0.0
    """Added to each pause, at random between zero and this."""
    deadline: float | None = None
    then: Then = Then.VOID
    late: float = 0.0
    """The pause after the deadline, of what goes on."""


_ONCE, _MAX, _EVER = Tries.ONCE, Tries.MAX_RETRIES, Tries.FOR_EVER
_REFUSE, _RESOLVE, _VOID, _WAIT, _ESCALATE = Then

# fmt: off
#                tries  first growth longest jitter deadline then     late
_CANCEL   = Rule(_EVER, 0.05, 2.0,   1.0,    0.02,  30.0, _ESCALATE, 5.0)
_READ     = Rule(_EVER, 0.05, 1.5,   1.0,    0.02,  60.0, _ESCALATE, 5.0)
_TRADES   = Rule(_EVER, 0.2,  2.0,   5.0,    0.05,  60.0, _ESCALATE, 5.0)

TABLE: Mapping[Request, Mapping[type[AdapterError], Rule]] = MappingProxyType({
    Request.CREATE: MappingProxyType({
        #                            tries  first growth longest jitter deadline then
        Rejected:               Rule(_ONCE, 0.0,  1.0,   0.0,    0.0,   None, _REFUSE),
        PostOnlyRejected:       Rule(_ONCE, 0.0,  1.0,   0.0,    0.0,   None, _REFUSE),
        DuplicateClientOrderId: Rule(_ONCE, 0.0,  1.0,   0.0,    0.0,   None, _RESOLVE),
        Unknown:                Rule(_ONCE, 0.0,  1.0,   0.0,    0.0,   None, _RESOLVE),
        OrderUnknown:           Rule(_ONCE, 0.0,  1.0,   0.0,    0.0,   None, _RESOLVE),
        Retryable:              Rule(_MAX,  0.2,  2.0,   2.0,    0.05,  None, _VOID),
        ClockSkew:              Rule(_MAX,  0.5,  2.0,   5.0,    0.05,  None, _VOID),
        Unavailable:            Rule(_MAX,  0.2,  2.0,   2.0,    0.05,  60.0, _WAIT),
        RateLimited:            Rule(_EVER, 0.05, 1.0,   0.05,   0.02,  None, _WAIT),
    }),
    Request.CANCEL: MappingProxyType({
        Rejected: _CANCEL, PostOnlyRejected: _CANCEL, DuplicateClientOrderId: _CANCEL, Unknown: _CANCEL, OrderUnknown: _CANCEL,
        Retryable: _CANCEL, ClockSkew: _CANCEL, Unavailable: _CANCEL, RateLimited: _CANCEL,
    }),
    Request.READ: MappingProxyType({
        Rejected: _READ, PostOnlyRejected: _READ, DuplicateClientOrderId: _READ, Unknown: _READ, OrderUnknown: _READ,
        Retryable: _READ, ClockSkew: _READ, Unavailable: _READ, RateLimited: _READ,
    }),
    Request.TRADES: MappingProxyType({
        Rejected: _TRADES, PostOnlyRejected: _TRADES, DuplicateClientOrderId: _TRADES, Unknown: _TRADES, OrderUnknown: _TRADES,
        Retryable: _TRADES, ClockSkew: _TRADES, Unavailable: _TRADES, RateLimited: _TRADES,
    }),
})
"""What is done about each error of each request.

`refuse`: the child ends as rejected, and its algorithm decides what follows. `resolve`: the venue is asked for the client order
id until its answer is final. `void`: the child ends as never sent. `wait`: as long as its order may wait, at the longest pause
and as the venue's circuit admits; the deadline bounds only an order that trades at once and has no end of its own. `escalate`:
logged as an error and counted once, and repeated all the same, with the late pause. Rate limits are waited for as long as the
venue says, and never count as tries.
"""
# fmt: on

UNANSWERED: Mapping[Request, Rule] = MappingProxyType(
    {Request.CANCEL: _CANCEL, Request.READ: _READ, Request.TRADES: _TRADES}
)
"""What is done about an answer that is not final yet: still open, not to be found, not all trades."""


def rule(request: Request, error: BaseException) -> Rule:
    """The rule for an error, by its class or the nearest base of it; what the table does not know is `Unknown`."""
    cells = TABLE[request]
    return next((cells[known] for known in type(error).__mro__ if known in cells), cells[Unknown])


class Repeater:
    """Repeats one request by the table. Made for one run of it."""

    def __init__(
        self,
        request: Request,
        *,
        max_retries: int,
        now: Callable[[], int],
        monotonic: Callable[[], float],
        may_wait: Callable[[], bool] = lambda: False,
        failed: Callable[[AdapterError, int], None] = lambda _error, _tries: None,
        escalate: Callable[[float], None] = lambda _seconds: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`now` in ms since the epoch; `monotonic` in seconds. `may_wait`: whether what would `wait` still may. `failed` is
        told each error that another try may follow, and how many failed; `escalate`, once, the seconds since the first try."""
        self._request = request
        self._max_retries = max_retries
        self._now = now
        self._monotonic = monotonic
        self._may_wait = may_wait
        self._failed = failed
        self._escalate = escalate
        self._sleep = sleep
        self._counts: Counter[Rule] = Counter()
        self._began = monotonic()
        self._escalated = False
        self.tries = 0
        """How many failed; rate limits are left out."""

    async def run(self, attempt: Callable[[], Awaitable[T]], *, final: Callable[[T], bool] = lambda _: True) -> T:
        """The first answer that is final.

        Raises:
            AdapterError: the last try's, where the table allows no other. Whatever else `attempt` raises.
        """
        first: asyncio.Future[T] | None = asyncio.get_running_loop().create_future()
        assert first is not None
        try:
            # What goes well at once, which is nearly everything, does without the machinery.
            answer = await attempt()
        except AdapterError as error:
            first.set_exception(error)
        else:
            if final(answer):
                return answer
            first.set_result(answer)

        async def again() -> T:
            nonlocal first
            if first is not None:
                told, first = first, None
                return told.result()
            return await attempt()

        retrying = AsyncRetrying(
            retry=retry_if_exception(self._may_be_repeated) | retry_if_result(lambda answer: not final(answer)),
            stop=self._over,
            wait=self._wait,
            sleep=self._sleep,
            reraise=True,
        )
        return await retrying(again)

    def _may_be_repeated(self, error: BaseException) -> bool:
        if not isinstance(error, AdapterError):
            return False
        self.tries += not isinstance(error, RateLimited)
        if rule(self._request, error).tries is Tries.ONCE:
            return False
        self._failed(error, self.tries)
        return True

    def _over(self, state: RetryCallState) -> bool:
        cell, _ = self._cell(state)
        self._counts[cell] += 1
        if cell.tries is not Tries.MAX_RETRIES or self._counts[cell] < self._max_retries:
            return False
        return not (cell.then is Then.WAIT and self._may_wait())

    def _wait(self, state: RetryCallState) -> float:
        """The pause before the next try, in seconds."""
        cell, error = self._cell(state)
        elapsed = self._monotonic() - self._began
        late = cell.then is Then.ESCALATE and cell.deadline is not None and elapsed >= cell.deadline
        if late and not self._escalated:
            self._escalated = True
            self._escalate(elapsed)
        if isinstance(error, RateLimited):
            return max((error.until - self._now()) / 1000, LEAST_PAUSE) + random.uniform(0, cell.jitter)
        if late:
            return cell.late
        counted = copy.copy(state)  # each class of failure grows by itself
        counted.attempt_number = self._counts[cell]
        wait = wait_exponential_jitter(
            multiplier=cell.first, exp_base=cell.growth, max=cell.longest + cell.jitter, jitter=cell.jitter
        )
        return wait(counted)

    def _cell(self, state: RetryCallState) -> tuple[Rule, AdapterError | None]:
        error = state.outcome.exception() if state.outcome is not None else None
        if isinstance(error, AdapterError):
            return rule(self._request, error), error
        return UNANSWERED[self._request], None


def as_markdown() -> str:
    """The table as the documentation shows it. A rate limit's pause is always what the venue says."""
    lines = [
        "| Request | What came of it | Tries | Pauses | Deadline | Then |",
        "|---|---|---|---|---|---|",
    ]
    for request, cells in TABLE.items():
        groups: dict[Rule, list[str]] = {}
        for error, cell in cells.items():
            groups.setdefault(cell, []).append(error.__name__)
        for cell, names in groups.items():
            everything = len(groups) == 1
            came = (
                "anything, or an answer that is not final" if everything else ", ".join(f"`{name}`" for name in names)
            )
            until_told = names == [RateLimited.__name__]
            lines.append(
                f"| {request} | {came} | {cell.tries} | {'as long as the venue says' if until_told else _pauses(cell)} "
                f"| {_seconds(cell.deadline)} | {_then(cell)} |"
            )
    lines.append("| amend | as `cancel`, and once the order has certainly ended, as `create` | | | | |")
    return "\n".join(lines) + "\n"


def _pauses(cell: Rule) -> str:
    if cell.tries is Tries.ONCE:
        return "-"
    growth = f"x {cell.growth:g} " if cell.growth != 1 else ""
    return f"{cell.first:g} s {growth}up to {cell.longest:g} s, + 0..{cell.jitter:g} s"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:g} s"


def _then(cell: Rule) -> str:
    return f"{cell.then}, every {cell.late:g} s from then on" if cell.late else str(cell.then)
