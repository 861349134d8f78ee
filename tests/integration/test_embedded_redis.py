"""The embedded store, driven as a daemon drives it and killed in the ways a daemon dies."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from execution.embedded.redis_server import EmbeddedRedis, EmbeddedRedisError, StoreInUse, find_server

OWNER = """
import asyncio, sys
from pathlib import Path
import redis
from execution.embedded.redis_server import EmbeddedRedis

async def main():
    server = await EmbeddedRedis.start(Path(sys.argv[1]))
    print("pid", server.pid, flush=True)
    with redis.Redis.from_url(server.url) as client:
        while True:
            print("ack", client.incr("counter"), flush=True)

asyncio.run(main())
"""


def ask(url: str, *command: str | int) -> object:
    with redis.Redis.from_url(url) as client:
        return client.execute_command(*command)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def files_of_appends(data_dir: Path) -> list[Path]:
    return sorted((data_dir / "appendonlydir").glob("*.incr.aof"))


async def test_what_was_acknowledged_is_there_at_the_next_start(tmp_path: Path) -> None:
    async with await EmbeddedRedis.start(tmp_path / "a folder" / "store") as server:
        ask(server.url, "SET", "order", "1")
        assert server.returncode is None
    assert server.returncode == 0
    async with await EmbeddedRedis.start(tmp_path / "a folder" / "store") as server:
        assert ask(server.url, "GET", "order") == b"1"


async def test_it_is_set_to_lose_nothing(tmp_path: Path) -> None:
    async with await EmbeddedRedis.start(tmp_path) as server:
        for name, value in (
            ("appendonly", b"yes"),
            ("appendfsync", b"always"),
            ("no-appendfsync-on-rewrite", b"no"),
            ("maxmemory-policy", b"noeviction"),
            ("save", b""),
            ("port", b"0"),
        ):
            with redis.Redis.from_url(server.url) as client:
                assert client.config_get(name)[name].encode() == value
        assert (tmp_path / "redis.sock").stat().st_mode & 0o777 == 0o700


async def test_a_second_start_is_refused_and_says_who_holds_it(tmp_path: Path) -> None:
    async with await EmbeddedRedis.start(tmp_path) as server:
        ask(server.url, "SET", "k", "v")
        with pytest.raises(StoreInUse, match=rf"pid {os.getpid()}.*DATA_DIR.*REDIS_URL"):
            await EmbeddedRedis.start(tmp_path)
        assert ask(server.url, "GET", "k") == b"v"


async def test_a_second_terminal_finds_the_running_server(tmp_path: Path) -> None:
    assert EmbeddedRedis.locate(tmp_path) is None
    async with await EmbeddedRedis.start(tmp_path) as server:
        assert EmbeddedRedis.locate(tmp_path) == server.url
    assert EmbeddedRedis.locate(tmp_path) is None


async def test_stopping_twice_does_nothing(tmp_path: Path) -> None:
    server = await EmbeddedRedis.start(tmp_path)
    await server.stop()
    await server.stop()
    await (await EmbeddedRedis.start(tmp_path)).stop()


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
async def test_a_killed_owner_takes_the_server_along_and_loses_nothing(tmp_path: Path) -> None:
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, str(tmp_path), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    assert owner.stdout is not None
    acknowledged = server_pid = 0
    while acknowledged < 200:
        words = (await owner.stdout.readline()).split()
        if words and words[0] == b"pid":
            server_pid = int(words[1])
        elif words and words[0] == b"ack":
            acknowledged = int(words[1])
    owner.kill()
    for line in (await owner.stdout.read()).splitlines():
        if line.startswith(b"ack") and line[4:].isdigit():
            acknowledged = int(line[4:])
    await owner.wait()
    # At once, while the old server may still be on its way out: both on one folder would spoil it.
    async with await EmbeddedRedis.start(tmp_path) as server:
        assert not alive(server_pid)
        assert ask(server.url, "INCRBY", "counter", 0) in (acknowledged, acknowledged + 1)


@pytest.mark.process
async def test_a_server_left_over_is_stopped_first(tmp_path: Path) -> None:
    lock = os.open(tmp_path / "server.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    path = tmp_path / "redis.sock"
    (tmp_path / "server.json").write_text(json.dumps({"owner": 1, "socket": str(path)}))
    orphan = await asyncio.create_subprocess_exec(
        find_server(),
        *("--port", "0", "--unixsocket", str(path), "--appendonly", "yes", "--dir", str(tmp_path)),
        pass_fds=[lock],
        stdout=subprocess.DEVNULL,
    )
    os.close(lock)
    await until(lambda: EmbeddedRedis.locate(tmp_path) is not None)
    ask(f"unix://{path}", "SET", "k", "v")
    async with await EmbeddedRedis.start(tmp_path) as server:
        assert await orphan.wait() == 0
        assert ask(server.url, "GET", "k") == b"v"


async def test_ctrl_c_on_the_terminal_does_not_reach_it(tmp_path: Path) -> None:
    async with await EmbeddedRedis.start(tmp_path) as server:
        assert os.getpgid(server.pid) != os.getpgid(0)
        assert os.getsid(server.pid) != os.getsid(0)


async def test_a_crash_of_the_server_is_noticed(tmp_path: Path) -> None:
    async with await EmbeddedRedis.start(tmp_path) as server:
        os.kill(server.pid, signal.SIGKILL)
        assert await server.wait() == -signal.SIGKILL
        assert server.returncode == -signal.SIGKILL
    async with await EmbeddedRedis.start(tmp_path) as server:
        assert server.returncode is None


async def test_a_write_cut_short_costs_only_itself(tmp_path: Path) -> None:
    async with await EmbeddedRedis.start(tmp_path) as server:
        for number in range(20):
            ask(server.url, "SET", f"k{number}", "v" * 50)
    (appends,) = files_of_appends(tmp_path)
    os.truncate(appends, appends.stat().st_size - 7)
    async with await EmbeddedRedis.start(tmp_path) as server:
        assert ask(server.url, "DBSIZE") == 19


async def test_damaged_data_is_not_started_upon(tmp_path: Path) -> None:
    async with await EmbeddedRedis.start(tmp_path) as server:
        for number in range(20):
            ask(server.url, "SET", f"k{number}", "v" * 50)
    (appends,) = files_of_appends(tmp_path)
    content = bytearray(appends.read_bytes())
    content[200:300] = b"\0" * 100
    appends.write_bytes(content)
    with pytest.raises(EmbeddedRedisError, match=r"damaged.*valkey-check-aof"):
        await EmbeddedRedis.start(tmp_path)
    appends.unlink()
    (tmp_path / "appendonlydir" / "appendonly.aof.manifest").unlink()
    await (await EmbeddedRedis.start(tmp_path)).stop()  # the folder was let go of


async def test_it_answers_only_when_everything_is_loaded(tmp_path: Path) -> None:
    async with await EmbeddedRedis.start(tmp_path) as server:
        with redis.Redis.from_url(server.url) as client:
            client.mset({f"key:{number}": "v" * 20 for number in range(200_000)})
    async with await EmbeddedRedis.start(tmp_path) as server:
        assert ask(server.url, "DBSIZE") == 200_000


async def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    async with await EmbeddedRedis.start(deep) as server:
        assert len(server.url) < len("unix://") + 100
        ask(server.url, "SET", "k", "v")
        assert EmbeddedRedis.locate(deep) == server.url
        assert (deep / "appendonlydir").is_dir()


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedRedisError, match=r"file.*REDIS_URL"):
        await EmbeddedRedis.start(tmp_path / "file" / "store")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
async def test_a_folder_that_may_not_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(mode=0o500)
    with pytest.raises(EmbeddedRedisError, match=r"may not write there.*DATA_DIR"):
        await EmbeddedRedis.start(tmp_path / "store")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def install(name: str, version: str) -> Path:
        program = folder / name
        program.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=00000000:0 malloc=libc bits=64'\n")
        program.chmod(0o755)
        return program

    return install


def test_a_new_enough_server_of_the_machine_is_preferred(installed: Callable[[str, str], Path]) -> None:
    program = installed("redis-server", "7.0.15")
    assert find_server() == program


def test_an_old_server_of_the_machine_is_passed_over(installed: Callable[[str, str], Path]) -> None:
    program = installed("redis-server", "6.2.14")
    assert find_server() != program


def test_no_server_for_this_machine(installed: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    installed("redis-server", "6.2.14")
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(EmbeddedRedisError, match=r"riscv64.*redis-server is 6\.2\.14.*REDIS_URL"):
        find_server()
