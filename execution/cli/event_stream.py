"""Order events as they are published, through a subscription made for one command and deleted after it."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf import empty_pb2
from google.pubsub_v1 import types

from execution.cli.output import CommandError, note
from execution.pubsub import (
    IncomingMessage,
    PubSubChannel,
    PubSubError,
    Subscriber,
    ensure,
    rpc,
    subscription_name,
    topic_name,
)
from execution.settings import Settings
from schemas import exact_json

Event = dict[str, Any]

_DELETE = rpc.Rpc(
    "/google.pubsub.v1.Subscriber/DeleteSubscription",
    types.DeleteSubscriptionRequest.pb(),
    empty_pb2.Empty,
    "subscription",
)
_TIMEOUT = 10.0
_REMEMBERED = 10_000
_ONE_DAY = 24 * 3600
_TEN_MINUTES = 600


class EventStream:
    """Events that were published after it was opened; each once, those of one order in order."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[tuple[Event, bytes] | BaseException] = asyncio.Queue()
        self._seen: OrderedDict[str, None] = OrderedDict()

    def __aiter__(self) -> AsyncIterator[tuple[Event, bytes]]:
        return self

    async def __anext__(self) -> tuple[Event, bytes]:
        """The next event, and its JSON as it was published."""
        item = await self._queue.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def take(self, message: IncomingMessage) -> None:
        """Handle a message from the subscription."""
        message.ack()
        try:
            event = exact_json.decode(message.data)
        except ValueError as error:
            note(f"message {message.message_id} on the events topic is not JSON: {error}")
            return
        if not isinstance(event, dict):
            note(f"message {message.message_id} on the events topic is not an object")
            return
        identity = str(event.get("event_id") or message.message_id)
        if identity not in self._seen:
            self._seen[identity] = None
            if len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
            self._queue.put_nowait((event, message.data))

    def fail(self, error: BaseException) -> None:
        """No more events will come."""
        self._queue.put_nowait(error)


@contextlib.asynccontextmanager
async def order_events(channel: PubSubChannel, settings: Settings) -> AsyncIterator[EventStream]:
    """Open the stream of order events.

    Raises:
        PubSubError: the topic is missing, or the subscription may not be made.
    """
    project = settings.google_cloud_project
    await ensure(channel, project, [settings.events_topic], [], create=channel.is_emulator, timeout=_TIMEOUT)
    name = subscription_name(project, f"execution-cli-{uuid.uuid4().hex[:16]}")
    await _create(channel, name, topic_name(project, settings.events_topic))
    stream = EventStream()
    subscriber = Subscriber(channel, name, stream.take)
    running = asyncio.create_task(subscriber.run())
    running.add_done_callback(lambda task: _ended(task, stream))
    try:
        yield stream
    finally:
        await _close(channel, name, subscriber, running)


def _ended(task: asyncio.Task[None], stream: EventStream) -> None:
    error = None if task.cancelled() else task.exception()
    stream.fail(error or CommandError("the stream of events has ended"))


async def _create(channel: PubSubChannel, name: str, topic: str) -> None:
    wish = rpc.Subscription(name=name, topic=topic, ack_deadline_seconds=10, enable_message_ordering=True)
    # Should this process be killed, Pub/Sub itself removes the subscription.
    wish.expiration_policy.ttl.FromSeconds(_ONE_DAY)
    wish.message_retention_duration.FromSeconds(_TEN_MINUTES)
    try:
        await channel.call(rpc.CREATE_SUBSCRIPTION, wish, _TIMEOUT, wait_for_ready=True)
    except grpc.aio.AioRpcError as error:
        raise PubSubError(
            f"a temporary subscription on {topic} cannot be made: {error.code().name}: {error.details()}"
        ) from error


async def _close(channel: PubSubChannel, name: str, subscriber: Subscriber, running: asyncio.Task[None]) -> None:
    if not running.done():
        await subscriber.stop(0.0)
    await asyncio.wait([running], timeout=5.0)
    running.cancel()
    try:
        await channel.call(_DELETE, types.DeleteSubscriptionRequest.pb()(subscription=name), _TIMEOUT)
    except grpc.aio.AioRpcError as error:
        note(f"{name} could not be deleted ({error.code().name}); it expires by itself after a day unused")
