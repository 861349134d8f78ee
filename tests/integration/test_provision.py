"""Topics and subscriptions: created on an emulator, asked for by name and command on the real service."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from execution.pubsub import rpc
from execution.pubsub.channel import PubSubChannel, connect
from execution.pubsub.errors import PermissionDenied, PubSubError, PubSubNotReady, PubSubUnreachable
from execution.pubsub.names import subscription_name, topic_name
from execution.pubsub.provision import SubscriptionSpec, ensure
from tests.integration import pubsub_servers, scripted_pubsub
from tests.integration.pubsub_servers import PROJECT
from tests.integration.scripted_pubsub import Refusal, ScriptedPubSub

official_host = pubsub_servers.official_host
server_host = pubsub_servers.server_host
scripted = scripted_pubsub.scripted
scripted_channel = scripted_pubsub.scripted_channel

_numbers = itertools.count()


@pytest.fixture
async def channel(server_host: str) -> AsyncIterator[PubSubChannel]:
    channel = connect(PROJECT, server_host)
    yield channel
    await channel.close()


@pytest.fixture
def name() -> str:
    return f"provision-{next(_numbers)}"


async def found(channel: PubSubChannel, subscription: str) -> Any:
    request = rpc.GetSubscriptionRequest(subscription=subscription_name(PROJECT, subscription))
    return await channel.call(rpc.GET_SUBSCRIPTION, request, 10)


async def test_missing_resources_are_created_and_a_dead_letter_topic_is_not_left_without_subscription(
    channel: PubSubChannel, name: str
) -> None:
    spec = SubscriptionSpec(
        f"{name}-sub", f"{name}-in", ack_deadline=20, enable_ordering=True, dead_letter_topic=f"{name}-dead"
    )
    remarks = await ensure(channel, PROJECT, [f"{name}-out"], [spec], create=True)
    assert remarks == []
    subscription = await found(channel, f"{name}-sub")
    assert subscription.topic == topic_name(PROJECT, f"{name}-in")
    assert subscription.ack_deadline_seconds == 20
    assert subscription.enable_message_ordering
    assert subscription.dead_letter_policy.dead_letter_topic == topic_name(PROJECT, f"{name}-dead")
    assert (await found(channel, f"{name}-dead")).topic == topic_name(PROJECT, f"{name}-dead")
    topic = rpc.GetTopicRequest(topic=topic_name(PROJECT, f"{name}-out"))
    await channel.call(rpc.GET_TOPIC, topic, 10)
    assert await ensure(channel, PROJECT, [f"{name}-out"], [spec], create=True) == [], "the second time changes nothing"


async def test_replicas_may_provision_at_the_same_time(channel: PubSubChannel, name: str) -> None:
    spec = SubscriptionSpec(f"{name}-sub", f"{name}-in", dead_letter_topic=f"{name}-dead")
    await asyncio.gather(*(ensure(channel, PROJECT, [], [spec], create=True) for _ in range(10)))
    assert (await found(channel, f"{name}-sub")).topic == topic_name(PROJECT, f"{name}-in")


async def test_a_full_name_is_used_as_it_is(channel: PubSubChannel, name: str) -> None:
    topic = topic_name("another-project", f"{name}-in")
    spec = SubscriptionSpec(f"projects/another-project/subscriptions/{name}", topic)
    await ensure(channel, PROJECT, [], [spec], create=True)
    assert (await found(channel, spec.name)).topic == topic


async def test_what_is_missing_is_named_with_the_command_that_creates_it(channel: PubSubChannel, name: str) -> None:
    await ensure(channel, PROJECT, [f"{name}-there"], [], create=True)
    spec = SubscriptionSpec(
        f"{name}-sub",
        f"{name}-in",
        enable_ordering=True,
        dead_letter_topic=f"{name}-dead",
        filter='attributes.kind = "signal"',
    )
    with pytest.raises(PubSubNotReady) as raised:
        await ensure(channel, PROJECT, [f"{name}-there"], [spec], create=False)
    topic, dead_letter_topic, subscription, dead_letter_subscription = raised.value.problems
    assert f"gcloud pubsub topics create {name}-in --project={PROJECT}" in topic
    assert f"gcloud pubsub topics create {name}-dead " in dead_letter_topic
    assert f"gcloud pubsub subscriptions create {name}-sub --project={PROJECT}" in subscription
    for option in (
        "--enable-message-ordering",
        "--dead-letter-topic=",
        """'--message-filter=attributes.kind = "signal"'""",
    ):
        assert option in subscription
    assert f"gcloud pubsub subscriptions create {name}-dead " in dead_letter_subscription


async def test_a_subscription_of_another_topic_is_not_ready(channel: PubSubChannel, name: str) -> None:
    await ensure(channel, PROJECT, [], [SubscriptionSpec(name, f"{name}-old")], create=True)
    with pytest.raises(PubSubNotReady, match=f"delivers from .*{name}-old"):
        await ensure(channel, PROJECT, [], [SubscriptionSpec(name, f"{name}-new")], create=True)


async def test_harmless_differences_are_remarks(channel: PubSubChannel, name: str) -> None:
    await ensure(channel, PROJECT, [], [SubscriptionSpec(name, f"{name}-in")], create=True)
    wish = SubscriptionSpec(name, f"{name}-in", enable_ordering=True)
    (remark,) = await ensure(channel, PROJECT, [], [wish], create=True)
    assert "message ordering is False" in remark


async def test_a_name_that_is_not_allowed_is_refused(channel: PubSubChannel) -> None:
    with pytest.raises(PubSubError, match="INVALID_ARGUMENT"):
        await ensure(channel, PROJECT, ["goog-topic"], [], create=True)


@pytest.mark.parametrize("setting", ["projects/p/topics", "projects/p/subscriptions/x", "projects//topics/x"])
def test_a_wrong_full_name_is_refused(setting: str) -> None:
    with pytest.raises(ValueError, match="projects/PROJECT/topics/NAME"):
        topic_name(PROJECT, setting)


async def test_without_the_right_to_look_the_service_starts_with_a_remark(
    scripted: ScriptedPubSub, scripted_channel: PubSubChannel
) -> None:
    async def denied(_: Any) -> None:
        raise Refusal(grpc.StatusCode.PERMISSION_DENIED)

    scripted.answer["GetTopic"] = scripted.answer["GetSubscription"] = denied
    remarks = await ensure(scripted_channel, PROJECT, [], [SubscriptionSpec("sub", "topic")], create=False)
    assert len(remarks) == 2
    assert all("not checked" in remark for remark in remarks)


async def test_credentials_that_are_not_accepted_are_an_error(
    scripted: ScriptedPubSub, scripted_channel: PubSubChannel
) -> None:
    async def unauthenticated(_: Any) -> None:
        raise Refusal(grpc.StatusCode.UNAUTHENTICATED)

    scripted.answer["GetTopic"] = unauthenticated
    with pytest.raises(PermissionDenied):
        await ensure(scripted_channel, PROJECT, ["topic"], [], create=False)


async def test_an_emulator_that_is_not_there_is_named() -> None:
    channel = connect(PROJECT, "127.0.0.1:1")
    with pytest.raises(PubSubUnreachable, match=r"127.0.0.1:1 \(PUBSUB_EMULATOR_HOST\). Is it started"):
        await ensure(channel, PROJECT, ["topic"], [], create=True, timeout=0.5)
    await channel.close()
