"""Parent orders that stay live, and a steady stream of short ones, published as a strategy would.

The live ones are a mix: limits, icebergs and stops that rest far from the market, and TWAPs and POVs that trade all the time. What of
them ends is replaced by its like, so that their number and the number of their child orders stay the same however long a run is: a
process whose memory grows all the same keeps something that it should not.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from adapters.simulator.limits import Limits
from adapters.simulator.market import MarketConfig
from adapters.simulator.server import VenueConfig
from adapters.simulator.symbols import SymbolSpec
from benchmarks.heard import Heard
from schemas import exact_json
from tests.system import System, venue_config

VENUE = "alpha"
TICK_SECONDS = 0.05
MOST_AT_ONCE = 200
MIX = {"limit": 45, "iceberg": 15, "stop": 5, "twap": 30, "pov": 5}
"""Kinds of live orders, in per cent."""


def busy_venue() -> VenueConfig:
    """A venue with a market that trembles, and room for all the orders of a run."""
    return venue_config(
        symbols=[SymbolSpec(base="BTC", quote="USDT", price=Decimal(50_000), max_orders=10**6)],
        market=MarketConfig(volatility=0.3, level_value=1_000_000.0, permanent_impact=0.0),
        limits=Limits(orders_per_10s=10**6, weight_per_minute=10**8, orders_per_day=10**9),
    )


class Traffic:
    """Publishes to a system until told to stop, and knows what was published."""

    def __init__(
        self,
        system: System,
        heard: Heard,
        *,
        parents: int,
        twap_seconds: float,
        slices: int = 6,
        mix: dict[str, int] | None = None,
    ) -> None:
        """`parents`: orders to keep live; `twap_seconds`: how long a TWAP or POV among them works; `slices`: of a TWAP."""
        self._system = system
        self._heard = heard
        self._seconds = twap_seconds
        self._slices = slices
        self._chance = random.Random(1)
        self._number = 0
        self._kind: dict[str, str] = {}
        mix = mix or MIX
        whole = sum(mix.values())
        self._missing = Counter({kind: parents * share // whole for kind, share in mix.items()})
        self._missing[next(iter(mix))] += parents - sum(self._missing.values())
        self.parents = parents
        self.standing: set[str] = set()
        """Signal ids of live orders that were published and have not ended."""
        self.directs: dict[str, int] = {}
        """When each short order was published, ms since the epoch, by signal id."""
        self._growing = True

    async def grow(self, a_second: float) -> None:
        """Publish the live orders at a rate, and wait until all are accepted."""
        started, given = time.monotonic(), 0
        while self._missing:
            await asyncio.sleep(TICK_SECONDS)
            due = int((time.monotonic() - started) * a_second) - given
            given += await self._replace(min(due, MOST_AT_ONCE))
        self._growing = False
        await self._until(lambda: self.standing <= self._heard.accepted.keys(), "the live orders are accepted", 300)

    async def stream(self, a_second: float, seconds: float, stop: asyncio.Event | None = None) -> None:
        """Short orders at a rate, and live orders in place of those that ended, for so long or until `stop`."""
        started, given = time.monotonic(), 0
        while (elapsed := time.monotonic() - started) < seconds and not (stop is not None and stop.is_set()):
            due = min(int(elapsed * a_second) - given, MOST_AT_ONCE)
            if due > 0:
                await self._publish([self._direct() for _ in range(due)])
                given += due
            await self._replace(MOST_AT_ONCE)
            await asyncio.sleep(TICK_SECONDS)

    async def end(self, seconds: float) -> None:
        """Cancel what is live, and wait until everything published has ended.

        Raises:
            TimeoutError: it has not, in so many seconds.
        """
        self.settle_ended()
        for signal_id in list(self.standing):
            await self._system.command(type="order.cancel", signal_id=signal_id, reason="the end of the run")
        published = self._system.published
        await self._until(lambda: len(self._heard.ended) >= len(published), "everything has ended", seconds)

    @property
    def waiting(self) -> int:
        """Signals published that no event has told of yet."""
        return len(self._system.published) - len(self._heard.by_signal)

    def settle_ended(self) -> None:
        """Note which live orders have ended, and that their like are missing."""
        ended, self._heard.newly_ended = self._heard.newly_ended, []
        for signal_id in ended:
            if signal_id in self.standing:
                self.standing.discard(signal_id)
                self._missing[self._kind.pop(signal_id)] += 1

    # --- what is published --------------------------------------------------------------------------------------------

    async def _replace(self, most: int) -> int:
        """Publish up to so many of the live orders that are missing; returns how many."""
        self.settle_ended()
        kinds = [kind for kind, number in self._missing.items() for _ in range(number)]
        self._chance.shuffle(kinds)
        chosen = kinds[: max(most, 0)]
        if chosen:
            self._missing = +(self._missing - Counter(chosen))
            await self._publish([self._live(kind) for kind in chosen])
        return len(chosen)

    async def _publish(self, signals: Sequence[dict[str, Any]]) -> None:
        self._system.published += [signal["signal_id"] for signal in signals]
        await self._system.raw(*[exact_json.encode(signal) for signal in signals])

    def _direct(self) -> dict[str, Any]:
        signal = self._signal("direct", Decimal("0.001"))
        self.directs[signal["signal_id"]] = time.time_ns() // 1_000_000
        return {**signal, "order_type": "market"}

    def _live(self, kind: str) -> dict[str, Any]:
        signal = self._signal(kind, Decimal("0.01"))
        name = signal["signal_id"]
        self._kind[name] = kind
        self.standing.add(name)
        buys = signal["side"] == "buy"
        far = Decimal(self._chance.randrange(40_000, 46_000) if buys else self._chance.randrange(54_000, 60_000))
        # The first ones have part of their time behind them, so that they do not all end together.
        seconds = self._seconds * (self._chance.uniform(0.3, 1.0) if self._growing else 1.0)
        if kind == "limit":
            return {**signal, "order_type": "limit", "price": far}
        if kind == "iceberg":
            params: dict[str, Any] = {"display_quantity": Decimal("0.002")}
            return {**signal, "order_type": "limit", "price": far, "algorithm": "iceberg", "algorithm_params": params}
        if kind == "stop":
            return {**signal, "order_type": "stop", "stop_price": Decimal(100_000) - far}
        if kind == "twap":
            duration = round(seconds, 3)
            self._heard.schedules[name] = (self._slices, int(duration * 1000))
            params = {"duration_seconds": duration, "slices": self._slices, "style": "aggressive"}
            return {**signal, "order_type": "market", "algorithm": "twap", "algorithm_params": params}
        params = {"participation": Decimal("0.001"), "interval_seconds": 10, "duration_seconds": max(int(seconds), 1)}
        return {**signal, "order_type": "market", "algorithm": "pov", "algorithm_params": params}

    def _signal(self, kind: str, quantity: Decimal) -> dict[str, Any]:
        self._number += 1
        return {
            "signal_id": f"{kind}-{self._number}",
            "strategy_id": "load",
            "exchange": VENUE,
            "symbol": "BTC/USDT",
            "side": "sell" if self._number % 2 else "buy",
            "quantity": quantity,
        }

    async def _until(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                words = "\n".join(replica.words() for replica in self._system.replicas)
                raise TimeoutError(f"not within {seconds:g} s: {what}\n{words}")
            await asyncio.sleep(0.1)
