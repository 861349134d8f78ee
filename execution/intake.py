"""Messages of one subscription, each handled until what it says is durable, and only then acknowledged.

While the store or a topic does not answer, or a venue has not started yet, messages are held, and the flow control of Pub/Sub keeps the rest. A message on which
the service itself fails again and again goes to the dead-letter topic, with the reason: it must not hold a place for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from adapters.base import Unavailable
from execution import failpoints
from execution.ledger import Fenced, LedgerMismatch
from execution.metrics import Metrics
from execution.pubsub import IncomingMessage
from execution.pubsub.errors import PubSubError
from execution.store import STORE_ERRORS

log = structlog.get_logger(__name__)

DeadLetter = Callable[[IncomingMessage, str], Awaitable[None]]
LONGEST_PAUSE = 5.0
MOST_FAILURES = 5
AT_ONCE = 64
"""Messages worked on at a time. More would make nothing faster, but every turn of the event loop longer: lease renewals,
cancels and events would wait behind a burst."""


class Intake:
    def __init__(
        self,
        name: str,
        take: Callable[[IncomingMessage], Awaitable[None]],
        dead_letter: DeadLetter,
        metrics: Metrics,
        *,
        room: asyncio.Event | None = None,
    ) -> None:
        """`take` returns once a message is durable. Nothing new is taken while `room` is not set."""
        self._name = name
        self._take = take
        self._dead_letter = dead_letter
        self._metrics = metrics
        self._room = room
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, message: IncomingMessage) -> None:
        """Take a message from the subscriber."""
        task = asyncio.get_running_loop().create_task(self._settle(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self, seconds: float) -> None:
        """Wait for what is under way; the rest is not acknowledged, and Pub/Sub delivers it again."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            for task in late:
                task.cancel()

    async def _settle(self, message: IncomingMessage) -> None:
        pause, failures = 0.1, 0
        while True:
            try:
                async with self._turns:
                    if self._room is not None:
                        await self._room.wait()
                    if failures < MOST_FAILURES:
                        await self._take(message)
                    else:
                        await self._dead_letter(message, "the service failed on it again and again; see its log")
            except (*STORE_ERRORS, PubSubError, Fenced, LedgerMismatch, Unavailable) as error:
                log.error("message held", of=self._name, message_id=message.message_id, error=str(error))
            except Exception:
                failures += 1
                self._metrics.internal_error(self._name)
                log.exception("a message failed unexpectedly", of=self._name, message_id=message.message_id)
            else:
                failpoints.hit(f"{self._name}.before_ack")
                message.ack()
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
