"""The outbox of a shard, as its publisher sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from execution.ledger import keys
from execution.ledger.keys import ShardKeys
from execution.ledger.records import Lease
from execution.store import Script, Store

_SCRIPTS = Path(__file__).parent / "scripts"
_PUBLISHED = Script.load(_SCRIPTS / "published.lua")
_TRADES = Script.load(_SCRIPTS / "trades.lua")
_ORDER_STATE = Script.load(_SCRIPTS / "order_state.lua")


class OutboxStore:
    """Reads outboxes, confirms what was published, and writes the keys that outside readers follow."""

    def __init__(self, store: Store, shards: list[ShardKeys]) -> None:
        self._store = store
        self._shards = shards

    async def read(self, shard: int, count: int) -> list[tuple[str, bytes]]:
        """The oldest events not yet confirmed: (entry id, JSON)."""
        entries = await self._store.call("XRANGE", self._shards[shard].outbox, "-", "+", "COUNT", count)
        return [(entry.decode(), fields[1]) for entry, fields in entries]

    async def length(self, shard: int) -> int:
        return int(await self._store.call("XLEN", self._shards[shard].outbox))

    async def published(self, lease: Lease, last: str) -> int | None:
        """Confirm events up to an entry; returns how many are left, None when the shard has changed hands."""
        at = self._shards[lease.shard]
        milliseconds, _, number = last.partition("-")
        following = f"{milliseconds}-{int(number) + 1}"
        reply = await self._store.script(
            _PUBLISHED, [at.outbox, at.outbox_cursor, at.lease], [lease.owner, lease.epoch, last, following]
        )
        return int(reply[1]) if reply[0] == b"OK" else None

    async def append_trades(self, shard: int, trades: list[tuple[str, dict[str, str]]], most: int) -> None:
        """Append trades to `STREAM:TRADE`, each once: (position in the outbox, fields); all with the same fields."""
        arguments: list[Any] = [shard, most, len(trades[0][1])]
        for position, fields in trades:
            arguments.append(position)
            for name, value in fields.items():
                arguments += [name, value]
        await self._store.script(_TRADES, [keys.STREAM_TRADE, keys.STREAM_TRADE_CURSORS], arguments)

    async def write_order_state(self, order_id: str, sequence: int, keep: int | None, fields: dict[str, str]) -> None:
        """Write `ORDER:<order_id>`; an older sequence leaves a newer one alone. `keep` in seconds, None for ever."""
        arguments: list[Any] = [sequence, "" if keep is None else keep]
        for name, value in fields.items():
            arguments += [name, value]
        await self._store.script(_ORDER_STATE, [keys.order_state(order_id)], arguments)
