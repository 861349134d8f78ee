"""One request, one send: the transport against a server that is told byte for byte what to do."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from adapters.ccxt_venue.transport import Answer, NoAnswer, NotSent, Transport

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Counts connections and requests; `script` answers each request."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.connections = 0
        self.requests: list[bytes] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests.append(head)
                await self._script(reader, writer)
                await writer.drain()
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[tuple[Server, Transport]]:
    server = Server(script)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    transport = Transport(connect_seconds=1.0)
    try:
        yield server, transport
    finally:
        await transport.close()
        listening.close()
        await listening.wait_closed()


def says(*answers: bytes, close: bool = False) -> Script:
    left = list(answers)

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        if close:
            await writer.drain()
            writer.close()

    return script


async def get(transport: Transport, url: str, *, seconds: float = 2.0, method: str = "GET") -> Answer:
    return await transport.request(method, f"{url}/x", {}, None, seconds=seconds, before_send=lambda: None)


async def test_one_connection_serves_many_requests_in_turn() -> None:
    async with serving(says(OK)) as (server, transport):
        for _ in range(5):
            assert (await get(transport, server.url)).body == b"hi"
        assert (server.connections, len(server.requests)) == (1, 5)


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"hello"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"hi"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b"
            % (len(gzip.compress(b"zipped", mtime=0)), gzip.compress(b"zipped", mtime=0)),
            b"zipped",
        ),
    ],
)
async def test_every_form_of_body(answer: bytes, body: bytes) -> None:
    async with serving(says(answer)) as (server, transport):
        for _ in range(2):
            assert (await get(transport, server.url)).body == body
        assert server.connections == 1


async def test_a_body_that_ends_with_its_connection() -> None:
    async with serving(says(b"HTTP/1.1 200 OK\r\n\r\nall of it", close=True)) as (server, transport):
        assert (await get(transport, server.url)).body == b"all of it"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nhi",
    ],
)
async def test_half_an_answer_is_none_and_nothing_is_sent_again(answer: bytes) -> None:
    for method in ("GET", "DELETE", "POST"):
        async with serving(says(answer, close=True)) as (server, transport):
            with pytest.raises(NoAnswer):
                await get(transport, server.url, method=method)
            assert len(server.requests) == 1


async def test_a_connection_that_died_while_idle_is_replaced_since_nothing_was_sent_on_it() -> None:
    async with serving(says(OK, close=True)) as (server, transport):
        for _ in range(3):
            assert (await get(transport, server.url, method="POST")).body == b"hi"
            await asyncio.sleep(0.05)  # until the end of the connection has arrived: nothing shows that from outside
        assert len(server.requests) == 3


async def test_the_second_answer_is_never_mistaken_for_the_first_ones() -> None:
    async with serving(says(b"HTTP/1.1 200 OK\r\nX: 1\r\nContent-Length: 2\r\n\r\nhi", b"")) as (server, transport):
        assert (await get(transport, server.url)).body == b"hi"
        with pytest.raises(NoAnswer):
            await get(transport, server.url, seconds=0.1)


async def test_an_answer_after_the_time_is_not_given_to_the_next_request() -> None:
    late = asyncio.Event()

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not late.is_set():
            late.set()
            await asyncio.sleep(0.2)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold")
        else:
            writer.write(OK)

    async with serving(script) as (server, transport):
        with pytest.raises(NoAnswer):
            await get(transport, server.url, seconds=0.05)
        assert (await get(transport, server.url)).body == b"hi"


async def test_answers_nobody_asked_for_end_the_connection() -> None:
    async with serving(says(OK + OK)) as (server, transport):
        for _ in range(2):
            assert (await get(transport, server.url)).body == b"hi"
        assert server.connections == 2


async def test_tls_with_an_authority_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = _self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = Server(says(OK))
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
    url = f"https://localhost:{listening.sockets[0].getsockname()[1]}"
    stranger = Transport()
    with pytest.raises(NotSent):  # not vouched for
        await get(stranger, url)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    friend = Transport()
    for _ in range(3):
        assert (await get(friend, url, method="POST")).body == b"hi"
    assert server.connections == 1
    await friend.close()
    await stranger.close()
    listening.close()
    await listening.wait_closed()


def _self_signed(folder: Path) -> tuple[Path, Path]:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    key.write_bytes(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return certificate, key


async def test_nobody_there() -> None:
    async with serving(says(OK)) as (server, transport):
        url = server.url
    with pytest.raises(NotSent):
        await get(transport, url)
    with pytest.raises(NotSent):
        await get(transport, "http://no-such-host.invalid:1")


async def test_a_refusal_before_sending_keeps_the_connection_and_sends_nothing() -> None:
    def refuse() -> None:
        raise LookupError

    async with serving(says(OK)) as (server, transport):
        await get(transport, server.url)
        with pytest.raises(LookupError):
            await transport.request("POST", f"{server.url}/x", {}, b"body", seconds=1, before_send=refuse)
        await get(transport, server.url)
        assert (server.connections, len(server.requests)) == (1, 2)


async def test_a_line_break_in_a_header_does_not_leave() -> None:
    async with serving(says(OK)) as (server, transport):
        for headers in ({"X": "a\r\nY: b"}, {"X\n": "a"}, {"X": "\u20ac"}):
            with pytest.raises(NotSent):
                await transport.request("GET", f"{server.url}/", headers, None, seconds=1, before_send=lambda: None)
        assert server.requests == []
