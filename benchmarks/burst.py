"""A burst of signals, far more than the service may hold: none is lost, and its memory stays bounded. Prints both.

`python -m benchmarks.burst [NUMBER]`, 50,000 by default.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path

from execution.embedded.pubsub.process import PubSubProcess
from execution.embedded.redis_server import EmbeddedRedis
from execution.pubsub import OutgoingMessage, topic_name
from schemas import exact_json
from tests.system import System, venue

LONGEST_SECONDS = 600.0
PAGE_KIB = 4


async def main(number: int) -> int:
    folder = Path(tempfile.mkdtemp(prefix="burst-"))
    async with (
        await EmbeddedRedis.start(folder / "store") as redis,
        await PubSubProcess.start() as pubsub,
        venue() as alpha,
        System(redis.url, pubsub.host, folder, {"alpha": alpha}) as system,
    ):
        await system.liquidity("9000")
        replica = await system.replica(SHARDS="32")
        pid = replica.process.pid
        before = _resident(pid)
        system.published = [f"burst-{index}" for index in range(number)]
        messages = [OutgoingMessage(_signal(name), {}) for name in system.published]
        topic = topic_name(system.project, "approved-signals")
        started = time.monotonic()
        for start in range(0, number, 1000):
            await system._publisher.publish(topic, messages[start : start + 1000])
        sys.stdout.write(f"{number} signals published in {time.monotonic() - started:.1f} s\n")
        most = before
        while system.watch.types["order.filled"] < number:
            if time.monotonic() - started > LONGEST_SECONDS:
                sys.stdout.write("not all were filled in time\n")
                return 1
            await asyncio.sleep(1.0)
            most = max(most, _resident(pid))
        seconds = time.monotonic() - started
        sys.stdout.write(f"all filled after {seconds:.0f} s, {number / seconds:.0f} a second\n")
        sys.stdout.write(f"memory of the service: {before} MiB before, {most} MiB at most\n")
        await system.agrees(120)
        sys.stdout.write("venue, ledger and events agree\n")
        return await replica.stop()


def _signal(name: str) -> bytes:
    return exact_json.encode(
        {
            "signal_id": name,
            "strategy_id": "burst",
            "exchange": "alpha",
            "symbol": "BTC/USDT",
            "side": "buy",
            "quantity": Decimal("0.001"),
            "order_type": "market",
        }
    )


def _resident(pid: int) -> int:
    """MiB of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_KIB // 1024


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)))
