"""Reconciliation on request, by every replica: each looks at the orders of its own shards, so one answer would be a part only.

Who asks publishes a word on the wake channel and collects the answers from a hash in the store, where each replica leaves its own.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import msgspec
import structlog

from execution.ledger import keys
from execution.reconcile.reconciler import Reconciler
from execution.reconcile.report import VenueReport
from execution.store import STORE_ERRORS, Store
from schemas import exact_json

log = structlog.get_logger(__name__)

WORD = "reconcile"
"""How the message on the wake channel begins: `reconcile <id> <venue, or nothing>`."""
ANSWER_SECONDS = 30.0
"""How long replicas are waited for."""
KEPT_SECONDS = 600
POLL = 0.05

_reports = msgspec.json.Decoder(list[VenueReport])


class Answer(msgspec.Struct, kw_only=True):
    """What the replicas answered."""

    request_id: str
    reports: list[VenueReport] = []
    silent: list[str] = []
    """Replicas that did not answer in time."""

    @property
    def complete(self) -> bool:
        """Whether every replica compared everything, and at least one did."""
        return bool(self.reports) and not self.silent and not any(report.errors for report in self.reports)

    def fields(self) -> dict[str, Any]:
        """As JSON is written of it: by venue the replicas' looks added up, and each of them."""
        return {
            "request_id": self.request_id,
            "complete": self.complete,
            "silent": self.silent,
            "venues": self.by_venue(),
            "looks": self.reports,
        }

    def by_venue(self) -> list[VenueReport]:
        """One report per venue, the replicas' added up. What is open on the account, and what is foreign there, is the same for all."""
        found: dict[str, VenueReport] = {}
        for report in sorted(self.reports, key=lambda report: (report.venue, report.instance)):
            total = found.get(report.venue)
            if total is None:
                found[report.venue] = msgspec.structs.replace(report)
                continue
            total.instance += f", {report.instance}"
            total.at = min(total.at, report.at)
            total.seconds = max(total.seconds, report.seconds)
            total.open_orders = max(total.open_orders, report.open_orders)
            total.fills = max(total.fills, report.fills)
            for name in (
                "compared",
                "ended",
                "unwatched",
                "fills_booked",
                "fills_unbooked",
                "foreign_orders",
                "foreign_fills",
            ):
                setattr(total, name, getattr(total, name) + getattr(report, name))
            for name in ("adopted", "cancelled", "drifts", "errors"):
                setattr(total, name, [*getattr(total, name), *getattr(report, name)])
        return list(found.values())


async def ask(store: Store, venue: str | None = None, *, seconds: float = ANSWER_SECONDS) -> Answer:
    """Have every replica look now, at one venue or at all, and wait for what they say.

    Raises:
        StoreUnavailable, StoreRefused
    """
    request_id = uuid.uuid4().hex
    replicas = await _alive(store)
    await store.call("PUBLISH", keys.WAKE_CHANNEL, f"{WORD} {request_id} {venue or ''}")
    answer, give_up = Answer(request_id=request_id), time.monotonic() + seconds
    while True:
        flat = await store.call("HGETALL", _key(request_id))
        told = {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}
        awaited = replicas - told.keys()
        if awaited:
            awaited &= await _alive(store)
        if not awaited or time.monotonic() > give_up:
            answer.reports = [report for value in told.values() for report in _reports.decode(value)]
            answer.silent = sorted(replicas - told.keys())
            return answer
        await asyncio.sleep(POLL)


async def answer(word: str, store: Store, reconciler: Reconciler, instance: str) -> None:
    """Look as a message on the wake channel asks, and leave what was found."""
    _, request_id, venue = word.split(" ", 2)
    try:
        reports = await reconciler.reconcile([venue] if venue else [])
        await store.call("HSET", _key(request_id), instance, exact_json.encode(reports))
        await store.call("EXPIRE", _key(request_id), KEPT_SECONDS)
    except STORE_ERRORS as error:
        log.warning("a request to reconcile was not answered", error=str(error))
    except Exception:
        log.exception("a request to reconcile was not answered")


async def _alive(store: Store) -> set[str]:
    return {name.decode() for name in await store.call("ZRANGE", keys.REPLICAS, 0, -1)}


def _key(request_id: str) -> str:
    return f"execution:reconcile:{request_id}"
