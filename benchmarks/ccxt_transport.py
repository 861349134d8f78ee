"""What an order costs the client: the adapter's way against bare ccxt's, in one run, as a ratio.

A local venue runs in a process of its own; here, bursts of the two ways alternate, so that whatever else the machine does hits both alike.
Run: python -m benchmarks.ccxt_transport [--orders 4000] [--rounds 8] [--profile]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import ccxt.pro
from pyinstrument import Profiler

from adapters.base import ApprovedOrder
from adapters.ccxt_venue import CcxtAdapter, parse_endpoints
from adapters.ccxt_venue.exchange import redirect
from adapters.simulator.limits import Limits
from adapters.simulator.process import VenueProcess
from adapters.simulator.server import VenueConfig
from adapters.simulator.symbols import SymbolSpec
from schemas.terms import OrderType, Side

KEYS = {"apiKey": "local", "secret": "local-secret"}
SYMBOL = "BTC/USDT"
_ids = itertools.count(1)

Place = Callable[[str], Awaitable[Any]]


async def burst(place: Place, orders: int, concurrency: int) -> tuple[float, float, list[float]]:
    """CPU and wall time per order in µs, and each order's time in ms."""
    took: list[float] = []

    async def one(count: int) -> None:
        for _ in range(count):
            started = time.perf_counter()
            await place(f"b{next(_ids)}")
            took.append((time.perf_counter() - started) * 1000)

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(one(orders // concurrency) for _ in range(concurrency)))
    done = len(took)
    return (time.process_time() - cpu) / done * 1e6, (time.perf_counter() - wall) / done * 1e6, took


async def compare(ways: dict[str, Place], orders: int, rounds: int, concurrency: int) -> None:
    cpus: dict[str, list[float]] = {name: [] for name in ways}
    walls: dict[str, list[float]] = {name: [] for name in ways}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for place in ways.values():
        await burst(place, 200, concurrency)  # warm
    for _ in range(rounds):
        for name, place in ways.items():
            cpu, wall, took = await burst(place, orders // rounds, concurrency)
            cpus[name].append(cpu)
            walls[name].append(wall)
            times[name] += took
    print(f"\nconcurrency {concurrency}, {orders} orders each")
    for name in ways:
        cpu, wall = statistics.median(cpus[name]), statistics.median(walls[name])
        centiles = statistics.quantiles(times[name], n=100)
        print(
            f"  {name:8} {cpu:6.0f} µs CPU/order  {1e6 / wall:6.0f} orders/s  "
            f"p50 {centiles[49]:5.2f} ms  p99 {centiles[98]:5.2f} ms"
        )
    first, second = (statistics.median(cpus[name]) for name in ways)
    pairs = sorted(bare / ours for ours, bare in zip(cpus["adapter"], cpus["ccxt"], strict=True))
    print(f"  CPU of bare ccxt / ours: {second / first:.2f} (rounds: {pairs[0]:.2f} to {pairs[-1]:.2f})")


async def main(arguments: argparse.Namespace) -> None:
    spec = SymbolSpec(base="BTC", quote="USDT", price=Decimal(50000), max_orders=10_000_000)
    limits = Limits(orders_per_10s=100_000_000, orders_per_day=100_000_000, weight_per_minute=1_000_000_000)
    async with await VenueProcess.start(VenueConfig(symbols=[spec], limits=limits, market=None)) as venue:
        adapter = CcxtAdapter(parse_endpoints(f"binance@{venue.url}")[0], KEYS)
        bare = ccxt.pro.binance(
            {
                **KEYS,
                "enableRateLimit": False,
                "options": {"fetchMarkets": {"types": ["spot"]}, "fetchMargins": False},
            }
        )
        bare.has = {**bare.has, "fetchCurrencies": False}
        redirect(bare.urls["api"], venue.url)

        async def by_adapter(client_id: str) -> None:
            told = await adapter.place(
                ApprovedOrder(
                    client_order_id=client_id,
                    symbol=SYMBOL,
                    side=Side.BUY,
                    order_type=OrderType.LIMIT,
                    quantity=Decimal("0.001"),
                    price=Decimal(20000),
                )
            )
            assert told.venue_order_id is not None

        async def by_ccxt(client_id: str) -> None:
            told = await bare.create_order(
                SYMBOL, "limit", "buy", 0.001, 20000, {"clientOrderId": client_id, "recvWindow": 5000}
            )
            assert told["id"] is not None

        try:
            await adapter.start()
            await bare.load_markets()
            ways = {"adapter": by_adapter, "ccxt": by_ccxt}
            for concurrency in (1, 16):
                await compare(ways, arguments.orders, arguments.rounds, concurrency)
            if arguments.profile:
                with Profiler(async_mode="disabled") as profiler:
                    await burst(by_adapter, arguments.orders, 16)
                print(profiler.output_text(show_all=True))
        finally:
            await bare.close()
            await adapter.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--profile", action="store_true", help="print where the adapter's time goes")
    asyncio.run(main(parser.parse_args()))
