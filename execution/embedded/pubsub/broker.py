"""Topics, subscriptions and leases, in memory. No I/O and no timers: the time is given, and the next due time is told."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from google.pubsub_v1 import types

from execution.embedded.pubsub.filters import parse as parse_filter

PubsubMessage = types.PubsubMessage.pb()

DEFAULT_DEADLINE = 10
SEVEN_DAYS = 7 * 86400
MOST_MESSAGES = 2_000_000
"""Messages kept in all before publishing is refused: a development tool must not take all memory."""


class Held:
    """A message on its way through one subscription."""

    __slots__ = ("acked", "attempts", "key", "message", "number", "published")

    def __init__(self, message: Any, number: int, published: float, key: str) -> None:
        self.message = message
        self.number = number
        self.published = published
        self.key = key
        """Its ordering key; empty where order does not matter."""
        self.attempts = 0
        self.acked = False


class Lease:
    """One delivery."""

    __slots__ = ("ack_id", "consumer", "held", "until")

    def __init__(self, ack_id: str, held: Held, consumer: Consumer, until: float) -> None:
        self.ack_id = ack_id
        self.held = held
        self.consumer = consumer
        self.until = until


class Consumer:
    """Who takes messages: a stream, or one pull. `most_messages` and `most_bytes` of 0 mean no bound."""

    def __init__(self, wake: Callable[[], None], *, deadline: int, most_messages: int = 0, most_bytes: int = 0) -> None:
        self.wake = wake
        self.deadline = deadline
        self.most_messages = most_messages
        self.most_bytes = most_bytes
        self.messages = 0
        self.bytes = 0
        self.beats = 0
        """Heartbeats of a stream's client that are still to be answered."""
        self.ended: tuple[str, str] | None = None
        """Set when the subscription went away: status code name and message."""

    @property
    def full(self) -> bool:
        return bool(
            (self.most_messages and self.messages >= self.most_messages)
            or (self.most_bytes and self.bytes >= self.most_bytes)
        )


class _Key:
    """The messages of one ordering key."""

    __slots__ = ("consumer", "out", "queued", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Held] = deque()
        self.out: list[Lease] = []
        self.consumer: Consumer | None = None
        self.queued = False


class Subscription:
    def __init__(self, config: Any, broker: Broker) -> None:
        self.config = config
        self._broker = broker
        self.matches = parse_filter(config.filter)
        self.consumers: list[Consumer] = []
        self.ready: deque[Held | str] = deque()
        """What can be taken: messages, and ordering keys that have some."""
        self.leases: dict[str, Lease] = {}
        self.retained: deque[Held] = deque()
        """Acknowledged messages, kept for a seek where the subscription asks for it."""
        self._keys: dict[str, _Key] = {}
        self._turn = 0

    @property
    def deadline(self) -> int:
        return int(self.config.ack_deadline_seconds) or DEFAULT_DEADLINE

    def add(self, message: Any, number: int, now: float) -> None:
        """Take a published message in, if it passes the filter."""
        if not self.matches(message.attributes):
            return
        ordered = self.config.enable_message_ordering and message.ordering_key
        self._broker.kept += 1
        self._enqueue(Held(message, number, now, message.ordering_key if ordered else ""))

    def wake(self) -> None:
        """Let consumers with room look, another first each time."""
        if self.consumers:
            self._turn = (self._turn + 1) % len(self.consumers)
            for consumer in self.consumers[self._turn :] + self.consumers[: self._turn]:
                if not consumer.full:
                    consumer.wake()

    def take(self, consumer: Consumer, most: int, now: float) -> list[Lease]:
        """Lease messages to a consumer, as far as its flow control allows."""
        taken: list[Lease] = []
        passed: list[Held | str] = []
        while self.ready and len(taken) < most and not consumer.full:
            item = self.ready.popleft()
            if isinstance(item, Held):
                taken.append(self._lease(item, consumer, now))
                continue
            key = self._keys[item]
            if key.out and key.consumer is not consumer:
                passed.append(item)  # a key's messages are out on one stream at a time
                continue
            key.consumer = consumer
            lease = self._lease(key.waiting.popleft(), consumer, now)
            key.out.append(lease)
            taken.append(lease)
            if key.waiting:
                self.ready.append(item)
            else:
                key.queued = False
        self.ready.extendleft(reversed(passed))
        return taken

    def acknowledge(self, ack_id: str) -> bool:
        """Settle a delivery; False when its lease is over."""
        lease = self.leases.pop(ack_id, None)
        if lease is None:
            return False
        self._release(lease)
        lease.held.acked = True
        if self.config.retain_acked_messages:
            self.retained.append(lease.held)
        else:
            self._broker.kept -= 1
        key = self._keys.get(lease.held.key) if lease.held.key else None
        if key is not None:
            key.out.remove(lease)
            self._offer(lease.held.key, key)
        return True

    def extend(self, ack_id: str, seconds: int, now: float) -> bool:
        """Move the end of a lease; 0 seconds give the message back. False when the lease is over."""
        lease = self.leases.get(ack_id)
        if lease is None:
            return False
        if seconds == 0:
            self.give_back(lease, now)
        else:
            lease.until = now + seconds
            self._broker.watch(self, lease)
        return True

    def give_back(self, lease: Lease, now: float) -> None:
        """A delivery failed: again later, with all later ones of its key; or to the dead-letter topic."""
        key = self._keys.get(lease.held.key) if lease.held.key else None
        leases = [lease] if key is None else key.out[key.out.index(lease) :]
        if key is not None:
            key.out = key.out[: key.out.index(lease)]
        again: list[Held] = []
        for one in leases:
            if self.leases.pop(one.ack_id, None) is not None:
                self._release(one)
                if not self._to_dead_letters(one.held, now):
                    again.append(one.held)
        delay = self._backoff(lease.held)
        if delay and again:
            self._broker.later(now + delay, lambda: self._requeue(again))
        else:
            self._requeue(again)
        if key is not None:
            self._offer(lease.held.key, key)

    def seek(self, until: float) -> None:
        """Everything published up to a time counts as acknowledged, everything after it does not."""
        for lease in list(self.leases.values()):
            del self.leases[lease.ack_id]
            self._release(lease)
        waiting = [held for held in self.ready if isinstance(held, Held)]
        waiting += [held for key in self._keys.values() for held in (*key.waiting, *(one.held for one in key.out))]
        everything = sorted({*waiting, *self.retained}, key=lambda held: held.number)
        self._broker.kept -= len(everything)
        self.ready.clear()
        self._keys.clear()
        self.retained.clear()
        for held in everything:
            if held.published > until:
                held.acked = False
                self._broker.kept += 1
                self._enqueue(held)
            elif self.config.retain_acked_messages:
                self._broker.kept += 1
                self.retained.append(held)
        self.wake()

    def leave(self, consumer: Consumer) -> None:
        """A consumer is gone. Its leases run on."""
        if consumer in self.consumers:
            self.consumers.remove(consumer)

    def expire_old(self, now: float) -> None:
        """Forget what is older than the retention."""
        seconds = self.config.message_retention_duration.seconds or SEVEN_DAYS
        while self.ready and isinstance(self.ready[0], Held) and self.ready[0].published < now - seconds:
            self.ready.popleft()
            self._broker.kept -= 1
        while self.retained and self.retained[0].published < now - seconds:
            self.retained.popleft()
            self._broker.kept -= 1

    def _enqueue(self, held: Held) -> None:
        if not held.key:
            self.ready.append(held)
            return
        key = self._keys.setdefault(held.key, _Key())
        key.waiting.append(held)
        self._offer(held.key, key)

    def _requeue(self, helds: list[Held]) -> None:
        for held in sorted(helds, key=lambda one: one.number, reverse=True):
            if held.key:
                key = self._keys.setdefault(held.key, _Key())
                key.waiting.appendleft(held)
                self._offer(held.key, key)
            else:
                self.ready.appendleft(held)
        self.wake()

    def _offer(self, name: str, key: _Key) -> None:
        if key.waiting and not key.queued:
            key.queued = True
            self.ready.append(name)
            self.wake()
        elif not key.waiting and not key.out and not key.queued:
            del self._keys[name]
        elif key.waiting:
            self.wake()

    def _lease(self, held: Held, consumer: Consumer, now: float) -> Lease:
        held.attempts += 1
        lease = Lease(self._broker.new_ack_id(), held, consumer, now + (consumer.deadline or self.deadline))
        self.leases[lease.ack_id] = lease
        consumer.messages += 1
        consumer.bytes += held.message.ByteSize()
        self._broker.watch(self, lease)
        return lease

    def _release(self, lease: Lease) -> None:
        consumer = lease.consumer
        was_full = consumer.full
        consumer.messages -= 1
        consumer.bytes -= lease.held.message.ByteSize()
        if was_full and not consumer.full and self.ready:
            consumer.wake()

    def _backoff(self, held: Held) -> float:
        policy = self.config.retry_policy
        if not self.config.HasField("retry_policy"):
            return 0.0
        least = policy.minimum_backoff.seconds + policy.minimum_backoff.nanos / 1e9
        most = policy.maximum_backoff.seconds + policy.maximum_backoff.nanos / 1e9
        if not policy.HasField("minimum_backoff"):
            least = 10.0
        if not policy.HasField("maximum_backoff"):
            most = 600.0
        return float(min(least * 2 ** min(held.attempts - 1, 30), most))

    def _to_dead_letters(self, held: Held, now: float) -> bool:
        policy = self.config.dead_letter_policy
        if not policy.dead_letter_topic:
            return False
        if held.attempts < (policy.max_delivery_attempts or 5):
            return False
        topic = self._broker.topics.get(policy.dead_letter_topic)
        if topic is None:
            return False
        letter = PubsubMessage()
        letter.CopyFrom(held.message)
        project, name = self.config.name.split("/")[1::2]
        letter.attributes["CloudPubSubDeadLetterSourceDeliveryCount"] = str(held.attempts)
        letter.attributes["CloudPubSubDeadLetterSourceSubscription"] = name
        letter.attributes["CloudPubSubDeadLetterSourceSubscriptionProject"] = project
        self._broker.kept -= 1
        self._broker.publish(topic, [letter], now)
        return True


class Topic:
    def __init__(self, config: Any) -> None:
        self.config = config
        self.subscriptions: dict[str, Subscription] = {}


class Broker:
    """All topics and subscriptions of one server."""

    def __init__(self) -> None:
        self.topics: dict[str, Topic] = {}
        self.subscriptions: dict[str, Subscription] = {}
        self.kept = 0
        self.on_due: Callable[[float], None] = lambda _: None
        """Told of a time at which `tick` should be called."""
        self._numbers = itertools.count(1)
        self._ack_ids = itertools.count(1)
        self._due: list[tuple[float, int, Any]] = []
        self._ties = itertools.count()

    def publish(self, topic: Topic, messages: Iterable[Any], now: float) -> list[str]:
        """Give messages to every subscription of a topic; returns their ids."""
        ids = []
        for message in messages:
            number = next(self._numbers)
            message.message_id = str(number)
            message.publish_time.seconds = int(now)
            message.publish_time.nanos = int(now % 1 * 1e9)
            ids.append(message.message_id)
            for subscription in topic.subscriptions.values():
                subscription.add(message, number, now)
        for subscription in topic.subscriptions.values():
            subscription.wake()
        return ids

    def subscribe(self, config: Any) -> Subscription:
        """Make a subscription; its topic must exist."""
        subscription = Subscription(config, self)
        self.subscriptions[config.name] = subscription
        self.topics[config.topic].subscriptions[config.name] = subscription
        return subscription

    def unsubscribe(self, name: str) -> None:
        """Delete a subscription and everything in it; its consumers are told."""
        subscription = self.subscriptions.pop(name)
        topic = self.topics.get(subscription.config.topic)
        if topic is not None:
            topic.subscriptions.pop(name, None)
        for consumer in subscription.consumers:
            consumer.ended = ("NOT_FOUND", f"Resource not found (resource={name.rpartition('/')[2]}).")
            consumer.wake()

    def delete_topic(self, name: str) -> None:
        """Delete a topic; its subscriptions live on without it."""
        topic = self.topics.pop(name)
        for subscription in topic.subscriptions.values():
            subscription.config.topic = "_deleted-topic_"

    def new_ack_id(self) -> str:
        return f"ack-{next(self._ack_ids)}"

    def watch(self, subscription: Subscription, lease: Lease) -> None:
        """Look at a lease when it ends."""
        self._schedule(lease.until, (subscription, lease))

    def later(self, at: float, work: Callable[[], None]) -> None:
        self._schedule(at, work)

    def tick(self, now: float) -> None:
        """Do what is due."""
        while self._due and self._due[0][0] <= now:
            _, _, work = heapq.heappop(self._due)
            if callable(work):
                work()
                continue
            subscription, lease = work
            if subscription.leases.get(lease.ack_id) is not lease:
                continue
            if lease.until > now:
                continue  # it was extended, and is watched anew
            subscription.give_back(lease, now)
        if self._due:
            self.on_due(self._due[0][0])

    def _schedule(self, at: float, work: Any) -> None:
        heapq.heappush(self._due, (at, next(self._ties), work))
        if self._due[0][0] == at:
            self.on_due(at)
