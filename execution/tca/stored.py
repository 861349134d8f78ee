"""Cost reports in the store: one hash per order, and an index by the time the order ended.

Reports are derived from the ledger and the market, so losing one loses no money: they expire, and the index is trimmed.
"""

from __future__ import annotations

import time

import msgspec

from execution.store import Store
from schemas import exact_json
from schemas.tca import CostReport

INDEX = "tca:index"
_FIELD = "report"
_AT_ONCE = 200
_decoder = msgspec.json.Decoder(CostReport)


def _key(order_id: str) -> str:
    return f"tca:{order_id}"


async def save_report(
    store: Store, report: CostReport, retention_s: int, most: int, *, now_ms: int | None = None
) -> None:
    """Keep a report for `retention_s` seconds from now, and at most the `most` latest; one of the same order is replaced.

    The commands are not one transaction: whoever is interrupted between them leaves a report that expires without having
    been in the index, never an index entry that cannot be read.

    Raises:
        StoreUnavailable, StoreRefused: it is not certain that the report is kept; saving it again does no harm.
    """
    now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    await store.call("HSET", _key(report.order_id), _FIELD, exact_json.encode(report))
    await store.call("EXPIRE", _key(report.order_id), retention_s)
    await store.call("ZADD", INDEX, report.ended_at, report.order_id)
    await store.call("ZREMRANGEBYSCORE", INDEX, "-inf", now - retention_s * 1000)
    surplus = await store.call("ZRANGE", INDEX, 0, -most - 1)
    for order_id in surplus:
        await store.call("DEL", _key(order_id.decode()))
        await store.call("ZREM", INDEX, order_id)


async def load_reports(store: Store, *, since_ms: int = 0) -> list[CostReport]:
    """The reports of orders that ended at or after a time, oldest first; one that cannot be read any more is left out.

    Raises:
        StoreUnavailable, StoreRefused: the store did not answer.
    """
    found = []
    for order_id in await store.call("ZRANGEBYSCORE", INDEX, since_ms, "+inf"):
        data = await store.call("HGET", _key(order_id.decode()), _FIELD)
        if data is None:
            continue
        try:
            found.append(_decoder.decode(data))
        except msgspec.ValidationError:  # written by another version
            continue
    return found
