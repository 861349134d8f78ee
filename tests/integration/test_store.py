"""The store's client against real servers, through a proxy that cuts the wire, and against a server that answers as told."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
import redis
from redis.crc import key_slot
from redis.exceptions import ResponseError
from structlog.testing import capture_logs

from execution.embedded.redis_server import EmbeddedRedis, find_server
from execution.store import Script, Store, StoreRefused, StoreTooOld, StoreUnavailable

INCREMENT = Script.of("increment", "#!lua\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])")
SECRET = "s3cret-word"


class Listener:
    """A TCP server of a test's own, whose connections end with it."""

    def __init__(self) -> None:
        self._ends: set[asyncio.StreamWriter] = set()
        self._handlers: set[asyncio.Task[None]] = set()

    async def open(self, tls: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"

    async def close(self) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._handlers, return_exceptions=True)

    def cut(self) -> None:
        for writer in self._ends:
            writer.transport.abort()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handler = asyncio.create_task(self._handle(reader, writer))
        self._handlers.add(handler)
        handler.add_done_callback(self._handlers.discard)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends.add(writer)
        try:
            await self.serve(reader, writer)
        except OSError:
            pass  # cut
        finally:
            writer.transport.abort()
            self._ends.discard(writer)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError


class Wire(Listener):
    """A proxy before a server, which cuts connections as a test wishes."""

    def __init__(self, server_url: str) -> None:
        super().__init__()
        self._path = unquote(urlparse(server_url).path)
        self.connections = 0
        self.cut_next: str | None = None
        """`request`: the next request does not arrive. `reply`: it does, but its reply does not."""
        self.cut_chance = 0.0
        """Of every piece of data, either way."""
        self.dice = random.Random(5)
        self.reading = asyncio.Event()
        self.reading.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        up_reader, up_writer = await asyncio.open_unix_connection(self._path)
        self._ends.add(up_writer)
        ways = [
            asyncio.create_task(self._carry("request", reader, up_writer)),
            asyncio.create_task(self._carry("reply", up_reader, writer)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        up_writer.transport.abort()
        writer.transport.abort()
        await asyncio.gather(*ways, return_exceptions=True)
        self._ends.discard(up_writer)

    async def _carry(self, kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if self.cut_next == kind:
                self.cut_next = None
                return
            if self.dice.random() < self.cut_chance:
                return
            writer.write(data)
            if kind == "request":
                await self.reading.wait()


class Canned(Listener):
    """A server that gives a canned answer to each request that contains a word, and is otherwise fine with everything."""

    def __init__(self, answers: tuple[tuple[bytes, bytes], ...]) -> None:
        super().__init__()
        self._answers = answers

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            for request in data.split(b"*")[1:]:
                writer.write(next((answer for word, answer in self._answers if word in request), b"+OK\r\n"))


@asynccontextmanager
async def answering(*answers: tuple[bytes, bytes]) -> AsyncIterator[str]:
    server = Canned(answers)
    await server.open()
    yield server.url
    await server.close()


def info(text: str) -> tuple[bytes, bytes]:
    return b"INFO", f"${len(text)}\r\n{text}\r\n".encode()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedRedis]:
    async with await EmbeddedRedis.start(tmp_path / "store") as server:
        yield server


@pytest.fixture
async def wire(server: EmbeddedRedis) -> AsyncIterator[Wire]:
    wire = Wire(server.url)
    await wire.open()
    yield wire
    await wire.close()


@pytest.fixture
async def store(server: EmbeddedRedis) -> AsyncIterator[Store]:
    async with await Store.connect(server.url) as store:
        yield store


def ask(server: EmbeddedRedis, *command: str | int) -> object:
    with redis.Redis.from_url(server.url) as client:
        return client.execute_command(*command)


async def until_back(store: Store) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await store.call("PING")
            except (StoreUnavailable, StoreRefused):
                await asyncio.sleep(0.01)
            else:
                return


# --- one connection for all -------------------------------------------------------------------------------------------


async def test_every_caller_gets_its_own_reply(store: Store) -> None:
    replies = await asyncio.gather(*(store.call("ECHO", str(number)) for number in range(3000)))
    assert replies == [str(number).encode() for number in range(3000)]


async def test_all_share_one_connection(wire: Wire) -> None:
    async with await Store.connect(wire.url) as store:
        await asyncio.gather(*(store.call("INCR", "k") for _ in range(100)))
        assert wire.connections == 1


async def test_values_of_every_kind(store: Store) -> None:
    everything = bytes(range(256)) * 1000
    assert await store.call("SET", "k", everything) == b"OK"
    assert await store.call("GET", b"k") == everything
    assert await store.call("APPEND", "n", 12) == 2
    assert await store.call("GET", "none") is None
    assert await store.call("HSET", "h", "ä", "ö") == 1
    assert await store.call("HGETALL", "h") == ["ä".encode(), "ö".encode()]
    with pytest.raises(TypeError):
        await store.call("SET", "k", None)  # type: ignore[arg-type]
    assert await store.call("PING") == b"PONG"


async def test_callers_that_go_away_do_not_shift_replies(store: Store) -> None:
    dice = random.Random(7)
    for _ in range(10):
        calls = [asyncio.create_task(store.call("ECHO", str(number))) for number in range(600)]
        for _ in range(4):
            await asyncio.sleep(0)
            for call in dice.sample(calls, 60):
                call.cancel()
        replies = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(reply, asyncio.CancelledError) for reply in replies) > 50
        for number, reply in enumerate(replies):
            assert isinstance(reply, asyncio.CancelledError) or reply == str(number).encode()


async def test_no_more_than_the_limit_are_under_way(server: EmbeddedRedis) -> None:
    async with await Store.connect(server.url, max_in_flight=4, timeout=0.3) as store:
        assert len(await asyncio.gather(*(store.call("INCR", "k") for _ in range(500)))) == 500
        os.kill(server.pid, signal.SIGSTOP)
        try:
            outcomes = await asyncio.gather(*(store.call("INCR", "k") for _ in range(10)), return_exceptions=True)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        sent = [outcome.maybe_applied for outcome in outcomes if isinstance(outcome, StoreUnavailable)]
        assert sent == [True] * 4 + [False] * 6
        await until_back(store)
        assert await store.call("GET", "k") == b"504"


async def test_a_busy_process_is_not_a_silent_server(server: EmbeddedRedis) -> None:
    async with await Store.connect(server.url, timeout=0.2) as store:
        call = asyncio.create_task(store.call("INCR", "k"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        time.sleep(0.5)  # noqa: ASYNC251 (the event loop is to stand still)
        assert await call == 1


# --- scripts ----------------------------------------------------------------------------------------------------------


async def test_a_script_runs_once_whether_or_not_the_server_knows_it(server: EmbeddedRedis, store: Store) -> None:
    assert await store.script(INCREMENT, ["k"], [2]) == 2
    ask(server, "SCRIPT", "FLUSH")
    assert await store.script(INCREMENT, ["k"], ["3"]) == 5
    ask(server, "SCRIPT", "FLUSH")
    await asyncio.gather(*(store.script(INCREMENT, ["k"], [b"1"]) for _ in range(100)))
    assert await store.call("GET", "k") == b"105"
    assert await store.call("SCRIPT", "EXISTS", INCREMENT.sha) == [1]


async def test_a_script_after_a_restart_of_the_server(tmp_path: Path) -> None:
    first = await EmbeddedRedis.start(tmp_path / "s")
    async with await Store.connect(first.url) as store:
        await store.script(INCREMENT, ["k"], [1])
        await first.stop()
        async with await EmbeddedRedis.start(tmp_path / "s"):
            await until_back(store)
            assert await store.script(INCREMENT, ["k"], [1]) == 2


def test_a_script_is_read_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "increment.lua").write_text(INCREMENT.text)
    assert Script.load(tmp_path / "increment.lua") == INCREMENT


# --- what is known when there is no answer ----------------------------------------------------------------------------


async def test_a_request_that_was_lost_is_unknown(wire: Wire, server: EmbeddedRedis) -> None:
    async with await Store.connect(wire.url) as store:
        wire.cut_next = "request"
        with pytest.raises(StoreUnavailable, match="outcome is unknown") as failure:
            await store.script(INCREMENT, ["k"], [1])
        assert failure.value.maybe_applied
        await until_back(store)
        assert await store.call("GET", "k") is None


async def test_a_reply_that_was_lost_is_unknown_and_the_write_not_repeated(wire: Wire) -> None:
    async with await Store.connect(wire.url) as store:
        await store.script(INCREMENT, ["k"], [1])
        wire.cut_next = "reply"
        with pytest.raises(StoreUnavailable, match="outcome is unknown") as failure:
            await store.script(INCREMENT, ["k"], [1])
        assert failure.value.maybe_applied
        await until_back(store)
        assert await store.call("GET", "k") == b"2"


async def test_writes_with_an_operation_id_count_once_over_the_worst_of_wires(wire: Wire) -> None:
    once = Script.of(
        "once",
        """#!lua
        if redis.call('SADD', KEYS[1], ARGV[1]) == 1 then redis.call('INCR', KEYS[2]) end
        return ARGV[1]""",
    )
    failures: list[bool] = []

    async def write(operation: str) -> None:
        while True:
            try:
                assert await store.script(once, ["{s}operations", "{s}count"], [operation]) == operation.encode()
            except StoreUnavailable as failure:
                failures.append(failure.maybe_applied)
                await asyncio.sleep(0.01)
            else:
                return

    async def worker(name: int) -> None:
        for number in range(40):
            await write(f"{name}:{number}")

    async with await Store.connect(wire.url) as store:
        wire.cut_chance = 0.08
        await asyncio.gather(*(worker(name) for name in range(5)))
        wire.cut_chance = 0.0
        await until_back(store)
        assert await store.call("GET", "{s}count") == b"200"
    assert failures.count(True) > 20


async def test_it_is_a_connection_error(wire: Wire) -> None:
    async with await Store.connect(wire.url) as store:
        wire.cut_next = "reply"
        with pytest.raises(ConnectionError):
            await store.call("PING")


async def test_a_frozen_server_may_apply_it_later(server: EmbeddedRedis) -> None:
    async with await Store.connect(server.url, timeout=0.3) as store:
        os.kill(server.pid, signal.SIGSTOP)
        try:
            calls = [asyncio.create_task(store.call("INCR", "k")) for _ in range(20)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert all(isinstance(outcome, StoreUnavailable) and outcome.maybe_applied for outcome in outcomes)
        await until_back(store)
        # Redis has read them before it can see that we are gone.
        assert await store.call("GET", "k") == b"20"
        assert await store.call("ECHO", "mine") == b"mine"


async def test_what_did_not_fit_the_wire_was_certainly_not_sent(wire: Wire) -> None:
    async with await Store.connect(wire.url, timeout=0.5) as store:
        wire.reading.clear()
        first = asyncio.create_task(store.call("SET", "large", b"x" * 30_000_000))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second = asyncio.create_task(store.call("INCR", "k"))
        outcomes = await asyncio.gather(first, second, return_exceptions=True)
        assert [isinstance(outcome, StoreUnavailable) and outcome.maybe_applied for outcome in outcomes] == [
            True,
            False,
        ]
        assert isinstance(outcomes[1], StoreUnavailable)
        wire.reading.set()
        await until_back(store)
        assert await store.call("EXISTS", "k") == 0


async def test_calls_while_there_is_no_connection_fail_at_once(tmp_path: Path) -> None:
    first = await EmbeddedRedis.start(tmp_path / "s")
    async with await Store.connect(first.url) as store:
        await first.stop()
        with suppress(StoreUnavailable):
            await store.call("PING")
        with pytest.raises(StoreUnavailable, match="nothing was sent") as failure:
            await store.call("INCR", "k")
        assert not failure.value.maybe_applied


async def test_or_wait_a_while_for_the_reconnect(tmp_path: Path) -> None:
    first = await EmbeddedRedis.start(tmp_path / "s")
    async with await Store.connect(first.url, reconnect_wait=10) as store:
        await first.stop()
        with suppress(StoreUnavailable, TimeoutError):
            await asyncio.wait_for(store.call("PING"), 0.1)
        waiting = asyncio.create_task(store.call("INCR", "k"))
        async with await EmbeddedRedis.start(tmp_path / "s"):
            assert await waiting == 1


async def test_closing_ends_calls_under_way(server: EmbeddedRedis) -> None:
    store = await Store.connect(server.url)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        call = asyncio.create_task(store.call("PING"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await store.close()
        with pytest.raises(StoreUnavailable):
            await call
    finally:
        os.kill(server.pid, signal.SIGCONT)
    with pytest.raises(StoreUnavailable):
        await store.call("PING")


async def test_no_store_there(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="not reached") as failure:
        await Store.connect(f"unix://{tmp_path}/none.sock")
    assert not failure.value.maybe_applied


async def test_patience_with_a_store_that_comes_later(tmp_path: Path) -> None:
    connecting = asyncio.create_task(Store.connect(f"unix://{tmp_path}/s/redis.sock", patience=20))
    async with await EmbeddedRedis.start(tmp_path / "s"), await connecting as store:
        assert await store.call("PING") == b"PONG"


async def test_something_else_than_redis() -> None:
    http = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    async with answering((b"CLIENT", http)) as url:
        with pytest.raises(StoreUnavailable, match="Protocol error"):
            await Store.connect(url)
    async with answering(info("run_id:1\r\n"), (b"GET", http)) as url, await Store.connect(url) as store:
        with pytest.raises(StoreUnavailable, match="does not speak Redis's protocol") as failure:
            await store.call("GET", "k")
        assert failure.value.maybe_applied


async def test_more_replies_than_requests_end_the_connection() -> None:
    async with (
        answering(info("run_id:1\r\n"), (b"GET", b"$1\r\na\r\n$1\r\nb\r\n")) as url,
        await Store.connect(url) as store,
    ):
        assert await store.call("GET", "k") == b"a"
        with pytest.raises(StoreUnavailable):
            await store.call("GET", "k")


# --- refusals ---------------------------------------------------------------------------------------------------------


async def test_an_error_reply_is_an_error_and_harms_nobody_else(store: Store) -> None:
    await store.call("SET", "k", "text")
    outcomes = await asyncio.gather(
        store.call("ECHO", "1"), store.call("INCR", "k"), store.call("ECHO", "2"), return_exceptions=True
    )
    assert (outcomes[0], outcomes[2]) == (b"1", b"2")
    assert isinstance(outcomes[1], ResponseError)
    assert not isinstance(outcomes[1], StoreRefused)


async def test_out_of_memory(server: EmbeddedRedis, store: Store) -> None:
    ask(server, "CONFIG", "SET", "maxmemory", 1)
    with pytest.raises(StoreRefused, match="maxmemory") as refusal:
        await store.script(INCREMENT, ["k"], [1])
    assert (refusal.value.code, refusal.value.transient) == ("OOM", True)
    ask(server, "CONFIG", "SET", "maxmemory", 0)
    assert await store.script(INCREMENT, ["k"], [1]) == 1


async def test_a_primary_that_became_a_replica(server: EmbeddedRedis, store: Store) -> None:
    ask(server, "REPLICAOF", "127.0.0.1", 1)
    with pytest.raises(StoreRefused, match="primary") as refusal:
        await store.script(INCREMENT, ["k"], [1])
    assert refusal.value.code == "READONLY"
    ask(server, "CONFIG", "SET", "replica-serve-stale-data", "no")
    await until_back_from_replica(store)
    with pytest.raises(StoreRefused) as refusal:
        await store.call("GET", "k")
    assert refusal.value.code == "MASTERDOWN"
    ask(server, "REPLICAOF", "NO", "ONE")
    await until_back(store)
    assert await store.script(INCREMENT, ["k"], [1]) == 1


async def until_back_from_replica(store: Store) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await store.call("INFO", "server")
            except StoreUnavailable:
                await asyncio.sleep(0.01)
            else:
                return


@pytest.mark.parametrize(
    ("reply", "transient"),
    [
        ("MISCONF Errors writing to the AOF file: No space left on device", True),
        ("LOADING server is loading the dataset in memory", True),
        ("BUSY server is busy running a script", True),
        ("NOREPLICAS Not enough good replicas to write.", True),
        ("CLUSTERDOWN Hash slot not served", True),
        ("CROSSSLOT Keys in request don't hash to the same slot", False),
        ("NOPERM User trader has no permissions to run the 'eval' command", False),
        ("NOAUTH Authentication required.", False),
    ],
)
async def test_refusals_are_certain(reply: str, transient: bool) -> None:
    async with (
        answering(info("run_id:1\r\n"), (b"INCR", f"-{reply}\r\n".encode())) as url,
        await Store.connect(url) as store,
    ):
        with pytest.raises(StoreRefused) as refusal:
            await store.call("INCR", "k")
        assert refusal.value.code == reply.split()[0]
        assert refusal.value.transient is transient
        assert reply in str(refusal.value)


async def test_a_refusal_inside_a_script_is_not_certain(server: EmbeddedRedis) -> None:
    ask(server, "ACL", "SETUSER", "trader", "on", f">{SECRET}", "~*", "&*", "+@all", "-xadd")
    half = Script.of("half", "#!lua\nredis.call('SET', KEYS[1], 1)\nredis.call('XADD', KEYS[2], '*', 'a', 'b')")
    async with await Store.connect(f"{server.url}?username=trader&password={SECRET}") as store:
        with pytest.raises(ResponseError, match="xadd") as failure:
            await store.script(half, ["k", "stream"], [])
        assert not isinstance(failure.value, StoreRefused)
        assert await store.call("GET", "k") == b"1"
        with pytest.raises(StoreRefused):
            await store.call("XADD", "stream", "*", "a", "b")


# --- login, encryption, secrets ---------------------------------------------------------------------------------------


async def test_user_password_and_database_of_the_url(wire: Wire, server: EmbeddedRedis) -> None:
    ask(server, "ACL", "SETUSER", "trader", "on", f">{SECRET}/@", "~*", "&*", "+@all")
    url = f"redis://trader:{SECRET}%2F%40@127.0.0.1:{wire.port}/3"
    async with await Store.connect(url) as store:
        assert await store.call("ACL", "WHOAMI") == b"trader"
        await store.call("SET", "k", "v")
        wire.cut()
        await until_back(store)
        assert await store.call("ACL", "WHOAMI") == b"trader"
        assert await store.call("GET", "k") == b"v"
    with redis.Redis.from_url(server.url + "?db=3") as client:
        assert client.get("k") == b"v"


async def test_a_wrong_password_is_refused_at_once(wire: Wire, server: EmbeddedRedis) -> None:
    ask(server, "CONFIG", "SET", "requirepass", "right")
    with pytest.raises(StoreRefused, match="REDIS_URL") as refusal:
        await Store.connect(f"redis://:{SECRET}@127.0.0.1:{wire.port}", patience=20)
    assert refusal.value.code == "WRONGPASS"
    assert SECRET not in repr(refusal.value) + str(refusal.value)
    with pytest.raises(StoreRefused, match="needs a password") as refusal:
        await Store.connect(wire.url, patience=20)
    assert refusal.value.code == "NOAUTH"


async def test_the_password_is_never_told(wire: Wire, server: EmbeddedRedis) -> None:
    ask(server, "CONFIG", "SET", "requirepass", SECRET)
    said: list[object] = []
    with capture_logs() as logs:
        async with await Store.connect(f"redis://:{SECRET}@127.0.0.1:{wire.port}/1") as store:
            said.append(store.name)
            said.append(await store.check())
            subscription = await store.subscribe("c", callback=lambda *_: None)
            wire.cut_next = "reply"
            with pytest.raises(StoreUnavailable) as failure:
                await store.call("PING")
            said.append(failure.value)
            await until_back(store)
            await subscription.close()
    for url in (f"redis://:{SECRET}@127.0.0.1:1", f"unix:///none.sock?password={SECRET}"):
        with pytest.raises(StoreUnavailable) as failure:
            await Store.connect(url)
        said.append(failure.value)
    for url in (f"redis://:{SECRET}/x@host:6379", f"http://:{SECRET}@host", f"redis://:{SECRET}@host?db=x&odd=1"):
        with pytest.raises(ValueError) as refused:
            await Store.connect(url)
        said.append(refused.value)
    assert logs
    assert SECRET not in f"{said!r} {[str(item) for item in said]} {logs!r}"


async def test_tls(tmp_path: Path, server: EmbeddedRedis) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    try:
        await asyncio.to_thread(
            subprocess.run,
            f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost"
            f" -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}".split(),
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("no openssl to make a certificate")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    wire = Wire(server.url)
    await wire.open(tls)
    secure = f"rediss://127.0.0.1:{wire.port}"
    try:
        async with await Store.connect(f"{secure}?ssl_ca_certs={certificate}") as store:
            replies = await asyncio.gather(*(store.call("ECHO", str(number)) for number in range(500)))
            assert replies == [str(number).encode() for number in range(500)]
            wire.cut_next = "reply"
            with pytest.raises(StoreUnavailable):
                await store.call("PING")
            await until_back(store)
        with pytest.raises(StoreUnavailable, match="certificate"):
            await Store.connect(secure)
    finally:
        await wire.close()


# --- reconnects -------------------------------------------------------------------------------------------------------


async def test_a_reconnect_to_the_same_server_is_told_apart_from_another(tmp_path: Path) -> None:
    server = await EmbeddedRedis.start(tmp_path / "s")
    wire = Wire(server.url)
    await wire.open()
    heard: list[bool] = []
    async with await Store.connect(wire.url) as store:
        store.on_reconnect(heard.append)
        first = store.run_id
        wire.cut()
        await until_heard(heard, 1, store)
        assert heard == [False]
        assert store.run_id == first
        await server.stop()
        async with await EmbeddedRedis.start(tmp_path / "s"):
            await until_heard(heard, 2, store)
            assert heard == [False, True]
            assert store.run_id != first
    await wire.close()


async def until_heard(heard: list[bool], count: int, store: Store) -> None:
    async with asyncio.timeout(20):
        while len(heard) < count:
            with suppress(StoreUnavailable):
                await store.call("PING")
            await asyncio.sleep(0.01)


async def test_a_listener_that_fails_does_not_stop_the_reconnect(wire: Wire) -> None:
    async with await Store.connect(wire.url) as store:
        heard: list[bool] = []
        store.on_reconnect(lambda _: 1 / 0)  # type: ignore[arg-type]
        store.on_reconnect(heard.append)
        wire.cut()
        with capture_logs() as logs:
            await until_heard(heard, 1, store)
        assert any(line["log_level"] == "error" for line in logs)


async def test_a_store_that_loads_is_waited_for() -> None:
    async with answering(info("run_id:1\r\nloading:1\r\n")) as url:
        with pytest.raises(StoreRefused) as refusal:
            await Store.connect(url)
        assert (refusal.value.code, refusal.value.transient) == ("LOADING", True)


# --- wake-ups ---------------------------------------------------------------------------------------------------------


async def test_messages_arrive_also_after_a_reconnect(wire: Wire, store: Store) -> None:
    heard: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
    back = asyncio.Event()

    def hear(channel: str, payload: bytes) -> None:
        heard.put_nowait((channel, payload))

    async with await Store.connect(wire.url) as subscriber:
        subscription = await subscriber.subscribe("a", "b", callback=hear, resubscribed=back.set)
        await store.call("PUBLISH", "a", "1")
        await store.call("PUBLISH", "other", "2")
        await store.call("PUBLISH", "b", "3")
        assert [await heard.get(), await heard.get()] == [("a", b"1"), ("b", b"3")]
        wire.cut()
        await asyncio.wait_for(back.wait(), 20)
        await store.call("PUBLISH", "b", "4")
        assert await heard.get() == ("b", b"4")
        await subscription.close()
        async with asyncio.timeout(20):
            while await store.call("PUBSUB", "NUMSUB", "a") != [b"a", 0]:
                await asyncio.sleep(0.01)


async def test_a_callback_that_fails_does_not_end_the_subscription(store: Store) -> None:
    heard = asyncio.Event()

    def hear(channel: str, payload: bytes) -> None:
        if payload == b"bad":
            raise KeyError(payload)
        heard.set()

    with capture_logs() as logs:
        await store.subscribe("a", callback=hear)
        await store.call("PUBLISH", "a", "bad")
        await store.call("PUBLISH", "a", "good")
        await asyncio.wait_for(heard.wait(), 20)
    assert any(line["log_level"] == "error" for line in logs)


# --- what the store says of itself ------------------------------------------------------------------------------------


async def test_the_embedded_store_has_nothing_to_warn_of(store: Store) -> None:
    report = await store.check()
    assert (report.role, report.appendonly, report.appendfsync) == ("primary", "yes", "always")
    assert report.warnings == []
    assert abs(await store.server_time_ms() - time.time() * 1000) < 60_000


async def test_settings_that_lose_orders_are_named(server: EmbeddedRedis, store: Store) -> None:
    ask(server, "CONFIG", "SET", "appendfsync", "everysec")
    ask(server, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    warnings = " ".join((await store.check()).warnings)
    assert "appendfsync is everysec" in warnings
    assert "allkeys-lru" in warnings
    ask(server, "CONFIG", "SET", "appendonly", "no")
    assert "appendonly is off" in " ".join((await store.check()).warnings)


async def test_what_may_not_be_asked_is_unknown(server: EmbeddedRedis) -> None:
    ask(server, "ACL", "SETUSER", "trader", "on", ">p", "~*", "&*", "+@all", "-config")
    async with await Store.connect(f"{server.url}?username=trader&password=p") as store:
        report = await store.check()
        assert (report.appendonly, report.appendfsync) == ("yes", "unknown")
        assert "cannot be read" in " ".join(report.warnings)
    ask(server, "ACL", "SETUSER", "trader", "-info")
    async with await Store.connect(f"{server.url}?username=trader&password=p") as store:
        report = await store.check()
        assert (report.role, report.version, store.run_id) == ("unknown", "unknown", None)


async def test_a_server_that_is_too_old() -> None:
    async with answering(info("redis_version:6.2.14\r\nrun_id:1\r\n")) as url, await Store.connect(url) as store:
        with pytest.raises(StoreTooOld, match=r"6\.2\.14.*7\.0"):
            await store.check()


# --- Redis Cluster ----------------------------------------------------------------------------------------------------


class Member:
    """A server of a cluster."""

    def __init__(self, folder: Path, listeners: list[asyncio.Server]) -> None:
        self.folder = folder
        self.port, self.bus = (listener.sockets[0].getsockname()[1] for listener in listeners)

    async def start(self) -> None:
        self.folder.mkdir()
        self._process = await asyncio.create_subprocess_exec(
            find_server(),
            *("--port", str(self.port), "--cluster-port", str(self.bus), "--cluster-enabled", "yes"),
            *("--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"),
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
        )
        async with asyncio.timeout(20):
            while True:
                with suppress(redis.ConnectionError):
                    self.ask("PING")
                    return
                await asyncio.sleep(0.01)

    async def until_ready(self) -> None:
        async with asyncio.timeout(30):
            while b"cluster_state:ok" not in self.ask("CLUSTER", "INFO"):
                await asyncio.sleep(0.02)

    def ask(self, *command: str | int) -> bytes:
        with redis.Redis(port=self.port) as client:
            reply = client.execute_command(*command)
        return reply if isinstance(reply, bytes) else str(reply).encode()

    async def stop(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


StartCluster = Callable[[int, int], Awaitable[list[Member]]]


@pytest.fixture
async def members(tmp_path: Path) -> AsyncIterator[StartCluster]:
    started: list[Member] = []

    async def start(count: int, with_slots: int) -> list[Member]:
        each = 16384 // with_slots
        for number in range(count):
            listeners = [await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) for _ in range(2)]
            member = Member(tmp_path / f"member{number}", listeners)
            for listener in listeners:
                listener.close()
            await member.start()
            started.append(member)
            if number < with_slots:
                member.ask("CLUSTER", "ADDSLOTSRANGE", number * each, (number + 1) * each - 1)
            if number:
                member.ask("CONFIG", "SET", "cluster-announce-ip", "127.0.0.1")
                member.ask("CLUSTER", "MEET", "127.0.0.1", started[0].port, started[0].bus)
        for member in started:
            await member.until_ready()
        return started

    yield start
    for member in started:
        await member.stop()


async def test_a_cluster_of_one(members: StartCluster) -> None:
    (member,) = await members(1, 1)
    async with await Store.connect(f"redis://127.0.0.1:{member.port}") as store:
        assert (await store.check()).cluster_enabled
        assert await store.script(INCREMENT, ["{s07}:order:1"], [5]) == 5
        assert await store.call("HSET", "{s07}:h", "a", "b") == 1
        assert await store.call("HGETALL", "{s07}:h") == [b"a", b"b"]
        assert await store.server_time_ms() > 0
        assert store.run_id
        with pytest.raises(StoreRefused) as refusal:
            await store.script(INCREMENT, ["{s07}:order:1", "{s08}:outbox"], [1])
        assert refusal.value.code == "CROSSSLOT"
        undeclared = Script.of("undeclared", "#!lua\nreturn redis.call('INCR', '{s08}:outbox')")
        with pytest.raises(ResponseError, match="same slot"):
            await store.script(undeclared, ["{s07}:order:1"], [])
        heard = asyncio.Event()
        await store.subscribe("wake", callback=lambda *_: heard.set())
        await store.call("PUBLISH", "wake", "1")
        await asyncio.wait_for(heard.wait(), 20)


async def test_a_cluster_of_two_and_a_slot_that_moves(members: StartCluster) -> None:
    one, two = await members(2, 2)
    names = [f"{{s{number:02}}}:order" for number in range(32)]
    async with await Store.connect(f"redis://127.0.0.1:{one.port}") as store:
        heard: list[bool] = []
        store.on_reconnect(heard.append)
        await asyncio.gather(*(store.script(INCREMENT, [name], [1]) for name in names for _ in range(10)))
        assert [await store.call("GET", name) for name in names] == [b"10"] * 32
        assert sorted([name async for name in store.scan("{s*}:order")]) == [name.encode() for name in names]
        assert int(one.ask("DBSIZE")) + int(two.ask("DBSIZE")) == 32
        assert int(one.ask("DBSIZE")) not in (0, 32)

        name = next(name for name in names if key_slot(name.encode()) < 8192)
        slot = key_slot(name.encode())
        here, there = one.ask("CLUSTER", "MYID").decode(), two.ask("CLUSTER", "MYID").decode()
        two.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", here)
        one.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", there)
        new = name.replace("order", "new")  # not yet there, so the old server sends on to the new one: ASK
        await asyncio.gather(*(store.script(INCREMENT, [new], [1]) for _ in range(20)))
        assert await store.call("GET", new) == b"20"
        assert await store.call("GET", name) == b"10"

        one.ask("MIGRATE", "127.0.0.1", two.port, name, 0, 5000)
        two.ask("CLUSTER", "SETSLOT", slot, "NODE", there)
        one.ask("CLUSTER", "SETSLOT", slot, "NODE", there)
        await asyncio.gather(*(store.script(INCREMENT, [name], [1]) for _ in range(20)))  # MOVED
        assert await store.call("GET", name) == b"30"
        await until_heard(heard, 1, store)
        assert heard == [True]


async def test_a_cluster_whose_primary_dies(members: StartCluster) -> None:
    one, two = await members(2, 1)
    two.ask("CLUSTER", "REPLICATE", one.ask("CLUSTER", "MYID").decode())
    async with asyncio.timeout(20):
        while str(two.port).encode() not in one.ask("CLUSTER", "SLOTS"):
            await asyncio.sleep(0.02)
    async with await Store.connect(f"redis://127.0.0.1:{one.port}") as store:
        heard: list[bool] = []
        store.on_reconnect(heard.append)
        await store.script(INCREMENT, ["k"], [5])
        assert await store.call("WAIT", 1, 1500) == 1
        await one.stop()
        with pytest.raises(StoreUnavailable):
            await store.script(INCREMENT, ["k"], [1])
        two.ask("CLUSTER", "FAILOVER", "TAKEOVER")
        await until_back(store)
        assert await store.script(INCREMENT, ["k"], [1]) == 6
        assert True in heard
