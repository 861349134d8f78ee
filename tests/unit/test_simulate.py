"""Simulations: data and contestants as they are named, starts, the baselines, fair pairs, and figures that follow from them."""

from __future__ import annotations

import re
import xml.dom.minidom
from decimal import Decimal
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.recorded import SyntheticMarket
from algorithms import ALGORITHMS
from execution.cli.simulate import _data as chosen_data
from execution.cli.simulate import _fees as chosen_fees
from execution.simulate import charts
from execution.simulate.baselines import TWAP_MARKET, known
from execution.simulate.compare import Job, Model, Run, rows, run, run_all
from execution.simulate.contestants import Order, contestants, signal_of
from execution.simulate.picture import Page, html, typical
from execution.simulate.plan import Plan, Wanted, planned
from execution.simulate.route import first_route
from execution.simulate.scenarios import (
    ScenarioError,
    Survey,
    default_duration,
    lead,
    recorded,
    starts,
    survey,
    synthetic,
)
from execution.simulate.told import remarks, verdict
from schemas.market import MarketRules
from schemas.order import OrderStatus
from schemas.tca import CostReport
from schemas.terms import OrderType, Side
from tests.unit.story import Story

RULES = MarketRules(
    symbol="BTC/USDT", base="BTC", quote="USDT", tick=Decimal("0.1"), lot=Decimal("0.001"), market_lot=Decimal("0.001")
)
CALM = "volatility=0.002,spread_bps=2,trades_per_second=3,minutes=12,history_days=0"


def order(**fields: Any) -> Order:
    return Order(**{"symbol": "BTC/USDT", "side": Side.BUY, "quantity": Decimal("0.5"), "duration": 60.0, **fields})


def wanted(*data: str, **fields: Any) -> Wanted:
    usual: dict[str, Any] = {
        "data": [synthetic(text) for text in data or [CALM]],
        "side": Side.BUY,
        "quantity": None,
        "participation": None,
        "order_type": OrderType.MARKET,
        "price": None,
        "algorithms": (),
        "duration": None,
        "every": None,
        "count": None,
        "route": False,
        "model": Model(),
        "processes": 1,
        "out": None,
        "csv": None,
        "as_json": False,
    }
    return Wanted(**(usual | fields))


def simulated(plan: Plan) -> dict[str, Run]:
    return {one.label: one for one in run_all(plan.jobs, events=0, processes=1)}


# --- data -----------------------------------------------------------------------------------------------------------------


def test_a_synthetic_market_is_named_in_one_word() -> None:
    made = synthetic("kraken:volatility=0.05,hours=2,price=50,tick=0.01,depth=3,curve_hours=6,seed=7", symbol="X/Y")
    config = made.config
    assert (made.venue, config.venue, config.symbol) == ("kraken", "kraken", "X/Y")
    assert (config.volatility, config.seconds, config.seed, config.curve_seconds) == (0.05, 7200, 7, 21_600)
    assert (config.price, config.tick, config.depth.quantity) == (Decimal(50), Decimal("0.01"), Decimal(3))
    assert synthetic("minutes=3").config.seconds == 180
    assert synthetic("").venue == "synthetic"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hurs=1", "'hurs' is not one of book_interval_ms"),
        ("hours", "hours: '' is not a number"),
        ("seed=x", "seed: 'x' is not a number"),
        ("price=nan", "price: 'nan' is not a number"),
        ("curve=3", "curve is between -0.5 and 1"),
        ("seed=1.5", "Expected `int`"),
        (":hours=1", "the venue before the colon has no name"),
    ],
)
def test_a_synthetic_market_that_cannot_be_says_why(text: str, said: str) -> None:
    with pytest.raises(ScenarioError, match=re.escape(said)) as refused:
        synthetic(text)
    assert refused.value.option == "--synthetic"


def test_recorded_files_are_gathered_by_venue(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv", "c=d.csv"):
        (tmp_path / name).write_text("time,price,quantity\n1700000000000,100,1\n1700000009000,101,2\n")
    a, b, odd = (str(tmp_path / name) for name in ("a.csv", "b.csv", "c=d.csv"))
    found = recorded([f"kraken={a}", f"okx={b}", f"kraken={odd}", odd], symbol="A/B")
    assert [(one.venue, one.paths) for one in found] == [("kraken", (a, odd)), ("okx", (b,)), ("recorded", (odd,))]
    seen = survey(recorded([a], symbol="A/B")[0])
    assert (seen.symbol, seen.trades, seen.volume, seen.first, seen.last) == (
        "A/B",
        2,
        Decimal(3),
        1_700_000_000_000,
        1_700_000_009_000,
    )
    assert seen.opening is not None
    with pytest.raises(ScenarioError, match=r"--data: .* does not tell its symbol; say it with --symbol BASE/QUOTE"):
        survey(recorded([a])[0])
    with pytest.raises(ScenarioError, match=r"--data: .*nowhere does not exist"):
        recorded([str(tmp_path / "nowhere")])
    with pytest.raises(ScenarioError, match="holds no events of A/B between --since and --until"):
        survey(recorded([a], symbol="A/B", since=1_800_000_000_000)[0])


def test_a_file_of_another_symbol_is_not_taken(tmp_path: Path) -> None:
    trade = '["100.0","1.0",1700000000.1,"b","l","",1]'
    (tmp_path / "trades.json").write_text('{"error":[],"result":{"XBTUSDT":[' + trade + '],"last":"1"}}')
    with pytest.raises(ScenarioError, match=r"--symbol: trades\.json is of BTC/USDT, not of ETH/USDT"):
        recorded([str(tmp_path / "trades.json")], symbol="ETH/USDT")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"since": "noon", "data": ["."]}, "--since: 'noon' is neither an ISO date or time nor ms"),
        ({"units": "lots", "data": ["."]}, "--units: 'lots' is neither base nor quote nor a contract's size"),
        ({"depth": "-1", "data": ["."]}, "--depth: '-1' is not a number above 0"),
        ({"until": "2024-01-01"}, "--until: is for recorded data: give it with --data"),
        ({"units": "quote"}, "--units: is for recorded data"),
        ({"synthetic": ["hours=1", "hours=2"]}, "--synthetic: two markets are called synthetic"),
    ],
)
def test_options_of_the_data_are_named_when_wrong(fields: dict[str, Any], said: str) -> None:
    names = ("data", "synthetic", "symbol", "since", "until", "units", "spread_bps", "depth")
    usual: dict[str, Any] = {**dict.fromkeys(names), "units": "base"}
    with pytest.raises(ScenarioError, match=re.escape(said)):
        chosen_data(**(usual | fields))


def test_fees_are_of_all_venues_or_of_one() -> None:
    assert chosen_fees(["5", "a=-0.5"], ["a", "b"], "--maker-bps") == {"": Decimal("0.0005"), "a": Decimal("-0.00005")}
    for text, said in (
        ("c=1", "'c' is not one of a, b"),
        ("a=x", "'x' is not a number of bps"),
        ("5000", "'5000' is not"),
    ):
        with pytest.raises(ScenarioError, match=f"--maker-bps: {re.escape(said)}"):
            chosen_fees([text], ["a", "b"], "--maker-bps")
    with pytest.raises(ScenarioError, match="--maker-bps: is given twice for a"):
        chosen_fees(["a=1", "a=2"], ["a", "b"], "--maker-bps")


# --- starts ---------------------------------------------------------------------------------------------------------------


def seen(first: int, last: int, venue: str = "a") -> Survey:
    zero = Decimal(0)
    return Survey(venue, "BTC/USDT", RULES, first, last, None, None, None, zero, zero, 0, 0, [])


SPAN = st.integers(1_000, 10**9)


@settings(deadline=None, max_examples=200)
@given(
    first=st.integers(0, 10**6),
    span=SPAN,
    duration=st.floats(1, 10**5),
    every=st.none() | st.floats(0.01, 10**5),
    count=st.none() | st.integers(1, 300),
)
def test_every_order_has_its_time_before_the_data_ends(
    first: int, span: int, duration: float, every: float | None, count: int | None
) -> None:
    try:
        found = starts([seen(first, first + span)], duration=duration, every=every, count=min(count or 300, 300))
    except ScenarioError as error:
        told = error.option, span * 0.9 - 10_000 <= duration * 1000 + 2
    else:
        told = None
    if told is not None:
        assert told == ("--duration", True)
        return
    assert found == sorted(found)
    assert 1 <= len(found) <= 300
    assert found[0] > first or span < 20
    assert found[-1] + int(duration * 1000) + lead(span) <= first + span
    assert starts([seen(first, first + span)], duration=duration, every=None, count=None)[0] == found[0]


def test_starts_by_every_and_count() -> None:
    data = [seen(0, 1_010_000)]
    assert len(starts(data, duration=100, every=None, count=None)) == 10
    assert len(starts(data, duration=10, every=None, count=None)) == 24
    assert len(starts(data, duration=100, every=50, count=None)) == 19
    assert starts(data, duration=100, every=50, count=2) == [5_000, 55_000]
    assert starts(data, duration=100, every=None, count=3) == [5_000, 455_000, 905_000]
    assert starts([*data, seen(60_000, 500_000, "b")], duration=100, every=None, count=1) == [65_000]


@settings(deadline=None)
@given(SPAN)
def test_the_usual_duration_leaves_room_for_twenty_orders(span: int) -> None:
    duration = default_duration(span)
    assert 1 <= duration <= 3600
    if span >= 60_000:
        assert len(starts([seen(0, span)], duration=duration, every=None, count=None)) >= 20


# --- contestants ------------------------------------------------------------------------------------------------------------


def test_contestants_are_named_by_what_tells_them_apart() -> None:
    found = contestants(
        ["twap:slices=20,style=passive", "TWAP:slices=20", "vwap:profile=[1,2,3],at_end=leave"],
        order(),
        share=0.05,
        rules=RULES,
    )
    assert [one.label for one in found] == [
        "market",
        "twap-market",
        "twap style=passive",
        "twap",
        "vwap",
    ]
    assert [one.baseline for one in found] == [True, True, False, False, False]
    assert found[2].params == {"duration_seconds": 60, "slices": 20, "style": "passive"}
    assert found[4].params["profile"] == [1, 2, 3]
    assert found[2].described == "twap:duration_seconds=60,slices=20,style=passive"
    assert len({one.slug for one in found}) == len(found)


def test_the_usual_set_suits_the_order() -> None:
    market = contestants([], order(), share=0.05, rules=RULES)
    names = ["twap", "vwap", "implementation_shortfall", "pov", "iceberg"]
    assert [one.label for one in market[2:]] == names
    assert market[-2].params["participation"] == Decimal("0.10")
    assert market[-1].params == {"display_quantity": Decimal("0.050"), "price_mode": "pegged"}
    limit = contestants([], order(order_type=OrderType.LIMIT, price=Decimal(100)), share=None, rules=RULES)
    assert [one.label for one in limit[2:]] == ["direct", "twap", "vwap", "implementation_shortfall", "iceberg"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("twop", "'twop' is not one of direct"),
        ("twap:slcies=3", "twap: slcies: is no parameter of twap; did you mean slices?"),
        ("twap:slices=0", "twap: slices: input should be greater than or equal to 1"),
        ("twap:slices", "twap: 'slices' is not PARAMETER=VALUE"),
        ("twap:slices=1,slices=2", "twap: slices is given twice"),
        ("twap:slices=4,interval_seconds=2", "slices and interval_seconds exclude each other"),
        ("iceberg", "iceberg: display_quantity: field required"),
        (TWAP_MARKET, "twap-market is given twice"),
    ],
)
def test_a_contestant_that_cannot_work_is_refused_by_parameter(text: str, said: str) -> None:
    with pytest.raises(ScenarioError, match=re.escape(said)) as refused:
        contestants([text], order(), share=None, rules=RULES)
    assert refused.value.option == "--algorithm"


def test_orders_of_one_start_differ_only_in_how_they_are_worked() -> None:
    found = contestants(["twap", "iceberg:display_quantity=1,price_mode=pegged"], order(), share=None, rules=RULES)
    made = {one.label: signal_of(one, order(), 4, 1_000_000, ["a", "b"]) for one in found}
    same = ("exchange", "symbol", "side", "quantity", "order_type")
    assert len({tuple(signal[name] for name in same) for signal in made.values()}) == 1
    assert made["iceberg"]["expires_at"] == 1_060_000, "one without a duration ends with the others"
    assert "expires_at" not in made["twap"]
    assert "expires_at" not in made["market"]


# --- baselines --------------------------------------------------------------------------------------------------------------


def test_twap_market_sends_equal_market_orders_and_stops() -> None:
    with known():
        story = Story("1", None, algorithm=TWAP_MARKET, params={"duration_seconds": 10, "slices": 4})
        sent: list[tuple[int, Decimal, OrderType]] = []
        for at in (1_000, 2_000, 3_500, 6_000, 8_500, 9_000):
            story.now = at
            before = len(story.state.children)
            story.market("100", "101")
            for child in story.state.children[before:]:
                sent.append((at, child.quantity, child.order_type))
                story.venue("open", child=child)
                story.fills(story.trade(str(child.quantity), "101"), child=child)
    quarter = Decimal("0.25")
    assert sent == [(at, quarter, OrderType.MARKET) for at in (1_000, 3_500, 6_000, 8_500)]
    assert story.state.parent.status is OrderStatus.FILLED


def test_baselines_are_unknown_outside_a_simulation() -> None:
    with known():
        assert TWAP_MARKET in ALGORITHMS
    assert TWAP_MARKET not in ALGORITHMS


# --- runs -------------------------------------------------------------------------------------------------------------------


def test_a_passive_order_in_a_calm_market_saves_about_the_spread() -> None:
    plan = planned(wanted(quantity=Decimal("0.05"), algorithms=("twap:style=passive",), duration=60.0))
    found = rows(run_all(plan.jobs, events=0, processes=1))
    market, slices, passive = found
    assert [row.filled for row in found] == [1.0, 1.0, 1.0]
    assert market.spread == pytest.approx(1.0, abs=0.02), "half of the 2 bps"
    assert slices.spread == pytest.approx(1.0, abs=0.05)
    assert passive.maker is not None
    assert passive.maker > 0.9
    difference = passive.differences[1]
    assert difference is not None
    assert -2.2 < difference.mean < -1.2
    assert slices.differences[1] is None
    assert market.differences[0] is None
    for row in found:
        assert row.cost is not None
        parts = (row.spread, row.impact, row.opportunity, row.fees)
        assert sum(part or 0.0 for part in parts) == pytest.approx(row.cost.mean, abs=0.001)


def test_fees_cost_what_the_model_says() -> None:
    plan = planned(wanted(quantity=Decimal("0.05"), count=2, model=Model(taker_fee=Decimal("0.0004"))))
    found = simulated(only(plan, plan.jobs[:2]))
    for one in found.values():
        for report in one.reports:
            assert float(report.fees_bps or 0) == pytest.approx(4, abs=0.01)


def only(plan: Plan, jobs: list[Job]) -> Plan:
    return Plan(plan.surveys, plan.order, plan.share, plan.contestants, plan.starts, jobs, plan.notes)


def test_the_same_run_again_costs_the_same() -> None:
    plan = planned(wanted(count=3, algorithms=("pov:participation=0.2",)))
    first, second = (run(plan.jobs[-1]) for _ in range(2))
    assert [msgspec.to_builtins(report) for report in first.reports] == [
        msgspec.to_builtins(report) for report in second.reports
    ]
    assert len(first.reports) == 3


def test_a_refused_order_ends_a_run_and_names_the_option() -> None:
    with pytest.raises(ScenarioError, match=r"--algorithm: iceberg: price_mode: must be pegged"):
        simulated(planned(wanted(algorithms=("iceberg:display_quantity=0.1",), count=2)))
    with pytest.raises(ScenarioError, match=r"--quantity: is below the lot size"):
        simulated(planned(wanted(quantity=Decimal("0.0000001"), count=2)))


def test_the_usual_quantity_is_a_share_of_the_volume_that_the_book_can_fill() -> None:
    plan = planned(wanted(participation=0.02, duration=60.0))
    whole = plan.surveys[0]
    assert float(plan.order.quantity) == pytest.approx(float(whole.volume) / whole.seconds * 60 * 0.02, rel=0.001)
    assert plan.share == pytest.approx(0.02, rel=0.001)
    usual = planned(wanted(duration=300.0, count=1))
    book = usual.surveys[0].opening
    assert book is not None
    assert usual.order.quantity <= sum(level.quantity for level in book.asks) / 2
    assert any("half of what the book shows" in note for note in usual.notes)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"order_type": OrderType.LIMIT}, "--price: is required with --type limit"),
        ({"price": Decimal(1)}, "--price: goes with --type limit"),
        ({"order_type": OrderType.STOP}, "--type: stop has no baseline"),
        ({"quantity": Decimal(1), "participation": 0.1}, "--participation: and --quantity exclude each other"),
        ({"duration": 10_000.0}, "--duration: 10000 s do not fit into 720 s of data"),
        ({"participation": 1e-6}, "--participation: 1e-06 of the volume is below the lot"),
    ],
)
def test_what_cannot_be_asked_for_names_its_option(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ScenarioError, match=re.escape(said)):
        planned(wanted(**fields))


# --- several venues -----------------------------------------------------------------------------------------------------------


def test_the_route_beforehand_is_what_the_router_then_pays() -> None:
    model = Model(taker_fee=Decimal("0.0002"), fees={"a": (Decimal(0), Decimal("0.0001"))})
    options = wanted(
        f"a:{CALM},depth=0.1",
        f"b:{CALM},depth=0.07",
        quantity=Decimal("0.4"),
        algorithms=("smart_router",),
        duration=30.0,
        model=model,
    )
    plan = planned(options)
    assert [len(job.data) for job in plan.jobs] == [1, 1, 2]
    route = first_route(plan, options)
    assert route is not None
    assert {leg["venue"] for leg in route["legs"]} == {"a", "b"}
    assert sum(leg["quantity"] for leg in route["legs"]) == Decimal("0.4")
    found = rows(run_all(plan.jobs, events=0, processes=1))
    difference = found[-1].differences[0]
    assert difference is not None
    assert difference.mean == pytest.approx(-float(route["saved_bps"]), abs=0.4)
    assert verdict(difference) == "cheaper"
    assert not any("bps apart" in line for line in remarks(plan.surveys, list(simulated(plan).values()), found))


def test_venues_that_begin_at_different_times_keep_them() -> None:
    late = SyntheticMarket(synthetic(f"b:{CALM}").config).config.start_ms + 60_000
    options = wanted(
        f"a:{CALM}", f"b:{CALM},start_ms={late}", quantity=Decimal("0.1"), algorithms=("smart_router",), count=2
    )
    plan = planned(options)
    assert plan.starts[0] == late + 5_000
    assert plan.jobs[-1].begins == {"a": late - 60_000, "b": late}
    reports = run(plan.jobs[-1]).reports
    assert [report.accepted_at for report in reports] == plan.starts
    prices = {leg.price for report in reports for leg in report.fills}
    assert all(90_000 < price < 110_000 for price in prices)


# --- figures ------------------------------------------------------------------------------------------------------------------


def reported(label: str, costs: list[float | None]) -> Run:
    made = Run(label, len(costs), seconds=1.0)
    for index, cost in enumerate(costs):
        made.reports.append(
            CostReport(
                order_id=f"{label}-{index}",
                signal_id=f"{label}-{index:04d}",
                strategy=label,
                algorithm="twap",
                venues=("a",),
                symbol="BTC/USDT",
                side=Side.BUY,
                status=OrderStatus.FILLED,
                accepted_at=index,
                ended_at=index + 1_000,
                duration_ms=1_000,
                quantity=Decimal(1),
                filled=Decimal(1),
                fill_ratio=Decimal(1),
                participation=Decimal(1) / (index + 1),
                since_arrival_bps=None if cost is None else Decimal(str(round(cost, 4))),
            )
        )
    return made


COSTS = st.lists(st.none() | st.floats(-50, 50).map(lambda cost: round(cost, 4)), min_size=1, max_size=30)


@settings(deadline=None, max_examples=60)
@given(COSTS, COSTS)
def test_differences_are_of_pairs_that_both_have(first: list[float | None], second: list[float | None]) -> None:
    found = rows([reported("a", first), reported("b", second)])
    pairs = [(one, other) for one, other in zip(first, second, strict=False) if one is not None and other is not None]
    difference = found[1].differences[0]
    back = found[0].differences[1]
    if not pairs:
        assert difference is None
        return
    assert difference is not None
    assert back is not None
    assert difference.n == len(pairs)
    assert difference.mean == pytest.approx(fmean(other - one for one, other in pairs), abs=1e-6)
    assert back.mean == pytest.approx(-difference.mean, abs=1e-9)
    if difference.low is not None and difference.high is not None:
        assert difference.low - 1e-9 <= difference.mean <= difference.high + 1e-9


def test_participation_is_of_the_volume_of_all() -> None:
    # Volumes of 1, 2 and 3, one filled in each.
    assert rows([reported("a", [0.0, 0.0, 0.0])])[0].participation == pytest.approx(3 / 6)


def test_the_order_shown_in_detail_is_the_median() -> None:
    shown = typical(reported("a", [5.0, None, -1.0, 2.0]).reports)
    assert shown is not None
    assert shown.since_arrival_bps == Decimal("2.0")
    assert typical([]) is None
    assert typical(reported("a", [None]).reports) is not None


@pytest.mark.parametrize("count", [1, 3, 25])
def test_the_page_holds_every_contestant_and_its_charts_are_well_formed(count: int) -> None:
    runs = [
        reported("market", [float(index % 3) for index in range(count)]),
        reported("<x>&", [float(index % 5) - 3 for index in range(count)]),
    ]
    found = rows(runs)
    baselines = [True, False]
    drawn = [
        charts.cost_bars(found, baselines),
        charts.difference_bars(found, baselines, 0),
        charts.parts_of_cost(found),
        charts.distributions(found, [[1.0] * count, [2.0] * count]),
        charts.cost_and_risk(found, baselines),
    ]
    for svg in drawn:
        if svg is not None:
            xml.dom.minidom.parseString(svg)
    assert (drawn[-1] is None) is (count == 1)
    page = html(
        Page("orders", ["data"], ["model"], ["remark <i>"], ["direct", "twap"], baselines, runs, found, "fast"),
        now_ms=0,
    )
    assert "&lt;x&gt;&amp;" in page
    assert "<x>&" not in page
    assert "remark &lt;i&gt;" in page
    assert "http" not in re.sub(r"http://www.w3.org/\S+", "", page), "it loads nothing"
    told = remarks([], runs, found)
    assert any("it says little" in line for line in told) is (count < 20)
