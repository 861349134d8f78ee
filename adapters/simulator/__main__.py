"""`python -m adapters.simulator`: a local venue on a port of its own."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import signal
import sys
from decimal import Decimal
from pathlib import Path

import msgspec

from adapters.simulator.candles import HistoryConfig
from adapters.simulator.limits import Limits
from adapters.simulator.market import MarketConfig
from adapters.simulator.server import Venue, VenueConfig
from adapters.simulator.symbols import ORDER_TYPES, SymbolSpec

_PR_SET_PDEATHSIG = 1


def main() -> int:
    arguments = _arguments()
    if arguments.config_file is not None:
        config = msgspec.json.decode(arguments.config_file.read_bytes(), type=VenueConfig)
    else:
        config = _config(arguments)
    return asyncio.run(_serve(config, arguments.port_file, os.getppid() if arguments.die_with_parent else None))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m adapters.simulator", description=__doc__)
    parser.add_argument("--name", default="local", help="what the venue calls itself")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument(
        "--price", action="append", metavar="BASE/QUOTE=PRICE", help="a symbol and where it starts; may be repeated"
    )
    parser.add_argument("--maker-bps", type=Decimal, default=Decimal(10))
    parser.add_argument("--taker-bps", type=Decimal, default=Decimal(10))
    parser.add_argument("--key", action="append", metavar="KEY:SECRET", help="an account; default local:local-secret")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--volatility", type=float, default=0.6, help="per year")
    parser.add_argument("--drift", type=float, default=0.0, help="per year")
    parser.add_argument("--market", choices=("on", "off"), default="on", help="off: an empty book")
    parser.add_argument("--order-types", metavar="TYPE,TYPE", help="fewer than Binance's, to play a poorer venue")
    parser.add_argument("--iceberg", choices=("on", "off"), default="on")
    parser.add_argument("--trailing", choices=("on", "off"), default="on")
    parser.add_argument(
        "--replay",
        action="append",
        metavar="[BASE/QUOTE=]FILE",
        help="CSV ts_ms,price,quantity,side that drives a symbol (the first one, when none is named); may be repeated",
    )
    parser.add_argument("--speed", type=float, default=1.0, help="seconds of a recording per second of the clock")
    parser.add_argument("--history-days", type=int, default=30, help="days of candles from before the start")
    parser.add_argument("--orders-per-10s", type=int, default=100)
    parser.add_argument("--weight-per-minute", type=int, default=6000)
    parser.add_argument("--state", metavar="FILE", help="where orders, trades and balances outlast a restart")
    parser.add_argument("--config-file", type=Path, help="a VenueConfig as JSON, instead of all the above")
    parser.add_argument("--port-file", type=Path, help="where to write the port once it listens")
    parser.add_argument("--die-with-parent", action="store_true")
    return parser.parse_args()


def _config(arguments: argparse.Namespace) -> VenueConfig:
    symbols = []
    for item in arguments.price or ["BTC/USDT=50000", "ETH/USDT=3000"]:
        name, _, price = item.partition("=")
        base, _, quote = name.partition("/")
        symbols.append(
            SymbolSpec(
                base=base,
                quote=quote,
                price=Decimal(price),
                order_types=tuple(arguments.order_types.split(",")) if arguments.order_types else ORDER_TYPES,
                iceberg=arguments.iceberg == "on",
                trailing=arguments.trailing == "on",
            )
        )
    replay = {}
    for item in arguments.replay or []:
        name, _, path = item.rpartition("=")
        replay[name.replace("/", "") or symbols[0].id] = path
    market = MarketConfig(seed=arguments.seed, volatility=arguments.volatility, drift=arguments.drift)
    return VenueConfig(
        name=arguments.name,
        host=arguments.host,
        port=arguments.port,
        symbols=symbols,
        maker_bps=arguments.maker_bps,
        taker_bps=arguments.taker_bps,
        keys=dict(item.split(":", 1) for item in arguments.key or ["local:local-secret"]),
        limits=Limits(orders_per_10s=arguments.orders_per_10s, weight_per_minute=arguments.weight_per_minute),
        market=market if arguments.market == "on" else None,
        history=HistoryConfig(days=arguments.history_days, seed=arguments.seed, volatility=arguments.volatility),
        replay=replay,
        speed=arguments.speed,
        state=arguments.state,
    )


async def _serve(config: VenueConfig, port_file: Path | None, parent: int | None) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if parent is not None and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    try:
        venue = Venue(config)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"cannot start: {error}\n")
        return 1
    try:
        await venue.start()
    except OSError as error:
        sys.stderr.write(f"cannot listen on {config.host}:{config.port}: {error.strerror}; try another --port, or 0\n")
        return 1
    if port_file is not None:
        port_file.write_text(f"{venue.port}\n")
    sys.stdout.write(f"local venue {config.name} (development only) listening on {venue.url}\n")
    sys.stdout.flush()
    while not stopping.is_set():
        try:
            await asyncio.wait_for(stopping.wait(), 1.0)
        except TimeoutError:
            if parent is not None and os.getppid() != parent:
                break
    await venue.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
