"""The circuits of a venue, on virtual time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.base import (
    AdapterError,
    AdapterHealth,
    ClockSkew,
    CredentialsRefused,
    OrderUnknown,
    PostOnlyRejected,
    RateLimited,
    Rejected,
    Retryable,
    Unavailable,
    Unknown,
)
from execution.circuit import DEFAULT, LIMITS, Circuit, Circuits, Endpoint, Limits, State
from execution.component_health import venue_health
from execution.simulate.virtual_time import run

AWAY = Unavailable("no connection")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def meet(circuit: Circuit, *errors: AdapterError | None) -> None:
    """Requests that end so, one after another, whether or not they would be admitted."""
    for error in errors:
        try:
            with circuit.passage():
                if error is not None:
                    raise error
        except AdapterError:
            pass


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def circuit(clock: Clock) -> Circuit:
    return Circuit(monotonic=clock)


def opened(circuit: Circuit) -> Circuit:
    meet(circuit, *[AWAY] * DEFAULT.failures)
    assert circuit.state is State.OPEN
    return circuit


@pytest.mark.parametrize("failure", [AWAY, Unknown("no answer")])
def test_failures_in_a_row_open_it(circuit: Circuit, failure: AdapterError) -> None:
    meet(circuit, *[failure] * (DEFAULT.failures - 1))
    assert (circuit.state, circuit.admits) == (State.CLOSED, True)
    meet(circuit, failure)
    assert (circuit.state, circuit.admits, circuit.reason) == (State.OPEN, False, str(failure))


@pytest.mark.parametrize(
    "answer", [None, Rejected("no"), PostOnlyRejected("no"), OrderUnknown("none")], ids=lambda one: type(one).__name__
)
def test_an_answer_breaks_the_row(circuit: Circuit, answer: AdapterError | None) -> None:
    for _ in range(2):
        meet(circuit, *[AWAY] * (DEFAULT.failures - 1), answer)
    assert circuit.state is State.CLOSED


@pytest.mark.parametrize("error", [Rejected("no"), RateLimited("x", until=0), ClockSkew("off"), Retryable("busy")])
def test_what_the_venue_says_never_opens_it(circuit: Circuit, error: AdapterError) -> None:
    meet(circuit, *[error] * 100)
    assert circuit.state is State.CLOSED


def test_too_many_failures_within_the_window_open_it(circuit: Circuit, clock: Clock) -> None:
    for _ in range(DEFAULT.least // 2 - 1):
        meet(circuit, AWAY, None)
        clock.now += 1
    assert circuit.state is State.CLOSED
    meet(circuit, AWAY, AWAY)
    assert circuit.state is State.OPEN


def test_as_many_over_a_longer_time_do_not(circuit: Circuit, clock: Clock) -> None:
    for _ in range(100):
        meet(circuit, AWAY, None)
        clock.now += DEFAULT.window / 3
    assert circuit.state is State.CLOSED


def test_one_probe_at_a_time(circuit: Circuit, clock: Clock) -> None:
    opened(circuit)
    clock.now += DEFAULT.first
    assert (circuit.state, circuit.admits) == (State.HALF_OPEN, True)
    with circuit.passage():
        assert not circuit.admits
    assert circuit.admits
    meet(circuit, None)
    assert circuit.state is State.CLOSED


def test_probes_that_fail_keep_it_open_for_longer_each_time(circuit: Circuit, clock: Clock) -> None:
    opened(circuit)
    since, pauses = circuit.since, []
    for _ in range(7):
        pauses.append(circuit.retry_at - clock.now)
        clock.now = circuit.retry_at
        meet(circuit, AWAY)
        assert (circuit.state, circuit.since) == (State.OPEN, since)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    clock.now = circuit.retry_at
    meet(circuit, None, None)
    opened(circuit)
    assert circuit.retry_at - clock.now == DEFAULT.first, "once it was closed, it begins anew"


def test_a_success_and_a_failure_do_not_close_it(circuit: Circuit, clock: Clock) -> None:
    opened(circuit)
    clock.now = circuit.retry_at
    meet(circuit, None, AWAY)
    assert circuit.state is State.OPEN
    clock.now = circuit.retry_at
    meet(circuit, None)
    assert circuit.state is State.HALF_OPEN


@pytest.mark.parametrize("error", [RateLimited("x", until=0), Retryable("busy")])
def test_a_probe_that_says_nothing_changes_nothing(circuit: Circuit, clock: Clock, error: AdapterError) -> None:
    opened(circuit)
    clock.now = circuit.retry_at
    meet(circuit, error, error, error)
    assert (circuit.state, circuit.admits) == (State.HALF_OPEN, True)


def test_answers_to_what_left_before_it_opened_say_nothing_new(circuit: Circuit, clock: Clock) -> None:
    early = [circuit.passage() for _ in range(4)]
    for passage in early:
        passage.__enter__()
    opened(circuit)
    retry_at = circuit.retry_at
    for passage in early[:3]:
        passage.__exit__(None, None, None)
    assert circuit.state is State.OPEN
    clock.now = retry_at
    assert not early[3].__exit__(Unavailable, AWAY, None)
    assert (circuit.state, circuit.retry_at) == (State.HALF_OPEN, retry_at)


def test_what_passes_an_open_circuit_probes_it(circuit: Circuit, clock: Clock) -> None:
    opened(circuit)
    retry_at = circuit.retry_at
    meet(circuit, AWAY, AWAY)
    assert circuit.retry_at == retry_at, "its failure keeps nobody waiting longer"
    meet(circuit, None)
    assert circuit.state is State.HALF_OPEN
    meet(circuit, None)
    assert circuit.state is State.CLOSED


def test_a_circuit_that_nobody_asks_closes_on_probation(circuit: Circuit, clock: Clock) -> None:
    opened(circuit)
    clock.now = circuit.retry_at + DEFAULT.quiet
    assert circuit.state is State.CLOSED
    meet(circuit, AWAY)
    assert circuit.state is State.OPEN


def test_nor_one_that_is_asked_once(circuit: Circuit, clock: Clock) -> None:
    opened(circuit)
    clock.now = circuit.retry_at + 3
    meet(circuit, None)
    clock.now += DEFAULT.settled - 1
    assert circuit.state is State.HALF_OPEN
    clock.now += 1
    assert circuit.state is State.CLOSED
    meet(circuit, AWAY)
    assert circuit.state is State.OPEN


def test_nor_one_of_a_venue_that_answers_other_things(clock: Clock) -> None:
    heard: list[float] = [clock.now]
    circuit = opened(Circuit(monotonic=clock, answered=lambda: heard[-1]))
    clock.now = circuit.retry_at + DEFAULT.settled
    assert circuit.state is State.HALF_OPEN, "what it answered before says nothing"
    heard.append(clock.now)
    assert circuit.state is State.CLOSED
    meet(circuit, AWAY)
    assert circuit.retry_at - clock.now == DEFAULT.first * DEFAULT.growth, "it did not close for having succeeded"


@given(
    steps=st.lists(st.tuples(st.sampled_from(["ok", "away", "unknown", "no", "limited"]), st.floats(0, 5)), max_size=60)
)
@settings(max_examples=200, deadline=None)
def test_any_history(steps: list[tuple[str, float]]) -> None:
    clock = Clock()
    limits = Limits()
    circuit = Circuit(limits, monotonic=clock)
    outcomes = {
        "ok": None,
        "away": AWAY,
        "unknown": Unknown("x"),
        "no": Rejected("x"),
        "limited": RateLimited("x", until=0),
    }
    history: list[bool] = []
    for what, pause in steps:
        clock.now += pause
        before = circuit.state
        if circuit.admits:
            meet(circuit, outcomes[what])
            history.append(what in ("ok", "no"))
        after = circuit.state
        assert circuit.retry_at - clock.now <= limits.longest
        if before is State.CLOSED and after is State.OPEN:
            assert what in ("away", "unknown")
        if before is State.OPEN:
            assert after is State.OPEN, "nothing passed"
        if before is State.HALF_OPEN and after is State.CLOSED:
            assert what in ("ok", "no")
        if before is State.HALF_OPEN and what in ("away", "unknown"):
            assert after is State.OPEN


def test_who_waits_is_let_through_one_by_one_and_then_all_at_once() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        circuit = Circuit(monotonic=loop.time)
        began, up_at = loop.time(), 5.0
        opened(circuit)
        tried: list[tuple[float, bool]] = []

        async def request(name: str) -> None:
            while True:
                while not circuit.admits:
                    await circuit.wait(name)
                try:
                    with circuit.passage():
                        await asyncio.sleep(0.5)
                        tried.append((round(loop.time() - began, 1), loop.time() - began >= up_at))
                        if not tried[-1][1]:
                            raise AWAY
                    return
                except Unavailable:
                    pass

        async with asyncio.timeout(100):
            await asyncio.gather(*(request(str(number)) for number in range(50)))
        # Probes after 1 s, then 2 s and 4 s after the failure before; two that succeed close it for everybody.
        assert tried[:4] == [(1.5, False), (4.0, False), (8.5, True), (9.0, True)]
        assert [at for at, _ in tried[4:]] == [9.5] * 48

    run(story())


def test_who_waits_can_be_woken_and_has_an_end() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        circuit = opened(Circuit(Limits(first=50.0), monotonic=loop.time))
        began = loop.time()
        await circuit.wait("one", 3.0)
        assert loop.time() - began == pytest.approx(3)
        loop.call_later(2, circuit.wake, "two")
        loop.call_later(1, circuit.wake, "somebody else")
        await circuit.wait("two")
        assert loop.time() - began == pytest.approx(5)
        assert circuit.state is State.OPEN
        await circuit.wait("three")
        assert loop.time() - began == pytest.approx(50)
        assert circuit.admits
        await circuit.wait("three")

    run(story())


def test_a_probe_that_is_given_up_lets_the_next_one_pass() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        circuit = opened(Circuit(monotonic=loop.time))
        await circuit.wait("probe")

        async def hang() -> None:
            with circuit.passage():
                await asyncio.Event().wait()

        probe = asyncio.create_task(hang())
        await asyncio.sleep(0)
        assert not circuit.admits
        loop.call_later(1, probe.cancel)
        await circuit.wait("next")
        assert circuit.admits

    run(story())


def test_venues_and_classes_of_requests_stand_apart(clock: Clock) -> None:
    told: list[tuple[str, Endpoint]] = []
    circuits = Circuits(monotonic=clock, opened=lambda venue, endpoint: told.append((venue, endpoint)))
    meet(circuits.of("alpha", Endpoint.READS), *[AWAY] * DEFAULT.failures)
    assert circuits.usable("alpha")
    meet(circuits.of("alpha", Endpoint.ORDERS), *[AWAY] * DEFAULT.failures)
    assert (circuits.usable("alpha"), circuits.usable("beta")) == (False, True)
    assert circuits.of("alpha", Endpoint.CANCELS).admits
    assert told == [("alpha", Endpoint.READS), ("alpha", Endpoint.ORDERS)]
    states = circuits.states()
    assert states[("alpha", Endpoint.ORDERS)] is State.OPEN
    assert all(limits.longest <= 5 for endpoint, limits in LIMITS.items() if endpoint is not Endpoint.ORDERS)


def test_operators_are_told(clock: Clock) -> None:
    circuits = Circuits(monotonic=clock)
    health = AdapterHealth(ready=True, stream_up=True)
    assert venue_health("alpha", health, 0, circuits.troubles("alpha")).status == "ok"
    meet(circuits.of("alpha", Endpoint.ORDERS), *[AWAY] * DEFAULT.failures)
    told = venue_health("alpha", health, 0, circuits.troubles("alpha"))
    assert (told.name, told.status) == ("venue alpha", "degraded")
    assert "orders circuit open since " in told.detail
    assert told.detail.endswith("probed again in 1 s: no connection")
    clock.now += 1
    assert "being probed" in circuits.troubles("alpha")[0]
    meet(circuits.of("alpha", Endpoint.ORDERS), None, None)
    assert circuits.troubles("alpha") == []


def test_refused_credentials_are_told_until_they_are_taken_again(clock: Clock) -> None:
    circuits = Circuits(monotonic=clock)
    circuit = circuits.of("alpha", Endpoint.ORDERS)
    with pytest.raises(CredentialsRefused), circuit.passage():
        raise CredentialsRefused("invalid key")
    assert circuits.troubles("alpha") == ["orders: our credentials are refused: invalid key"]
    assert circuit.admits
    with pytest.raises(Unavailable), circuit.passage():
        raise Unavailable("gone")
    assert circuits.troubles("alpha") != [], "nobody said that they are good"
    with circuit.passage():
        pass
    assert circuits.troubles("alpha") == []
