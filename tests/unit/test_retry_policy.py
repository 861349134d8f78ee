"""The table of retries, cell by cell, and what the loop makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters import base
from adapters.base import (
    AdapterError,
    ClockSkew,
    CredentialsRefused,
    InsufficientFunds,
    OrderUnknown,
    RateLimited,
    Rejected,
    Retryable,
    Unavailable,
    Unknown,
)
from execution.retry_policy import TABLE, UNANSWERED, Repeater, Request, Rule, Then, Tries, as_markdown, rule

MAX_RETRIES = 3
MOST = 40
"""So many tries count as for ever."""


def classes(of: type[AdapterError] = AdapterError) -> Iterator[type[AdapterError]]:
    """Every error an adapter can raise."""
    yield of
    for one in of.__subclasses__():
        if one.__module__ == base.__name__:
            yield from classes(one)


def made(kind: type[AdapterError], *, until: int = 0) -> AdapterError:
    return RateLimited("x", until=until) if kind is RateLimited else kind("x")


class Enough(Exception):
    pass


class Loop:
    """A repeater whose time passes only as it pauses."""

    def __init__(self, request: Request, *, may_wait: bool = False, max_retries: int = MAX_RETRIES) -> None:
        self.time = 1000.0
        self.pauses: list[float] = []
        self.escalated: list[float] = []
        self.tries = 0
        self.repeater = Repeater(
            request,
            max_retries=max_retries,
            now=lambda: int(self.time * 1000),
            monotonic=lambda: self.time,
            may_wait=lambda: may_wait,
            escalate=self.escalated.append,
            sleep=self._sleep,
        )

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.time += seconds

    async def meet(self, *outcomes: Any, most: int = MOST) -> Any:
        """Try against these outcomes, the last one for ever; False: an answer that is not final."""

        async def attempt() -> Any:
            self.tries += 1
            if self.tries > most:
                raise Enough
            outcome = outcomes[min(self.tries, len(outcomes)) - 1]
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        return await self.repeater.run(attempt, final=lambda answer: answer is not False)


def test_the_table_has_every_cell() -> None:
    kinds = {"Rejected", "PostOnlyRejected", "DuplicateClientOrderId", "Unknown", "Retryable", "RateLimited"}
    kinds |= {"Unavailable", "ClockSkew", "OrderUnknown"}
    for request in Request:
        assert {kind.__name__ for kind in TABLE[request]} == kinds
    with pytest.raises(TypeError):
        TABLE[Request.CREATE][Unknown] = Rule(Tries.FOR_EVER)  # type: ignore[index]


@pytest.mark.parametrize("may_wait", [False, True])
@pytest.mark.parametrize("kind", list(classes()), ids=lambda kind: kind.__name__)
async def test_a_create_is_repeated_only_when_it_certainly_did_not_happen(
    kind: type[AdapterError], may_wait: bool
) -> None:
    loop = Loop(Request.CREATE, may_wait=may_wait)
    with pytest.raises((kind, Enough)):
        await loop.meet(made(kind))
    certain = issubclass(kind, Retryable)
    assert (loop.tries > 1) is certain, "never a blind create"
    if not certain:
        assert rule(Request.CREATE, made(kind)).then in (Then.REFUSE, Then.RESOLVE)
    assert issubclass(kind, Rejected) is (rule(Request.CREATE, made(kind)).then is Then.REFUSE)


def test_what_the_table_does_not_know_is_asked_for() -> None:
    class Novel(AdapterError):
        pass

    assert rule(Request.CREATE, Novel("x")).then is Then.RESOLVE
    assert rule(Request.CREATE, InsufficientFunds("x")).then is Then.REFUSE
    assert rule(Request.CREATE, CredentialsRefused("x")).then is Then.REFUSE


@pytest.mark.parametrize("kind", [Retryable, ClockSkew, Unavailable])
@pytest.mark.parametrize("most", [1, 2, 5])
async def test_max_retries_is_how_often_a_create_is_tried(kind: type[AdapterError], most: int) -> None:
    loop = Loop(Request.CREATE, max_retries=most)
    with pytest.raises(kind):
        await loop.meet(made(kind))
    assert (loop.tries, loop.repeater.tries) == (most, most)
    assert loop.pauses == sorted(loop.pauses)


async def test_a_rate_limit_is_no_try_and_is_waited_for() -> None:
    loop = Loop(Request.CREATE)
    limited = [RateLimited("x", until=1_000_000 + 700 * n) for n in (1, 2, 3, 4, 5)]
    assert await loop.meet(*limited, Retryable("busy"), "done") == "done"
    assert (loop.tries, loop.repeater.tries) == (7, 1)
    assert loop.time == pytest.approx(1003.7, abs=0.4)


async def test_a_venue_that_is_away_is_waited_for_only_by_who_may() -> None:
    patient, other = Loop(Request.CREATE, may_wait=True), Loop(Request.CREATE)
    with pytest.raises(Enough):
        await patient.meet(Unavailable("down"))
    assert patient.pauses[-1] == pytest.approx(2.0, abs=0.06)
    with pytest.raises(Unavailable):
        await other.meet(Unavailable("down"))
    assert other.tries == MAX_RETRIES


@pytest.mark.parametrize("kind", [*classes(), None], ids=lambda kind: kind.__name__ if kind else "not final")
@pytest.mark.parametrize("request_", [Request.CANCEL, Request.READ, Request.TRADES])
async def test_cancels_and_reads_are_repeated_for_ever(request_: Request, kind: type[AdapterError] | None) -> None:
    loop, cell = Loop(request_), UNANSWERED[request_]
    with pytest.raises(Enough):
        await loop.meet(made(kind) if kind else False, most=200)
    if kind is not RateLimited:
        assert cell.deadline is not None
        assert len(loop.escalated) == 1
        assert cell.deadline <= loop.escalated[0] <= cell.deadline + cell.longest + cell.jitter
        assert loop.pauses[-1] == cell.late
        assert max(loop.pauses[: loop.pauses.index(cell.late)]) <= cell.longest + cell.jitter
    else:
        assert max(loop.pauses) <= 0.1


async def test_what_is_not_an_error_of_the_venue_is_not_repeated() -> None:
    for request in Request:
        loop = Loop(request)
        with pytest.raises(KeyError):
            await loop.meet(KeyError("a bug"))
        assert loop.tries == 1


@given(
    outcomes=st.lists(st.sampled_from([Unknown, Retryable, RateLimited, Unavailable, OrderUnknown, False]), max_size=30)
)
@settings(max_examples=100, deadline=None)
async def test_pauses_stay_within_the_table(outcomes: list[Any]) -> None:
    loop = Loop(Request.READ)
    given_ = [made(one) if one else False for one in outcomes]
    assert await loop.meet(*given_, "told") == "told"
    assert loop.tries == len(outcomes) + 1
    cell = UNANSWERED[Request.READ]
    assert all(cell.first <= pause <= cell.longest + cell.jitter for pause in loop.pauses)


def test_the_table_as_documentation() -> None:
    lines = as_markdown().splitlines()
    assert lines[2].startswith("| create | `Rejected`, `PostOnlyRejected` | once |")
    assert any("| cancel |" in line and "escalate, every 5 s" in line for line in lines)
    assert len({line.count("|") for line in lines}) == 1


def test_the_documentation_shows_this_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()
    assert as_markdown() in page, "python -c 'from execution.retry_policy import as_markdown; print(as_markdown())'"
