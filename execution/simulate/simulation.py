"""One simulated run: signals into the real planner, runner and algorithms, child orders to paper venues, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from adapters.base import VenueFill, VenueOrder
from adapters.paper import PaperAdapter
from adapters.recorded import RecordedMarket, RecordingError
from adapters.recorded.events import EventSource
from execution import garbage
from execution.costs import Costs
from execution.history import Histories
from execution.ledger import order_key
from execution.market_data import MarketData
from execution.order_actor import Arrival
from execution.planning import Planner
from execution.runner import Runner
from execution.simulate.memory_ledger import MemoryLedger
from execution.simulate.unmeasured import Unmeasured
from execution.simulate.virtual_time import Stuck, VirtualLoop
from schemas.event import OrderEvent
from schemas.signal import InvalidSignal, parse
from schemas.tca import CostReport


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is traded, and on which markets. Times in ms since the epoch."""

    markets: Mapping[str, Callable[[], EventSource]]
    """By venue: makes the venue's events, the same ones each time."""
    signals: Sequence[tuple[int, Mapping[str, Any]]]
    """(when it is accepted, the signal)."""
    start: int
    """When the recordings begin."""
    latency_ms: float = 50.0
    queue_ahead: Decimal = Decimal(1)
    maker_fee: Decimal | None = None
    taker_fee: Decimal | None = None
    """Fractions; None: the recording's rules."""
    begins: Mapping[str, int] = field(default_factory=dict)
    """By venue: when its first event is, where that is known; else it is looked for."""
    fees: Mapping[str, tuple[Decimal, Decimal]] = field(default_factory=dict)
    """By venue: maker and taker fee, where they are others."""
    stop_on_refusal: bool = False
    """Whether the first signal that is refused ends the run."""


@dataclass(slots=True)
class Outcome:
    """What came of it."""

    reports: list[CostReport] = field(default_factory=list)
    """One per order that had a child, in the order in which they ended."""
    refused: list[tuple[str, InvalidSignal]] = field(default_factory=list)
    unfinished: int = 0
    """Orders that still worked when the recordings ended."""
    children: int = 0
    fills: int = 0
    events: int = 0
    virtual_seconds: float = 0.0


def simulate(scenario: Scenario, told: Callable[[Sequence[OrderEvent]], None] | None = None) -> Outcome:
    """Run a scenario to the end of its orders or of its recordings. The same scenario has the same outcome.

    Raises:
        NotReady: a recording cannot be read.
    """
    garbage.settle()
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(_Run(scenario, told).run())


class _Run:
    def __init__(self, scenario: Scenario, told: Callable[[Sequence[OrderEvent]], None] | None) -> None:
        self._scenario = scenario
        self._outcome = Outcome()
        self._told = told
        self._reports: dict[str, CostReport] = {}
        self._runner: Runner | None = None

    async def run(self) -> Outcome:
        scenario, loop = self._scenario, asyncio.get_running_loop()

        def now() -> int:
            return scenario.start + int(loop.time() * 1000 + 1e-6)

        markets = {
            venue: RecordedMarket(
                make(),
                name=venue,
                now=now,
                starts_at=scenario.begins.get(venue) or _begins(make(), scenario.start),
                monotonic=loop.time,
            )
            for venue, make in scenario.markets.items()
        }
        adapters: dict[str, Any] = {
            venue: PaperAdapter(
                venue,
                market,
                latency_ms=scenario.latency_ms,
                queue_ahead=scenario.queue_ahead,
                maker_fee=scenario.fees.get(venue, (scenario.maker_fee, None))[0],
                taker_fee=scenario.fees.get(venue, (None, scenario.taker_fee))[1],
                now=now,
            )
            for venue, market in markets.items()
        }
        for adapter in adapters.values():
            await adapter.start()
        ledger = MemoryLedger(self._tell)
        data = MarketData(adapters, now=now, monotonic=loop.time, linger=1e9)
        costs = Costs(data, self._save)
        runner = self._runner = Runner(
            ledger,
            adapters,
            Unmeasured(),
            instance="simulation",
            max_retries=3,
            committed=lambda _: None,
            market=data,
            costs=costs,
            now=now,
            monotonic=loop.time,
        )
        runner.bound(sends=1_000_000_000, live=1_000_000_000)
        await runner.take_over(ledger.lease)
        planner = Planner(
            adapters,
            data,
            Histories(adapters, now=now),
            execution_timeout=None,
            signal_max_age=1e18,
            bracket_distance_bps=Decimal(5),
            bracket_policy="adjust",
            now=now,
        )
        streams = [asyncio.create_task(adapter.run_stream(self)) for adapter in adapters.values()]
        ended = asyncio.create_task(_all_ended(markets.values()))
        for venue in scenario.markets:
            for symbol in {str(signal.get("symbol")) for _, signal in scenario.signals}:
                data.hold(venue, symbol, "simulation")
        feeding = asyncio.create_task(self._feed(planner, runner, now))
        try:
            await asyncio.wait([feeding])
            feeding.result()
            while runner.live and not ended.done():
                await asyncio.wait([ended], timeout=10.0)
            # What a minute after the last fill shows belongs to it.
            await asyncio.wait([ended], timeout=65.0)
        except Stuck:
            pass
        outcome = self._outcome
        outcome.unfinished = runner.live
        outcome.children = sum(len(actor.state.children) for actor in runner.actors()) + sum(
            report.children_sent for report in self._reports.values()
        )
        outcome.virtual_seconds = loop.time()
        await costs.close()
        for actor in runner.actors():
            actor.drop()
        for task in (*streams, ended):
            task.cancel()
        await asyncio.gather(*streams, ended, return_exceptions=True)
        await data.close()
        for adapter in adapters.values():
            await adapter.close()
        failures = [market.failure for market in markets.values() if market.failure is not None]
        if failures:
            raise RuntimeError("; ".join(failures))
        outcome.reports = list(self._reports.values())
        return outcome

    async def _feed(self, planner: Planner, runner: Runner, now: Callable[[], int]) -> None:
        """Offer each signal at its time."""
        loop = asyncio.get_running_loop()
        for at, fields in sorted(self._scenario.signals, key=lambda item: item[0]):
            if at > now():
                await asyncio.sleep((at - now()) / 1000)
            signal_id = str(fields.get("signal_id"))
            try:
                signal, ignored = parse(fields)
                key = order_key(signal_id)
                parent, rules = await planner.plan(signal, key, ignored, 0)
            except InvalidSignal as refusal:
                self._outcome.refused.append((signal_id, refusal))
                if self._scenario.stop_on_refusal:
                    return
                continue
            await runner.accept(key, "", parent, rules, Arrival(loop.time(), 0))

    async def _save(self, report: CostReport) -> None:
        self._reports[report.order_id] = report

    def _tell(self, events: Sequence[OrderEvent]) -> None:
        self._outcome.events += len(events)
        if self._told is not None:
            self._told(events)

    # --- the sink of the paper venues ---------------------------------------------------------------------------------

    def on_order(self, venue: str, order: VenueOrder) -> None:
        assert self._runner is not None
        self._runner.on_order(venue, order)

    def on_fill(self, venue: str, fill: VenueFill) -> None:
        assert self._runner is not None
        self._outcome.fills += 1
        self._runner.on_fill(venue, fill)

    def on_stream(self, venue: str, *, up: bool, reason: str | None) -> None:
        pass


def _begins(source: EventSource, start: int) -> int:
    """When a source's first event is, which the market needs to tell times as recorded: sources may begin at different times.

    One that cannot be read begins at the start: the market tells what is wrong with it.
    """
    try:
        first = next(source.events(), None)
    except RecordingError:
        first = None
    return start if first is None else first.ts


async def _all_ended(markets: Any) -> None:
    for market in markets:
        await market.ended.wait()
