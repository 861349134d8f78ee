"""The calls of Pub/Sub's gRPC interface that this service makes, as raw protobuf.

The messages behind proto-plus are used directly: wrapping costs about four times the processor time per message.
"""

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from google.protobuf import empty_pb2
from google.pubsub_v1 import types

PubsubMessage: Any = types.PubsubMessage.pb()
Topic: Any = types.Topic.pb()
Subscription: Any = types.Subscription.pb()
PublishRequest: Any = types.PublishRequest.pb()
GetTopicRequest: Any = types.GetTopicRequest.pb()
GetSubscriptionRequest: Any = types.GetSubscriptionRequest.pb()
AcknowledgeRequest: Any = types.AcknowledgeRequest.pb()
ModifyAckDeadlineRequest: Any = types.ModifyAckDeadlineRequest.pb()
StreamingPullRequest: Any = types.StreamingPullRequest.pb()
StreamingPullResponse: Any = types.StreamingPullResponse.pb()


@dataclass(frozen=True, slots=True)
class Rpc:
    """One method of the interface.

    Attributes:
        path: what goes on the wire.
        request: protobuf class of the request.
        response: protobuf class of the answer.
        routed_by: field of the request that names the resource; Google's front end routes by it.
    """

    path: str
    request: Any
    response: Any
    routed_by: str

    def routing(self, request: Any) -> tuple[str, str]:
        """The header that tells Google's front end which resource a request is for."""
        return ("x-goog-request-params", f"{self.routed_by}={quote(getattr(request, self.routed_by), safe='')}")


PUBLISH = Rpc("/google.pubsub.v1.Publisher/Publish", PublishRequest, types.PublishResponse.pb(), "topic")
GET_TOPIC = Rpc("/google.pubsub.v1.Publisher/GetTopic", GetTopicRequest, Topic, "topic")
CREATE_TOPIC = Rpc("/google.pubsub.v1.Publisher/CreateTopic", Topic, Topic, "name")
GET_SUBSCRIPTION = Rpc(
    "/google.pubsub.v1.Subscriber/GetSubscription", GetSubscriptionRequest, Subscription, "subscription"
)
CREATE_SUBSCRIPTION = Rpc("/google.pubsub.v1.Subscriber/CreateSubscription", Subscription, Subscription, "name")
ACKNOWLEDGE = Rpc("/google.pubsub.v1.Subscriber/Acknowledge", AcknowledgeRequest, empty_pb2.Empty, "subscription")
MODIFY_ACK_DEADLINE = Rpc(
    "/google.pubsub.v1.Subscriber/ModifyAckDeadline", ModifyAckDeadlineRequest, empty_pb2.Empty, "subscription"
)
STREAMING_PULL = Rpc(
    "/google.pubsub.v1.Subscriber/StreamingPull", StreamingPullRequest, StreamingPullResponse, "subscription"
)
