"""A report brought up to date with its mark-outs is the report that measuring anew would make."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from execution.tca import marked_out, measure
from schemas.order import Fill, OrderStatus, ParentOrder
from schemas.tca import MarketWindow, QualityFlag
from schemas.terms import OrderType, Side

START = 1_700_000_000_000
END = START + 30_000
PRICES = st.integers(9_000, 11_000).map(lambda ticks: Decimal(ticks) / 100)


def _window(seen: list[tuple[int, Decimal]], until: int) -> MarketWindow:
    samples = tuple(sorted((START + at, mid) for at, mid in seen if START + at <= until))
    return MarketWindow(
        arrival=Decimal(100),
        arrival_at=START,
        samples=samples,
        half_spreads=tuple((at, Decimal(1)) for at, _ in samples),
    )


@settings(deadline=None, max_examples=150)
@given(
    side=st.sampled_from(Side),
    trades=st.lists(st.tuples(st.integers(0, 30_000), PRICES, st.integers(1, 50)), min_size=1, max_size=8),
    seen=st.lists(st.tuples(st.integers(0, 95_000), PRICES), max_size=60, unique_by=lambda sample: sample[0]),
)
def test_it_is_what_measuring_anew_makes(
    side: Side, trades: list[tuple[int, Decimal, int]], seen: list[tuple[int, Decimal]]
) -> None:
    fills = [
        Fill(trade_id=str(n), child_id="c1", price=price, quantity=Decimal(quantity), timestamp=START + at, maker=False)
        for n, (at, price, quantity) in enumerate(trades)
    ]
    parent = ParentOrder(
        order_id="ord_1",
        signal_id="sig_1",
        strategy_id="ma_cross",
        exchange="alpha",
        symbol="BTC/USDT",
        side=side,
        quantity=Decimal(1000),
        order_type=OrderType.LIMIT,
        status=OrderStatus.FILLED,
        created_at=START,
        updated_at=END,
    )
    at_end, later = _window(seen, END), _window(seen, END + 65_000)
    report = measure(parent, [], fills, at_end)
    assert marked_out(report, fills, later) == measure(parent, [], fills, later)


def test_a_missing_markout_is_said_until_it_is_there() -> None:
    fills = [Fill(trade_id="1", child_id="c1", price=Decimal(100), quantity=Decimal(1), timestamp=START + 1000)]
    parent = ParentOrder(
        order_id="ord_1",
        signal_id="sig_1",
        strategy_id="ma_cross",
        exchange="alpha",
        symbol="BTC/USDT",
        side=Side.BUY,
        quantity=Decimal(1),
        order_type=OrderType.LIMIT,
        status=OrderStatus.FILLED,
        created_at=START,
        updated_at=START + 1000,
    )
    seen = [(at, Decimal(99)) for at in range(0, 70_000, 1000)]
    report = measure(parent, [], fills, _window(seen, START + 1000))
    assert QualityFlag.MARKOUTS_MISSING in report.flags
    assert report.markouts[60] is None
    marked = marked_out(report, fills, _window(seen, START + 70_000))
    assert QualityFlag.MARKOUTS_MISSING not in marked.flags
    assert marked.markouts == {1: Decimal(100), 10: Decimal(100), 60: Decimal(100)}
