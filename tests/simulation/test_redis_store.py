"""The simulated Redis's failures, as the service's own client sees them, on virtual time."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from execution.simulate.virtual_time import VirtualLoop
from execution.store import Script, StoreRefused, StoreUnavailable
from tests.simulation.redis import Fault, Faults, ReplyError, SimRedis, SimStore, UnknownCommand
from tests.simulation.redis_words import commands

EPOCH = 1_800_000_000.0
ROUGH = Faults(request_lost=0.03, reply_lost=0.03, stalled=0.01, refused=0.03)


def on_virtual_time(story: Callable[[SimRedis, SimStore], Coroutine[Any, Any, Any]], **settings: Any) -> Any:
    """Tell a story of one server and one client."""

    async def run() -> Any:
        loop = asyncio.get_running_loop()
        server = SimRedis(lambda: EPOCH + loop.time())
        async with await SimStore.join(server, **settings) as store:
            return await story(server, store)

    random.seed(1)
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(run())


def heard(store: SimStore) -> list[bool]:
    told: list[bool] = []
    store.on_reconnect(told.append)
    return told


def test_a_call_takes_its_time() -> None:
    async def story(server: SimRedis, store: SimStore) -> None:
        loop = asyncio.get_running_loop()
        since = loop.time()
        assert await store.call("SET", "k", "v") == b"OK"
        assert loop.time() == pytest.approx(since + 1.0)
        assert await store.server_time_ms() == pytest.approx((EPOCH + loop.time() - 0.5) * 1000, abs=1)

    on_virtual_time(story, faults=Faults(latency=(0.5, 0.5)))


@pytest.mark.parametrize(
    ("fault", "applied"), [(Fault.REQUEST_LOST, False), (Fault.REPLY_LOST, True), (Fault.STALLED, True)]
)
def test_an_outcome_that_is_unknown(fault: Fault, applied: bool) -> None:
    async def story(server: SimRedis, store: SimStore) -> None:
        told = heard(store)
        store.strike(fault, "HINCRBY")
        assert await store.call("GET", "h") is None
        with pytest.raises(StoreUnavailable) as raised:
            await store.call("HINCRBY", "h", "f", 1)
        assert raised.value.maybe_applied
        with pytest.raises(StoreUnavailable) as raised:
            await store.call("HINCRBY", "h", "f", 1)
        assert not raised.value.maybe_applied
        await asyncio.sleep(5)
        assert told == [False]
        assert await store.call("HGET", "h", "f") == (b"1" if applied else None)

    on_virtual_time(story, faults=Faults(stall=(3.0, 4.0)))


def test_a_refusal_applies_nothing() -> None:
    async def story(server: SimRedis, store: SimStore) -> None:
        store.strike(Fault.REFUSED)
        with pytest.raises(StoreRefused) as raised:
            await store.call("SET", "k", "v")
        assert raised.value.transient
        assert await store.call("GET", "k") is None

    on_virtual_time(story)


def test_a_frozen_server_carries_out_later_what_was_given_up() -> None:
    async def story(server: SimRedis, store: SimStore) -> None:
        server.freeze(3.0)
        with pytest.raises(StoreUnavailable) as raised:
            await store.call("HINCRBY", "h", "f", 1)
        assert raised.value.maybe_applied
        assert server.hashes("h") == []
        await asyncio.sleep(3)
        assert await store.call("HGET", "h", "f") == b"1"

    on_virtual_time(story)


@pytest.mark.parametrize("whose", ["the server", "this client"])
def test_down_for_a_while(whose: str) -> None:
    async def story(server: SimRedis, store: SimStore) -> None:
        told, other = heard(store), await SimStore.join(server, seed="other")
        (server if whose == "the server" else store).down(5.0)
        await asyncio.sleep(4.5)
        assert not store.connected
        assert other.connected == (whose == "this client")
        await asyncio.sleep(3)
        assert told == [False]
        assert await store.call("PING") == b"PONG"
        await other.close()

    on_virtual_time(story)


def test_a_restart_forgets_the_last_writes_and_the_scripts() -> None:
    script = Script.of("add", "#!lua\nreturn redis.call('HINCRBY', KEYS[1], 'f', ARGV[1])")

    async def story(server: SimRedis, store: SimStore) -> None:
        told, before = heard(store), store.run_id
        assert await store.script(script, ["h"], [1]) == 1
        await asyncio.sleep(2)
        assert await store.script(script, ["h"], [1]) == 2
        await store.call("DEL", "h")
        await store.call("XADD", "x", "*", "f", "v")
        assert server.restart(lose_seconds=1.0) > 0
        await asyncio.sleep(3)
        assert told == [True]
        assert store.run_id != before
        assert await store.call("HGET", "h", "f") == b"1"
        assert await store.call("EXISTS", "x") == 0
        assert await store.script(script, ["h"], [1]) == 2
        with pytest.raises(ValueError, match="remembered"):
            server.failover(11.0)
        assert server.failover(0.0) == 0
        assert [fields for _, fields in server.hashes("h")] == [{b"f": b"2"}]

    on_virtual_time(story)


def test_messages_come_until_the_connection_breaks_and_again_after() -> None:
    async def story(server: SimRedis, store: SimStore) -> None:
        came: list[bytes] = []
        back: list[float] = []
        loop = asyncio.get_running_loop()
        await store.subscribe(
            "c", "d", callback=lambda _, data: came.append(data), resubscribed=lambda: back.append(loop.time())
        )
        assert await store.call("PUBLISH", "c", "1") == 1
        assert await store.call("PUBLISH", "other", "1") == 0
        await store.call("EVAL", "redis.call('PUBLISH', 'd', '2')", 0)
        await asyncio.sleep(60)
        assert came == [b"1", b"2"]
        server.down(3.0)
        await asyncio.sleep(1)
        server.publish(b"c", b"lost")
        await asyncio.sleep(6)
        assert len(back) == 1
        await store.call("PUBLISH", "c", "3")
        await asyncio.sleep(1)
        assert came == [b"1", b"2", b"3"]
        store.faults = Faults(message_lost=1.0)
        await store.call("PUBLISH", "c", "lost too")
        await asyncio.sleep(5)
        assert (came, len(back)) == ([b"1", b"2", b"3"], 2)

    on_virtual_time(story)


def test_what_a_dead_process_sent_is_carried_out_in_part_and_in_order() -> None:
    async def story(server: SimRedis, store: SimStore) -> int:
        told = heard(store)
        waiting = []
        for number in range(20):
            waiting.append(asyncio.ensure_future(store.call("XADD", "x", "*", "n", number)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        store.kill()
        await asyncio.sleep(30)
        assert not any(task.done() for task in waiting)
        assert told == []
        for task in waiting:
            task.cancel()
        arrived = [int(fields[b"n"]) for _, fields in server.stream("x")]
        assert arrived == list(range(len(arrived)))
        return len(arrived)

    seen = {on_virtual_time(story, seed=seed) for seed in range(20)}
    assert len(seen) > 5
    assert max(seen) <= 20


def test_unknown_commands_are_loud() -> None:
    async def story(server: SimRedis, store: SimStore) -> None:
        complaints: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        with pytest.raises(Exception, match="does not know LPUSH"):
            await store.call("LPUSH", "k", "v")
        assert server.unknown == ["LPUSH"]
        assert len(complaints) == 1
        with pytest.raises(UnknownCommand):
            server.execute(b"LPUSH", b"k", b"v")

    on_virtual_time(story)


@given(seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=25)
def test_the_same_seed_gives_the_same_run(seed: int) -> None:
    async def story(server: SimRedis, store: SimStore) -> list[Any]:
        loop = asyncio.get_running_loop()
        trace: list[Any] = []
        store.faults = ROUGH

        async def client(number: int) -> None:
            for turn in range(15):
                try:
                    reply = await store.call("XADD", "x", "*", "n", f"{number}-{turn}")
                except (StoreUnavailable, StoreRefused) as error:
                    reply = str(error)
                    await asyncio.sleep(0.1)
                trace.append((round(loop.time(), 9), number, reply))

        await asyncio.gather(*(client(number) for number in range(4)))
        return [*trace, server.stream("x")]

    assert on_virtual_time(story, seed=seed) == on_virtual_time(story, seed=seed)


@given(
    said=st.lists(st.tuples(st.floats(0, 2000), commands), max_size=60),
    lost=st.floats(0, 3000),
)
@settings(deadline=None, max_examples=200)
def test_what_is_lost_was_never_there(said: list[tuple[float, tuple[Any, ...]]], lost: float) -> None:
    """A server that forgets its last seconds is one that was never told what came in them."""
    now = EPOCH
    servers = SimRedis(lambda: now, remember=1e9), SimRedis(lambda: now)
    times = list(itertools.accumulate((pause for pause, _ in said), initial=EPOCH))
    ends = times[-1]
    for now, (_, command) in zip(times[1:], said, strict=True):
        words = [word if isinstance(word, bytes) else str(word).encode() for word in command]
        for server in servers if now <= ends - lost else servers[:1]:
            try:
                server.execute(*words)
            except ReplyError:
                continue
    servers[0].restart(lose_seconds=lost)
    assert content(servers[0]) == content(servers[1])


def content(server: SimRedis) -> dict[bytes, Any]:
    """Everything a server holds."""
    keys = server.keyspace
    keys.tick()
    return {
        key: (
            type(value),
            keys.expires.get(key),
            (value.last, list(value.entries.items())) if hasattr(value, "entries") else value,
        )
        for key, value in list(keys.values.items())
        if keys.exists(key)
    }
