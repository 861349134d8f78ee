"""The formulas of execution against the numbers that their papers print, and against what must hold for any input."""

from __future__ import annotations

import math
import random
from decimal import Decimal
from itertools import accumulate, pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from algorithms.models import almgren_chriss as ac
from algorithms.models import impact, volume_curve
from algorithms.models.volume_curve import DAY, HOUR, MONDAY, WEEK
from schemas.market import Candle

prop = settings(deadline=None, max_examples=150)

# --- Almgren and Chriss (2000): 1,000,000 shares at $50 in five days -------------------------------------------------

IMPACT = {"temporary_impact": 2.5e-6, "permanent_impact": 2.5e-7}
MARKET = {**IMPACT, "volatility": 0.95}
X, T, N = 1e6, 5.0, 5


@pytest.mark.parametrize(
    ("risk_aversion", "kappa", "half_life", "cost", "deviation", "thousands"),
    [
        (0, 0, math.inf, 662_500, 1_040_673, (800, 600, 400, 200)),
        (1e-6, 0.6071, 1.647, 911_227, 603_431, (541.956, 289.854, 147.897, 62.142)),
        (2e-6, 0.8463, 1.182, 1_140_715, 449_368, (428.599, 182.933, 76.296, 27.643)),
        (-2e-7, 0.2766, 3.616, 717_958, 1_258_654, (910.056, 750.949, 534.769, 277.946)),
        (math.inf, math.inf, 0, 2_562_500, 0, (0, 0, 0, 0)),
    ],
)
def test_the_trajectories_of_almgren_and_chriss(risk_aversion, kappa, half_life, cost, deviation, thousands):
    bend = ac.kappa(T, N, risk_aversion=risk_aversion, **MARKET)
    assert round(bend, 4) == kappa if math.isfinite(kappa) else bend == kappa
    assert round(ac.half_life(bend), 3) == half_life if math.isfinite(half_life) else ac.half_life(bend) == half_life
    path = ac.holdings(X, T, N, risk_aversion=risk_aversion, **MARKET)
    assert path[0] == X
    assert path[-1] == 0
    assert tuple(round(x / 1000, 3) for x in path[1:-1]) == thousands
    [point] = ac.frontier(X, T, N, [risk_aversion], fixed_cost=0.0625, **MARKET)
    assert (point.risk_aversion, round(point.expected_cost), round(point.deviation)) == (risk_aversion, cost, deviation)


def test_selling_at_once_costs_the_most_and_risks_nothing():
    path = [X, 0, 0, 0, 0, 0]
    assert ac.expected_cost(path, T, fixed_cost=0.0625, **IMPACT) == pytest.approx(2_562_500, abs=1e-6)
    assert ac.variance(path, T, volatility=0.95) == 0


@pytest.mark.parametrize("risk_aversion", [1e-9, 1e-7, 1e-6, 2e-6, 1e-5])
def test_the_sums_over_the_trajectory_agree_with_the_closed_forms_of_the_paper(risk_aversion):
    tau, eta = T / N, 2.5e-6 - 2.5e-7 / 2
    k = ac.kappa(T, N, risk_aversion=risk_aversion, **MARKET)
    assert k == pytest.approx(math.acosh(risk_aversion * 0.95**2 / eta * tau**2 / 2 + 1) / tau, rel=1e-5)
    cost = 2.5e-7 * X**2 / 2 + 0.0625 * X
    cost += (
        eta * X**2 * math.tanh(k * tau / 2) * (tau * math.sinh(2 * k * T) + 2 * T * math.sinh(k * tau))
        / (2 * tau**2 * math.sinh(k * T) ** 2)
    )  # fmt: skip
    variance = 0.95**2 * X**2 / 2 * (
        (tau * math.sinh(k * T) * math.cosh(k * (T - tau)) - T * math.sinh(k * tau))
        / (math.sinh(k * T) ** 2 * math.sinh(k * tau))
    )  # fmt: skip
    [point] = ac.frontier(X, T, N, [risk_aversion], fixed_cost=0.0625, **MARKET)
    assert point.expected_cost == pytest.approx(cost, rel=1e-9)
    assert point.deviation**2 == pytest.approx(variance, rel=1e-9)


def test_an_independent_programs_log_is_reproduced():
    [(_, cost, deviation)] = ac.frontier(X, T, N, [1e-9], fixed_cost=0.0625, **MARKET)
    assert f"{cost / 1e6:.4f}" == "0.6625"
    assert f"{deviation**2 / 1e12:.4f}" == "1.0812"
    assert f"{(cost + 1e-9 * deviation**2) / 1e6:.4f}" == "0.6636"
    assert f"{ac.half_life(ac.kappa(T, N, risk_aversion=1e-9, **MARKET)):.2f}" == "51.30"


def test_the_least_value_at_risk():
    least = ac.least_value_at_risk(X, T, N, fixed_cost=0.0625, **MARKET)
    assert round(least.cost) == 1_877_207
    assert least.risk_aversion == pytest.approx(1.6944e-6, rel=1e-4)
    # The minimum is flat: a search on a grid that stops at 1.698e-6 finds the same dollar.
    [(_, cost, deviation)] = ac.frontier(X, T, N, [1.698e-6], fixed_cost=0.0625, **MARKET)
    assert round(cost + 1.645 * deviation) == 1_877_207


def test_value_at_risk_with_no_confidence_asked_is_the_cheapest_and_with_much_everything_goes_at_once():
    assert ac.least_value_at_risk(X, T, N, fixed_cost=0.0625, quantile=0, **MARKET).cost == pytest.approx(662_500)
    at_once = ac.least_value_at_risk(X, T, N, fixed_cost=0.0625, quantile=1e4, **MARKET)
    assert at_once.risk_aversion == math.inf
    assert at_once.cost == pytest.approx(2_562_500)
    with pytest.raises(ValueError, match="quantile"):
        ac.least_value_at_risk(X, T, N, quantile=-1, **MARKET)


@prop
@given(st.floats(0.01, 6), st.floats(-3, 3))
def test_no_trajectory_has_less_value_at_risk_than_the_least(quantile, exponent):
    least = ac.least_value_at_risk(X, T, N, quantile=quantile, **MARKET)
    [(_, cost, deviation)] = ac.frontier(X, T, N, [1e-6 * 10**exponent], **MARKET)
    assert least.cost <= (cost + quantile * deviation) * (1 + 1e-12)


def test_the_position_that_a_drift_is_worth():
    assert round(ac.drift_offset(0.02, volatility=0.95, risk_aversion=1e-6)) == 11_080
    with pytest.raises(ValueError, match="above 0"):
        ac.drift_offset(0.02, volatility=0.95, risk_aversion=0)


@prop
@given(
    quantity=st.floats(0, 1e15),
    horizon=st.floats(1e-6, 1e6),
    steps=st.integers(1, 300),
    volatility=st.floats(0, 1e6),
    risk_aversion=st.one_of(st.just(0.0), st.floats(1e-300, 1e300)),
    eta=st.floats(1e-15, 1e6),
    permanent=st.floats(0, 0.99),
)
def test_a_trajectory_falls_from_everything_to_nothing(
    quantity, horizon, steps, volatility, risk_aversion, eta, permanent
):
    path = ac.holdings(
        quantity,
        horizon,
        steps,
        volatility=volatility,
        risk_aversion=risk_aversion,
        temporary_impact=eta,
        permanent_impact=permanent * 2 * eta * steps / horizon,
    )
    assert len(path) == steps + 1
    assert (path[0], path[-1]) == (quantity, 0)
    assert all(0 <= after <= before for before, after in pairwise(path))


@prop
@given(st.integers(1, 300), st.one_of(st.floats(-math.pi / 2, 50), st.floats(1e-320, 1e-300), st.floats(50, 1e308)))
def test_weights_rise_to_exactly_one_and_urgency_brings_them_forward(steps, urgency):
    done = ac.weights(steps, urgency)
    assert len(done) == steps
    assert done[-1] == 1
    assert all(0 <= before <= after for before, after in pairwise(done))
    line = [(k + 1) / steps for k in range(steps)]
    ahead = [
        1e-12 + share - even if urgency >= 0 else 1e-12 + even - share for share, even in zip(done, line, strict=True)
    ]
    assert min(ahead) >= 0


def test_weights_are_the_done_part_of_the_trajectory():
    path = ac.holdings(X, T, N, risk_aversion=1e-6, **MARKET)
    urgency = T * ac.kappa(T, N, risk_aversion=1e-6, **MARKET)
    assert ac.weights(N, urgency) == pytest.approx([1 - x / X for x in path[1:]], abs=1e-15)
    assert ac.weights(2, 3.0)[0] > 0.75
    assert ac.weights(3, 10.0)[0] > 0.95


@prop
@given(st.floats(-7, 0), st.floats(0.001, 5), st.integers(2, 50))
def test_more_risk_aversion_costs_more_and_risks_less(exponent, more, steps):
    calm, hasty = ac.frontier(X, T, steps, [10 ** (exponent - 3), 10 ** (exponent - 3 + more)], **MARKET)
    assert calm.expected_cost <= hasty.expected_cost * (1 + 1e-12)
    assert calm.deviation >= hasty.deviation * (1 - 1e-12)


@prop
@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.floats(-8, -4))
def test_no_other_trajectory_has_a_better_utility(others, exponent):
    risk_aversion = 10**exponent

    def utility(path):
        risk = ac.variance(path, T, volatility=0.95)
        return ac.expected_cost(path, T, fixed_cost=0.0625, **IMPACT) + risk_aversion * risk

    best = ac.holdings(X, T, N, risk_aversion=risk_aversion, **MARKET)
    assert utility(best) <= utility([X, *(X * share for share in sorted(others, reverse=True)), 0]) * (1 + 1e-12)


@pytest.mark.parametrize(
    "changed",
    [
        {"steps": 0},
        {"horizon": 0},
        {"horizon": math.nan},
        {"quantity": -1},
        {"quantity": math.inf},
        {"volatility": -1},
        {"risk_aversion": math.nan},
        {"temporary_impact": math.inf},
        {"temporary_impact": 1e-7},
        {"risk_aversion": -1e-6},
        {"risk_aversion": -1e-2},
    ],
)
def test_a_trajectory_that_does_not_exist_is_refused(changed):
    with pytest.raises(ValueError):
        ac.holdings(**{"quantity": X, "horizon": T, "steps": N, "risk_aversion": 1e-6, **MARKET, **changed})


def test_one_step_and_a_price_that_stands_still_need_no_curve():
    assert ac.holdings(X, T, 1, volatility=0.95, risk_aversion=1e-6, temporary_impact=1e-9, permanent_impact=1) == [
        X,
        0,
    ]
    still = {**MARKET, "volatility": 0}
    for risk_aversion in (1e-6, math.inf):
        assert ac.holdings(X, T, 2, risk_aversion=risk_aversion, **still) == [X, X / 2, 0]


def test_weights_refuse_what_is_no_urgency():
    for steps, urgency in ((0, 1.0), (5, math.nan), (5, -1.6)):
        with pytest.raises(ValueError):
            ac.weights(steps, urgency)


# --- Almgren, Thum, Hauptmann and Li (2005): 10 % of a day's volume ---------------------------------------------------


@pytest.mark.parametrize(
    ("volatility", "outstanding", "permanent", "costs"),
    [(157, 263, 19.9, (32.2, 24.6, 18.4)), (226, 87, 21.7, (42.9, 32.0, 23.1))],
    ids=["IBM", "DRI"],
)
def test_the_examples_of_almgren_et_al(volatility, outstanding, permanent, costs):
    for duration, cost in zip((0.1, 0.2, 0.5), costs, strict=True):
        found = impact.estimate(volatility, 0.1 / duration, duration, outstanding=outstanding)
        assert round(found.permanent, 1) == permanent
        assert round(found.cost, 1) == cost


@prop
@given(size=st.floats(1e-6, 5), duration=st.floats(0.01, 5), sigma=st.floats(1e-4, 1), price=st.floats(1e-6, 1e6))
def test_the_linear_coefficients_cost_as_much_as_the_law_at_an_even_pace(size, duration, sigma, price):
    volume, steps = 1000.0, 2000
    law = impact.estimate(sigma, size / duration, duration)
    line = impact.linear(size * volume, duration, price=price, sigma_daily=sigma, daily_volume=volume)
    path = [size * volume * (steps - k) / steps for k in range(steps + 1)]
    cost = ac.expected_cost(path, duration, **line._asdict()) / (size * volume * price)
    # In steps, the paper's trader does not pay the permanent impact of the step itself: less by one part in the steps.
    assert cost == pytest.approx(law.cost - law.permanent / 2 / steps, rel=1e-9)


@prop
@given(st.floats(0, 10), st.floats(0, 10), st.floats(0.001, 30), st.floats(0.1, 1e4))
def test_impact_grows_with_participation_and_scales_with_volatility(low, high, duration, outstanding):
    low, high = sorted((low, high))
    less, more, wild = (
        impact.estimate(sigma, rate, duration, outstanding=outstanding)
        for sigma, rate in ((100, low), (100, high), (200, high))
    )
    assert 0 <= less.cost <= more.cost
    assert wild.cost == pytest.approx(2 * more.cost)


def test_impact_refuses_what_is_no_market():
    for arguments in ((-1, 0.1, 1), (100, math.nan, 1), (100, 0.1, 0)):
        with pytest.raises(ValueError):
            impact.estimate(*arguments)
    with pytest.raises(ValueError):
        impact.estimate(100, 0.1, 1, outstanding=0)
    with pytest.raises(ValueError):
        impact.linear(10, 1, price=100, sigma_daily=0.02, daily_volume=0)


# --- Obizhaeva and Wang (2005): a block, an even flow, a block ---------------------------------------------------------

BLOCK, DEPTH_LOSS = 100_000.0, 1e-4


@pytest.mark.parametrize(
    ("resilience", "ends", "saving"),
    [(1, 33_333, 9.39), (2, 25_000, 11.92), (5, 14_286, 10.86), (10, 8_333, 7.41), (50, 1_923, 1.88)],
)
def test_obizhaeva_and_wang_trade_a_block_at_both_ends(resilience, ends, saving):
    assert round(BLOCK / (resilience + 2)) == ends
    best = DEPTH_LOSS * BLOCK**2 / (resilience + 2)
    even = DEPTH_LOSS * BLOCK**2 * (resilience - 1 + math.exp(-resilience)) / resilience**2
    assert round(100 * (1 - best / even), 2) == saving


def test_the_discrete_trades_of_obizhaeva_and_wang_come_near_the_limit():
    trades, resilience = 300, 2
    decay = math.exp(-resilience / trades)
    shape = [1.0, *[1 - decay] * (trades - 1), 1.0]
    best = [BLOCK * share / math.fsum(shape) for share in shape]
    # Each trade meets the impact that is left of all others; at the optimum the marginal cost is the same everywhere.
    before, after = [0.0], [0.0]
    for trade in best[:-1]:
        before.append(decay * (before[-1] + trade))
    for trade in reversed(best[1:]):
        after.append(decay * (after[-1] + trade))
    marginal = [DEPTH_LOSS * (a + x + b) for a, x, b in zip(before, best, reversed(after), strict=True)]
    assert marginal == pytest.approx([marginal[0]] * len(best))
    assert int(best[0]) == 25_083
    cost = DEPTH_LOSS * math.fsum(x * (past + x / 2) for x, past in zip(best, before, strict=True))
    assert round(cost, -1) == 250_000


# --- Cartea, Jaimungal and Penalva (2015): running penalty and a penalty at the end ------------------------------------


def test_the_inventory_of_cartea_jaimungal_and_penalva():
    k = b = phi = 1e-3
    alpha = 0.01
    pace, root = math.sqrt(phi / k), math.sqrt(k * phi)
    zeta = (alpha - b / 2 + root) / (alpha - b / 2 - root)

    def inventory(t):
        return (zeta * math.exp(pace * (1 - t)) - math.exp(-pace * (1 - t))) / (zeta * math.exp(pace) - math.exp(-pace))

    assert [round(inventory(t), 4) for t in (0.25, 0.5, 0.75, 1)] == [0.7166, 0.4783, 0.2700, 0.0787]
    # A penalty at the end without bound leaves nothing: the trajectory of Almgren and Chriss in continuous time.
    zeta = 1
    done = ac.weights(4, pace)
    assert [1 - inventory(t) for t in (0.25, 0.5, 0.75, 1)] == pytest.approx(done)


# --- The error of a schedule against VWAP ------------------------------------------------------------------------------


def u_shape(buckets, a):
    """Cumulative shares of the volume 1 + a(12(t - ½)² - 1)."""
    return [u + 0.5 + a * (4 * u**3 - u) for u in ((k + 1) / buckets - 0.5 for k in range(buckets))]


def even(buckets):
    return [(k + 1) / buckets for k in range(buckets)]


def test_the_tracking_error_of_an_even_schedule_in_a_u_shaped_market():
    theory = 0.5 * 100 * math.sqrt(2 / 105)
    assert round(theory, 2) == 6.90
    found = volume_curve.tracking_error(even(10_000), u_shape(10_000, 0.5), 100)
    assert found == pytest.approx(theory, rel=1e-6)


def test_random_walks_stray_as_far_as_the_theory_says():
    buckets, walks, sigma = 60, 8000, 100.0
    schedule, market = even(buckets), u_shape(buckets, 0.5)
    excess = [w - v for w, v in zip(steps_of(schedule), steps_of(market), strict=True)]
    chance = random.Random(20150915)
    squares = 0.0
    for _ in range(walks):
        price = slippage = 0.0
        for share in excess:
            price += chance.gauss(0, sigma / math.sqrt(buckets))
            slippage += share * price
        squares += slippage**2
    assert math.sqrt(squares / walks) == pytest.approx(0.5 * sigma * math.sqrt(2 / 105), rel=0.03)


def steps_of(cumulative):
    return [after - before for before, after in pairwise([0.0, *cumulative])]


def test_a_schedule_that_is_the_market_has_no_error_and_lengths_must_agree():
    assert volume_curve.tracking_error(u_shape(50, 0.8), u_shape(50, 0.8), 100) == 0
    for weights, volumes in (([], []), ([1.0], [0.5, 1.0])):
        with pytest.raises(ValueError):
            volume_curve.tracking_error(weights, volumes, 100)


# --- Volume curves -----------------------------------------------------------------------------------------------------

START = MONDAY + 2800 * WEEK
PRICE = Decimal(100)


def candle(start, volume):
    return Candle(start=start, open=PRICE, high=PRICE, low=PRICE, close=PRICE, volume=Decimal(volume))


def hourly(days, volume):
    """Candles of one hour from Monday on; `volume` of (day, hour)."""
    return [candle(START + day * DAY + hour * HOUR, volume(day, hour)) for day in range(days) for hour in range(24)]


def test_a_day_that_trades_in_the_afternoon_only():
    candles = hourly(3, lambda _, hour: 10 if hour >= 12 else 0)
    curve = volume_curve.from_candles(candles)
    assert (curve.source, curve.days, curve.period) == ("history", 3, DAY)
    monday = START + 10 * WEEK
    assert curve.over(monday, monday + DAY, 4) == pytest.approx([0, 0, 0.5, 1])
    assert curve.over(monday + 9 * HOUR, monday + 15 * HOUR, 6) == pytest.approx([0, 0, 0, 1 / 3, 2 / 3, 1])
    assert curve.over(monday + 18 * HOUR, monday + 42 * HOUR, 4) == pytest.approx([0.5, 0.5, 0.5, 1]), "over midnight"
    assert curve.over(monday, monday + 2 * DAY, 4) == pytest.approx([0, 0.5, 0.5, 1]), "more than a period"
    assert curve.over(monday + HOUR, monday + 2 * HOUR, 4) == [0.25, 0.5, 0.75, 1], "even where nothing is expected"
    assert curve.over(monday + 13 * HOUR, monday + 13 * HOUR + 40, 4) == pytest.approx([0.25, 0.5, 0.75, 1])


def test_from_two_weeks_on_the_weekend_has_its_own_curve():
    def volume(day, hour):
        return (1 if day % 7 >= 5 else 10) * (3 if hour == 12 else 1)

    week = volume_curve.from_candles(hourly(14, volume))
    assert (week.source, week.days, week.period) == ("history", 14, WEEK)
    saturday = START + 3 * WEEK + 5 * DAY
    assert week.over(saturday - DAY, saturday + DAY, 2) == pytest.approx([10 / 11, 1])
    assert week.over(saturday, saturday + DAY, 2) == pytest.approx([12 / 26, 1])
    day = volume_curve.from_candles(hourly(13, volume))
    assert day.period == DAY
    assert day.over(saturday - DAY, saturday + DAY, 2) == pytest.approx([0.5, 1])


def test_a_day_five_days_older_counts_half():
    candles = [
        *hourly(1, lambda _, hour: 1 if hour < 12 else 0),
        *hourly(6, lambda _, hour: 1 if hour >= 12 else 0)[-24:],
    ]
    curve = volume_curve.from_candles(candles)
    assert curve.days == 2
    assert curve.over(START, START + DAY, 2) == pytest.approx([1 / 3, 1])


def test_a_week_older_counts_by_its_days():
    candles = hourly(14, lambda day, hour: (hour < 12) if day < 7 else (hour >= 12))
    curve = volume_curve.from_candles(candles)
    older = 0.5 ** (7 / 5)
    assert curve.begin == MONDAY
    assert curve.over(START, START + DAY, 2) == pytest.approx([older / (1 + older), 1])


def test_one_wild_day_does_not_become_the_shape():
    calm = hourly(4, lambda _, hour: 2 if hour < 12 else 1)
    wild = hourly(5, lambda _, hour: 1000 if hour < 12 else 2000)[-24:]
    morning = volume_curve.from_candles([*calm, *wild]).over(START, START + DAY, 2)[0]
    older = [0.5 ** (age / 5) for age in (1, 2, 3, 4)]
    assert morning == pytest.approx((2 / 3 * sum(older) + 1 / 3) / (sum(older) + 1))


def test_missing_candles_are_unknown_and_gaps_are_filled_between_their_neighbours():
    full = hourly(3, lambda day, hour: (day + 1) * (1 + hour))
    hole = [c for c in full if c.start // HOUR % 24 not in (5, 23, 0)]
    curve = volume_curve.from_candles(hole)
    assert curve.source == "history"
    shares = steps_of(curve.cumulative)
    assert shares[5] == pytest.approx((shares[4] + shares[6]) / 2)
    assert shares[23] == pytest.approx(shares[22] * 2 / 3 + shares[1] / 3)
    assert shares[0] == pytest.approx(shares[22] / 3 + shares[1] * 2 / 3)
    once = [c for c in full if c.start != START + 5 * HOUR]
    assert volume_curve.from_candles(once).cumulative == pytest.approx(
        volume_curve.from_candles(full).cumulative, rel=0.01
    )


def test_short_candles_are_gathered_and_long_ones_make_long_buckets():
    minutes = [candle(START + k * HOUR // 4, 1 + k % 96 // 4) for k in range(4 * 48)]
    hours = hourly(2, lambda _, hour: 1 + hour)
    assert volume_curve.from_candles(minutes).cumulative == pytest.approx(volume_curve.from_candles(hours).cumulative)
    holes = [c for k, c in enumerate(minutes) if k % 9]
    assert volume_curve.from_candles(holes).cumulative == pytest.approx(volume_curve.from_candles(hours).cumulative)
    long = [candle(START + k * 6 * HOUR, 1 + k % 4) for k in range(8)]
    assert volume_curve.from_candles(long).cumulative == pytest.approx((0.1, 0.3, 0.6, 1))


def test_a_volume_that_is_no_quantity_is_as_good_as_missing():
    full = hourly(3, lambda _, hour: 1 + hour)
    for volume in ("NaN", "Infinity", "-5", "1e300"):
        odd = [*full, candle(START + 3 * DAY, volume)]
        assert volume_curve.from_candles(odd) == volume_curve.from_candles(full)


def test_history_that_says_too_little_is_flat_and_says_so():
    day = hourly(1, lambda _, hour: hour)
    monthly = [candle(START + k * 30 * DAY, 1) for k in range(3)]
    for candles, days in (
        ([], 0),
        (day[:1], 1),
        (day[:-1], 1),
        (hourly(3, lambda _, hour: 0), 3),
        ([c for c in hourly(3, lambda _, hour: 1 + hour) if c.start // HOUR % 24 < 11], 3),
        (monthly, 3),
    ):
        curve = volume_curve.from_candles(candles)
        assert (curve.source, curve.days) == ("flat", days)
        assert curve.over(START, START + 5 * HOUR, 4) == pytest.approx([0.25, 0.5, 0.75, 1])
    assert volume_curve.from_candles(day).source == "history"


def test_a_curve_does_not_look_past_the_orders_start():
    past = hourly(2, lambda _, hour: 1 if hour < 12 else 3)
    start = START + 2 * DAY
    running = candle(start, 10**9)
    known = volume_curve.curve_over(past, start, start + DAY, 2)
    assert known == pytest.approx([0.25, 1])
    assert volume_curve.curve_over([*past, running], start, start + DAY, 2) == known
    assert volume_curve.curve_over([*past, running], start + HOUR - 1, start + HOUR - 1 + DAY, 24) == pytest.approx(
        volume_curve.curve_over(past, start + HOUR - 1, start + HOUR - 1 + DAY, 24)
    )
    assert volume_curve.curve_over([*past, running], start + HOUR, start + DAY, 2)[0] != known[0]


def test_a_given_profile_is_stretched_over_the_orders_life():
    assert volume_curve.from_profile([Decimal(1), 3], 4) == pytest.approx([0.125, 0.25, 0.625, 1])
    assert volume_curve.from_profile([1, 2, 3, 4], 2) == pytest.approx([0.3, 1])
    assert volume_curve.from_profile([1e308, 1e308, 1e308], 3) == pytest.approx([1 / 3, 2 / 3, 1])
    curve = volume_curve.given([1, 3], START + 7, START + 1007)
    assert (curve.source, curve.days) == ("given", 0)
    assert curve.over(START + 7, START + 1007, 2) == pytest.approx([0.25, 1])
    assert curve.over(START + 507, START + 1007, 2) == pytest.approx([0.5, 1])
    for profile in ([], [0, 0], [1, -1], [math.nan, 1], [1, math.inf], [Decimal("NaN")]):
        with pytest.raises(ValueError):
            volume_curve.from_profile(profile, 4)
    for start, end, buckets in ((0, 0, 1), (5, 4, 1), (0, 1, 0)):
        with pytest.raises(ValueError):
            volume_curve.given([1], 0, 1).over(start, end, buckets)
    with pytest.raises(ValueError):
        volume_curve.given([1], 5, 5)
    for bucket, half_life in ((7, 5), (0, 5), (HOUR, 0), (HOUR, math.nan)):
        with pytest.raises(ValueError):
            volume_curve.from_candles([], bucket=bucket, half_life=half_life)


def shares_that_rise_to_one(shares, buckets):
    assert len(shares) == buckets
    assert shares[-1] == 1
    assert all(0 <= before <= after <= 1 for before, after in pairwise([0.0, *shares]))


volumes = st.decimals("0", "1e20", allow_nan=False, places=8)


@prop
@given(
    cells=st.dictionaries(st.integers(0, 24 * 30), volumes, max_size=60),
    repeated=st.integers(1, 4),
    start=st.integers(START, START + 40 * DAY),
    life=st.one_of(st.integers(1, 1000), st.integers(1, 20 * DAY)),
    buckets=st.integers(1, 50),
)
def test_any_history_makes_a_curve_that_rises_to_one(cells, repeated, start, life, buckets):
    candles = [candle(START + (k + day * 24) * HOUR, v) for day in range(repeated) for k, v in cells.items()]
    shares_that_rise_to_one(volume_curve.curve_over(candles, start, start + life, buckets), buckets)
    curve = volume_curve.from_candles(candles)
    shares_that_rise_to_one(list(curve.cumulative), len(curve.cumulative))
    assert volume_curve.from_candles(list(reversed(candles))).days == curve.days


@prop
@given(st.lists(st.floats(0, 1e308), min_size=1, max_size=40), st.integers(1, 60))
def test_any_profile_rises_to_one(profile, buckets):
    assume(max(profile) > 0)
    shares_that_rise_to_one(volume_curve.from_profile(profile, buckets), buckets)


@prop
@given(st.lists(st.integers(1, 1000), min_size=24, max_size=24), st.integers(0, 23), st.integers(1, 3))
def test_a_curve_is_what_repeated_days_show(hours, first, days):
    candles = hourly(2, lambda _, hour: hours[hour])
    start = START + 9 * DAY + first * HOUR
    coming = list(accumulate(hours[(first + k) % 24] for k in range(24 * days)))
    shares = volume_curve.from_candles(candles).over(start, start + days * DAY, 24 * days)
    assert shares == pytest.approx([done / coming[-1] for done in coming])


def test_a_dynamic_target_follows_the_volume():
    assert volume_curve.dynamic_target(Decimal(100), Decimal(30), Decimal(90)) == 25
    assert volume_curve.dynamic_target(Decimal(100), Decimal(0), Decimal(90)) == 0
    assert volume_curve.dynamic_target(Decimal(100), Decimal(30), Decimal(0)) == 100
    assert volume_curve.dynamic_target(Decimal(100), Decimal(0), Decimal(0)) == 0, "nothing known is no reason to trade"
    with pytest.raises(ValueError):
        volume_curve.dynamic_target(Decimal(100), Decimal(-1), Decimal(2))


@prop
@given(st.decimals("0", "1e9", places=6), volumes, volumes, volumes)
def test_a_dynamic_target_is_within_the_order_and_rises_with_volume(quantity, seen, more, remaining):
    before = volume_curve.dynamic_target(quantity, seen, remaining)
    after = volume_curve.dynamic_target(quantity, seen + more, remaining)
    assert 0 <= before <= after <= quantity
