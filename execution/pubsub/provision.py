"""What must exist before the service starts: created on an emulator, asked for by name on the real service."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from execution.pubsub import rpc
from execution.pubsub.channel import PubSubChannel
from execution.pubsub.errors import PermissionDenied, PubSubError, PubSubNotReady, PubSubUnreachable
from execution.pubsub.names import project_of, short_name, subscription_name, topic_name

_RETENTION_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class SubscriptionSpec:
    """A subscription as the service needs it. Names are short or full.

    Attributes:
        ack_deadline: seconds, 10 to 600, after which an unacknowledged message is delivered again.
        enable_ordering: deliver messages of one ordering key in order.
        dead_letter_topic: where Pub/Sub puts a message after `max_delivery_attempts` (5 to 100).
        filter: expression over attributes; messages that do not match never arrive. Fixed once created.
    """

    name: str
    topic: str
    ack_deadline: int = 30
    enable_ordering: bool = False
    dead_letter_topic: str | None = None
    max_delivery_attempts: int = 20
    filter: str = ""


async def ensure(
    channel: PubSubChannel,
    project: str,
    topics: Sequence[str],
    subscriptions: Sequence[SubscriptionSpec],
    create: bool,
    timeout: float = 15.0,
) -> list[str]:
    """Check that topics and subscriptions exist, and create those that do not if `create` is set.

    Topics named by a subscription count as wanted too, and a dead-letter topic gets a subscription of its own name: what
    arrives at a topic without a subscription is lost. Replicas may do this at the same time.

    Args:
        project: project of short names.
        topics: short or full names.
        create: normally `channel.is_emulator`.
        timeout: seconds for each question, to a server that may still be starting.

    Returns:
        Remarks for the log: what differs from the wish without harm, what could not be checked.

    Raises:
        PubSubNotReady: something is missing and may not be created, or delivers from another topic.
        PubSubUnreachable: no answer.
        PermissionDenied: creating was refused.
        PubSubError: any other refusal, such as a name that is not allowed.
    """
    specs = [_resolved(project, spec) for spec in subscriptions]
    dead_letter_topics = dict.fromkeys(spec.dead_letter_topic for spec in specs if spec.dead_letter_topic)
    specs += [SubscriptionSpec(_namesake(topic), topic) for topic in dead_letter_topics]
    wanted_topics = dict.fromkeys(
        [*(topic_name(project, topic) for topic in topics), *(spec.topic for spec in specs), *dead_letter_topics]
    )
    problems: list[str] = []
    remarks: list[str] = []
    for topic in wanted_topics:
        if await _get(channel, rpc.GET_TOPIC, rpc.GetTopicRequest(topic=topic), remarks, timeout) is _MISSING:
            if create:
                await _create(channel, rpc.CREATE_TOPIC, rpc.Topic(name=topic), timeout)
            else:
                problems.append(f"topic {topic} does not exist; create it: {_create_topic_command(topic)}")
    for spec in dict.fromkeys(specs):
        request = rpc.GetSubscriptionRequest(subscription=spec.name)
        found = await _get(channel, rpc.GET_SUBSCRIPTION, request, remarks, timeout)
        if found is _MISSING:
            if create:
                await _create(channel, rpc.CREATE_SUBSCRIPTION, _wished(spec), timeout)
            else:
                problems.append(
                    f"subscription {spec.name} does not exist; create it: {_create_subscription_command(spec)}"
                )
        elif found is not None:
            _compare(found, spec, problems, remarks)
    if problems:
        raise PubSubNotReady(problems)
    return remarks


_MISSING = object()


async def _get(channel: PubSubChannel, method: rpc.Rpc, request: Any, remarks: list[str], timeout: float) -> Any:
    """The resource; `_MISSING`; or None when it may not be looked at."""
    try:
        return await channel.call(method, request, timeout, wait_for_ready=True)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return _MISSING
        name = getattr(request, method.routed_by)
        if error.code() is grpc.StatusCode.PERMISSION_DENIED:
            # Publishing and subscribing do not need the right to look; the subscriber and publisher will tell.
            remarks.append(f"{name}: not checked, this account may not look at it (roles/pubsub.viewer)")
            return None
        raise _failure(channel, name, error) from error


async def _create(channel: PubSubChannel, method: rpc.Rpc, resource: Any, timeout: float) -> None:
    try:
        await channel.call(method, resource, timeout, wait_for_ready=True)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.ALREADY_EXISTS:  # another replica was first
            raise _failure(channel, resource.name, error) from error


def _failure(channel: PubSubChannel, name: str, error: grpc.aio.AioRpcError) -> PubSubError:
    text = f"{name}: {error.code().name}: {error.details()}"
    match error.code():
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED if channel.is_emulator:
            return PubSubUnreachable(
                f"no Pub/Sub emulator answers at {channel.emulator_host} (PUBSUB_EMULATOR_HOST). Is it started? {text}"
            )
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED:
            return PubSubUnreachable(f"Pub/Sub does not answer at {channel.endpoint}: {text}")
        case grpc.StatusCode.PERMISSION_DENIED | grpc.StatusCode.UNAUTHENTICATED:
            return PermissionDenied(f"{text}. Grant roles/pubsub.editor, or create it beforehand")
        case _:
            return PubSubError(text)


def _compare(found: Any, spec: SubscriptionSpec, problems: list[str], remarks: list[str]) -> None:
    if found.topic != spec.topic:
        problems.append(
            f"subscription {spec.name} delivers from {found.topic}, not from {spec.topic}; delete it and create it again: "
            f"{_create_subscription_command(spec)}"
        )
    if found.push_config.push_endpoint:
        problems.append(f"subscription {spec.name} pushes to {found.push_config.push_endpoint}; it must be a pull one")
    differences = {
        "message ordering": (found.enable_message_ordering, spec.enable_ordering),
        "filter": (found.filter, spec.filter),
        "dead-letter topic": (found.dead_letter_policy.dead_letter_topic, spec.dead_letter_topic or ""),
    }
    for what, (is_, wished) in differences.items():
        if is_ != wished:
            remarks.append(f"subscription {spec.name}: {what} is {is_!r}, {wished!r} is recommended")


def _resolved(project: str, spec: SubscriptionSpec) -> SubscriptionSpec:
    return SubscriptionSpec(
        name=subscription_name(project, spec.name),
        topic=topic_name(project, spec.topic),
        ack_deadline=spec.ack_deadline,
        enable_ordering=spec.enable_ordering,
        dead_letter_topic=topic_name(project, spec.dead_letter_topic) if spec.dead_letter_topic else None,
        max_delivery_attempts=spec.max_delivery_attempts,
        filter=spec.filter,
    )


def _namesake(topic: str) -> str:
    return subscription_name(project_of(topic), short_name(topic))


def _wished(spec: SubscriptionSpec) -> Any:
    wish = rpc.Subscription(
        name=spec.name,
        topic=spec.topic,
        ack_deadline_seconds=spec.ack_deadline,
        enable_message_ordering=spec.enable_ordering,
        filter=spec.filter,
    )
    wish.message_retention_duration.FromSeconds(_RETENTION_SECONDS)
    if spec.dead_letter_topic:
        wish.dead_letter_policy.dead_letter_topic = spec.dead_letter_topic
        wish.dead_letter_policy.max_delivery_attempts = spec.max_delivery_attempts
    return wish


def _create_topic_command(topic: str) -> str:
    return shlex.join(["gcloud", "pubsub", "topics", "create", short_name(topic), f"--project={project_of(topic)}"])


def _create_subscription_command(spec: SubscriptionSpec) -> str:
    command = [
        "gcloud",
        "pubsub",
        "subscriptions",
        "create",
        short_name(spec.name),
        f"--project={project_of(spec.name)}",
    ]
    command += [f"--topic={spec.topic}", f"--ack-deadline={spec.ack_deadline}", "--expiration-period=never"]
    if spec.enable_ordering:
        command.append("--enable-message-ordering")
    if spec.dead_letter_topic:
        command.append(f"--dead-letter-topic={spec.dead_letter_topic}")
        command.append(f"--max-delivery-attempts={spec.max_delivery_attempts}")
    if spec.filter:
        command.append(f"--message-filter={spec.filter}")
    return shlex.join(command)
