"""Faults that were found by reading: what the ledger, a venue or a clock does between two of our steps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from adapters.base import Unknown, VenueOrder, VenueOrderStatus
from algorithms import ALGORITHMS
from algorithms.base import Decision
from execution.ledger import Accepted, AcceptOutcome, LedgerMismatch, child_id, order_key
from execution.order_state import OrderState
from execution.store import Store, StoreRefused
from schemas import exact_json
from schemas.command import parse
from schemas.order import OrderStatus
from schemas.tca import CostReport
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


async def test_one_unreadable_order_does_not_keep_its_shard_from_being_worked(
    store: Store, venue: ScriptedVenue
) -> None:
    """Written by a newer version, say: its plan or a field means nothing to this one."""
    first = await Replica(store, {"alpha": venue}, "a", shards=1).start()
    for number in range(8):
        await first.signal(f"s{number}")
    await until(lambda: len(venue.orders) == 8)
    await asyncio.sleep(0.2)
    await first.die()
    for number, spoil in ((2, {"algorithm": "twap"}), (5, {"status": "levitating"})):
        at = first.ledger.shards[0].order(order_key(f"s{number}"))
        parent = exact_json.decode(await store.call("HGET", at, "parent"))
        await store.call("HSET", at, "parent", exact_json.encode({**parent, **spoil}))
    second = await Replica(store, {"alpha": venue}, "b", shards=1).start()
    await until(lambda: second.runner.live == 6)
    for number in (0, 1, 3, 4, 6, 7):
        venue.fill(child_id(order_key(f"s{number}"), 1), "10")
        assert (await second.ends(f"s{number}")).parent.status is OrderStatus.FILLED
    await second.die()


async def test_costs_that_cannot_be_measured_do_not_stop_an_order(
    replica: Replica, venue: ScriptedVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> CostReport:
        raise ZeroDivisionError("a figure that nobody thought of")

    monkeypatch.setattr("execution.costs.measure", broken)
    await replica.signal(order_type="market", price=None)
    record = await replica.ends()
    assert record.parent.status is OrderStatus.FILLED


async def test_an_algorithm_that_fails_is_taken_off_and_can_be_canceled(
    replica: Replica, venue: ScriptedVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is not left to itself: what rests is cancelled, commands are carried out, and it is tried again."""
    await replica.signal(
        algorithm="twap", algorithm_params={"duration_seconds": 100, "slices": 1, "style": "passive"}, take_profit=120
    )
    await until(lambda: FIRST in venue.orders)
    venue.fill(FIRST, "4")
    exit_id = child_id(order_key("sig"), 2)
    await until(lambda: exit_id in venue.orders)
    twap = ALGORITHMS["twap"]

    def broken(*_: Any) -> Decision:
        raise ZeroDivisionError("a market that nobody thought of")

    monkeypatch.setattr(twap, "work", broken)
    venue.fill(FIRST, "1")
    await until(lambda: FIRST in venue.cancels)
    await until(lambda: any(held.order.quantity == 5 for held in venue.orders.values()))
    assert "algorithm failed" in str((await replica.order()).parent.waiting)
    await replica.commands._carry_out(parse({"type": "order.cancel", "signal_id": "sig"}), "c")  # type: ignore[arg-type]
    assert (await replica.ends()).parent.status is OrderStatus.CANCELED


async def test_a_step_that_fails_is_taken_again_from_the_ledger(
    replica: Replica, venue: ScriptedVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    await replica.signal()
    await until(lambda: FIRST in venue.orders)
    await asyncio.sleep(0.1)
    place, failures = OrderState.take, [1, 2]

    def broken(*args: Any) -> Any:
        if failures:
            raise ValueError(f"a record that nobody thought of ({failures.pop()})")
        return place(*args)

    monkeypatch.setattr(OrderState, "take", broken)
    venue.fill(FIRST, "10")
    record = await replica.ends()
    assert record.parent.status is OrderStatus.FILLED
    assert venue.creates == [FIRST]


async def test_a_cancel_does_not_wait_for_a_venue_that_answers_no_questions(store: Store, venue: ScriptedVenue) -> None:
    """After a restart nothing new is decided before the venue has told; but what can only reduce goes first."""
    first = await Replica(store, {"alpha": venue}, "a").start()
    await first.signal()
    await until(lambda: FIRST in venue.orders)
    while await store.call("HGET", first.ledger.shards[first.ledger.shard_of(order_key("sig"))].lease, "run") is None:
        await asyncio.sleep(0.05)  # once it has confirmed its shard, the next owner need not look for lost orders
    await first.die()

    async def silent(*_: Any) -> None:
        raise Unknown("no answer")

    venue.find = silent  # type: ignore[method-assign, assignment]
    second = await Replica(store, {"alpha": venue}, "b").start()
    await until(lambda: second.runner.live == 1)
    await second.commands._carry_out(parse({"type": "order.cancel", "signal_id": "sig"}), "c")  # type: ignore[arg-type]
    assert (await second.ends()).parent.status is OrderStatus.CANCELED
    assert venue.cancels == [FIRST]
    await second.die()


async def test_a_request_cut_off_by_a_reload_is_not_taken_for_absent_too_early(
    replica: Replica, venue: ScriptedVenue
) -> None:
    """It waited before it left: until when it may arrive counts from its leaving, not from when it was decided."""
    venue.request_ttl_ms = 3_000
    venue.script.append("hang")
    await replica.signal(order_type="market", price=None)
    await until(lambda: venue.creates == [FIRST])
    actor = replica.runner.get(order_key("sig"))
    assert actor is not None
    intent = msgspec.structs.replace(actor.state.children[0], sends=0, valid_until=0)  # as it was committed,
    intent.created_at -= 60_000  # and long before: it had to wait for its turn at the rate limit
    await replica.store.call(
        "HSET",
        replica.ledger.shards[replica.ledger.shard_of(actor.key)].order(actor.key),
        "c:1",
        exact_json.encode(intent),
    )
    replica.runner._lost(actor, LedgerMismatch("as another process would have it"))
    cut = asyncio.get_running_loop().time()
    await until(lambda: len(venue.creates) > 1)
    assert asyncio.get_running_loop().time() - cut > 3.0


async def test_a_venue_without_request_expiry_is_given_its_time_after_a_takeover(
    store: Store, venue: ScriptedVenue
) -> None:
    """What the one before sent with its last breath may still arrive: a minute counts from the end of its lease."""
    venue.request_ttl_ms = 0
    first = await Replica(store, {"alpha": venue}, "a").start()
    venue.script.append("hang")
    await first.signal(order_type="market", price=None)
    await until(lambda: venue.creates == [FIRST])
    await first.die()
    second = await Replica(store, {"alpha": venue}, "b").start()
    await until(lambda: second.runner.live == 1)
    actor = second.runner.get(order_key("sig"))
    assert actor is not None
    assert actor.state.children[0].valid_until >= actor.lease.inherited_until + 60_000
    await second.die()


async def test_exits_are_placed_while_an_amended_entry_is_still_being_canceled(
    replica: Replica, venue: ScriptedVenue
) -> None:
    """Its old size claims more than the new quantity: that bounds new entries, and not what protects."""
    cancel, answered = venue.cancel, asyncio.Event()

    async def slow(symbol: str, client_order_id: str, venue_order_id: str | None) -> VenueOrder | None:
        if client_order_id == FIRST:
            await answered.wait()
        return await cancel(symbol, client_order_id, venue_order_id)

    venue.cancel = slow  # type: ignore[method-assign]
    await replica.signal(take_profit=120, stop_loss=80)
    await until(lambda: FIRST in venue.orders)
    venue.fill(FIRST, "4")
    await until(lambda: len(venue.orders) == 2)
    await replica.commands._carry_out(  # type: ignore[arg-type]
        parse({"type": "order.amend", "signal_id": "sig", "quantity": Decimal(5)}), "c"
    )
    venue.fill(FIRST, "1")
    actor = replica.runner.get(order_key("sig"))
    await until(lambda: any(held.order.quantity == 5 for held in venue.orders.values()))
    assert replica.runner.get(order_key("sig")) is actor, "nothing of it was refused"
    answered.set()
    assert (await replica.ends()).parent.status is OrderStatus.FILLED


async def test_trades_of_other_orders_are_not_booked(replica: Replica, venue: ScriptedVenue) -> None:
    """A venue that has told no order id is asked for the trades of the symbol: only the order's own count."""
    await replica.signal("other", order_type="market", price=None)
    await replica.ends("other")
    find = venue.find

    async def terse(*args: Any) -> VenueOrder | None:
        told = await find(*args)
        return msgspec.structs.replace(told, venue_order_id=None) if told is not None else None

    venue.find = terse  # type: ignore[method-assign]
    venue.script.append("lost_after")
    await replica.signal(order_type="market", price=None)
    await replica.ends()
    await asyncio.sleep(0.3)
    record = await replica.order()
    assert [fill.quantity for fill in record.fills] == [10]
    assert record.fills[0].trade_id == venue.orders[FIRST].fills[0].trade_id
