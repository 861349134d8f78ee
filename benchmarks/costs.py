"""What the algorithms cost and how closely they track their benchmarks, on the same seeded markets: `python -m benchmarks.costs`.

Simulated with the service's own planner, runner and algorithms over the paper venue (see docs/algorithms.md for its model; own
orders do not move the market's prices, so what is saved here is spread and the walk of the book, not lasting impact). Every
contestant trades the same parents at the same times.
"""

from __future__ import annotations

import argparse
import logging
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import structlog

from adapters.recorded import Book, MarketEvent, SyntheticConfig, SyntheticMarket
from adapters.recorded.events import EventSource
from execution.simulate.simulation import Outcome, Scenario, simulate
from schemas.market import BookLevel, Candle, MarketRules
from schemas.tca import CostReport

DAY = 86_400
SLICES = 20
NAIVE, BOTS = "one market order", "market slices at fixed times"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.costs", description=__doc__)
    parser.add_argument("--parents", type=int, default=60, help="parent orders per contestant (default %(default)s)")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    started = time.monotonic()
    print(cost(options.parents))
    print(tracking(max(options.parents // 2, 20)))
    print(routing(max(options.parents // 2, 20)))
    print(f"{time.monotonic() - started:.0f} s")
    return 0


# --- cost against what common bots do -------------------------------------------------------------------------------------


def cost(parents: int, *, seconds: int = 300, quantity: str = "2") -> str:
    """Cost since arrival, fees included, by algorithm."""
    config = SyntheticConfig(
        seconds=parents * seconds + 400,
        trades_per_second=2,
        spread_bps=2,
        volatility=0.03,
        seed=7,
        history_seconds=3 * DAY,
    )
    schedule = {"duration_seconds": seconds, "slices": SLICES}
    contestants: dict[str, tuple[str, dict[str, Any]]] = {
        NAIVE: ("direct", {}),
        BOTS: ("slices", {}),
        "twap aggressive": ("twap", {**schedule, "style": "aggressive"}),
        "twap passive": ("twap", {**schedule, "style": "passive"}),
        "twap adaptive": ("twap", schedule),
        "vwap": ("vwap", schedule),
        "implementation_shortfall": ("implementation_shortfall", schedule),
    }
    lines = [
        f"Cost since arrival in bps, fees included (1 bp as a maker, 5 bps as a taker): {parents} parents of {quantity} BTC over {seconds} s,",
        "about a tenth of the volume; positive is cost; +- one standard error; the last column pairs the same parents.",
        f"{'':30}{'mean':>8}{'+-':>7}{'maker':>8}{'filled':>8}{'against bots':>15}{'+-':>7}",
    ]
    results: dict[str, list[CostReport]] = {}
    for name, (algorithm, parameters) in contestants.items():
        starts = [config.start_ms + 5_000 + index * seconds * 1000 for index in range(parents)]
        if algorithm == "slices":
            results[name] = _sliced(config, starts, seconds, Decimal(quantity))
        else:
            signals = [(at, _signal(index, algorithm, parameters, quantity)) for index, at in enumerate(starts)]
            results[name] = _run({"alpha": lambda: SyntheticMarket(config)}, signals, config.start_ms).reports
    bots = {report.signal_id: _paid(report) for report in results[BOTS]}
    for name, reports in results.items():
        paid = [_paid(report) for report in reports]
        paired = [_paid(report) - bots[report.signal_id] for report in reports if report.signal_id in bots]
        maker = statistics.fmean(float(report.maker_share or 0) for report in reports)
        filled = statistics.fmean(float(report.fill_ratio) for report in reports)
        lines.append(
            f"{name:30}{statistics.fmean(paid):8.2f}{_error(paid):7.2f}{maker:8.0%}{filled:8.1%}"
            f"{statistics.fmean(paired):15.2f}{_error(paired):7.2f}"
        )
    return "\n".join(lines) + "\n"


def _sliced(config: SyntheticConfig, starts: Sequence[int], seconds: int, quantity: Decimal) -> list[CostReport]:
    """The common bot: a market order every so often, each forgotten when it is sent; added up per parent."""
    each = quantity / SLICES
    signals = [
        (at + slice_ * seconds * 1000 // SLICES, _signal(index, "direct", {}, f"{each:f}", part=slice_))
        for index, at in enumerate(starts)
        for slice_ in range(SLICES)
    ]
    reports = _run({"alpha": lambda: SyntheticMarket(config)}, signals, config.start_ms).reports
    added = []
    for index in range(len(starts)):
        parts = sorted(
            (report for report in reports if report.signal_id.startswith(f"p{index}.")),
            key=lambda part: part.accepted_at,
        )
        filled = sum((part.filled for part in parts), Decimal(0))
        notional = sum((part.filled * (part.average_price or 0) for part in parts), Decimal(0))
        arrival = parts[0].arrival
        assert arrival is not None
        fees = sum((part.fees_bps or Decimal(0)) * part.quantity * (part.arrival or 0) for part in parts)
        added.append(
            msgspec.structs.replace(
                parts[0],
                signal_id=f"p{index}",
                quantity=quantity,
                filled=filled,
                fill_ratio=filled / quantity,
                average_price=notional / filled,
                slippage_arrival_bps=parts[0].side.sign * (notional / filled - arrival) / arrival * 10_000,
                fees_bps=fees / (quantity * arrival),
            )
        )
    return added


# --- tracking -------------------------------------------------------------------------------------------------------------


def tracking(parents: int, *, seconds: int = 3_600, curve: float = 0.5) -> str:
    """How far average prices are from the market's TWAP and VWAP over the order's life: root mean square in bps."""
    config = SyntheticConfig(
        seconds=parents * seconds + 400,
        trades_per_second=2,
        spread_bps=2,
        volatility=0.05,
        seed=11,
        curve=curve,
        curve_seconds=seconds,
        book_interval_ms=1000,
    )
    profile = [1 + curve * (12 * ((k + 0.5) / SLICES - 0.5) ** 2 - 1) for k in range(SLICES)]
    schedule = {"duration_seconds": seconds, "slices": SLICES, "style": "passive"}
    contestants: dict[str, tuple[str, dict[str, Any]]] = {
        "twap": ("twap", schedule),
        "vwap, flat": ("vwap", {**schedule, "profile": [1] * SLICES}),
        "vwap, the right profile": ("vwap", {**schedule, "profile": [f"{value:.6f}" for value in profile]}),
    }
    sigma = config.volatility * math.sqrt(seconds / DAY) * 10_000
    theory = curve * sigma * math.sqrt(2 / 105)
    lines = [
        f"Tracking error: root mean square in bps of {parents} parents over {seconds} s in a market whose volume has a U shape "
        f"(a = {curve:g}).",
        f"A flat schedule's error against the VWAP is a sigma sqrt(2/105) = {theory:.2f} bps from the shape alone; the rest is",
        "the volume's own noise and the price within each slice, the same for all.",
        f"{'':30}{'to TWAP':>9}{'to VWAP':>9}{'mean to VWAP':>14}",
    ]
    for name, (algorithm, parameters) in contestants.items():
        signals = [
            (config.start_ms + 5_000 + index * seconds * 1000, _signal(index, algorithm, parameters, "5"))
            for index in range(parents)
        ]
        reports = _run({"alpha": lambda: SyntheticMarket(config)}, signals, config.start_ms).reports
        to_twap = [float(report.slippage_twap_bps or 0) for report in reports]
        to_vwap = [float(report.slippage_vwap_bps or 0) for report in reports]
        lines.append(f"{name:30}{_rms(to_twap):9.2f}{_rms(to_vwap):9.2f}{statistics.fmean(to_vwap):14.2f}")
    return "\n".join(lines) + "\n"


# --- routing --------------------------------------------------------------------------------------------------------------


class Offset(EventSource):
    """A venue that follows another market at a small distance that comes and goes, with its own depth and no tape."""

    def __init__(self, master: SyntheticMarket, venue: str, *, seed: int, bps: float, depth: Decimal) -> None:
        self.symbol, self.venue = master.symbol, venue
        self._master, self._seed, self._bps, self._depth = master, seed, bps, depth

    def rules(self) -> MarketRules:
        return self._master.rules()

    def history(self) -> tuple[list[Candle], int]:
        return [], 60

    def describe(self) -> list[str]:
        return [f"{self.venue} follows {self._master.symbol} at a distance of {self._bps:g} bps (standard deviation)"]

    def events(self) -> Iterator[MarketEvent]:
        draw, distance, tick = random.Random(self._seed), 0.0, self._master.config.tick
        keep = 0.995
        for event in self._master.events():
            if not isinstance(event, Book):
                continue
            distance = keep * distance + math.sqrt(1 - keep**2) * draw.gauss(0, self._bps)
            shift = (event.asks[0].price * Decimal(distance / 10_000) / tick).to_integral_value() * tick
            yield Book(
                event.ts, event.symbol, self._shifted(event.bids, shift), self._shifted(event.asks, shift), self.venue
            )

    def _shifted(self, levels: tuple[BookLevel, ...], shift: Decimal) -> tuple[BookLevel, ...]:
        return tuple(BookLevel(level.price + shift, level.quantity * self._depth) for level in levels)


def routing(parents: int) -> str:
    """The router over three venues against each of them alone, the same parents."""
    config = SyntheticConfig(seconds=parents * 30 + 100, spread_bps=2, volatility=0.03, seed=13)
    venues: dict[str, Callable[[], EventSource]] = {
        name: lambda name=name, seed=seed, depth=depth: Offset(  # type: ignore[misc]
            SyntheticMarket(config), name, seed=seed, bps=2.0, depth=Decimal(depth)
        )
        for name, seed, depth in (("alpha", 1, "1"), ("beta", 2, "0.5"), ("gamma", 3, "0.7"))
    }
    lines = [
        f"SmartRouter over three venues (each a few bps from the others, fees 5 bps) against one venue alone: {parents} parents of",
        "1 BTC, all at once. Effective price against the mid of alpha at arrival in bps, fees included.",
        f"{'':30}{'mean':>8}{'+-':>7}{'filled':>8}{'saved by routing':>18}{'+-':>7}",
    ]
    results: dict[str, dict[str, float]] = {}
    filled: dict[str, float] = {}
    for name in ("smart_router", *venues):
        routed = name == "smart_router"
        fields = {"exchange": "alpha", "venues": list(venues)} if routed else {"exchange": name}
        signals = [
            (
                config.start_ms + 5_000 + index * 30_000,
                {**_signal(index, "smart_router" if routed else "direct", {}, "1"), **fields},
            )
            for index in range(parents)
        ]
        reports = _run(venues, signals, config.start_ms).reports
        results[name] = {report.signal_id: _paid(report) for report in reports}
        filled[name] = statistics.fmean(float(report.fill_ratio) for report in reports)
        if routed:
            arrivals = {report.signal_id: report.arrival for report in reports}
        else:
            # Everybody is measured against the same price.
            results[name] = {
                report.signal_id: _against(report, arrivals[report.signal_id])
                for report in reports
                if report.signal_id in arrivals
            }
    best = min(venues, key=lambda name: statistics.fmean(results[name].values()))
    for name, paid in results.items():
        saved = [paid[signal] - results["smart_router"][signal] for signal in paid if signal in results["smart_router"]]
        label = f"{name} (best single venue)" if name == best else name
        lines.append(
            f"{label:30}{statistics.fmean(paid.values()):8.2f}{_error(list(paid.values())):7.2f}{filled[name]:8.1%}"
            + (f"{statistics.fmean(saved):18.2f}{_error(saved):7.2f}" if name != "smart_router" else "")
        )
    return "\n".join(lines) + "\n"


# --- common ---------------------------------------------------------------------------------------------------------------


def _signal(
    index: int, algorithm: str, parameters: dict[str, Any], quantity: str, *, part: int | None = None
) -> dict[str, Any]:
    return {
        "signal_id": f"p{index}" if part is None else f"p{index}.{part}",
        "strategy_id": "benchmark",
        "exchange": "alpha",
        "symbol": "BTC/USDT",
        "side": "sell" if index % 2 else "buy",
        "quantity": quantity,
        "order_type": "market",
        "algorithm": algorithm,
        "algorithm_params": parameters,
    }


def _run(markets: Any, signals: Sequence[tuple[int, dict[str, Any]]], start: int) -> Outcome:
    outcome = simulate(
        Scenario(
            markets=markets, signals=signals, start=start, maker_fee=Decimal("0.0001"), taker_fee=Decimal("0.0005")
        )
    )
    if outcome.refused:
        raise RuntimeError(f"refused: {outcome.refused[0][1]}")
    return outcome


def _paid(report: CostReport) -> float:
    """Cost of what was traded, in bps of the arrival price, fees included."""
    fees = float(report.fees_bps or 0) / float(report.fill_ratio or 1)
    return float(report.slippage_arrival_bps or 0) + fees


def _against(report: CostReport, arrival: Decimal | None) -> float:
    assert arrival is not None
    assert report.average_price is not None
    slippage = report.side.sign * (report.average_price - arrival) / arrival * 10_000
    return float(slippage) + float(report.fees_bps or 0) / float(report.fill_ratio or 1)


def _error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(statistics.fmean(value * value for value in values))


if __name__ == "__main__":
    raise SystemExit(main())
