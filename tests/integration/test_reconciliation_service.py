"""Reconciliation from outside: real replicas, a real venue, orders placed there by hand; asked for over REST, Pub/Sub and the shell."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from adapters.base import ApprovedOrder
from adapters.ccxt_venue import CcxtAdapter, parse_endpoints
from execution.embedded.pubsub.process import PubSubProcess
from execution.ledger import child_id, order_key
from schemas import exact_json
from schemas.event import EventType, OrderEvent
from schemas.terms import OrderType, Side
from tests.replica import until
from tests.system import Replica, System, venue

KEYS = {"API_KEYS": "looks:viewer-key,acts:trader-key:trader"}
SECONDS = 60.0


@pytest.fixture
async def system(redis_url: str, tmp_path: Path) -> AsyncIterator[System]:
    async with (
        venue() as at,
        await PubSubProcess.start() as pubsub,
        System(redis_url, pubsub.host, tmp_path, {"alpha": at}) as running,
    ):
        yield running


@contextlib.asynccontextmanager
async def somebody(system: System) -> AsyncIterator[CcxtAdapter]:
    """Who orders at the venue by hand, on the service's account."""
    (endpoint,) = parse_endpoints(f"alpha=binance@{system.venues['alpha'].url}")
    adapter = CcxtAdapter(endpoint, {"apiKey": "local", "secret": "local-secret"})
    await adapter.start()
    try:
        yield adapter
    finally:
        await adapter.close()


async def order(adapter: CcxtAdapter, client_order_id: str) -> None:
    await adapter.place(
        ApprovedOrder(
            client_order_id=client_order_id,
            symbol="BTC/USDT",
            side=Side.BUY,
            order_type=OrderType.LIMIT,
            quantity=Decimal("0.02"),
            price=Decimal(40_000),
        )
    )


async def post(replica: Replica, key: str | None = None, body: Any = None) -> tuple[int, Any]:
    headers = {"X-API-Key": key} if key is not None else {}
    data = exact_json.encode(body) if body is not None else None
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{replica.port}/api/v1/reconcile"
        async with session.post(url, headers=headers, data=data) as answer:
            return answer.status, exact_json.decode(await answer.read())


async def shell(system: System, *words: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "execution.cli",
        *words,
        env={**system.environment, "PATH": "/usr/bin:/bin"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), SECONDS)
    assert process.returncode is not None
    return process.returncode, out.decode() + err.decode()


async def at_venue(system: System) -> dict[str, str]:
    """The state of each order at the venue, by client order id."""
    return {row["clientOrderId"]: row["status"] for row in (await system.control().record())["orders"]}


def reconciled(system: System) -> list[OrderEvent]:
    return [event for event in system.watch.events.values() if event.event_type is EventType.RECONCILED]


async def test_what_a_person_left_at_the_venue(system: System) -> None:
    lost, orphan = child_id(order_key("sliced"), 7), child_id(order_key("nobody's"), 1)
    replicas = [await system.replica(**KEYS), await system.replica(**KEYS)]
    await system.signal(
        "sliced",
        quantity=Decimal("0.1"),
        price=40_000,
        algorithm="iceberg",
        algorithm_params={"display_quantity": "0.02"},
    )
    async with asyncio.timeout(SECONDS):
        while child_id(order_key("sliced"), 1) not in await at_venue(system):
            await asyncio.sleep(0.05)
    async with somebody(system) as by_hand:
        for name in ("by-hand", lost, orphan):
            await order(by_hand, name)

    # The one that the ledger lost is its order's again, the one that nobody works is taken off, the foreign one is left.
    async with asyncio.timeout(SECONDS):
        while (await at_venue(system))[orphan] != "CANCELED":
            await asyncio.sleep(0.1)
        while all(child.child_id != lost for child in (await system.order("sliced")).children):
            await asyncio.sleep(0.1)
    await until(lambda: any("adopted" in str(event.reason) for event in system.events("sliced")), SECONDS)
    await until(lambda: any("cancelled" in str(event.reason) for event in reconciled(system)), SECONDS)
    assert (await at_venue(system))["by-hand"] == "NEW"

    # Over REST, by every replica: once the owner of the account's own shard has looked, it is complete.
    status, answer = await post(replicas[0], "trader-key")
    assert status == 200
    assert answer["complete"], answer
    assert sorted(look["instance"] for look in answer["looks"]) == ["replica-0", "replica-1"]
    (report,) = answer["venues"]
    assert (report["foreign_orders"], report["unwatched"], report["errors"]) == (1, 0, [])
    assert report["compared"] >= 1
    assert (await post(replicas[0], "trader-key", {"venue": "nowhere"}))[0] == 404
    assert (await post(replicas[0], "trader-key", {"venues": []}))[0] == 422
    assert (await post(replicas[0], "viewer-key"))[0] == 403
    assert (await post(replicas[0]))[0] == 401

    # From the shell, and by a command, which an event answers, once.
    (code, told), (other, words) = await asyncio.gather(
        shell(system, "reconcile", "--venue", "alpha", "--json"), shell(system, "reconcile")
    )
    assert code == 0, told
    assert [venue["venue"] for venue in json.loads(told)["venues"]] == ["alpha"]
    assert other == 0, words
    assert "1 foreign orders open" in words
    for _ in range(2):
        await system.command(type="reconcile", command_id="look", reason="asked by a test")
    await until(lambda: any(event.metadata.get("command_id") == "look" for event in reconciled(system)), SECONDS)  # type: ignore[union-attr]
    answers = [event for event in reconciled(system) if event.metadata.get("command_id") == "look"]  # type: ignore[union-attr]
    assert len(answers) == 1
    assert "asked by a test" in str(answers[0].reason)
    assert answers[0].metadata["venues"][0]["foreign_orders"] == 1  # type: ignore[index]

    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{replicas[0].port}/metrics"
        async with session.get(url, headers={"X-API-Key": "viewer-key"}) as found:
            metrics = await found.text()
    for name in ("reconciled_timestamp_seconds", "foreign_orders", "unwatched_orders", "reconciliation_repairs_total"):
        assert f"execution_{name}" in metrics
