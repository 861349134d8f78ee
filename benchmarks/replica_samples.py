"""What a running replica costs and says of itself: memory, CPU, metrics, and how soon its event loop answers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.processes import cpu_seconds
from benchmarks.service import Buckets
from tests.system import Replica

MIB = 1 << 20
_PAGE = 4096
PROBE_SECONDS = 0.2


@dataclass(frozen=True)
class Sample:
    """A replica at one time (s, monotonic); memory in MiB, CPU time in s."""

    at: float
    resident: float
    cpu: float


@dataclass
class Scrape:
    """The metrics of a replica, summed over labels."""

    values: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    buckets: dict[str, Counter[float]] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str) -> Scrape:
        """Read Prometheus's text format."""
        self = cls()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                name = sample.name.removeprefix("execution_")
                if name.endswith("_bucket"):
                    counts = self.buckets.setdefault(name.removesuffix("_bucket"), Counter())
                    counts[float(sample.labels["le"])] += int(sample.value)
                else:
                    self.values[name] += sample.value
        return self

    def histogram(self, name: str) -> Buckets:
        return Buckets(self.buckets.get(name, Counter()))


class Sampler:
    """Looks at one replica until stopped. The answers of its HTTP server come from its only event loop: how long one takes bounds
    from above how long the loop let others wait, since our own loop and the machine's other processes add to it."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.samples: list[Sample] = []
        self.answers: list[float] = []
        """Seconds that `/health/live` took, one after the other."""
        self.scrape = Scrape()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def look(self) -> Sample:
        """Its memory and CPU time now.

        Raises:
            FileNotFoundError, ProcessLookupError: it has ended.
        """
        pid = self.replica.process.pid
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        sample = Sample(time.monotonic(), pages * _PAGE / MIB, cpu_seconds(pid))
        self.samples.append(sample)
        return sample

    async def metrics(self) -> Scrape:
        """Its metrics now; the ones before where it does not answer."""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            self.scrape = Scrape.of(await self.replica.metrics())
        return self.scrape

    async def _run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=30.0)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while self.replica.process.returncode is None:
                started = time.monotonic()
                try:
                    async with session.get(f"http://127.0.0.1:{self.replica.port}/health/live") as answer:
                        await answer.read()
                except (aiohttp.ClientError, TimeoutError):
                    pass  # it stops; what it answered before counts
                else:
                    self.answers.append(time.monotonic() - started)
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    if not self.samples or started - self.samples[-1].at >= 1.0:
                        self.look()
                await asyncio.sleep(PROBE_SECONDS)


def growth_a_minute(samples: Sequence[Sample]) -> float:
    """MiB a minute: the slope of the straight line through the samples' memory with the least squares; 0 for less than two."""
    if len(samples) < 2:
        return 0.0
    times = [sample.at for sample in samples]
    middle = sum(times) / len(times)
    mean = sum(sample.resident for sample in samples) / len(samples)
    spread = sum((at - middle) ** 2 for at in times)
    together = sum((sample.at - middle) * (sample.resident - mean) for sample in samples)
    return 60.0 * together / spread if spread else 0.0
