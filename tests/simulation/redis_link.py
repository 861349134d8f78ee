"""Between a simulated process and a simulated Redis: connections that take their time and break.

They stand in for redis-py's connections only. The service's own client (pairing of replies, time limits, reconnects,
subscriptions) runs on them as it is, and sends what it would send.
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
import random
from collections import deque
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import hiredis
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.simulation.redis_data import Reply, ReplyError, UnknownCommand
from tests.simulation.redis_server import SimRedis

# What server and network do runs in a context of its own, what the client does in the client's: a loop that kills or freezes
# a process by its context then stops no packet that has left.
_OUTSIDE = contextvars.Context()


class Fault(enum.Enum):
    """What can befall one command."""

    REQUEST_LOST = "the connection breaks before the server has read it"
    REPLY_LOST = "it is carried out, and the connection breaks before the reply"
    STALLED = "it, and all behind it on the connection, waits for seconds; it is carried out though the caller gave up"
    REFUSED = "the server answers that it will not now; nothing is carried out"


_REFUSALS = (
    "BUSY Valkey is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "LOADING Valkey is loading the dataset in memory",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
)


@dataclass(frozen=True)
class Faults:
    """How likely each fault is, per command; ranges in seconds."""

    request_lost: float = 0.0
    reply_lost: float = 0.0
    stalled: float = 0.0
    refused: float = 0.0
    message_lost: float = 0.0
    """Per message of a channel: the subscription's connection breaks before it comes."""
    latency: tuple[float, float] = (0.0002, 0.002)
    """One way."""
    stall: tuple[float, float] = (0.5, 6.0)


class Wire:
    """All connections of one process to one server. The same seed and the same use, the same faults."""

    def __init__(self, server: SimRedis, seed: int | str, faults: Faults) -> None:
        self.server = server
        self.faults = faults
        self.random = random.Random(f"redis wire {seed}")
        self.dead = False
        self._away_until = float("-inf")
        self._links: dict[Transport | SimLink, None] = {}
        self._struck: deque[tuple[Fault, bytes | None]] = deque()

    def latency(self) -> float:
        return self.random.uniform(*self.faults.latency)

    def strike(self, fault: Fault, command: bytes | None) -> None:
        self._struck.append((fault, command))

    def fault(self, command: list[bytes]) -> Fault | None:
        """What befalls a command."""
        if self._struck and self._struck[0][1] in (None, command[0].upper()):
            return self._struck.popleft()[0]
        faults = self.faults
        drawn = self.random.random()
        for fault, chance in (
            (Fault.REQUEST_LOST, faults.request_lost),
            (Fault.REPLY_LOST, faults.reply_lost),
            (Fault.STALLED, faults.stalled),
            (Fault.REFUSED, faults.refused),
        ):
            if drawn < chance:
                return fault
            drawn -= chance
        return None

    async def connect(self, link: Transport | SimLink) -> None:
        """Raises:
        redis.exceptions.ConnectionError: the server is not reached.
        """
        await asyncio.sleep(2 * self.latency())
        while (wait := self.server.frozen_for) > 0:
            await asyncio.sleep(wait)
        if self.dead or self.server.away or asyncio.get_running_loop().time() < self._away_until:
            raise RedisConnectionError("connection refused")
        self._links[link] = None
        self.server.join(link)

    def leave(self, link: Transport | SimLink) -> None:
        self._links.pop(link, None)
        self.server.leave(link)

    def drop(self, reason: str) -> None:
        """Break every connection."""
        for link in list(self._links):
            link.broken(reason)

    def down(self, seconds: float) -> None:
        """Break every connection; none can be made for so long."""
        self._away_until = max(self._away_until, asyncio.get_running_loop().time() + seconds)
        self.drop("the network is down")


class Transport:
    """One connection's bytes, in order both ways. As much of asyncio's transport as `execution.store.connection` uses."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._loop = asyncio.get_running_loop()
        self._client = contextvars.copy_context()
        self._protocol: asyncio.Protocol | None = None
        self._requests = hiredis.Reader()
        self._out: deque[bytes] = deque()
        self._back: deque[bytes] = deque()
        self._out_at = self._back_at = 0.0
        self._queue: deque[tuple[list[bytes], Fault | None]] = deque()
        self._waiting = False

    def set_protocol(self, protocol: asyncio.Protocol) -> None:
        self._protocol = protocol

    def write(self, data: bytes) -> None:
        if self._protocol is None:
            return
        self._out.append(data)
        self._out_at = max(self._out_at, self._loop.time() + self._wire.latency())
        self._loop.call_at(self._out_at, self._arrive, context=_OUTSIDE)

    def abort(self) -> None:
        """The client lets go. What the server has read it carries out; of what is on its way, a part may arrive."""
        self._wire.leave(self)
        self._protocol = None
        self._back.clear()
        for _ in range(self._wire.random.randint(0, len(self._out))):
            self._out.pop()

    def broken(self, reason: str) -> None:
        """The network ends it."""
        protocol = self._protocol
        self.abort()
        if protocol is not None:
            self._loop.call_soon(protocol.connection_lost, ConnectionResetError(reason), context=self._client)

    def silence(self) -> None:
        """The client process is dead."""
        self.abort()

    def ended_by_server(self, reason: str) -> None:
        self._out.clear()
        self._queue.clear()
        self.broken(reason)

    def deliver(self, channel: bytes, payload: bytes) -> None:
        raise AssertionError("the shared connection does not subscribe")

    def _arrive(self) -> None:
        if not self._out:  # lost on its way
            return
        self._requests.feed(self._out.popleft())
        while (command := self._requests.gets()) is not False:
            self._queue.append((command, self._wire.fault(command)))
        if not self._waiting:
            self._serve()

    def _serve(self) -> None:
        self._waiting = False
        wire, replies = self._wire, []
        while self._queue:
            command, fault = self._queue[0]
            wait = wire.server.frozen_for
            if fault is Fault.STALLED:
                wait = max(wait, wire.random.uniform(*wire.faults.stall))
                self._queue[0] = command, None
            if wait > 0:
                self._waiting = True
                self._loop.call_later(wait, self._serve, context=_OUTSIDE)
                break
            self._queue.popleft()
            if fault is Fault.REQUEST_LOST:
                self._queue.clear()
                return self.broken("connection reset by peer")
            if fault is Fault.REFUSED:
                replies.append(b"-%s\r\n" % wire.random.choice(_REFUSALS).encode())
                continue
            replies.append(_answer(wire.server, command))
            if fault is Fault.REPLY_LOST:
                self._queue.clear()
                return self.broken("connection reset by peer")
        if replies and self._protocol is not None:
            self._back.append(b"".join(replies))
            self._back_at = max(self._back_at, self._loop.time() + wire.latency())
            self._loop.call_at(self._back_at, self._return, context=self._client)
        return None

    def _return(self) -> None:
        if self._back and self._protocol is not None:
            self._protocol.data_received(self._back.popleft())


class SimLink:
    """As much of redis-py's connection as `execution.store` uses: to connect, and to subscribe."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._loop = asyncio.get_running_loop()
        self._client = contextvars.copy_context()
        self._transport = Transport(wire)
        self._writer = SimpleNamespace(transport=self._transport)
        self._subscribed = False
        self._lost: str | None = None
        self._travelling: deque[list[Any]] = deque()
        self._travels_until = 0.0
        self._inbox: deque[list[Any]] = deque()
        self._news = asyncio.Event()

    async def connect(self) -> None:
        await self._wire.connect(self._transport)

    async def can_read(self) -> bool:
        return False

    async def disconnect(self, nowait: bool = False) -> None:
        self._wire.leave(self)
        self._wire.leave(self._transport)

    # --- subscribing ----------------------------------------------------------------------------------------------------

    async def send_command(self, name: str, *words: str) -> None:
        if name == "SUBSCRIBE":
            self._wire.leave(self._transport)
            await self._wire.connect(self)
            for count, channel in enumerate(words, 1):
                self._wire.server.subscribe(self, channel.encode())
                self._send([b"subscribe", channel.encode(), count])
        elif name == "PING" and self._lost is None:
            self._send([b"pong", b""])
        elif name != "PING":
            raise UnknownCommand(name)

    async def read_response(self, timeout: float | None = None) -> Any:
        """The next message; None when none comes in time."""
        while not self._inbox:
            if self._lost is not None:
                raise RedisConnectionError(self._lost)
            self._news.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._news.wait()
            except TimeoutError:
                return None
        return self._inbox.popleft()

    def deliver(self, channel: bytes, payload: bytes) -> None:
        if self._wire.random.random() < self._wire.faults.message_lost:
            self.broken("connection reset by peer")
        else:
            self._send([b"message", channel, payload])

    def broken(self, reason: str) -> None:
        self._wire.leave(self)
        self._travelling.clear()
        self._lost = reason
        self._news.set()

    def silence(self) -> None:
        """The client process is dead."""
        self._wire.leave(self)
        self._travelling.clear()

    def ended_by_server(self, reason: str) -> None:
        self.broken(reason)

    def _send(self, message: list[Any]) -> None:
        self._travelling.append(message)
        self._travels_until = max(self._travels_until, self._loop.time() + self._wire.latency())
        self._loop.call_at(self._travels_until, self._arrive, context=self._client)

    def _arrive(self) -> None:
        if self._travelling:
            self._inbox.append(self._travelling.popleft())
            self._news.set()


def _answer(server: SimRedis, command: list[bytes]) -> bytes:
    try:
        return encode(server.execute(*command))
    except ReplyError as error:
        return f"-{error}\r\n".encode()
    except UnknownCommand as error:
        server.unknown.append(str(error))
        asyncio.get_running_loop().call_exception_handler({"message": "SimRedis lacks a command", "exception": error})
        return f"-ERR SimRedis does not know {error}\r\n".encode()


def encode(reply: Reply) -> bytes:
    """A reply in RESP2."""
    if isinstance(reply, bytes):
        return b"$%d\r\n%s\r\n" % (len(reply), reply)
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if reply is None:
        return b"$-1\r\n"
    if isinstance(reply, str):
        return f"+{reply}\r\n".encode()
    return b"*%d\r\n%s" % (len(reply), b"".join([encode(part) for part in reply]))
