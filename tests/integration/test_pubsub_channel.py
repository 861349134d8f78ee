"""The way to the real service: TLS, credentials, routing; and what is said when credentials are missing."""

import asyncio
import datetime
import sys
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from execution.pubsub import NoCredentials, connect
from tests.integration.pubsub_servers import PROJECT, until
from tests.integration.scripted_pubsub import ScriptedPubSub

CLIENT = """
import asyncio, sys
from google.oauth2.credentials import Credentials
from execution.pubsub import OutgoingMessage, Publisher, Subscriber, connect

async def main() -> None:
    channel = connect("p", None, Credentials(token="a-token"), endpoint=sys.argv[1])
    await Publisher(channel).publish("projects/p/topics/t", [OutgoingMessage(b"x")])
    done = asyncio.Event()
    subscriber = Subscriber(channel, "projects/p/subscriptions/s", lambda message: (message.ack(), done.set()))
    running = asyncio.create_task(subscriber.run())
    await done.wait()
    await subscriber.stop(1)
    await running
    await channel.close()

asyncio.run(main())
"""


def certificate() -> tuple[bytes, bytes]:
    """A private key and a self-signed certificate for localhost, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return secret, signed.public_bytes(serialization.Encoding.PEM)


async def test_the_real_service_is_reached_by_tls_with_a_token_and_routing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, pem = certificate()
    roots = tmp_path / "roots.pem"
    roots.write_bytes(pem)
    monkeypatch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(roots))  # read once per process: hence a process
    async with ScriptedPubSub(grpc.ssl_server_credentials([(key, pem)])) as server:
        endpoint = server.host.replace("127.0.0.1", "localhost")
        client = await asyncio.create_subprocess_exec(sys.executable, "-c", CLIENT, endpoint)
        try:
            await until(lambda: server.streams)
            server.deliver(b"1")
            await until(lambda: server.acked)
            assert await asyncio.wait_for(client.wait(), 20) == 0
        finally:
            if client.returncode is None:
                client.kill()
                await client.wait()
    assert {metadata["authorization"] for metadata in server.metadata} == {"Bearer a-token"}
    assert [metadata["x-goog-request-params"] for metadata in server.metadata] == [
        "topic=projects%2Fp%2Ftopics%2Ft",
        "subscription=projects%2Fp%2Fsubscriptions%2Fs",
        "subscription=projects%2Fp%2Fsubscriptions%2Fs",
    ]


async def test_without_credentials_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # no machine of Google's around: do not look for one
    with pytest.raises(NoCredentials, match="PUBSUB_EMULATOR_HOST"):
        connect(PROJECT, None)
