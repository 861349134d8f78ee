"""The broker served over gRPC, as Pub/Sub is. For development: nothing is kept on disk, and everybody may do everything."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import msgspec
from google.protobuf import any_pb2, empty_pb2
from google.pubsub_v1 import types
from google.rpc import error_details_pb2, status_pb2

from execution.embedded.pubsub import checks
from execution.embedded.pubsub.broker import MOST_MESSAGES, Broker, Consumer, Lease, Subscription, Topic
from execution.embedded.pubsub.checks import Refused
from execution.embedded.pubsub.faults import Fault, Faults

OPTIONS = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 12_000_000)]
BATCH = 500
PULL_SECONDS = 85.0
SWEEP_SECONDS = 60.0
_Code = grpc.StatusCode
_Response = types.StreamingPullResponse.pb()
_Received = types.ReceivedMessage.pb()


class PubSubServer:
    """A Pub/Sub server in this process and event loop."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.broker = Broker()
        self.faults = Faults()
        self.host = host
        self._port = port
        self._server: grpc.aio.Server | None = None
        self._streams: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._sweeper: asyncio.Task[None] | None = None
        self.broker.on_due = self._due

    async def start(self) -> int:
        """Listen; returns the port.

        Raises:
            OSError: the port is taken.
        """
        server = grpc.aio.server(options=OPTIONS)
        server.add_generic_rpc_handlers(self._handlers())
        try:
            port = server.add_insecure_port(f"{self.host}:{self._port}")
        except RuntimeError as error:
            raise OSError(f"port {self._port} on {self.host} cannot be used: another program has it") from error
        await server.start()
        self._server = server
        self._sweeper = asyncio.create_task(self._sweep())
        return int(port)

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._server is not None:
            await self._server.stop(0.2)

    def break_streams(self) -> None:
        """Cut every streaming pull, as a network does."""
        for task in list(self._streams):
            task.cancel()

    # --- time -------------------------------------------------------------------------------------------------------

    def _due(self, at: float) -> None:
        if at >= self._timer_at and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.get_running_loop().call_later(max(at - time.time(), 0.0), self._tick)

    def _tick(self) -> None:
        self._timer, self._timer_at = None, float("inf")
        self.broker.tick(time.time())

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            for subscription in self.broker.subscriptions.values():
                subscription.expire_old(time.time())

    # --- gRPC -------------------------------------------------------------------------------------------------------

    def _handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        publisher = {
            "CreateTopic": (types.Topic, types.Topic, self._create_topic),
            "GetTopic": (types.GetTopicRequest, types.Topic, self._get_topic),
            "UpdateTopic": (types.UpdateTopicRequest, types.Topic, self._update_topic),
            "ListTopics": (types.ListTopicsRequest, types.ListTopicsResponse, self._list_topics),
            "ListTopicSubscriptions": (
                types.ListTopicSubscriptionsRequest,
                types.ListTopicSubscriptionsResponse,
                self._list_topic_subscriptions,
            ),
            "DeleteTopic": (types.DeleteTopicRequest, None, self._delete_topic),
            "Publish": (types.PublishRequest, types.PublishResponse, self._publish),
        }
        subscriber = {
            "CreateSubscription": (types.Subscription, types.Subscription, self._create_subscription),
            "GetSubscription": (types.GetSubscriptionRequest, types.Subscription, self._get_subscription),
            "UpdateSubscription": (types.UpdateSubscriptionRequest, types.Subscription, self._update_subscription),
            "ListSubscriptions": (
                types.ListSubscriptionsRequest,
                types.ListSubscriptionsResponse,
                self._list_subscriptions,
            ),
            "DeleteSubscription": (types.DeleteSubscriptionRequest, None, self._delete_subscription),
            "Pull": (types.PullRequest, types.PullResponse, self._pull),
            "Acknowledge": (types.AcknowledgeRequest, None, self._acknowledge),
            "ModifyAckDeadline": (types.ModifyAckDeadlineRequest, None, self._modify_ack_deadline),
            "Seek": (types.SeekRequest, types.SeekResponse, self._seek),
        }
        streaming = grpc.stream_stream_rpc_method_handler(
            self._streaming_pull,
            request_deserializer=types.StreamingPullRequest.pb().FromString,
            response_serializer=_Response.SerializeToString,
        )
        faults: Any = grpc.unary_unary_rpc_method_handler(self._order_fault)
        return (
            grpc.method_handlers_generic_handler("google.pubsub.v1.Publisher", self._unary(publisher)),
            grpc.method_handlers_generic_handler(
                "google.pubsub.v1.Subscriber", {**self._unary(subscriber), "StreamingPull": streaming}
            ),
            grpc.method_handlers_generic_handler("execution.dev.Faults", {"Order": faults}),
        )

    def _unary(self, methods: dict[str, tuple[Any, Any, Any]]) -> dict[str, Any]:
        handlers = {}
        for name, (request, response, work) in methods.items():
            answer = response.pb() if response is not None else empty_pb2.Empty
            handlers[name] = grpc.unary_unary_rpc_method_handler(
                self._guarded(name, work),
                request_deserializer=request.pb().FromString,
                response_serializer=answer.SerializeToString,
            )
        return handlers

    def _guarded(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """A method with its errors turned into answers, and with the faults ordered for it."""

        async def handle(request: Any, context: Any) -> Any:
            fault = self.faults.meet(name)
            if fault is not None and fault.hang:
                await asyncio.sleep(fault.hang)
            elif fault is not None and fault.when == "before":
                await context.abort(_status(fault.code), f"{name}: ordered")
            try:
                answer = work(request, context)
                if asyncio.iscoroutine(answer):
                    answer = await answer
            except Refused as refusal:
                if refusal.metadata:
                    context.set_trailing_metadata(refusal.metadata)
                await context.abort(refusal.code, refusal.message)
            if fault is not None and not fault.hang and fault.when == "after":
                await context.abort(_status(fault.code), f"{name}: ordered, after it was done")
            return answer if answer is not None else empty_pb2.Empty()

        return handle

    async def _order_fault(self, request: bytes, _context: Any) -> bytes:
        fault = msgspec.json.decode(request, type=Fault)
        self.faults.order(fault)
        if fault.break_streams:
            self.break_streams()
        return b"{}"

    # --- topics -----------------------------------------------------------------------------------------------------

    def _topic(self, name: str) -> Topic:
        topic = self.broker.topics.get(name)
        if topic is None:
            raise Refused(_Code.NOT_FOUND, f"Resource not found (resource={name.rpartition('/')[2]}).")
        return topic

    def _create_topic(self, request: Any, _: Any) -> Any:
        checks.name("topics", request.name)
        if request.name in self.broker.topics:
            raise Refused(
                _Code.ALREADY_EXISTS,
                f"Resource already exists in the project (resource={request.name.rpartition('/')[2]}).",
            )
        self.broker.topics[request.name] = Topic(request)
        return request

    def _get_topic(self, request: Any, _: Any) -> Any:
        return self._topic(request.topic).config

    def _update_topic(self, request: Any, _: Any) -> Any:
        return _merge(self._topic(request.topic.name).config, request.topic, request.update_mask.paths)

    def _list_topics(self, request: Any, _: Any) -> Any:
        names = sorted(name for name in self.broker.topics if name.startswith(f"{request.project}/"))
        page, following = _page(names, request)
        topics = [self.broker.topics[name].config for name in page]
        return types.ListTopicsResponse.pb()(topics=topics, next_page_token=following)

    def _list_topic_subscriptions(self, request: Any, _: Any) -> Any:
        page, following = _page(sorted(self._topic(request.topic).subscriptions), request)
        return types.ListTopicSubscriptionsResponse.pb()(subscriptions=page, next_page_token=following)

    def _delete_topic(self, request: Any, _: Any) -> None:
        self._topic(request.topic)
        self.broker.delete_topic(request.topic)

    def _publish(self, request: Any, _: Any) -> Any:
        topic = self._topic(request.topic)
        checks.publish(request.messages)
        if self.broker.kept > MOST_MESSAGES:
            raise Refused(
                _Code.RESOURCE_EXHAUSTED, f"This development emulator keeps at most {MOST_MESSAGES} messages."
            )
        ids = self.broker.publish(topic, request.messages, time.time())
        return types.PublishResponse.pb()(message_ids=ids)

    # --- subscriptions ----------------------------------------------------------------------------------------------

    def _subscription(self, name: str) -> Subscription:
        subscription = self.broker.subscriptions.get(name)
        if subscription is None:
            raise Refused(_Code.NOT_FOUND, f"Resource not found (resource={name.rpartition('/')[2]}).")
        return subscription

    def _create_subscription(self, request: Any, _: Any) -> Any:
        checks.subscription(request)
        if request.name in self.broker.subscriptions:
            raise Refused(
                _Code.ALREADY_EXISTS,
                f"Resource already exists in the project (resource={request.name.rpartition('/')[2]}).",
            )
        self._topic(request.topic)
        if not request.ack_deadline_seconds:
            request.ack_deadline_seconds = 10
        if not request.message_retention_duration.seconds:
            request.message_retention_duration.seconds = 7 * 86400
        return self.broker.subscribe(request).config

    def _get_subscription(self, request: Any, _: Any) -> Any:
        return self._subscription(request.subscription).config

    def _update_subscription(self, request: Any, _: Any) -> Any:
        subscription = self._subscription(request.subscription.name)
        if {"filter", "topic", "enable_message_ordering"} & set(request.update_mask.paths):
            raise Refused(_Code.INVALID_ARGUMENT, "filter, topic and enable_message_ordering cannot be changed.")
        return _merge(subscription.config, request.subscription, request.update_mask.paths)

    def _list_subscriptions(self, request: Any, _: Any) -> Any:
        names = sorted(name for name in self.broker.subscriptions if name.startswith(f"{request.project}/"))
        page, following = _page(names, request)
        found = [self.broker.subscriptions[name].config for name in page]
        return types.ListSubscriptionsResponse.pb()(subscriptions=found, next_page_token=following)

    def _delete_subscription(self, request: Any, _: Any) -> None:
        self._subscription(request.subscription)
        self.broker.unsubscribe(request.subscription)

    def _seek(self, request: Any, _: Any) -> Any:
        subscription = self._subscription(request.subscription)
        if request.snapshot:
            raise Refused(_Code.UNIMPLEMENTED, "Snapshots are not part of this development emulator.")
        subscription.seek(request.time.seconds + request.time.nanos / 1e9)
        return types.SeekResponse.pb()()

    # --- delivery ---------------------------------------------------------------------------------------------------

    async def _pull(self, request: Any, context: Any) -> Any:
        subscription = self._subscription(request.subscription)
        if request.max_messages <= 0:
            raise Refused(_Code.INVALID_ARGUMENT, "The value for max_messages must be greater than 0.")
        wake = asyncio.Event()
        consumer = Consumer(wake.set, deadline=subscription.deadline)
        subscription.consumers.append(consumer)
        left = context.time_remaining()
        give_up = time.monotonic() + min(PULL_SECONDS, (left or PULL_SECONDS) * 0.9)
        try:
            while True:
                leases = subscription.take(consumer, min(request.max_messages, 1000), time.time())
                if consumer.ended is not None:
                    raise Refused(_status(consumer.ended[0]), consumer.ended[1])
                seconds = give_up - time.monotonic()
                if leases or request.return_immediately or seconds <= 0:
                    received = [self._received(subscription, lease) for lease in leases]
                    return types.PullResponse.pb()(received_messages=received)
                wake.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(wake.wait(), seconds)
        finally:
            subscription.leave(consumer)

    async def _streaming_pull(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        task = asyncio.current_task()
        assert task is not None
        first = await anext(aiter(requests), None)
        if first is None:
            return
        subscription = self.broker.subscriptions.get(first.subscription)
        if subscription is None:
            name = first.subscription.rpartition("/")[2]
            await context.abort(_Code.NOT_FOUND, f"Resource not found (resource={name}).")
            return
        wake = asyncio.Event()
        consumer = Consumer(
            wake.set,
            deadline=first.stream_ack_deadline_seconds or subscription.deadline,
            most_messages=max(first.max_outstanding_messages, 0),
            most_bytes=max(first.max_outstanding_bytes, 0),
        )
        subscription.consumers.append(consumer)
        self._streams.add(task)
        self._settle(subscription, first)
        reader = asyncio.create_task(self._read(requests, subscription, consumer, first.protocol_version >= 1))
        reader.add_done_callback(lambda _: wake.set())
        try:
            yield self._response(subscription, [])
            while not reader.done():  # until the client closes its side
                wake.clear()
                if consumer.beats:
                    consumer.beats -= 1
                    yield self._response(subscription, [])
                leases = subscription.take(consumer, BATCH, time.time())
                if leases:
                    yield self._response(subscription, leases)
                    await asyncio.sleep(0)
                    continue
                if consumer.ended is not None:
                    await context.abort(_status(consumer.ended[0]), consumer.ended[1])
                await wake.wait()
        finally:
            reader.cancel()
            self._streams.discard(task)
            subscription.leave(consumer)

    async def _read(
        self, requests: AsyncIterator[Any], subscription: Subscription, consumer: Consumer, answers: bool
    ) -> None:
        async for request in requests:
            if answers and not request.ByteSize():
                consumer.beats += 1
                consumer.wake()
            if request.stream_ack_deadline_seconds:
                consumer.deadline = request.stream_ack_deadline_seconds
            self._settle(subscription, request)

    def _settle(self, subscription: Subscription, request: Any) -> None:
        """Acks and deadlines that came on the stream."""
        now = time.time()
        for ack_id in request.ack_ids:
            subscription.acknowledge(ack_id)
        pairs = zip(request.modify_deadline_ack_ids, request.modify_deadline_seconds, strict=False)
        for ack_id, seconds in pairs:
            subscription.extend(ack_id, seconds, now)

    def _response(self, subscription: Subscription, leases: list[Lease]) -> Any:
        response = _Response()
        received = [self._received(subscription, lease) for lease in leases]
        while self.faults.duplicate and leases:
            self.faults.duplicate -= 1
            received.append(self._received(subscription, leases[-1]))
        response.received_messages.extend(received)
        config = subscription.config
        response.subscription_properties.exactly_once_delivery_enabled = config.enable_exactly_once_delivery
        response.subscription_properties.message_ordering_enabled = config.enable_message_ordering
        return response

    @staticmethod
    def _received(subscription: Subscription, lease: Lease) -> Any:
        counts = bool(subscription.config.dead_letter_policy.dead_letter_topic)
        return _Received(
            ack_id=lease.ack_id,
            message=lease.held.message,
            delivery_attempt=lease.held.attempts if counts else 0,
        )

    def _acknowledge(self, request: Any, _: Any) -> None:
        subscription = self._subscription(request.subscription)
        stale = [ack_id for ack_id in request.ack_ids if not subscription.acknowledge(ack_id)]
        self._complain(subscription, stale)

    def _modify_ack_deadline(self, request: Any, _: Any) -> None:
        subscription, seconds = self._subscription(request.subscription), request.ack_deadline_seconds
        if not 0 <= seconds <= 600:
            raise Refused(
                _Code.INVALID_ARGUMENT, f"Invalid ack deadline given: {seconds}; it must be between 0 and 600 seconds."
            )
        now = time.time()
        stale = [ack_id for ack_id in request.ack_ids if not subscription.extend(ack_id, seconds, now)]
        self._complain(subscription, stale)

    @staticmethod
    def _complain(subscription: Subscription, stale: list[str]) -> None:
        """With exactly-once delivery a lease that is over is an error; without, it is passed over in silence."""
        if not stale or not subscription.config.enable_exactly_once_delivery:
            return
        message = "Some acknowledgement ids in the request were invalid. This could be because the acknowledgement ids have expired or the acknowledgement ids were malformed."
        info = error_details_pb2.ErrorInfo(
            reason="EXACTLY_ONCE_ACKID_FAILURE",
            domain="pubsub.googleapis.com",
            metadata=dict.fromkeys(stale, "PERMANENT_FAILURE_INVALID_ACK_ID"),
        )
        detail = any_pb2.Any()
        detail.Pack(info)
        status = status_pb2.Status(code=_Code.INVALID_ARGUMENT.value[0], message=message, details=[detail])
        raise Refused(_Code.INVALID_ARGUMENT, message, (("grpc-status-details-bin", status.SerializeToString()),))


def _merge(config: Any, new: Any, paths: list[str]) -> Any:
    for path in paths:
        name = path.partition(".")[0]
        field = config.DESCRIPTOR.fields_by_name.get(name)
        if field is None:
            raise Refused(_Code.INVALID_ARGUMENT, f"Invalid update_mask provided: unknown field {path}.")
        config.ClearField(name)
        part = type(config)()
        part.CopyFrom(new)
        for other in part.DESCRIPTOR.fields_by_name:
            if other != name:
                part.ClearField(other)
        config.MergeFrom(part)
    return config


def _page(names: list[str], request: Any) -> tuple[list[str], str]:
    start = int(request.page_token or 0)
    size = request.page_size or 1000
    end = start + size
    return names[start:end], str(end) if end < len(names) else ""


def _status(name: str) -> grpc.StatusCode:
    return grpc.StatusCode.__members__[name]
