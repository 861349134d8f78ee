"""Implementation shortfall told as stories: how much comes first, and what that is computed from."""

from __future__ import annotations

import math
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.base import Refusal
from algorithms.implementation_shortfall import CANDLE_SECONDS, LEAST_CANDLES, URGENCIES
from algorithms.models import almgren_chriss
from schemas.market import Candle
from schemas.order import OrderStatus
from schemas.terms import OrderType, Side, TimeInForce
from tests.unit.story import Story

START = 10 * 86_400_000
NAME = "implementation_shortfall"


def shortfall(quantity: str = "100", price: str | None = None, **params: Any) -> Story:
    fields = {name: params.pop(name) for name in ("side", "history", "order_type", "stop_price") if name in params}
    given = {"duration_seconds": 200, "slices": 20, "style": "aggressive", **params}
    return Story(quantity, price, algorithm=NAME, params=given, now=START, **fields)


def kappa_t(story: Story) -> float:
    """The urgency that the plan's own words tell."""
    return float(story.plan.source.rsplit("=", 1)[1])


def candles(count: int, *, move: float = 0.001, volume: str = "10") -> list[Candle]:
    """A price that goes up and down by turns, each candle by `move`, and ends as the order begins."""
    found = []
    for index in range(count):
        close = Decimal(str(round(100 * math.exp(move * (index % 2)), 8)))
        found.append(
            Candle(
                start=START - (count - index) * CANDLE_SECONDS * 1000,
                open=close,
                high=close,
                low=close,
                close=close,
                volume=Decimal(volume),
            )
        )
    return found


def sent_by(story: Story, elapsed: int) -> Decimal:
    """What has been sent and filled after some ms in a market that gives everything."""
    for now in range(START, START + elapsed + 1, 1_000):
        story.now = now
        story.market("99.9", "100.1", step=False)
        story.step()
        for child in list(story.live):
            if child.time_in_force is TimeInForce.IOC:
                story.venue(
                    "filled", str(child.quantity), story.trade(str(child.quantity), str(child.price)), child=child
                )
    return story.state.totals.filled


@pytest.mark.parametrize(("urgency", "percent"), [("low", 24), ("medium", 40), ("high", 63)])
def test_after_a_fifth_of_the_time(urgency: str, percent: int) -> None:
    """1 - sinh(0.8 kT) / sinh(kT), for kT of 1, 2.5 and 5."""
    story = shortfall(urgency=urgency)
    assert round(story.plan.shares[3] * 100) == percent
    # The fifth slice begins with the fifth of the time, and sends what should be done at its end.
    done = sent_by(story, 39_000)
    assert abs(done - story.plan.shares[3] * 100) <= Decimal("0.001")


def test_the_order_is_done_in_time_and_each_slice_is_not_above_the_one_before() -> None:
    story = shortfall(urgency="high")
    assert sent_by(story, 200_000) == 100
    sizes = [child.quantity for child in story.state.children]
    assert all(after <= before + Decimal("0.001") for before, after in pairwise(sizes))
    assert story.state.parent.status is OrderStatus.FILLED


def test_an_urgency_of_0_is_a_twap() -> None:
    params = {"duration_seconds": 200, "slices": 20}
    twap = Story("100", None, algorithm="twap", params=params, now=START)
    assert shortfall(urgency=0).plan.shares == twap.plan.shares


def test_a_risk_aversion_of_0_is_a_twap() -> None:
    story = shortfall(risk_aversion=0.0, volatility=0.03, daily_volume="100000", price="100")
    assert story.plan.shares == shortfall(urgency=0).plan.shares
    assert kappa_t(story) == 0


@given(st.floats(0, 50), st.floats(0, 50), st.integers(1, 50))
@settings(deadline=None, max_examples=100)
def test_more_urgency_is_never_later(one: float, other: float, slices: int) -> None:
    hasty, patient = (shortfall(urgency=u, slices=slices).plan.shares for u in (max(one, other), min(one, other)))
    assert all(h >= p for h, p in zip(hasty, patient, strict=True))
    assert list(hasty) == sorted(hasty)
    assert hasty[-1] == 1


def test_a_risk_aversion_with_the_impact_given() -> None:
    """By hand: 200 s in 20 slices, sigma 3 % of 100, lambda 0.5, eta 0.001, gamma 0."""
    story = shortfall(
        price="100", risk_aversion=0.5, volatility=0.03, temporary_impact=0.001, permanent_impact=0.0, daily_volume="1"
    )
    days = 200 / 86_400
    tau = days / 20
    squared = 0.5 * 3.0**2 / 0.001
    expected = math.acosh(squared * tau**2 / 2 + 1) / tau * days
    assert kappa_t(story) == pytest.approx(expected, rel=1e-2)
    assert "impact given" in story.plan.source
    assert story.plan.shares[:-1] == tuple(
        Decimal(share).quantize(Decimal("1e-9")) for share in almgren_chriss.weights(20, expected)[:-1]
    )


def test_more_risk_aversion_or_volatility_is_faster_more_impact_slower() -> None:
    base = {"price": "100", "risk_aversion": 0.05, "volatility": 0.03, "temporary_impact": 0.01, "permanent_impact": 0}
    usual = kappa_t(shortfall(**base))
    assert kappa_t(shortfall(**{**base, "risk_aversion": 0.5})) > usual
    assert kappa_t(shortfall(**{**base, "volatility": 0.06})) > usual
    assert kappa_t(shortfall(**{**base, "temporary_impact": 0.1})) < usual


def test_the_impact_is_estimated_from_the_history() -> None:
    story = shortfall(risk_aversion=1e-3, history=candles(96), duration_seconds=3600)
    # The logs of the closes go up and down by 0.001: 96 candles make a day.
    assert f"volatility {0.001 * math.sqrt(96):.4f} a day, impact estimated" in story.plan.source
    assert kappa_t(story) > 0
    told = story.algorithm.notes(story.state.parent)
    assert told == (f"the trajectory follows {story.plan.source}",)


def test_a_thinner_market_is_traded_slower() -> None:
    liquid = shortfall(risk_aversion=1e-3, history=candles(96, volume="1000"), duration_seconds=3600)
    thin = shortfall(risk_aversion=1e-3, history=candles(96, volume="10"), duration_seconds=3600)
    assert kappa_t(thin) < kappa_t(liquid)


def test_what_is_given_goes_before_the_history() -> None:
    given = shortfall(risk_aversion=1e-3, history=candles(96), volatility=0.5, daily_volume="77")
    assert "volatility 0.5000" in given.plan.source
    same = shortfall(risk_aversion=1e-3, history=candles(96, volume="5"), volatility=0.5, daily_volume="77")
    assert same.plan == given.plan


@pytest.mark.parametrize(
    ("params", "history", "field"),
    [
        ({}, 0, "algorithm_params.volatility"),
        ({"daily_volume": "100"}, LEAST_CANDLES - 1, "algorithm_params.volatility"),
        ({"volatility": 0.03}, 0, "algorithm_params.daily_volume"),
        ({"volatility": 0.03, "temporary_impact": 0.1}, 0, "algorithm_params.daily_volume"),
        (
            {"volatility": 0.03, "temporary_impact": 0.001, "permanent_impact": 1e6},
            0,
            "algorithm_params",
        ),
    ],
)
def test_what_is_missing_is_refused_by_name(params: dict[str, Any], history: int, field: str) -> None:
    with pytest.raises(Refusal) as refused:
        shortfall(price="100", risk_aversion=0.1, history=candles(history), **params)
    assert refused.value.field == field


def test_without_any_price_risk_cannot_be_measured() -> None:
    with pytest.raises(Refusal, match="no price") as refused:
        shortfall(risk_aversion=0.1, volatility=0.03, daily_volume="100")
    assert refused.value.field == "algorithm_params.risk_aversion"


def test_a_history_that_never_moved_tells_no_volatility() -> None:
    with pytest.raises(Refusal, match="volatility"):
        shortfall(price="100", risk_aversion=0.1, history=candles(96, move=0))


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"urgency": "frantic"}, "urgency"),
        ({"urgency": 51}, "0 to 50"),
        ({"urgency": -1}, "0 to 50"),
        ({"risk_aversion": -0.1}, "greater than or equal to 0"),
        ({"volatility": 0}, "greater than 0"),
    ],
)
def test_impossible_parameters_are_refused_by_name(params: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        shortfall(**params)


def test_a_stop_begins_fast_when_it_fires() -> None:
    story = shortfall(side=Side.SELL, order_type=OrderType.STOP, stop_price=Decimal(95), urgency="high")
    story.market("99.9", "100.1", last="100")
    story.now += 60_000
    (place,) = story.market("94.9", "95.1", last="95").place
    assert place.quantity == (story.plan.shares[0] * 100).quantize(Decimal("0.001"), "ROUND_FLOOR")
    assert URGENCIES["high"] == kappa_t(story)
