"""Publishing: one request, one answer, and errors that say whether to try again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from execution.pubsub import rpc
from execution.pubsub.channel import PubSubChannel
from execution.pubsub.errors import PublishDenied, PublishError, PublishRefused, PublishRetryable, TopicMissing

MAX_MESSAGES = 1_000
"""Messages that Pub/Sub takes in one request."""
MAX_REQUEST_BYTES = 9_000_000
"""Bytes put into one request; Pub/Sub takes 10 MB and counts framing too."""
MAX_MESSAGE_BYTES = 10_000_000
"""Bytes that Pub/Sub takes in one message, attributes included."""

_REFUSED = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.OUT_OF_RANGE)
_DENIED = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message to publish; messages with the same non-empty ordering key are delivered in the order published."""

    data: bytes
    attributes: dict[str, str] = field(default_factory=dict)
    ordering_key: str = ""


@dataclass(slots=True)
class PublishCounters:
    """What a publisher has done since it was made.

    Attributes:
        requests: Publish calls made, failed ones included.
        messages, bytes: what was published, confirmed by an id.
        failures: calls that did not come back with ids.
        last_error: the latest failure, None before the first.
    """

    requests: int = 0
    messages: int = 0
    bytes: int = 0
    failures: int = 0
    last_error: str | None = None


class Publisher:
    """Publishes what it is given, once: no retries, no batching over time, no background thread.

    Attributes:
        counters: for metrics.
    """

    def __init__(self, channel: PubSubChannel, *, timeout: float = 10.0) -> None:
        """
        Args:
            timeout: seconds to wait for the answer to one request.
        """
        self.counters = PublishCounters()
        self._channel = channel
        self._timeout = timeout

    async def publish(self, topic: str, messages: Sequence[OutgoingMessage]) -> list[str]:
        """Publish messages in order; their ids, in the same order.

        More than `MAX_MESSAGES` or `MAX_REQUEST_BYTES` go out in several requests, one after the other; the first that
        fails ends the call, with the ids before it in the error's `published`.

        Args:
            topic: full name, `projects/PROJECT/topics/NAME`.
            messages: all with the same ordering key: Pub/Sub refuses a request that mixes keys.

        Raises:
            PublishRetryable: it may or may not have been published; publish again.
            PublishDenied: no permission; publish again once it is granted.
            TopicMissing: the topic does not exist.
            PublishRefused: Pub/Sub will never take these messages.
            ValueError: the messages differ in their ordering key.
        """
        if len({message.ordering_key for message in messages}) > 1:
            raise ValueError("all messages of one publish call must have the same ordering key")
        ids: list[str] = []
        for request in _requests(topic, messages):
            self.counters.requests += 1
            try:
                too_large = max(message.ByteSize() for message in request.messages)
                if too_large > MAX_MESSAGE_BYTES:
                    raise PublishRefused(f"a message of {too_large} bytes is over Pub/Sub's {MAX_MESSAGE_BYTES}", ids)
                answer = await self._send(request, ids)
            except PublishError as error:
                self.counters.failures += 1
                self.counters.last_error = str(error)
                raise
            ids.extend(answer.message_ids)
            self.counters.messages += len(request.messages)
            self.counters.bytes += request.ByteSize()
        return ids

    async def _send(self, request: Any, published: Sequence[str]) -> Any:
        try:
            answer = await self._channel.call(rpc.PUBLISH, request, self._timeout)
        except grpc.aio.AioRpcError as error:
            raise _publish_error(request.topic, error, published) from error
        if len(answer.message_ids) != len(request.messages):
            raise PublishRetryable(
                f"{request.topic}: {len(request.messages)} messages sent, {len(answer.message_ids)} ids answered",
                published,
            )
        return answer


def _requests(topic: str, messages: Sequence[OutgoingMessage]) -> Iterator[Any]:
    request = rpc.PublishRequest(topic=topic)
    size = 0
    for message in messages:
        raw = rpc.PubsubMessage(data=message.data, attributes=message.attributes, ordering_key=message.ordering_key)
        raw_size = raw.ByteSize()
        if request.messages and (len(request.messages) == MAX_MESSAGES or size + raw_size > MAX_REQUEST_BYTES):
            yield request
            request = rpc.PublishRequest(topic=topic)
            size = 0
        request.messages.append(raw)
        size += raw_size
    if request.messages:
        yield request


def _publish_error(topic: str, error: grpc.aio.AioRpcError, published: Sequence[str]) -> PublishError:
    code = error.code()
    text = f"{topic}: {code.name}: {error.details()}"
    if code is grpc.StatusCode.NOT_FOUND:
        return TopicMissing(f"{text}. Create the topic, or correct the setting that names it", published)
    if code in _REFUSED:
        return PublishRefused(text, published)
    if code in _DENIED:
        return PublishDenied(f"{text}. Grant roles/pubsub.publisher on the topic to this service's account", published)
    return PublishRetryable(text, published)
