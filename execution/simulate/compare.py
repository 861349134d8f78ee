"""Contestants over the same data with the same starts: what each one's orders cost, and the differences, pair by pair."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from statistics import fmean, median, stdev
from typing import Any

import structlog

from execution.simulate.baselines import known
from execution.simulate.scenarios import Data, ScenarioError
from execution.simulate.simulation import Scenario, simulate
from execution.tca.aggregate import FEW, interval
from schemas import exact_json
from schemas.event import OrderEvent
from schemas.tca import CostReport

MARKOUT_SECONDS = 10
_WORTH_PROCESSES = 150_000
"""Market events over all runs from which on processes pay for their start."""


@dataclass(frozen=True, slots=True)
class Model:
    """What a simulated venue does with an order."""

    latency_ms: float = 50.0
    queue_ahead: Decimal = Decimal(1)
    maker_fee: Decimal = Decimal(0)
    taker_fee: Decimal = Decimal(0)
    """Fractions of the notional."""
    fees: Mapping[str, tuple[Decimal, Decimal]] = field(default_factory=dict)
    """By venue: maker and taker fee, where they are others."""

    def fees_of(self, venue: str) -> tuple[Decimal, Decimal]:
        """Maker and taker fee of a venue."""
        return self.fees.get(venue, (self.maker_fee, self.taker_fee))

    def words(self) -> list[str]:
        """What the figures rest on, for people."""
        return [
            "Prices do not react to our orders: there is no impact beyond the levels that an order takes. What was taken of a level "
            "stays taken until a book shows another quantity there. Large orders look cheaper than they would be.",
            f"Queue: a resting order stands behind {_times(self.queue_ahead)} what its level showed when it arrived. Trades at its price "
            "eat the queue from the front; what left without a trade left evenly; a trade through its price fills it.",
            f"Latency: {self.latency_ms:g} ms there and back, half each way. Fees: {_fees(self.maker_fee, self.taker_fee)}"
            + "".join(f"; at {venue} {_fees(*fees)}" for venue, fees in sorted(self.fees.items()))
            + ".",
        ]


def _fees(maker: Decimal, taker: Decimal) -> str:
    return f"maker {exact_json.plain(maker * 10_000)} bps, taker {exact_json.plain(taker * 10_000)} bps"


def _times(factor: Decimal) -> str:
    return "all of" if factor == 1 else f"{factor:f} times" if factor else "none of"


@dataclass(frozen=True, slots=True)
class Job:
    """One contestant's run."""

    label: str
    data: tuple[Data, ...]
    begins: Mapping[str, int]
    """By venue: when its first event is, in ms."""
    signals: tuple[tuple[int, Mapping[str, Any]], ...]
    model: Model
    strict: bool = True
    """Whether a refused signal ends the run."""


@dataclass(slots=True)
class Run:
    """What came of a contestant."""

    label: str
    asked: int
    """How many orders were to start."""
    reports: list[CostReport] = field(default_factory=list)
    refused: list[tuple[str, str, str]] = field(default_factory=list)
    """(signal id, field, reason)."""
    notes: tuple[str, ...] = ()
    """What the algorithm chose for its first order."""
    unfinished: int = 0
    children: int = 0
    fills: int = 0
    seconds: float = 0.0
    """Of real time."""
    virtual_seconds: float = 0.0


def run(job: Job) -> Run:
    """Simulate one contestant in this process.

    Raises:
        ScenarioError: its data cannot be read, or, if it is strict, its first order is refused.
    """
    notes: list[tuple[str, ...]] = []

    def told(events: Sequence[OrderEvent]) -> None:
        notes.extend(event.notes for event in events if isinstance(event.notes, tuple) and not notes)

    began = time.perf_counter()
    scenario = Scenario(
        markets={data.venue: data.open for data in job.data},
        signals=job.signals,
        start=min(job.begins.values()),
        begins=job.begins,
        latency_ms=job.model.latency_ms,
        queue_ahead=job.model.queue_ahead,
        maker_fee=job.model.maker_fee,
        taker_fee=job.model.taker_fee,
        fees=job.model.fees,
        stop_on_refusal=job.strict,
    )
    with known():
        outcome = simulate(scenario, told)
    if job.strict and outcome.refused:
        refusal = outcome.refused[0][1]
        if refusal.field in ("quantity", "price", "symbol"):
            raise ScenarioError(f"--{refusal.field}", refusal.reason)
        where = refusal.field.removeprefix("algorithm_params.")
        raise ScenarioError("--algorithm", f"{job.label}: {where}: {refusal.reason}")
    return Run(
        label=job.label,
        asked=len(job.signals),
        reports=sorted(outcome.reports, key=lambda report: report.signal_id),
        refused=[(signal_id, refusal.field, refusal.reason) for signal_id, refusal in outcome.refused],
        notes=notes[0] if notes else (),
        unfinished=outcome.unfinished,
        children=outcome.children,
        fills=outcome.fills,
        seconds=time.perf_counter() - began,
        virtual_seconds=outcome.virtual_seconds,
    )


def run_all(
    jobs: Sequence[Job], *, events: int, processes: int | None = None, done: Callable[[Run], None] = lambda _: None
) -> list[Run]:
    """Every contestant's run, in their order. `events`: of the market, in one run: with many, each core takes runs of its own.

    Raises:
        ScenarioError: as `run`, of the first contestant that cannot go on.
    """
    wanted = min(len(jobs), processes or os.cpu_count() or 1)
    if wanted < 2 or (processes is None and events * len(jobs) < _WORTH_PROCESSES):
        return [_told(run(job), done) for job in jobs]
    executor = ProcessPoolExecutor(wanted, multiprocessing.get_context("spawn"), initializer=quiet_process)
    try:
        futures = [executor.submit(_tried, job) for job in jobs]
        found: list[Run] = []
        for future in futures:
            ended = future.result()
            if isinstance(ended, tuple):
                raise ScenarioError(*ended)
            found.append(_told(ended, done))
        return found
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            child.terminate()


def _told(ended: Run, done: Callable[[Run], None]) -> Run:
    done(ended)
    return ended


def _tried(job: Job) -> Run | tuple[str, str]:
    """A run, or the option and the reason why not: errors with fields do not travel between processes by themselves."""
    try:
        return run(job)
    except ScenarioError as error:
        return error.option, error.reason


def quiet_process() -> None:
    """Let Ctrl-C end this process without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    quiet()


def quiet() -> None:
    """Keep the service's log lines about a simulated market to what is broken, on stderr."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


# --- figures ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean over orders, each counting the same, with its 95 % bootstrap interval; None below two orders."""

    n: int
    mean: float
    low: float | None
    high: float | None

    @property
    def told_apart(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True, slots=True)
class Row:
    """One contestant's figures. Costs in bps, positive is cost; ratios as fractions; None: not known."""

    label: str
    n: int
    asked: int
    unfinished: int
    filled: float | None
    cost: Figure | None
    """Since arrival: execution, what was missed, fees."""
    median: float | None
    deviation: float | None
    """Standard deviation of the cost between orders: the risk."""
    vwap: float | None
    twap: float | None
    spread: float | None
    impact: float | None
    opportunity: float | None
    fees: float | None
    maker: float | None
    participation: float | None
    """Of everybody's volume while the orders worked."""
    markout: float | None
    children: float | None
    """Per order."""
    seconds: float | None
    """From acceptance to the end of an order."""
    differences: tuple[Figure | None, ...]
    """The cost less that of each reference, of the orders that both have; None for the reference itself."""

    @property
    def few(self) -> bool:
        return self.n < FEW


def rows(runs: Sequence[Run], references: int = 2) -> list[Row]:
    """A row for each run; differences are to each of the first `references` runs."""
    measured = [_costs(one) for one in runs[:references]]
    return [_row(one, [None if one is runs[at] else own for at, own in enumerate(measured)]) for one in runs]


def costs(run: Run) -> list[float]:
    """What its orders cost since arrival, in bps."""
    return list(_costs(run).values())


def _row(run: Run, references: Sequence[Mapping[str, float] | None]) -> Row:
    own = _costs(run)
    paired = [
        None if other is None else [cost - other[start] for start, cost in own.items() if start in other]
        for other in references
    ]
    values = list(own.values())
    return Row(
        label=run.label,
        n=len(run.reports),
        asked=run.asked,
        unfinished=run.unfinished,
        filled=_mean(run, "fill_ratio"),
        cost=figure(values, f"cost:{run.label}"),
        median=median(values) if values else None,
        deviation=stdev(values) if len(values) > 1 else None,
        vwap=_mean(run, "slippage_vwap_bps"),
        twap=_mean(run, "slippage_twap_bps"),
        spread=_mean(run, "spread_bps"),
        impact=_mean(run, "impact_bps"),
        opportunity=_mean(run, "opportunity_bps"),
        fees=_mean(run, "fees_bps"),
        maker=_mean(run, "maker_share"),
        participation=_participation(run.reports),
        markout=_averaged([report.markouts.get(MARKOUT_SECONDS) for report in run.reports]),
        children=_mean(run, "children_sent"),
        seconds=_averaged([report.duration_ms / 1000 for report in run.reports]),
        differences=tuple(
            None if pairs is None else figure(pairs, f"difference {at}:{run.label}") for at, pairs in enumerate(paired)
        ),
    )


def figure(values: Sequence[float], seed: str) -> Figure | None:
    """The mean of values with its interval; None without values."""
    if not values:
        return None
    low, high = interval(values, [1.0] * len(values), seed=seed)
    return Figure(len(values), fmean(values), low, high)


def _costs(run: Run) -> dict[str, float]:
    """By the number of the start: what contestants share."""
    return {
        report.signal_id.rpartition("-")[2]: float(report.since_arrival_bps)
        for report in run.reports
        if report.since_arrival_bps is not None
    }


def _participation(reports: Sequence[CostReport]) -> float | None:
    """What was filled over everybody's volume, both summed over the orders: quiet hours do not count as much as busy ones."""
    told = [(report.filled, report.filled / report.participation) for report in reports if report.participation]
    volume = sum((seen for _, seen in told), Decimal(0))
    return float(sum((filled for filled, _ in told), Decimal(0)) / volume) if volume else None


def _mean(run: Run, name: str) -> float | None:
    return _averaged([getattr(report, name) for report in run.reports])


def _averaged(values: Sequence[Decimal | float | None]) -> float | None:
    found = [float(value) for value in values if value is not None]
    return fmean(found) if found else None
