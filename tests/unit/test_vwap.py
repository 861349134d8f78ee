"""VWAP told as stories: where its curve comes from, and how it follows the volume. Slices themselves are told with TWAP."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.vwap import BUCKET_SECONDS
from schemas.market import Candle
from schemas.order import OrderStatus
from schemas.terms import TimeInForce
from tests.unit.story import RULES, Story

HOUR = 3_600_000
DAY = 24 * HOUR
MONDAY = 4 * DAY
MIDNIGHT = MONDAY + 700 * DAY
STEP = BUCKET_SECONDS * 1000
FINE = msgspec.structs.replace(RULES, min_notional=Decimal(1))


def vwap(now: int = MIDNIGHT, quantity: str = "100", price: str | None = None, **params: Any) -> Story:
    history = params.pop("history", ())
    given = {"duration_seconds": 200, "slices": 20, "style": "aggressive", **params}
    return Story(quantity, price, algorithm="vwap", params=given, history=history, now=now, rules=FINE)


def history(until: int, days: float, *, morning: int = 3, evening: int = 1) -> list[Candle]:
    """Half-hour candles; `morning` is traded in each until noon (UTC), `evening` in each after it."""
    found = []
    for start in range(until - int(days * DAY), until, STEP):
        volume = morning if start % DAY < DAY // 2 else evening
        price = Decimal(100)
        found.append(Candle(start=start, open=price, high=price, low=price, close=price, volume=Decimal(volume)))
    return found


def tape(story: Story, volume: str | int, *, session: str = "s1") -> None:
    """The tape of the home market as it is counted now."""
    known = story.markets["alpha"]
    story.markets["alpha"] = msgspec.structs.replace(known, volume=Decimal(volume), session=session)


def trade(story: Story) -> None:
    for child in list(story.live):
        if child.time_in_force is TimeInForce.IOC:
            story.venue("filled", str(child.quantity), story.trade(str(child.quantity), str(child.price)), child=child)


def run(story: Story, volumes: Sequence[Decimal | int], *, step: int) -> list[Decimal]:
    """Each step others trade the volume named and the market fills everything; returns what was filled after each step."""
    start, total, filled = story.now, Decimal(0), []
    for index, volume in enumerate([0, *volumes]):
        story.now = start + index * step
        total += volume
        tape(story, str(total + story.state.totals.filled))
        story.market("99.9", "100.1", step=False)
        story.step()
        trade(story)
        filled.append(story.state.totals.filled)
        if story.state.parent.status.terminal:
            break
    return filled


# --- the curve -------------------------------------------------------------------------------------------------------


def test_slices_follow_the_profile_given() -> None:
    story = vwap(slices=4, duration_seconds=40, profile=[1, 2, 3, 4], quantity="10")
    assert run(story, [0, 0, 0], step=10_000) == [1, 3, 6, 10]
    assert story.state.parent.status is OrderStatus.FILLED
    assert story.algorithm.notes(story.state.parent) == ("the volume curve is the profile given",)


def test_a_profile_is_stretched_over_the_slices() -> None:
    story = vwap(slices=8, duration_seconds=80, profile=[1, 3])
    assert story.plan.shares == tuple(Decimal(share) / 16 for share in (1, 2, 3, 4, 7, 10, 13, 16))


def test_slices_in_which_nothing_is_expected_send_nothing() -> None:
    story = vwap(slices=4, duration_seconds=40, profile=[1, 0, 0, 1], quantity="10")
    assert run(story, [0, 0, 0], step=10_000) == [5, 5, 5, 10]


@given(st.lists(st.integers(0, 1_000_000), min_size=1, max_size=50).filter(any), st.integers(1, 60))
@settings(deadline=None, max_examples=100)
def test_any_profile_makes_a_schedule_that_never_falls_and_ends_with_all(profile: list[int], slices: int) -> None:
    shares = vwap(slices=slices, profile=profile).plan.shares
    assert len(shares) == slices
    assert all(0 <= before <= after for before, after in pairwise(shares))
    assert shares[-1] == 1


@pytest.mark.parametrize("profile", [[], [0, 0], [1, -1]])
def test_an_impossible_profile_is_refused_by_name(profile: list[int]) -> None:
    with pytest.raises(ValueError, match="profile"):
        vwap(profile=profile)


def test_slices_follow_the_market_s_day() -> None:
    start = MIDNIGHT + 6 * HOUR
    story = vwap(start, duration_seconds=12 * 3600, slices=12, history=history(start, 5))
    shares = story.plan.shares
    assert shares[5] == Decimal("0.75")
    assert shares[0] == pytest.approx(Decimal("0.125"))
    assert shares[6] - shares[5] == pytest.approx(Decimal(1) / 24)
    assert "5 days" in story.plan.source or "6 days" in story.plan.source


def test_a_window_may_cross_midnight() -> None:
    start = MIDNIGHT + 20 * HOUR
    story = vwap(start, duration_seconds=8 * 3600, slices=8, history=history(start, 5))
    assert story.plan.shares[3] == Decimal("0.25")
    sizes = [after - before for before, after in pairwise((Decimal(0), *story.plan.shares))]
    assert sizes == pytest.approx([Decimal(1) / 16] * 4 + [Decimal(3) / 16] * 4)


def test_two_weeks_tell_weekdays_apart() -> None:
    candles = [
        msgspec.structs.replace(candle, volume=candle.volume * (10 if (candle.start - MONDAY) % (7 * DAY) < DAY else 1))
        for candle in history(MIDNIGHT, 14, morning=1)
    ]
    story = vwap(MIDNIGHT - 12 * HOUR, duration_seconds=86_400, slices=2, history=candles)
    assert story.plan.shares[0] == pytest.approx(Decimal(1) / 11)


def test_what_comes_after_the_start_is_not_looked_at() -> None:
    past = history(MIDNIGHT, 5)
    future = [
        msgspec.structs.replace(candle, start=candle.start + 5 * DAY, volume=candle.volume * 1000) for candle in past
    ]
    assert (
        vwap(history=past + future, duration_seconds=DAY // 1000).plan.shares
        == vwap(history=past, duration_seconds=DAY // 1000).plan.shares
    )


@pytest.mark.parametrize("days", [0, 0.5, 0.9])
def test_too_little_history_is_flat_and_the_note_says_so(days: float) -> None:
    story = vwap(history=history(MIDNIGHT, days))
    assert story.plan.shares == tuple(Decimal(index) / 20 for index in range(1, 21))
    (note,) = story.algorithm.notes(story.state.parent)
    assert note.startswith("the volume curve is flat")
    assert story.plan.expected_volume is None


def test_a_history_without_volume_is_flat() -> None:
    story = vwap(history=history(MIDNIGHT, 5, morning=0, evening=0))
    assert "flat" in story.plan.source


# --- following the volume --------------------------------------------------------------------------------------------

BUSY = 2 * 3600
"""Two hours in the morning: the history expects 3 each half hour, 12 in all."""


def followed(volumes: Sequence[Decimal | int], **params: Any) -> list[Decimal]:
    """What is filled after each tenth of the time."""
    story = vwap(duration_seconds=BUSY, slices=10, history=history(MIDNIGHT, 5), quantity="1", price="101", **params)
    return run(story, volumes, step=BUSY * 1000 // 10)


def test_the_expected_volume_is_the_latest_days_times_the_curve_s_share() -> None:
    story = vwap(duration_seconds=BUSY, slices=10, history=history(MIDNIGHT, 5))
    assert story.plan.expected_volume == pytest.approx(Decimal(12))
    assert vwap(duration_seconds=BUSY, history=history(MIDNIGHT, 5), follow_volume=False).plan.expected_volume is None
    assert vwap(duration_seconds=BUSY, profile=[1, 2]).plan.expected_volume is None


def test_as_much_volume_as_expected_leaves_the_schedule_as_planned() -> None:
    """0.1 a slice of its own and 1.1 by others: the 1.2 expected."""
    story = vwap(duration_seconds=BUSY, slices=10, history=history(MIDNIGHT, 5), quantity="1", price="101")
    start = story.now
    for index in range(10):
        story.now = start + index * BUSY * 100
        tape(story, str(Decimal("1.2") * index))
        story.market("99.9", "100.1", step=False)
        story.step()
        trade(story)
        assert story.state.totals.filled == pytest.approx(Decimal(index + 1) / 10, abs=Decimal("0.002"))


def test_more_volume_than_expected_runs_ahead_and_less_falls_behind() -> None:
    usual = followed([1] * 9)
    ahead, behind = followed([3] * 9), followed([Decimal("0.5")] * 9)
    assert all(a >= u for a, u in zip(ahead, usual, strict=False))
    assert ahead[3] > usual[3]
    assert all(b <= u + Decimal("0.001") for b, u in zip(behind, usual, strict=True))
    assert behind[5] < usual[5]


def test_nothing_is_concluded_before_a_twentieth_of_the_volume_is_seen() -> None:
    """0.5 of 12 is less: it may be too early, or the tape may not be told at all."""
    assert followed([0] * 5)[:5] == [Decimal(index) / 10 for index in range(1, 6)]


def test_the_volume_moves_the_schedule_by_a_bounded_part() -> None:
    wild = followed([1_000] * 9)
    for index, filled in enumerate(wild[1:], 1):
        planned = Decimal(index) / 10
        # 0.15 ahead at the beginning of the slice, and the slice itself in proportion of the rest.
        assert filled <= planned + Decimal("0.15") + Decimal("0.1") + Decimal("0.001")


def test_without_follow_volume_or_without_history_the_tape_changes_nothing() -> None:
    even = [Decimal(index) / 10 for index in range(1, 11)]
    assert followed([50] * 9, follow_volume=False) == even
    story = vwap(duration_seconds=BUSY, slices=10, quantity="1", price="101")
    assert run(story, [50] * 9, step=BUSY * 100) == even


def test_all_is_done_however_little_is_traded() -> None:
    story = vwap(duration_seconds=BUSY, slices=10, history=history(MIDNIGHT, 5), quantity="1", price="101")
    run(story, [0] * 90, step=BUSY * 10)
    story.now = MIDNIGHT + BUSY * 1000 - 2_000
    story.market("99.9", "100.1")
    trade(story)
    assert story.state.parent.status is OrderStatus.FILLED


def test_a_gap_in_the_feed_adds_nothing() -> None:
    """The tape of a new session begins anew: what was traded in between is not known, and is not made up."""
    story = vwap(duration_seconds=BUSY, slices=10, history=history(MIDNIGHT, 5), quantity="1", price="101")
    start = story.now
    for index, (volume, session) in enumerate([(0, "s1"), (2, "s1"), (5_000, "s2"), (5_001, "s2"), (7, "s3")]):
        story.now = start + index * BUSY * 100
        tape(story, volume, session=session)
        story.market("99.9", "100.1")
    assert story.memory.tape.others == 3
    assert story.memory.tape.session == "s3"


# --- participation ---------------------------------------------------------------------------------------------------


def test_participation_holds_the_schedule_back_and_says_why() -> None:
    story = vwap(profile=[1], slices=10, max_participation=0.1, quantity="10")
    assert story.market("99.9", "100.1").place == ()
    assert "10.0 % of the volume" in str(story.decision.waiting)
    story.now += 1_000
    tape(story, 9)
    (place,) = story.market("99.9", "100.1").place
    assert place.quantity == 1, "1 of 10 that everybody, the order among them, has then traded"
    trade(story)
    story.now += 1_000
    tape(story, 10)
    assert story.market("99.9", "100.1").place == (), "its own trade is no volume of others"


def test_participation_holds_at_the_end_too() -> None:
    story = vwap(profile=[1], slices=10, max_participation=0.5, quantity="10")
    start, volume = story.now, Decimal(0)
    for second in range(200):
        story.now = start + second * 1_000
        volume += Decimal("0.02")
        tape(story, str(volume + story.state.totals.filled))
        story.market("99.9", "100.1", step=False)
        story.step()
        trade(story)
        assert story.state.totals.filled <= volume
    story.at(start + 200_000)
    assert story.state.parent.status is OrderStatus.EXPIRED
    assert "left" in str(story.last.reason)
    assert story.state.totals.filled > 3
