"""What one order cost, from its records and from what was seen of the market. Positive is cost.

Perold, A. F. (1988), "The implementation shortfall: paper versus reality", Journal of Portfolio Management 14(3): the paper
portfolio trades all of Q at D; what the real one paid more, and what it missed by not filling, is the shortfall.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec

from execution.tca.mids import Observed, markout, mids_at, spread_capture
from execution.tca.tracking import merge_fills, schedule_rmse, significant, thin
from schemas.order import ChildOrder, ChildState, Fill, ParentOrder
from schemas.tca import MARKOUT_HORIZONS, CostReport, Latency, MarketWindow, QualityFlag
from schemas.terms import Side

ZERO = Decimal(0)
BPS = Decimal(10_000)
BPS_STEP = Decimal("0.0001")
RATIO_STEP = Decimal("0.000001")
LATE_ARRIVAL_MS = 1_000
LEAST_COVERAGE = Decimal("0.9")
MOST_POINTS = 240
MOST_FILLS = 500


def measure(
    parent: ParentOrder,
    children: Sequence[ChildOrder],
    fills: Sequence[Fill],
    window: MarketWindow,
    *,
    schedule: Sequence[tuple[int, Decimal]] = (),
    timings: Mapping[str, Sequence[int]] | None = None,
    fee_prices: Mapping[str, Decimal] | None = None,
) -> CostReport:
    """The cost report of a parent order.

    `schedule`: (ms, cumulative quantity) as planned. `timings`: durations in ms that the records do not hold, by name, such
    as `signal_to_accept` or `send_to_ack`. `fee_prices`: price in the quote asset of assets that fees were paid in; the
    quote asset itself needs none, and the base asset is taken at the fill's price.

    The records know when a child was committed, not when its request left or was acknowledged, and a fill's time is the
    venue's clock: `accept_to_first_child`, `accept_to_first_fill` and `accept_to_last_fill` are to be read so.
    """
    fills = sorted(fills, key=lambda fill: fill.timestamp)
    trade = _Trade(parent, fills, window, fee_prices or {})
    mids = _mids(window)
    marked, complete = _markouts(parent.side, fills, mids)
    at_fills = mids_at(fills, mids)
    life = max(parent.updated_at - parent.created_at, 0)
    volume, notional = window.volume, window.notional
    seen = volume > 0 and volume >= trade.filled
    market_vwap = notional / volume if seen else None
    others = (notional - trade.notional) / (volume - trade.filled) if seen and volume > trade.filled else None
    twap = window.mid_integral / window.observed_ms if window.observed_ms > 0 else None
    told = [fill for fill in fills if fill.maker is not None]
    told_notional = sum((fill.price * fill.quantity for fill in told), ZERO)
    maker_notional = sum((fill.price * fill.quantity for fill in told if fill.maker), ZERO)
    flags = {
        QualityFlag.DECISION_MISSING: trade.decision is None,
        QualityFlag.ARRIVAL_MISSING: trade.arrival is None,
        QualityFlag.ARRIVAL_LATE: window.arrival_at is not None
        and abs(window.arrival_at - parent.created_at) > LATE_ARRIVAL_MS,
        QualityFlag.END_MISSING: trade.end is None and trade.unfilled > 0,
        QualityFlag.COVERAGE_LOW: window.observed_ms < LEAST_COVERAGE * life,
        QualityFlag.MIDS_MISSING: at_fills is None,
        QualityFlag.MARKOUTS_MISSING: not complete,
        QualityFlag.FEES_NOT_CONVERTED: trade.fees is None,
        QualityFlag.FILLS_MISSING: trade.filled < sum((child.executed for child in children), ZERO),
        QualityFlag.VOLUME_MISSING: not seen,
    }
    report = CostReport(
        order_id=parent.order_id,
        signal_id=parent.signal_id,
        strategy=parent.strategy_id,
        algorithm=parent.algorithm,
        venues=_venues(parent, children),
        symbol=parent.symbol,
        side=parent.side,
        status=parent.status,
        reason=parent.reason,
        accepted_at=parent.created_at,
        ended_at=parent.updated_at,
        duration_ms=life,
        quantity=parent.quantity,
        filled=trade.filled,
        fill_ratio=(trade.filled / parent.quantity if parent.quantity else ZERO).quantize(RATIO_STEP),
        children_sent=sum(child.sends > 0 for child in children),
        children_filled=sum(child.state is ChildState.FILLED for child in children),
        children_canceled=sum(child.state in (ChildState.CANCELED, ChildState.EXPIRED) for child in children),
        children_rejected=sum(child.state is ChildState.REJECTED for child in children),
        average_price=_price(trade.average),
        decision=trade.decision,
        arrival=trade.arrival,
        end=trade.end,
        market_vwap=_price(market_vwap),
        market_vwap_others=_price(others),
        market_twap=_price(twap),
        slippage_arrival_bps=trade.slippage(trade.arrival),
        slippage_vwap_bps=trade.slippage(market_vwap),
        slippage_vwap_others_bps=trade.slippage(others),
        slippage_twap_bps=trade.slippage(twap),
        participation=(trade.filled / volume).quantize(RATIO_STEP) if seen else None,
        maker_share=(maker_notional / told_notional).quantize(RATIO_STEP) if told_notional else None,
        spread_capture=_ratio(spread_capture(parent.side, fills, mids, Observed(window.half_spreads))),
        markouts=marked,
        fees=trade.fees_by_asset,
        latencies=_latencies(parent, children, fills, timings or {}),
        schedule_rmse=_ratio(schedule_rmse(schedule, fills, parent.quantity)),
        flags=tuple(flag for flag, raised in flags.items() if raised),
        schedule=thin(schedule, MOST_POINTS),
        path=thin(window.samples, MOST_POINTS),
        fills=merge_fills(fills, MOST_FILLS),
    )
    return msgspec.structs.replace(report, **trade.shortfall(at_fills))


def marked_out(report: CostReport, fills: Sequence[Fill], window: MarketWindow) -> CostReport:
    """A report with the mark-outs and the path that a later window shows. The rest of `measure` looks at nothing after the end."""
    path = thin(window.samples, MOST_POINTS)
    if QualityFlag.MARKOUTS_MISSING not in report.flags:
        return msgspec.structs.replace(report, path=path)
    marked, complete = _markouts(report.side, fills, _mids(window))
    flags = tuple(flag for flag in report.flags if not complete or flag is not QualityFlag.MARKOUTS_MISSING)
    return msgspec.structs.replace(report, markouts=marked, flags=flags, path=path)


def _mids(window: MarketWindow) -> Observed:
    """The mids seen; the arrival price is one of them."""
    samples = list(window.samples)
    if window.arrival is not None and window.arrival_at is not None:
        samples.append((window.arrival_at, window.arrival))
    return Observed(samples)


class _Trade:
    """One order's sums, and the costs that follow from them, in the quote asset until they are asked for in bps."""

    def __init__(
        self, parent: ParentOrder, fills: Sequence[Fill], window: MarketWindow, fee_prices: Mapping[str, Decimal]
    ) -> None:
        self._sign = parent.side.sign
        self._quantity = parent.quantity
        self._fills = fills
        self.filled = sum((fill.quantity for fill in fills), ZERO)
        self.notional = sum((fill.price * fill.quantity for fill in fills), ZERO)
        self.unfilled = max(parent.quantity - self.filled, ZERO)
        self.average = self.notional / self.filled if self.filled else None
        self.decision, self.arrival, self.end = map(_positive, (window.decision, window.arrival, window.end))
        self.fees_by_asset: dict[str, Decimal] = {}
        self.fees: Decimal | None = ZERO
        base, _, rest = parent.symbol.partition("/")
        quote = rest.partition(":")[0]
        for fill in fills:
            if not fill.fee:
                continue
            asset = fill.fee_asset or "?"
            self.fees_by_asset[asset] = self.fees_by_asset.get(asset, ZERO) + fill.fee
            price = Decimal(1) if asset == quote else fill.price if asset == base else fee_prices.get(asset)
            # One fee that cannot be said in the quote asset makes the sum unknown: leaving it out would call it free.
            self.fees = None if price is None or self.fees is None else self.fees + fill.fee * price

    def slippage(self, benchmark: Decimal | None) -> Decimal | None:
        """s (average price - benchmark) / benchmark in bps; None when nothing was filled or the benchmark is not known."""
        if self.average is None or benchmark is None or benchmark <= 0:
            return None
        return _bps(self._sign * (self.average - benchmark), benchmark)

    def shortfall(self, mids: Sequence[Decimal] | None) -> dict[str, Decimal | str | None]:
        """The fields of the report that make up the shortfall."""
        basis = self.decision or self.arrival
        if basis is None:
            return {}
        parts: dict[str, Decimal | None] = {
            "delay_bps": self._delay(),
            "execution_bps": self._paid_above(self.arrival),
            "spread_bps": self._spread(mids),
            "impact_bps": self._impact(mids),
            "opportunity_bps": self._missed(basis),
            "fees_bps": self.fees,
        }
        over = self._quantity * basis
        in_bps: dict[str, Decimal | str | None] = {name: _bps(part, over) for name, part in parts.items()}
        in_bps["basis"] = "decision" if self.decision is not None else "arrival"
        if self.decision is not None:
            in_bps["total_bps"] = _bps(self._whole(self.decision), over)
        if self.arrival is not None:
            in_bps["since_arrival_bps"] = _bps(self._whole(self.arrival), self._quantity * self.arrival)
        return in_bps

    def _delay(self) -> Decimal | None:
        if self.decision is None or self.arrival is None:
            return None
        return self.filled * self._sign * (self.arrival - self.decision)

    def _paid_above(self, price: Decimal | None) -> Decimal | None:
        return None if price is None else self._sign * (self.notional - self.filled * price)

    def _missed(self, price: Decimal) -> Decimal | None:
        if not self.unfilled:
            return ZERO
        return None if self.end is None else self.unfilled * self._sign * (self.end - price)

    def _whole(self, price: Decimal) -> Decimal | None:
        paid, missed = self._paid_above(price), self._missed(price)
        return None if paid is None or missed is None or self.fees is None else paid + missed + self.fees

    def _spread(self, mids: Sequence[Decimal] | None) -> Decimal | None:
        if mids is None or self.arrival is None:
            return None
        return self._sign * sum(
            (fill.quantity * (fill.price - mid) for fill, mid in zip(self._fills, mids, strict=True)), ZERO
        )

    def _impact(self, mids: Sequence[Decimal] | None) -> Decimal | None:
        if mids is None or self.arrival is None:
            return None
        arrival = self.arrival
        return self._sign * sum(
            (fill.quantity * (mid - arrival) for fill, mid in zip(self._fills, mids, strict=True)), ZERO
        )


def _positive(price: Decimal | None) -> Decimal | None:
    return price if price is not None and price > 0 else None


def _bps(cost: Decimal | None, over: Decimal) -> Decimal | None:
    if cost is None or over <= 0:
        return None
    # Adding zero turns -0.0000 into 0.0000.
    return (cost / over * BPS).quantize(BPS_STEP) + ZERO


def _price(price: Decimal | None) -> Decimal | None:
    return None if price is None else significant(price)


def _ratio(number: Decimal | None) -> Decimal | None:
    return None if number is None else number.quantize(RATIO_STEP) + ZERO


def _venues(parent: ParentOrder, children: Sequence[ChildOrder]) -> tuple[str, ...]:
    """Where it was filled; where it was tried when nothing was; else where it should have gone."""
    filled = {child.venue for child in children if child.filled}
    return tuple(sorted(filled or {child.venue for child in children} or {parent.exchange}))


def _markouts(side: Side, fills: Sequence[Fill], mids: Observed) -> tuple[dict[int, Decimal | None], bool]:
    marked: dict[int, Decimal | None] = {}
    whole = True
    for seconds in MARKOUT_HORIZONS:
        cost, complete = markout(side, fills, mids, seconds * 1000)
        marked[seconds] = _bps(cost, Decimal(1))
        whole = whole and complete
    return marked, whole


def _latencies(
    parent: ParentOrder, children: Sequence[ChildOrder], fills: Sequence[Fill], timings: Mapping[str, Sequence[int]]
) -> dict[str, Latency]:
    found = {name: list(values) for name, values in timings.items() if values}
    if children:
        found.setdefault("accept_to_first_child", [min(child.created_at for child in children) - parent.created_at])
    if fills:
        found.setdefault("accept_to_first_fill", [fills[0].timestamp - parent.created_at])
        found.setdefault("accept_to_last_fill", [fills[-1].timestamp - parent.created_at])
    return {name: _latency(values) for name, values in found.items()}


def _latency(values: Sequence[int]) -> Latency:
    ordered = sorted(values)

    def rank(share: float) -> int:
        return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]

    return Latency(count=len(ordered), p50=rank(0.5), p95=rank(0.95), max=ordered[-1])
