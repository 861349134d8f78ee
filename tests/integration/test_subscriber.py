"""The subscriber from outside: what a handler sees while servers, connections and handlers misbehave."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from execution.pubsub.channel import PubSubChannel, connect
from execution.pubsub.errors import PermissionDenied, SubscriptionMissing, SubscriptionUnusable
from execution.pubsub.message import IncomingMessage
from execution.pubsub.subscriber import Subscriber
from tests.integration import pubsub_servers
from tests.integration.pubsub_servers import (
    ONLY_EMBEDDED,
    PROJECT,
    Bench,
    FaultProxy,
    Refusal,
    ScriptedPubSub,
    response,
    until,
)

official_host = pubsub_servers.official_host
server_host = pubsub_servers.server_host
bench = pubsub_servers.bench
bench_ordered = pubsub_servers.bench_ordered
proxy = pubsub_servers.proxy
scripted = pubsub_servers.scripted
scripted_channel = pubsub_servers.scripted_channel

SUBSCRIPTION = f"projects/{PROJECT}/subscriptions/scripted"


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


async def never(_: Any) -> None:
    await asyncio.Event().wait()


def refuse(code: grpc.StatusCode, details: str = "scripted") -> Callable[[Any], Any]:
    async def answer(_: Any) -> None:
        raise Refusal(code, details)

    return answer


# --- against emulators ---


async def test_a_message_arrives_with_all_of_its_parts(bench: Bench) -> None:
    receiver = Receiver()
    async with running(Subscriber(bench.channel, bench.subscription, receiver)):
        ids = await bench.publish(b'{"a":1}', attributes={"kind": "signal"}, ordering_key="BTC")
        await until(lambda: receiver.messages)
    message = receiver.messages[0]
    assert (message.data, message.attributes, message.ordering_key) == (b'{"a":1}', {"kind": "signal"}, "BTC")
    assert message.message_id == ids[0]
    assert message.publish_time_ms > 1_600_000_000_000
    assert message.received_at > 0


async def test_each_message_comes_once_and_not_again_after_the_stop(bench: Bench) -> None:
    receiver = Receiver()
    async with running(Subscriber(bench.channel, bench.subscription, receiver)):
        for start in range(0, 1000, 100):
            await bench.publish(*(b"%d" % i for i in range(start, start + 100)))
        await until(lambda: len(receiver.messages) >= 1000)
    assert sorted(map(int, receiver.bodies)) == list(range(1000))
    later = Receiver()
    async with running(Subscriber(bench.channel, bench.subscription, later)):
        await bench.publish(b"last")
        await until(lambda: later.messages)
    assert later.bodies == [b"last"]


async def test_a_nacked_message_comes_again(bench: Bench) -> None:
    receiver = Receiver(lambda message: message.nack() if len(receiver.messages) < 3 else message.ack())
    async with running(Subscriber(bench.channel, bench.subscription, receiver)):
        await bench.publish(b"x")
        await until(lambda: len(receiver.messages) == 3)
    assert receiver.bodies == [b"x"] * 3


async def test_a_handler_that_raises_gets_the_message_again_and_the_others_too(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    failed = set()

    def handler(message: IncomingMessage) -> None:
        if message.data == b"5" and not failed:
            failed.add(message.data)
            raise ValueError("cannot digest this")
        receiver(message)

    receiver = Receiver()
    subscriber = Subscriber(bench.channel, bench.subscription, handler)
    with caplog.at_level(logging.ERROR):
        async with running(subscriber):
            await bench.publish(*(b"%d" % i for i in range(10)))
            await until(lambda: len(receiver.messages) == 10)
    assert sorted(receiver.bodies) == [b"%d" % i for i in range(10)]
    assert subscriber.counters.handler_errors == 1
    assert "cannot digest this" in caplog.text


@ONLY_EMBEDDED
async def test_what_a_crashed_consumer_held_comes_to_the_next_one(bench: Bench) -> None:
    crashed = Receiver(settle=None)
    channel = connect(PROJECT, bench.host)
    task = asyncio.create_task(Subscriber(channel, bench.subscription, crashed, ack_deadline=10).run())
    await bench.publish(b"a", b"b")
    await until(lambda: len(crashed.messages) == 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await channel.close()
    receiver = Receiver()
    async with running(Subscriber(bench.channel, bench.subscription, receiver)):
        await until(lambda: len(receiver.messages) == 2, 30, "redelivery when the lease ends")
    assert sorted(receiver.bodies) == [b"a", b"b"]


@ONLY_EMBEDDED
async def test_nothing_is_lost_when_the_connection_is_cut_again_and_again(bench: Bench, proxy: FaultProxy) -> None:
    receiver = Receiver()
    channel = connect(PROJECT, proxy.host)
    subscriber = Subscriber(channel, bench.subscription, receiver)
    async with running(subscriber):
        for start in range(0, 250, 50):
            await bench.publish(*(b"%d" % i for i in range(start, start + 50)))
            await until(lambda start=start: len(receiver.messages) > start + 10)
            proxy.cut()
        await until(lambda: len(set(receiver.bodies)) == 250, 30)
        await until(lambda: subscriber.status.streams_opened > 5 and subscriber.status.connected)
    await channel.close()


@ONLY_EMBEDDED
async def test_a_connection_that_goes_silent_is_replaced(bench: Bench, proxy: FaultProxy) -> None:
    receiver = Receiver()
    channel = connect(PROJECT, proxy.host)
    subscriber = Subscriber(channel, bench.subscription, receiver, stall_timeout=0.5)
    async with running(subscriber):
        await bench.publish(b"before")
        await until(lambda: receiver.messages)
        proxy.freeze()
        await until(lambda: channel.generation >= 1)
        proxy.bury()
        await bench.publish(b"after")
        await until(lambda: b"after" in receiver.bodies, 30)
    await channel.close()


@ONLY_EMBEDDED
async def test_a_server_that_is_away_is_waited_for(bench: Bench, proxy: FaultProxy) -> None:
    receiver = Receiver()
    channel = connect(PROJECT, proxy.host)
    subscriber = Subscriber(channel, bench.subscription, receiver)
    async with running(subscriber):
        await until(lambda: subscriber.status.connected)
        proxy.refusing = True
        proxy.cut()
        await until(lambda: subscriber.status.streams_opened >= 3)
        assert not subscriber.status.connected
        assert "UNAVAILABLE" in str(subscriber.status.last_error)
        proxy.refusing = False
        await bench.publish(b"after")
        await until(lambda: receiver.messages, 30)
        assert subscriber.status.connected
        assert subscriber.status.last_error is None
    await channel.close()


async def test_a_backlog_of_20000_is_never_held_beyond_the_limit(bench: Bench, request: pytest.FixtureRequest) -> None:
    drained = 4_000 if "official" in request.node.name else 20_000  # Google's emulator hands out 2,000 a second
    held: list[IncomingMessage] = []
    most = 0
    total = 0

    def handler(message: IncomingMessage) -> None:
        nonlocal most
        held.append(message)
        most = max(most, len(subscriber.leases))

    for _ in range(20):
        await bench.publish(*[b"x" * 100] * 1000)
    subscriber = Subscriber(bench.channel, bench.subscription, handler, max_outstanding=100)
    async with running(subscriber):
        while total < drained:
            await until(lambda: held)
            assert subscriber.outstanding <= 100
            total += len(held)
            for message in held:
                message.ack()
            held.clear()
    # One response may be waiting in front of the handler; the rest waits at Pub/Sub or in the connection.
    assert most <= 100 + 1000


async def test_a_paused_subscriber_takes_nothing_until_it_is_resumed(bench: Bench) -> None:
    receiver = Receiver()
    subscriber = Subscriber(bench.channel, bench.subscription, receiver)
    other = Receiver()
    async with running(subscriber):
        await bench.publish(b"1")
        await until(lambda: receiver.messages)
        subscriber.pause()
        await until(lambda: subscriber.status.paused and not subscriber.status.connected)
        # Another replica gets what this one leaves.
        async with running(Subscriber(bench.channel, bench.subscription, other)):
            await bench.publish(b"2")
            await until(lambda: other.messages)
        assert receiver.bodies == [b"1"]
        subscriber.resume()
        await bench.publish(b"3")
        await until(lambda: len(receiver.messages) == 2)
    assert receiver.bodies == [b"1", b"3"]


async def test_stop_waits_for_what_is_in_work_and_hands_back_the_rest(bench: Bench) -> None:
    receiver = Receiver(settle=None)
    subscriber = Subscriber(bench.channel, bench.subscription, receiver)
    task = asyncio.create_task(subscriber.run())
    await bench.publish(b"finished", b"unfinished")
    await until(lambda: len(receiver.messages) == 2)
    finished, unfinished = sorted(receiver.messages, key=lambda message: message.data)
    stopping = asyncio.create_task(subscriber.stop(0.5))
    await asyncio.sleep(0)
    finished.ack()
    await stopping
    await task
    assert unfinished.settled
    unfinished.ack()  # too late, and harmless
    later = Receiver()
    async with running(Subscriber(bench.channel, bench.subscription, later)):
        await until(lambda: later.messages, 30)
    assert later.bodies == [b"unfinished"]


async def test_messages_of_one_ordering_key_come_in_order(bench_ordered: Bench) -> None:
    receiver = Receiver()
    async with running(Subscriber(bench_ordered.channel, bench_ordered.subscription, receiver)):
        for start in range(0, 200, 20):
            for key in ("a", "b"):
                await bench_ordered.publish(*(b"%d" % i for i in range(start, start + 20)), ordering_key=key)
        await until(lambda: len(receiver.messages) == 400)
    for key in ("a", "b"):
        assert [int(m.data) for m in receiver.messages if m.ordering_key == key] == list(range(200))


async def test_a_missing_subscription_ends_the_run_at_the_start(bench: Bench) -> None:
    subscriber = Subscriber(bench.channel, bench.subscription + "-typo", Receiver())
    with pytest.raises(SubscriptionMissing, match=r"-typo does not exist .* Create it"):
        await asyncio.wait_for(subscriber.run(), 20)


async def test_a_subscription_deleted_at_run_time_is_reported_and_used_again_when_it_is_back(bench: Bench) -> None:
    receiver = Receiver()
    subscriber = Subscriber(bench.channel, bench.subscription, receiver)
    async with running(subscriber):
        await bench.publish(b"before")
        await until(lambda: receiver.messages)
        await bench.delete_subscription()
        await until(lambda: "does not exist" in str(subscriber.status.last_error))
        assert not subscriber.status.connected
        await bench.create_subscription()
        await until(lambda: subscriber.status.connected, 30)
        await bench.publish(b"after")
        await until(lambda: b"after" in receiver.bodies, 30)


# --- against a server that answers what the test says ---


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
