"""A demo strategy. It looks at the venues' public prices and publishes signals and commands as any strategy would."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import aiohttp
import msgspec

from execution.pubsub import OutgoingMessage, Publisher
from execution.pubsub.errors import PubSubError
from schemas import exact_json

SYMBOLS = ("BTC/USDT", "ETH/USDT")
STRATEGIES = ("ma_cross", "mean_revert", "breakout")


class DemoStrategy:
    """Publishes a mix of orders: of every algorithm, at market, resting, immediate-or-cancel, post-only, with a deadline, stops
    and brackets; cancels and amends some."""

    def __init__(
        self, publisher: Publisher, signals_topic: str, control_topic: str, venues: Mapping[str, str], *, seed: int = 1
    ) -> None:
        """`venues`: base URL by name."""
        self._publisher = publisher
        self._signals_topic = signals_topic
        self._control_topic = control_topic
        self._venues = venues
        self._random = random.Random(seed)
        self._run = f"{int(time.time()):x}"
        self._session: aiohttp.ClientSession | None = None
        self.published: dict[str, dict[str, Any]] = {}
        """Every signal published, by its id."""
        self.commands = 0

    async def run(self, per_second: float) -> None:
        """Publish until cancelled."""
        async with aiohttp.ClientSession() as session:
            self._session = session
            while True:
                await asyncio.sleep(self._random.expovariate(per_second))
                try:
                    await self.publish(await self._signal())
                    if self._random.random() < 0.2:
                        await self._command()
                except (PubSubError, aiohttp.ClientError, TimeoutError):
                    await asyncio.sleep(1.0)

    async def publish(self, signal: dict[str, Any]) -> None:
        """Publish one signal."""
        message = OutgoingMessage(exact_json.encode(signal), {"content-type": "application/json"})
        self.published[signal["signal_id"]] = signal
        await self._publisher.publish(self._signals_topic, [message])

    async def cancel(self, signal_id: str, reason: str) -> None:
        """Ask for the end of an order."""
        await self._control({"type": "order.cancel", "signal_id": signal_id, "reason": reason})

    async def _signal(self) -> dict[str, Any]:
        draw = self._random
        venue, symbol = draw.choice(sorted(self._venues)), draw.choice(SYMBOLS)
        side = draw.choice(("buy", "sell"))
        bid, ask = await self._touch(venue, symbol)
        value = Decimal(draw.randint(20, 2000))
        signal: dict[str, Any] = {
            "signal_id": f"sig_{self._run}_{len(self.published) + 1}",
            "strategy_id": draw.choice(STRATEGIES),
            "exchange": venue,
            "symbol": symbol,
            "side": side,
            "quantity": (value / ask).quantize(Decimal("0.00001")),
            "order_type": "limit",
        }
        near, far = (bid, ask) if side == "buy" else (ask, bid)
        kinds = {"market": 25, "touch": 15, "cross": 12, "patient": 8, "ioc": 8, "maker": 8, "timed": 4}
        kinds |= {"algorithm": 25, "stop": 4, "bracket": 6}
        match draw.choices(list(kinds), list(kinds.values()))[0]:
            case "market":
                signal["order_type"] = "market"
            case "touch":
                signal["price"] = near
            case "cross":
                signal["price"] = far
            case "patient":
                away = Decimal("0.9997") if side == "buy" else Decimal("1.0003")
                signal["price"] = (near * away).quantize(Decimal("0.01"))
            case "ioc":
                signal |= {"price": far, "time_in_force": "IOC"}
            case "maker":
                signal |= {"price": near, "post_only": True}
            case "timed":
                expires_at = int(time.time() * 1000) + draw.randint(2000, 8000)
                signal |= {"price": near, "time_in_force": "GTD", "expires_at": expires_at}
            case "algorithm":
                self._work(signal, near, far)
            case "stop":
                beyond = Decimal("1.0002") if side == "buy" else Decimal("0.9998")
                signal |= {"order_type": "stop", "stop_price": (far * beyond).quantize(Decimal("0.01"))}
                signal["expires_at"] = int(time.time() * 1000) + 20_000
            case "bracket":
                up, down = (far * factor for factor in (Decimal("1.0008"), Decimal("0.9992")))
                profit, loss = (up, down) if side == "buy" else (down, up)
                signal |= {
                    "order_type": "market",
                    "take_profit": profit.quantize(Decimal("0.01")),
                    "stop_loss": loss.quantize(Decimal("0.01")),
                }
        return signal

    def _work(self, signal: dict[str, Any], near: Decimal, far: Decimal) -> None:
        """Give a larger order to an algorithm."""
        draw = self._random
        signal["quantity"] *= 10
        signal["order_type"] = "market"
        seconds = draw.randint(10, 30)
        algorithm = draw.choice(
            ("twap", "twap", "vwap", "implementation_shortfall", "pov", "iceberg", "peg", "sniper", "smart_router")
        )
        signal["algorithm"] = algorithm
        match algorithm:
            case "twap" | "vwap" | "implementation_shortfall":
                signal["algorithm_params"] = {"duration_seconds": seconds, "slices": draw.choice((5, 10))}
            case "pov":
                signal["algorithm_params"] = {"participation": "0.2", "duration_seconds": seconds}
            case "iceberg":
                shown = (signal["quantity"] / 5).quantize(Decimal("0.00001"))
                signal |= {"order_type": "limit", "price": far}
                signal["algorithm_params"] = {"display_quantity": shown, "price_mode": "pegged"}
            case "peg":
                signal["algorithm_params"] = {"duration_seconds": seconds, "at_end": "cross"}
            case "sniper":
                signal |= {"order_type": "limit", "price": far, "expires_at": int(time.time() * 1000) + seconds * 1000}
            case "smart_router":
                signal |= {"exchange": "auto"}

    async def _command(self) -> None:
        """Change one's mind about a recent order; it may have filled already, which is part of the show."""
        recent = list(self.published)[-20:]
        chosen = self._random.choice(recent)
        signal = self.published[chosen]
        if self._random.random() < 0.5 or "price" not in signal:
            await self.cancel(chosen, "the strategy changed its mind")
            return
        if "algorithm" in signal:
            return  # these know themselves what to do about the market
        bid, ask = await self._touch(signal["exchange"], signal["symbol"])
        price = ask if signal["side"] == "buy" else bid
        await self._control(
            {"type": "order.amend", "signal_id": chosen, "price": price, "reason": "chasing the market"}
        )

    async def _control(self, command: dict[str, Any]) -> None:
        self.commands += 1
        command["command_id"] = f"cmd_{self._run}_{self.commands}"
        await self._publisher.publish(self._control_topic, [OutgoingMessage(exact_json.encode(command), {})])

    async def _touch(self, venue: str, symbol: str) -> tuple[Decimal, Decimal]:
        assert self._session is not None
        url = f"{self._venues[venue]}/api/v3/ticker/bookTicker?symbol={symbol.replace('/', '')}"
        async with self._session.get(url, timeout=aiohttp.ClientTimeout(2)) as answer:
            ticker = msgspec.json.decode(await answer.read(), type=dict[str, str])
        return Decimal(ticker["bidPrice"]), Decimal(ticker["askPrice"])
