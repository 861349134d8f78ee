"""The messages that this process holds, and the extension of their leases at Pub/Sub."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable

import grpc

from execution.pubsub.message import IncomingMessage
from execution.pubsub.settlement import MAX_IDS, Spawn, failures

log = logging.getLogger(__name__)

_TICK = 0.2
"""Seconds between looks at the leases; a message settled sooner than that needs no extension at all."""
_RETRY_AFTER = 1.0
_MAX_REQUESTS = 4


class Leases:
    """Messages from their receipt until they are settled.

    A message that Pub/Sub delivers again while it is held is not a new one: the held one takes over the newer lease.

    Attributes:
        extended: extensions confirmed by Pub/Sub.
        failed_requests: extension requests that did not come back with OK.
        lost: leases that Pub/Sub has declared over while the message was held.
        redelivered: deliveries of messages that were held already.
    """

    def __init__(self, extend: Callable[[list[str]], Awaitable[None]], ack_deadline: int, spawn: Spawn) -> None:
        """
        Args:
            extend: one request that sets the leases of a list of ack ids to `ack_deadline` from now.
            ack_deadline: seconds.
            spawn: starts a supervised task.
        """
        self.extended = 0
        self.failed_requests = 0
        self.lost = 0
        self.redelivered = 0
        self._extend = extend
        self._ack_deadline = ack_deadline
        self._spawn = spawn
        self._held: dict[str, IncomingMessage] = {}
        self._requests = 0
        self._any = asyncio.Event()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def oldest_age(self) -> float:
        """Seconds since the receipt of the oldest message held; 0 when none is."""
        oldest = next(iter(self._held.values()), None)
        return 0.0 if oldest is None else time.monotonic() - oldest.received_at

    def hold(self, message: IncomingMessage) -> bool:
        """Hold a message just received; False when it is held already, as another object."""
        held = self._held.get(message.message_id)
        message.lease_until = message.received_at + self._ack_deadline
        if held is not None:
            self.redelivered += 1
            held.ack_id = message.ack_id
            held.lease_until = message.lease_until
            held.extend_at = 0.0
            return False
        # Also a lease that is long enough gets its first extension soon: Pub/Sub may otherwise leave the message
        # stuck on this stream, without redelivery.
        message.extend_at = message.received_at + _TICK
        self._held[message.message_id] = message
        self._any.set()
        return True

    def release(self, message: IncomingMessage) -> None:
        """Forget a message that has been settled."""
        del self._held[message.message_id]

    def messages(self) -> list[IncomingMessage]:
        """The messages held, oldest first."""
        return list(self._held.values())

    async def run(self) -> None:
        """Extend leases, for ever."""
        while True:
            if not self._held:
                self._any.clear()
                await self._any.wait()
            await asyncio.sleep(_TICK)
            now = time.monotonic()
            due = [message for message in self._held.values() if message.extend_at <= now]
            for start in range(0, len(due), MAX_IDS):
                if self._requests >= _MAX_REQUESTS:
                    break
                batch = due[start : start + MAX_IDS]
                for message in batch:
                    message.extend_at = math.inf
                self._requests += 1
                self._spawn(self._extend_batch(batch))

    async def _extend_batch(self, batch: list[IncomingMessage]) -> None:
        by_ack_id = {message.ack_id: message for message in batch if not message.settled}
        sent_at = time.monotonic()
        again: frozenset[str] = frozenset()
        refused: frozenset[str] = frozenset()
        try:
            if by_ack_id:
                await self._extend(list(by_ack_id))
        except grpc.aio.AioRpcError as error:
            self.failed_requests += 1
            outcome = failures(error, list(by_ack_id))
            again, refused = outcome.again, outcome.refused
            log.debug("lease extension: %s: %s", error.code().name, error.details())
        finally:
            self._requests -= 1
        now = time.monotonic()
        for ack_id, message in by_ack_id.items():
            if message.ack_id != ack_id:
                continue  # delivered again meanwhile; the newer lease has its own times
            if ack_id in again:
                message.extend_at = now + _RETRY_AFTER
            elif ack_id in refused:
                self.lost += 1  # never extended again; a redelivery would bring a new lease
            else:
                self.extended += 1
                message.lease_until = sent_at + self._ack_deadline
                message.extend_at = sent_at + self._ack_deadline / 2
