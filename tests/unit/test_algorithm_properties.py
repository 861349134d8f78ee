"""What holds of every algorithm, whatever happens to it. A life is drawn as bytes: see `tests.unit.simulated_life`."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms import ALGORITHMS
from schemas.market import Candle, MarketRules
from schemas.terms import OrderType, Side, TimeInForce
from tests.unit.simulated_life import live_out
from tests.unit.simulated_market import SimulatedMarket
from tests.unit.story import RULES

START = 14 * 86_400_000
COARSE = msgspec.structs.replace(
    RULES,
    tick=Decimal("0.5"),
    lot=Decimal("0.1"),
    market_lot=Decimal("0.5"),
    min_quantity=Decimal("0.2"),
    min_notional=Decimal(50),
    max_quantity=Decimal(20),
)
"""So rough that most slices have to be joined, and so small that large ones have to be split."""
FREE = msgspec.structs.replace(RULES, min_quantity=Decimal(0), min_notional=Decimal(0))
VENUES: tuple[MarketRules, ...] = (RULES, COARSE, FREE)

TIMED: list[dict[str, Any]] = [
    {"duration_seconds": 60, "slices": 12, "style": style, **more}
    for style in ("aggressive", "passive", "adaptive")
    for more in ({}, {"jitter": 0.4, "at_end": "leave"}, {"max_participation": 0.3}, {"child_slippage_bps": 0})
]
EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "direct": [{}],
    "twap": [*TIMED, {"duration_seconds": 20, "interval_seconds": 0.2, "catch_up": 1}],
    "vwap": [*TIMED, {"duration_seconds": 40, "slices": 8, "profile": [5, 0, 0, 1], "follow_volume": False}],
    "implementation_shortfall": [
        *({**params, "urgency": "high"} for params in TIMED),
        {"duration_seconds": 30, "slices": 5, "risk_aversion": 0.01},
    ],
    "pov": [
        {"participation": 0.3, "interval_seconds": 1, "duration_seconds": 60},
        {"participation": 0.3, "interval_seconds": 2, "style": "aggressive", "duration_seconds": 60},
        {"participation": 0.5, "interval_seconds": 1, "style": "passive", "max_child_quantity": 2},
        {"participation": 0.2, "min_participation": 0.1, "max_participation": 0.6, "min_child_quantity": 1},
    ],
    "iceberg": [
        {"display_quantity": 2},
        {"display_quantity": 3, "variance": 0.5, "post_only": True},
        {"display_quantity": 2, "price_mode": "pegged", "peg_offset_bps": 2, "variance": 0.2},
    ],
    "peg": [
        {"duration_seconds": 30},
        {"reference": "mid", "offset_ticks": 1, "post_only": False, "duration_seconds": 20, "at_end": "cross"},
        {"reference": "opposite", "offset_bps": 3, "max_distance_bps": 50, "at_max": "end", "max_rejects": 2},
    ],
    "smart_router": [
        {"duration_seconds": 60},
        {"mode": "post", "duration_seconds": 60, "repost_bps": 1},
        {"max_venues": 1, "child_slippage_bps": 10, "max_sweep_bps": 20},
    ],
    "sniper": [{"duration_seconds": 60}, {"min_quantity": 1, "max_quantity_per_take": 2, "take_through_bps": 5}],
}
"""Parameters to try, by the algorithm's name."""
ONLY_LIMIT = ("iceberg", "sniper")
"""Those that need a limit price."""


def candles() -> list[Candle]:
    found = []
    for index in range(5 * 96):
        price = Decimal(100 + index % 3)
        start = START - (5 * 96 - index) * 900_000
        found.append(Candle(start=start, open=price, high=price, low=price, close=price, volume=Decimal(1 + index % 7)))
    return found


HISTORY = candles()


@st.composite
def orders(draw: st.DrawFn, name: str) -> SimulatedMarket:
    """An order of an algorithm, and the market it comes to."""
    side = draw(st.sampled_from(Side))
    limit = name in ONLY_LIMIT or draw(st.booleans())
    way = draw(st.integers(-40, 120))
    fields: dict[str, Any] = {}
    if draw(st.booleans()):
        fields["max_slippage_bps"] = Decimal(draw(st.integers(1, 60)))
        fields["slippage_policy"] = draw(st.sampled_from(("pause", "pause", "end")))
    if draw(st.integers(0, 5)) == 5:
        fields["expires_at"] = START + draw(st.integers(1, 90_000))
    if draw(st.integers(0, 5)) == 5:
        stop = draw(st.integers(-30, 30))
        fields["order_type"] = OrderType.STOP_LIMIT if limit else OrderType.STOP
        fields["stop_price"] = Decimal(10_000 + stop) / 100
    elif limit and name == "direct":
        fields["time_in_force"] = draw(st.sampled_from((TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK)))
        fields["post_only"] = fields["time_in_force"] is TimeInForce.GTC and draw(st.booleans())
    rules = draw(st.sampled_from(VENUES))
    # What no venue would take is refused before it becomes an order.
    least = max(rules.min_notional / 50, rules.min_quantity, rules.market_lot)
    quantity = least + Decimal(draw(st.integers(0, 3_000))) / 50 + draw(st.sampled_from((0, Decimal("0.0004"))))
    price = f"{Decimal(10_000 + side.sign * way) / 100:f}" if limit else None
    params = draw(st.sampled_from(EXAMPLES[name]))
    market = SimulatedMarket(
        f"{quantity:f}",
        price,
        algorithm=name,
        params=params,
        rules=rules,
        venues={"alpha": rules, "beta": draw(st.sampled_from(VENUES))} if ALGORITHMS[name].routes else None,
        history=HISTORY if "risk_aversion" in params or draw(st.booleans()) else (),
        side=side,
        now=START,
        **fields,
    )
    if draw(st.booleans()):
        market.shows()
    return market


def test_there_are_examples_of_every_algorithm() -> None:
    missing = sorted(set(ALGORITHMS) - set(EXAMPLES))
    assert not missing, f"add examples of the parameters of {', '.join(missing)} to EXAMPLES in {__file__}"


@pytest.mark.parametrize("name", sorted(set(ALGORITHMS) & set(EXAMPLES)))
@given(data=st.data(), happenings=st.binary(min_size=80, max_size=400))
@settings(deadline=None, max_examples=100)
def test_whatever_happens(name: str, data: st.DataObject, happenings: bytes) -> None:
    """Never more than the parent, never beyond its bounds or its time, never otherwise after a restart; and it ends."""
    market = data.draw(orders(name))
    market.step()
    live_out(market, happenings)
    market.ends_well()
