"""What a subscriber tells about itself, for health and metrics."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SubscriberStatus:
    """How a subscriber is doing now.

    Attributes:
        connected: a stream is open on a connection that stands; False while paused.
        last_response_at: monotonic seconds of the last sign of life on a stream, None before the first.
        last_error: why the last stream ended, None once a stream works again.
        streams_opened: how many streams were opened since the start.
        paused: no messages are taken in, by `pause`.
        oldest_unacked_age: seconds since the receipt of the oldest message not settled; 0 when there is none.
    """

    connected: bool
    last_response_at: float | None
    last_error: str | None
    streams_opened: int
    paused: bool
    oldest_unacked_age: float


@dataclass(slots=True)
class SubscriberCounters:
    """What a subscriber has done since it was made.

    Attributes:
        received: deliveries by Pub/Sub.
        handled: messages given to the handler.
        handler_errors: times the handler raised; each such message was nacked.
        acked, nacked: decisions taken, confirmed by Pub/Sub or not yet.
        silent_streams: streams given up because nothing was heard from them.
    """

    received: int = 0
    handled: int = 0
    handler_errors: int = 0
    acked: int = 0
    nacked: int = 0
    silent_streams: int = 0
