"""The page and the table of cost reports: whole, escaped, and true to the figures."""

from __future__ import annotations

import csv
import random
import re
import xml.etree.ElementTree as ElementTree
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from execution.report import html, write_csv, write_html
from execution.report.group_charts import markout_curve, root_fit
from execution.report.order_charts import waterfall
from execution.report.page import MOST_IN_DETAIL, in_detail
from execution.report.svg import Plot, apart, number, span, tick_label, ticks
from execution.tca import measure
from schemas.order import ChildState, Fill, OrderStatus
from schemas.tca import CostReport, MarketWindow, QualityFlag
from schemas.terms import Side
from tests.unit.test_tca import START, child, costing, parent

COMMON = settings(deadline=None, max_examples=150)
ALGORITHMS = {"twap": 20, "vwap": 16, "iceberg": 12, "direct": 1}
STRATEGIES = ("ma_cross", "mean_reversion", "rebalance")
PRICES = {"BTC/USDT": 64_000.0, "ETH/USDT": 3_100.0, "SOL/USDT": 152.0}


def invented(count: int, seed: int = 7) -> list[CostReport]:
    """Orders that never were, in a market that walks at random and gives way to who trades in it."""
    generator = random.Random(seed)
    return [_invented(generator, index) for index in range(count)]


def _invented(generator: random.Random, index: int) -> CostReport:
    algorithm = generator.choices(list(ALGORITHMS), weights=(9, 6, 4, 2))[0]
    slices = ALGORITHMS[algorithm]
    symbol = generator.choice(list(PRICES))
    side = generator.choice(list(Side))
    begin = START + index * 900_000
    minutes = generator.choice([5, 15, 30]) if slices > 1 else 1
    life = minutes * 60_000
    step = 1_000 if minutes < 15 else 4_000
    quantity = Decimal(str(round(generator.lognormvariate(10.5, 0.8) / PRICES[symbol], 4)))
    share = generator.uniform(0.01, 0.25)
    due = [begin + life * number // slices + generator.randrange(1, 4000) for number in range(slices)]
    if generator.random() < 0.2:
        due = due[: max(1, int(slices * 0.7))]
    mid = PRICES[symbol] * generator.uniform(0.95, 1.05)
    decision = mid * (1 + generator.gauss(0.00005, 0.0002) * side.sign)
    half = mid * 0.0001
    samples: list[tuple[int, Decimal]] = []
    fills: list[Fill] = []
    remaining = quantity
    for at in range(begin, begin + life + 64_000, step):
        mid *= 1 + generator.gauss(0, 0.00004 * (step / 1000) ** 0.5)
        while len(fills) < len(due) and due[len(fills)] <= at:
            lot = (quantity / slices).quantize(Decimal("0.00001")) if len(fills) < slices - 1 else remaining
            maker = generator.random() < 0.45 and algorithm != "direct"
            price = mid + side.sign * half * (-1 if maker else 1)
            fee = Decimal(str(round(float(lot) * price * (0.0001 if maker else 0.0004), 6)))
            fills.append(
                Fill(
                    trade_id=f"t{index}-{len(fills)}",
                    child_id="c1",
                    price=Decimal(str(round(price, 2))),
                    quantity=lot,
                    fee=fee,
                    fee_asset="USDT",
                    maker=maker,
                    timestamp=at,
                )
            )
            remaining -= lot
            mid *= 1 + side.sign * 0.0006 * share / slices**0.5
        samples.append((at, Decimal(str(round(mid, 2)))))
    inside = [value for at, value in samples if at <= begin + life]
    traded = sum((fill.quantity for fill in fills), Decimal(0))
    volume = traded / Decimal(str(round(share, 4)))
    average = sum(inside, Decimal(0)) / len(inside)
    window = MarketWindow(
        decision=Decimal(str(round(decision, 2))) if generator.random() < 0.8 else None,
        arrival=samples[0][1],
        arrival_at=begin,
        end=inside[-1],
        volume=volume,
        notional=volume * average * Decimal(str(round(1 + generator.gauss(0, 0.0002), 6))),
        mid_integral=average * (observed := life if generator.random() < 0.9 else life * 8 // 10),
        observed_ms=observed,
        samples=tuple(samples),
        half_spreads=tuple((at, Decimal(str(half))) for at, _ in samples),
    )
    order = parent(
        side,
        quantity,
        f"ord_{index:04d}",
        symbol=symbol,
        algorithm=algorithm,
        strategy_id=generator.choice(STRATEGIES),
        exchange=(venue := generator.choice(["binance", "kraken"])),
        status=OrderStatus.FILLED if remaining <= 0 else OrderStatus.EXPIRED,
        created_at=begin,
        updated_at=begin + life,
    )
    children = [
        child(number, ChildState.FILLED, str(fill.quantity), venue=venue, created_at=fill.timestamp - 40)
        for number, fill in enumerate(fills)
    ]
    schedule = [(begin + life * number // slices, quantity * number / slices) for number in range(slices + 1)]
    acks = [generator.randrange(15, 90) for _ in fills]
    timings = {"signal_to_accept": [generator.randrange(3, 30)], "send_to_ack": acks}
    return measure(order, children, fills, window, schedule=schedule if slices > 1 else (), timings=timings)


class _Checked(HTMLParser):
    """Reads a page: every tag closed in order, nothing loaded from elsewhere, scripts counted."""

    VOID = frozenset({"meta", "br", "circle", "line", "rect", "path", "polygon"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.scripts = 0
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {name for name, _ in attrs}
        assert not names & {"src", "href", "xlink:href", "onclick", "onerror"}, (tag, attrs)
        self.scripts += tag == "script"
        assert tag not in {"img", "link", "iframe", "object"}
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in self.VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def checked(page: str) -> str:
    """The words of a page that has been found well-formed and self-contained."""
    reader = _Checked()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    assert reader.scripts == 1
    assert "http" not in page
    assert "url(" not in page
    for drawing in re.findall(r"<svg.*?</svg>", page):
        ElementTree.fromstring(drawing)
        places = re.findall(r' (?:x|y|x1|x2|y1|y2|cx|cy|r|d|points|width|height)="([^"]*)"', drawing)
        assert not any("nan" in place or "inf" in place for place in places)
    return " ".join(reader.words)


def test_the_page_stands_alone_and_prints_its_convention(tmp_path: Path) -> None:
    reports = invented(40)
    write_html(reports, tmp_path / "report.html", now_ms=START)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    words = checked(page)
    assert "Positive = cost" in words
    assert all(report.order_id in words for report in reports)
    assert page.count('<details class="order"') == MOST_IN_DETAIL
    assert page == html(list(reversed(reports)), now_ms=START)


def test_the_page_shows_the_figures_of_the_reports() -> None:
    words = checked(html([costing(12.34, "a"), costing(None, "b")]))
    assert "+12.34" in words


@pytest.mark.parametrize("reports", [[], [costing(None, "only")], [measure(parent(), [], [], MarketWindow())]])
def test_little_or_nothing_is_still_a_page(reports: list[CostReport]) -> None:
    checked(html(reports))


EVIL = '<script>alert("1")</script>&\''


def test_text_from_outside_is_text() -> None:
    evil = [
        msgspec.structs.replace(
            report,
            order_id=f"{EVIL}{index}",
            strategy=EVIL,
            algorithm=EVIL,
            venues=(EVIL, "b"),
            symbol=f"{EVIL}/{EVIL}",
            fees={EVIL: Decimal(1)},
            latencies=dict.fromkeys([EVIL], next(iter(report.latencies.values()))),
        )
        for index, report in enumerate(invented(3))
    ]
    page = html(evil)
    words = checked(page)
    assert EVIL in words
    assert "<script>alert" not in page


texts = st.text(max_size=12)
figures = st.none() | st.decimals(min_value=-(10**6), max_value=10**6, places=4)


@COMMON
@given(texts, texts, figures, figures, figures, figures)
def test_any_text_and_any_figures_make_a_page(
    order_id: str, name: str, one: Decimal | None, two: Decimal | None, three: Decimal | None, four: Decimal | None
) -> None:
    report = msgspec.structs.replace(
        costing(1.0),
        order_id=order_id,
        strategy=name,
        since_arrival_bps=one,
        slippage_arrival_bps=two,
        execution_bps=three,
        opportunity_bps=four,
        delay_bps=two,
        basis="decision",
        markouts={1: one, 10: two, 60: None},
        participation=None if three is None else abs(three) / 10**6,
        flags=tuple(QualityFlag),
    )
    _Checked().feed(html([report]))


def test_the_dearest_and_the_latest_orders_are_shown_in_detail() -> None:
    reports = [costing(index % 30, f"o{index:02d}", updated_at=START + index) for index in range(60)]
    shown = in_detail(reports)
    half = MOST_IN_DETAIL // 2
    assert [report.since_arrival_bps for report in shown[:half]] == [29, 29, 28, 28, 27, 27, 26, 26, 25, 25]
    assert len({report.order_id for report in shown}) == MOST_IN_DETAIL
    assert min(report.ended_at for report in shown[half:]) > START + 40
    assert in_detail(reports[:5])[0].order_id == "o04"


def test_the_waterfall_ends_at_the_total() -> None:
    (report,) = [report for report in invented(20) if report.order_id == "ord_0003"]
    drawn = waterfall(report)
    assert drawn is not None
    total = report.total_bps if report.basis == "decision" else report.since_arrival_bps
    assert total is not None
    assert f"total: {number(float(total), 2, signed=True)} bp" in drawn


def test_the_markout_curve_begins_at_the_spread_that_was_paid() -> None:
    window = MarketWindow(
        arrival=Decimal(100),
        arrival_at=START,
        end=Decimal(100),
        samples=((START, Decimal(100)), (START + 1000, Decimal("100.5"))),
    )
    fill = Fill(trade_id="t", child_id="c", price=Decimal(101), quantity=Decimal(1), timestamp=START)
    report = measure(parent(quantity="4"), [], [fill], window)
    _, marks = markout_curve([report])
    assert [(mark.seconds, mark.n) for mark in marks] == [(0, 1), (1, 1)]
    assert marks[0].mean == pytest.approx(10_000 / 101, abs=0.01)
    assert marks[1].mean == pytest.approx(5_000 / 101, abs=0.01)


def test_the_root_fit_finds_the_factor_it_was_made_with() -> None:
    points = [(share / 100, 30 * (share / 100) ** 0.5) for share in range(1, 31)]
    assert root_fit(points) == pytest.approx(30)
    assert root_fit(points[:19]) is None
    assert root_fit([(0.0, 1.0)] * 30) is None


def test_the_table_holds_every_figure(tmp_path: Path) -> None:
    reports = [*invented(5), measure(parent(order_id="=cmd|' /C calc'!A0"), [], [], MarketWindow())]
    write_csv(reports, tmp_path / "report.csv")
    with (tmp_path / "report.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["order_id"] for row in rows][:5] == [report.order_id for report in reports[:5]]
    assert rows[5]["order_id"] == "'=cmd|' /C calc'!A0"
    for row, report in zip(rows, reports, strict=True):
        for name in ("since_arrival_bps", "average_price", "fill_ratio", "schedule_rmse"):
            value = getattr(report, name)
            assert row[name] == "" if value is None else Decimal(row[name]) == value
        assert row["send_to_ack_max_ms"] == (
            "" if "send_to_ack" not in report.latencies else str(report.latencies["send_to_ack"].max)
        )
        mark = report.markouts[10]
        assert row["markout_10s_bps"] == "" if mark is None else Decimal(row["markout_10s_bps"]) == mark
    assert "path" not in rows[0]


# -- drawing ----------------------------------------------------------------------------------------------------------

finite = st.floats(-1e9, 1e9, allow_nan=False)


@COMMON
@given(finite, finite, st.integers(2, 10))
def test_ticks_are_round_inside_and_not_too_many(one: float, two: float, about: int) -> None:
    low, high = min(one, two), max(one, two)
    if high - low < 1e-6 * max(abs(low), abs(high), 1e-6):
        return
    marks = ticks(low, high, about)
    slack = (high - low) * 1e-6
    assert all(low - slack <= mark <= high + slack for mark in marks)
    assert len(marks) <= about + 1
    assert len({tick_label(marks)(mark) for mark in marks}) == len(marks)


@COMMON
@given(st.lists(finite, max_size=8), st.booleans())
def test_a_range_holds_its_values_and_is_never_empty(values: list[float], zero: bool) -> None:
    low, high = span(values, zero=zero)
    assert low < high
    assert all(low <= value <= high for value in values)
    if zero:
        assert low <= 0 <= high


@COMMON
@given(st.lists(st.floats(0, 100), min_size=1, max_size=6))
def test_labels_keep_apart_in_their_order(places: list[float]) -> None:
    moved = apart(places, 12, 0, 100)
    ordered = [place for _, place in sorted(zip(places, moved, strict=True))]
    assert all(after - before >= 12 - 1e-9 for before, after in zip(sorted(ordered), sorted(ordered)[1:], strict=False))
    assert all(-1e-9 <= place <= 100 + 1e-9 for place in moved)


@pytest.mark.parametrize(
    ("value", "places", "signed", "shown"),
    [
        (-1.5, 1, False, "−1.5"),
        (1234.5, 1, True, "+1,234.5"),
        (-0.001, 2, True, "0.00"),
        (0, 0, True, "0"),
    ],
)
def test_numbers_for_people(value: float, places: int, signed: bool, shown: str) -> None:
    assert number(value, places, signed=signed) == shown


def test_data_meets_pixels_at_the_corners() -> None:
    plot = Plot(200, 100, (0, 10), (-5, 5), left=20, right=10, top=5, bottom=15)
    assert (plot.x(0), plot.x(10), plot.y(-5), plot.y(5)) == (20, 190, 85, 5)


def test_titles_are_escaped_in_drawings() -> None:
    plot = Plot(10, 10, (0, 1), (0, 1), label='"><script>')
    plot.dot((0, 0), 1, "dot", EVIL)
    plot.text_at(0, 0, EVIL, "tick", title=EVIL)
    drawn: Any = ElementTree.fromstring(plot.svg())
    assert drawn.attrib["aria-label"] == '"><script>'
    assert EVIL in "".join(drawn.itertext())
