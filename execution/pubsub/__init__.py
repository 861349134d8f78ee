"""The client side of Google Pub/Sub: a channel, a subscriber, a publisher, and what must exist before they start."""

from execution.pubsub.channel import PubSubChannel, connect
from execution.pubsub.errors import (
    NoCredentials,
    PermissionDenied,
    PublishDenied,
    PublishError,
    PublishRefused,
    PublishRetryable,
    PubSubError,
    PubSubNotReady,
    PubSubUnreachable,
    SubscriptionMissing,
    SubscriptionUnusable,
    TopicMissing,
)
from execution.pubsub.library_subscriber import LibrarySubscriber
from execution.pubsub.message import IncomingMessage
from execution.pubsub.names import subscription_name, topic_name
from execution.pubsub.provision import SubscriptionSpec, ensure
from execution.pubsub.publisher import OutgoingMessage, Publisher
from execution.pubsub.status import SubscriberCounters, SubscriberStatus
from execution.pubsub.subscriber import Subscriber

__all__ = [
    "IncomingMessage",
    "LibrarySubscriber",
    "NoCredentials",
    "OutgoingMessage",
    "PermissionDenied",
    "PubSubChannel",
    "PubSubError",
    "PubSubNotReady",
    "PubSubUnreachable",
    "PublishDenied",
    "PublishError",
    "PublishRefused",
    "PublishRetryable",
    "Publisher",
    "Subscriber",
    "SubscriberCounters",
    "SubscriberStatus",
    "SubscriptionMissing",
    "SubscriptionSpec",
    "SubscriptionUnusable",
    "TopicMissing",
    "connect",
    "ensure",
    "subscription_name",
    "topic_name",
]
