"""HTTP/1.1 over persistent connections, for requests that must leave at most once.

A request is written in one piece, on a connection that it has for itself until the answer is complete. Nothing is ever sent a second
time in here; an error says whether any byte may have left. Urgent requests (cancels) do not wait for a connection behind others.
"""

from __future__ import annotations

import asyncio
import ssl
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import certifi
import httptools

MOST_CONNECTIONS = 64
"""Connections to one host that ordinary requests may hold; urgent ones open more when these are taken."""
IDLE_SECONDS = 15.0
"""An idle connection is not used after this: the server may be closing it just then."""
LARGEST_ANSWER = 64 << 20


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
        self.idle_since = time.monotonic()
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Answer] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._chunks: list[bytes] = []
        self._size = 0
        self._reason = ""
        self._in_body = False
        self._reusable = True

    @property
    def open(self) -> bool:
        return self._reusable and self._transport is not None and not self._transport.is_closing()

    @property
    def usable(self) -> bool:
        return self.open and time.monotonic() - self.idle_since < IDLE_SECONDS

    async def ask(self, request: bytes, seconds: float) -> Answer:
        """Write a request and await its answer. Once this is called, bytes have left.

        Raises:
            NoAnswer
        """
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        self._in_body = False
        self._transport.write(request)
        timer = loop.call_later(seconds, self._fail, f"no answer within {seconds:g} s")
        try:
            answer: Answer = await waiter
            return answer
        except BaseException:
            self.close()  # an answer to this may still come, and must not be taken for another's
            raise
        finally:
            timer.cancel()
            self._waiter = None
            self.idle_since = time.monotonic()

    def close(self) -> None:
        self._reusable = False
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, reason: str) -> None:
        self._reusable = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(NoAnswer(reason))

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(f"not an HTTP answer: {error}")
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._in_body and exc is None and self._headers.keys().isdisjoint(("content-length", "transfer-encoding")):
            self._complete()  # an answer without a length ends with its connection
        where = " in the middle of the answer" if self._in_body else ""
        self._fail(f"connection closed{where}{f': {exc}' if exc else ''}")

    # httptools

    def on_message_begin(self) -> None:
        self._headers, self._chunks, self._size, self._reason = {}, [], 0, ""
        self._in_body = False

    def on_status(self, status: bytes) -> None:
        self._reason += status.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        known = self._headers.get(key)
        self._headers[key] = text if known is None else f"{known}, {text}"

    def on_headers_complete(self) -> None:
        self._in_body = self._final()

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > LARGEST_ANSWER:
            self._fail("the answer is too large")
            self.close()
            return
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        if self._final():
            self._complete()

    def _final(self) -> bool:
        """Whether this is the final answer, not an interim one (100, 103)."""
        return bool(self._parser.get_status_code() >= 200)

    def _complete(self) -> None:
        self._in_body = False
        if self._waiter is None or self._waiter.done():
            self.close()  # an answer to nothing: what follows on this connection cannot be trusted
            return
        self._reusable = self._reusable and bool(self._parser.should_keep_alive())
        body = b"".join(self._chunks)
        encoding = self._headers.get("content-encoding")
        if encoding is not None:
            try:
                body = _decompressed(body, encoding)
            except zlib.error as error:
                self._fail(f"broken content encoding: {error}")
                return
        self._waiter.set_result(Answer(self._parser.get_status_code(), self._reason, self._headers, body))


class _Host:
    """Where requests of one origin go: its idle connections, and who waits for one."""

    def __init__(self, origin: str) -> None:
        parts = urlsplit(origin)
        self.secure = parts.scheme == "https"
        self.name = parts.netloc
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if self.secure else 80)
        self.idle: list[_Connection] = []
        self.busy = 0
        self.waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self, urgent: bool) -> None:
        if not urgent and self.busy >= MOST_CONNECTIONS:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.waiting.append(turn)
            try:
                await turn  # whoever wakes us has handed its place over
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self.leave()
                raise
            return
        self.busy += 1

    def leave(self) -> None:
        while self.busy <= MOST_CONNECTIONS and self.waiting:
            turn = self.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.busy -= 1

    def take_idle(self) -> _Connection | None:
        while self.idle:
            connection = self.idle.pop()
            if connection.usable:
                return connection
            connection.close()
        return None

    def put_back(self, connection: _Connection) -> None:
        if connection.open and len(self.idle) < MOST_CONNECTIONS:
            self.idle.append(connection)
        else:
            connection.close()


class Transport:
    """Connections to any number of hosts. `guard` is told method, URL and headers of every request, and raises at what must not leave."""

    def __init__(
        self, *, connect_seconds: float = 5.0, guard: Callable[[str, str, Mapping[str, str]], None] | None = None
    ) -> None:
        self._connect_seconds = connect_seconds
        self._guard = guard
        self._hosts: dict[str, _Host] = {}
        self._tls: ssl.SSLContext | None = None

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        seconds: float,
        before_send: Callable[[], None],
        urgent: bool = False,
    ) -> Answer:
        """Send a request, once. `before_send` is called directly before the bytes are written; what it raises stops that.

        Raises:
            NotSent: no byte left. NoAnswer: some did, and no complete answer came.
        """
        if self._guard is not None:
            self._guard(method, url, headers)
        end = url.find("/", url.find("://") + 3)
        origin, target = (url, "/") if end < 0 else (url[:end], url[end:])
        host = self._hosts.get(origin)
        if host is None:
            host = self._hosts[origin] = _Host(origin)
        payload = _payload(method, target, host.name, headers, body)
        await host.enter(urgent)
        try:
            connection = host.take_idle() or await self._connect(host)
            try:
                before_send()
            except BaseException:
                host.put_back(connection)
                raise
            answer = await connection.ask(payload, seconds)
            host.put_back(connection)
            return answer
        finally:
            host.leave()

    async def close(self) -> None:
        for host in self._hosts.values():
            while host.idle:
                host.idle.pop().close()
        await asyncio.sleep(0)

    async def _connect(self, host: _Host) -> _Connection:
        if host.secure and self._tls is None:
            self._tls = ssl.create_default_context()  # the machine's authorities, and SSL_CERT_FILE
            self._tls.load_verify_locations(certifi.where())  # a container may have none
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_seconds):
                _, connection = await loop.create_connection(
                    _Connection,
                    host.host,
                    host.port,
                    ssl=self._tls if host.secure else None,
                    happy_eyeballs_delay=0.25,
                )
        except TimeoutError:
            raise NotSent(f"no connection to {host.name} within {self._connect_seconds:g} s") from None
        except (OSError, UnicodeError) as error:
            raise NotSent(f"no connection to {host.name}: {getattr(error, 'strerror', None) or error}") from error
        if not connection.open:
            raise NotSent(f"{host.name} closed the connection at once")
        return connection


def _payload(method: str, target: str, host: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    lines = [f"{method} {target} HTTP/1.1\r\nHost: {host}"]
    for name, value in headers.items():
        lines.append(f"{name}: {value}")
    if body is not None or method in ("POST", "PUT"):
        lines.append(f"Content-Length: {len(body or b'')}")
    head = "\r\n".join(lines)
    if head.count("\r\n") != len(lines) or head.count("\n") != len(lines):
        raise NotSent("a line break inside the request line or a header")
    try:
        return head.encode("latin-1") + b"\r\n\r\n" + (body or b"")
    except UnicodeEncodeError:
        raise NotSent("a character outside latin-1 in the request line or a header") from None


def _decompressed(body: bytes, encoding: str) -> bytes:
    if encoding in ("", "identity") or not body:
        return body
    if encoding in ("gzip", "x-gzip"):
        return zlib.decompress(body, 16 + zlib.MAX_WBITS)
    if encoding == "deflate":
        return zlib.decompress(body)
    raise zlib.error(f"unknown encoding {encoding}")
