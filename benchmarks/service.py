"""The service as a process, and what its metrics say."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

READY_SECONDS = 40.0


class ServiceFailed(Exception):
    """The service ended or did not become ready; the message has its last words."""


class Service:
    """One running `execution run`."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log
        self._url = ""

    @classmethod
    async def start(cls, environment: Mapping[str, str], log: Path, profile: Path | None = None) -> Service:
        """Start it and wait until it is ready; with `profile`, under the profiler that writes there.

        Raises:
            ServiceFailed: it is not.
        """
        command = ["-m", "execution.cli", "run"] if profile is None else ["-m", "benchmarks.profiled", str(profile)]
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *command,
                env={**os.environ, **environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self = cls(process, log)
        try:
            async with asyncio.timeout(READY_SECONDS):
                while not await self._ready():
                    await asyncio.sleep(0.05)
        except TimeoutError:
            await self.stop()
            raise ServiceFailed(f"not ready after {READY_SECONDS:g} s:\n{self.last_words()}") from None
        except BaseException:
            await self.stop()
            raise
        return self

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """Raises: ServiceFailed: it has ended."""
        if self._process.returncode is not None:
            raise ServiceFailed(f"it ended with code {self._process.returncode}:\n{self.last_words()}")

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def last_words(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]

    async def stop(self) -> None:
        if self._process.returncode is None:
            self.send(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._process.wait(), 15)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

    async def arrival_to_wire(self) -> Buckets:
        """How long each order's first request took to leave since its signal arrived, as counted so far."""
        async with aiohttp.ClientSession() as session, session.get(f"{self._url}/metrics") as answer:
            text = await answer.text()
        counts: Counter[float] = Counter()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == "execution_arrival_to_wire_seconds_bucket":
                    counts[float(sample.labels["le"])] += int(sample.value)
        return Buckets(counts)

    async def _ready(self) -> bool:
        self.check()
        if not self._url:
            for line in self._log.read_text(errors="replace").splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    self._url = f"http://127.0.0.1:{int(json.loads(line)['port'])}"
        if not self._url:
            return False
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{self._url}/health/ready") as answer:
                return bool((await answer.json())["status"] == "ok")
        except aiohttp.ClientError:
            return False


class Buckets:
    """Durations as a Prometheus histogram holds them: how many were at most so many seconds."""

    def __init__(self, cumulative: Mapping[float, int]) -> None:
        self._cumulative = Counter(cumulative)

    def __sub__(self, earlier: Buckets) -> Buckets:
        difference = Counter(self._cumulative)
        difference.subtract(earlier._cumulative)
        return Buckets(difference)

    def __add__(self, other: Buckets) -> Buckets:
        total = Counter(self._cumulative)
        total.update(other._cumulative)
        return Buckets(total)

    @property
    def count(self) -> int:
        return max(self._cumulative.values(), default=0)

    def quantile(self, fraction: float) -> float:
        """Seconds below which that fraction lies, linear within its bucket."""
        bounds = sorted(self._cumulative)
        counts = [self._cumulative[bound] for bound in bounds]
        rank = fraction * self.count
        at = bisect.bisect_left(counts, rank)
        upper, lower = bounds[at], bounds[at - 1] if at else 0.0
        if upper == float("inf"):
            return lower
        below = counts[at - 1] if at else 0
        inside = counts[at] - below
        return lower + (upper - lower) * ((rank - below) / inside if inside else 0.0)
