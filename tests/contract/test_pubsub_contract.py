"""One contract, two servers: our Pub/Sub emulator and, where it is installed, Google's, through the unmodified client library."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import google.pubsub_v1
import grpc
import pytest
from google.api_core import exceptions
from google.cloud import pubsub_v1
from google.cloud.pubsub_v1.subscriber.message import Message
from google.protobuf import duration_pb2, field_mask_pb2, timestamp_pb2
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from execution.embedded.pubsub.faults import order_fault

_projects = itertools.count(1)

DIFFERENCES_OF_GOOGLES_EMULATOR = {
    "test_a_filter_lets_through_what_matches": "it keeps filters and ignores them",
    "test_a_bad_filter_is_refused": "it takes any filter",
    "test_a_nack_redelivers_the_message_and_all_later_ones_of_its_key": "it redelivers only the one",
    "test_a_retry_policy_delays_redelivery": "the first redelivery comes at once",
    "test_limits_of_a_publish": "it takes messages above 10 MB and of several ordering keys",
    "test_a_stream_takes_no_more_than_it_asked_for": "it has no flow control on the server's side",
    "test_a_fault_can_be_ordered": "it has none",
    "test_names_are_checked": "it takes names that begin with goog",
}
"""Test -> why it does not run there."""


@dataclass
class Side:
    """Clients for a project of its own."""

    project: str
    publisher: Any
    subscriber: Any
    raw_publisher: Any
    raw_subscriber: Any
    host: str

    @property
    def topic(self) -> str:
        return f"projects/{self.project}/topics/signals"

    @property
    def subscription(self) -> str:
        return f"projects/{self.project}/subscriptions/service"

    def make(self, **settings: Any) -> str:
        """A topic with a subscription; returns the subscription."""
        self.publisher.create_topic(name=self.topic)
        request = {"name": self.subscription, "topic": self.topic, "ack_deadline_seconds": 10, **settings}
        self.subscriber.create_subscription(request=request)
        return self.subscription

    def publish(self, *bodies: bytes, key: str = "", **attributes: str) -> list[str]:
        messages = [{"data": body, "attributes": attributes, "ordering_key": key} for body in bodies]
        return list(self.raw_publisher.publish(request={"topic": self.topic, "messages": messages}).message_ids)

    def pull(
        self, most: int = 10, seconds: float = 5.0, *, wait_for: int = 1, subscription: str | None = None
    ) -> list[Any]:
        """Messages, until so many have come or the time is over."""
        found: list[Any] = []
        deadline = time.monotonic() + seconds
        while len(found) < wait_for and time.monotonic() < deadline:
            try:
                answer = self.subscriber.pull(
                    request={"subscription": subscription or self.subscription, "max_messages": most},
                    timeout=max(deadline - time.monotonic(), 0.3),
                    retry=None,
                )
            except exceptions.DeadlineExceeded:
                break
            found.extend(answer.received_messages)
        return found

    def ack(self, messages: list[Any]) -> None:
        ids = [message.ack_id for message in messages]
        self.subscriber.acknowledge(request={"subscription": self.subscription, "ack_ids": ids})

    def nack(self, message: Any) -> None:
        request = {"subscription": self.subscription, "ack_ids": [message.ack_id], "ack_deadline_seconds": 0}
        self.subscriber.modify_ack_deadline(request=request)


@pytest.fixture(params=["embedded", pytest.param("official", marks=pytest.mark.official_emulator)])
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    name = request.node.originalname
    if request.param == "official" and name in DIFFERENCES_OF_GOOGLES_EMULATOR:
        pytest.skip(DIFFERENCES_OF_GOOGLES_EMULATOR[name])
    host = request.getfixturevalue(f"{request.param}_pubsub")
    to_publish = PublisherGrpcTransport(channel=grpc.insecure_channel(host))
    to_subscribe = SubscriberGrpcTransport(channel=grpc.insecure_channel(host))
    publisher = pubsub_v1.PublisherClient(transport=to_publish)
    subscriber = pubsub_v1.SubscriberClient(transport=to_subscribe)
    yield Side(
        f"contract-{os.getpid()}-{next(_projects)}",
        publisher,
        subscriber,
        google.pubsub_v1.PublisherClient(transport=to_publish),
        google.pubsub_v1.SubscriberClient(transport=to_subscribe),
        host,
    )
    subscriber.close()
    to_publish.close()


def bodies(messages: list[Any]) -> list[bytes]:
    return [message.message.data for message in messages]


def test_what_is_published_is_pulled_and_acknowledged(side: Side) -> None:
    side.make()
    (message_id,) = side.publish(b"hello", kind="greeting")
    (received,) = side.pull()
    assert (received.message.data, dict(received.message.attributes)) == (b"hello", {"kind": "greeting"})
    assert received.message.message_id == message_id
    assert abs(received.message.publish_time.timestamp() - time.time()) < 60
    side.ack([received])
    assert side.pull(seconds=1.0) == []


def test_every_subscription_gets_everything(side: Side) -> None:
    side.make()
    other = f"projects/{side.project}/subscriptions/other"
    side.subscriber.create_subscription(request={"name": other, "topic": side.topic})
    side.publish(b"1", b"2")
    assert sorted(bodies(side.pull(wait_for=2))) == [b"1", b"2"]
    answer = side.subscriber.pull(request={"subscription": other, "max_messages": 10}, timeout=5)
    assert sorted(bodies(answer.received_messages)) == [b"1", b"2"]


def test_a_nack_brings_it_back_under_another_ack_id(side: Side) -> None:
    side.make()
    side.publish(b"again")
    (first,) = side.pull()
    side.nack(first)
    (second,) = side.pull()
    assert second.message.message_id == first.message.message_id
    assert second.ack_id != first.ack_id


def test_a_lease_that_ends_brings_it_back_and_an_extended_one_does_not(side: Side) -> None:
    side.make()
    side.publish(b"short", b"long")
    held = {message.message.data: message for message in side.pull(wait_for=2)}
    request = {"subscription": side.subscription, "ack_ids": [held[b"long"].ack_id], "ack_deadline_seconds": 60}
    side.subscriber.modify_ack_deadline(request=request)
    assert bodies(side.pull(seconds=14.0)) == [b"short"]


def test_messages_of_a_key_come_in_order(side: Side) -> None:
    side.make(enable_message_ordering=True)
    for number in range(10):
        side.publish(str(number).encode(), key="k")
    got: list[bytes] = []
    while len(got) < 10:
        messages = side.pull(most=3)
        assert messages
        got += bodies(messages)
        side.ack(messages)
    assert got == [str(number).encode() for number in range(10)]


def test_a_nack_redelivers_the_message_and_all_later_ones_of_its_key(side: Side) -> None:
    side.make(enable_message_ordering=True)
    side.publish(b"0", b"1", b"2", key="k")
    messages = side.pull(most=10, wait_for=3)
    assert bodies(messages) == [b"0", b"1", b"2"]
    side.ack(messages[:1])
    side.nack(messages[1])
    assert bodies(side.pull(most=10, wait_for=2)) == [b"1", b"2"]


def test_a_filter_lets_through_what_matches(side: Side) -> None:
    side.make(filter='attributes.venue = "kraken" AND NOT attributes:test')
    side.publish(b"no", venue="binance")
    side.publish(b"yes", venue="kraken")
    side.publish(b"no", venue="kraken", test="1")
    assert bodies(side.pull(seconds=1.5, wait_for=2)) == [b"yes"]


def test_a_bad_filter_is_refused(side: Side) -> None:
    with pytest.raises(exceptions.InvalidArgument):
        side.make(filter="data = 1")


def test_after_enough_attempts_a_message_goes_to_the_dead_letters(side: Side) -> None:
    letters = f"projects/{side.project}/topics/letters"
    side.publisher.create_topic(name=letters)
    side.make(dead_letter_policy={"dead_letter_topic": letters, "max_delivery_attempts": 5})
    name = f"projects/{side.project}/subscriptions/letters"
    side.subscriber.create_subscription(request={"name": name, "topic": letters})
    side.publish(b"poison")
    attempts = []
    for _ in range(5):
        (message,) = side.pull()
        attempts.append(message.delivery_attempt)
        side.nack(message)
    assert attempts == [1, 2, 3, 4, 5]
    assert side.pull(seconds=2.0) == []  # Google's emulator moves it only when it is asked for again
    (found,) = side.pull(seconds=15.0, subscription=name)
    letter = found.message
    assert letter.data == b"poison"
    assert letter.attributes["CloudPubSubDeadLetterSourceSubscription"] == "service"


def test_a_retry_policy_delays_redelivery(side: Side) -> None:
    side.make(
        retry_policy={
            "minimum_backoff": duration_pb2.Duration(seconds=1),
            "maximum_backoff": duration_pb2.Duration(seconds=5),
        }
    )
    side.publish(b"later")
    (message,) = side.pull()
    side.nack(message)
    assert side.pull(seconds=0.6) == []
    assert bodies(side.pull(seconds=5.0)) == [b"later"]


def test_seek_purges_and_replays(side: Side) -> None:
    side.make(retain_acked_messages=True)
    side.publish(b"1", b"2")
    side.ack(side.pull(wait_for=2))

    def seek(seconds: float) -> None:
        moment = timestamp_pb2.Timestamp(seconds=int(time.time() + seconds))
        side.subscriber.seek(request={"subscription": side.subscription, "time": moment})

    seek(-60)
    assert sorted(bodies(side.pull(wait_for=2))) == [b"1", b"2"]
    seek(+60)
    assert side.pull(seconds=1.0) == []


def test_errors_are_those_of_the_service(side: Side) -> None:
    with pytest.raises(exceptions.NotFound):
        side.publish(b"nowhere")
    with pytest.raises(exceptions.NotFound):
        side.subscriber.pull(request={"subscription": side.subscription, "max_messages": 1}, timeout=5)
    with pytest.raises(exceptions.NotFound):
        side.subscriber.create_subscription(request={"name": side.subscription, "topic": side.topic})
    side.make()
    with pytest.raises(exceptions.AlreadyExists):
        side.publisher.create_topic(name=side.topic)
    with pytest.raises(exceptions.AlreadyExists):
        side.subscriber.create_subscription(request={"name": side.subscription, "topic": side.topic})
    with pytest.raises(exceptions.InvalidArgument):
        side.publish(b"")
    with pytest.raises(exceptions.InvalidArgument):
        side.publish(*[b"x"] * 1001)


def test_names_are_checked(side: Side) -> None:
    for name in ("ab", "goog-topic", "9lives", "with space"):
        with pytest.raises(exceptions.InvalidArgument):
            side.publisher.create_topic(name=f"projects/{side.project}/topics/{name}")


def test_limits_of_a_publish(side: Side) -> None:
    side.make()
    many = {f"k{number}": "v" for number in range(101)}
    with pytest.raises(exceptions.InvalidArgument):
        side.publish(b"x", **many)
    with pytest.raises(exceptions.InvalidArgument):
        side.publish(b"x", **{"k" * 257: "v"})
    with pytest.raises(exceptions.InvalidArgument):
        side.publish(b"x", googclient="v")
    with pytest.raises(exceptions.InvalidArgument):
        side.publish(b"x" * 10_000_001)
    mixed = [{"data": b"x", "ordering_key": key} for key in ("a", "b")]
    with pytest.raises(exceptions.InvalidArgument):
        side.raw_publisher.publish(request={"topic": side.topic, "messages": mixed})


def test_what_exists_is_listed_changed_and_deleted(side: Side) -> None:
    side.make()
    project = f"projects/{side.project}"
    assert [topic.name for topic in side.publisher.list_topics(request={"project": project})] == [side.topic]
    found = side.subscriber.list_subscriptions(request={"project": project})
    assert [subscription.name for subscription in found] == [side.subscription]
    side.subscriber.update_subscription(
        request={
            "subscription": {"name": side.subscription, "ack_deadline_seconds": 33},
            "update_mask": field_mask_pb2.FieldMask(paths=["ack_deadline_seconds"]),
        }
    )
    config = side.subscriber.get_subscription(request={"subscription": side.subscription})
    assert config.ack_deadline_seconds == 33
    side.subscriber.delete_subscription(request={"subscription": side.subscription})
    side.publisher.delete_topic(topic=side.topic)
    with pytest.raises(exceptions.NotFound):
        side.publisher.get_topic(topic=side.topic)


def test_the_librarys_subscriber_receives_and_acknowledges(side: Side) -> None:
    subscription = side.make()
    for number in range(200):
        side.publish(str(number).encode())
    got: list[bytes] = []
    done = threading.Event()

    def take(message: Message) -> None:
        got.append(message.data)
        message.ack()
        if len(set(got)) == 200:
            done.set()

    pulling = side.subscriber.subscribe(subscription, callback=take)
    assert done.wait(30)
    pulling.cancel()
    pulling.result(timeout=30)
    assert side.pull(seconds=1.0) == []


def test_a_stream_takes_no_more_than_it_asked_for(side: Side) -> None:
    side.make()
    for number in range(20):
        side.publish(str(number).encode())
    first = {
        "subscription": side.subscription,
        "stream_ack_deadline_seconds": 10,
        "max_outstanding_messages": 5,
    }
    hold = threading.Event()

    def requests() -> Iterator[Any]:
        yield pubsub_v1.types.StreamingPullRequest(first)
        hold.wait(20)

    stream = side.raw_subscriber.streaming_pull(requests=requests(), timeout=20)
    received: list[Any] = []
    for response in stream:
        received += response.received_messages
        if len(received) >= 5:
            break
    rest = side.pull(most=100, wait_for=15)
    assert (len(received), len(rest)) == (5, 15)
    stream.cancel()
    hold.set()


async def test_a_fault_can_be_ordered(side: Side) -> None:
    side.make()
    await order_fault(side.host, rpc="Publish", code="UNAVAILABLE", when="after")
    with pytest.raises(exceptions.ServiceUnavailable):
        side.raw_publisher.publish(
            request={"topic": side.topic, "messages": [{"data": b"lost answer"}]}, retry=None, timeout=5
        )
    assert bodies(side.pull()) == [b"lost answer"]
