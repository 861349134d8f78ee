"""The state store as the rest of the service sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import structlog
from redis.exceptions import NoScriptError

from execution.store.cluster import Cluster
from execution.store.errors import StoreRefused, StoreUnavailable
from execution.store.node import Address, Limits, Node
from execution.store.report import StoreReport, examine
from execution.store.script import Script
from execution.store.subscription import Subscription

log = structlog.get_logger(__name__)

Value = str | bytes | int


class Store:
    """A Redis, or a Redis Cluster, behind one multiplexed connection per server.

    Any number of callers share a connection, and what they ask in one turn of the event loop leaves in one piece. Nothing
    is ever sent twice: when an answer fails to come, the caller is told that the outcome is unknown and decides. Blocking
    commands (BLPOP, XREAD BLOCK, MULTI, SUBSCRIBE, ...) must not be called, as they would hold up or confuse everyone else.
    """

    def __init__(self, servers: Node | Cluster, address: Address, limits: Limits, listeners: _Listeners) -> None:
        self._servers = servers
        self._address = address
        self._limits = limits
        self._listeners = listeners
        self._subscriptions: list[Subscription] = []

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        timeout: float = 2.0,
        connect_timeout: float = 5.0,
        reconnect_wait: float = 0.0,
        max_in_flight: int = 4096,
        patience: float = 0.0,
    ) -> Store:
        """Connect to `redis://`, `rediss://` (TLS) or `unix://`; whether it is a cluster is asked of the server.

        `timeout` is for a reply; when it passes, the connection is given up and made anew. A call made while there is no
        connection waits `reconnect_wait` for one before it fails. `patience` is for how long a store that is not there yet,
        or still loads, is tried now. All in seconds. At most `max_in_flight` requests are under way, more of them wait.

        Raises:
            ValueError: the URL cannot be read.
            StoreUnavailable: the store is not reached.
            StoreRefused: it refuses the login, or is still loading.
        """
        address = Address.of_url(url)
        limits = Limits(timeout, connect_timeout, reconnect_wait, max_in_flight)
        listeners = _Listeners()
        node = Node(address, limits, listeners.notify)
        info = await _open_patiently(node, patience)
        servers: Node | Cluster = node
        if info.get("cluster_enabled") == "1":
            servers = Cluster(node, limits, listeners.notify)
            try:
                await servers.open()
            except BaseException:
                await servers.close()
                raise
        return cls(servers, address, limits, listeners)

    async def __aenter__(self) -> Store:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection; calls under way fail."""
        for subscription in self._subscriptions:
            await subscription.close()
        await self._servers.close()

    @property
    def name(self) -> str:
        """Where the store is, without its password."""
        return self._address.name

    @property
    def connected(self) -> bool:
        """Whether every server is connected at this moment, as far as is known."""
        return self._servers.connected

    @property
    def run_id(self) -> str | None:
        """Identifies the server process (processes, of a cluster); None when this user may not ask."""
        return self._servers.run_id

    @property
    def began_ms(self) -> int:
        """When the server's process began at the latest, ms since the epoch, by its clock; 0: not known."""
        return self._servers.began_ms

    @property
    def lost_at(self) -> float:
        """When a connection was last seen to be lost, on the monotonic clock; 0: never."""
        return self._servers.lost_at

    def on_reconnect(self, listener: Callable[[bool], None]) -> None:
        """Call `listener` after each reconnect, before anything is sent. True: the server is, or may be, another process
        than before, and after a failover that one can lack writes which were acknowledged."""
        self._listeners.add(listener)

    async def call(self, *command: Value) -> Any:
        """Send a command, each word of it an argument of its own, and return the reply as RESP2 gives it.

        In a cluster it goes to the server of its key; without one, to any (for SCAN, see `scan`).

        Raises:
            StoreUnavailable: there was no reply; `maybe_applied` tells whether it may have been carried out.
            StoreRefused: certainly not carried out, for a reason of the store's.
            redis.exceptions.ResponseError: any other error reply.
        """
        return await self._servers.send(command)

    async def script(self, script: Script, keys: Sequence[str], args: Sequence[Value]) -> Any:
        """Run a script; see `call` for what it raises. A server that does not know it yet is given its text."""
        rest = (len(keys), *keys, *args)
        try:
            return await self._servers.send(("EVALSHA", script.sha, *rest))
        except NoScriptError:  # so it certainly did not run
            return await self._servers.send(("EVAL", script.text, *rest))

    async def scan(self, pattern: str, *, count: int = 1000) -> AsyncIterator[bytes]:
        """The names of all keys that match, on every server; one may come twice."""
        for node in self._servers.primaries:
            cursor: Value = 0
            while True:
                cursor, names = await node.send(("SCAN", cursor, "MATCH", pattern, "COUNT", count))
                for name in names:
                    yield name
                if cursor == b"0":
                    break

    async def server_time_ms(self) -> int:
        """The store's clock, in ms since the epoch."""
        seconds, microseconds = await self._servers.send(("TIME",))
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def check(self) -> StoreReport:
        """Ask the store whether it is fit to keep orders; of a cluster, the first server with a warning is reported.

        Raises:
            StoreTooOld: it is older than Redis 7.0.
            StoreUnavailable: it does not answer.
        """
        reports = [await examine(node) for node in self._servers.primaries]
        return next((report for report in reports if report.warnings), reports[0])

    async def subscribe(
        self, *channels: str, callback: Callable[[str, bytes], None], resubscribed: Callable[[], None] | None = None
    ) -> Subscription:
        """Call `callback(channel, payload)` for what is published from now on; each subscription has its own connection.

        Messages published while that connection is down are lost; `resubscribed` is called when it is back. In a cluster, it
        is the server of the URL that is subscribed to.

        Raises:
            StoreUnavailable: the store did not confirm the subscription.
        """
        subscription = Subscription(self._address, channels, callback, resubscribed, self._limits.connect_timeout)
        await subscription.open()
        self._subscriptions.append(subscription)
        return subscription


class _Listeners:
    def __init__(self) -> None:
        self._listeners: list[Callable[[bool], None]] = []

    def add(self, listener: Callable[[bool], None]) -> None:
        self._listeners.append(listener)

    def notify(self, run_id_changed: bool) -> None:
        for listener in self._listeners:
            try:
                listener(run_id_changed)
            except Exception:
                log.exception("a listener to the store's reconnects failed")


async def _open_patiently(node: Node, patience: float) -> dict[str, str]:
    loop = asyncio.get_running_loop()
    give_up, pause = loop.time() + patience, 0.05
    while True:
        try:
            return await node.open()
        except (StoreUnavailable, StoreRefused) as error:
            hopeless = isinstance(error, StoreRefused) and not error.transient
            if hopeless or loop.time() + pause > give_up:
                raise
        await asyncio.sleep(pause)
        pause = min(pause * 2, 1.0)
