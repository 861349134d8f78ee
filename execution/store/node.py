"""One Redis server, kept connected."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import hiredis
import structlog
from redis.asyncio.connection import AbstractConnection, ConnectionPool, SSLConnection, parse_url

from execution.store.connection import Connection
from execution.store.errors import StoreRefused, StoreUnavailable

log = structlog.get_logger(__name__)

_INFO = hiredis.pack_command(("INFO",))
_LONGEST_PAUSE = 2.0


@dataclass(frozen=True)
class Address:
    """Where a server is and how to log in there. `name` is fit for logs: it has no password."""

    name: str
    settings: dict[str, Any]

    @classmethod
    def of_url(cls, url: str) -> Address:
        """Read a URL as redis-py does.

        Raises:
            ValueError: it is none; the message does not repeat it, since it may hold a password.
        """
        try:
            settings: dict[str, Any] = dict(parse_url(url))
        except ValueError:
            raise ValueError(
                "the Redis URL cannot be read: it must be redis://[user:password@]host:port/db, rediss://... or"
                " unix:///path.sock, with special characters in the password percent-encoded"
            ) from None
        for unused in ("max_connections", "health_check_interval", "retry_on_timeout", "socket_timeout", "timeout"):
            settings.pop(unused, None)
        # RESP2 gives every command's reply one shape on every server; RESP3's maps and doubles differ between versions.
        settings |= {"protocol": 2, "socket_timeout": None, "socket_connect_timeout": None, "decode_responses": False}
        address = cls(_name(settings), settings)
        try:
            address.link()
        except TypeError as error:
            raise ValueError(f"the Redis URL has an option that redis-py does not know: {error}") from None
        return address

    def at(self, host: str, port: int) -> Address:
        """The same login at another server of the cluster."""
        settings = self.settings | {"host": host, "port": port}
        if settings.pop("path", None):
            del settings["connection_class"]
        return replace(self, name=_name(settings), settings=settings)

    def link(self) -> AbstractConnection:
        """A redis-py connection to it, not yet connected."""
        link: AbstractConnection = ConnectionPool(**self.settings).make_connection()  # type: ignore[no-untyped-call]
        return link


def _name(settings: dict[str, Any]) -> str:
    if "path" in settings:
        return f"Redis at unix://{settings['path']}"
    scheme = "rediss" if issubclass(settings.get("connection_class", object), SSLConnection) else "redis"
    db = f"/{settings['db']}" if settings.get("db") else ""
    return f"Redis at {scheme}://{settings.get('host', 'localhost')}:{settings.get('port', 6379)}{db}"


@dataclass(frozen=True)
class Limits:
    """Seconds for a reply, for a connection, to wait for a reconnect before a call fails; requests in flight."""

    timeout: float
    connect_timeout: float
    reconnect_wait: float
    max_in_flight: int


class Node:
    """Sends commands to one server over one connection, which is made anew in the background whenever it is lost.

    A request is sent at most once: what was under way when the connection broke fails, and is never repeated here.
    """

    def __init__(self, address: Address, limits: Limits, reconnected: Callable[[bool], None]) -> None:
        """`reconnected` is called after each reconnect, before any request is sent; its argument tells whether the server
        is another process than before, which may lack acknowledged writes."""
        self.address = address
        self.run_id: str | None = None
        self.began_ms = 0
        """When the server's process began at the latest, ms since the epoch, by its clock; 0: not known."""
        self.lost_at = 0.0
        """When the last connection was seen to be lost, on the monotonic clock."""
        self._limits = limits
        self._reconnected = reconnected
        self._connection: Connection | None = None
        self._broken: Connection | None = None
        self._live = asyncio.Event()
        self._reconnecting: asyncio.Task[None] | None = None

    @property
    def primaries(self) -> list[Node]:
        """The servers that hold the data: this one."""
        return [self]

    @property
    def connected(self) -> bool:
        return self._connection is not None

    async def open(self) -> dict[str, str]:
        """Connect for the first time; returns the server's INFO (empty when this user may not ask).

        Raises:
            StoreUnavailable: the server is not reached.
            StoreRefused: it refuses the login, or is still loading.
        """
        connection, info = await self._connect()
        self._use(connection, info)
        return info

    async def close(self) -> None:
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            await asyncio.wait([self._reconnecting])
        in_use, self._connection = self._connection, None
        for connection in (in_use, self._broken):
            if connection is not None:
                await connection.close()
        self._live.set()  # whoever waits for a reconnect learns that there will be none

    async def send(self, command: tuple[Any, ...], prefix: bytes | None = None) -> Any:
        """Send a command, once, and return its reply. A `prefix` is a packed command to go directly before it.

        Raises:
            StoreUnavailable: there is no connection, or it broke or the time ran out before the reply came.
            redis.exceptions.ResponseError: the reply is an error.
        """
        packed = hiredis.pack_command(command)
        connection = self._connection or await self._wait_for_connection()
        try:
            return await connection.request(packed, prefix)
        except StoreRefused as refusal:
            if refusal.code == "READONLY":
                # After a failover the name may lead elsewhere by now.
                connection.drop(f"{self.address.name} has become a replica")
            raise

    async def _wait_for_connection(self) -> Connection:
        if self._limits.reconnect_wait > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._live.wait(), self._limits.reconnect_wait)
        if self._connection is None:
            raise StoreUnavailable(f"{self.address.name} is not connected", maybe_applied=False)
        return self._connection

    async def _connect(self) -> tuple[Connection, dict[str, str]]:
        limits = self._limits
        connection = await Connection.open(
            self.address.link(),
            self.address.name,
            connect_timeout=limits.connect_timeout,
            timeout=limits.timeout,
            max_in_flight=limits.max_in_flight,
            lost=self._lose,
        )
        try:
            info = await _info(connection)
            if info.get("loading", "0") != "0" or info.get("async_loading", "0") != "0":
                raise StoreRefused("LOADING", f"{self.address.name} is loading its data set")
            if connection.ended is not None:  # while nobody was told, as it was not in use yet
                raise StoreUnavailable(connection.ended, maybe_applied=False)
        except BaseException:
            await connection.close()
            raise
        return connection, info

    def _use(self, connection: Connection, info: dict[str, str], changed: bool | None = None) -> None:
        self.run_id = info.get("run_id")
        uptime, now = info.get("uptime_in_seconds"), info.get("server_time_usec")
        self.began_ms = int(now) // 1000 - int(uptime) * 1000 if uptime and now else 0
        if changed is not None:
            self._reconnected(changed)
        self._connection = connection
        self._live.set()

    def _lose(self, reason: str) -> None:
        connection, self._connection = self._connection, None
        if connection is None:  # it was not in use yet, or is not to be used again
            return
        self._live.clear()
        self.lost_at = time.monotonic()
        log.warning("store connection lost", store=self.address.name, reason=reason)
        self._broken = connection
        self._reconnecting = asyncio.create_task(self._reconnect(connection), name=f"reconnect {self.address.name}")

    async def _reconnect(self, broken: Connection) -> None:
        await broken.close()
        pause, told = 0.05, ""
        while True:
            try:
                connection, info = await self._connect()
            except (StoreUnavailable, StoreRefused) as error:
                if str(error) != told:
                    told = str(error)
                    log.warning("store not reached yet", store=self.address.name, error=told)
            except Exception:
                log.exception("reconnecting to the store failed unexpectedly", store=self.address.name)
            else:
                changed = self.run_id is None or info.get("run_id") != self.run_id
                log.info("store connected again", store=self.address.name, other_server=changed)
                self._use(connection, info, changed)
                return
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, _LONGEST_PAUSE)


async def _info(connection: Connection) -> dict[str, str]:
    try:
        return parse_info(await connection.request(_INFO))
    except StoreRefused as refusal:
        if refusal.code == "NOPERM":
            return {}
        raise


def parse_info(reply: bytes) -> dict[str, str]:
    """INFO's reply as names and values."""
    lines = reply.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))
