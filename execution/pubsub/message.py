"""A message as it came from Pub/Sub, and how its receiver settles it."""

from collections.abc import Mapping
from typing import Protocol


class Settler(Protocol):
    """Carries a receiver's decision about a message to Pub/Sub."""

    def ack(self, message: "IncomingMessage") -> None: ...

    def nack(self, message: "IncomingMessage") -> None: ...


class IncomingMessage:
    """A message held by this process until `ack` or `nack`; its lease at Pub/Sub is extended meanwhile, without limit.

    The first of `ack` and `nack` counts, later ones do nothing. Both are to be called in the event loop's thread, and
    both only note the decision: they neither block nor raise.

    Attributes:
        data: the body.
        attributes: the attributes.
        message_id: Pub/Sub's id; the same for every delivery of one publish, another for a repeated publish.
        publish_time_ms: when Pub/Sub took it, milliseconds since the epoch.
        ordering_key: empty when unordered.
        delivery_attempt: 1 for the first one; 0 when the subscription has no dead-letter topic and Pub/Sub does not count.
        received_at: `time.monotonic()` of the arrival, seconds.
        size: bytes that count for flow control.
    """

    __slots__ = (
        "_settler",
        "ack_id",
        "attributes",
        "data",
        "delivery_attempt",
        "extend_at",
        "handed_over",
        "lease_until",
        "message_id",
        "ordering_key",
        "publish_time_ms",
        "received_at",
        "size",
    )

    def __init__(
        self,
        settler: Settler,
        *,
        data: bytes,
        attributes: Mapping[str, str],
        message_id: str,
        publish_time_ms: int,
        ordering_key: str,
        delivery_attempt: int,
        received_at: float,
        ack_id: str = "",
        lease_until: float = 0.0,
        size: int = 0,
    ) -> None:
        self._settler: Settler | None = settler
        self.data = data
        self.attributes = attributes
        self.message_id = message_id
        self.publish_time_ms = publish_time_ms
        self.ordering_key = ordering_key
        self.delivery_attempt = delivery_attempt
        self.received_at = received_at
        self.size = size
        # For the subscriber alone. The lease: its name at Pub/Sub, when it ends, when it is to be extended (monotonic
        # seconds); and whether the handler has the message already.
        self.ack_id = ack_id
        self.lease_until = lease_until
        self.extend_at = 0.0
        self.handed_over = False

    @property
    def settled(self) -> bool:
        """Whether `ack` or `nack` has been called."""
        return self._settler is None

    def ack(self) -> None:
        """Done: Pub/Sub shall not deliver it again.

        Sent with others within milliseconds and repeated while the lease lives. Should it never get through, the message
        is delivered again: a receiver has to know what it has done already.
        """
        settler, self._settler = self._settler, None
        if settler is not None:
            settler.ack(self)

    def nack(self) -> None:
        """Not done: Pub/Sub shall deliver it again, at once or by the subscription's retry policy."""
        settler, self._settler = self._settler, None
        if settler is not None:
            settler.nack(self)
