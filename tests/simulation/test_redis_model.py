"""The simulated Redis against the real one: the same words, the same replies, the same data left behind."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from execution.store import Store
from tests.integration import test_ledger, test_tca_stored
from tests.simulation.redis import Faults, SimRedis, SimStore
from tests.simulation.redis_words import SCRIPTS, SHARD, Call, Entry, calls, commands, wording

AT_ONCE = Faults(latency=(0.0, 0.0))
_UNORDERED = {"SMEMBERS", "SCAN"}
_ID = re.compile(rb"\d{12,}-\d+")
_TOLERANCE = 60_000
"""Ms between the clocks of the two, at most; numbers of this size and more are times."""


class Pair:
    """Two servers that are told the same."""

    def __init__(self, real: Store, model: SimStore) -> None:
        self.real = real
        self.model = model
        self.ids: dict[str, list[tuple[bytes, bytes]]] = {}

    async def empty(self) -> None:
        self.ids = {}
        await asyncio.gather(self.real.call("FLUSHALL"), self.model.call("FLUSHALL"))

    async def tell(self, *command: Any) -> Any:
        """Give both a command and compare the replies; returns the model's."""
        key = _key(command)
        replies = []
        for side, store in enumerate((self.real, self.model)):
            replies.append(await _outcome(store.call(*[self._word(word, key, side) for word in command])))
        if command[0] == "XADD":  # a new entry, though its id may have been another's before the stream was deleted
            self.ids[key] = [pair for pair in self._ids(key) if pair[0] != replies[0] and pair[1] != replies[1]]
        return self._compare(command, *replies)

    async def run(self, call: Call) -> Any:
        """Run a script on both."""
        lease = dict(zip(*[iter(await self.model.call("HGETALL", SHARD.lease))] * 2, strict=True))
        version = None
        if "order" in call.fields:
            version = await self.model.call("HGET", SHARD.order(call.fields["order"]), "v")
        keys, words = wording(call, lease, version)
        if call.script == "published":
            await self.tell("XRANGE", SHARD.outbox, "-", "+")
        replies = []
        for side, store in enumerate((self.real, self.model)):
            said = [self._word(word, keys[0], side) for word in words]
            replies.append(await _outcome(store.script(SCRIPTS[call.script], keys, said)))
        return self._compare((call.script, *words), *replies)

    async def state(self) -> None:
        """Compare everything that both hold."""
        names = sorted((await self.tell("SCAN", 0, "COUNT", 10_000))[1])
        for name in names:
            kind = await self.tell("TYPE", name)
            await self.tell("PTTL", name)
            match kind:
                case b"string":
                    await self.tell("GET", name)
                case b"hash":
                    await self.tell("HGETALL", name)
                case b"set":
                    await self.tell("SMEMBERS", name)
                case b"zset":
                    await self.tell("ZRANGE", name, 0, -1)
                case b"stream":
                    await self.tell("XRANGE", name, "-", "+")
                case _:
                    raise AssertionError(kind)

    def _ids(self, key: str) -> list[tuple[bytes, bytes]]:
        """Ids of a stream's entries, here and there: the servers' clocks differ, the entries may not."""
        return self.ids.setdefault(key, [])

    def _word(self, word: Any, key: str, side: int) -> Any:
        if not isinstance(word, Entry):
            return word
        ids = self._ids(key)
        if not ids:
            return b"5-1"
        entry = ids[-1 - word.number % len(ids)][side]
        if not word.following:
            return entry
        milliseconds, _, number = entry.partition(b"-")
        return b"%s-%d" % (milliseconds, int(number) + 1)

    def _compare(self, command: tuple[Any, ...], real: Any, model: Any) -> Any:
        if command[0] == "HGETALL" and isinstance(real, list):
            real, model = _sorted_pairs(real), _sorted_pairs(model)
        if command[0] in _UNORDERED:
            real, model = _sorted(real), _sorted(model)
        assert self._alike(_key(command), real, model), f"{command}: Redis says {real}, the model {model}"
        return model

    def _alike(self, key: str, real: Any, model: Any) -> bool:
        if isinstance(real, list) and isinstance(model, list):
            return len(real) == len(model) and all(self._alike(key, *two) for two in zip(real, model, strict=True))
        if type(real) is not type(model):
            return False
        if isinstance(real, bytes) and _ID.fullmatch(real):
            return self._same_entry(key, real, model)
        if isinstance(real, int) or (isinstance(real, bytes) and real.isdigit() and model.isdigit() and len(real) > 6):
            ours, theirs = int(model), int(real)
            return ours == theirs or (min(ours, theirs) > _TOLERANCE and abs(ours - theirs) < _TOLERANCE)
        return bool(real == model)

    def _same_entry(self, key: str, real: bytes, model: bytes) -> bool:
        if not _ID.fullmatch(model):
            return False
        known = [pair for pair in self._ids(key) if real == pair[0] or model == pair[1]]
        if not known:
            self._ids(key).append((real, model))
        return all(pair == (real, model) for pair in known)


def _key(command: tuple[Any, ...]) -> str:
    key = command[1] if len(command) > 1 else ""
    return key.decode() if isinstance(key, bytes) else str(key)


async def _outcome(call: Any) -> Any:
    """A reply, or of an error its class and first word."""
    try:
        return await call
    except ResponseError as error:
        return [type(error).__name__, "WRONGTYPE" if "WRONGTYPE" in str(error) else "ERR"]


def _sorted(reply: Any) -> Any:
    if isinstance(reply, list):
        return [sorted(part) if isinstance(part, list) else part for part in reply] if _nested(reply) else sorted(reply)
    return reply


def _nested(reply: list[Any]) -> bool:
    return any(isinstance(part, list) for part in reply)


def _sorted_pairs(flat: list[bytes]) -> list[bytes]:
    if not all(isinstance(part, bytes) for part in flat):
        return flat
    return [part for pair in sorted(zip(flat[::2], flat[1::2], strict=True)) for part in pair]


@pytest.fixture(scope="module")
def pair(redis_url: str) -> Iterator[tuple[asyncio.Runner, Pair]]:
    with asyncio.Runner() as runner:

        async def connect() -> Pair:
            return Pair(await Store.connect(redis_url), await SimStore.join(SimRedis(time.time), faults=AT_ONCE))

        connected = runner.run(connect())
        yield runner, connected
        assert connected.model.wire.server.unknown == []

        async def close() -> None:
            await connected.real.close()
            await connected.model.close()

        runner.run(close())


@given(said=st.lists(commands, max_size=60))
@settings(deadline=None, max_examples=150)
def test_commands(pair: tuple[asyncio.Runner, Pair], said: list[tuple[Any, ...]]) -> None:
    runner, servers = pair

    async def run() -> None:
        await servers.empty()
        for command in said:
            await servers.tell(*command)
        await servers.state()

    runner.run(run())


@given(said=st.lists(calls, min_size=5, max_size=50))
@settings(deadline=None, max_examples=150)
def test_the_ledgers_scripts(pair: tuple[asyncio.Runner, Pair], said: list[Call]) -> None:
    runner, servers = pair

    async def run() -> None:
        await servers.empty()
        await servers.run(Call("lease", {"verb": "acquire", "owner": "a", "epoch": "", "ms": 10**7, "more": ""}))
        for call in said:
            await servers.run(call)
        await servers.state()

    runner.run(run())


def test_every_script_is_compared() -> None:
    assert set(SCRIPTS) == {
        "accept",
        "commit",
        "hand",
        "lease",
        "note",
        "order_state",
        "published",
        "pulse",
        "trades",
    }


@pytest.mark.parametrize(
    "script",
    [
        "return {1, 2.9, -2.9, 'a', false, true, {1, {'b'}}}",
        "return {1, nil, 3}",
        "return nil",
        "return 'text'",
        "return 3.99",
        "return redis.call('SET', 'a', 'b')",
        "return redis.call('GET', 'nothing')",
        "return {redis.call('SET', 'a', 12), redis.call('GET', 'a'), redis.call('set', 'n', 1700000000000 + 3)}",
        "return redis.call('HMGET', 'h', 'f', 'g')",
        "return {tostring(redis.call('GET', 'nothing')), type(redis.call('SET', 'a', '1'))}",
        "return redis.call('SET', 'a', '1').ok",
        "return #redis.call('HMGET', 'h', 'f', 'g')",
        "return missing",
        "missing = 1",
        "return redis.call('HSET', 'h')",
        "redis.call('SET', 'kept', '1') return redis.call('HGET', 'kept', 'f')",
        "return redis.call('HSET', 'h', 'f', {})",
        "return )",
        "return {ARGV[1], KEYS[1], #ARGV, #KEYS, ARGV[3]}",
        "local t = {} for i = 1, 3000 do t[#t + 1] = tostring(i) end return redis.call('SADD', 'm', unpack(t))",
        "return string.format('%07d', 12.0) .. ('abc'):sub(1, 1) .. table.concat({1, 2.5})",
        "return {math.floor(-1.5), 7 % 3, tonumber('1e3'), tonumber('x') == nil}",
    ],
)
def test_what_lua_returns(pair: tuple[asyncio.Runner, Pair], script: str) -> None:
    runner, servers = pair

    async def run() -> None:
        await servers.empty()
        for head in ("", "#!lua\n"):
            await servers.tell("EVAL", head + script, 1, "key", "one", "two")
        await servers.state()

    runner.run(run())


def test_time_runs_out_alike(pair: tuple[asyncio.Runner, Pair]) -> None:
    runner, servers = pair

    async def run() -> None:
        await servers.empty()
        await servers.tell("SET", "a", "1", "PX", 20)
        await servers.tell("HSET", "h", "f", "1")
        await servers.tell("SET", "lasting", "1", "PX", 20)
        await servers.tell("PERSIST", "lasting")
        await servers.tell("SET", "again", "1", "PX", 20)
        await servers.tell("SET", "again", "2")
        await asyncio.sleep(0.06)
        await servers.tell("SET", "a", "2", "NX")
        await servers.tell("EXISTS", "a", "lasting", "again", "h")
        await servers.state()

    runner.run(run())


def test_many_trades_are_trimmed_to_no_fewer_than_asked_for(pair: tuple[asyncio.Runner, Pair]) -> None:
    """How many more are left differs: Redis drops whole nodes, and fills them by size too."""
    runner, servers = pair

    async def run() -> None:
        await servers.empty()
        for first in range(0, 1000, 100):
            rows = [word for at in range(first, first + 100) for word in (f"{at:06d}", "f", "x" * 50)]
            await servers.real.script(SCRIPTS["trades"], ["t", "c"], ["0", 200, 1, *rows])
            await servers.model.script(SCRIPTS["trades"], ["t", "c"], ["0", 200, 1, *rows])
        for store in (servers.real, servers.model):
            assert 200 <= await store.call("XLEN", "t") < 400
        await servers.tell("HGETALL", "c")

    runner.run(run())


async def test_the_model_passes_the_check_at_start(store: Store) -> None:
    report = await store.check()
    assert report.warnings == []
    assert (report.role, report.server) == ("primary", "valkey")


# --- the tests of the real one, on the model ------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def store() -> AsyncIterator[Store]:
    """Instead of the real server's."""
    connected = await SimStore.join(SimRedis(time.time), faults=AT_ONCE)
    yield connected
    await connected.close()
    assert connected.wire.server.unknown == []


globals().update(
    {
        f"test_model_{name.removeprefix('test_')}": test
        for tests in (test_ledger, test_tca_stored)
        for name, test in vars(tests).items()
        if name.startswith("test_") and "store" in getattr(test, "__annotations__", {})
    }
)
