"""Faults that were found by reading: what the ledger, a venue or a clock does between two of our steps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from adapters.base import VenueOrderStatus
from execution.ledger import Accepted, AcceptOutcome, child_id, order_key
from execution.store import Store, StoreRefused
from schemas.order import OrderStatus
from tests.replica import Replica, until
from tests.scripted_venue import ScriptedVenue

FIRST = child_id(order_key("sig"), 1)
TWAP: dict[str, Any] = {
    "order_type": "market",
    "price": None,
    "algorithm": "twap",
    "algorithm_params": {"duration_seconds": 2, "slices": 10, "style": "aggressive"},
}


@pytest.fixture
def venue() -> ScriptedVenue:
    quoted = ScriptedVenue()
    quoted.quote = ("99.99", "100.01")
    return quoted


@pytest.fixture
async def replica(store: Store, venue: ScriptedVenue) -> AsyncIterator[Replica]:
    started = await Replica(store, {"alpha": venue}).start()
    yield started
    await started.die()


async def fill_all(venue: ScriptedVenue) -> None:
    """Whatever rests is filled soon."""
    while True:
        for name, held in list(venue.orders.items()):
            if held.status is VenueOrderStatus.OPEN:
                venue.fill(name, str(held.order.quantity - held.filled))
        await asyncio.sleep(0.02)


async def test_nothing_leaves_before_the_order_is_committed(replica: Replica, venue: ScriptedVenue) -> None:
    """The store is slow, and the order's own timer rings meanwhile."""
    accept = replica.ledger.accept
    sent_before: list[str] = []

    async def slow(*args: Any) -> AcceptOutcome:
        await asyncio.sleep(1.0)
        sent_before.extend(venue.creates)
        return await accept(*args)

    replica.market.hold("alpha", "BTC/USDT", "someone")
    await until(lambda: replica.market.feed("alpha", "BTC/USDT").book)  # type: ignore[union-attr]
    replica.ledger.accept = slow  # type: ignore[method-assign, assignment]
    assert await replica.signal(**TWAP) == Accepted()
    assert sent_before == []
    filling = asyncio.create_task(fill_all(venue))
    record = await replica.ends()
    assert record.parent.status is OrderStatus.FILLED
    filling.cancel()


async def test_an_acceptance_that_failed_leaves_nothing_that_works(replica: Replica, venue: ScriptedVenue) -> None:
    async def refused(*_: Any) -> AcceptOutcome:
        raise StoreRefused("OOM", "command not allowed")

    replica.market.hold("alpha", "BTC/USDT", "someone")
    await until(lambda: replica.market.feed("alpha", "BTC/USDT").book)  # type: ignore[union-attr]
    replica.ledger.accept = refused  # type: ignore[method-assign, assignment]
    with pytest.raises(StoreRefused):
        await replica.signal(**TWAP)
    await asyncio.sleep(1.0)
    assert venue.creates == []
