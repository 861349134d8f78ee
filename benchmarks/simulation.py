"""How many child orders a simulation carries per second of CPU time, and in how much memory: `python -m benchmarks.simulation`.

TWAP orders over a synthetic market with one book a second, with the service's own planner, runner and algorithms, in virtual time.
Each child is decided, gated, committed to the ledger in memory, filled by the paper venue, booked, told in events, and measured
in its order's cost report. Each size runs in a process of its own: the memory is the most that process held.
"""

from __future__ import annotations

import argparse
import logging
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from decimal import Decimal
from multiprocessing import get_context

import msgspec
import structlog

from adapters.recorded import SyntheticConfig, SyntheticMarket
from execution.simulate.simulation import Scenario, simulate

QUANTITY = Decimal("0.001")
"""Of each child, in the base asset."""
LULL = 30
"""Seconds of market before and after an order."""


class Size(msgspec.Struct, frozen=True):
    """So many orders at a time, each of so many slices, one slice a second; `rounds` times, one after the other."""

    name: str
    parents: int
    slices: int
    rounds: int = 1

    @property
    def children(self) -> int:
        return self.parents * self.slices * self.rounds


class Measured(msgspec.Struct, frozen=True):
    children: int
    cpu_seconds: float
    peak_mib: float
    virtual_hours: float


SIZES = (
    Size("10 orders of 100 slices", 10, 100),
    Size("10 orders of 1,000 slices", 10, 1_000),
    Size("10 orders of 10,000 slices", 10, 10_000),
    Size("100 orders of 1,000 slices", 100, 1_000),
    Size("1 order of 1,000 slices", 1, 1_000),
    Size("1 order of 10,000 slices, ten times", 1, 10_000, 10),
)


def measure(size: Size) -> Measured:
    """Run it once.

    Raises:
        RuntimeError: an order did not end filled, or a child is missing: the figures would mean nothing.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    each = size.slices + 2 * LULL
    market = SyntheticConfig(seconds=each * size.rounds + LULL, book_interval_ms=1000, trades_per_second=0.5)
    signals = [
        (
            market.start_ms + (turn * each + 1) * 1000,
            {
                "signal_id": f"simulation-{turn}-{number}",
                "strategy_id": "benchmark",
                "exchange": "alpha",
                "symbol": market.symbol,
                "side": "buy",
                "quantity": str(QUANTITY * size.slices),
                "order_type": "market",
                "algorithm": "twap",
                "algorithm_params": {"duration_seconds": size.slices, "slices": size.slices, "style": "aggressive"},
            },
        )
        for turn in range(size.rounds)
        for number in range(size.parents)
    ]
    scenario = Scenario(
        markets={"alpha": lambda: SyntheticMarket(market)}, signals=signals, start=market.start_ms, latency_ms=0
    )
    started = time.process_time()
    outcome = simulate(scenario)
    seconds = time.process_time() - started
    statuses = {report.status.value for report in outcome.reports}
    if outcome.refused or outcome.unfinished or statuses != {"filled"} or outcome.children != size.children:
        raise RuntimeError(f"{size.name}: {outcome.children} children, {outcome.unfinished} unfinished, {statuses}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Measured(outcome.children, seconds, peak, outcome.virtual_seconds / 3600)


def main() -> int:
    """Measure and print; returns 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only sizes of up to 10,000 children")
    options = parser.parse_args()
    if not sys.platform.startswith("linux"):
        parser.error("peak memory is read as Linux tells it")
    print(f"{'':36}{'children':>10}{'children per CPU-second':>25}{'peak MiB':>10}{'hours simulated':>17}")
    for size in SIZES:
        if options.quick and size.children > 10_000:
            continue
        with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as alone:
            got = alone.submit(measure, size).result()
        rate = got.children / got.cpu_seconds
        print(
            f"{size.name:36}{got.children:>10,}{rate:>25,.0f}{got.peak_mib:>10.0f}{got.virtual_hours:>17.1f}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
