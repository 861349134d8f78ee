"""A Pub/Sub server that does nothing by itself: every answer is the test's."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from execution.pubsub import rpc
from execution.pubsub.channel import PubSubChannel, connect
from tests.integration.pubsub_servers import PROJECT

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
