"""One connection to Redis, shared by every caller: requests are written as they come, replies are handed out in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from execution.store.errors import StoreRefused, StoreUnavailable, reply_error

_INCOMPLETE = object()


class _ProtocolBroken(Exception):
    """What came is not Redis's protocol."""


class Connection(asyncio.Protocol):
    """A connection from its handshake to its loss. It never reconnects and never repeats a request.

    Redis answers in the order of the requests, so the first reply belongs to the oldest request. Nothing may disturb that
    pairing: a caller that goes away leaves its place in the queue, and the first request without an answer in time ends the
    connection, since its reply would otherwise be taken for that of the next.
    """

    def __init__(
        self, link: AbstractConnection, name: str, timeout: float, max_in_flight: int, lost: Callable[[str], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._link = link
        # redis-py has no public way to its transport, and its own reader costs several times as much per reply.
        self._transport = cast(asyncio.Transport, link._writer.transport)  # type: ignore[union-attr]
        self._name = name
        self._timeout = timeout
        self._replies = hiredis.Reader(protocolError=_ProtocolBroken, replyError=reply_error, notEnoughData=_INCOMPLETE)
        self._room = asyncio.Semaphore(max_in_flight)
        self._unsent: list[tuple[bytes, asyncio.Future[Any], float]] = []
        self._sent: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._prefixes: set[asyncio.Future[Any]] = set()
        self._congested = False
        self._flush_due = False
        self._watchdog: asyncio.TimerHandle | None = None
        self._loss: str | None = None
        self._lost = lost

    @classmethod
    async def open(
        cls,
        link: AbstractConnection,
        name: str,
        *,
        connect_timeout: float,
        timeout: float,
        max_in_flight: int,
        lost: Callable[[str], None],
    ) -> Connection:
        """Let redis-py connect, encrypt, authenticate and select the database, then take the transport over.

        `timeout` is in seconds and for each reply. `lost` is called once, with the reason, when the connection ends.

        Raises:
            StoreUnavailable: the server is not reached, or does not answer in time.
            StoreRefused: it refuses user or password.
        """
        try:
            async with asyncio.timeout(connect_timeout):
                await link.connect()  # type: ignore[no-untyped-call]
            if await link.can_read():
                raise StoreUnavailable(f"{name} sent more than it was asked for", maybe_applied=False)
            self = cls(link, name, timeout, max_in_flight, lost)
        except (RedisError, OSError) as error:
            await link.disconnect(nowait=True)
            raise _opening_error(error, name, connect_timeout) from None
        except BaseException:
            await link.disconnect(nowait=True)
            raise
        self._transport.set_protocol(self)
        return self

    @property
    def ended(self) -> str | None:
        """Why the connection has ended; None while it lives."""
        return self._loss

    async def request(self, packed: bytes, prefix: bytes | None = None) -> Any:
        """Send one packed command and wait for its reply. A `prefix` is a command directly before it whose reply is dropped.

        Raises:
            StoreUnavailable: the connection is, or gets, lost.
            redis.exceptions.ResponseError: the reply is an error.
        """
        await self._room.acquire()
        if self._loss is not None:
            self._room.release()
            raise StoreUnavailable(self._loss, maybe_applied=False)
        if prefix is not None:
            self._prefixes.add(self._enqueue(prefix))
        return await self._enqueue(packed)

    def _enqueue(self, packed: bytes) -> asyncio.Future[Any]:
        reply: asyncio.Future[Any] = self._loop.create_future()
        self._unsent.append((packed, reply, self._loop.time()))
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)
        if self._watchdog is None:
            self._watchdog = self._loop.call_later(self._timeout, self._watch)
        return reply

    def _flush(self) -> None:
        self._flush_due = False
        if self._congested or self._loss is not None or not self._unsent:
            return
        batch, self._unsent = self._unsent, []
        self._sent.extend((reply, since) for _, reply, since in batch)
        self._transport.write(b"".join([packed for packed, _, _ in batch]))

    def _watch(self) -> None:
        self._watchdog = None
        if self._sent:
            oldest = self._sent[0][1]
        elif self._unsent:
            oldest = self._unsent[0][2]
        else:
            return
        now = self._loop.time()
        if now < oldest + self._timeout:
            self._watchdog = self._loop.call_at(oldest + self._timeout, self._watch)
        else:
            self.drop(f"{self._name} did not answer within {self._timeout:g} s")

    def drop(self, reason: str) -> None:
        """End the connection now; every request without a reply fails."""
        if self._loss is not None:
            return
        self._loss = reason
        if self._watchdog is not None:
            self._watchdog.cancel()
        # Not close(): it would still deliver what has been given up here.
        self._transport.abort()
        sent, unsent = self._sent, self._unsent
        self._sent, self._unsent = deque(), []
        for reply, _ in sent:
            self._settle(reply, StoreUnavailable(reason, maybe_applied=True))
        for _, reply, _ in unsent:
            self._settle(reply, StoreUnavailable(reason, maybe_applied=False))
        self._lost(reason)

    async def close(self) -> None:
        """End the connection and let go of its socket."""
        self.drop(f"the connection to {self._name} was closed")
        await self._link.disconnect(nowait=True)
        await asyncio.sleep(0)  # the transport closes its socket in the loop's next round

    def _settle(self, reply: asyncio.Future[Any], outcome: Any) -> None:
        if self._prefixes and reply in self._prefixes:
            self._prefixes.discard(reply)
            return
        self._room.release()
        if reply.done():  # its caller went away
            return
        if isinstance(outcome, Exception):
            reply.set_exception(outcome)
        else:
            reply.set_result(outcome)

    # --- asyncio.Protocol ---------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._replies.feed(data)
        while self._loss is None:
            try:
                outcome = self._replies.gets()
            except _ProtocolBroken as error:
                self.drop(f"{self._name} does not speak Redis's protocol: {error}")
                return
            if outcome is _INCOMPLETE:
                return
            if not self._sent:
                self.drop(f"{self._name} sent more than it was asked for")
                return
            self._settle(self._sent.popleft()[0], outcome)

    def connection_lost(self, exc: Exception | None) -> None:
        self.drop(f"the connection to {self._name} was lost" + (f": {exc}" if exc else ""))

    def pause_writing(self) -> None:
        self._congested = True

    def resume_writing(self) -> None:
        self._congested = False
        self._flush()


def _opening_error(error: RedisError | OSError, name: str, timeout: float) -> Exception:
    if isinstance(error, StoreUnavailable):
        return error
    if isinstance(error, TimeoutError):
        return StoreUnavailable(f"{name} did not answer within {timeout:g} s", maybe_applied=False)
    if isinstance(error, RedisError) and error.status_code is not None:
        return StoreRefused(error.status_code, str(error))
    return StoreUnavailable(f"{name} is not reached: {error}", maybe_applied=False)
