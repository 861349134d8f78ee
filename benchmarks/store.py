"""What one commit costs through the store's multiplexed client, against plain redis-py on the same server.

    python benchmarks/store.py [calls per measurement]

The script is a small ledger commit: compare a version, write ten fields, append an event. The server is the embedded one, so every
call is on disk (fsync) before it returns. CPU is that of this process alone: the client's share.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from execution.embedded.redis_server import EmbeddedRedis
from execution.store import Script, Store

COMMIT = Script.of(
    "commit",
    """#!lua
local version = redis.call('HGET', KEYS[1], 'v') or '0'
if version ~= ARGV[1] and ARGV[1] ~= '' then return {'VERSION', version} end
redis.call('XADD', KEYS[2], '*', 'e', ARGV[2])
local fields = {}
for i = 3, #ARGV do fields[#fields + 1] = ARGV[i] end
redis.call('HSET', KEYS[1], unpack(fields))
redis.call('HINCRBY', KEYS[1], 'v', 1)
return {'OK'}
""",
)
ARGUMENTS = ["", "e" * 200] + [part for number in range(10) for part in (f"field{number}", "v" * 20)]
ROUNDS = 3

Commit = Callable[[str], Awaitable[object]]


async def measure(commit: Commit, calls: int, in_flight: int) -> tuple[float, float]:
    """Calls per second and the client's CPU time per call in µs."""

    async def caller(key: str) -> None:
        for _ in range(calls // in_flight):
            await commit(key)

    await asyncio.gather(*(commit(f"{{s00}}:order:{number}") for number in range(in_flight)))
    elapsed, busy = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller(f"{{s00}}:order:{number}") for number in range(in_flight)))
    elapsed, busy = time.perf_counter() - elapsed, time.process_time() - busy
    done = calls // in_flight * in_flight
    return done / elapsed, busy / done * 1e6


async def run(calls: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with await EmbeddedRedis.start(Path(folder)) as server, await Store.connect(server.url) as store:
            plain = redis.asyncio.Redis.from_url(server.url, retry=Retry(NoBackoff(), 0))
            registered = plain.register_script(COMMIT.text)

            async def through_store(key: str) -> object:
                return await store.script(COMMIT, [key, "{s00}:outbox"], ARGUMENTS)

            async def through_redis_py(key: str) -> object:
                return await registered(keys=[key, "{s00}:outbox"], args=ARGUMENTS)

            print(
                f"{'in flight':>9}  {'Store/s':>9} {'µs CPU':>7}  {'redis-py/s':>10} {'µs CPU':>7}  {'rate':>5} {'CPU':>6}"
            )
            for in_flight in (1, 10, 50):
                ours = [await measure(through_store, calls, in_flight) for _ in range(ROUNDS)]
                theirs = [await measure(through_redis_py, calls, in_flight) for _ in range(ROUNDS)]
                rate, cost = (median(values) for values in zip(*ours, strict=True))
                their_rate, their_cost = (median(values) for values in zip(*theirs, strict=True))
                print(
                    f"{in_flight:>9}  {rate:>9,.0f} {cost:>7.1f}  {their_rate:>10,.0f} {their_cost:>7.1f}"
                    f"  {rate / their_rate:>4.1f}x {their_cost / cost:>5.1f}x"
                )
            await plain.aclose()


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]) if len(sys.argv) > 1 else 3000))
