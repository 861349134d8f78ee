"""The service's store client, connected to a simulated Redis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio.connection import AbstractConnection

from execution.store import Store
from execution.store.node import Address, Limits, Node
from execution.store.store import _Listeners, _open_patiently
from tests.simulation.redis_link import Fault, Faults, SimLink, Wire
from tests.simulation.redis_server import SimRedis


@dataclass(frozen=True)
class SimAddress(Address):
    """Leads to the simulated server."""

    wire: Wire

    def link(self) -> AbstractConnection:
        return cast(AbstractConnection, SimLink(self.wire))


class SimStore(Store):
    """`execution.store.Store` itself, over simulated connections. One per simulated process.

    Pauses between attempts to connect come from the global `random`, as they do in production: seed it.
    """

    wire: Wire

    @classmethod
    async def join(
        cls,
        server: SimRedis,
        *,
        seed: int | str = 0,
        faults: Faults | None = None,
        timeout: float = 2.0,
        connect_timeout: float = 5.0,
        reconnect_wait: float = 0.0,
        max_in_flight: int = 4096,
        patience: float = 0.0,
    ) -> SimStore:
        """Connect; see `Store.connect` for the limits, in seconds, and for what it raises."""
        wire = Wire(server, seed, faults or Faults())
        address = SimAddress("Redis (simulated)", {}, wire)
        limits = Limits(timeout, connect_timeout, reconnect_wait, max_in_flight)
        listeners = _Listeners()
        node = Node(address, limits, listeners.notify)
        try:
            await _open_patiently(node, patience)
        except BaseException:
            await node.close()
            raise
        store = cls(node, address, limits, listeners)
        store.wire = wire
        return store

    async def __aenter__(self) -> SimStore:
        return self

    @property
    def faults(self) -> Faults:
        """What may befall its calls from now on."""
        return self.wire.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self.wire.faults = faults

    def strike(self, fault: Fault, command: str | None = None) -> None:
        """Let the next command (of that name, where given: `EVALSHA`, `SET`, ...) meet this. Strikes come in their order."""
        self.wire.strike(fault, None if command is None else command.encode())

    def drop(self, reason: str = "connection reset by peer") -> None:
        """Break all its connections; it makes new ones."""
        self.wire.drop(reason)

    def down(self, seconds: float) -> None:
        """Cut this process off from the server for so long."""
        self.wire.down(seconds)

    def kill(self) -> None:
        """The process is dead: nothing is answered or tried again. A part of what was on its way still arrives.

        Whoever waits for an answer waits for ever: cancel the process's own tasks.
        """
        self.wire.dead = True
        node = cast(Any, self._servers)
        for link in (node._connection, node._broken):
            if link is not None and link._watchdog is not None:
                link._watchdog.cancel()
        for task in (node._reconnecting, *(subscription._task for subscription in self._subscriptions)):
            if task is not None:
                task.cancel()
        for link in list(self.wire._links):
            link.silence()
