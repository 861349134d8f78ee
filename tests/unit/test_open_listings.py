"""Whether many questions about open orders become one listing, and few do not."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from adapters.base import Unavailable, VenueOrder, VenueOrderStatus
from execution import open_listings
from execution.open_listings import OpenListing


def record(name: str) -> VenueOrder:
    return VenueOrder(
        symbol="BTC/USDT", client_order_id=name, venue_order_id=f"v-{name}", status=VenueOrderStatus.OPEN, reason=None
    )


class Venue:
    """Some open orders, and how often each was asked for."""

    def __init__(self, *names: str) -> None:
        self.open = set(names)
        self.asked: Counter[str] = Counter()
        self.listings = 0
        self.away = False
        self.most = self._now = 0
        self.listing = OpenListing(self._list)

    async def _list(self) -> list[VenueOrder]:
        self.listings += 1
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("away")
        return [record(name) for name in sorted(self.open)]

    async def _alone(self, name: str) -> VenueOrder | None:
        self._now += 1
        self.most = max(self.most, self._now)
        self.asked[name] += 1
        try:
            await asyncio.sleep(0.001)
            if self.away:
                raise Unavailable("away")
            return record(name) if name in self.open else None
        finally:
            self._now -= 1

    async def find(self, name: str) -> VenueOrder | None:
        return await self.listing.find(name, lambda: self._alone(name))


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_listings, "AT_ONCE", 4)
    monkeypatch.setattr(open_listings, "ENOUGH", 10)


async def test_few_are_asked_for_by_themselves() -> None:
    venue = Venue(*(f"c{n}" for n in range(9)))
    found = await asyncio.gather(*(venue.find(f"c{n}") for n in range(9)))
    assert [told and told.client_order_id for told in found] == [f"c{n}" for n in range(9)]
    assert (venue.listings, venue.asked.total(), venue.most) == (0, 9, 4)


async def test_many_are_listed_once_and_what_is_not_listed_is_asked_for() -> None:
    names = [f"c{n}" for n in range(500)]
    venue = Venue(*names[:450])
    found = await asyncio.gather(*(venue.find(name) for name in names))
    assert [told is not None for told in found] == [True] * 450 + [False] * 50
    assert venue.listings <= 3
    assert venue.asked.keys() & set(names[20:450]) == set()
    assert all(venue.asked[name] == 1 for name in names[450:])
    assert venue.most <= 4


async def test_a_listing_that_fails_leaves_each_to_itself() -> None:
    venue = Venue(*(f"c{n}" for n in range(50)))
    venue.away = True
    found = await asyncio.gather(*(venue.find(f"c{n}") for n in range(50)), return_exceptions=True)
    assert all(isinstance(told, Unavailable) for told in found)
    assert venue.asked.total() == 50


@pytest.mark.parametrize("rounds", range(6))
async def test_who_goes_away_leaves_no_turn_behind(rounds: int) -> None:
    venue = Venue(*(f"c{n}" for n in range(40)))
    tasks = [asyncio.create_task(venue.find(f"c{n}")) for n in range(40)]
    for _ in range(rounds):
        await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(told, VenueOrder) for told in found[1::2])
    assert venue.listing._under_way == 0
    assert not venue.listing._waiting
    again = await asyncio.gather(*(venue.find(f"c{n}") for n in range(40)))
    assert all(told is not None for told in again)
