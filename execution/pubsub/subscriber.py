"""Receiving: an asyncio StreamingPull that survives broken and silent streams and never holds more than it may."""

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

from execution.pubsub import rpc
from execution.pubsub.channel import PubSubChannel
from execution.pubsub.leases import Leases
from execution.pubsub.message import IncomingMessage
from execution.pubsub.settlement import SettlementQueue
from execution.pubsub.status import SubscriberCounters, SubscriberStatus
from execution.pubsub.stream import PullStream, StreamEnded, permanent_error

log = logging.getLogger(__name__)

_GATHER_ACKS = 0.005
_RPC_TIMEOUT = 5.0
_DRAIN_TIMEOUT = 5.0
_MAX_BACKLOG = 10_000
"""Settlements on their way at which no more messages are taken in: Pub/Sub would only deliver them again."""
_PROVEN_AFTER = 5.0
_STANDS_AFTER = 1.0
_BACKOFF_FIRST = 0.1
_BACKOFF_LAST = 10.0
_SLICE = 50
"""Messages handed over before other tasks of the loop get their turn."""


class Subscriber:
    """Takes messages from one subscription and gives them to a handler, in the event loop.

    Every message is delivered at least once: again after a crash, a lost acknowledgement or a nack. On a subscription with
    message ordering, messages of one key reach the handler in order; a nack brings the nacked one and all later ones
    again, after those that have been received already.

    Attributes:
        subscription: its full name.
        counters: for metrics.
        acks, nacks, leases: more counters, and what is under way to Pub/Sub.
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
        stall_timeout: float = 30.0,
    ) -> None:
        """
        Args:
            subscription: full name, `projects/PROJECT/subscriptions/NAME`.
            handler: called once per message; must not block. It settles the message now or later; when it raises, the
                message is nacked.
            max_outstanding: messages with the handler, not settled, at which no more are given to it.
            max_outstanding_bytes: the same for their bytes.
            ack_deadline: seconds (10 to 600) of one lease. Leases are extended while a message is held; after a crash
                its messages come again when the lease ends.
            stall_timeout: seconds without a message or an answered heartbeat after which the connection is replaced.
        """
        self.subscription = subscription
        self.counters = SubscriberCounters()
        self._channel = channel
        self._handler = handler
        self._max_outstanding = max_outstanding
        self._max_outstanding_bytes = max_outstanding_bytes
        self._ack_deadline = ack_deadline
        self._stall_timeout = stall_timeout
        # Pub/Sub carries what it knows about a client over from one of its streams to the next by this id.
        self._client_id = str(uuid.uuid4())
        self._rpc_timeout = min(_RPC_TIMEOUT, ack_deadline / 4)
        self._tasks: asyncio.TaskGroup | None = None
        self._work: set[asyncio.Task[None]] = set()
        self.acks = SettlementQueue("acks", self._send_acks, self._spawn, _GATHER_ACKS, self._wake_up)
        self.nacks = SettlementQueue("nacks", self._send_nacks, self._spawn, _GATHER_ACKS, self._wake_up)
        self.leases = Leases(self._send_extensions, ack_deadline, self._spawn)
        self._outstanding = 0
        self._outstanding_bytes = 0
        self._stream: PullStream | None = None
        self._streams_opened = 0
        self._last_response_at: float | None = None
        self._last_error: str | None = None
        self._answers_heartbeats = False
        self._worked = False
        self._stream_was_useful = False
        self._paused = False
        self._stop_at: float | None = None
        self._wake = asyncio.Event()
        self._finished = asyncio.Event()

    @property
    def outstanding(self) -> int:
        """Messages with the handler that are not settled."""
        return self._outstanding

    @property
    def status(self) -> SubscriberStatus:
        connected = self._connected
        return SubscriberStatus(
            connected=connected,
            last_response_at=self._last_response_at,
            last_error=None if connected else self._last_error,
            streams_opened=self._streams_opened,
            paused=self._paused,
            oldest_unacked_age=self.leases.oldest_age,
        )

    async def run(self) -> None:
        """Receive until `stop`. To be called once.

        A subscription that is missing or closed to us when the first stream is opened ends the run: a setting is wrong.
        Once a stream has worked nothing ends it any more: the subscription may be re-created and permissions may come
        back, so it is tried again, at most 10 s apart, and `status` says what is wrong.

        Raises:
            SubscriptionMissing, SubscriptionUnusable, PermissionDenied: at the start, see above.
        """
        if self._tasks is not None:
            raise RuntimeError("a Subscriber runs once; make a new one")
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                extending = tasks.create_task(self.leases.run(), name="pubsub-leases")
                try:
                    await self._receive_until_stopped()
                    await self._wind_down()
                finally:
                    self.acks.close()
                    self.nacks.close()
                    for work in (extending, *self._work):
                        work.cancel()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group
        finally:
            self._finished.set()

    def pause(self) -> None:
        """Take in no more messages: the stream is ended and the backlog stays at Pub/Sub, for other replicas as well.

        What the handler holds stays held, its leases are extended.
        """
        self._paused = True
        self._finish_stream()

    def resume(self) -> None:
        """Take messages in again."""
        self._paused = False
        self._wake_up()

    async def stop(self, timeout: float) -> None:
        """Take in no more messages and end `run`.

        Args:
            timeout: seconds to wait until the handler has settled what it holds; the rest is then nacked. Sending the
                last acks and nacks may take a few seconds more.
        """
        self._stop_at = time.monotonic() + timeout
        self._finish_stream()
        if self._tasks is not None:
            await self._finished.wait()

    # --- settling: called by messages ---

    def ack(self, message: IncomingMessage) -> None:
        self.counters.acked += 1
        self._released(message)
        self.acks.add(message.ack_id, message.lease_until)

    def nack(self, message: IncomingMessage) -> None:
        self.counters.nacked += 1
        self._released(message)
        self.nacks.add(message.ack_id, message.lease_until)

    def _released(self, message: IncomingMessage) -> None:
        self.leases.release(message)
        if message.handed_over:
            self._outstanding -= 1
            self._outstanding_bytes -= message.size
        self._wake_up()

    # --- receiving ---

    async def _receive_until_stopped(self) -> None:
        failures = 0
        while True:
            await self._until(lambda: self._stopping or (not self._paused and self._has_room))
            if self._stopping:
                return
            try:
                await self._receive_from_one_stream()
            except StreamEnded as ended:
                if ended.wanted:
                    continue
                failures = 0 if self._stream_was_useful else failures
                failures += 1
                self._judge(ended, failures)
            delay = _backoff(failures)
            await self._until(lambda: self._stopping or self._paused, delay)

    async def _receive_from_one_stream(self) -> None:
        """Receive until the stream ends.

        Raises:
            StreamEnded: always, in the end.
        """
        generation = self._channel.generation
        self._stream_was_useful = False
        self._streams_opened += 1
        stream = PullStream(self._channel, self._first_request(), self._stall_timeout, self._answers_heartbeats)
        self._stream = stream
        try:
            while True:
                await self._until(lambda: self._stopping or self._paused or self._has_room)
                response = await stream.read()
                self._last_response_at = stream.heard_at
                self._last_error = None
                self._worked = True
                await self._take(response)
        except StreamEnded as ended:
            if ended.silent:
                self._channel.renew(generation)
            raise
        finally:
            self._answers_heartbeats = stream.answers_heartbeats
            self._stream = None
            lived = time.monotonic() - stream.opened_at
            self._worked = self._worked or lived > _PROVEN_AFTER
            self._stream_was_useful = stream.messages > 0 or lived > _BACKOFF_LAST
            await stream.close()

    async def _take(self, response: Any) -> None:
        now = time.monotonic()
        self.counters.received += len(response.received_messages)
        arrived = [self._message(received, now) for received in response.received_messages]
        held = [message for message in arrived if self.leases.hold(message)]
        for position, message in enumerate(held, start=1):
            if not self._has_room:
                await self._until(lambda: self._stopping or self._paused or self._has_room)
            if self._stopping or self._paused:
                message.nack()  # not begun: let another replica have it
            else:
                self._hand_over(message)
            if position % _SLICE == 0:
                await asyncio.sleep(0)

    def _hand_over(self, message: IncomingMessage) -> None:
        message.handed_over = True
        self._outstanding += 1
        self._outstanding_bytes += message.size
        self.counters.handled += 1
        try:
            self._handler(message)
        except Exception:
            self.counters.handler_errors += 1
            log.exception("the handler failed on message %s of %s", message.message_id, self.subscription)
            message.nack()

    def _message(self, received: Any, now: float) -> IncomingMessage:
        raw = received.message
        published = raw.publish_time
        return IncomingMessage(
            self,
            data=raw.data,
            attributes=dict(raw.attributes),
            message_id=raw.message_id,
            publish_time_ms=published.seconds * 1000 + published.nanos // 1_000_000,
            ordering_key=raw.ordering_key,
            delivery_attempt=received.delivery_attempt,
            received_at=now,
            ack_id=received.ack_id,
            size=received.ByteSize(),
        )

    def _first_request(self) -> Any:
        return rpc.StreamingPullRequest(
            subscription=self.subscription,
            stream_ack_deadline_seconds=self._ack_deadline,
            client_id=self._client_id,
            max_outstanding_messages=self._max_outstanding,
            max_outstanding_bytes=self._max_outstanding_bytes,
        )

    def _judge(self, ended: StreamEnded, failures: int) -> None:
        """Note why a stream ended, and end the run if it makes no sense to go on."""
        if ended.silent and not self._answers_heartbeats:
            log.debug("%s: reopened after a long silence", self.subscription)
            return
        if ended.silent:
            self.counters.silent_streams += 1
        error = permanent_error(self.subscription, ended.code, ended.details)
        if error is not None and not self._worked:
            raise error
        self._last_error = str(error or ended)
        # Pub/Sub ends streams now and then. What goes on is logged at the second, fourth, eighth, ... failure in a row:
        # an outage of hours must not fill the log.
        if failures == 1:
            log.info("%s: stream ended, opening another: %s", self.subscription, self._last_error)
        elif failures & (failures - 1) == 0:
            log.warning("%s: no stream, %d failures in a row: %s", self.subscription, failures, self._last_error)

    async def _wind_down(self) -> None:
        """Wait for the handler until the stop's time is over, hand back the rest, send what is left to send."""
        assert self._stop_at is not None
        await self._until(lambda: not self._outstanding, self._stop_at - time.monotonic())
        if self._outstanding:
            log.warning("%s: %d messages not settled at the stop are handed back", self.subscription, self._outstanding)
        for message in self.leases.messages():
            message.nack()
        await asyncio.gather(self.acks.drain(_DRAIN_TIMEOUT), self.nacks.drain(_DRAIN_TIMEOUT))

    # --- small parts ---

    @property
    def _connected(self) -> bool:
        stream = self._stream
        if stream is None or not stream.alive or not self._channel.connected:
            return False
        # After a failure a new stream has to show that it stands: the answer "no such subscription" takes a moment.
        return self._last_error is None or time.monotonic() - stream.opened_at > _STANDS_AFTER

    @property
    def _stopping(self) -> bool:
        return self._stop_at is not None

    @property
    def _has_room(self) -> bool:
        return (
            self._outstanding < self._max_outstanding
            and self._outstanding_bytes < self._max_outstanding_bytes
            and self.acks.backlog + self.nacks.backlog < _MAX_BACKLOG
        )

    def _wake_up(self) -> None:
        self._wake.set()

    async def _until(self, condition: Callable[[], bool], timeout: float | None = None) -> None:
        """Wait for a condition that whoever changes it announces by `_wake_up`. One waiter at a time."""
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            return

    def _finish_stream(self) -> None:
        if self._stream is not None:
            self._stream.finish()
        self._wake_up()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Start work on a request; a bug in it ends `run` instead of passing unseen."""
        assert self._tasks is not None
        task = self._tasks.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _send_acks(self, ack_ids: list[str]) -> None:
        request = rpc.AcknowledgeRequest(subscription=self.subscription, ack_ids=ack_ids)
        await self._channel.call(rpc.ACKNOWLEDGE, request, self._rpc_timeout)

    async def _send_nacks(self, ack_ids: list[str]) -> None:
        await self._modify_ack_deadline(ack_ids, 0)

    async def _send_extensions(self, ack_ids: list[str]) -> None:
        await self._modify_ack_deadline(ack_ids, self._ack_deadline)

    async def _modify_ack_deadline(self, ack_ids: list[str], seconds: int) -> None:
        request = rpc.ModifyAckDeadlineRequest(
            subscription=self.subscription, ack_ids=ack_ids, ack_deadline_seconds=seconds
        )
        await self._channel.call(rpc.MODIFY_ACK_DEADLINE, request, self._rpc_timeout)


def _backoff(failures: int) -> float:
    if failures <= 1:
        return random.uniform(0.0, 0.05)
    return min(_BACKOFF_LAST, _BACKOFF_FIRST * 2.0 ** min(failures - 2, 10)) * random.uniform(0.5, 1.0)
