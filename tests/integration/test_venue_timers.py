"""Venues' own timers: who winds them up, when, and when they are left to run out. A real store, a venue that notes what it is asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from adapters.base import Unknown
from execution.ledger import keys, order_key
from execution.metrics import Metrics
from execution.store import Store
from execution.venue_timers import VenueTimers
from schemas import exact_json
from schemas.command import parse
from tests.replica import Replica, until
from tests.scripted_venue import ScriptedVenue

SHARDS = 4
NAME = next(f"v{n}" for n in range(100) if keys.shard_of(order_key(f"venue\0v{n}"), SHARDS) == SHARDS - 1)
"""A venue whose timer belongs to the last shard, which is given away last."""


class TimedVenue(ScriptedVenue):
    def __init__(self) -> None:
        super().__init__(NAME)
        self.asked: list[float] = []
        self.offers = True
        self.failing = False
        self.hangs = False

    async def cancel_all_after(self, seconds: float) -> bool:
        if self.hangs:
            await asyncio.Event().wait()
        if self.failing:
            raise Unknown("no answer")
        if self.offers:
            self.asked.append(seconds)
        return self.offers


@pytest.fixture
def venue() -> TimedVenue:
    return TimedVenue()


@pytest.fixture
async def replica(store: Store, venue: TimedVenue) -> AsyncIterator[Replica]:
    started = await Replica(store, {NAME: venue}, shards=SHARDS).start()
    await until(lambda: started.leases.last_beat is not None)
    yield started
    await started.die()


@pytest.fixture
def timers(replica: Replica, store: Store) -> VenueTimers:
    return make(replica, store)


def make(
    replica: Replica, store: Store, seconds: float = 3.0, *, monotonic: Callable[[], float] = time.monotonic
) -> VenueTimers:
    return VenueTimers(
        replica.adapters,
        store,
        replica.ledger,
        replica.leases,
        Metrics(),
        instance="a",
        seconds=seconds,
        lease_ttl=1.0,
        orders=replica.runner.actors,
        monotonic=monotonic,
    )


async def rests(replica: Replica, venue: TimedVenue, signal_id: str = "sig", **fields: Any) -> None:
    await replica.signal(signal_id, exchange=NAME, **fields)
    await until(lambda: any(held.told().status == "open" for held in venue.orders.values()))


async def cancel(replica: Replica, signal_id: str = "sig") -> None:
    command = parse({"type": "order.cancel", "signal_id": signal_id})
    await replica.commands._carry_out(command, f"c-{signal_id}")  # type: ignore[arg-type]
    await replica.ends(signal_id)
    await until(lambda: not replica.runner.live)


async def disarmed(timers: VenueTimers, venue: TimedVenue) -> None:
    for _ in range(600):
        await timers.look()
        if venue.asked and venue.asked[-1] == 0:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(venue.asked)


async def another(store: Store, **beat: Any) -> None:
    """Another replica is alive, as far as the store knows."""
    await store.call("ZADD", keys.REPLICAS, int(time.time() * 1000) + 60_000, "b")
    await store.call("SET", keys.heartbeat("b"), exact_json.encode({"instance": "b", **beat}))


async def test_armed_while_entries_are_open_and_disarmed_after(
    replica: Replica, venue: TimedVenue, store: Store
) -> None:
    now = time.monotonic() - 1000  # behind the clock of the leases, which go on meanwhile
    timers = make(replica, store, monotonic=lambda: now)
    await timers.look()
    assert venue.asked == [0], "whatever a predecessor left armed"
    await timers.look()
    assert venue.asked == [0]
    await rests(replica, venue)
    await timers.look()
    assert venue.asked == [0, 3.0]
    now += 0.4
    await timers.look()
    assert venue.asked == [0, 3.0], "not due yet"
    now += 0.2
    await timers.look()
    assert venue.asked == [0, 3.0, 3.0]
    await cancel(replica)
    await timers.look()
    now += 0.6
    await timers.look()
    assert venue.asked == [0, 3.0, 3.0, 3.0], "it is wound up on until nothing was open for a while"
    now += 0.5
    await timers.look()
    assert venue.asked == [0, 3.0, 3.0, 3.0, 0]


async def test_exits_alone_do_not_arm_it(replica: Replica, venue: TimedVenue, timers: VenueTimers) -> None:
    await replica.signal(exchange=NAME, order_type="market", price=None, take_profit=120, stop_loss=80)
    await until(lambda: any(held.told().status == "open" for held in venue.orders.values()))
    assert replica.runner.live
    await timers.look()
    assert venue.asked == [0]


async def test_a_clean_stop_disarms_only_where_nothing_is_open(
    replica: Replica, venue: TimedVenue, timers: VenueTimers
) -> None:
    await rests(replica, venue)
    await timers.look()
    await timers.stop(5)
    assert venue.asked == [3.0], "what rests is left to the next owner, or to the timer"
    await cancel(replica)
    await timers.stop(5)
    assert venue.asked == [3.0, 0]


async def test_orders_that_are_being_handed_over_keep_it_armed(
    replica: Replica, venue: TimedVenue, timers: VenueTimers
) -> None:
    """They are no longer counted here, and not yet elsewhere, while this replica still holds their shards."""
    await rests(replica, venue)
    await timers.look()
    await replica.runner.hand_over(set(replica.leases.owned), 2.0)
    for _ in range(3):
        await timers.look()
    assert venue.asked == [3.0]


async def test_nothing_is_asked_after_a_stop(replica: Replica, venue: TimedVenue, timers: VenueTimers) -> None:
    await rests(replica, venue)
    await timers.look()
    await timers.stop(5)
    await replica.runner.hand_over(set(replica.leases.owned), 2.0)
    await asyncio.sleep(1.5)
    for _ in range(3):
        await timers.look()
    assert venue.asked == [3.0]


async def test_a_venue_that_does_not_answer_holds_up_no_stop(
    replica: Replica, venue: TimedVenue, timers: VenueTimers
) -> None:
    await rests(replica, venue)
    await timers.look()
    await cancel(replica)
    venue.hangs = True
    await asyncio.wait_for(timers.stop(0.1), 30)
    assert venue.asked == [3.0]


async def test_a_replica_that_cannot_renew_its_leases_winds_nothing_up(
    replica: Replica, venue: TimedVenue, timers: VenueTimers
) -> None:
    await rests(replica, venue)
    await timers.look()
    await replica.die()
    await asyncio.sleep(1.0)
    await timers.look()
    assert venue.asked == [3.0]


async def test_only_with_the_consent_of_every_other_replica(
    replica: Replica, venue: TimedVenue, timers: VenueTimers, store: Store
) -> None:
    await rests(replica, venue)
    await another(store, shards=[])
    await until(lambda: len(replica.leases.owned) == SHARDS / 2)
    others = sorted(set(range(SHARDS)) - set(replica.leases.owned))
    await timers.look()
    assert venue.asked == [], "some shards are nobody's: nobody knows what is open"
    await another(store, shards=others, open_entries={NAME: 1})
    await timers.look()
    assert venue.asked == [3.0]


async def test_another_replica_s_entries_count(replica: Replica, venue: TimedVenue, timers: VenueTimers) -> None:
    await another(replica.store, shards=[0, 1], open_entries={NAME: 1})
    await timers.look()
    assert venue.asked == [3.0]
    await another(replica.store, shards=[0, 1])
    await timers.look()
    assert set(venue.asked) == {3.0}, "one that does not say may have some"
    await another(replica.store, shards=[0, 1], open_entries={})
    await disarmed(timers, venue)


async def test_only_the_owner_of_the_venue_s_shard_winds_it_up(
    replica: Replica, venue: TimedVenue, timers: VenueTimers
) -> None:
    await rests(replica, venue)
    await replica.stop()
    await timers.look()
    assert venue.asked == []


async def test_a_venue_without_one_is_asked_once_and_failures_are_tried_again(
    replica: Replica, venue: TimedVenue, timers: VenueTimers
) -> None:
    await rests(replica, venue)
    venue.failing = True
    await timers.look()
    venue.failing = False
    await asyncio.sleep(0.3)
    await timers.look()
    assert venue.asked == [3.0]
    venue.offers = False
    await asyncio.sleep(0.6)
    await timers.look()
    venue.offers = True
    await timers.look()
    assert venue.asked == [3.0]


async def test_none_without_the_setting(replica: Replica, venue: TimedVenue, store: Store) -> None:
    await rests(replica, venue)
    await make(replica, store, 0).look()
    assert venue.asked == []
