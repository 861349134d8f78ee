"""The library's own `SubscriberClient.subscribe` behind the interface of our subscriber: the alternative by setting.

It is slower, since it waits for a round trip before it hands a response on, and it cannot extend leases while paused.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Any

import grpc
from google.api_core.exceptions import GoogleAPICallError
from google.cloud.pubsub_v1 import SubscriberClient
from google.cloud.pubsub_v1.types import FlowControl
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from execution.pubsub.channel import PubSubChannel
from execution.pubsub.message import IncomingMessage
from execution.pubsub.status import SubscriberCounters, SubscriberStatus
from execution.pubsub.stream import permanent_error

log = logging.getLogger(__name__)

_RETRY_AFTER = 5.0
_PROVEN_AFTER = 5.0


class LibrarySubscriber:
    """Same interface and promises as `Subscriber`, with these differences.

    While paused, and after the stop's timeout, leases of held messages are not extended: they may come again. A stream
    that has gone silent is not noticed. Messages arrive through the library's threads.
    """

    def __init__(
        self,
        channel: PubSubChannel,
        subscription: str,
        handler: Callable[[IncomingMessage], None],
        *,
        max_outstanding: int = 1000,
        max_outstanding_bytes: int = 64 * 1024 * 1024,
        ack_deadline: int = 30,
    ) -> None:
        """
        Args:
            channel: says where to connect; the library opens a connection of its own.
            subscription, handler, max_outstanding, max_outstanding_bytes, ack_deadline: as for `Subscriber`.
        """
        self.subscription = subscription
        self.counters = SubscriberCounters()
        self._channel = channel
        self._handler = handler
        self._flow_control = FlowControl(
            max_messages=max_outstanding,
            max_bytes=max_outstanding_bytes,
            min_duration_per_lease_extension=ack_deadline,
            max_duration_per_lease_extension=ack_deadline,
        )
        self._held: dict[IncomingMessage, Any] = {}
        self._future: Any = None
        self._streams_opened = 0
        self._last_response_at: float | None = None
        self._last_error: str | None = None
        self._worked = False
        self._paused = False
        self._started = False
        self._stop_at: float | None = None
        self._wake = asyncio.Event()
        self._finished = asyncio.Event()

    @property
    def outstanding(self) -> int:
        """Messages with the handler that are not settled."""
        return len(self._held)

    @property
    def status(self) -> SubscriberStatus:
        oldest = next(iter(self._held), None)
        return SubscriberStatus(
            connected=self._future is not None and self._future.running(),
            last_response_at=self._last_response_at,
            last_error=self._last_error,
            streams_opened=self._streams_opened,
            paused=self._paused,
            oldest_unacked_age=0.0 if oldest is None else time.monotonic() - oldest.received_at,
        )

    async def run(self) -> None:
        """Receive until `stop`; raises what `Subscriber.run` raises."""
        self._started = True
        try:
            while self._stop_at is None:
                if self._paused:
                    await self._until(lambda: not self._paused or self._stop_at is not None)
                    continue
                await self._receive()
        finally:
            self._finished.set()

    def pause(self) -> None:
        """Take in no more messages."""
        self._paused = True
        self._wake.set()

    def resume(self) -> None:
        """Take messages in again."""
        self._paused = False
        self._wake.set()

    async def stop(self, timeout: float) -> None:
        """Take in no more messages, wait up to `timeout` seconds for what is held, nack the rest and end `run`."""
        self._stop_at = time.monotonic() + timeout
        self._wake.set()
        if self._started:
            await self._finished.wait()

    def ack(self, message: IncomingMessage) -> None:
        self.counters.acked += 1
        self._held.pop(message).ack()
        self._wake.set()

    def nack(self, message: IncomingMessage) -> None:
        self.counters.nacked += 1
        self._held.pop(message).nack()
        self._wake.set()

    async def _receive(self) -> None:
        """Open the library's client, receive until it ends or is to end, close it."""
        loop = asyncio.get_running_loop()
        # A new client each time: reopening on a client that failed is where the library has been seen to hang.
        client = self._client()
        opened_at = time.monotonic()
        self._streams_opened += 1
        self._future = future = client.subscribe(
            self.subscription,
            lambda message: loop.call_soon_threadsafe(self._take, message),
            flow_control=self._flow_control,
        )
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._wake.set))
        try:
            await self._until(lambda: future.done() or self._paused or self._stop_at is not None)
            self._worked = self._worked or time.monotonic() - opened_at > _PROVEN_AFTER
            if self._stop_at is not None:
                await self._until(lambda: not self._held, self._stop_at - time.monotonic())
                for message in list(self._held):
                    message.nack()
            elif not self._paused:
                self._judge(future.exception())
                delay = _RETRY_AFTER * random.uniform(0.5, 1.0)
                await self._until(lambda: self._paused or self._stop_at is not None, delay)
        finally:
            future.cancel()
            await asyncio.to_thread(_close, client, future)

    def _take(self, raw: Any) -> None:
        self.counters.received += 1
        self._last_response_at = time.monotonic()
        self._last_error = None
        self._worked = True
        if self._stop_at is not None:
            raw.nack()
            return
        message = IncomingMessage(
            self,
            data=raw.data,
            attributes=dict(raw.attributes),
            message_id=raw.message_id,
            publish_time_ms=int(raw.publish_time.timestamp() * 1000),
            ordering_key=raw.ordering_key,
            delivery_attempt=raw.delivery_attempt or 0,
            received_at=self._last_response_at,
            ack_id=raw.ack_id,
            size=raw.size,
        )
        self._held[message] = raw
        self.counters.handled += 1
        try:
            self._handler(message)
        except Exception:
            self.counters.handler_errors += 1
            log.exception("the handler failed on message %s of %s", message.message_id, self.subscription)
            message.nack()

    def _judge(self, failure: BaseException | None) -> None:
        code = failure.grpc_status_code if isinstance(failure, GoogleAPICallError) else None
        error = permanent_error(self.subscription, code, str(failure))
        if error is not None and not self._worked:
            raise error
        self._last_error = str(error or failure)
        log.warning("%s: the library's stream ended: %s", self.subscription, self._last_error)

    def _client(self) -> Any:
        if self._channel.emulator_host is not None:
            connection = grpc.insecure_channel(
                self._channel.emulator_host, options=[("grpc.max_receive_message_length", -1)]
            )
            return SubscriberClient(transport=SubscriberGrpcTransport(channel=connection))
        return SubscriberClient(
            credentials=self._channel.credentials, client_options={"api_endpoint": self._channel.endpoint}
        )

    async def _until(self, condition: Callable[[], bool], timeout: float | None = None) -> None:
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            return


def _close(client: Any, future: Any) -> None:
    future.exception()  # returns when the library's threads have sent what they had and are gone
    client.close()
