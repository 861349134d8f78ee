"""Acknowledgements and hand-backs on their way to Pub/Sub: gathered, sent in batches, repeated while the lease lives."""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

log = logging.getLogger(__name__)

MAX_IDS = 2_500
"""Ack ids that are sent in one request."""
_MAX_ID_BYTES = 480_000
"""Bytes of ack ids in one request; Pub/Sub refuses requests over 512 KiB."""
_MAX_REQUESTS = 8
_BACKOFF_FIRST = 0.1
_BACKOFF_LAST = 2.0
_FINAL = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)

Spawn = Callable[[Coroutine[Any, Any, None]], object]


@dataclass(frozen=True, slots=True)
class Failures:
    """What an answer other than OK says about the ack ids of its request."""

    again: frozenset[str]
    refused: frozenset[str]


def failures(error: grpc.aio.AioRpcError, ack_ids: list[str]) -> Failures:
    """Which ack ids to send again and which are refused for good; the others went through.

    On exactly-once subscriptions the error names its ack ids one by one, in an `ErrorInfo` detail; an error without
    such a detail stands for the whole request.
    """
    named = _named_failures(error)
    if named:
        again = frozenset(ack_id for ack_id, reason in named.items() if reason.startswith("TRANSIENT_FAILURE"))
        return Failures(again, frozenset(named) - again)
    if error.code() in _FINAL:
        return Failures(frozenset(), frozenset(ack_ids))
    return Failures(frozenset(ack_ids), frozenset())


def _named_failures(error: grpc.aio.AioRpcError) -> dict[str, str]:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return {
                        ack_id: reason
                        for ack_id, reason in info.metadata.items()
                        if reason.startswith(("TRANSIENT_FAILURE", "PERMANENT_FAILURE"))
                    }
    return {}


class SettlementQueue:
    """One kind of settlement (acks, or nacks) for one subscription.

    Attributes:
        confirmed: how many Pub/Sub has confirmed.
        lost: how many were given up, because the lease ran out or Pub/Sub refused: those messages come again.
        failed_requests: requests that did not come back with OK.
    """

    def __init__(
        self,
        name: str,
        send: Callable[[list[str]], Awaitable[None]],
        spawn: Spawn,
        gather: float,
        on_progress: Callable[[], None],
    ) -> None:
        """
        Args:
            name: for the log.
            send: one request for a list of ack ids; raises `grpc.aio.AioRpcError`.
            spawn: starts a supervised task.
            gather: seconds to wait for more before a request goes out.
            on_progress: called whenever the backlog has become smaller.
        """
        self.confirmed = 0
        self.lost = 0
        self.failed_requests = 0
        self._name = name
        self._send = send
        self._spawn = spawn
        self._gather = gather
        self._on_progress = on_progress
        self._waiting: deque[tuple[str, float]] = deque()
        self._sending = 0
        self._requests = 0
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    @property
    def backlog(self) -> int:
        """How many wait or are being sent."""
        return len(self._waiting) + self._sending

    def add(self, ack_id: str, lease_until: float) -> None:
        """Note one; it is tried until `lease_until` (monotonic seconds)."""
        if self._closed:
            self.lost += 1
            return
        self._waiting.append((ack_id, lease_until))
        self._idle.clear()
        if self._timer is None and self._requests < _MAX_REQUESTS:
            self._timer = asyncio.get_running_loop().call_later(self._gather, self._flush)

    async def drain(self, timeout: float) -> None:
        """Wait until nothing is left, at most `timeout` seconds; then give up what is."""
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            log.warning(
                "%d %s did not reach Pub/Sub before the stop; those messages come again", self.backlog, self._name
            )
        self.close()

    def close(self) -> None:
        """Give up what is not confirmed."""
        if self._closed:
            return
        self._closed = True
        self.lost += self.backlog
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _flush(self) -> None:
        self._timer = None
        while self._waiting and self._requests < _MAX_REQUESTS:
            batch: dict[str, float] = {}
            size = 0
            while self._waiting and len(batch) < MAX_IDS and size < _MAX_ID_BYTES:
                ack_id, lease_until = self._waiting.popleft()
                batch[ack_id] = lease_until
                size += len(ack_id) + 4
            self._requests += 1
            self._sending += len(batch)
            self._spawn(self._deliver(batch))

    async def _deliver(self, batch: dict[str, float]) -> None:
        count = len(batch)
        try:
            await self._send_until_settled(batch)
        finally:
            self._requests -= 1
            self._sending -= count
            if self._waiting and self._timer is None and not self._closed:
                self._flush()
            if not self.backlog:
                self._idle.set()
            self._on_progress()

    async def _send_until_settled(self, batch: dict[str, float]) -> None:
        backoff = _BACKOFF_FIRST
        while True:
            ack_ids = list(batch)
            try:
                await self._send(ack_ids)
            except grpc.aio.AioRpcError as error:
                self.failed_requests += 1
                outcome = failures(error, ack_ids)
                log.debug("%s: %s: %s", self._name, error.code().name, error.details())
            else:
                self.confirmed += len(ack_ids)
                return
            self.confirmed += len(ack_ids) - len(outcome.again) - len(outcome.refused)
            retry_at = time.monotonic() + backoff * random.uniform(0.5, 1.0)
            batch = {
                ack_id: batch[ack_id] for ack_id in ack_ids if ack_id in outcome.again and batch[ack_id] > retry_at
            }
            given_up = len(outcome.refused) + len(outcome.again) - len(batch)
            if given_up:
                self.lost += given_up
                log.warning("%d %s did not count; those messages come again", given_up, self._name)
            if not batch:
                return
            await asyncio.sleep(retry_at - time.monotonic())
            backoff = min(backoff * 2, _BACKOFF_LAST)
