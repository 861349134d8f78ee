"""Circuits: what is asked of a venue that fails again and again is kept back, and tried one by one until it answers.

One circuit per venue and class of requests. Closed, everything passes. Failures in a row, or too many within a window, open it:
nothing passes for a while. Then it is half open: one request at a time passes as a probe; one that fails opens the circuit again
for longer, some that succeed close it. What may not wait (cancels, exits that protect a position) passes always, and counts as a
probe.

A failure is no connection, no answer, or one that says nothing certain. A venue that refuses, or limits the rate, answers.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

import structlog

from adapters.base import AdapterError, CredentialsRefused, Retryable, Unavailable, Unknown

log = structlog.get_logger(__name__)

LEAST_WAIT = 0.01
"""Seconds that a waiting request sleeps at least, whatever the clocks say."""


class Endpoint(StrEnum):
    """A class of requests: one may fail at a venue while the others work."""

    ORDERS = "orders"
    CANCELS = "cancels"
    READS = "reads"
    MARKET_DATA = "market data"


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half open"


class Limits(NamedTuple):
    """When a circuit opens and closes. Times in seconds."""

    failures: int = 5
    """So many in a row open it."""
    rate: float = 0.5
    """So large a part of what was asked within `window` opens it, if at least `least` were asked."""
    least: int = 10
    window: float = 30.0
    first: float = 1.0
    """How long it stays open before it is probed; longer by `growth` after each probe that fails, up to `longest`."""
    growth: float = 2.0
    longest: float = 30.0
    successes: int = 2
    """So many in a row close it."""
    quiet: float = 60.0
    """Half open and asked for nothing so long, it closes on probation: the next failure opens it."""
    settled: float = 5.0
    """The same, once a probe has succeeded, or the venue has answered anything else."""


DEFAULT = Limits()
LIMITS: Mapping[Endpoint, Limits] = MappingProxyType(
    {
        Endpoint.ORDERS: DEFAULT,
        Endpoint.CANCELS: Limits(longest=5.0),
        Endpoint.READS: Limits(longest=5.0),
        Endpoint.MARKET_DATA: Limits(longest=5.0),
    }
)


class Circuit:
    """Of one class of requests at one venue."""

    def __init__(
        self,
        limits: Limits = DEFAULT,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        changed: Callable[[State, str], None] = lambda _state, _reason: None,
        answered: Callable[[], float | None] = lambda: None,
    ) -> None:
        """`changed` is told the state entered and why; `answered` says when the venue last answered anything, by the same clock."""
        self._limits = limits
        self._monotonic = monotonic
        self._changed = changed
        self._answered = answered
        self.since: float | None = None
        """When it opened, by the monotonic clock, until it closes."""
        self.reason = ""
        """The failure that opened it, or kept it open."""
        self.refused: str | None = None
        """The venue's word, while it refuses our credentials. That is an answer, and opens nothing; a person has to see to it."""
        self.retry_at = self._asked_at = 0.0
        self._pause = 0.0
        self._opened = 0
        self._in_row = 0
        self._succeeded_in_row = 0
        self._seen: deque[tuple[float, bool]] = deque()
        self._probes = 0
        self._waiting: dict[str, asyncio.Future[None]] = {}

    @property
    def state(self) -> State:
        if self.since is None:
            return State.CLOSED
        now = self._monotonic()
        if now < self.retry_at:
            return State.OPEN
        if not self._probes and not self._waiting and now - self._asked_at >= self._quiet():
            self._close("nothing was asked of it", in_row=self._limits.failures - 1)
            return State.CLOSED
        return State.HALF_OPEN

    @property
    def admits(self) -> bool:
        """Whether a request that can wait may pass now."""
        return self.since is None or self.state is State.CLOSED or (self.state is State.HALF_OPEN and not self._probes)

    @property
    def troubled(self) -> bool:
        """Whether there is anything that a success would mend."""
        return self.since is not None or self._in_row > 0

    @contextmanager
    def passage(self) -> Iterator[None]:
        """Around one request: what it raises, or that it does not, is what the circuit learns."""
        probe, opened = self.state is not State.CLOSED, self._opened
        self._probes += probe
        try:
            yield
        except Exception as error:
            if isinstance(error, CredentialsRefused):
                self.refused = str(error)
            if is_failure(error):
                self.failed(f"{error}", opened=opened)
            elif is_answer(error):
                self.succeeded(probe=probe)
            raise
        else:
            self.refused = None
            self.succeeded(probe=probe)
        finally:
            self._probes -= probe
            if probe:
                self._wake_all()

    def failed(self, reason: str, *, opened: int | None = None) -> None:
        """A request failed. `opened`: how often the circuit had opened when it left; what left before the last time says nothing new."""
        if opened is not None and opened != self._opened:
            return
        state, limits, now = self.state, self._limits, self._monotonic()
        if state is State.OPEN:
            return
        self.reason = reason
        if state is State.HALF_OPEN:
            self._open(self._longer(), now)
            return
        self._in_row += 1
        if self._too_many(now) or self._in_row >= limits.failures:
            self._open(self._longer(), now)

    def succeeded(self, *, probe: bool = True) -> None:
        """The venue answered a request. `probe`: it left after the circuit had opened."""
        if self.state is State.CLOSED:
            self._in_row, self._pause = 0, 0.0
            if self._seen:
                self._note(self._monotonic(), True)
        elif probe:
            self._succeeded_in_row += 1
            self._asked_at = self._monotonic()
            self.retry_at = min(self.retry_at, self._asked_at)
            if self._succeeded_in_row >= self._limits.successes:
                self._pause = 0.0
                self._close("answers again")

    async def wait(self, who: str, seconds: float | None = None) -> None:
        """Wait until it may have changed, is woken, or so many seconds are over. Ask `admits` again then."""
        if self.admits:
            return
        bound = seconds
        if self.state is State.OPEN:
            rest = max(self.retry_at - self._monotonic(), LEAST_WAIT)
            bound = rest if bound is None else min(rest, bound)
        waiter = self._waiting[who] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(None if bound is None else max(bound, LEAST_WAIT)):
                await waiter
        except TimeoutError:
            pass
        finally:
            if self._waiting.get(who) is waiter:
                del self._waiting[who]

    def wake(self, who: str) -> None:
        """Let one who waits look again."""
        waiter = self._waiting.get(who)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _quiet(self) -> float:
        heard = self._answered()
        lives = self._succeeded_in_row or (heard is not None and heard > self.retry_at)
        return self._limits.settled if lives else self._limits.quiet

    def _longer(self) -> float:
        limits = self._limits
        return min(self._pause * limits.growth, limits.longest) if self._pause else limits.first

    def _too_many(self, now: float) -> bool:
        self._note(now, False)
        failures = sum(not good for _, good in self._seen)
        return len(self._seen) >= self._limits.least and failures >= self._limits.rate * len(self._seen)

    def _note(self, now: float, good: bool) -> None:
        """Successes are noted only while a failure is in the window: nothing is kept of a venue that works."""
        self._seen.append((now, good))
        while self._seen and (self._seen[0][1] or self._seen[0][0] <= now - self._limits.window):
            self._seen.popleft()

    def _open(self, pause: float, now: float) -> None:
        if self.since is None:
            self.since = now
        self._pause, self.retry_at = pause, now + pause
        self._asked_at = self.retry_at
        self._opened += 1
        self._succeeded_in_row = 0
        self._seen.clear()
        self._changed(State.OPEN, self.reason)
        self._wake_all()

    def _close(self, reason: str, *, in_row: int = 0) -> None:
        self.since, self._in_row = None, in_row
        self._changed(State.CLOSED, reason)
        self._wake_all()

    def _wake_all(self) -> None:
        for who in list(self._waiting):
            self.wake(who)


class Circuits:
    """Every circuit of a replica."""

    def __init__(
        self,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        opened: Callable[[str, Endpoint], None] = lambda _venue, _endpoint: None,
        answered: Callable[[str], float | None] = lambda _venue: None,
        limits: Mapping[Endpoint, Limits] = LIMITS,
    ) -> None:
        """`opened` is told each time that a circuit opens, or opens again; `answered` says when a venue last answered anything."""
        self._monotonic = monotonic
        self._opened = opened
        self._answered = answered
        self._limits = limits
        self._circuits: dict[tuple[str, Endpoint], Circuit] = {}

    def of(self, venue: str, endpoint: Endpoint) -> Circuit:
        circuit = self._circuits.get((venue, endpoint))
        if circuit is None:

            def changed(state: State, reason: str) -> None:
                self._tell(venue, endpoint, state, reason)

            circuit = Circuit(
                self._limits[endpoint],
                monotonic=self._monotonic,
                changed=changed,
                answered=lambda: self._answered(venue),
            )
            self._circuits[(venue, endpoint)] = circuit
        return circuit

    def usable(self, venue: str) -> bool:
        """Whether a new order may be sent to a venue now."""
        return self.of(venue, Endpoint.ORDERS).admits

    def states(self) -> dict[tuple[str, Endpoint], State]:
        return {name: circuit.state for name, circuit in self._circuits.items()}

    def troubles(self, venue: str) -> list[str]:
        """The circuits of a venue that are not closed, or whose requests are refused, in words for operators."""
        found = []
        for endpoint in Endpoint:
            circuit = self._circuits.get((venue, endpoint))
            if circuit is not None and circuit.refused is not None:
                found.append(f"{endpoint}: our credentials are refused: {circuit.refused}")
            if circuit is None or circuit.state is State.CLOSED or circuit.since is None:
                continue
            now = self._monotonic()
            since = time.strftime("%H:%M:%SZ", time.gmtime(time.time() - (now - circuit.since)))
            rest = circuit.retry_at - now
            then = f"probed again in {rest:.0f} s" if rest > 0 else "being probed"
            found.append(f"{endpoint} circuit open since {since}, {then}: {circuit.reason}")
        return found

    def _tell(self, venue: str, endpoint: Endpoint, state: State, reason: str) -> None:
        if state is State.OPEN:
            self._opened(venue, endpoint)
            circuit = self._circuits[(venue, endpoint)]
            seconds = round(circuit.retry_at - self._monotonic(), 3)
            log.error("circuit open", venue=venue, endpoint=endpoint.value, seconds=seconds, error=reason)
        else:
            log.warning("circuit closed", venue=venue, endpoint=endpoint.value, reason=reason)


def is_failure(error: BaseException) -> bool:
    """Whether an error says that the venue, or the way to it, does not work: never that it refused or limited a request."""
    return isinstance(error, Unavailable | Unknown)


def is_answer(error: BaseException) -> bool:
    """Whether an error is the venue's own clear word. What it asks to try again (rate limits, clocks) says nothing either way."""
    return isinstance(error, AdapterError) and not isinstance(error, Retryable | Unknown)
