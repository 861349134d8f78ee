"""Pub/Sub in the simulation: at least once, late, twice, out of order, and now and then not at all for a while."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from execution.pubsub import IncomingMessage, OutgoingMessage
from execution.pubsub.errors import PublishRetryable
from tests.simulation.loop import REPLICA


@dataclass
class Faults:
    """How likely what is, per message or publish."""

    duplicate: float = 0.0
    late: float = 0.0
    longest_delay: float = 5.0
    lost_answer: float = 0.0


@dataclass
class _Kept:
    message_id: str
    message: OutgoingMessage
    published_ms: int
    deliveries: int = 0
    acked: bool = False


@dataclass
class Subscription:
    """One subscription: its receivers share its messages."""

    kept: dict[str, _Kept] = field(default_factory=dict)
    receivers: dict[str, Callable[[IncomingMessage], None]] = field(default_factory=dict)


class SimBus:
    """Topics with one subscription each. What a receiver does not acknowledge in time is delivered again, to any of them."""

    DEADLINE = 10.0

    def __init__(self, seed: random.Random, now_ms: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self._random = seed
        self._now_ms = now_ms
        self._monotonic = monotonic
        self.faults = Faults()
        self.down_until = 0.0
        self.streams = 1
        """Which stream of a receiver this is: each outage ends one."""
        self.topics: dict[str, Subscription] = {}
        self.acknowledged: Callable[[str, bytes], None] = lambda _topic, _data: None
        """Called with the topic and the data of each message that is acknowledged."""
        self._ids = 0

    @property
    def up(self) -> bool:
        return self._monotonic() >= self.down_until

    def down(self, seconds: float) -> None:
        """Nothing is taken or delivered for so long."""
        self.down_until = self._monotonic() + seconds
        self.streams += 1

    def topic(self, name: str) -> Subscription:
        return self.topics.setdefault(name, Subscription())

    def receive(self, topic: str, replica: str, receiver: Callable[[IncomingMessage], None]) -> None:
        """A replica begins to receive."""
        subscription = self.topic(topic)
        subscription.receivers[replica] = receiver
        for message_id, kept in subscription.kept.items():
            if not kept.acked:
                self._later(0.01, topic, message_id)

    def leave(self, replica: str) -> None:
        """A replica is gone; what it held comes back when its time is over."""
        for subscription in self.topics.values():
            subscription.receivers.pop(replica, None)

    async def publish(self, topic: str, messages: Sequence[OutgoingMessage]) -> list[str]:
        """Publish as `Publisher.publish` does: in order within a call; an error may mean that it was taken all the same."""
        await asyncio.sleep(self._random.uniform(0.001, 0.02))
        if not self.up:
            raise PublishRetryable("the simulation's Pub/Sub is down")
        ids = []
        for message in messages:
            self._ids += 1
            message_id = str(self._ids)
            self.topic(topic).kept[message_id] = _Kept(message_id, message, self._now_ms())
            ids.append(message_id)
            self._later(self._delay(), topic, message_id)
        if self._random.random() < self.faults.lost_answer:
            raise PublishRetryable("the answer to a publish was lost")
        return ids

    # --- delivery -----------------------------------------------------------------------------------------------------

    def _delay(self) -> float:
        if self._random.random() < self.faults.late:
            return self._random.uniform(0.1, self.faults.longest_delay)
        return self._random.uniform(0.001, 0.01)

    def _later(self, seconds: float, topic: str, message_id: str) -> None:
        token = REPLICA.set("")  # a delivery belongs to nobody
        try:
            asyncio.get_running_loop().call_later(seconds, self._deliver, topic, message_id)
        finally:
            REPLICA.reset(token)

    def _deliver(self, topic: str, message_id: str) -> None:
        subscription = self.topic(topic)
        kept = subscription.kept[message_id]
        if kept.acked:
            return
        if not self.up or not subscription.receivers:
            if subscription.receivers:
                self._later(1.0, topic, message_id)
            return
        names = sorted(subscription.receivers)
        chosen = [self._random.choice(names)]
        if self._random.random() < self.faults.duplicate:
            chosen.append(self._random.choice(names))
        for name in chosen:
            kept.deliveries += 1
            message = IncomingMessage(
                _Settler(self, topic, kept),
                data=kept.message.data,
                attributes=dict(kept.message.attributes),
                message_id=message_id,
                publish_time_ms=kept.published_ms,
                ordering_key=kept.message.ordering_key or "",
                delivery_attempt=kept.deliveries,
                received_at=self._monotonic(),
            )
            receiver = subscription.receivers[name]
            token = REPLICA.set(name)
            try:
                asyncio.get_running_loop().call_soon(receiver, message)
            finally:
                REPLICA.reset(token)
        self._later(self.DEADLINE, topic, message_id)


class _Settler:
    def __init__(self, bus: SimBus, topic: str, kept: _Kept) -> None:
        self._bus = bus
        self._topic = topic
        self._kept = kept

    def ack(self, message: IncomingMessage) -> None:
        self._kept.acked = True
        self._bus.acknowledged(self._topic, self._kept.message.data)

    def nack(self, message: IncomingMessage) -> None:
        self._bus._later(0.1, self._topic, self._kept.message_id)
