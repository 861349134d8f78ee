"""What the measurements run on: a store, Pub/Sub, one venue, the bare ccxt loop and the service, each a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from adapters.simulator.control import VenueControl
from adapters.simulator.limits import Limits
from adapters.simulator.process import VenueProcess
from adapters.simulator.server import VenueConfig
from adapters.simulator.symbols import SymbolSpec
from benchmarks.processes import child_running
from benchmarks.service import Service
from execution.embedded.pubsub.process import PubSubProcess
from execution.embedded.redis_server import EmbeddedRedis
from execution.ledger import keys
from execution.ledger.keys import ShardKeys
from execution.pubsub import OutgoingMessage, Publisher, SubscriptionSpec, connect, ensure, topic_name
from execution.store import Store
from schemas import exact_json

PROJECT = "benchmark"
VENUE = "alpha"
SETTLE_SECONDS = 120.0
LINE_LIMIT = 1 << 24


@dataclass(frozen=True)
class Signal:
    """A signal to publish: its id, its JSON, and the client order id that its one child order will have."""

    signal_id: str
    body: bytes
    child_id: str


def signals(prefix: str, count: int) -> list[Signal]:
    """Market orders of one small size, buying and selling in turn."""
    made = []
    for number in range(count):
        signal_id = f"{prefix}-{number}"
        fields = {
            "signal_id": signal_id,
            "strategy_id": "benchmark",
            "exchange": VENUE,
            "symbol": "BTC/USDT",
            "side": "sell" if number % 2 else "buy",
            "quantity": Decimal("0.001"),
            "order_type": "market",
        }
        made.append(Signal(signal_id, exact_json.encode(fields), keys.child_id(keys.order_key(signal_id), 1)))
    return made


class CcxtLoop:
    """The bare ccxt loop's process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.version = ""

    @classmethod
    async def start(cls, url: str) -> CcxtLoop:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "benchmarks.ccxt_loop",
            url,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_LIMIT,
            start_new_session=True,
        )
        self = cls(process)
        self.version = (await self._answer())["ready"]
        return self

    async def place(self, prefix: str, orders: int, at_once: int) -> dict[str, Any]:
        """One repetition: its CPU seconds (`cpu`), and when each call was made (`called`, ns since the epoch)."""
        assert self._process.stdin is not None
        asked = {"prefix": prefix, "orders": orders, "at_once": at_once}
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        return await self._answer()

    async def stop(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the ccxt loop ended; its traceback is above")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Rig:
    """Everything that runs during a benchmark. To be used as a context manager."""

    venue: VenueControl
    store: Store
    ccxt: CcxtLoop
    shards: list[ShardKeys]
    pids: dict[str, int]
    """The servers' processes, by what they are."""
    pubsub_name: str

    def __init__(self, pubsub_host: str | None = None) -> None:
        """`pubsub_host`: a Pub/Sub emulator that runs already; None: ours is started."""
        self._pubsub_host = pubsub_host
        self._stack = AsyncExitStack()
        self._services = 0

    async def __aenter__(self) -> Rig:
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _open(self) -> None:
        enter, later = self._stack.enter_async_context, self._stack.push_async_callback
        self._folder = Path(tempfile.mkdtemp(prefix="execution-benchmark-"))
        self._stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
        redis = await enter(await EmbeddedRedis.start(self._folder / "redis"))
        venue = await enter(
            await VenueProcess.start(
                VenueConfig(
                    name=VENUE,
                    symbols=[SymbolSpec(base="BTC", quote="USDT", price=Decimal(50_000))],
                    limits=Limits(orders_per_10s=10**7, weight_per_minute=10**8),
                )
            )
        )
        self.pids = {"venue": child_running("adapters.simulator"), "store": redis.pid}
        if self._pubsub_host is None:
            pubsub = await enter(await PubSubProcess.start())
            self._pubsub_host = pubsub.host
            self.pids["Pub/Sub"] = child_running("execution.embedded.pubsub")
            self.pubsub_name = "this project's emulator"
        else:
            self.pubsub_name = f"a server at {self._pubsub_host} (its own batching is in these latencies)"
        self.venue = await enter(venue.control())
        self.store = await enter(await Store.connect(redis.url))
        self.ccxt = await CcxtLoop.start(venue.url)
        later(self.ccxt.stop)
        channel = connect(PROJECT, self._pubsub_host)
        later(channel.close)
        await ensure(
            channel,
            PROJECT,
            ["order-events"],
            [SubscriptionSpec("execution-signals", "approved-signals")],
            create=True,
        )
        self._publisher = Publisher(channel)
        self._topic = topic_name(PROJECT, "approved-signals")
        self._environment = {
            "GOOGLE_CLOUD_PROJECT": PROJECT,
            "PUBSUB_EMULATOR_HOST": self._pubsub_host,
            "REDIS_URL": redis.url,
            "ADAPTER_ENDPOINTS": f"{VENUE}=binance@{venue.url}",
            f"{VENUE.upper()}_API_KEY": "local",
            f"{VENUE.upper()}_API_SECRET": "local-secret",
            "DATA_DIR": str(self._folder),
            "PORT": "0",
            "LOG_FORMAT": "json",
        }

    async def service(self, profile: Path | None = None) -> Service:
        """Start the service, alone on this rig, and wait until it is ready."""
        self._services += 1
        service = await Service.start(self._environment, self._folder / f"service-{self._services}.log", profile)
        self._stack.push_async_callback(service.stop)
        number = await self.store.call("GET", keys.SHARDS)
        self.shards = [ShardKeys(shard) for shard in range(int(number))]
        return service

    @property
    def folder(self) -> Path:
        """For files of a measurement's own; removed at the end."""
        return self._folder

    async def publish(self, signals: list[Signal]) -> None:
        await self._publisher.publish(self._topic, [OutgoingMessage(signal.body, {}) for signal in signals])

    async def settled(self, service: Service, signals: list[Signal]) -> None:
        """Wait until all signals are orders that have ended and whose events are published.

        Raises:
            TimeoutError: they are not after two minutes.
            ServiceFailed: the service ended.
        """
        names = [self._order_name(signal) for signal in signals]
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            service.check()
            if not await self._working() and await self.store.call("EXISTS", *names) == len(names):
                return
            await asyncio.sleep(0.02)
        raise TimeoutError(f"orders have not all ended after {SETTLE_SECONDS:g} s:\n{service.last_words()}")

    async def _working(self) -> int:
        calls = [self.store.call("SCARD", shard.live) for shard in self.shards]
        calls += [self.store.call("XLEN", shard.outbox) for shard in self.shards]
        return sum(await asyncio.gather(*calls))

    def _order_name(self, signal: Signal) -> str:
        key = keys.order_key(signal.signal_id)
        return self.shards[keys.shard_of(key, len(self.shards))].order(key)

    async def durable_write(self) -> float:
        """Seconds that one small write takes to be on disk and answered, with nothing else going on."""
        started = time.perf_counter()
        await self.store.call("SET", "benchmark:write", "1")
        return time.perf_counter() - started

    async def requests(self) -> dict[str, list[int]]:
        """When create requests reached the venue, ns since the epoch, by client order id."""
        found: dict[str, list[int]] = {}
        for request in await self.venue.requests():
            if request["method"] == "POST":
                found.setdefault(request["parameters"]["newClientOrderId"], []).append(request["at_ns"])
        return found


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0))
