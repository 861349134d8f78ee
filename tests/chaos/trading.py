"""What is traded: signals of every algorithm and order type, each with an end, and commands about them."""

from __future__ import annotations

import asyncio
import random
import time
from decimal import Decimal
from typing import Any

from tests.chaos.world import PRICES, SYMBOLS, World

KINDS = (
    *("market", "limit", "ioc", "maker", "stop", "trailing", "bracket", "twap", "twap", "vwap", "shortfall"),
    *("pov", "iceberg", "peg", "sniper", "router", "router"),
)
_BPS = Decimal("0.0001")


async def trade(world: World, draw: random.Random, seconds: float, count: int, longest: int = 15) -> None:
    """Publish so many signals, and commands, over so many seconds; some of them twice. `longest`: seconds that an order is worked."""
    for number in range(count):
        await asyncio.sleep(draw.expovariate(count / seconds))
        name = f"s{number}"
        await world.signal(name, **signal(world, draw, KINDS[number % len(KINDS)], longest))
        if draw.random() < 0.15:
            await world.publish("approved-signals", world.signals[name])
        if draw.random() < 0.25:
            await world.command(**command(world, draw))


def signal(world: World, draw: random.Random, kind: str, longest: int) -> dict[str, Any]:
    """A signal of a kind, without its id. It ends by itself, except for a bracket's exits."""
    symbol, side = draw.choice(SYMBOLS), draw.choice(("buy", "sell"))
    price, up = PRICES[symbol], 1 if side == "buy" else -1
    quantity = (Decimal(draw.randint(500, 20_000)) / price).quantize(Decimal("0.0001"))
    seconds = draw.randint(3, longest)
    fields: dict[str, Any] = {
        "exchange": draw.choice(world.venue_names),
        "symbol": symbol,
        "side": side,
        "quantity": quantity,
        "expires_at": int(time.time() * 1000) + 1000 * (seconds + draw.randint(2, 6)),
    }
    near = _at(price, draw.randint(-6, 6))
    worked = {"duration_seconds": seconds, "style": draw.choice(("passive", "aggressive", "adaptive"))}
    match kind:
        case "limit":
            fields["price"] = near
        case "ioc":
            fields |= {"price": near, "time_in_force": "IOC"}
        case "maker":
            fields |= {"price": _at(price, -3 * up), "post_only": True}
        case "stop":
            fields |= {"order_type": "stop", "stop_price": _at(price, 4 * up)}
        case "trailing":
            params = {"trail_bps": draw.choice((5, 10, 12))}
            fields |= {"order_type": "trailing_stop", "stop_price": _at(price, 5 * up), "algorithm_params": params}
        case "bracket":
            profit, loss = _at(price, 15 * up), _at(price, -15 * up)
            fields |= {"take_profit": profit, "stop_loss": loss}
        case "twap" | "vwap":
            fields |= {"algorithm": kind, "algorithm_params": {**worked, "slices": draw.randint(2, 8)}}
        case "shortfall":
            fields |= {"algorithm": "implementation_shortfall", "algorithm_params": {**worked, "slices": 5}}
        case "pov":
            fields |= {"algorithm": "pov", "algorithm_params": {"participation": "0.3", "interval_seconds": 1}}
        case "iceberg":
            shown = (quantity / 4).quantize(Decimal("0.0001"))
            fields |= {"algorithm": "iceberg", "price": near, "algorithm_params": {"display_quantity": shown}}
        case "peg":
            fields |= {"algorithm": "peg", "algorithm_params": {"duration_seconds": seconds, "at_end": "cross"}}
        case "sniper":
            fields |= {"algorithm": "sniper", "price": near}
        case "router":
            fields |= {"algorithm": "smart_router", "exchange": "auto"}
    return fields


def command(world: World, draw: random.Random) -> dict[str, Any]:
    """A command about one of the signals so far."""
    signal_id = draw.choice(sorted(world.signals))
    kind = draw.choice(("order.cancel", "order.cancel", "order.amend", "order.pause", "order.resume"))
    fields: dict[str, Any] = {"type": kind, "signal_id": signal_id, "command_id": f"c{draw.getrandbits(60):x}"}
    if kind == "order.amend":
        factor = draw.choice((Decimal("0.5"), Decimal("1.5")))
        fields["quantity"] = (world.signals[signal_id]["quantity"] * factor).quantize(Decimal("0.0001"))
    return fields


def _at(price: Decimal, bps: int) -> Decimal:
    """A price so many basis points away, on the tick."""
    return (price * (1 + bps * _BPS)).quantize(Decimal("0.01"))
