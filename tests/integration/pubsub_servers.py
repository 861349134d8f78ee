"""What the Pub/Sub tests run against: emulators, a server whose every answer is the test's, and a proxy that breaks."""

import asyncio
import contextlib
import glob
import itertools
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf import empty_pb2
from google.pubsub_v1 import types

from execution.pubsub import rpc
from execution.pubsub.channel import PubSubChannel, connect
from execution.pubsub.names import subscription_name, topic_name
from execution.pubsub.provision import SubscriptionSpec, ensure
from execution.pubsub.publisher import OutgoingMessage, Publisher

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
    jars = glob.glob("/usr/lib/google-cloud-sdk/platform/pubsub-emulator/lib/*.jar")
    if not jars or not shutil.which("java"):
        pytest.skip("Google's emulator is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["java", "-jar", jars[0], "--host=127.0.0.1", f"--port={port}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait()


@pytest.fixture(params=["embedded", pytest.param("official", marks=pytest.mark.official_emulator)])
async def server_host(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """`host:port` of a running emulator."""
    if request.param == "official":
        yield request.getfixturevalue("official_host")
        return
    embedded = pytest.importorskip("execution.embedded.pubsub")
    async with embedded.EmbeddedPubSub() as server:
        yield server.host


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


Answer = Callable[[Any], Awaitable[Any]]


@dataclass
class Refusal(Exception):
    """Raised by an answer of the scripted server: the status to answer with."""

    code: grpc.StatusCode
    details: str = "scripted"
    trailing: tuple[tuple[str, bytes], ...] = ()


@dataclass
class ScriptedStream:
    """A StreamingPull as the server sees it; put responses or a Refusal into `out`."""

    first: Any
    out: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    heartbeats: int = 0
    ended: bool = False


class ScriptedPubSub:
    """A server that does nothing by itself: it records requests, and the test decides on the answers.

    Attributes:
        streams: streams opened so far.
        acks, modacks: requests received, whatever was answered.
        answer: per method name, a coroutine function to await before the normal answer.
        pulse: heartbeats are answered.
        metadata: of each call, newest last.
    """

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self._credentials = credentials
        self.metadata: list[dict[str, str]] = []
        self.streams: list[ScriptedStream] = []
        self.acks: list[Any] = []
        self.modacks: list[Any] = []
        self.published: list[Any] = []
        self.answer: dict[str, Answer] = {}
        self.pulse = True

    @property
    def acked(self) -> list[str]:
        return [ack_id for request in self.acks for ack_id in request.ack_ids]

    def extended(self, seconds: int) -> list[str]:
        """Ack ids whose deadline was set to so many seconds."""
        return [i for request in self.modacks if request.ack_deadline_seconds == seconds for i in request.ack_ids]

    async def __aenter__(self) -> "ScriptedPubSub":
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)])
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    "google.pubsub.v1.Subscriber",
                    {
                        "StreamingPull": grpc.stream_stream_rpc_method_handler(
                            self._pull,
                            rpc.StreamingPullRequest.FromString,
                            rpc.StreamingPullResponse.SerializeToString,
                        ),
                        "Acknowledge": self._unary(rpc.ACKNOWLEDGE, self.acks, lambda _: rpc.ACKNOWLEDGE.response()),
                        "ModifyAckDeadline": self._unary(
                            rpc.MODIFY_ACK_DEADLINE, self.modacks, lambda _: rpc.MODIFY_ACK_DEADLINE.response()
                        ),
                        "GetSubscription": self._unary(
                            rpc.GET_SUBSCRIPTION, [], lambda request: rpc.Subscription(name=request.subscription)
                        ),
                    },
                ),
                grpc.method_handlers_generic_handler(
                    "google.pubsub.v1.Publisher",
                    {
                        "Publish": self._unary(rpc.PUBLISH, self.published, self._published),
                        "GetTopic": self._unary(rpc.GET_TOPIC, [], lambda request: rpc.Topic(name=request.topic)),
                    },
                ),
            )
        )
        if self._credentials is None:
            port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            port = self._server.add_secure_port("127.0.0.1:0", self._credentials)
        self.host = f"127.0.0.1:{port}"
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)

    def deliver(self, *bodies: bytes) -> None:
        """Send one response with these messages on the newest stream; ack id and message id are the body."""
        self.streams[-1].out.put_nowait(response(*bodies))

    def _published(self, request: Any) -> Any:
        first = sum(len(earlier.messages) for earlier in self.published) - len(request.messages)
        return rpc.PUBLISH.response(message_ids=[str(first + i) for i in range(len(request.messages))])

    def _unary(self, method: rpc.Rpc, log: list[Any], reply: Callable[[Any], Any]) -> Any:
        async def handle(request: Any, context: Any) -> Any:
            log.append(request)
            self.metadata.append(dict(context.invocation_metadata()))
            scripted = self.answer.get(method.path.rpartition("/")[2])
            if scripted is not None:
                try:
                    await scripted(request)
                except Refusal as refusal:
                    await context.abort(refusal.code, refusal.details, refusal.trailing)
            return reply(request)

        return grpc.unary_unary_rpc_method_handler(handle, method.request.FromString, method.response.SerializeToString)

    async def _pull(self, requests: AsyncIterator[Any], context: Any) -> None:
        stream = ScriptedStream(await anext(aiter(requests)))
        self.streams.append(stream)
        self.metadata.append(dict(context.invocation_metadata()))

        async def listen() -> None:
            async for _ in requests:
                stream.heartbeats += 1
                if self.pulse:
                    stream.out.put_nowait(rpc.StreamingPullResponse())
            stream.out.put_nowait(None)  # the client has closed its half

        listening = asyncio.create_task(listen())
        try:
            scripted = self.answer.get("StreamingPull")
            if scripted is not None:
                await scripted(stream.first)
            while (item := await stream.out.get()) is not None:
                if isinstance(item, Refusal):
                    raise item
                await context.write(item)
        except Refusal as refusal:
            await context.abort(refusal.code, refusal.details)
        finally:
            stream.ended = True
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


def response(*bodies: bytes) -> Any:
    """A StreamingPullResponse with these messages."""
    answer = rpc.StreamingPullResponse()
    for body in bodies:
        received = answer.received_messages.add(ack_id=body.decode())
        received.message.data = body
        received.message.message_id = body.decode()
    return answer


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedPubSub]:
    async with ScriptedPubSub() as server:
        yield server


@pytest.fixture
async def scripted_channel(scripted: ScriptedPubSub) -> AsyncIterator[PubSubChannel]:
    channel = connect(PROJECT, scripted.host)
    yield channel
    await channel.close()
