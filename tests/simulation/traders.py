"""What is traded in a run: signals, commands, and a strategy's beats."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from execution.ledger import order_key
from execution.pubsub import OutgoingMessage
from schemas import exact_json
from tests.simulation.venue import SYMBOL
from tests.simulation.watch import BEAT_TIMEOUT

if TYPE_CHECKING:
    from tests.simulation.world import World

STRATEGY = "simulation"
LIFE = 60.0
"""Virtual seconds in which signals come and things go wrong."""


async def trade(world: World, draw: random.Random) -> None:
    """Publish signals and commands over the life of the run; some signals twice."""
    await asyncio.sleep(draw.uniform(0.5, 3))
    count, burst = draw.randint(4, 14), 0
    for number in range(count):
        if burst:
            burst -= 1  # more at once than a venue takes in a second or two
        else:
            await asyncio.sleep(draw.expovariate(count / (LIFE * 0.7)))
            burst = 8 if draw.random() < 0.05 else 0
        signal = _signal(world, draw, number)
        world.signals[signal["signal_id"]] = signal
        world.most[order_key(signal["signal_id"])] = signal["quantity"]
        await publish(world, "signals", signal)
        if draw.random() < 0.15:
            await publish(world, "signals", signal)
        if draw.random() < 0.4:
            await _command(world, draw)
    for signal_id in list(world.signals):
        if draw.random() < 0.3:
            await asyncio.sleep(draw.uniform(0, 2))
            await publish(world, "control", {"type": "order.cancel", "signal_id": signal_id, "reason": "enough"})


async def beat(world: World, draw: random.Random) -> None:
    """The strategy beats, in some runs; in some of those it stops, and a person resumes it after a while, or does not."""
    if draw.random() < 0.4:
        return
    stops = draw.uniform(6, 35) if draw.random() < 0.5 else float("inf")
    beat = {"type": "heartbeat", "strategy_id": STRATEGY, "timeout_seconds": BEAT_TIMEOUT}
    while world.loop.time() < stops:
        world.beating = True
        world.beat_at = world.loop.time()
        await publish(world, "control", beat)
        await asyncio.sleep(2.0)
    world.beating = False
    world.note("the strategy is silent from now on")
    if draw.random() < 0.5:
        await asyncio.sleep(draw.uniform(20, 60))
        world.note("a person resumes it")
        await publish(world, "control", {"type": "resume", "scope": "strategy", "value": STRATEGY, "command_id": "r"})


async def publish(world: World, topic: str, fields: dict[str, Any]) -> None:
    """As a strategy publishes: again, until it is certain."""
    while True:
        try:
            await world.bus.publish(topic, [OutgoingMessage(exact_json.encode(fields), {})])
            return
        except Exception:
            await asyncio.sleep(0.5)


def _signal(world: World, draw: random.Random, number: int) -> dict[str, Any]:
    side = draw.choice(("buy", "sell"))
    quantity = Decimal(draw.randint(200, 6000)) / 1000
    signal: dict[str, Any] = {
        "signal_id": f"s{number}",
        "strategy_id": STRATEGY,
        "exchange": draw.choice(sorted(world.venues)),
        "symbol": SYMBOL,
        "side": side,
        "quantity": quantity,
        "order_type": "market",
        "expires_at": world.now_ms() + draw.randint(20_000, 80_000),
    }
    price = Decimal(100) + draw.randint(-100, 100) / Decimal(100)
    if draw.random() < 0.2:
        price += -5 if side == "buy" else 5  # it rests until its time is over, or somebody cancels it
    seconds = draw.randint(5, 40)
    kind = draw.choice(
        (
            "market",
            "limit",
            "limit",
            "ioc",
            "twap",
            "twap",
            "vwap",
            "pov",
            "iceberg",
            "peg",
            "router",
            "bracket",
            "bracket",
            "stop",
        )
    )
    if kind in ("limit", "ioc", "iceberg"):
        signal |= {"order_type": "limit", "price": price}
        if draw.random() < 0.5 and kind != "ioc":
            del signal["expires_at"]
    match kind:
        case "ioc":
            signal["time_in_force"] = "IOC"
        case "twap" | "vwap":
            style = draw.choice(("passive", "aggressive", "adaptive"))
            signal |= {
                "algorithm": kind,
                "algorithm_params": {"duration_seconds": seconds, "slices": draw.randint(2, 8), "style": style},
            }
        case "pov":
            signal |= {"algorithm": "pov", "algorithm_params": {"participation": "0.3", "interval_seconds": 2}}
        case "iceberg":
            signal |= {"algorithm": "iceberg", "algorithm_params": {"display_quantity": "0.5"}}
        case "peg":
            signal |= {"algorithm": "peg", "algorithm_params": {"duration_seconds": seconds, "at_end": "cross"}}
        case "router":
            signal |= {"algorithm": "smart_router", "exchange": "auto"}
        case "bracket":
            up, down = Decimal("101.5"), Decimal("98.5")
            signal |= {"take_profit": up if side == "buy" else down, "stop_loss": down if side == "buy" else up}
        case "stop":
            beyond = Decimal("100.3") if side == "buy" else Decimal("99.7")
            signal |= {"order_type": "stop", "stop_price": beyond}
    return signal


async def _command(world: World, draw: random.Random) -> None:
    """Give an order one command, or some one after the other; who is not sure that it arrived sends an earlier one again."""
    signal_id = draw.choice(sorted(world.signals))
    kinds = draw.choice(
        (
            ("order.cancel",),
            ("order.amend",),
            ("order.pause", "order.resume"),
            ("order.amend", "order.amend"),
            ("order.pause",),
        )
    )
    given = []
    for kind in kinds:
        command_id = f"c{draw.getrandbits(60):x}"
        # The id is the reason too: the events tell it.
        command: dict[str, Any] = {
            "type": kind,
            "signal_id": signal_id,
            "command_id": command_id,
            "reason": command_id,
        }
        if kind == "order.amend":
            command["quantity"] = Decimal(draw.randint(200, 6000)) / 1000
            key = order_key(signal_id)
            world.most[key] = max(world.most[key], command["quantity"])
        given.append(command)
        world.commands.add(command_id)
        await publish(world, "control", command)
        await asyncio.sleep(draw.uniform(0.2, 3))
    if draw.random() < 0.4:
        await publish(world, "control", given[0])
