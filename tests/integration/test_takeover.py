"""Who takes a shard over: what it asks the venue, and what it knows of commands that were carried out before."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

from adapters.base import VenueOrder
from execution import open_listings
from execution.ledger import child_id, order_key
from execution.store import Store
from schemas.command import parse
from schemas.event import EventType
from schemas.order import OrderStatus
from tests.replica import Replica, until
from tests.scripted_venue import ScriptedVenue

ORDERS = 200


async def test_many_open_orders_are_confirmed_by_a_listing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What filled and what is gone meanwhile is in no listing of open orders, and is asked for by itself."""
    venue = ScriptedVenue()
    first = await Replica(store, {"alpha": venue}, "a").start()
    names = [f"sig{number}" for number in range(ORDERS)]
    await asyncio.gather(*(first.signal(name) for name in names))
    await until(lambda: len(venue.orders) == ORDERS)
    await asyncio.sleep(0.2)
    await first.die()
    for name in names[:10]:
        venue.fill(child_id(order_key(name), 1), "10", tell=False)
    venue.fill(child_id(order_key(names[20]), 1), "4", tell=False)
    asked: list[str] = []
    listings = 0
    find, open_orders = venue.find, venue.open_orders

    async def counted(symbol: str, client_order_id: str, venue_order_id: str | None = None) -> VenueOrder | None:
        asked.append(client_order_id)
        await asyncio.sleep(0.01)
        return await find(symbol, client_order_id, venue_order_id)

    async def listed(symbol: str | None = None) -> list[VenueOrder]:
        nonlocal listings
        listings += 1
        await asyncio.sleep(0.01)
        return await open_orders(symbol)

    monkeypatch.setattr(venue, "find", counted)
    monkeypatch.setattr(venue, "open_orders", listed)
    monkeypatch.setattr(open_listings, "AT_ONCE", 4)
    second = await Replica(store, {"alpha": venue}, "b").start()

    async def confirmed() -> bool:
        ended = [(await second.order(name)).parent.status for name in names[:10]]
        return ended == [OrderStatus.FILLED] * 10

    while not await confirmed():
        await asyncio.sleep(0.02)
    await until(lambda: not any(actor._requests.refreshing for actor in second.runner.actors()))
    assert (await second.order(names[20])).children[0].filled == Decimal(4)
    assert listings >= 1
    assert len(asked) < ORDERS / 2
    assert {child_id(order_key(name), 1) for name in names[:10]} <= set(asked)
    await second.die()


async def test_a_shard_is_in_doubt_until_a_venue_that_starts_later_was_asked(store: Store) -> None:
    """The store may have forgotten something, and its venue cannot be asked yet: another owner would have to ask as well."""
    alpha, beta = ScriptedVenue("alpha"), ScriptedVenue("beta")
    first = await Replica(store, {"alpha": alpha, "beta": beta}, "a", shards=1).start()
    await first.signal("sig", exchange="beta")
    await until(lambda: len(beta.orders) == 1)
    await first.die()
    await store.call("HSET", first.ledger.shards[0].lease, "run", "another process of the store")
    rules, asked = beta.rules, list[str]()
    find = beta.find

    async def counted(symbol: str, client_order_id: str, venue_order_id: str | None = None) -> VenueOrder | None:
        asked.append(client_order_id)
        return await find(symbol, client_order_id, venue_order_id)

    beta.find = counted  # type: ignore[method-assign]
    beta.health.ready, beta.rules = False, lambda _: None  # type: ignore[method-assign]
    second = await Replica(store, {"alpha": alpha, "beta": beta}, "b", shards=1).start()
    lease = second.leases.owned[0]
    await asyncio.sleep(1.5)
    assert lease.suspect
    beta.health.ready, beta.rules = True, rules  # type: ignore[method-assign]
    assert await second.runner.find(order_key("sig")) is not None
    await until(lambda: not lease.suspect)
    assert child_id(order_key("sig"), 2) in asked
    await second.die()


async def _told(replica: Replica, command_id: str, **fields: Any) -> None:
    await replica.commands._carry_out(parse({"signal_id": "sig", "reason": command_id, **fields}), command_id)  # type: ignore[arg-type]


async def test_a_command_that_comes_again_at_the_next_owner_is_not_carried_out_again(store: Store) -> None:
    """Its message was not acknowledged: whoever carried it out died just after the commit."""
    venue = ScriptedVenue()
    first = await Replica(store, {"alpha": venue}, "a").start()
    await first.signal()
    await _told(first, "c1", type="order.amend", quantity=Decimal(8))
    await _told(first, "c2", type="order.amend", quantity=Decimal(12))
    await _told(first, "c3", type="order.pause")
    await first.die()
    second = await Replica(store, {"alpha": venue}, "b").start()
    await _told(second, "c4", type="order.resume")
    await _told(second, "c1", type="order.amend", quantity=Decimal(8))
    await _told(second, "c3", type="order.pause")
    record = await second.order()
    assert record.parent.quantity == Decimal(12)
    assert not record.parent.paused
    assert record.commands == {"c1", "c2", "c3", "c4"}
    told = Counter(event.reason for event in await second.events() if event.event_type is EventType.AMENDED)
    assert told == {"c1": 1, "c2": 1, "c3": 1, "c4": 1}
    await second.die()


async def test_a_command_that_comes_twice_at_once_is_carried_out_once(store: Store) -> None:
    venue = ScriptedVenue()
    replica = await Replica(store, {"alpha": venue}, "a").start()
    await replica.signal()
    await asyncio.gather(*(_told(replica, "c1", type="order.pause") for _ in range(5)))
    told = [event for event in await replica.events() if event.reason == "c1"]
    assert len(told) == 1
    await replica.die()
