"""Ten thousand live orders and a steady stream of new ones: what it costs, how late slices are, and whether anything is lost.

    python -m benchmarks.load --parents 10000 --minutes 10 --rate 20
    python -m benchmarks.load --parents 2000 --minutes 3 --slow store --delay 0.05

Ends with code 1 if a signal, an order, a fill or an event is lost, or if the memory of a replica keeps growing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from adapters.simulator.process import VenueProcess
from benchmarks.heard import Heard, quantile
from benchmarks.reckoning import Reckoning, reckon
from benchmarks.replica_samples import Sampler, growth_a_minute
from benchmarks.slow_link import SlowLink
from benchmarks.traffic import VENUE, Traffic, busy_venue
from execution.embedded.pubsub.process import PubSubProcess
from execution.embedded.redis_server import EmbeddedRedis
from tests.system import System

REPORT_SECONDS = 30.0
SETTLE_SECONDS = 600.0
SETTLING_SECONDS = 30.0
JUDGED_MINUTES = 5.0
GROWTH_BOUND = 0.01
"""Part of a replica's memory by which it may grow in a minute, by a straight line through the second half of the steady time. Nothing
that is kept grows by then: live orders are replaced by their like, and ended ones leave after two minutes or 5,000 others. What is
left is the allocator's noise, some tenths of a per cent a minute; a leak of one record for each new order is several per cent."""
LINKS = ("venue", "store", "pubsub")


@dataclass(frozen=True)
class Options:
    parents: int
    seconds: float
    rate: float
    replicas: int
    twap_seconds: float
    grow: float
    slow: str | None
    delay: float
    report_seconds: float = REPORT_SECONDS
    settling: float = SETTLING_SECONDS
    """Seconds after the last order was brought up until the steady time begins: what queued up meanwhile is made up for."""
    max_live: int | None = None
    """MAX_LIVE_ORDERS of the replicas; None: its default."""


class Load:
    """One run against a system that is up."""

    def __init__(self, options: Options, system: System, links: dict[str, SlowLink]) -> None:
        assert isinstance(system.watch, Heard)
        self.options = options
        self.system = system
        self.heard = system.watch
        self.links = links
        self.traffic = Traffic(system, self.heard, parents=options.parents, twap_seconds=options.twap_seconds)
        self.samplers: list[Sampler] = []
        self._accepted = self._children = self._slices = self._steady_slices = 0
        self._cpu: list[float] = []
        self._looked = 0.0
        self._answers: list[int] = []
        self.steady_from = 0.0
        self.steady_until = 0.0
        self._most_waiting = 0
        self.lost_memory = False

    async def run(self) -> Reckoning:
        """Bring everything up, keep it under load, let it end, and reckon."""
        options, traffic = self.options, self.traffic
        for _ in range(options.replicas):
            self.samplers.append(Sampler(await self.system.replica()))
        say(f"{options.replicas} replica(s) of the service are ready; bringing up {options.parents} live orders")
        started = time.monotonic()
        await traffic.grow(options.grow)
        say(f"{len(traffic.standing)} live orders after {time.monotonic() - started:.0f} s; load {load_now()}")
        await asyncio.sleep(options.settling)
        self.steady_from = time.monotonic()
        self._remember()
        self._steady_slices = self._slices
        reports = asyncio.create_task(self._report())
        slowing = asyncio.create_task(self._slow())
        await traffic.stream(options.rate, options.seconds)
        self.steady_until = time.monotonic()
        for task in (reports, slowing):
            task.cancel()
        await asyncio.gather(reports, slowing, return_exceptions=True)
        for link in self.links.values():
            link.delay = 0.0
        say("the stream has ended; cancelling what is live")
        started = time.monotonic()
        live = len(traffic.standing)
        await traffic.end(SETTLE_SECONDS)
        say(f"{live} live orders cancelled or filled after {time.monotonic() - started:.1f} s; comparing the records")
        return await reckon(self.system, SETTLE_SECONDS)

    # --- while it runs ------------------------------------------------------------------------------------------------

    def _remember(self) -> None:
        heard = self.heard
        self._accepted, self._children, self._slices = len(heard.accepted), heard.children, len(heard.slices)
        self._cpu = [sampler.look().cpu for sampler in self.samplers]
        self._answers = [len(sampler.answers) for sampler in self.samplers]
        self._looked = time.monotonic()

    async def _report(self) -> None:
        say(HEADER)
        while True:
            await asyncio.sleep(self.options.report_seconds)
            await self._line()

    async def _line(self) -> None:
        heard = self.heard
        scrapes = [await sampler.metrics() for sampler in self.samplers]
        seconds = time.monotonic() - self._looked
        late = heard.lateness(self._slices)
        samples = [sampler.look() for sampler in self.samplers]
        answers = sorted(
            answer
            for sampler, since in zip(self.samplers, self._answers, strict=True)
            for answer in sampler.answers[since:]
        )
        cores = [f"{(sample.cpu - before) / seconds:.2f}" for sample, before in zip(samples, self._cpu, strict=True)]
        self._most_waiting = max(self._most_waiting, self.traffic.waiting)
        say(
            f"{time.monotonic() - self.steady_from:6.0f} {sum(int(s.values['live_orders']) for s in scrapes):6d}"
            f" {(len(heard.accepted) - self._accepted) / seconds:6.1f} {(heard.children - self._children) / seconds:7.1f}"
            f" {quantile(late, 0.5):6.0f} {quantile(late, 0.99):6.0f} {late[-1] if late else 0:6d}"
            f" {quantile(answers, 0.5) * 1000:6.0f} {quantile(answers, 0.99) * 1000:6.0f} {answers[-1] * 1000 if answers else 0:6.0f}"
            f" {sum(int(s.values['outbox_backlog']) for s in scrapes):6d} {self.traffic.waiting:7d}"
            f" {sum(int(s.values['sends_waiting']) for s in scrapes):6d}"
            f" {'+'.join(f'{sample.resident:.0f}' for sample in samples):>9} {'+'.join(cores):>9} {load_now():>5}"
        )
        self._remember()

    async def _slow(self) -> None:
        """Slow a link down for the middle third."""
        if self.options.slow is None:
            return
        link, third = self.links[self.options.slow], self.options.seconds / 3
        await asyncio.sleep(third)
        await self._line()
        say(f"--- every byte to and from the {self.options.slow} is {self.options.delay:g} s late from here")
        link.delay = self.options.delay
        await asyncio.sleep(third)
        await self._line()
        say("--- the link is as before from here")
        link.delay = 0.0

    # --- at the end ---------------------------------------------------------------------------------------------------

    def figures(self, reckoning: Reckoning) -> str:
        """What was measured, and whether the memory keeps growing."""
        heard, traffic = self.heard, self.traffic
        seconds = self.steady_until - self.steady_from
        late = heard.lateness(self._steady_slices, reckoning.created)
        to_fill = sorted(
            heard.first_fills[name] - at for name, at in traffic.directs.items() if name in heard.first_fills
        )
        lines = [
            "",
            f"steady for {seconds / 60:.1f} min: {len(traffic.directs) / seconds:.1f} short orders/s beside {traffic.parents} live ones,"
            f" {len(heard.accepted)} accepted and {heard.children} child orders in the whole run",
            f"slices, ms behind their schedule when the venue executed them ({len(late)}): {quantiles(late)}",
            f"short orders, ms from publishing to execution at the venue ({len(to_fill)}): {quantiles(to_fill)}",
            f"most signals waiting to be accepted: {self._most_waiting}",
        ]
        for sampler in self.samplers:
            steady = [one for one in sampler.samples if self.steady_from <= one.at <= self.steady_until]
            half = [one for one in steady if one.at >= (self.steady_from + self.steady_until) / 2]
            growth, now = growth_a_minute(half), half[-1].resident
            answers = sorted(1000 * answer for answer in sampler.answers)
            decided = sampler.scrape.histogram("decision_to_wire_seconds")
            judged = seconds >= JUDGED_MINUTES * 60
            grows = judged and growth > GROWTH_BOUND * now
            self.lost_memory = self.lost_memory or grows
            word = ("it keeps growing" if grows else "it does not grow") if judged else "too short a run to judge"
            lines += [
                f"replica {self.samplers.index(sampler)}: {steady[0].resident:.0f} MiB at the start of the steady time, {now:.0f} at its end, "
                f"{max(one.resident for one in steady):.0f} at most; second half {growth:+.2f} MiB a minute"
                f" ({growth / now * 100:+.2f} %, bound {GROWTH_BOUND * 100:g} %): {word}",
                f"  CPU {(steady[-1].cpu - steady[0].cpu) / (steady[-1].at - steady[0].at):.2f} of a core;"
                f" its event loop answered within ms: {quantiles(answers)};"
                f" decision to wire, ms: p50 {decided.quantile(0.5) * 1000:.1f}, p99 {decided.quantile(0.99) * 1000:.1f}",
            ]
        return "\n".join([*lines, "", str(reckoning)])


HEADER = (
    "  time   live accept   child   slices late, ms      loop answers, ms     outbox waiting  sends       MiB     cores  load\n"
    "     s  orders    /s      /s    p50    p99    max    p50    p99    max  events signals      "
)


def quantiles(ordered: Sequence[float]) -> str:
    """p50, p99 and the largest."""
    if not ordered:
        return "none"
    return f"p50 {quantile(ordered, 0.5):.0f}, p99 {quantile(ordered, 0.99):.0f}, max {ordered[-1]:.0f}"


def load_now() -> str:
    """The machine's load average over a minute."""
    return f"{os.getloadavg()[0]:.1f}"


def say(what: str) -> None:
    print(what, flush=True)


@contextlib.asynccontextmanager
async def everything(slow: bool, **environment: str) -> AsyncIterator[tuple[System, dict[str, SlowLink]]]:
    """A store, Pub/Sub and a venue, each a process, and a system that reaches them: through links that can be slowed where asked for."""
    folder = Path(tempfile.mkdtemp(prefix="load-"))
    links: dict[str, SlowLink] = {}
    try:
        async with (
            await EmbeddedRedis.start(folder / "store") as redis,
            await PubSubProcess.start() as pubsub,
            await VenueProcess.start(busy_venue()) as venue,
            contextlib.AsyncExitStack() as stack,
        ):
            system = System(redis.url, pubsub.host, folder, {VENUE: venue})
            system.watch = Heard()
            system.environment.update(
                SHARDS="32", LEASE_TTL="5", REQUEST_TTL="5", RECONCILE_INTERVAL="30", POLL_INTERVAL="2"
            )
            if slow:
                for name, url in (("venue", venue.url), ("store", redis.url), ("pubsub", f"pubsub://{pubsub.host}")):
                    links[name] = await stack.enter_async_context(SlowLink(url))
                system.environment["ADAPTER_ENDPOINTS"] = f"{VENUE}=binance@{links['venue'].url}"
                system.environment["REDIS_URL"] = links["store"].url
                system.environment["PUBSUB_EMULATOR_HOST"] = links["pubsub"].url.removeprefix("pubsub://")
            system.environment.update(environment)
            async with system:
                yield system, links
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def measure(options: Options) -> int:
    """Run it and print; the exit code."""
    environment = {} if options.max_live is None else {"MAX_LIVE_ORDERS": str(options.max_live)}
    async with everything(options.slow is not None, **environment) as (system, links):
        load = Load(options, system, links)
        reckoning = await load.run()
        for sampler in load.samplers:
            await sampler.metrics()
            await sampler.stop()
        say(load.figures(reckoning))
        codes = [await replica.stop() for replica in system.replicas]
        say(f"exit codes of the replicas: {codes}")
        return 1 if reckoning.problems or load.lost_memory or any(codes) else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__.partition("\n")[0])
    parser.add_argument("--parents", type=int, default=10_000, help="orders kept live (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=10.0, help="of steady load (default %(default)s)")
    parser.add_argument(
        "--rate", type=float, default=20.0, help="short orders a second beside them (default %(default)s)"
    )
    parser.add_argument("--replicas", type=int, default=1, help="processes of the service (default %(default)s)")
    parser.add_argument(
        "--twap-seconds", type=float, default=240.0, help="how long TWAPs and POVs work (default %(default)s)"
    )
    parser.add_argument(
        "--grow",
        type=float,
        help="live orders brought up a second (default: over the time that a TWAP works, so that there are orders of every age)",
    )
    parser.add_argument("--slow", choices=LINKS, help="slow this link down for the middle third")
    parser.add_argument("--delay", type=float, default=0.05, help="by so many seconds each way (default %(default)s)")
    parser.add_argument("--max-live", type=int, help="MAX_LIVE_ORDERS, at which intake pauses (default: the service's)")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    gc.freeze()
    options = Options(
        parents=given.parents,
        seconds=given.minutes * 60,
        rate=given.rate,
        replicas=given.replicas,
        twap_seconds=given.twap_seconds,
        grow=given.grow or given.parents / given.twap_seconds,
        slow=given.slow,
        delay=given.delay,
        max_live=given.max_live,
        report_seconds=min(REPORT_SECONDS, max(given.minutes * 60 / 6, 5.0)),
        settling=min(SETTLING_SECONDS, given.minutes * 6),
    )
    return asyncio.run(measure(options))


if __name__ == "__main__":
    sys.exit(main())
