"""What Pub/Sub refuses, in its words."""

from __future__ import annotations

import re
from typing import Any

import grpc

from execution.embedded.pubsub.filters import FilterError
from execution.embedded.pubsub.filters import parse as parse_filter

MOST_BYTES = 10_000_000
MOST_MESSAGES = 1000
_NAME = re.compile(r"projects/[^/]+/(topics|subscriptions)/([A-Za-z][A-Za-z0-9._~+%-]{2,254})")
_INVALID = grpc.StatusCode.INVALID_ARGUMENT


class Refused(Exception):
    """An error answer."""

    def __init__(self, code: grpc.StatusCode, message: str, metadata: tuple[tuple[str, bytes], ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.metadata = metadata


def name(kind: str, full: str) -> None:
    """Raises: Refused: not a name of a topic or subscription."""
    match = _NAME.fullmatch(full)
    if match is None or match.group(1) != kind or match.group(2).startswith("goog"):
        raise Refused(_INVALID, f"Invalid [{kind}] name: (name={full})")


def publish(messages: Any) -> None:
    """Raises: Refused: too many, too large, empty, or of several ordering keys."""
    if not messages:
        raise Refused(
            _INVALID, "The value for messages is too small. You passed 0 in the request, but the minimum value is 1."
        )
    if len(messages) > MOST_MESSAGES:
        raise Refused(
            _INVALID,
            f"The value for message_count is too large. You passed {len(messages)} in the request, "
            f"but the maximum value is {MOST_MESSAGES}.",
        )
    if len({message.ordering_key for message in messages}) > 1:
        raise Refused(
            _INVALID,
            "In a single publish request, all messages must have no ordering key or they must all have the same ordering key.",
        )
    size = 0
    for message in messages:
        _message(message)
        size += message.ByteSize()
    if size > MOST_BYTES:
        raise Refused(
            _INVALID,
            f"The value for request_size is too large. You passed {size} in the request, but the maximum value is {MOST_BYTES}.",
        )


def _message(message: Any) -> None:
    if not message.data and not message.attributes:
        raise Refused(
            _INVALID,
            "Some messages in the publish request are empty. Each message must have either non-empty data, or at least one attribute.",
        )
    if len(message.attributes) > 100:
        raise Refused(_INVALID, f"A message has too many attributes: {len(message.attributes)}, the maximum is 100.")
    if len(message.ordering_key.encode()) > 1024:
        raise Refused(_INVALID, "An ordering key is too long; the maximum is 1024 bytes.")
    for key, value in message.attributes.items():
        if not key or len(key.encode()) > 256 or len(value.encode()) > 1024:
            raise Refused(
                _INVALID, "An attribute is too long, or its key empty: keys hold 1 to 256 bytes, values at most 1024."
            )
        if key.startswith("goog"):
            raise Refused(_INVALID, f'The attribute key "{key}" must not begin with "goog".')


def subscription(config: Any) -> None:
    """Raises: Refused: a setting that Pub/Sub does not take, or this emulator does not have."""
    name("subscriptions", config.name)
    if config.ack_deadline_seconds and not 10 <= config.ack_deadline_seconds <= 600:
        raise Refused(
            _INVALID,
            f"Invalid ack deadline given: (ack_deadline_seconds={config.ack_deadline_seconds}); it must be between 10 and 600 seconds.",
        )
    if config.push_config.push_endpoint:
        raise Refused(grpc.StatusCode.UNIMPLEMENTED, "Push subscriptions are not part of this development emulator.")
    attempts = config.dead_letter_policy.max_delivery_attempts
    if attempts and not 5 <= attempts <= 100:
        raise Refused(_INVALID, "max_delivery_attempts must be between 5 and 100.")
    try:
        parse_filter(config.filter)
    except FilterError as error:
        raise Refused(_INVALID, f"Invalid filter: {error}") from None
