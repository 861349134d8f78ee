"""Replicas replaced one after another under load: how long shards and orders wait, and whether anything is doubled or lost.

    python -m benchmarks.rolling_restart --replicas 2 --restarts 6 --kills 3

Three ways: the old replica is stopped and then a new one started; a new one is started first, as a rolling deployment does; and
SIGKILL. Times come from outside: the leases in the store (by its clock), the events' own times, and the venue's times of execution.

Ends with code 1 if something is doubled or lost, or if an order paused longer than it may.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import sys
import time
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from benchmarks.heard import Heard, quantile
from benchmarks.load import SETTLE_SECONDS, everything, load_now, say
from benchmarks.reckoning import Reckoning, reckon
from benchmarks.traffic import Traffic
from execution.ledger import order_key
from execution.ledger.keys import ShardKeys, shard_of
from tests.system import Replica, System

MIX = {"twap": 60, "limit": 25, "pov": 10, "iceberg": 5}
SLICE_SECONDS = 5.0
SLICES = 12
LOOK_SECONDS = 0.1
CALM_SECONDS = 5.0
BALANCE_SECONDS = 120.0
CLOCK_MS = 5


QUIET, STOP_FIRST, START_FIRST, KILL = (
    "nothing happens",
    "SIGTERM, then a new one",
    "a new one, then SIGTERM",
    "SIGKILL",
)


@dataclass(frozen=True)
class Options:
    replicas: int
    parents: int
    rate: float
    restarts: int
    kills: int
    shards: int = 32
    lease_ttl: float = 5.0
    request_ttl: float = 5.0
    calm: float = CALM_SECONDS
    stops: tuple[str, ...] = (STOP_FIRST, START_FIRST)
    """How replicas are replaced by SIGTERM, `restarts` times each."""

    @property
    def longest_pause(self) -> dict[str, float]:
        """How long an order may pause, in s. A stopped replica hands over: never as long as a lease. After a SIGKILL its lease runs
        out, the others see that at their next beat, a fifth of a lease later, and a request that was under way and is not found
        counts as not executed only after its own time."""
        killed = self.lease_ttl * 1.2 + self.request_ttl + 1.0
        return {QUIET: self.lease_ttl, STOP_FIRST: self.lease_ttl, START_FIRST: self.lease_ttl, KILL: killed}


QUIET, STOP_FIRST, START_FIRST, KILL = (
    "nothing happens",
    "SIGTERM, then a new one",
    "a new one, then SIGTERM",
    "SIGKILL",
)


@dataclass(frozen=True)
class Handover:
    """A shard that changed hands. Ms since the epoch: the end of the lease before, and the beginning of this one."""

    shard: int
    owner: str
    ended: int
    acquired: int


@dataclass
class Step:
    """One replacement, or a quiet time: its kind, and from when to when it lasted (ms since the epoch)."""

    kind: str
    begins: int
    ends: int = 0


@dataclass
class Figures:
    """What one kind of step did to shards and orders, in ms."""

    leaseless: list[int] = field(default_factory=list)
    """From the end of a lease to the next one."""
    from_signal: list[int] = field(default_factory=list)
    """From SIGTERM or SIGKILL to the new lease, of the shards that the old replica held."""
    commitless: list[int] = field(default_factory=list)
    """From a shard's last event of the old owner to its first of the new one, the pauses between its orders included."""
    pauses: list[int] = field(default_factory=list)
    """Slices that were due: from their time to the order's next execution at the venue, or to its end where there was none."""
    to_fill: list[int] = field(default_factory=list)
    """Short orders published: from publishing to execution at the venue."""


class LeaseWatch:
    """Reads who holds the shards. A lease is renewed no sooner than a fifth of its time after it began, so that one seen for the first
    time within that says when it began: its end less its length."""

    def __init__(self, system: System, shards: int, ttl: float) -> None:
        self._store = system.store
        self._keys = [ShardKeys(shard).lease for shard in range(shards)]
        self._ttl = round(ttl * 1000)
        self.handovers: list[Handover] = []
        self.owners: dict[int, str] = {}
        self._epochs: dict[int, int] = {}
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            rows = await asyncio.gather(
                *(self._store.call("HMGET", key, "owner", "epoch", "until", "before") for key in self._keys)
            )
            now = _now()
            for shard, (owner, epoch, until, before) in enumerate(rows):
                if owner is None:
                    continue
                held = int(until) > now
                if held and self._epochs.get(shard) != int(epoch):
                    if shard in self._epochs:
                        self.handovers.append(Handover(shard, owner.decode(), int(before), int(until) - self._ttl))
                    self._epochs[shard] = int(epoch)
                if held:
                    self.owners[shard] = owner.decode()
                else:
                    self.owners.pop(shard, None)
            await asyncio.sleep(LOOK_SECONDS)


class RollingRestart:
    """One run against a system that is up."""

    def __init__(self, options: Options, system: System) -> None:
        assert isinstance(system.watch, Heard)
        self.options = options
        self.system = system
        self.heard = system.watch
        self.heard.writers = []
        self.traffic = Traffic(
            system,
            self.heard,
            parents=options.parents,
            twap_seconds=SLICES * SLICE_SECONDS,
            slices=SLICES,
            mix=MIX,
        )
        self.steps: list[Step] = []
        self.signals: list[tuple[str, int, str]] = []
        """(kind of step, ms since the epoch, name of the replica) of each SIGTERM and SIGKILL."""
        self.running: list[tuple[str, Replica]] = []

    async def run(self) -> Reckoning:
        """Start the replicas, replace them one after another under load, let everything end, and reckon."""
        options = self.options
        for _ in range(options.replicas):
            await self._start()
        self.leases = LeaseWatch(self.system, options.shards, options.lease_ttl)
        say(f"{options.replicas} replicas; bringing up {options.parents} live orders")
        await self.traffic.grow(200.0)
        over = asyncio.Event()
        stream = asyncio.create_task(self.traffic.stream(options.rate, float("inf"), over))
        try:
            await self._step(QUIET, lambda: asyncio.sleep(2 * options.calm))
            ways = {STOP_FIRST: self._stop_first, START_FIRST: self._start_first, KILL: self._kill}
            for kind, times in (*((kind, options.restarts) for kind in options.stops), (KILL, options.kills)):
                way = ways[kind]
                for number in range(times):
                    await self._step(kind, way)
                    step = self.steps[-1]
                    say(
                        f"{kind}, {number + 1} of {times}: balanced after {(step.ends - step.begins) / 1000:.1f} s; load {load_now()}"
                    )
            await self._step(QUIET, lambda: asyncio.sleep(2 * options.calm))
        finally:
            over.set()
            await stream
            await self.leases.stop()
        say("the stream has ended; cancelling what is live")
        await self.traffic.end(SETTLE_SECONDS)
        return await reckon(self.system, SETTLE_SECONDS)

    # --- replacing ----------------------------------------------------------------------------------------------------

    async def _step(self, kind: str, act: Callable[[], Awaitable[None]]) -> None:
        """Do something, and wait until the shards are spread evenly again and some time has passed."""
        step = Step(kind, _now())
        await act()
        await self._balanced()
        await asyncio.sleep(self.options.calm)
        step.ends = _now()
        self.steps.append(step)

    async def _start(self) -> None:
        name = f"replica-{len(self.system.replicas)}"
        self.running.append((name, await self.system.replica()))

    async def _stop(self, kind: str) -> None:
        name, replica = self.running.pop(0)
        self.signals.append((kind, _now(), name))
        code = await replica.stop()
        if code:
            raise RuntimeError(f"{name} ended with code {code} at SIGTERM:\n{replica.words()}")

    async def _stop_first(self) -> None:
        await self._stop(STOP_FIRST)
        await self._start()

    async def _start_first(self) -> None:
        await self._start()
        await self._balanced()
        await self._stop(START_FIRST)

    async def _kill(self) -> None:
        name, replica = self.running.pop(0)
        self.signals.append((KILL, _now(), name))
        replica.kill()
        await replica.ended()
        await self._start()

    async def _balanced(self) -> None:
        """Wait until each running replica holds its share of the shards."""
        deadline = time.monotonic() + BALANCE_SECONDS
        names = sorted(name for name, _ in self.running)
        share = -(-self.options.shards // len(names))
        while True:
            held = [sum(owner == name for owner in self.leases.owners.values()) for name in names]
            if sum(held) == self.options.shards and max(held) <= share:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"the shards are not spread evenly: {dict(zip(names, held, strict=True))}")
            await asyncio.sleep(0.05)

    # --- figures ------------------------------------------------------------------------------------------------------

    def figures(self, created: Mapping[str, int]) -> dict[str, Figures]:
        """By kind of step; `created`: when each scheduled order's time began."""
        found = {kind: Figures() for kind in (QUIET, STOP_FIRST, START_FIRST, KILL)}
        self.steps.sort(key=lambda step: step.begins)
        begins = [step.begins for step in self.steps]

        def kind_at(at: int) -> Figures | None:
            index = bisect_right(begins, at) - 1
            return found[self.steps[index].kind] if index >= 0 and at <= self.steps[index].ends else None

        held_by: dict[int, str] = {}
        commits = self._commits()
        for handover in sorted(self.leases.handovers, key=lambda one: one.acquired):
            figures = kind_at(handover.acquired)
            before = held_by.get(handover.shard)
            held_by[handover.shard] = handover.owner
            if figures is None:
                continue
            figures.leaseless.append(handover.acquired - handover.ended)
            figures.commitless += _pause(commits[handover.shard], handover)
            signalled = [at for _, at, name in self.signals if name == before and at <= handover.acquired]
            if signalled:
                figures.from_signal.append(handover.acquired - signalled[-1])
        for due, pause in self._pauses(created):
            figures = kind_at(due)
            if figures is not None:
                figures.pauses.append(pause)
        for name, at in self.traffic.directs.items():
            figures = kind_at(at)
            if figures is not None and name in self.heard.first_fills:
                figures.to_fill.append(self.heard.first_fills[name] - at)
        return found

    def _pauses(self, created: Mapping[str, int]) -> Iterator[tuple[int, int]]:
        """Of each slice of a schedule but the first: its time (ms since the epoch), and how long its order then waited (ms)."""
        heard = self.heard
        executed: dict[str, list[int]] = defaultdict(list)
        for one in heard.slices:
            executed[one.signal_id].append(one.at)
        for signal_id, (count, duration) in heard.schedules.items():
            started, times = created.get(signal_id), sorted(executed[signal_id])
            if started is None:
                continue
            ended = max(event.timestamp for event in heard.by_signal[signal_id])
            for index in range(1, count):
                due = started + index * duration // count
                # One that came before its time by the venue's clock is it all the same.
                after = bisect_left(times, due - CLOCK_MS)
                end = times[after] if after < len(times) else ended
                if end >= due - CLOCK_MS:
                    yield due, max(end - due, 0)

    def _commits(self) -> dict[int, list[tuple[int, str]]]:
        """By shard: when which replica committed an event, ms since the epoch, in the order of time."""
        commits: dict[int, list[tuple[int, str]]] = defaultdict(list)
        shards: dict[str, int] = {}
        for signal_id, instance, at in self.heard.writers or ():
            shard = shards.get(signal_id)
            if shard is None:
                shard = shards[signal_id] = shard_of(order_key(signal_id), self.options.shards)
            commits[shard].append((at, instance))
        for rows in commits.values():
            rows.sort()
        return commits

    def table(self, found: Mapping[str, Figures]) -> str:
        """The figures, p50 / p99 / max."""
        rows = [("ms: p50 / p99 / max (number)", *found)]
        for title, name in (
            ("shard without a lease", "leaseless"),
            ("signal to the new lease", "from_signal"),
            ("shard's last commit to the new owner's first", "commitless"),
            ("slice due: to the order's next execution", "pauses"),
            ("short order: published to executed", "to_fill"),
        ):
            rows.append((title, *(spread(getattr(figures, name)) for figures in found.values())))
        most = self.options.longest_pause
        rows.append(
            (
                "an order's longest pause, s (may be)",
                *(f"{longest(one) / 1000:.1f} ({most[kind]:.1f})" for kind, one in found.items()),
            )
        )
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [
            "  ".join(
                [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
            )
            for row in rows
        ]
        return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def longest(figures: Figures) -> int:
    """An order's longest pause compared with its schedule, ms."""
    return max(figures.pauses, default=0)


def spread(values: Sequence[int]) -> str:
    ordered = sorted(values)
    if not ordered:
        return "-"
    return f"{quantile(ordered, 0.5):.0f} / {quantile(ordered, 0.99):.0f} / {ordered[-1]} ({len(ordered)})"


def _pause(commits: Sequence[tuple[int, str]], handover: Handover) -> list[int]:
    """From the last commit before a handover to the new owner's first."""
    at = bisect_left(commits, (handover.acquired, ""))
    after = next((when for when, owner in commits[at:] if owner == handover.owner), None)
    before = next((when for when, owner in reversed(commits[:at]) if owner != handover.owner), None)
    return [after - before] if after is not None and before is not None else []


def _now() -> int:
    return time.time_ns() // 1_000_000


async def measure(options: Options) -> tuple[Reckoning, dict[str, Figures], str]:
    """Run it; what the account says, the figures, and the table."""
    environment = {
        "SHARDS": str(options.shards),
        "LEASE_TTL": f"{options.lease_ttl:g}",
        "REQUEST_TTL": f"{options.request_ttl:g}",
    }
    async with everything(False, **environment) as (system, _):
        run = RollingRestart(options, system)
        reckoning = await run.run()
        found = run.figures(reckoning.created)
        for _, replica in run.running:
            await replica.stop()
        return reckoning, found, run.table(found)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rolling_restart", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--replicas", type=int, default=2, help="running at a time (default %(default)s)")
    parser.add_argument("--parents", type=int, default=1000, help="orders kept live (default %(default)s)")
    parser.add_argument(
        "--rate", type=float, default=30.0, help="short orders a second beside them (default %(default)s)"
    )
    parser.add_argument("--restarts", type=int, default=6, help="by SIGTERM, of each way (default %(default)s)")
    parser.add_argument("--kills", type=int, default=3, help="by SIGKILL (default %(default)s)")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    gc.freeze()
    options = Options(given.replicas, given.parents, given.rate, given.restarts, given.kills)
    reckoning, found, table = asyncio.run(measure(options))
    say(f"\n{table}\n\n{reckoning}")
    late = [kind for kind, most in options.longest_pause.items() if longest(found[kind]) > most * 1000]
    for kind in late:
        say(f"PROBLEM: {kind}: an order paused longer than it may")
    return 1 if reckoning.problems or late else 0


if __name__ == "__main__":
    sys.exit(main())
