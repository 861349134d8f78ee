"""What this replica wrote in the last moments, so that it can be written again where the store came back without it.

A store that restarts or fails over can lack writes that it had acknowledged: with `appendfsync everysec` the last second, behind
an asynchronous replica whatever had not reached it. Every write carries an operation id or a version, so that writing again what
is still there does nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto

from execution.ledger.records import Lease

SECONDS = 15.0
"""How long a write is remembered: well beyond what an acknowledged write takes to reach a disk or a replica."""
MOST_BYTES = 64 * 2**20


class Restored(Enum):
    """What became of a write that was offered again."""

    THERE = auto()
    WRITTEN = auto()
    MISSING = auto()
    """Not possible: what it builds upon is missing. Another replica, which accepted the order, may be about to write it again."""
    REFUSED = auto()
    """Not ours to write any more: the shard is another's."""


@dataclass(frozen=True, slots=True)
class Write:
    """A write that the store acknowledged at a time of our monotonic clock, and how to write it again: under the lease that we
    hold now, or None."""

    at: float
    shard: int
    size: int
    again: Callable[[Lease | None], Awaitable[Restored]]


class Journal:
    """The writes of the last seconds, in order."""

    def __init__(self) -> None:
        self._writes: deque[Write] = deque()
        self._size = 0

    def keep(self, write: Write) -> None:
        self._writes.append(write)
        self._size += write.size
        while self._size > MOST_BYTES or self._writes[0].at < write.at - SECONDS:
            self._size -= self._writes.popleft().size

    def of(self, shard: int, since: float) -> list[Write]:
        """A shard's writes since a time, oldest first."""
        return [write for write in self._writes if write.shard == shard and write.at >= since]

    def shards(self, since: float) -> list[int]:
        """The shards that were written to since a time."""
        return sorted({write.shard for write in self._writes if write.at >= since})
