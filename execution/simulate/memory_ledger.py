"""A ledger in memory: what the runner needs of one where nothing has to survive. It checks what the real one checks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal

from execution.ledger import Accepted, AcceptOutcome, Change, Duplicate, Lease, LoadedOrder, Overfill
from schemas.event import OrderEvent
from schemas.order import Role

ZERO = Decimal(0)


class _Kept:
    __slots__ = ("claims", "order_id", "sums")

    def __init__(self, order_id: str) -> None:
        self.order_id = order_id
        self.claims: dict[str, Decimal] = {}
        self.sums = {Role.ENTRY: ZERO, Role.EXIT: ZERO}


class MemoryLedger:
    """Orders are kept by the runner alone: nothing can be loaded again."""

    def __init__(self, told: Callable[[Sequence[OrderEvent]], None] | None = None) -> None:
        self.lease = Lease(0, "simulation", 1, math.inf, 0)
        self._kept: dict[str, _Kept] = {}
        self._told = told
        self.commits = 0

    def shard_of(self, key: str) -> int:
        return 0

    async def accept(self, key: str, content: str, change: Change, lease: Lease | None) -> AcceptOutcome:
        known = self._kept.get(key)
        if known is not None:
            return Duplicate(known.order_id)
        self._kept[key] = _Kept(change.parent.order_id)
        change.parent.version = 1
        self._book(key, change)
        return Accepted()

    async def commit(self, key: str, change: Change, lease: Lease) -> None:
        change.parent.version += 1
        self._book(key, change)

    def _book(self, key: str, change: Change) -> None:
        self.commits += 1
        kept = self._kept[key]
        for child in change.children:
            kept.sums[child.role] += child.claim - kept.claims.get(child.child_id, ZERO)
            kept.claims[child.child_id] = child.claim
        most = {Role.ENTRY: change.parent.quantity, Role.EXIT: change.held}
        if any(kept.sums[role] > most[role] for role in change.places):
            raise Overfill(f"order {change.parent.order_id}: children claim more than its quantity")
        if self._told is not None:
            self._told(change.events)

    async def load(self, key: str) -> LoadedOrder | None:
        return None

    async def believed(self, key: str) -> None:
        pass

    async def live(self, shard: int) -> list[str]:
        return []

    async def read_inbox(self, shard: int, count: int = 500) -> list[tuple[str, str, bytes]]:
        return []

    async def settle_inbox(self, shard: int, entries: Sequence[str]) -> None:
        pass
