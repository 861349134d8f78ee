"""When a pulse trips, and when it must not: stalls of ours, restarts, a store that forgets. Times are made up."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from execution.ledger.pulses import StoredPulse, Trip, parse, pulse_name
from execution.pulses import FORGOTTEN_SECONDS, Pulses

NAME = pulse_name("ma", None)
TRIP = Trip(at=1, by="a", silent_ms=31_000, timeout_ms=30_000)


def stored(beats: int = 1, **fields: object) -> dict[str, StoredPulse]:
    return {NAME: StoredPulse(beats=beats, timeout_ms=30_000, **fields)}  # type: ignore[arg-type]


def tripping(pulses: Pulses, now: float, *, depends: bool = True) -> list[str]:
    return [pulse.name for pulse in pulses.overdue(now) if pulses.trips(pulse, depends, now)]


def test_names() -> None:
    assert pulse_name("ma", "desk") == "strategy:ma", "a strategy's beat is the strategy's"
    assert pulse_name(None, "desk") == "source:desk"


def test_nothing_trips_before_a_first_beat() -> None:
    pulses = Pulses()
    assert pulses.heard({}, 0) == ([], [])
    assert tripping(pulses, 1e9) == []
    assert pulses.armed == 0


def test_a_silent_pulse_trips_after_its_timeout_and_not_before() -> None:
    pulses = Pulses()
    pulses.heard(stored(1), 100)
    pulses.heard(stored(1), 130)
    assert tripping(pulses, 130) == []
    assert tripping(pulses, 130.1) == [NAME]


def test_each_beat_starts_the_clock_and_brings_its_timeout() -> None:
    pulses = Pulses()
    for beat in range(100):
        pulses.heard(stored(beat + 1), beat * 29.0)
        assert tripping(pulses, beat * 29.0 + 29) == []
    pulses.heard({NAME: StoredPulse(beats=101, timeout_ms=1_000)}, 3_000)
    assert tripping(pulses, 3_001.1) == [NAME]


def test_a_stall_of_ours_starts_every_clock_again() -> None:
    pulses = Pulses()
    pulses.heard(stored(1), 0)
    pulses.restart(1_000)
    assert tripping(pulses, 1_029) == []
    assert tripping(pulses, 1_031) == [NAME], "once only: nobody beats"


def test_a_replica_that_just_started_knows_no_age() -> None:
    pulses = Pulses()
    pulses.heard({NAME: StoredPulse(beats=7, timeout_ms=30_000, last_ms=1)}, 5_000)
    assert tripping(pulses, 5_029) == []
    assert tripping(pulses, 5_031) == [NAME]


def test_nothing_depends_on_it_so_it_does_not_trip_and_an_order_that_comes_later_has_one_timeout() -> None:
    pulses = Pulses()
    pulses.heard(stored(1), 0)
    assert tripping(pulses, 100, depends=False) == []
    assert tripping(pulses, 500, depends=False) == []
    assert tripping(pulses, 501) == []
    assert tripping(pulses, 530) == []
    assert tripping(pulses, 532) == [NAME]


def test_a_trip_halts_its_strategy_and_no_other_and_a_source_halts_all() -> None:
    pulses = Pulses()
    changed, _ = pulses.heard(stored(1, trip=TRIP, generation=1, told=1), 0)
    assert [pulse.name for pulse in changed] == [NAME]
    why = pulses.halted("ma")
    assert why is not None
    assert "strategy ma was silent for 31 s (timeout 30 s)" in why
    assert pulses.halted("other") is None
    assert pulses.halted(None) is None
    desk = {**stored(1), "source:desk": StoredPulse(beats=1, timeout_ms=1_000, trip=TRIP, generation=1)}
    pulses.heard({**desk, NAME: StoredPulse(beats=1, timeout_ms=1_000, generation=2)}, 1)
    assert pulses.halted("other") is not None
    assert pulses.halted(None) is not None


def test_a_trip_stands_while_beats_come_and_ends_by_resume_with_a_clock_that_starts_again() -> None:
    pulses = Pulses()
    pulses.heard(stored(1, trip=TRIP, generation=1), 0)
    changed, _ = pulses.heard(stored(2, trip=TRIP, generation=1), 100)
    assert changed == []
    assert pulses.halted("ma") is not None
    changed, _ = pulses.heard(stored(2, generation=2), 200)
    assert [pulse.name for pulse in changed] == [NAME]
    assert pulses.halted("ma") is None
    assert tripping(pulses, 229) == []
    assert tripping(pulses, 231) == [NAME]


def test_a_store_that_forgot_a_trip_is_told_again_and_the_trip_stands() -> None:
    for forgotten in ({}, stored(1), stored(1, generation=0)):
        pulses = Pulses()
        pulses.heard(stored(9, trip=TRIP, generation=1), 0)
        _, lost = pulses.heard(forgotten, 1)
        assert [(pulse.name, pulse.generation, pulse.trip) for pulse in lost] == [(NAME, 1, TRIP)]
        assert pulses.halted("ma") is not None


def test_a_store_that_forgot_a_pulse_disarms_it_until_its_next_beat() -> None:
    pulses = Pulses()
    pulses.heard(stored(9), 0)
    pulses.heard({}, 1)
    assert tripping(pulses, 1e6) == []
    pulses.heard(stored(1), 2e6)
    assert tripping(pulses, 2e6 + 31) == [NAME]


def test_what_was_long_silent_is_forgotten() -> None:
    pulses = Pulses()
    pulses.heard(stored(1), 0)
    assert pulses.forgotten(FORGOTTEN_SECONDS - 1) == []
    assert [pulse.name for pulse in pulses.forgotten(FORGOTTEN_SECONDS + 1)] == [NAME]
    pulses.heard({NAME: StoredPulse(generation=2)}, 1)
    assert pulses.armed == 0


@settings(deadline=None, max_examples=200)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["beat", "silence", "stall"]), st.floats(min_value=0.1, max_value=40)), max_size=40
    )
)
def test_it_trips_exactly_when_it_was_watched_in_silence_for_longer_than_the_timeout(
    steps: list[tuple[str, float]],
) -> None:
    pulses, now, beats, watched = Pulses(), 0.0, 1, 0.0
    pulses.heard(stored(beats), now)
    for kind, seconds in steps:
        now += seconds
        watched += seconds
        if kind == "beat":
            beats, watched = beats + 1, 0.0
        pulses.heard(stored(beats), now)
        if kind == "stall":
            pulses.restart(now)
            watched = 0.0
        if abs(watched - 30) > 1e-6:
            assert bool(pulses.overdue(now)) is (watched > 30)


def test_reading_the_store_s_hash() -> None:
    flat = [b"b:strategy:a:b", b"3", b"t:strategy:a:b", b"2000", b"?:x", b"7", b"l:strategy:a:b", b"17"]
    flat += [b"x:source:desk", b'{"at":1,"by":"a","silent_ms":31000,"timeout_ms":30000}', b"g:source:desk", b"1"]
    found = parse(flat)
    assert found["strategy:a:b"] == StoredPulse(beats=3, timeout_ms=2000, last_ms=17)
    assert found["source:desk"] == StoredPulse(trip=TRIP, generation=1)
