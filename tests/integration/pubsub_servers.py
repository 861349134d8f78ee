"""What the Pub/Sub tests run against: emulators, a proxy that breaks, and a handler that takes notes."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from google.protobuf import empty_pb2
from google.pubsub_v1 import types

from execution.embedded.pubsub.server import PubSubServer
from execution.pubsub import rpc
from execution.pubsub.channel import PubSubChannel, connect
from execution.pubsub.message import IncomingMessage
from execution.pubsub.names import subscription_name, topic_name
from execution.pubsub.provision import SubscriptionSpec, ensure
from execution.pubsub.publisher import OutgoingMessage, Publisher
from execution.pubsub.subscriber import Subscriber
from tests import official_pubsub

PROJECT = "test-project"
ONLY_EMBEDDED = pytest.mark.parametrize("server_host", ["embedded"], indirect=True)
"""Google's emulator goes on giving messages to a stream that was cancelled or cut, for longer than a test can wait."""

_numbers = itertools.count()


async def until(condition: Callable[[], object], timeout: float = 20.0, what: str = "condition") -> None:
    """Poll until the condition holds; fail when it does not within the timeout."""
    try:
        async with asyncio.timeout(timeout):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"not within {timeout} s: {what}")


@dataclass
class Bench:
    """A topic and a subscription of their own on a running server, and clients for them."""

    host: str
    channel: PubSubChannel
    topic: str
    subscription: str

    async def publish(self, *bodies: bytes, **options: Any) -> list[str]:
        """Publish bodies, directly to the server."""
        return await Publisher(self.channel).publish(self.topic, [OutgoingMessage(body, **options) for body in bodies])

    async def create_subscription(self, ordered: bool = False) -> None:
        spec = SubscriptionSpec(self.subscription, self.topic, ack_deadline=10, enable_ordering=ordered)
        await ensure(self.channel, PROJECT, [self.topic], [spec], create=True)

    async def delete_subscription(self) -> None:
        request = types.DeleteSubscriptionRequest.pb()(subscription=self.subscription)
        method = "/google.pubsub.v1.Subscriber/DeleteSubscription"
        await self.channel.call(rpc.Rpc(method, type(request), empty_pb2.Empty, "subscription"), request, 10)


@pytest.fixture(scope="session")
def official_host() -> Iterator[str]:
    """Google's emulator, started once; skips where it is not installed."""
    missing = official_pubsub.missing()
    if missing:
        pytest.skip(missing)
    server = official_pubsub.OfficialPubSub().start()
    yield server.host
    server.stop()


@pytest.fixture(params=["embedded", pytest.param("official", marks=pytest.mark.official_emulator)])
async def server_host(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """`host:port` of a running emulator."""
    if request.param == "official":
        yield request.getfixturevalue("official_host")
        return
    server = PubSubServer()
    yield f"127.0.0.1:{await server.start()}"
    await server.stop()


@contextlib.asynccontextmanager
async def _bench(host: str, ordered: bool) -> AsyncIterator[Bench]:
    channel = connect(PROJECT, host)
    number = next(_numbers)
    topic, subscription = topic_name(PROJECT, f"topic-{number}"), subscription_name(PROJECT, f"subscription-{number}")
    bench = Bench(host, channel, topic, subscription)
    await bench.create_subscription(ordered)
    yield bench
    await channel.close()


@pytest.fixture
async def bench(server_host: str) -> AsyncIterator[Bench]:
    """A fresh topic and subscription."""
    async with _bench(server_host, ordered=False) as bench:
        yield bench


@pytest.fixture
async def bench_ordered(server_host: str) -> AsyncIterator[Bench]:
    """A fresh topic and a subscription with message ordering."""
    async with _bench(server_host, ordered=True) as bench:
        yield bench


class FaultProxy:
    """A TCP proxy in front of a server.

    Attributes:
        host: `host:port` to connect to.
        refusing: new connections are closed at once.
        accepted: connections so far.
    """

    def __init__(self, target: str) -> None:
        self._target_host, _, port = target.rpartition(":")
        self._target_port = int(port)
        self._connections: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._frozen: set[asyncio.StreamWriter] = set()
        self.refusing = False
        self.accepted = 0

    async def __aenter__(self) -> "FaultProxy":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.host = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Close every connection."""
        for pair in self._connections:
            for writer in pair:
                writer.transport.abort()

    def freeze(self) -> None:
        """Let the connections stand but carry nothing any more, for ever; new connections work."""
        for pair in self._connections:
            self._frozen.update(pair)

    def bury(self) -> None:
        """Close what is frozen, so that the server notices; the client has given it up before."""
        for writer in self._frozen:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.refusing:
            writer.transport.abort()
            return
        there_reader, there_writer = await asyncio.open_connection(self._target_host, self._target_port)
        pair = (writer, there_writer)
        self._connections.add(pair)
        pumps = [
            asyncio.create_task(self._pump(reader, there_writer)),
            asyncio.create_task(self._pump(there_reader, writer)),
        ]
        self._tasks.update(pumps)
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        self._connections.discard(pair)
        for pump in pumps:
            pump.cancel()
        for end in pair:
            end.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while chunk := await source.read(65536):
                if sink not in self._frozen:
                    sink.write(chunk)
                    await sink.drain()
        except ConnectionError:
            return


@pytest.fixture
async def proxy(server_host: str) -> AsyncIterator[FaultProxy]:
    """A proxy in front of the emulator."""
    async with FaultProxy(server_host) as running:
        yield running


class Receiver:
    """A handler that notes what comes, and acks it or keeps it."""

    def __init__(self, settle: Callable[[IncomingMessage], None] | None = IncomingMessage.ack) -> None:
        self.messages: list[IncomingMessage] = []
        self._settle = settle

    def __call__(self, message: IncomingMessage) -> None:
        self.messages.append(message)
        if self._settle is not None:
            self._settle(message)

    @property
    def bodies(self) -> list[bytes]:
        return [message.data for message in self.messages]


@contextlib.asynccontextmanager
async def running(subscriber: Subscriber) -> AsyncIterator[asyncio.Task[None]]:
    """Run it for the length of the block; afterwards it must stop in peace."""
    task = asyncio.create_task(subscriber.run())
    try:
        yield task
        await subscriber.stop(0)
        await asyncio.wait_for(task, 20)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
