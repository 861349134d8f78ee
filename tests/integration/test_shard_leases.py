"""Shards change hands: no replica takes back what it gives, none leaves shards to one that has gone."""

from __future__ import annotations

import asyncio

from execution.ledger import keys
from execution.ledger.keys import ShardKeys
from execution.store import Store
from tests.replica import Replica, until
from tests.scripted_venue import ScriptedVenue

SHARDS = 32


async def epochs(store: Store) -> list[int]:
    """How often each shard has changed hands."""
    rows = [await store.call("HGET", ShardKeys(shard).lease, "epoch") for shard in range(SHARDS)]
    return [int(row) for row in rows]


async def woken_by_releases(store: Store, *replicas: Replica) -> None:
    """As in the daemon: whoever hears of a released shard beats at once, the one that released it too."""

    def woken(_channel: str, _payload: bytes | str) -> None:
        for replica in replicas:
            replica.leases.wake()

    await store.subscribe(keys.WAKE_CHANNEL, callback=woken, resubscribed=lambda: None)


async def test_each_shard_moves_once_when_a_replica_comes(store: Store) -> None:
    venue = ScriptedVenue()
    first = await Replica(store, {"alpha": venue}, "a", shards=SHARDS).start()
    second = Replica(store, {"alpha": venue}, "b", shards=SHARDS)
    await woken_by_releases(store, first, second)
    await second.start(shards=SHARDS // 2)
    await until(lambda: len(first.leases.owned) == len(second.leases.owned) == SHARDS // 2)
    assert sorted(await epochs(store)) == [1] * (SHARDS // 2) + [2] * (SHARDS // 2)
    await first.die()
    await second.die()


async def test_a_replica_that_has_left_takes_nothing_and_is_not_counted(store: Store) -> None:
    venue = ScriptedVenue()
    first = await Replica(store, {"alpha": venue}, "a", shards=SHARDS).start()
    second = Replica(store, {"alpha": venue}, "b", shards=SHARDS)
    await woken_by_releases(store, first, second)
    await second.start(shards=SHARDS // 2)
    await first.runner.hand_over(set(first.leases.owned), 2.0)
    await first.leases.release_all()
    await until(lambda: len(second.leases.owned) == SHARDS, 60.0)  # while the first one still beats
    first.leases.wake()
    second.leases.wake()
    before = second.leases.last_beat
    await until(lambda: second.leases.last_beat != before)
    await asyncio.sleep(0.1)
    assert await store.call("ZRANGE", keys.REPLICAS, 0, -1) == [b"b"]
    assert len(second.leases.owned) == SHARDS
    assert not first.leases.owned
    await first.die()
    await second.die()


async def test_an_inbox_has_one_reader_at_a_time(store: Store) -> None:
    """However many ask for one: and what came while it read is read too."""
    replica = await Replica(store, {"alpha": ScriptedVenue()}, "a", shards=1, ttl=60.0).start()
    await until(lambda: replica.leases.last_beat)
    await asyncio.sleep(0.5)  # the first beat reads it too; the next comes in twelve seconds
    read, under_way, reads = replica.runner.read_inbox, [0], []

    async def counted(shard: int) -> list[tuple[str, bytes]]:
        under_way.append(under_way[-1] + 1)
        reads.append(shard)
        found = await read(shard)
        under_way.append(under_way[-1] - 1)
        return found

    replica.runner.read_inbox = counted  # type: ignore[method-assign]
    await asyncio.gather(*(replica.commands.read_inbox(0) for _ in range(20)))
    assert max(under_way) == 1
    assert len(reads) == 2, "once for the first, once for all that asked while it read"
    await replica.commands.read_inbox(0)
    assert len(reads) == 3
    await replica.die()
