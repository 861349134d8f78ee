"""What the runner asks of a ledger: the real one in Redis, or one in memory for simulations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from execution.ledger.records import AcceptOutcome, Change, Lease, LoadedOrder


class OrderLedger(Protocol):
    """See `execution.ledger.Ledger` for what each of them promises."""

    def shard_of(self, key: str) -> int: ...

    async def accept(self, key: str, content: str, change: Change, lease: Lease | None) -> AcceptOutcome: ...

    async def commit(self, key: str, change: Change, lease: Lease) -> None: ...

    async def load(self, key: str) -> LoadedOrder | None: ...

    async def believed(self, key: str) -> None: ...

    async def live(self, shard: int) -> list[str]: ...

    async def read_inbox(self, shard: int, count: int = 500) -> list[tuple[str, str, bytes]]: ...

    async def settle_inbox(self, shard: int, entries: Sequence[str]) -> None: ...
