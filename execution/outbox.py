"""From the outbox to Pub/Sub, at least once and in order.

One publisher per owned shard reads what commits left, brings the public Redis keys up to date, publishes, and only then moves the
cursor. A crash in between repeats events with the same event ids; it never loses one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import msgspec
import structlog

from execution import failpoints
from execution.ledger import Lease, Ledger
from execution.ledger.outbox import OutboxStore
from execution.metrics import Metrics
from execution.projections import Projections
from execution.pubsub import OutgoingMessage, Publisher, PublishRefused
from execution.pubsub.errors import PubSubError
from execution.store import STORE_ERRORS
from schemas.event import OrderEvent, attributes

log = structlog.get_logger(__name__)

BATCH = 500
LONGEST_PAUSE = 5.0
LOOKS = 5.0
"""Seconds after which an outbox is looked into unasked: other replicas leave events there, too, and their word of it may be lost."""
_event = msgspec.json.Decoder(OrderEvent)


class Outbox:
    """The publishers of the shards that are ours."""

    def __init__(
        self,
        ledger: Ledger,
        store: OutboxStore,
        publisher: Publisher,
        projections: Projections,
        metrics: Metrics,
        *,
        topic: str,
        source: str,
        publishes_at_once: int = 4,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._publisher = publisher
        self._projections = projections
        self._metrics = metrics
        self._topic = topic
        self._source = source
        # While a few publishes are under way, what is committed meanwhile gathers into the next batch.
        self._turns = asyncio.Semaphore(publishes_at_once)
        self._wakes: dict[int, asyncio.Event] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self.backlog: dict[int, int] = {}
        self.last_error: str | None = None
        self.failing_since: float | None = None
        self._oldest: dict[int, int] = {}
        metrics.outbox_oldest(self.oldest_age)

    def oldest_age(self) -> float:
        """Seconds since the oldest event that is not yet out was committed."""
        return max(time.time() - min(self._oldest.values()) / 1000, 0.0) if self._oldest else 0.0

    def own(self, lease: Lease) -> None:
        """Publish a shard from now on."""
        self.disown(lease.shard)
        wake = self._wakes[lease.shard] = asyncio.Event()
        wake.set()
        self._tasks[lease.shard] = asyncio.create_task(self._run(lease, wake))

    def disown(self, shard: int) -> None:
        self._wakes.pop(shard, None)
        self.backlog.pop(shard, None)
        self._oldest.pop(shard, None)
        task = self._tasks.pop(shard, None)
        if task is not None:
            task.cancel()

    def wake(self, shard: int) -> None:
        """There is something in a shard's outbox."""
        wake = self._wakes.get(shard)
        if wake is not None:
            wake.set()

    def wake_all(self) -> None:
        for wake in self._wakes.values():
            wake.set()

    async def drain(self, shards: set[int], seconds: float) -> None:
        """Wait until shards' events are out, as long as given."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                waiting = [shard for shard in shards if shard in self._tasks and await self._store.length(shard)]
            except STORE_ERRORS:
                waiting = list(shards)  # it may be back in time
            if not waiting:
                return
            for shard in waiting:
                # What other replicas accept for a shard's owner wakes its order, which nobody works any more.
                self.wake(shard)
            await asyncio.sleep(0.02)
        log.warning("events are left to the next owner", shards=sorted(shards))

    async def _run(self, lease: Lease, wake: asyncio.Event) -> None:
        pause = 0.1
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), LOOKS)
            wake.clear()
            try:
                while await self._publish_batch(lease):
                    pause = 0.1
                self.failing_since = None
            except (PubSubError, *STORE_ERRORS) as error:
                self.last_error = str(error)
                self.failing_since = self.failing_since or time.monotonic()
                self._metrics.publish_failed()
                log.warning("events not published yet", shard=lease.shard, error=str(error), again_in=pause)
                wake.set()
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            except Exception as error:
                self.last_error = str(error)
                self._metrics.internal_error("outbox")
                log.exception("the publisher of a shard failed unexpectedly", shard=lease.shard)
                wake.set()
                await asyncio.sleep(LONGEST_PAUSE)

    async def _publish_batch(self, lease: Lease) -> bool:
        """Publish what is there; returns whether there may be more."""
        shard = lease.shard
        async with self._turns:
            entries = await self._store.read(shard, BATCH)
            if not entries:
                self.backlog[shard] = 0
                self._oldest.pop(shard, None)
                return False
            self.backlog[shard] = max(self.backlog.get(shard, 0), len(entries))
            self._oldest[shard] = int(entries[0][0].partition("-")[0])
            events = [_event.decode(data) for _, data in entries]
            await self._projections.apply(shard, [entry for entry, _ in entries], events)
            failpoints.hit("outbox.projected")
            messages = [
                OutgoingMessage(data, attributes(event, self._source), f"orders-{shard:02d}")
                for (_, data), event in zip(entries, events, strict=True)
            ]
            await self._publish(messages)
            failpoints.hit("outbox.published")
            left = await self._store.published(lease, entries[-1][0])
        if left is None:
            log.info("the shard has another publisher now", shard=shard)
            self.disown(shard)
            return False
        self.backlog[shard] = left
        self._oldest.pop(shard, None)
        self._metrics.events_published(len(entries))
        return left > 0

    async def _publish(self, messages: list[OutgoingMessage]) -> None:
        try:
            await self._publisher.publish(self._topic, messages)
        except PublishRefused:
            if len(messages) == 1:
                raise
            # One message that Pub/Sub will not take must not hold up the others: find it.
            for message in messages:
                await self._publish_alone(message)

    async def _publish_alone(self, message: OutgoingMessage) -> None:
        try:
            await self._publisher.publish(self._topic, [message])
        except PublishRefused as error:
            bare: dict[str, Any] = {key: value[:200] for key, value in message.attributes.items()}
            log.error("Pub/Sub refused an event; published without its long attributes", error=str(error))
            await self._publisher.publish(self._topic, [OutgoingMessage(message.data, bare, message.ordering_key)])
