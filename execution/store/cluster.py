"""Redis Cluster: each command goes to the server that holds its key's slot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import hiredis
import structlog
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, MovedError, ResponseError

from execution.store.errors import StoreRefused, StoreUnavailable
from execution.store.node import Limits, Node

log = structlog.get_logger(__name__)

_ASKING = hiredis.pack_command(("ASKING",))
_MOST_REDIRECTS = 5
_REFRESH_AFTER = 30.0  # seconds, when nothing says sooner that the slots have moved
_REFRESH_PAUSE = 1.0

# Where a command's key stands, if not directly behind its name. A wrong guess costs one redirect, no more, and a command
# without a key can go anywhere.
_KEY_AT = dict.fromkeys(("EVAL", "EVALSHA", "FCALL"), 3) | dict.fromkeys(("XGROUP", "XINFO", "OBJECT"), 2)


class Cluster:
    """The servers of a Redis Cluster, each over one connection. All keys of one command must share a hash tag.

    A redirected command was certainly not carried out, so following a redirect is no repetition.
    """

    def __init__(self, seed: Node, limits: Limits, reconnected: Callable[[bool], None]) -> None:
        """`seed` is a connected server of the cluster; see `Node` for `reconnected`."""
        self._seed = seed
        self._limits = limits
        self._reconnected = reconnected
        self._nodes: dict[tuple[str, int], Node] = {}
        self._replicas: set[tuple[str, int]] = set()
        self._opening = asyncio.Lock()
        self._slots: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._stale = asyncio.Event()
        self._refreshing: asyncio.Task[None] | None = None

    @property
    def primaries(self) -> list[Node]:
        """The servers that hold slots."""
        return list(dict.fromkeys(node for node in self._slots if node is not None)) or [self._seed]

    @property
    def connected(self) -> bool:
        return all(node.connected for node in self.primaries)

    @property
    def run_id(self) -> str | None:
        ids = [node.run_id for node in self.primaries]
        return ",".join(sorted(filter(None, ids))) if all(ids) else None

    @property
    def began_ms(self) -> int:
        return max(node.began_ms for node in self.primaries)

    @property
    def lost_at(self) -> float:
        return time.monotonic()  # which of its servers was lost when is not kept: at the latest now

    async def open(self) -> None:
        """Learn which server holds which slots.

        Raises:
            StoreUnavailable: no server could tell.
        """
        await self._learn()
        self._refreshing = asyncio.create_task(self._refresh(), name="refresh the Redis Cluster's slots")

    async def close(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing])
        for node in {self._seed, *self._nodes.values()}:
            await node.close()

    async def send(self, command: tuple[Any, ...]) -> Any:
        """Send a command, once, to the server that holds its key; see `Node.send` for what it raises."""
        key = _key_of(command)
        node = self._slots[key_slot(key)] if key is not None else None
        prefix = None
        for _ in range(_MOST_REDIRECTS):
            node = node or self._anyone()
            try:
                return await node.send(command, prefix)
            except AskError as redirect:
                moved = isinstance(redirect, MovedError)
                if moved:
                    self._stale.set()
                prefix = None if moved else _ASKING
                node = await self._node_at(redirect.host or _place(node)[0], redirect.port)
            except StoreUnavailable:
                self._stale.set()
                raise
            except StoreRefused as refusal:
                if refusal.code in ("CLUSTERDOWN", "READONLY"):
                    self._stale.set()
                raise
        raise StoreUnavailable(f"the Redis Cluster redirected a command {_MOST_REDIRECTS} times", maybe_applied=False)

    def _anyone(self) -> Node:
        return next((node for node in (self._seed, *self._nodes.values()) if node.connected), self._seed)

    async def _node_at(self, host: str, port: int) -> Node:
        if (host, port) not in self._nodes:
            async with self._opening:
                if (host, port) not in self._nodes:
                    self._nodes[host, port] = await self._opened(host, port)
        return self._nodes[host, port]

    async def _opened(self, host: str, port: int) -> Node:
        if (host, port) == _place(self._seed):
            return self._seed
        node = Node(self._seed.address.at(host, port), self._limits, self._reconnected)
        await node.open()
        return node

    async def _learn(self) -> None:
        """Ask the servers in turn, replicas last, until one tells the slots."""
        failure: StoreUnavailable | ResponseError | None = None
        places = [_place(node) for node in (self._seed, *self._nodes.values())]
        for host, port in dict.fromkeys([*places, *self._replicas]):
            try:
                node = await self._node_at(host, port)
                await self._adopt(await node.send(("CLUSTER", "SLOTS")), told_by=host)
            except (StoreUnavailable, ResponseError) as error:
                failure = error
            else:
                return
        assert failure is not None
        raise failure

    async def _adopt(self, ranges: Sequence[Any], told_by: str) -> None:
        slots: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        replicas: set[tuple[str, int]] = set()
        for first, last, *servers in ranges:
            # A server that does not know its own name leaves it out.
            places = [(host.decode() if host else told_by, int(port)) for host, port, *_ in servers]
            node = await self._node_at(*places[0])
            slots[first : last + 1] = [node] * (last + 1 - first)
            replicas.update(places[1:])
        self._replicas = replicas
        before, self._slots = self._slots, slots
        moved = any(old is not None and old is not new for old, new in zip(before, slots, strict=True))
        if moved:  # by a failover, perhaps, and then acknowledged writes may be missing
            log.warning("slots of the Redis Cluster have moved")
            self._reconnected(True)

    async def _refresh(self) -> None:
        told = ""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stale.wait(), _REFRESH_AFTER)
            self._stale.clear()
            try:
                await self._learn()
            except (StoreUnavailable, ResponseError) as error:
                if str(error) != told:
                    told = str(error)
                    log.warning("slots of the Redis Cluster not learnt", error=told)
            else:
                told = ""
            if not self.connected:
                self._stale.set()
            await asyncio.sleep(_REFRESH_PAUSE)


def _place(node: Node) -> tuple[str, int]:
    settings = node.address.settings
    return str(settings.get("host", "localhost")), int(settings.get("port", 6379))


def _key_of(command: tuple[Any, ...]) -> bytes | None:
    at = _KEY_AT.get(str(command[0]).upper(), 1)
    if len(command) <= at:
        return None
    key = command[at]
    return key if isinstance(key, bytes) else str(key).encode()
