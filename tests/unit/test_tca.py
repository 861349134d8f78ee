"""What an order cost: the published example, the signs, and what is not known staying unknown."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from execution.tca import FEW, aggregate, measure
from execution.tca.aggregate import histogram, interval, quantile
from execution.tca.tracking import merge_fills, significant, thin
from schemas import exact_json
from schemas.order import ChildOrder, ChildState, Fill, OrderStatus, ParentOrder
from schemas.tca import CostReport, MarketWindow, QualityFlag
from schemas.terms import OrderType, Side

START = 1_700_000_000_000
MINUTE = 60_000
D = Decimal
COMMON = settings(deadline=None, max_examples=150)


def parent(
    side: Side = Side.BUY, quantity: str | Decimal = "1000", order_id: str = "ord_1", **more: Any
) -> ParentOrder:
    values: dict[str, Any] = {
        "order_id": order_id,
        "signal_id": "sig_1",
        "strategy_id": "ma_cross",
        "exchange": "alpha",
        "symbol": "BTC/USDT",
        "side": side,
        "quantity": D(quantity),
        "order_type": OrderType.LIMIT,
        "status": OrderStatus.FILLED,
        "created_at": START,
        "updated_at": START + 10 * MINUTE,
    }
    return ParentOrder(**(values | more))


def child(number: int = 1, state: ChildState = ChildState.FILLED, filled: str = "0", **more: Any) -> ChildOrder:
    values: dict[str, Any] = {
        "child_id": f"c{number}",
        "number": number,
        "venue": "alpha",
        "symbol": "BTC/USDT",
        "side": Side.BUY,
        "order_type": OrderType.LIMIT,
        "quantity": D(10),
        "state": state,
        "filled": D(filled),
        "sends": 1,
        "created_at": START + 5,
        "updated_at": START + 10,
    }
    return ChildOrder(**(values | more))


def fill(price: str | Decimal, quantity: str | Decimal, at: int = START, **more: Any) -> Fill:
    return Fill(trade_id=f"t{at}", child_id="c1", price=D(price), quantity=D(quantity), timestamp=at, **more)


def fee(amount: str | Decimal, asset: str | None = "USDT") -> dict[str, Any]:
    return {"fee": D(amount), "fee_asset": asset}


def published() -> tuple[ParentOrder, list[Fill], MarketWindow]:
    window = MarketWindow(decision=D("40.00"), arrival=D("40.04"), arrival_at=START, end=D("40.08"))
    return parent(), [fill("40.05", "700", **fee("17"))], window


def test_the_published_example_of_the_shortfall() -> None:
    order, fills, window = published()
    report = measure(order, [], fills, window)
    assert (report.delay_bps, report.execution_bps) == (D("7.00"), D("1.75"))
    assert (report.opportunity_bps, report.fees_bps) == (D("6.00"), D("4.25"))
    assert (report.total_bps, report.basis) == (D("19.00"), "decision")
    assert report.since_arrival_bps == D("8.9910")  # (700 x 0.01 + 300 x 0.04 + 17) / (1000 x 40.04)
    assert report.slippage_arrival_bps == D("2.4975")
    assert (report.average_price, report.fill_ratio) == (D("40.05"), D("0.7"))


prices = st.decimals(min_value="0.01", max_value="100000", places=6)
quantities = st.decimals(min_value="0.001", max_value="1000", places=6)
sides = st.sampled_from(Side)


@st.composite
def cases(draw: st.DrawFn) -> tuple[ParentOrder, list[Fill], MarketWindow]:
    """An order whose fills all have a mid at their time."""
    near = draw(st.decimals(min_value="1", max_value="1000", places=4))

    def close() -> Decimal:
        return near * (1 + draw(st.decimals(min_value="-0.2", max_value="0.2", places=6)))

    times = sorted(draw(st.lists(st.integers(0, 599), max_size=6)))
    fills = [
        fill(close(), draw(quantities), START + at * 1000, fee=draw(st.decimals(0, 5, places=4)), fee_asset="USDT")
        for at in times
    ]
    filled = sum((one.quantity for one in fills), D(0))
    quantity = filled + draw(st.sampled_from([D(0), D("0.5"), D(100)])) or D(1)
    window = MarketWindow(
        decision=close(),
        arrival=close(),
        arrival_at=START,
        end=close(),
        samples=tuple((START + second * 1000, close()) for second in sorted({*times, 0, 599})),
        volume=filled * 7 + 1,
        notional=(filled * 7 + 1) * near,
        mid_integral=near * 600_000,
        observed_ms=600_000,
    )
    return parent(draw(sides), quantity), fills, window


def near(left: Decimal | None, right: Decimal | None, within: str = "0.0003") -> bool:
    """Equal but for the rounding to 0.0001 bp of the few figures that were added."""
    assert left is not None
    assert right is not None
    return abs(left - right) <= D(within)


@COMMON
@given(cases())
def test_the_parts_add_up_to_the_whole(case: tuple[ParentOrder, list[Fill], MarketWindow]) -> None:
    report = measure(case[0], [], case[1], case[2])
    parts = (report.delay_bps, report.execution_bps, report.opportunity_bps, report.fees_bps)
    assert None not in parts
    assert near(sum((part for part in parts if part is not None), D(0)), report.total_bps)
    assert report.spread_bps is not None
    assert report.impact_bps is not None
    assert near(report.spread_bps + report.impact_bps, report.execution_bps)


@COMMON
@given(cases())
def test_from_arrival_the_parts_add_up_too(case: tuple[ParentOrder, list[Fill], MarketWindow]) -> None:
    window = msgspec.structs.replace(case[2], decision=None)
    report = measure(case[0], [], case[1], window)
    assert (report.basis, report.delay_bps, report.total_bps) == ("arrival", None, None)
    parts = (report.execution_bps, report.opportunity_bps, report.fees_bps)
    assert near(sum((part for part in parts if part is not None), D(0)), report.since_arrival_bps)
    assert report.since_arrival_bps == measure(case[0], [], case[1], case[2]).since_arrival_bps


COSTS = ("delay_bps", "execution_bps", "spread_bps", "impact_bps", "opportunity_bps", "total_bps", "since_arrival_bps")
SLIPPAGES = ("slippage_arrival_bps", "slippage_vwap_bps", "slippage_vwap_others_bps", "slippage_twap_bps")


@COMMON
@given(cases())
def test_the_other_side_pays_the_opposite(case: tuple[ParentOrder, list[Fill], MarketWindow]) -> None:
    order, fills, window = case
    free = [msgspec.structs.replace(one, fee=D(0)) for one in fills]
    other = msgspec.structs.replace(order, side=Side.SELL if order.side is Side.BUY else Side.BUY)
    one, two = measure(order, [], free, window), measure(other, [], free, window)
    for name in (*COSTS, *SLIPPAGES):
        left, right = getattr(one, name), getattr(two, name)
        assert (left is None and right is None) or left == -right, name
    assert {horizon: None if cost is None else -cost for horizon, cost in two.markouts.items()} == one.markouts


@COMMON
@given(cases())
def test_a_sell_in_the_mirrored_market_costs_what_the_buy_did(
    case: tuple[ParentOrder, list[Fill], MarketWindow],
) -> None:
    """Every price p becomes 2 D - p: the distance to D changes its sign, and so does the side."""
    order, fills, window = case
    assert window.decision is not None

    def mirror(price: Decimal | None) -> Decimal:
        assert window.decision is not None
        assert price is not None
        return 2 * window.decision - price

    mirrored = msgspec.structs.replace(
        window,
        arrival=mirror(window.arrival),
        end=mirror(window.end),
        samples=tuple((at, mirror(mid)) for at, mid in window.samples),
    )
    other = msgspec.structs.replace(order, side=Side.SELL if order.side is Side.BUY else Side.BUY)
    other_fills = [msgspec.structs.replace(one, price=mirror(one.price)) for one in fills]
    one, two = measure(order, [], fills, window), measure(other, [], other_fills, mirrored)
    for name in COSTS[:-1]:  # since_arrival is over A, which the mirror moves
        assert getattr(one, name) == getattr(two, name), name
    assert one.fees_bps == two.fees_bps


@COMMON
@given(cases(), st.sampled_from(["0.001", "3", "100000"]), st.sampled_from(["0.5", "1000"]))
def test_costs_do_not_depend_on_the_unit_of_price_or_quantity(
    case: tuple[ParentOrder, list[Fill], MarketWindow], price_scale: str, quantity_scale: str
) -> None:
    order, fills, window = case
    p, q = D(price_scale), D(quantity_scale)
    scaled = MarketWindow(
        decision=window.decision and window.decision * p,
        arrival=window.arrival and window.arrival * p,
        arrival_at=window.arrival_at,
        end=window.end and window.end * p,
        volume=window.volume * q,
        notional=window.notional * p * q,
        mid_integral=window.mid_integral * p,
        observed_ms=window.observed_ms,
        samples=tuple((at, mid * p) for at, mid in window.samples),
    )
    bigger = [
        msgspec.structs.replace(one, price=one.price * p, quantity=one.quantity * q, fee=one.fee * p * q)
        for one in fills
    ]
    before = measure(order, [], fills, window)
    after = measure(msgspec.structs.replace(order, quantity=order.quantity * q), [], bigger, scaled)
    for name in (*COSTS, *SLIPPAGES, "fees_bps", "participation", "fill_ratio", "markouts", "flags"):
        assert getattr(before, name) == getattr(after, name), name


@COMMON
@given(sides, prices, prices, prices)
def test_without_fills_only_the_missed_move_costs(
    side: Side, decision: Decimal, arrival: Decimal, end: Decimal
) -> None:
    report = measure(parent(side), [], [], MarketWindow(decision=decision, arrival=arrival, end=end))
    expected = (side.sign * (end - decision) / decision * 10_000).quantize(D("0.0001"))
    assert report.total_bps == report.opportunity_bps == expected
    assert report.delay_bps == report.execution_bps == report.fees_bps == 0
    assert (report.average_price, report.slippage_arrival_bps, report.maker_share) == (None, None, None)
    assert report.markouts == {1: None, 10: None, 60: None}
    assert QualityFlag.MARKOUTS_MISSING not in report.flags


def test_what_is_not_known_is_none_and_said() -> None:
    order, fills, window = published()
    no_arrival = measure(order, [], fills, msgspec.structs.replace(window, arrival=None))
    assert (no_arrival.delay_bps, no_arrival.execution_bps, no_arrival.since_arrival_bps) == (None, None, None)
    assert no_arrival.slippage_arrival_bps is None
    assert no_arrival.total_bps == D("19.00")  # needs D, the fills and the end only
    assert QualityFlag.ARRIVAL_MISSING in no_arrival.flags
    no_end = measure(order, [], fills, msgspec.structs.replace(window, end=None))
    assert (no_end.opportunity_bps, no_end.total_bps, no_end.delay_bps) == (None, None, D("7.00"))
    assert QualityFlag.END_MISSING in no_end.flags
    nothing = measure(order, [], fills, MarketWindow())
    assert nothing.basis is None
    assert all(getattr(nothing, name) is None for name in (*COSTS, *SLIPPAGES, "fees_bps", "participation"))
    assert set(nothing.flags) == {
        QualityFlag.DECISION_MISSING,
        QualityFlag.ARRIVAL_MISSING,
        QualityFlag.END_MISSING,
        QualityFlag.COVERAGE_LOW,
        QualityFlag.MIDS_MISSING,
        QualityFlag.MARKOUTS_MISSING,
        QualityFlag.VOLUME_MISSING,
    }


def test_a_complete_order_needs_no_price_at_the_end() -> None:
    order, _, window = published()
    report = measure(order, [], [fill("40.05", "1000")], msgspec.structs.replace(window, end=None))
    assert report.opportunity_bps == 0
    assert QualityFlag.END_MISSING not in report.flags


@pytest.mark.parametrize(
    ("paid", "known", "bps"),
    [
        (fee("40", "USDT"), {}, "10"),
        (fee("1", "BTC"), {}, "10"),  # the base asset, at the fill's price
        (fee("2", "BNB"), {"BNB": "20"}, "10"),
        (fee("-4", "USDT"), {}, "-1"),  # a rebate
        (fee("2", "BNB"), {}, None),
        (fee("2", None), {}, None),
    ],
)
def test_fees_in_the_quote_asset(paid: dict[str, Any], known: Mapping[str, str], bps: str | None) -> None:
    window = MarketWindow(decision=D(40), arrival=D(40), end=D(40))
    given_prices = {asset: D(price) for asset, price in known.items()}
    report = measure(parent(), [], [fill("40", "1000", **paid)], window, fee_prices=given_prices)
    assert report.fees_bps == (None if bps is None else D(bps))
    assert (report.total_bps is None) == (bps is None)
    assert (QualityFlag.FEES_NOT_CONVERTED in report.flags) == (bps is None)


def test_market_averages_with_our_own_fills_in_and_out() -> None:
    window = MarketWindow(
        arrival=D(100), volume=D(10), notional=D(1010), mid_integral=D(100) * 6000 + D(102) * 6000, observed_ms=12000
    )
    report = measure(parent(quantity="2"), [], [fill("103", "2")], window)
    assert (report.market_vwap, report.market_vwap_others, report.market_twap) == (D(101), D("100.5"), D(101))
    assert report.slippage_vwap_bps == D("198.0198")
    assert report.slippage_vwap_others_bps == D("248.7562")
    assert report.participation == D("0.2")
    assert QualityFlag.COVERAGE_LOW in report.flags


def test_a_volume_below_our_own_was_not_seen_whole() -> None:
    window = MarketWindow(arrival=D(100), volume=D(1), notional=D(100))
    report = measure(parent(quantity="2"), [], [fill("103", "2")], window)
    assert (report.participation, report.market_vwap, report.slippage_vwap_bps) == (None, None, None)
    assert QualityFlag.VOLUME_MISSING in report.flags


def seconds(*mids: tuple[float, str]) -> tuple[tuple[int, Decimal], ...]:
    return tuple((START + int(second * 1000), D(mid)) for second, mid in mids)


def test_spread_is_taken_from_the_mid_before_the_fill_never_after() -> None:
    window = MarketWindow(
        arrival=D(100),
        arrival_at=START,
        samples=seconds((0, "100"), (9, "101"), (10.5, "150")),
        half_spreads=seconds((0, "0.5"), (9, "0.5")),
    )
    report = measure(parent(quantity="1"), [], [fill("101.5", "1", START + 10_000)], window)
    assert (report.execution_bps, report.spread_bps, report.impact_bps) == (150, 50, 100)
    assert report.spread_capture == -1
    resting = measure(parent(quantity="1"), [], [fill("100.5", "1", START + 10_000)], window)
    assert resting.spread_capture == 1


@pytest.mark.parametrize(("late_ms", "flagged"), [(0, False), (1000, False), (1001, True), (-1001, True)])
def test_an_arrival_seen_at_another_time_is_said(late_ms: int, flagged: bool) -> None:
    report = measure(parent(), [], [], MarketWindow(arrival=D(100), arrival_at=START + late_ms))
    assert (QualityFlag.ARRIVAL_LATE in report.flags) == flagged


def test_the_arrival_is_the_mid_of_a_fill_at_once() -> None:
    window = MarketWindow(arrival=D(100), arrival_at=START)
    report = measure(parent(quantity="1"), [], [fill("101", "1", START + 20)], window)
    assert (report.spread_bps, report.impact_bps) == (100, 0)


def test_a_stale_mid_splits_nothing() -> None:
    window = MarketWindow(arrival=D(100), arrival_at=START, samples=seconds((0, "100"), (1, "100")))
    report = measure(parent(quantity="1"), [], [fill("101", "1", START + 20_000)], window)
    assert (report.execution_bps, report.spread_bps, report.impact_bps) == (100, None, None)
    assert QualityFlag.MIDS_MISSING in report.flags


def test_markouts_are_the_cost_still_there_later() -> None:
    window = MarketWindow(
        samples=seconds((0, "99"), (0.9, "100"), (1.5, "90"), (9.5, "101"), (10.1, "80"), (59, "98"), (61, "70"))
    )
    report = measure(parent(quantity="1"), [], [fill("100", "1", START)], window)
    assert report.markouts == {1: D(0), 10: D(-100), 60: D(200)}
    assert QualityFlag.MARKOUTS_MISSING not in report.flags
    sold = measure(parent(Side.SELL, quantity="1"), [], [fill("100", "1", START)], window)
    assert sold.markouts == {1: D(0), 10: D(100), 60: D(-200)}


def test_markouts_weigh_fills_by_notional_and_need_most_of_them() -> None:
    samples = seconds((0.5, "100"), (30.5, "110"))
    fills = [fill("100", "3", START), fill("100", "1", START + 30_000)]
    report = measure(parent(quantity="4"), [], fills, MarketWindow(samples=samples))
    assert report.markouts == {1: D(-250), 10: None, 60: None}
    assert QualityFlag.MARKOUTS_MISSING in report.flags
    fills = [fill("100", "3", START + 5_000), fill("100", "1", START + 30_000)]
    assert measure(parent(quantity="4"), [], fills, MarketWindow(samples=samples)).markouts[1] is None


def test_a_mid_from_before_the_fill_is_no_markout() -> None:
    before = MarketWindow(samples=seconds((-0.1, "90")))
    assert measure(parent(quantity="1"), [], [fill("100", "1", START)], before).markouts[1] is None
    soon_after = MarketWindow(samples=seconds((-0.1, "90"), (1.4, "101")))
    assert measure(parent(quantity="1"), [], [fill("100", "1", START)], soon_after).markouts[1] == -100


def test_children_makers_and_latencies() -> None:
    children = [
        child(1, ChildState.FILLED, "3"),
        child(2, ChildState.CANCELED, "1", venue="beta", created_at=START + 900),
        child(3, ChildState.REJECTED, venue="gamma"),
        child(4, ChildState.VOID, sends=0),
        child(5, ChildState.EXPIRED),
    ]
    fills = [fill("100", "3", START + 40, maker=True), fill("300", "1", START + 70, maker=False)]
    timings = {"send_to_ack": list(range(100, 0, -1)), "publish": []}
    report = measure(parent(quantity="4"), children, fills, MarketWindow(), timings=timings)
    assert report.venues == ("alpha", "beta")
    assert (report.children_sent, report.children_filled) == (4, 1)
    assert (report.children_canceled, report.children_rejected) == (2, 1)
    assert report.maker_share == D("0.5")
    ack = report.latencies["send_to_ack"]
    assert (ack.count, ack.p50, ack.p95, ack.max) == (100, 50, 95, 100)
    assert report.latencies["accept_to_first_child"].max == 5
    assert report.latencies["accept_to_first_fill"].max == 40
    assert report.latencies["accept_to_last_fill"].max == 70
    assert "publish" not in report.latencies
    assert report.duration_ms == 10 * MINUTE
    assert QualityFlag.FILLS_MISSING not in report.flags
    assert QualityFlag.FILLS_MISSING in measure(parent(), children, fills[:1], MarketWindow()).flags


@pytest.mark.parametrize(
    ("slices", "late_ms", "expected"),
    [(1, 0, "0.577350"), (10, 0, "0.057735"), (100, 0, "0.005774"), (1, 1_000_000, "0.577350")],
)
def test_tracking_error_of_equal_slices_has_its_closed_form(slices: int, late_ms: int, expected: str) -> None:
    """Slices sent at the start of their interval differ from the straight line by a sawtooth of height Q / N: Q / (N √3)."""
    step = 600_000 // slices
    fills = [fill("100", D(1000) / slices, START + k * step + late_ms) for k in range(slices)]
    report = measure(parent(), [], fills, MarketWindow(), schedule=((START, D(0)), (START + 600_000, D(1000))))
    assert report.schedule_rmse == D(expected)


def test_half_at_once_is_as_far_off_at_both_ends() -> None:
    """From +Q/2 straight to -Q/2: the mean of the squares is Q² / 12."""
    line = ((START, D(0)), (START + 600_000, D(1000)))
    report = measure(parent(), [], [fill("100", "500", START)], MarketWindow(), schedule=line)
    assert report.schedule_rmse == D("0.288675")


@pytest.mark.parametrize(("schedule", "expected"), [((), None), (((START, D(0)), (START, D(1))), None)])
def test_no_schedule_has_no_tracking_error(schedule: Sequence[tuple[int, Decimal]], expected: None) -> None:
    assert measure(parent(), [], [], MarketWindow(), schedule=schedule).schedule_rmse is expected


def test_fills_on_a_stepped_schedule_are_exactly_on_it() -> None:
    steps = ((START, D(0)), (START + 100, D(0)), (START + 100, D(500)), (START + 300, D(500)), (START + 300, D(1000)))
    fills = [fill("1", "500", START + 100), fill("1", "500", START + 300)]
    assert measure(parent(), [], fills, MarketWindow(), schedule=steps).schedule_rmse == 0


@COMMON
@given(st.lists(st.decimals(min_value=1, max_value=1000, places=2), max_size=600), st.integers(4, 60))
def test_thinned_series_keep_their_ends_and_extremes(values: list[Decimal], most: int) -> None:
    points = list(enumerate(values))
    kept = thin(points, most)
    assert len(kept) <= most
    assert {(point.at, point.value) for point in kept} <= set(points)
    assert [point.at for point in kept] == sorted({point.at for point in kept})
    if points:
        assert (kept[0].at, kept[-1].at) == (0, len(points) - 1)
        assert min(point.value for point in kept) == min(values)
        assert max(point.value for point in kept) == max(values)


@COMMON
@given(st.lists(st.tuples(prices, quantities), max_size=120), st.integers(1, 40))
def test_merged_fills_keep_quantity_and_value(trades: list[tuple[Decimal, Decimal]], most: int) -> None:
    fills = [fill(price, quantity, START + index) for index, (price, quantity) in enumerate(trades)]
    merged = merge_fills(fills, most)
    assert len(merged) <= most
    assert sum((point.quantity for point in merged), D(0)) == sum((one.quantity for one in fills), D(0))
    value = sum((one.price * one.quantity for one in fills), D(0))
    assert abs(sum((point.price * point.quantity for point in merged), D(0)) - value) <= value * D("1e-16")


def test_quotients_are_cut_to_what_a_price_needs() -> None:
    assert significant(D(1) / 3) == D("0.333333333333333333")
    assert significant(D(100)) == 100


@COMMON
@given(cases())
def test_a_report_survives_json_digit_for_digit(case: tuple[ParentOrder, list[Fill], MarketWindow]) -> None:
    report = measure(case[0], [], case[1], case[2], schedule=((START, D(0)), (START + 600_000, case[0].quantity)))
    assert msgspec.json.decode(exact_json.encode(report), type=CostReport) == report


# -- groups -----------------------------------------------------------------------------------------------------------


def costing(bps: float | None, order_id: str = "o", *, quantity: str = "1", **more: Any) -> CostReport:
    """A report of an order at 100 whose cost since arrival is as told."""
    window = MarketWindow(arrival=D(100))
    price = D(100) * (1 + D(str(bps or 0)) / 10_000)
    report = measure(parent(quantity=quantity, order_id=order_id, **more), [], [fill(price, quantity)], window)
    return report if bps is not None else msgspec.structs.replace(report, since_arrival_bps=None)


def test_groups_weigh_by_notional() -> None:
    (group,) = aggregate([costing(1, "a", quantity="9"), costing(11, "b")], "algorithm")
    assert group.weighted_bps == pytest.approx(2)
    assert group.median_bps == pytest.approx(6)
    assert (group.n, group.few, group.completion, group.notional, group.quote) == (2, True, 1.0, D(1000), "USD")


def test_notional_in_different_currencies_is_not_added() -> None:
    (group,) = aggregate([costing(1, "a", quantity="9"), costing(11, "b", symbol="ETH/BTC")], "strategy")
    assert group.weighted_bps == pytest.approx(6)
    assert (group.equal_weights, group.notional) == (True, None)


def test_few_orders_are_never_ranked() -> None:
    dear = [costing(90, f"d{index}", algorithm="zeta") for index in range(FEW - 1)]
    cheap = [costing(1, f"c{index}", algorithm="alpha") for index in range(FEW)]
    middling = [costing(5, f"m{index}", algorithm="mid") for index in range(FEW)]
    unknown = [costing(None, f"u{index}", algorithm="no_cost") for index in range(FEW)]
    groups = aggregate(dear + cheap + middling + unknown, "algorithm")
    assert [(group.key, group.few) for group in groups] == [
        ("mid", False),
        ("alpha", False),
        ("no_cost", True),
        ("zeta", True),
    ]
    assert (groups[2].n, groups[2].measured, groups[2].weighted_bps) == (FEW, 0, None)


def test_the_interval_is_the_same_every_time_and_for_any_order() -> None:
    reports = [costing(index % 7, f"o{index}") for index in range(30)]
    first = aggregate(reports, "venue")
    random.Random(3).shuffle(reports)
    assert aggregate(reports, "venue") == first
    assert aggregate(reports, "venue", seed=2) != first


def test_intervals_are_left_out_on_request() -> None:
    (group,) = aggregate([costing(1, "a"), costing(3, "b")], "everything", intervals=False)
    assert (group.key, group.weighted_bps, group.low, group.high) == ("all", pytest.approx(2), None, None)


def test_the_interval_holds_the_mean_about_as_often_as_it_says() -> None:
    generator = random.Random(5)
    held = 0
    for trial in range(200):
        values = [generator.gauss(3, 10) for _ in range(60)]
        low, high = interval(values, [1.0] * 60, seed=trial)
        assert low is not None
        assert high is not None
        held += low <= 3 <= high
    assert 0.89 <= held / 200 <= 0.99


def test_one_order_has_no_interval() -> None:
    assert interval([1.0], [1.0]) == (None, None)


def test_quantiles_and_bins() -> None:
    assert [quantile([4, 1, 3, 2], share) for share in (0, 0.5, 1)] == [1, 2.5, 4]
    assert histogram([-5, 0, 0.5, 1, 9], [0, 1, 2]) == [3, 2]
