"""Reading orders without owning them, for the command line and the API."""

from __future__ import annotations

from typing import Any

import msgspec

from execution.ledger import keys
from execution.ledger.keys import ShardKeys
from execution.ledger.records import LoadedOrder, parse_order
from execution.store import Store
from schemas.event import OrderEvent

_event = msgspec.json.Decoder(OrderEvent)


class Rejection(msgspec.Struct, frozen=True):
    """A signal that was refused on arrival; `event` is all there is of it."""

    event: OrderEvent


class LedgerReader:
    """A view of the ledger that writes nothing."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._shards: list[ShardKeys] = []

    async def open(self) -> None:
        """Learn how the ledger is divided.

        Raises:
            LookupError: this store holds no ledger yet.
        """
        stored = await self._store.call("GET", keys.SHARDS)
        if stored is None:
            raise LookupError("this Redis holds no orders yet: start `execution run` or `execution dev` on it first")
        self._shards = [ShardKeys(shard) for shard in range(int(stored))]

    async def order(self, identifier: str) -> LoadedOrder | Rejection | None:
        """An order by its order id or its signal id."""
        for key in await self._candidates(identifier):
            flat = await self._store.call("HGETALL", self._shard(key).order(key))
            found = parse_order(flat) or _rejection(flat)
            if found is not None:
                return found
        return None

    async def live(self) -> list[LoadedOrder]:
        """Every order that has not ended, oldest first."""
        orders = []
        for shard in self._shards:
            for key in await self._store.call("SMEMBERS", shard.live):
                order = parse_order(await self._store.call("HGETALL", shard.order(key.decode())))
                if order is not None:
                    orders.append(order)
        return sorted(orders, key=lambda order: order.parent.created_at)

    async def orders(self, status: str | None = None, limit: int = 50) -> list[LoadedOrder | Rejection]:
        """The latest orders, newest first; of one status where given. Walks the whole ledger."""
        found: list[tuple[int, LoadedOrder | Rejection]] = []
        async for name in self._store.scan("{s*}:order:*"):
            flat = await self._store.call("HGETALL", name)
            order = parse_order(flat) or _rejection(flat)
            if order is None:
                continue
            at, its = _summary(order)
            if status is None or its == status:
                found.append((at, order))
        found.sort(key=lambda item: item[0], reverse=True)
        return [order for _, order in found[:limit]]

    async def _candidates(self, identifier: str) -> list[str]:
        generated = keys.key_of_generated(identifier)
        if generated is not None:
            return [generated]
        alias = await self._store.call("GET", self._shard(identifier).alias(identifier))
        found = [keys.order_key(identifier)]
        return [alias.decode(), *found] if alias is not None else found

    def _shard(self, key: str) -> ShardKeys:
        return self._shards[keys.shard_of(key, len(self._shards))]


def _rejection(flat: Any) -> Rejection | None:
    pairs = dict(flat) if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))
    event = pairs.get(b"rejected")
    return Rejection(_event.decode(event)) if event is not None else None


def _summary(order: LoadedOrder | Rejection) -> tuple[int, str]:
    if isinstance(order, Rejection):
        return order.event.timestamp, order.event.status.value
    return order.parent.created_at, order.parent.status.value
