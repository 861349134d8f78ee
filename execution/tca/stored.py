"""Cost reports in the store: one hash per order, and an index by the time the order ended.

Reports are derived from the ledger and the market, so losing one loses no money: they expire, and the index is trimmed.
"""

from __future__ import annotations

import asyncio
import time

import msgspec
import structlog

from execution.store import Store
from schemas import exact_json
from schemas.tca import CostReport

log = structlog.get_logger(__name__)

INDEX = "tca:index"
"""Sorted set of order ids; the score is when the order ended, in ms."""
_FIELD = "report"
_AT_ONCE = 200
_decoder = msgspec.json.Decoder(CostReport)


def report_key(order_id: str) -> str:
    """The hash of an order's report. Clients choose order ids, so none of them may spell another key."""
    return f"tca:order:{order_id}"


async def save_report(
    store: Store, report: CostReport, retention_s: int, most: int, *, now_ms: int | None = None
) -> None:
    """Keep a report for `retention_s` seconds from now, and at most the `most` latest; one of the same order is replaced.

    The commands are not one transaction: whoever is interrupted between them leaves a report that expires unlisted, or a
    listed order whose report is gone, which readers pass over.

    Raises:
        StoreUnavailable, StoreRefused: it is not certain that the report is kept; saving it again does no harm.
    """
    now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    key = report_key(report.order_id)
    await store.call("HSET", key, _FIELD, exact_json.encode(report))
    await store.call("EXPIRE", key, retention_s)
    await store.call("ZADD", INDEX, report.ended_at, report.order_id)
    await store.call("ZREMRANGEBYSCORE", INDEX, "-inf", f"({now - retention_s * 1000}")
    for order_id in await store.call("ZRANGE", INDEX, 0, -most - 1):
        await store.call("DEL", report_key(order_id.decode()))
        await store.call("ZREM", INDEX, order_id)


async def load_reports(store: Store, *, since_ms: int = 0) -> list[CostReport]:
    """The reports of orders that ended at or after a time, oldest first. One that cannot be read any more is logged and left out.

    Raises:
        StoreUnavailable, StoreRefused: the store did not answer.
    """
    order_ids = [order_id.decode() for order_id in await store.call("ZRANGEBYSCORE", INDEX, since_ms, "+inf")]
    found = []
    for start in range(0, len(order_ids), _AT_ONCE):
        wanted = order_ids[start : start + _AT_ONCE]
        texts = await asyncio.gather(*(store.call("HGET", report_key(order_id), _FIELD) for order_id in wanted))
        for order_id, text in zip(wanted, texts, strict=True):
            report = None if text is None else _read(order_id, text)
            if report is not None:
                found.append(report)
    return found


def _read(order_id: str, text: bytes) -> CostReport | None:
    try:
        return _decoder.decode(text)
    except msgspec.DecodeError as error:  # written by another version
        log.warning("a cost report cannot be read", order_id=order_id, error=str(error))
        return None
