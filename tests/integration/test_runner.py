"""Orders worked on a real store, at a venue that misbehaves exactly where it hurts."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from adapters.base import ApprovedOrder, FillPage, VenueOrderStatus
from execution import runner
from execution.ledger import Accepted, Conflict, Duplicate, LoadedOrder, child_id, order_key
from execution.store import Store
from schemas.command import parse
from schemas.order import ChildState, OrderStatus
from schemas.terms import OrderType, Side
from tests.replica import Replica, until
from tests.scripted_venue import ScriptedVenue

FIRST = child_id(order_key("sig"), 1)


@pytest.fixture
def venue() -> ScriptedVenue:
    return ScriptedVenue()


@pytest.fixture
async def replica(store: Store, venue: ScriptedVenue) -> AsyncIterator[Replica]:
    started = await Replica(store, {"alpha": venue}).start()
    yield started
    await started.die()


async def agree(replica: Replica, venue: ScriptedVenue, signal_id: str = "sig") -> None:
    """The venue's record, the ledger and the events say the same of an order."""
    record = await replica.order(signal_id)
    events = await replica.events(signal_id)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    held = [order for name, order in venue.orders.items() if name.startswith(order_key(signal_id))]
    at_venue = {(fill.trade_id, fill.quantity) for order in held for fill in order.fills}
    assert {(fill.trade_id, fill.quantity) for fill in record.fills} == at_venue
    told = [(fill.trade_id, fill.quantity) for event in events for fill in getattr(event.child, "fills", ())]
    assert sorted(told) == sorted(at_venue), "each fill is told once"
    filled = sum((fill.quantity for fill in record.fills), Decimal(0))
    assert filled <= record.parent.quantity
    assert events[-1].filled_quantity == filled


async def command(replica: Replica, **fields: Any) -> None:
    await replica.commands._carry_out(parse({"signal_id": "sig", **fields}), f"c-{len(str(fields))}")  # type: ignore[arg-type]


async def test_a_market_order(replica: Replica, venue: ScriptedVenue) -> None:
    assert await replica.signal(order_type="market", price=None) == Accepted()
    record = await replica.ends()
    assert record.parent.status is OrderStatus.FILLED
    assert venue.creates == [FIRST]
    assert [event.event_type for event in await replica.events()] == ["order.accepted", "order.placed", "order.filled"]
    await agree(replica, venue)


async def test_the_same_signal_again_does_nothing(replica: Replica, venue: ScriptedVenue) -> None:
    outcomes = await asyncio.gather(*(replica.signal(order_type="market", price=None) for _ in range(10)))
    assert outcomes.count(Accepted()) == 1
    await replica.ends()
    assert isinstance(await replica.signal(order_type="market", price=None), Duplicate)
    assert isinstance(await replica.signal(order_type="market", price=None, quantity=Decimal(11)), Conflict)
    assert venue.creates == [FIRST]
    reasons = [event.reason for event in await replica.events() if event.event_type == "order.rejected"]
    assert len(reasons) == 1
    assert "other content" in str(reasons[0])


async def test_an_answer_lost_after_the_venue_took_it(replica: Replica, venue: ScriptedVenue) -> None:
    venue.script.append("lost_after")
    await replica.signal(order_type="market", price=None)
    record = await replica.ends()
    assert record.parent.status is OrderStatus.FILLED
    assert venue.creates == [FIRST], "asked for, never sent again"
    await agree(replica, venue)


async def test_an_answer_lost_and_the_venue_slow_to_admit_it(replica: Replica, venue: ScriptedVenue) -> None:
    venue.script.append("lost_after")
    venue.blind_for = 3
    await replica.signal(order_type="market", price=None)
    record = await replica.ends()
    assert (record.parent.status, venue.traded) == (OrderStatus.FILLED, 10)
    assert venue.creates == [FIRST]
    await agree(replica, venue)


async def test_a_request_that_never_arrived_is_sent_again_under_its_id(replica: Replica, venue: ScriptedVenue) -> None:
    venue.script.append("lost_before")
    await replica.signal(order_type="market", price=None)
    record = await replica.ends()
    assert record.parent.status is OrderStatus.FILLED
    assert venue.creates == [FIRST, FIRST]
    await agree(replica, venue)


async def test_requests_that_never_arrive_are_given_up(replica: Replica, venue: ScriptedVenue) -> None:
    venue.script.extend(["lost_before"] * 3)
    await replica.signal()
    record = await replica.ends()
    assert record.parent.status is OrderStatus.FAILED
    assert venue.creates == [FIRST] * 3
    assert "did not reach" in str(record.parent.reason)
    await agree(replica, venue)


async def test_what_was_written_off_and_turns_up_is_taken_off(replica: Replica, venue: ScriptedVenue) -> None:
    venue.script.extend(["lost_before"] * 3)
    await replica.signal()
    record = await replica.ends()
    child = record.children[0]
    assert (record.parent.status, child.state) == (OrderStatus.FAILED, ChildState.VOID)
    late = ApprovedOrder(
        client_order_id=child.child_id,
        symbol=child.symbol,
        side=child.side,
        order_type=child.order_type,
        quantity=child.quantity,
        price=child.price,
    )
    await venue.place(late)
    venue.fill(FIRST, "1")
    await until(lambda: venue.cancels == [FIRST])
    await asyncio.sleep(0.3)
    record = await replica.order()
    assert (record.parent.status, record.children[0].state) == (OrderStatus.FAILED, ChildState.CANCELED)
    await agree(replica, venue)


async def test_a_certain_reject_is_final(replica: Replica, venue: ScriptedVenue) -> None:
    venue.script.append("reject")
    await replica.signal()
    record = await replica.ends()
    assert record.parent.status is OrderStatus.REJECTED
    assert record.parent.reason == "no such luck (code -2010)"
    assert venue.creates == [FIRST]


async def test_what_certainly_did_not_happen_is_tried_again(replica: Replica, venue: ScriptedVenue) -> None:
    venue.script.append("retry")
    await replica.signal(order_type="market", price=None)
    assert (await replica.ends()).parent.status is OrderStatus.FILLED
    assert venue.creates == [FIRST, FIRST]


async def test_but_only_so_often(replica: Replica, venue: ScriptedVenue) -> None:
    venue.script.extend(["retry"] * 3)
    await replica.signal()
    record = await replica.ends()
    assert (record.parent.status, len(venue.creates)) == (OrderStatus.FAILED, 3)


async def test_a_resting_order_fills_by_the_stream(replica: Replica, venue: ScriptedVenue) -> None:
    await replica.signal()
    await until(lambda: FIRST in venue.orders)
    venue.fill(FIRST, "4")
    venue.fill(FIRST, "6")
    assert (await replica.ends()).parent.status is OrderStatus.FILLED
    await agree(replica, venue)


async def test_fills_that_the_stream_missed_are_found(replica: Replica, venue: ScriptedVenue) -> None:
    await replica.signal()
    await until(lambda: FIRST in venue.orders)
    venue.fill(FIRST, "4", tell=False)
    venue.fill(FIRST, "6", tell=False)
    assert (await replica.ends()).parent.status is OrderStatus.FILLED
    await agree(replica, venue)


async def test_fills_told_twice_and_backwards_count_once(replica: Replica, venue: ScriptedVenue) -> None:
    await replica.signal()
    await until(lambda: FIRST in venue.orders)
    one = venue.fill(FIRST, "4", tell=False)
    two = venue.fill(FIRST, "6", tell=False)
    for fill in (two, one, two, one):
        replica.reconciler.on_fill("alpha", fill)
    assert (await replica.ends()).parent.status is OrderStatus.FILLED
    replica.reconciler.on_fill("alpha", one)
    await asyncio.sleep(0.1)
    await agree(replica, venue)


async def test_a_fill_seen_before_the_answer(replica: Replica, venue: ScriptedVenue) -> None:
    venue.script.append("hang")
    await replica.signal()
    await until(lambda: venue.creates)
    actor = replica.runner.get(order_key("sig"))
    assert actor is not None
    venue.release.set()
    await until(lambda: FIRST in venue.orders)
    venue.fill(FIRST, "10")
    assert (await replica.ends()).parent.status is OrderStatus.FILLED
    await agree(replica, venue)


async def test_a_quantity_told_before_the_venues_order_id_is_known(
    replica: Replica, venue: ScriptedVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_trades(symbol: str, since_ms: int) -> FillPage:
        return FillPage([])

    monkeypatch.setattr(venue, "fills_since", no_trades)  # reconciliation would find them, too
    venue.script.append("lost_after")
    venue.blind_for = 10**6
    await replica.signal(order_type="market", price=None)
    await until(lambda: len(venue.orders) == 1)
    assert venue.sink is not None
    venue.sink.on_order("alpha", msgspec.structs.replace(venue.orders[FIRST].told(), venue_order_id=None))
    await asyncio.sleep(0.5)
    venue.blind_for = 0
    record = await replica.ends()
    assert record.parent.status is OrderStatus.FILLED
    await agree(replica, venue)


async def test_cancel(replica: Replica, venue: ScriptedVenue) -> None:
    await replica.signal()
    await until(lambda: FIRST in venue.orders)
    venue.fill(FIRST, "4")
    await command(replica, type="order.cancel", reason="risk")
    record = await replica.ends()
    assert (record.parent.status, record.parent.reason) == (OrderStatus.CANCELED, "risk")
    await agree(replica, venue)


async def test_cancel_races_a_fill(replica: Replica, venue: ScriptedVenue) -> None:
    await replica.signal()
    await until(lambda: FIRST in venue.orders)
    venue.fill(FIRST, "10", tell=False)
    await command(replica, type="order.cancel")
    assert (await replica.ends()).parent.status is OrderStatus.FILLED
    await agree(replica, venue)


async def test_cancel_while_the_create_is_unknown(replica: Replica, venue: ScriptedVenue) -> None:
    venue.script.append("lost_after")
    venue.blind_for = 4
    await replica.signal()
    await command(replica, type="order.cancel")
    record = await replica.ends()
    assert record.parent.status is OrderStatus.CANCELED
    assert venue.cancels == [FIRST]
    await agree(replica, venue)


async def test_amend_a_partly_filled_order(replica: Replica, venue: ScriptedVenue) -> None:
    await replica.signal()
    await until(lambda: FIRST in venue.orders)
    venue.fill(FIRST, "4")
    await command(replica, type="order.amend", price=Decimal(101), quantity=Decimal(12))
    second = child_id(order_key("sig"), 2)
    await until(lambda: second in venue.orders)
    assert venue.orders[second].order.quantity == 8
    assert venue.orders[second].order.price == 101
    venue.fill(second, "8")
    record = await replica.ends()
    assert record.parent.status is OrderStatus.FILLED
    await agree(replica, venue)


async def test_time_runs_out(store: Store, venue: ScriptedVenue) -> None:
    replica = await Replica(store, {"alpha": venue}, execution_timeout=0.2).start()
    await replica.signal()
    record = await replica.ends()
    assert record.parent.status is OrderStatus.EXPIRED
    assert venue.cancels == [FIRST]
    await agree(replica, venue)
    await replica.die()


async def test_another_replica_takes_over_when_one_dies(store: Store, venue: ScriptedVenue) -> None:
    first = await Replica(store, {"alpha": venue}, "a").start()
    await first.signal()
    await until(lambda: FIRST in venue.orders)
    venue.fill(FIRST, "4")
    await until(lambda: first.runner.get(order_key("sig")).state.totals.filled == 4)  # type: ignore[union-attr]
    await asyncio.sleep(0.05)
    await first.die()
    venue.fill(FIRST, "2", tell=False)
    second = await Replica(store, {"alpha": venue}, "b").start()
    await until(lambda: venue.sink is second.reconciler)
    venue.fill(FIRST, "4")
    assert (await second.ends()).parent.status is OrderStatus.FILLED
    assert venue.creates == [FIRST]
    await agree(second, venue)
    await second.die()


@pytest.mark.parametrize("arrived", [True, False])
async def test_a_create_under_way_when_its_sender_dies(store: Store, venue: ScriptedVenue, arrived: bool) -> None:
    first = await Replica(store, {"alpha": venue}, "a").start()
    venue.script.append("hang")
    await first.signal(order_type="market", price=None)
    await until(lambda: venue.creates)
    actor = first.runner.get(order_key("sig"))
    assert actor is not None
    await first.die()
    if arrived:
        order = actor.state.children[0]
        await venue.place(  # what was on its way arrives, and its answer finds nobody
            ApprovedOrder(
                client_order_id=order.child_id,
                symbol=order.symbol,
                side=order.side,
                order_type=order.order_type,
                quantity=order.quantity,
            )
        )
    second = await Replica(store, {"alpha": venue}, "b").start()
    record = await second.ends()
    assert record.parent.status is OrderStatus.FILLED
    assert venue.creates == [FIRST, FIRST], "once by the first replica; then by the wire, or by the second"
    assert venue.traded == 10
    await agree(second, venue)
    await second.die()


async def test_the_orders_of_a_shard_are_read_several_at_a_time(store: Store, venue: ScriptedVenue) -> None:
    first = await Replica(store, {"alpha": venue}, "a", shards=1).start()
    for number in range(40):
        await first.signal(f"s{number}")
    await first.stop()
    second = Replica(store, {"alpha": venue}, "b", shards=1)
    load, under_way = second.ledger.load, [0]

    async def counted(key: str) -> LoadedOrder | None:
        under_way.append(under_way[-1] + 1)
        try:
            return await load(key)
        finally:
            under_way.append(under_way[-1] - 1)

    second.ledger.load = counted  # type: ignore[method-assign]
    await second.start()
    await until(lambda: second.runner.live == 40)
    assert 1 < max(under_way) <= 8
    await second.die()


async def test_ended_orders_leave_memory_without_the_collector(
    store: Store, venue: ScriptedVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its full passes are rare: what waited for one made the memory grow for minutes."""
    monkeypatch.setattr(runner, "CLOSED_KEPT", 5)
    replica = await Replica(store, {"alpha": venue}).start()
    orders = []
    gc.collect()
    gc.disable()
    try:
        for number in range(30):
            await replica.signal(f"s{number}", order_type="market", price=None)
            actor = replica.runner.get(order_key(f"s{number}"))
            assert actor is not None
            orders.append(weakref.ref(actor))
            del actor
            await replica.ends(f"s{number}")
        await until(lambda: replica.runner.live == 0)
        await until(lambda: sum(order() is not None for order in orders) <= 5)
    finally:
        gc.enable()
    await replica.die()


async def test_two_replicas_share_and_hand_over(store: Store, venue: ScriptedVenue) -> None:
    first = await Replica(store, {"alpha": venue}, "a").start()
    for number in range(20):
        await first.signal(f"s{number}")
    second = await Replica(store, {"alpha": venue}, "b").start(shards=2)
    await until(lambda: len(first.leases.owned) == 2)
    await until(lambda: first.runner.live + second.runner.live == 20)
    assert first.runner.live > 0
    assert second.runner.live > 0
    # Either accepts what the other owns.
    for number in range(20, 40):
        assert await first.signal(f"s{number}") == Accepted()
    await until(lambda: first.runner.live + second.runner.live == 40)
    await first.stop()
    await until(lambda: second.runner.live == 40)
    await until(lambda: len(venue.orders) == 40)
    for number in range(40):
        venue.fill(child_id(order_key(f"s{number}"), 1), "10")
    for number in range(40):
        assert (await second.ends(f"s{number}")).parent.status is OrderStatus.FILLED
        await agree(second, venue, f"s{number}")
    assert sorted(venue.creates) == sorted(set(venue.creates)), "nothing was sent twice"
    await second.die()


async def test_a_command_reaches_the_owner_through_another_replica(store: Store, venue: ScriptedVenue) -> None:
    first = await Replica(store, {"alpha": venue}, "a").start()
    await first.signal()
    await until(lambda: FIRST in venue.orders)
    other = Replica(store, {"alpha": venue}, "c")
    await command(other, type="order.cancel", reason="from afar")
    record = await first.ends()
    assert (record.parent.status, record.parent.reason) == (OrderStatus.CANCELED, "from afar")
    await first.die()


async def test_a_command_for_nobody_is_answered(replica: Replica) -> None:
    await replica.commands._carry_out(parse({"type": "order.cancel", "signal_id": "ghost"}), "c1")  # type: ignore[arg-type]
    (event,) = await replica.events("ghost")
    assert event.sequence == 0
    assert "no such order" in str(event.reason)
    await replica.commands._carry_out(parse({"type": "order.cancel", "signal_id": "ghost"}), "c1")  # type: ignore[arg-type]
    assert len(await replica.events("ghost")) == 1


async def test_an_order_nobody_watches_is_found(store: Store, venue: ScriptedVenue) -> None:
    lost = child_id(order_key("never accepted"), 1)
    for name in (lost, "by-hand"):
        await venue.place(
            ApprovedOrder(
                client_order_id=name,
                symbol="BTC/USDT",
                side=Side.BUY,
                order_type=OrderType.LIMIT,
                quantity=Decimal(1),
                price=Decimal(90),
            )
        )
    replica = await Replica(store, {"alpha": venue}, cancel_unknown=True).start()
    await replica.signal()
    await until(lambda: venue.orders[lost].status is VenueOrderStatus.CANCELED)
    await until(lambda: replica.reconciler.unwatched == {"alpha": 0})
    assert set(venue.cancels) == {lost}, "what carries no id of ours is somebody else's"
    await replica.die()


async def test_rejections_are_events_with_field_and_reason(replica: Replica, venue: ScriptedVenue) -> None:
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "r1": ({"exchange": "nowhere"}, "exchange"),
        "r2": ({"symbol": "DOGE/USDT"}, "symbol"),
        "r3": ({"quantity": Decimal("0.0001")}, "quantity"),
        "r4": ({"quantity": Decimal("0.05")}, "quantity"),
        "r5": ({"algorithm": "conjuring"}, "algorithm"),
        "r6": ({"stop_loss": Decimal(110)}, "stop_loss"),
        "r7": ({"expires_at": 1}, "expires_at"),
        "r8": ({"algorithm_params": {"speed": 1}}, "algorithm_params.speed"),
        "r9": ({"order_id": "ord_" + "a" * 20}, "order_id"),
        "r10": ({"side": "sideways"}, "side"),
        "r11": ({"order_type": "trailing_stop"}, "algorithm_params.trail_bps"),
        "r12": ({"reduce_only": True}, "reduce_only"),
        "r13": ({"leverage": 5}, "leverage"),
        "r14": ({"venues": ["alpha", "beta"]}, "venues"),
        "r15": ({"stop_price": Decimal(90)}, "stop_price"),
    }
    for signal_id, (fields, field) in cases.items():
        await replica.signal(signal_id, **fields)
        (event,) = await replica.events(signal_id)
        assert (event.event_type, event.status, event.field) == ("order.rejected", "rejected", field), signal_id
        assert str(event.reason).startswith(field)
        assert isinstance(await replica.signal(signal_id, **fields), Duplicate)
        assert len(await replica.events(signal_id)) == 1
    assert venue.creates == []


async def test_a_chosen_order_id_is_kept_and_unique(replica: Replica) -> None:
    assert await replica.signal("one", order_id="mine-1") == Accepted()
    assert (await replica.order("one")).parent.order_id == "mine-1"
    await replica.signal("two", order_id="mine-1")
    (event,) = await replica.events("two")
    assert event.field == "order_id"
    assert event.order_id != "mine-1"


async def test_ten_thousand_live_orders(store: Store, venue: ScriptedVenue) -> None:
    """No task and no polling per order: when nothing happens, nothing runs."""
    replica = await Replica(store, {"alpha": venue}, ttl=10.0).start()
    for start in range(0, 10_000, 500):
        await asyncio.gather(*(replica.signal(f"s{number}") for number in range(start, start + 500)))
    await until(lambda: len(venue.orders) == 10_000 and replica.runner.sends_waiting == 0, 60)
    await until(lambda: len(asyncio.all_tasks()) < 40, 60)
    assert replica.runner.live == 10_000
    states = {child.state for actor in replica.runner.actors() for child in actor.state.children}
    assert states == {ChildState.OPEN}
    await replica.die()
