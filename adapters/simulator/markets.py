"""What moves the venue's symbols: the synthetic market, a recording, or nobody but whoever trades."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Protocol

from adapters.simulator.engine import Engine
from adapters.simulator.errors import INVALID_SYMBOL
from adapters.simulator.market import MarketConfig, SyntheticMarket
from adapters.simulator.replay import RecordedTrade, Replay, ReplayConfig

RAMP_SECONDS = 0.1
"""Between two steps of a ramp."""
_LOOK_SECONDS = 0.25
_FAIR_EVENTS = 20
"""Events between two looks at the requests that wait."""


class Driver(Protocol):
    """Something that makes events in a time of its own, in seconds."""

    paused: bool

    @property
    def due(self) -> float: ...

    def happen(self) -> None: ...


class Markets:
    """The life of all symbols of a venue."""

    def __init__(self, engine: Engine, config: MarketConfig | None) -> None:
        self._engine = engine
        self._config = config
        self.synthetic: dict[str, SyntheticMarket] = {}
        if config is not None:
            self.synthetic = {name: SyntheticMarket(engine, one, config) for name, one in engine.markets.items()}
        self._replays: dict[str, Replay] = {}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}

    def start(self) -> None:
        """Put the synthetic quotes into the books, and let time pass."""
        for name, market in self.synthetic.items():
            if name not in self._replays:
                market.requote()
            assert self._config is not None
            self._run("live", name, _play(market, self._config.speed))

    async def stop(self) -> None:
        for task in list(self._tasks.values()):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def state(self) -> dict[str, Any]:
        """By symbol: who moves it, whether that is paused, the last price, and how far a recording has been played."""
        told: dict[str, Any] = {}
        for name, market in self._engine.markets.items():
            replay, synthetic = self._replays.get(name), self.synthetic.get(name)
            driver = replay or synthetic
            told[name] = {
                "kind": "replay" if replay is not None else "synthetic" if synthetic is not None else "still",
                "paused": driver is not None and driver.paused,
                "last": f"{market.last:f}",
                "replayed": replay.done if replay is not None else 0,
                "finished": replay is not None and replay.finished,
            }
        return told

    def pause(self, symbol: str | None, *, paused: bool) -> None:
        """Halt or continue the participants of a symbol, or of all; orders and quotes stay where they are.

        Raises:
            VenueError: -1121.
        """
        if symbol is not None:
            self._engine.market(symbol)
        for name in self._engine.markets if symbol is None else [symbol]:
            driver = self._replays.get(name) or self.synthetic.get(name)
            if driver is not None:
                driver.paused = paused

    # --- moving the price -------------------------------------------------------------------------------------------

    def move(self, symbol: str, price: Decimal) -> None:
        """Move the price now; ends a ramp.

        Raises:
            VenueError: -1121.
        """
        self._end("ramp", symbol)
        self._jump(symbol, price)

    def ramp(self, symbol: str, price: Decimal, seconds: float) -> None:
        """Move the price in a straight line, in steps of `RAMP_SECONDS`.

        Raises:
            VenueError: -1121.
        """
        begin = self._engine.market(symbol).last
        self._run("ramp", symbol, self._ramp(symbol, begin, price, seconds))

    def _jump(self, symbol: str, price: Decimal) -> None:
        synthetic = self.synthetic.get(symbol)
        if synthetic is not None and symbol not in self._replays:
            synthetic.move_to(price)
        else:
            self._engine.mark(symbol, price)

    async def _ramp(self, symbol: str, begin: Decimal, end: Decimal, seconds: float) -> None:
        steps = max(round(seconds / RAMP_SECONDS), 1)
        tick = self._engine.market(symbol).spec.tick
        for step in range(1, steps + 1):
            await asyncio.sleep(seconds / steps)
            exact = begin + (end - begin) * step / steps
            self._jump(symbol, (exact / tick).to_integral_value() * tick if step < steps else end)

    # --- recordings -------------------------------------------------------------------------------------------------

    def replay(self, symbol: str, trades: Sequence[RecordedTrade], config: ReplayConfig) -> None:
        """Let a recording drive a symbol from now on; the synthetic participants leave it.

        Raises:
            VenueError: -1121.
            ValueError: no trades, or a speed that is none.
        """
        market = self._engine.market(symbol)
        if not trades or config.speed <= 0:
            raise ValueError("a replay needs trades and a speed above zero")
        self.end_replay(symbol)
        synthetic = self.synthetic.get(symbol)
        if synthetic is not None:
            synthetic.leave()
        replay = self._replays[symbol] = Replay(self._engine, market, trades, config)
        self._run("replay", symbol, _play(replay, config.speed))

    def end_replay(self, symbol: str) -> None:
        """Take a recording off; the synthetic participants go on from its last price.

        Raises:
            VenueError: -1121.
        """
        if symbol not in self._engine.markets:
            raise INVALID_SYMBOL
        self._end("replay", symbol)
        replay = self._replays.pop(symbol, None)
        if replay is None:
            return
        replay.stop()
        synthetic = self.synthetic.get(symbol)
        if synthetic is not None:
            synthetic.paused = False
            synthetic.move_to(self._engine.market(symbol).last)

    def _run(self, what: str, symbol: str, coroutine: Any) -> None:
        self._end(what, symbol)
        self._tasks[what, symbol] = asyncio.get_running_loop().create_task(coroutine)

    def _end(self, what: str, symbol: str) -> None:
        task = self._tasks.pop((what, symbol), None)
        if task is not None:
            task.cancel()


async def _play(driver: Driver, speed: float) -> None:
    """Let a driver's events happen at their times; what the machine cannot keep up with comes late, not never."""
    loop = asyncio.get_running_loop()
    before, time, events = loop.time(), 0.0, 0
    while True:
        now = loop.time()
        if not driver.paused:
            time += (now - before) * speed
        before = now
        try:
            due = driver.due
        except IndexError:
            return
        wait = (due - time) / speed
        if driver.paused or wait > 0:
            await asyncio.sleep(min(wait, _LOOK_SECONDS) if wait > 0 else _LOOK_SECONDS)
            continue
        driver.happen()
        events += 1
        if events % _FAIR_EVENTS == 0:
            await asyncio.sleep(0)
