"""The servers of the dev stack, each a real process, started in order and stopped with this one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from adapters.simulator.limits import Limits
from adapters.simulator.market import MarketConfig
from adapters.simulator.process import VenueProcess
from adapters.simulator.server import VenueConfig
from adapters.simulator.symbols import SymbolSpec
from execution.embedded.pubsub.process import PubSubProcess
from execution.embedded.redis_server import EmbeddedRedis, StoreInUse
from execution.embedded.tied import tied_to_us

VENUES = (
    # name, price factor, maker and taker fee in bps, seed
    ("alpha", Decimal("1.0000"), Decimal(8), Decimal(10), 7),
    ("beta", Decimal("1.0004"), Decimal(2), Decimal(5), 11),
    ("gamma", Decimal("0.9997"), Decimal(16), Decimal(26), 13),
)
PRICES = {"BTC": Decimal(50_000), "ETH": Decimal(3_000)}
STOP_SECONDS = 12.0
MOST_STACKS = 9


class DevStackError(Exception):
    """The stack cannot start; the message says what to do."""


@dataclass
class Stack:
    """What runs, and how to reach it."""

    folder: Path
    environment: dict[str, str]
    venues: dict[str, VenueProcess]
    log_file: Path
    port: int
    service: asyncio.subprocess.Process | None = None
    notes: list[str] = field(default_factory=list)
    _redis: EmbeddedRedis | None = None
    _pubsub: PubSubProcess | None = None

    @classmethod
    async def start(cls, data_dir: Path, given: Mapping[str, str], port: int) -> Stack:
        """Start everything but the service. What the environment names already (REDIS_URL, PUBSUB_EMULATOR_HOST) is used.

        Raises:
            DevStackError: something is in the way.
        """
        notes: list[str] = []
        redis: EmbeddedRedis | None = None
        pubsub: PubSubProcess | None = None
        venues: dict[str, VenueProcess] = {}
        folder = data_dir
        try:
            if not given.get("REDIS_URL"):
                redis, folder = await _own_redis(data_dir, notes)
            folder.mkdir(parents=True, exist_ok=True)
            if not given.get("PUBSUB_EMULATOR_HOST"):
                pubsub = await PubSubProcess.start()
            started = await asyncio.gather(*(VenueProcess.start(_venue(*row)) for row in VENUES))
            venues = dict(zip((row[0] for row in VENUES), started, strict=True))
            free = free_port(port)
            if free != port:
                notes.append(f"port {port} is taken; the service listens on {free}")
            environment = {
                **given,
                "REDIS_URL": given.get("REDIS_URL") or (redis.url if redis else ""),
                "PUBSUB_EMULATOR_HOST": given.get("PUBSUB_EMULATOR_HOST") or (pubsub.host if pubsub else ""),
                "GOOGLE_CLOUD_PROJECT": given.get("GOOGLE_CLOUD_PROJECT") or "local",
                "ADAPTER_ENDPOINTS": ",".join(f"{name}=binance@{venue.url}" for name, venue in venues.items()),
                "PORT": str(free),
                "DATA_DIR": str(folder),
                "LOG_FORMAT": "json",
            }
            for name in venues:
                environment |= {f"{name.upper()}_API_KEY": "local", f"{name.upper()}_API_SECRET": "local-secret"}
        except BaseException:
            await _stop_all(venues, pubsub, redis)
            raise
        stack = cls(folder, environment, venues, folder / "service.log", free, None, notes)
        stack._redis, stack._pubsub = redis, pubsub
        return stack

    async def start_service(self) -> None:
        """Start `execution run` as a process of its own, and wait until it is ready.

        Raises:
            DevStackError: it ended; the message has its last words.
        """
        with self.log_file.open("wb") as log:
            self.service = await asyncio.create_subprocess_exec(
                *tied_to_us([sys.executable, "-m", "execution.cli", "run"]),
                env={**os.environ, **self.environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        url = ("127.0.0.1", self.port)
        for _ in range(600):
            if self.service.returncode is not None:
                raise DevStackError(f"the service ended at its start: {self.last_words()}")
            if await _ready(*url):
                self._write_connection()
                return
            await asyncio.sleep(0.05)
        raise DevStackError(f"the service is not ready after 30 s: {self.last_words()}")

    def last_words(self) -> str:
        """The last error that the service logged."""
        for line in reversed(self.log_file.read_text(errors="replace").splitlines()):
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if entry.get("severity") in ("ERROR", "CRITICAL"):
                    return str(entry.get("reason") or entry.get("error") or entry.get("message"))
        return f"see {self.log_file}"

    async def stop_service(self) -> int | None:
        """SIGTERM, as Cloud Run sends it; returns the exit code."""
        if self.service is None:
            return None
        with contextlib.suppress(ProcessLookupError):
            self.service.send_signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(self.service.wait(), STOP_SECONDS)
        except TimeoutError:
            self.service.kill()
            return await self.service.wait()

    async def stop(self) -> None:
        (self.folder / "dev.json").unlink(missing_ok=True)
        await self.stop_service()
        await _stop_all(self.venues, self._pubsub, self._redis)

    def _write_connection(self) -> None:
        """For the commands of a second terminal."""
        environment = self.environment
        connection = {
            "pubsub_emulator_host": environment["PUBSUB_EMULATOR_HOST"],
            "redis_url": environment["REDIS_URL"],
            "project": environment["GOOGLE_CLOUD_PROJECT"],
            "http_port": self.port,
            "adapter_endpoints": environment["ADAPTER_ENDPOINTS"],
            "pid": os.getpid(),
            "env": {key: value for key, value in environment.items() if key.endswith(("_API_KEY", "_API_SECRET"))},
        }
        path = self.folder / "dev.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(connection, indent=2))


async def _own_redis(data_dir: Path, notes: list[str]) -> tuple[EmbeddedRedis, Path]:
    """A state store in a folder of this stack; venues forget at their end, so the stack starts empty."""
    for number in range(1, MOST_STACKS + 1):
        folder = data_dir if number == 1 else data_dir.with_name(f"{data_dir.name}-{number}")
        store = folder / "dev-redis"
        if EmbeddedRedis.locate(store) is None and store.exists():
            shutil.rmtree(store, ignore_errors=True)
        try:
            server = await EmbeddedRedis.start(store)
        except StoreInUse:
            continue
        if number > 1:
            notes.append(
                f"another dev stack runs on {data_dir}; this one uses {folder} (for its commands: DATA_DIR={folder})"
            )
        return server, folder
    raise DevStackError(f"{MOST_STACKS} dev stacks run on {data_dir} already: stop one")


def _venue(name: str, factor: Decimal, maker: Decimal, taker: Decimal, seed: int) -> VenueConfig:
    symbols = [
        SymbolSpec(base=base, quote="USDT", price=(price * factor).quantize(Decimal("0.01")))
        for base, price in PRICES.items()
    ]
    market = MarketConfig(seed=seed, volatility=0.8, trades=4.0)
    return VenueConfig(
        name=name, symbols=symbols, maker_bps=maker, taker_bps=taker, market=market, limits=Limits(orders_per_10s=1000)
    )


def free_port(wanted: int) -> int:
    """The wanted port if nobody listens there, else a free one."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise DevStackError("no free port on 127.0.0.1")


async def _ready(host: str, port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    try:
        writer.write(b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        status = await reader.readline()
    except ConnectionError:
        return False
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return b" 200 " in status


async def _stop_all(
    venues: Mapping[str, VenueProcess], pubsub: PubSubProcess | None, redis: EmbeddedRedis | None
) -> None:
    await asyncio.gather(*(venue.stop() for venue in venues.values()))
    if pubsub is not None:
        await pubsub.stop()
    if redis is not None:
        await redis.stop()
