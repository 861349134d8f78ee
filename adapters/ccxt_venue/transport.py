"""HTTP/1.1 over persistent connections, for requests that must leave at most once.

A request is written in one piece on a connection of its own for the while. It is never sent again by this room, whatever happens; the
error says whether any of it may have left.
"""

from __future__ import annotations

import asyncio
import ssl
import time
import zlib
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import httptools

MOST_CONNECTIONS = 64
IDLE_SECONDS = 15.0
"""An idle connection is not used after this: the server may be closing it just then."""


class NotSent(Exception):
    """No byte of the request left."""


class NoAnswer(Exception):
    """The request may have arrived; no complete answer came."""


class Answer:
    """A complete answer. Header names are in lower case."""

    __slots__ = ("body", "headers", "reason", "status")

    def __init__(self, status: int, reason: str, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        self.body = body


class _Connection(asyncio.Protocol):
    """One connection, one request at a time. Also the callbacks of the parser."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.idle_since = 0.0
        self._waiter: asyncio.Future[Answer] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._chunks: list[bytes] = []
        self._reason = ""
        self._reusable = True

    @property
    def usable(self) -> bool:
        transport = self.transport
        fresh = time.monotonic() - self.idle_since < IDLE_SECONDS
        return self._reusable and fresh and transport is not None and not transport.is_closing()

    async def ask(self, request: bytes, seconds: float) -> Answer:
        assert self.transport is not None
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        self.transport.write(request)
        timer = loop.call_later(seconds, self._late, waiter, seconds)
        try:
            answer: Answer = await waiter
            return answer
        except BaseException:
            self.close()
            raise
        finally:
            timer.cancel()
            self._waiter = None
            self.idle_since = time.monotonic()

    def close(self) -> None:
        self._reusable = False
        if self.transport is not None:
            self.transport.abort()

    def _late(self, waiter: asyncio.Future[Answer], seconds: float) -> None:
        if not waiter.done():
            waiter.set_exception(NoAnswer(f"no answer within {seconds:g} s"))

    def _fail(self, reason: str) -> None:
        self._reusable = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(NoAnswer(reason))

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.idle_since = time.monotonic()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"not an HTTP answer: {error}")
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"connection closed{f': {exc}' if exc else ''}")

    # httptools

    def on_message_begin(self) -> None:
        self._headers, self._chunks, self._reason = {}, [], ""

    def on_status(self, status: bytes) -> None:
        self._reason += status.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        known = self._headers.get(key)
        self._headers[key] = text if known is None else f"{known}, {text}"

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        if self._waiter is None or self._waiter.done():
            self.close()  # an answer to nothing: what follows on this connection cannot be trusted
            return
        self._reusable = self._parser.should_keep_alive()
        body = b"".join(self._chunks)
        try:
            body = _decompressed(body, self._headers.get("content-encoding", ""))
        except zlib.error as error:
            self._fail(f"broken content encoding: {error}")
            return
        self._waiter.set_result(Answer(self._parser.get_status_code(), self._reason, self._headers, body))


class Transport:
    """Connections to any number of hosts, at most `MOST_CONNECTIONS` to each."""

    def __init__(self, *, connect_seconds: float = 5.0) -> None:
        self._connect_seconds = connect_seconds
        self._idle: dict[str, list[_Connection]] = {}
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._tls = ssl.create_default_context()

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        seconds: float,
        before_send: Callable[[], None],
    ) -> Answer:
        """Send a request, once. `before_send` is called directly before the bytes are written; what it raises stops that.

        Raises:
            NotSent: no byte left. NoAnswer: some did, and no complete answer came.
        """
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        payload = _payload(method, url[len(origin) :] or "/", parts.netloc, headers, body)
        slot = self._slots.get(origin)
        if slot is None:
            slot = self._slots[origin] = asyncio.Semaphore(MOST_CONNECTIONS)
        async with slot:
            connection = await self._connection(origin, parts.scheme, parts.hostname or "", parts.port)
            before_send()
            answer = await connection.ask(payload, seconds)
            if connection.usable:
                self._idle.setdefault(origin, []).append(connection)
            else:
                connection.close()
            return answer

    async def close(self) -> None:
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()
        await asyncio.sleep(0)

    async def _connection(self, origin: str, scheme: str, host: str, port: int | None) -> _Connection:
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.usable:
                return connection
            connection.close()
        secure = scheme == "https"
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_seconds):
                _, connection = await loop.create_connection(
                    _Connection, host, port or (443 if secure else 80), ssl=self._tls if secure else None
                )
        except TimeoutError:
            raise NotSent(f"no connection to {host} within {self._connect_seconds:g} s") from None
        except OSError as error:
            raise NotSent(f"no connection to {host}: {error.strerror or error}") from error
        return connection


def _payload(method: str, target: str, host: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    for name, value in headers.items():
        text = f"{name}: {value}"
        if "\r" in text or "\n" in text:
            raise NotSent(f"the header {name!r} holds a line break")
        lines.append(text)
    if body is not None or method in ("POST", "PUT"):
        lines.append(f"Content-Length: {len(body or b'')}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")


def _decompressed(body: bytes, encoding: str) -> bytes:
    if encoding in ("", "identity") or not body:
        return body
    if encoding in ("gzip", "x-gzip"):
        return zlib.decompress(body, 16 + zlib.MAX_WBITS)
    if encoding == "deflate":
        return zlib.decompress(body)
    raise zlib.error(f"unknown encoding {encoding}")
