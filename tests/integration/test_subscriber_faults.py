"""The subscriber against a server that answers what the test says."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from execution.pubsub.channel import PubSubChannel
from execution.pubsub.errors import PermissionDenied, SubscriptionMissing, SubscriptionUnusable
from execution.pubsub.subscriber import Subscriber
from tests.integration import scripted_pubsub
from tests.integration.pubsub_servers import PROJECT, Receiver, running, until
from tests.integration.scripted_pubsub import Refusal, ScriptedPubSub, response

scripted = scripted_pubsub.scripted
scripted_channel = scripted_pubsub.scripted_channel

SUBSCRIPTION = f"projects/{PROJECT}/subscriptions/scripted"


async def never(_: Any) -> None:
    await asyncio.Event().wait()


def refuse(code: grpc.StatusCode, details: str = "scripted") -> Callable[[Any], Any]:
    async def answer(_: Any) -> None:
        raise Refusal(code, details)

    return answer


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, PermissionDenied),
        (grpc.StatusCode.UNAUTHENTICATED, PermissionDenied),
        (grpc.StatusCode.FAILED_PRECONDITION, SubscriptionUnusable),
        (grpc.StatusCode.NOT_FOUND, SubscriptionMissing),
    ],
)
async def test_at_the_start_a_permanent_error_ends_the_run(
    scripted: ScriptedPubSub, scripted_channel: PubSubChannel, code: grpc.StatusCode, error: type[Exception]
) -> None:
    scripted.answer["StreamingPull"] = refuse(code)
    with pytest.raises(error, match=SUBSCRIPTION):
        await asyncio.wait_for(Subscriber(scripted_channel, SUBSCRIPTION, Receiver()).run(), 20)


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.PERMISSION_DENIED,
    ],
)
async def test_a_stream_that_breaks_is_opened_again(
    scripted: ScriptedPubSub, scripted_channel: PubSubChannel, code: grpc.StatusCode
) -> None:
    receiver = Receiver()
    async with running(Subscriber(scripted_channel, SUBSCRIPTION, receiver)):
        await until(lambda: scripted.streams)
        scripted.deliver(b"1")
        await until(lambda: receiver.messages)
        scripted.streams[0].out.put_nowait(Refusal(code))
        await until(lambda: len(scripted.streams) == 2)
        scripted.deliver(b"2")
        await until(lambda: len(receiver.messages) == 2)


async def test_the_first_request_tells_the_limits_and_heartbeats_follow(
    scripted: ScriptedPubSub, scripted_channel: PubSubChannel
) -> None:
    subscriber = Subscriber(
        scripted_channel,
        SUBSCRIPTION,
        Receiver(),
        max_outstanding=7,
        max_outstanding_bytes=1000,
        ack_deadline=20,
        stall_timeout=0.3,
    )
    async with running(subscriber):
        await until(lambda: scripted.streams and scripted.streams[0].heartbeats >= 5)
        first = scripted.streams[0].first
        assert (first.subscription, first.stream_ack_deadline_seconds) == (SUBSCRIPTION, 20)
        assert (first.max_outstanding_messages, first.max_outstanding_bytes) == (7, 1000)
        assert first.client_id
        assert len(scripted.streams) == 1, "a stream whose heartbeats are answered is left alone"


async def test_a_stream_whose_heartbeats_are_no_longer_answered_is_replaced(
    scripted: ScriptedPubSub, scripted_channel: PubSubChannel
) -> None:
    subscriber = Subscriber(scripted_channel, SUBSCRIPTION, Receiver(), stall_timeout=0.3)
    async with running(subscriber):
        await until(lambda: scripted.streams and scripted.streams[0].heartbeats >= 3)
        scripted.pulse = False
        await until(lambda: len(scripted.streams) >= 2)
        assert subscriber.counters.silent_streams == 1
        scripted.pulse = True
        assert scripted_channel.generation == 1


async def test_messages_go_on_while_modify_ack_deadline_hangs(
    scripted: ScriptedPubSub, scripted_channel: PubSubChannel
) -> None:
    scripted.answer["ModifyAckDeadline"] = never
    kept = Receiver(settle=None)
    async with running(Subscriber(scripted_channel, SUBSCRIPTION, kept, ack_deadline=10)):
        await until(lambda: scripted.streams)
        scripted.deliver(b"1")
        await until(lambda: scripted.modacks)
        for number in range(2, 30):
            scripted.deliver(b"%d" % number)
            await until(lambda number=number: len(kept.messages) == number)
        for message in kept.messages:
            message.ack()
        await until(lambda: len(scripted.acked) == 29)
        del scripted.answer["ModifyAckDeadline"]


async def test_leases_are_extended_while_messages_are_held_and_no_longer(
    scripted: ScriptedPubSub, scripted_channel: PubSubChannel
) -> None:
    kept = Receiver(settle=None)
    # The scripted server does not insist on Pub/Sub's minimum of 10 s.
    async with running(Subscriber(scripted_channel, SUBSCRIPTION, kept, ack_deadline=2)):
        await until(lambda: scripted.streams)
        scripted.deliver(b"a", b"b")
        await until(lambda: scripted.extended(2).count("a") >= 2)
        kept.messages[0].ack()
        await until(lambda: "a" in scripted.acked)
        seen = scripted.extended(2).count("a")
        so_far = scripted.extended(2).count("b")
        await until(lambda: scripted.extended(2).count("b") >= so_far + 2)
        assert scripted.extended(2).count("a") == seen


async def test_an_extension_that_fails_is_repeated(scripted: ScriptedPubSub, scripted_channel: PubSubChannel) -> None:
    scripted.answer["ModifyAckDeadline"] = refuse(grpc.StatusCode.UNAVAILABLE)
    kept = Receiver(settle=None)
    async with running(Subscriber(scripted_channel, SUBSCRIPTION, kept)):
        await until(lambda: scripted.streams)
        scripted.deliver(b"a")
        await until(lambda: len(scripted.extended(30)) >= 2)
        del scripted.answer["ModifyAckDeadline"]


async def test_an_ack_whose_answer_is_an_error_is_sent_again(
    scripted: ScriptedPubSub, scripted_channel: PubSubChannel
) -> None:
    scripted.answer["Acknowledge"] = refuse(grpc.StatusCode.UNAVAILABLE)
    subscriber = Subscriber(scripted_channel, SUBSCRIPTION, Receiver())
    async with running(subscriber):
        await until(lambda: scripted.streams)
        scripted.deliver(b"a")
        await until(lambda: len(scripted.acked) >= 3)
        del scripted.answer["Acknowledge"]
        await until(lambda: subscriber.acks.confirmed == 1)
    assert subscriber.acks.lost == 0


async def test_an_ack_is_given_up_when_its_lease_is_over(
    scripted: ScriptedPubSub, scripted_channel: PubSubChannel
) -> None:
    scripted.answer["Acknowledge"] = refuse(grpc.StatusCode.UNAVAILABLE)
    subscriber = Subscriber(scripted_channel, SUBSCRIPTION, Receiver(), ack_deadline=1)
    async with running(subscriber):
        await until(lambda: scripted.streams)
        scripted.deliver(b"a")
        await until(lambda: subscriber.acks.lost == 1)
        assert subscriber.acks.backlog == 0


async def test_on_an_exactly_once_subscription_each_ack_has_its_own_result(
    scripted: ScriptedPubSub, scripted_channel: PubSubChannel
) -> None:
    info = error_details_pb2.ErrorInfo(
        reason="EXACTLY_ONCE_ACKID_FAILURE",
        domain="pubsub.googleapis.com",
        metadata={"a": "PERMANENT_FAILURE_INVALID_ACK_ID", "b": "TRANSIENT_FAILURE_SERVICE_UNAVAILABLE"},
    )
    detail = any_pb2.Any()
    detail.Pack(info)
    status = status_pb2.Status(code=grpc.StatusCode.INVALID_ARGUMENT.value[0], details=[detail])

    async def mixed(request: Any) -> None:
        if "a" in request.ack_ids:
            trailing = (("grpc-status-details-bin", status.SerializeToString()),)
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "some acks failed", trailing)

    scripted.answer["Acknowledge"] = mixed
    subscriber = Subscriber(scripted_channel, SUBSCRIPTION, Receiver())
    async with running(subscriber):
        await until(lambda: scripted.streams)
        scripted.deliver(b"a", b"b", b"c")
        await until(lambda: subscriber.acks.confirmed == 2)
    assert subscriber.acks.lost == 1
    assert [sorted(request.ack_ids) for request in scripted.acks] == [["a", "b", "c"], ["b"]]


async def test_the_handler_never_has_more_than_the_limit_of_a_large_response(
    scripted: ScriptedPubSub, scripted_channel: PubSubChannel
) -> None:
    kept = Receiver(settle=None)
    subscriber = Subscriber(scripted_channel, SUBSCRIPTION, kept, max_outstanding=3)
    async with running(subscriber):
        await until(lambda: scripted.streams)
        scripted.deliver(*(b"%d" % i for i in range(10)))
        for expected in range(3, 11):
            await until(lambda expected=expected: len(kept.messages) == expected)
            assert subscriber.outstanding == 3
            kept.messages[expected - 3].ack()
    assert kept.bodies == [b"%d" % i for i in range(10)]


async def test_bytes_are_limited_as_messages_are(scripted: ScriptedPubSub, scripted_channel: PubSubChannel) -> None:
    kept = Receiver(settle=None)
    subscriber = Subscriber(scripted_channel, SUBSCRIPTION, kept, max_outstanding_bytes=1000)
    async with running(subscriber):
        await until(lambda: scripted.streams)
        for _ in range(3):
            big = response(b"first", b"second", b"third")
            for received in big.received_messages:
                received.message.data = b"x" * 900
            scripted.streams[-1].out.put_nowait(big)
        await until(lambda: len(kept.messages) == 2)
        assert subscriber.outstanding == 2
        kept.messages[0].ack()
        await until(lambda: len(kept.messages) == 3)


async def test_a_message_delivered_again_while_it_is_held_is_not_handled_twice(
    scripted: ScriptedPubSub, scripted_channel: PubSubChannel
) -> None:
    kept = Receiver(settle=None)
    subscriber = Subscriber(scripted_channel, SUBSCRIPTION, kept)
    async with running(subscriber):
        await until(lambda: scripted.streams)
        scripted.deliver(b"a")
        await until(lambda: kept.messages)
        again = response(b"a", b"b")
        again.received_messages[0].ack_id = "a-second-lease"
        scripted.streams[-1].out.put_nowait(again)
        await until(lambda: len(kept.messages) == 2)
        kept.messages[0].ack()
        await until(lambda: scripted.acked)
    assert kept.bodies == [b"a", b"b"]
    assert scripted.acked == ["a-second-lease"], "only the newest lease counts"
    assert subscriber.leases.redelivered == 1


async def test_what_waited_in_front_of_the_handler_is_handed_back_on_a_pause(
    scripted: ScriptedPubSub, scripted_channel: PubSubChannel
) -> None:
    kept = Receiver(settle=None)
    subscriber = Subscriber(scripted_channel, SUBSCRIPTION, kept, max_outstanding=1, ack_deadline=2)
    async with running(subscriber):
        await until(lambda: scripted.streams)
        scripted.deliver(b"a", b"b")
        await until(lambda: kept.messages)
        subscriber.pause()
        await until(lambda: scripted.streams[0].ended)
        await until(lambda: scripted.extended(0) == ["b"])
        extended = scripted.extended(2).count("a")
        await until(lambda: scripted.extended(2).count("a") > extended, what="the held one's lease is still extended")
        assert subscriber.status.oldest_unacked_age > 0


async def test_stop_sends_the_last_acks_although_the_first_try_fails(
    scripted: ScriptedPubSub, scripted_channel: PubSubChannel
) -> None:
    async def fail_once(_: Any) -> None:
        if len(scripted.acks) == 1:
            raise Refusal(grpc.StatusCode.UNAVAILABLE)

    scripted.answer["Acknowledge"] = fail_once
    kept = Receiver(settle=None)
    subscriber = Subscriber(scripted_channel, SUBSCRIPTION, kept)
    async with running(subscriber):
        await until(lambda: scripted.streams)
        scripted.deliver(b"a")
        await until(lambda: kept.messages)
        kept.messages[0].ack()
    assert subscriber.acks.confirmed == 1


async def test_acks_are_sent_in_requests_that_pubsub_takes(
    scripted: ScriptedPubSub, scripted_channel: PubSubChannel
) -> None:
    kept = Receiver(settle=None)
    subscriber = Subscriber(scripted_channel, SUBSCRIPTION, kept, max_outstanding=10_000)
    async with running(subscriber):
        await until(lambda: scripted.streams)
        scripted.deliver(*(b"%0200d" % i for i in range(6000)))
        await until(lambda: len(kept.messages) == 6000)
        for message in kept.messages:
            message.ack()
        await until(lambda: len(scripted.acked) == 6000)
    assert all(len(request.ack_ids) <= 2500 and request.ByteSize() <= 512 * 1024 for request in scripted.acks)
    assert len(scripted.acks) <= 4


async def test_an_outage_does_not_fill_the_log(
    scripted: ScriptedPubSub, scripted_channel: PubSubChannel, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.answer["StreamingPull"] = refuse(grpc.StatusCode.UNAVAILABLE)
    with caplog.at_level(logging.INFO, "execution.pubsub"):
        async with running(Subscriber(scripted_channel, SUBSCRIPTION, Receiver())):
            await until(lambda: len(scripted.streams) >= 7)
    assert 2 <= len(caplog.records) <= 3
    assert "UNAVAILABLE" in caplog.text


async def test_a_subscriber_runs_once(scripted: ScriptedPubSub, scripted_channel: PubSubChannel) -> None:
    subscriber = Subscriber(scripted_channel, SUBSCRIPTION, Receiver())
    async with running(subscriber):
        await until(lambda: scripted.streams)
    with pytest.raises(RuntimeError, match="make a new one"):
        await subscriber.run()
