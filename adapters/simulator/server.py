"""One venue on one port."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from adapters.simulator import state
from adapters.simulator.accounts import Account
from adapters.simulator.candles import HistoryConfig
from adapters.simulator.control_routes import ControlRoutes
from adapters.simulator.engine import Engine
from adapters.simulator.errors import NO_SUCH_ORDER
from adapters.simulator.faults import Faults
from adapters.simulator.limits import Limits, Usage
from adapters.simulator.market import MarketConfig
from adapters.simulator.market_routes import MarketRoutes
from adapters.simulator.markets import Markets
from adapters.simulator.orders import Order
from adapters.simulator.replay import ReplayConfig, read_recording
from adapters.simulator.rest import Rest
from adapters.simulator.streams import DEPTH_SECONDS, Streams
from adapters.simulator.symbols import ORDER_TYPES, SymbolSpec

REQUESTS_KEPT = 100_000


class VenueConfig(msgspec.Struct, kw_only=True):
    """How a venue is made. Fees in basis points; every account starts with the same balances."""

    name: str = "local"
    host: str = "127.0.0.1"
    port: int = 0
    symbols: list[SymbolSpec] = []
    maker_bps: Decimal = Decimal(10)
    taker_bps: Decimal = Decimal(10)
    keys: dict[str, str] = msgspec.field(default_factory=lambda: {"local": "local-secret"})
    balances: dict[str, Decimal] = {}
    limits: Limits = Limits()
    market: MarketConfig | None = MarketConfig()
    """None: the book holds only what is put in."""
    history: HistoryConfig | None = HistoryConfig()
    """Candles from before the venue began; None: there are none."""
    replay: dict[str, str] = {}
    """Symbols (`BTCUSDT`) that follow a recording: the path of its file."""
    speed: float = 1.0
    """Seconds of a recording per second of the clock."""
    state: str | None = None
    """Path of a file in which the accounts' orders, trades and balances outlast a restart; None: they do not."""


class Venue:
    """Raises: ValueError or OSError when made: the configuration names what does not exist, or a recording cannot be read."""

    def __init__(self, config: VenueConfig) -> None:
        self.config = config
        self.clock_offset = 0
        self.engine = Engine(config.symbols, maker_bps=config.maker_bps, taker_bps=config.taker_bps, now=self.now)
        assets = {asset for spec in config.symbols for asset in (spec.base, spec.quote)}
        for key, secret in config.keys.items():
            balances = {asset: config.balances.get(asset, Decimal(1_000_000_000)) for asset in assets}
            self.engine.accounts[key] = Account(key, secret, balances)
        self._state = Path(config.state) if config.state is not None else None
        if self._state is not None and self._state.exists():
            state.restore(self.engine, self._state)
        self.foreign = Account("", "")
        """Whoever a test lets trade against the accounts."""
        self.faults = Faults()
        self.usage = Usage(config.limits)
        self.listen_keys: dict[str, Account] = {}
        self.markets = Markets(self.engine, config.market)
        self.market_routes = MarketRoutes(self)
        self.rest = Rest(self)
        self.streams = Streams(self)
        self.engine.on_report = self.streams.report
        self.engine.on_trade = self.streams.feeds.trade
        for market in self.engine.markets.values():
            market.candles.begin(market.spec, self.now(), config.history)
        _check(config)
        self._recordings = {name: read_recording(Path(path)) for name, path in config.replay.items()}
        self.requests: deque[dict[str, Any]] = deque(maxlen=REQUESTS_KEPT)
        self.port = 0
        self._runner: web.AppRunner | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def url(self) -> str:
        return f"http://{self.config.host}:{self.port}"

    def now(self) -> int:
        """The venue's clock, ms since the epoch."""
        return time.time_ns() // 1_000_000 + self.clock_offset

    async def start(self) -> None:
        app = web.Application(client_max_size=1 << 20)
        control = ControlRoutes(self)
        app.router.add_get("/ws-api/v3", self.streams.api)
        app.router.add_get("/ws", self.streams.market)
        app.router.add_get("/ws/{name:.*}", self.streams.market)
        app.router.add_get("/stream", self.streams.market)
        app.router.add_route("*", "/_control/{what}", control.handle)
        app.router.add_route("*", "/{path:.*}", self.rest.handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.config.host, self.config.port)
        await site.start()
        sockets = site._server.sockets  # type: ignore[union-attr]
        self.port = sockets[0].getsockname()[1]
        for name, trades in self._recordings.items():
            self.markets.replay(name, trades, ReplayConfig(speed=self.config.speed))
        self.markets.start()
        self._tasks = [asyncio.create_task(self._flush())]

    async def stop(self) -> None:
        await self.markets.stop()
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self.streams.close()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._state is not None:
            state.save(self.engine, self._state)

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(DEPTH_SECONDS)
            self.streams.feeds.flush()

    def log_request(self, method: str, path: str, parameters: dict[str, str]) -> None:
        """Keep what arrived, for counting and timing; without signatures."""
        if path.startswith("/api/v3/order"):
            shown = {key: value for key, value in parameters.items() if key != "signature"}
            self.requests.append({"at_ns": time.time_ns(), "method": method, "path": path, "parameters": shown})

    def check_visible(self, order: Order) -> None:
        """Raises: VenueError -2013: a stale read was ordered, and the order is newer than it."""
        for fault in self.faults.active:
            if fault.kind != "stale_reads":
                continue
            if self.now() - order.time < fault.seconds * 1000:
                raise NO_SUCH_ORDER


def _check(config: VenueConfig) -> None:
    """Raises: ValueError: something is named that does not exist, or a speed is none."""
    names = {spec.id for spec in config.symbols}
    for spec in config.symbols:
        if odd := sorted(set(spec.order_types) - set(ORDER_TYPES)):
            raise ValueError(f"{spec.id}: no order types {', '.join(odd)}; there are {', '.join(ORDER_TYPES)}")
    if odd := sorted(set(config.replay) - names):
        raise ValueError(f"a recording for {', '.join(odd)}, but the symbols are {', '.join(sorted(names))}")
    if config.speed <= 0:
        raise ValueError(f"the speed must be above zero, not {config.speed:g}")
