"""The publisher from outside: what arrives, and what each failure tells the caller to do."""

import asyncio
from typing import Any

import grpc
import pytest

from execution.pubsub.channel import PubSubChannel, connect
from execution.pubsub.errors import PublishDenied, PublishRefused, PublishRetryable, TopicMissing
from execution.pubsub.message import IncomingMessage
from execution.pubsub.publisher import OutgoingMessage, Publisher
from execution.pubsub.subscriber import Subscriber
from tests.integration import pubsub_servers, scripted_pubsub
from tests.integration.pubsub_servers import PROJECT, Bench, FaultProxy, until
from tests.integration.scripted_pubsub import Refusal, ScriptedPubSub

official_host = pubsub_servers.official_host
server_host = pubsub_servers.server_host
bench = pubsub_servers.bench
proxy = pubsub_servers.proxy
scripted = scripted_pubsub.scripted
scripted_channel = scripted_pubsub.scripted_channel

TOPIC = f"projects/{PROJECT}/topics/scripted"


async def test_what_is_published_arrives_as_it_was(bench: Bench) -> None:
    got: list[IncomingMessage] = []

    def handler(message: IncomingMessage) -> None:
        got.append(message)
        message.ack()

    subscriber = Subscriber(bench.channel, bench.subscription, handler)
    task = asyncio.create_task(subscriber.run())
    publisher = Publisher(bench.channel)
    sent = [OutgoingMessage(b"\x00\xff%d" % i, {"n": str(i), "Grüße": "日本"}, "key") for i in range(5)]
    ids = await publisher.publish(bench.topic, sent)
    await until(lambda: len(got) == 5)
    assert {m.message_id: (m.data, m.attributes, m.ordering_key) for m in got} == {
        message_id: (m.data, m.attributes, m.ordering_key) for message_id, m in zip(ids, sent, strict=True)
    }
    assert publisher.counters.messages == 5
    await subscriber.stop(1)
    await task


async def test_more_than_a_request_takes_goes_out_in_several_and_in_order(
    scripted: ScriptedPubSub, scripted_channel: PubSubChannel
) -> None:
    many = [OutgoingMessage(b"%d" % i) for i in range(2500)]
    assert await Publisher(scripted_channel).publish(TOPIC, many) == [str(i) for i in range(2500)]
    large = [OutgoingMessage(bytes(4_000_000)) for _ in range(5)]
    assert len(await Publisher(scripted_channel).publish(TOPIC, large)) == 5
    assert [len(request.messages) for request in scripted.published] == [1000, 1000, 500, 2, 2, 1]
    assert [int(m.data) for request in scripted.published[:3] for m in request.messages] == list(range(2500))


async def test_nothing_to_publish_asks_nobody(scripted: ScriptedPubSub, scripted_channel: PubSubChannel) -> None:
    assert await Publisher(scripted_channel).publish(TOPIC, []) == []
    assert scripted.published == []


async def test_mixed_ordering_keys_are_a_mistake_of_the_caller(scripted_channel: PubSubChannel) -> None:
    with pytest.raises(ValueError, match="ordering key"):
        await Publisher(scripted_channel).publish(
            TOPIC, [OutgoingMessage(b"", ordering_key="a"), OutgoingMessage(b"", ordering_key="b")]
        )


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (grpc.StatusCode.UNAVAILABLE, PublishRetryable),
        (grpc.StatusCode.INTERNAL, PublishRetryable),
        (grpc.StatusCode.ABORTED, PublishRetryable),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, PublishRetryable),
        (grpc.StatusCode.UNKNOWN, PublishRetryable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, PublishRetryable),
        (grpc.StatusCode.PERMISSION_DENIED, PublishDenied),
        (grpc.StatusCode.UNAUTHENTICATED, PublishDenied),
        (grpc.StatusCode.NOT_FOUND, TopicMissing),
        (grpc.StatusCode.INVALID_ARGUMENT, PublishRefused),
        (grpc.StatusCode.FAILED_PRECONDITION, PublishRefused),
    ],
)
async def test_each_status_becomes_an_error_that_says_what_to_do(
    scripted: ScriptedPubSub, scripted_channel: PubSubChannel, code: grpc.StatusCode, error: type[Exception]
) -> None:
    async def answer(_: Any) -> None:
        raise Refusal(code, "because")

    scripted.answer["Publish"] = answer
    publisher = Publisher(scripted_channel)
    with pytest.raises(error, match=f"{TOPIC}: {code.name}: because") as raised:
        await publisher.publish(TOPIC, [OutgoingMessage(b"x")])
    assert isinstance(raised.value, PublishRetryable) == issubclass(error, PublishRetryable)
    assert publisher.counters.failures == 1
    assert "because" in str(publisher.counters.last_error)


async def test_no_answer_in_time_is_retryable(scripted: ScriptedPubSub, scripted_channel: PubSubChannel) -> None:
    async def never(_: Any) -> None:
        await asyncio.Event().wait()

    scripted.answer["Publish"] = never
    with pytest.raises(PublishRetryable, match="DEADLINE_EXCEEDED"):
        await Publisher(scripted_channel, timeout=0.2).publish(TOPIC, [OutgoingMessage(b"x")])


async def test_a_failure_in_the_middle_tells_what_was_published_before(
    scripted: ScriptedPubSub, scripted_channel: PubSubChannel
) -> None:
    async def second_fails(_: Any) -> None:
        if len(scripted.published) == 2:
            raise Refusal(grpc.StatusCode.UNAVAILABLE)

    scripted.answer["Publish"] = second_fails
    with pytest.raises(PublishRetryable) as raised:
        await Publisher(scripted_channel).publish(TOPIC, [OutgoingMessage(b"%d" % i) for i in range(1500)])
    assert raised.value.published == tuple(str(i) for i in range(1000))


async def test_an_oversized_message_is_refused_without_asking(
    scripted: ScriptedPubSub, scripted_channel: PubSubChannel
) -> None:
    with pytest.raises(PublishRefused, match="over Pub/Sub's"):
        await Publisher(scripted_channel).publish(TOPIC, [OutgoingMessage(bytes(10_000_000))])
    assert scripted.published == []


async def test_a_channel_closed_during_a_publish_is_not_a_cancellation(
    scripted: ScriptedPubSub, scripted_channel: PubSubChannel
) -> None:
    async def never(_: Any) -> None:
        await asyncio.Event().wait()

    scripted.answer["Publish"] = never
    channel = connect(PROJECT, scripted.host)
    publishing = asyncio.create_task(Publisher(channel).publish(TOPIC, [OutgoingMessage(b"x")]))
    await until(lambda: scripted.published)
    await channel.close()
    with pytest.raises(PublishRetryable, match="CANCELLED"):
        await publishing
    with pytest.raises(PublishRetryable):
        await Publisher(channel).publish(TOPIC, [OutgoingMessage(b"x")])


async def test_a_cancelled_publish_is_cancelled(scripted: ScriptedPubSub, scripted_channel: PubSubChannel) -> None:
    async def never(_: Any) -> None:
        await asyncio.Event().wait()

    scripted.answer["Publish"] = never
    publishing = asyncio.create_task(Publisher(scripted_channel).publish(TOPIC, [OutgoingMessage(b"x")]))
    await until(lambda: scripted.published)
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing


async def test_a_replaced_connection_lets_calls_under_way_end(
    scripted: ScriptedPubSub, scripted_channel: PubSubChannel
) -> None:
    go_on = asyncio.Event()

    async def wait(_: Any) -> None:
        await go_on.wait()

    scripted.answer["Publish"] = wait
    publisher = Publisher(scripted_channel)
    first = asyncio.create_task(publisher.publish(TOPIC, [OutgoingMessage(b"1")]))
    await until(lambda: scripted.published)
    scripted_channel.renew(0)
    scripted_channel.renew(0)  # a second user of the channel has seen the same failure
    assert scripted_channel.generation == 1
    second = asyncio.create_task(publisher.publish(TOPIC, [OutgoingMessage(b"2")]))
    await until(lambda: len(scripted.published) == 2)
    go_on.set()
    assert len(await first) == 1
    assert len(await second) == 1


async def test_a_missing_topic_and_a_refused_message_on_an_emulator(bench: Bench) -> None:
    publisher = Publisher(bench.channel)
    with pytest.raises(TopicMissing, match="Create the topic"):
        await publisher.publish(bench.topic + "-typo", [OutgoingMessage(b"x")])
    with pytest.raises(PublishRefused):
        await publisher.publish(bench.topic, [OutgoingMessage(b"")])
    assert len(await publisher.publish(bench.topic, [OutgoingMessage(b"x")])) == 1


async def test_a_publish_through_a_dead_connection_is_retryable_and_works_again(
    bench: Bench, proxy: FaultProxy
) -> None:
    channel = connect(PROJECT, proxy.host)
    publisher = Publisher(channel, timeout=1)
    await publisher.publish(bench.topic, [OutgoingMessage(b"1")])
    proxy.freeze()
    with pytest.raises(PublishRetryable, match="DEADLINE_EXCEEDED"):
        await publisher.publish(bench.topic, [OutgoingMessage(b"2")])
    channel.renew(channel.generation)
    assert len(await publisher.publish(bench.topic, [OutgoingMessage(b"2")])) == 1
    proxy.cut()
    await channel.close()
