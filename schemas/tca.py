"""Transaction cost analysis: what the market did while an order worked, and what the order cost against it.

One sign for everything that carries one: **positive is cost**, for buys and sells, mark-outs included. Costs are in basis
points (1 bp = 0.01 %), prices in the quote asset, quantities in the base asset, times in milliseconds since the epoch.
What is not known is None, never 0.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum

import msgspec

from schemas.order import OrderStatus
from schemas.terms import Side

ZERO = Decimal(0)

MARKOUT_HORIZONS = (1, 10, 60)
"""Seconds after a fill at which the mid is looked at again."""


class MarketWindow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the market was seen to do over a parent's life."""

    decision: Decimal | None = None
    """Mid when the signal was made."""
    arrival: Decimal | None = None
    """Mid when the parent was accepted, observed at `arrival_at`."""
    arrival_at: int | None = None
    end: Decimal | None = None
    """Mid when the parent ended."""
    volume: Decimal = ZERO
    """Everybody's trades over the life, ours among them."""
    notional: Decimal = ZERO
    """The same trades, price times quantity."""
    mid_integral: Decimal = ZERO
    """Sum of mid times the milliseconds it held; over `observed_ms`, it is the TWAP."""
    observed_ms: int = 0
    """For how much of the life a mid was known."""
    samples: tuple[tuple[int, Decimal], ...] = ()
    """(time, mid) in order of time; they go on after the end for mark-outs. At least one a second around fills."""
    half_spreads: tuple[tuple[int, Decimal], ...] = ()
    """(time, half of ask less bid) in order of time."""


class QualityFlag(StrEnum):
    """What is to be doubted about a report."""

    DECISION_MISSING = "decision_missing"
    ARRIVAL_MISSING = "arrival_missing"
    ARRIVAL_LATE = "arrival_late"
    """The arrival mid was observed long after the order was accepted."""
    END_MISSING = "end_missing"
    """No mid at the end, though something was left to price at it."""
    COVERAGE_LOW = "coverage_low"
    """A mid was known for less than nine tenths of the life."""
    MIDS_MISSING = "mids_missing"
    """Not every fill has a mid at its time: the execution cost cannot be split."""
    MARKOUTS_MISSING = "markouts_missing"
    FEES_NOT_CONVERTED = "fees_not_converted"
    """Fees were paid in an asset whose price in the quote asset is not known."""
    FILLS_MISSING = "fills_missing"
    """The children report more than the fills add up to."""
    VOLUME_MISSING = "volume_missing"
    """The market's volume was not seen, or only in part: it is below our own."""


class Latency(msgspec.Struct, frozen=True, omit_defaults=True):
    """Milliseconds, by nearest rank."""

    count: int
    p50: int
    p95: int
    max: int


class PathPoint(msgspec.Struct, frozen=True, array_like=True):
    """A value at a time: a mid, or a cumulative quantity."""

    at: int
    value: Decimal


class FillPoint(msgspec.Struct, frozen=True, array_like=True):
    """One fill, or neighbouring fills at their average price and last time."""

    at: int
    price: Decimal
    quantity: Decimal
    maker: bool | None = None


class CostReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one parent order cost.

    The implementation shortfall (Perold 1988) is split so that its parts add up to `total_bps`, up to the rounding to
    0.0001 bp: delay F s (A - D), execution sum q s (p - A), opportunity (Q - F) s (end - D), fees; each over Q D, with
    s = +1 for a buy and -1 for a sell. Where D is not known, `basis` is `arrival`: execution, opportunity and fees are
    measured from A over Q A, and add up to `since_arrival_bps`; delay and total stay None.
    """

    order_id: str
    signal_id: str
    strategy: str
    algorithm: str
    venues: tuple[str, ...]
    symbol: str
    side: Side
    status: OrderStatus
    reason: str | None = None
    accepted_at: int
    ended_at: int
    duration_ms: int
    quantity: Decimal
    filled: Decimal = ZERO
    fill_ratio: Decimal
    children_sent: int = 0
    children_filled: int = 0
    children_canceled: int = 0
    children_rejected: int = 0

    average_price: Decimal | None = None
    decision: Decimal | None = None
    arrival: Decimal | None = None
    end: Decimal | None = None
    market_vwap: Decimal | None = None
    """Our own fills in, as it is published."""
    market_vwap_others: Decimal | None = None
    """Our own fills out."""
    market_twap: Decimal | None = None

    basis: str | None = None
    """`decision` or `arrival`: what the parts of the shortfall are measured from."""
    delay_bps: Decimal | None = None
    execution_bps: Decimal | None = None
    spread_bps: Decimal | None = None
    """Of the execution: price against the mid at the fill."""
    impact_bps: Decimal | None = None
    """Of the execution: mid at the fill against arrival; the market's own drift and our impact, not told apart."""
    opportunity_bps: Decimal | None = None
    fees_bps: Decimal | None = None
    total_bps: Decimal | None = None
    """The implementation shortfall, from the decision."""
    since_arrival_bps: Decimal | None = None
    """The shortfall without the delay before acceptance: execution, opportunity against A and fees, over Q A."""

    slippage_arrival_bps: Decimal | None = None
    slippage_vwap_bps: Decimal | None = None
    slippage_vwap_others_bps: Decimal | None = None
    slippage_twap_bps: Decimal | None = None
    participation: Decimal | None = None
    """Our part of everybody's volume."""
    maker_share: Decimal | None = None
    """By notional, of the fills that say what they were."""
    spread_capture: Decimal | None = None
    """s (mid - p) / half-spread by notional: +1 at our own touch, -1 across the spread. The one figure where more is better."""
    markouts: dict[int, Decimal | None] = {}
    """By seconds after each fill, s (p - mid) / p by notional: the cost that is still there then."""
    fees: dict[str, Decimal] = {}
    latencies: dict[str, Latency] = {}
    schedule_rmse: Decimal | None = None
    """Root mean square over time of (filled - scheduled), as a fraction of the quantity."""
    flags: tuple[QualityFlag, ...] = ()

    schedule: tuple[PathPoint, ...] = ()
    path: tuple[PathPoint, ...] = ()
    fills: tuple[FillPoint, ...] = ()

    @property
    def venue(self) -> str:
        """The venues traded at, as one word."""
        return "+".join(self.venues)

    @property
    def quote(self) -> str:
        """The asset prices are in; empty when the symbol does not say."""
        return self.symbol.partition("/")[2].partition(":")[0]

    @property
    def notional(self) -> Decimal | None:
        """Ordered value at arrival, else at the decision, else at what was paid; None when no price is known."""
        price = self.arrival or self.decision or self.average_price
        return None if price is None else self.quantity * price
