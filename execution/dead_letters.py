"""What could not be identified goes to the dead-letter topic."""

from __future__ import annotations

from execution.pubsub import IncomingMessage, OutgoingMessage, Publisher


class DeadLetters:
    """What could not be identified goes to the dead-letter topic, with the reason and where it came from."""

    def __init__(self, publisher: Publisher, topic: str) -> None:
        self._publisher = publisher
        self._topic = topic

    async def __call__(self, message: IncomingMessage, reason: str) -> None:
        attributes = {key: value for key, value in message.attributes.items() if not key.startswith("dead-letter-")}
        attributes |= {
            "dead-letter-reason": reason[:900],
            "dead-letter-message-id": message.message_id,
            "dead-letter-publish-time-ms": str(message.publish_time_ms),
        }
        body = message.data or b"\0"  # Pub/Sub takes no message without a body when its attributes are gone
        await self._publisher.publish(self._topic, [OutgoingMessage(body, attributes)])
