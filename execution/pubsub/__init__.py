"""The client side of Google Pub/Sub: a channel, a subscriber, a publisher, and what must exist before they start."""

from execution.pubsub.channel import PubSubChannel, connect
from execution.pubsub.message import IncomingMessage
from execution.pubsub.names import subscription_name, topic_name
from execution.pubsub.provision import SubscriptionSpec, ensure
from execution.pubsub.publisher import OutgoingMessage, Publisher, PublishRefused
from execution.pubsub.subscriber import Subscriber

__all__ = [
    "IncomingMessage",
    "OutgoingMessage",
    "PubSubChannel",
    "PublishRefused",
    "Publisher",
    "Subscriber",
    "SubscriptionSpec",
    "connect",
    "ensure",
    "subscription_name",
    "topic_name",
]
