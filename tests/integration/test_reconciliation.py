"""A venue's account against the ledger on a real store: what was lost is adopted, what was missed is booked, what is not ours is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from adapters.base import (
    Adapter,
    ApprovedOrder,
    FillPage,
    Position,
    Unavailable,
    Unknown,
    VenueOrder,
    VenueOrderStatus,
    every_fill,
)
from execution.circuit import Circuits, Endpoint
from execution.ledger import LoadedOrder, child_id, order_key
from execution.ledger.outbox import OutboxStore
from execution.metrics import Metrics
from execution.projections import Projections
from execution.reconcile import VenueReport, open_orders, reconciler, trades
from execution.reconcile.positions import Positions, StoredTrades
from execution.reconcile.trades import StoredSymbols
from execution.store import Store
from execution.venue_reads import Reads
from schemas.command import parse
from schemas.event import EventChild, EventFill, EventType, OrderEvent
from schemas.market import MarketRules
from schemas.order import ChildState, OrderStatus, Role
from schemas.terms import OrderType, Side
from tests.replica import Replica, until
from tests.scripted_venue import ScriptedVenue
from tests.unit.story import RULES

KEY = order_key("sig")
ICEBERG = {"algorithm": "iceberg", "algorithm_params": {"display_quantity": 1}}
NONE = Decimal(0)


@pytest.fixture(autouse=True)
def no_wait_for_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trades, "RECENT_MS", -10_000)
    monkeypatch.setattr(open_orders, "RECENT_MS", 100)


class NamelessVenue(ScriptedVenue):
    """Tells trades by its own order ids only, as most exchanges do, and finds orders by them."""

    def __init__(self, name: str = "alpha") -> None:
        super().__init__(name)
        self.asked_by_venue_id: list[str] = []

    async def fills_since(self, symbol: str, since_ms: int) -> FillPage:
        told = await every_fill(await super().fills_since(symbol, since_ms))
        return FillPage([msgspec.structs.replace(fill, client_order_id=None) for fill in told])

    async def find(self, symbol: str, client_order_id: str, venue_order_id: str | None = None) -> VenueOrder | None:
        if client_order_id or venue_order_id is None:
            return await super().find(symbol, client_order_id, venue_order_id)
        self.asked_by_venue_id.append(venue_order_id)
        return next((held.told() for held in self.orders.values() if held.venue_order_id == venue_order_id), None)


@pytest.fixture
def venue() -> NamelessVenue:
    return NamelessVenue()


@pytest.fixture
async def replica(store: Store, venue: NamelessVenue) -> AsyncIterator[Replica]:
    started = await Replica(store, {"alpha": venue}, cancel_unknown=True).start()
    yield started
    await started.die()


async def by_hand(venue: ScriptedVenue, client_order_id: str, quantity: str = "1", **fields: Any) -> None:
    """An order at the venue that no replica of ours has sent since it lives."""
    known: dict[str, Any] = {
        "symbol": "BTC/USDT",
        "side": Side.BUY,
        "order_type": OrderType.LIMIT,
        "price": Decimal(90),
    }
    order = ApprovedOrder(client_order_id=client_order_id, quantity=Decimal(quantity), **{**known, **fields})
    await venue.place(order)


async def holds(replica: Replica, condition: Any, seconds: float = 20.0) -> LoadedOrder:
    """The order in the ledger, once it is so."""
    async with asyncio.timeout(seconds):
        while not condition(record := await replica.order()):
            await asyncio.sleep(0.02)
    return record


async def cancel(replica: Replica, command_id: str = "c") -> None:
    command = parse({"type": "order.cancel", "signal_id": "sig"})
    await replica.commands._carry_out(command, command_id)  # type: ignore[arg-type]


# --- adoption -----------------------------------------------------------------------------------------------------------


async def test_a_child_that_the_ledger_lost_is_its_orders_again(replica: Replica, venue: NamelessVenue) -> None:
    await replica.signal(**ICEBERG)
    await until(lambda: len(venue.orders) == 1)
    lost = child_id(KEY, 5)
    await by_hand(venue, lost, "2", price=Decimal(100))
    record = await holds(replica, lambda record: any(child.number == 5 for child in record.children))
    claim = await replica.store.call("HGET", f"{{s{replica.ledger.shard_of(KEY):02d}}}:order:{KEY}", "k:5")
    assert claim is not None, "it counts in the sums that a commit checks"
    (adopted,) = [child for child in record.children if child.number == 5]
    assert (adopted.role, adopted.quantity, adopted.price) == (Role.ENTRY, Decimal(2), Decimal(100))
    # What it fills is booked, and the algorithm goes on for the rest, above its number.
    venue.fill(lost, "0.5")
    while not (record := await replica.order()).parent.status.terminal:
        for name, held in list(venue.orders.items()):
            if held.status is VenueOrderStatus.OPEN and name != lost:
                venue.fill(name, str(held.order.quantity - held.filled))
        await asyncio.sleep(0.02)
    assert record.parent.status is OrderStatus.FILLED
    assert sum((fill.quantity for fill in record.fills), NONE) == Decimal(10) == venue.traded
    numbers = [child.number for child in record.children]
    assert numbers == [1, 5, *range(6, 6 + len(numbers) - 2)]
    placed = [
        event for event in await replica.events() if event.child and getattr(event.child, "client_order_id", "") == lost
    ]
    assert "adopted" in str(placed[0].reason)


async def test_more_than_the_order_may_trade_is_booked_and_taken_off(replica: Replica, venue: NamelessVenue) -> None:
    await replica.signal()
    await until(lambda: len(venue.orders) == 1)
    await by_hand(venue, child_id(KEY, 2), "5")
    venue.fill(child_id(KEY, 2), "2")
    record = await holds(replica, lambda record: len(record.children) == 2 and record.children[1].filled == 2)
    assert record.children[1].state is ChildState.CANCELED
    # Claims beyond the quantity do not keep what happens from being written.
    venue.fill(child_id(KEY, 1), "10")
    record = await replica.ends()
    assert record.parent.status is OrderStatus.FILLED
    assert sum((fill.quantity for fill in record.fills), NONE) == Decimal(12)


async def test_one_of_an_order_that_has_ended_is_booked_and_taken_off(replica: Replica, venue: NamelessVenue) -> None:
    await replica.signal(order_type="market", price=None, quantity=Decimal(3))
    await replica.ends()
    lost = child_id(KEY, 2)
    await by_hand(venue, lost, "4")
    venue.fill(lost, "1", tell=False)
    await until(lambda: venue.orders[lost].status is VenueOrderStatus.CANCELED)
    record = await holds(replica, lambda record: sum((fill.quantity for fill in record.fills), NONE) == 4)
    assert [child.state for child in record.children] == [ChildState.FILLED, ChildState.CANCELED]
    events = await replica.events()
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))


async def test_a_stream_that_tells_of_a_lost_child_has_it_adopted(replica: Replica, venue: NamelessVenue) -> None:
    await replica.signal(**ICEBERG)
    await until(lambda: len(venue.orders) == 1)
    replica.reconciler._look = asyncio.Future  # type: ignore[method-assign,assignment]  # by looking it would be found anyway
    lost = child_id(KEY, 9)
    await by_hand(venue, lost, "1", order_type=OrderType.MARKET, price=None)
    venue.sink.on_fill("alpha", venue.orders[lost].fills[0])  # type: ignore[union-attr]
    record = await holds(replica, lambda record: len(record.children) > 1 and record.fills)
    assert (record.children[-1].number, record.children[-1].state) == (9, ChildState.FILLED)


# --- what nobody works ----------------------------------------------------------------------------------------------------


async def test_orders_of_ours_without_an_order_are_told_and_left_where_that_is_wanted(
    store: Store, venue: NamelessVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_orders, "EXPIRY_MARGIN_MS", -1000)
    await by_hand(venue, child_id(order_key("gone"), 1))
    await by_hand(venue, "somebody-elses")
    replica = await Replica(store, {"alpha": venue}, cancel_unknown=False).start()
    await until(lambda: replica.reconciler.unwatched == {"alpha": 1})
    (report,) = await replica.reconciler.reconcile()
    (again,) = await replica.reconciler.reconcile()
    for one in (report, again):
        assert (one.unwatched, one.foreign_orders, one.cancelled) == (1, 1, [])
    assert venue.cancels == []
    await replica.die()


async def test_an_order_that_only_appears_is_not_cancelled_before_its_request_would_have_expired(
    replica: Replica, venue: NamelessVenue
) -> None:
    """However often it is seen."""
    venue.request_ttl_ms = 3_600_000
    lost = child_id(order_key("appearing"), 1)
    await by_hand(venue, lost)
    for _ in range(3):
        (report,) = await replica.reconciler.reconcile()
        assert (report.unwatched, report.cancelled) == (1, [])
    venue.request_ttl_ms = 300
    await until(lambda: lost in venue.cancels)


# --- trades -----------------------------------------------------------------------------------------------------------------


async def test_a_trade_after_the_end_that_no_stream_told_is_booked_once(replica: Replica, venue: NamelessVenue) -> None:
    await replica.signal()
    await until(lambda: len(venue.orders) == 1)
    await cancel(replica)
    await replica.ends()
    venue.fill(child_id(KEY, 1), "4", tell=False)
    reports = await asyncio.gather(*(replica.reconciler.reconcile() for _ in range(3)))
    record = await holds(replica, lambda record: bool(record.fills))
    assert [fill.quantity for fill in record.fills] == [Decimal(4)]
    assert sum(report.fills_booked for (report,) in reports) <= 1
    events = await replica.events()
    assert events[-1].filled_quantity == Decimal(4)
    assert "execution_reconciliation_repairs_total" in replica.reconciler._metrics.render().decode()


async def test_a_trade_while_no_replica_lived_of_an_order_that_had_ended(store: Store, venue: NamelessVenue) -> None:
    """Nothing of it is in memory: the symbol is remembered by the store, its order is found by the venue's id."""
    first = await Replica(store, {"alpha": venue}, "first").start()
    first.reconciler._trades._traded = StoredSymbols(store)
    await first.signal()
    await until(lambda: len(venue.orders) == 1)
    await first.reconciler.reconcile()
    await cancel(first)
    await first.ends()
    await first.stop()
    venue.fill(child_id(KEY, 1), "4", tell=False)
    venue.orders["by-hand"] = venue.orders[child_id(KEY, 1)].__class__(
        ApprovedOrder(
            client_order_id="by-hand",
            symbol="BTC/USDT",
            side=Side.SELL,
            order_type=OrderType.MARKET,
            quantity=Decimal(2),
        ),
        99,
    )
    venue.fill("by-hand", "2", tell=False)
    second = Replica(store, {"alpha": venue}, "second")
    second.reconciler._trades._traded = StoredSymbols(store)
    await second.start()
    second.reconciler.shards_changed()
    record = await holds(second, lambda record: bool(record.fills))
    assert [fill.quantity for fill in record.fills] == [Decimal(4)]
    (report,) = await second.reconciler.reconcile()
    assert (report.foreign_fills, report.fills_booked) == (1, 0)
    asked = len(venue.asked_by_venue_id)
    await second.reconciler.reconcile()
    assert len(venue.asked_by_venue_id) == asked, "what is somebody else's is known for that"
    await second.die()


# --- positions ----------------------------------------------------------------------------------------------------------------


class Futures(ScriptedVenue):
    position = Decimal(5)

    def rules(self, symbol: str) -> MarketRules | None:
        return msgspec.structs.replace(RULES, contract=True)

    async def positions(self) -> list[Position]:
        return [Position(symbol="BTC/USDT", quantity=self.position)] if self.position else []


async def booked(store: Store, replica: Replica, side: Side, quantity: str, role: str = "entry") -> None:
    """A fill that some replica booked and published."""
    number = int(await store.call("INCR", "n"))
    fill = EventFill(trade_id=f"t{number}", price=Decimal(100), quantity=Decimal(quantity), fee=NONE, timestamp=1_000)
    child = EventChild(
        client_order_id="c",
        venue="alpha",
        state="filled",
        quantity=fill.quantity,
        filled=fill.quantity,
        role=role,
        fills=(fill,),
    )
    event = OrderEvent(
        order_id="ord",
        signal_id="sig",
        status=OrderStatus.FILLED,
        filled_quantity=fill.quantity,
        average_price=None,
        commission=NONE,
        timestamp=1_000,
        event_id=f"e{number}",
        event_type=EventType.FILLED,
        sequence=number,
        strategy_id=None,
        exchange="alpha",
        symbol="BTC/USDT",
        side=side,
        quantity=fill.quantity,
        remaining_quantity=NONE,
        commissions={},
        instance_id="other",
        child=child,
    )
    stored = Projections(OutboxStore(store, replica.ledger.shards), order_retention=60, most_trades=1000)
    await stored.apply(0, [f"{number}-0"], [event])


async def test_a_position_that_our_fills_do_not_explain_is_drift_and_left_alone(store: Store) -> None:
    venue = Futures()
    replica = await Replica(store, {"alpha": venue}).start()
    adapters: dict[str, Adapter] = {"alpha": venue}
    positions = Positions(replica.runner, Reads(adapters, Circuits(), Metrics()), Metrics(), StoredTrades(store))

    async def look() -> VenueReport:
        report = VenueReport(venue="alpha", instance="a", at=0)
        await positions.look("alpha", report)
        return report

    assert (await look()).drifts == [], "the first is the base line"
    await booked(store, replica, Side.BUY, "3")
    await booked(store, replica, Side.BUY, "1", role="exit")  # of a bought position: a sale
    venue.position = Decimal(7)
    assert [(await look()).drifts for _ in range(3)] == [[], [], []]
    venue.position = Decimal("6.5")
    assert (await look()).drifts == [], "seen once, it may be a fill under way"
    (drift,) = (await look()).drifts
    assert (drift.at_venue, drift.expected, drift.amount) == (Decimal("6.5"), Decimal(7), Decimal("-0.5"))
    venue.position = NONE
    await look()
    assert (await look()).drifts[0].amount == Decimal(-7), "closed by somebody, or liquidated"
    assert venue.creates == []
    await replica.die()


# --- a venue that does not answer ---------------------------------------------------------------------------------------------


async def test_a_venue_that_cannot_be_compared_is_told_and_spared(
    replica: Replica, venue: NamelessVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "LEAST_LONG", 0.1)
    asked = 0

    async def away(symbol: str | None = None) -> list[VenueOrder]:
        nonlocal asked
        asked += 1
        raise Unavailable("nobody there")

    answers, venue.open_orders = venue.open_orders, away  # type: ignore[method-assign]
    await until(lambda: replica.reconciler.troubles("alpha"))
    (report,) = await replica.reconciler.reconcile()
    assert report.errors
    reads = replica.runner.circuits.of("alpha", Endpoint.READS)
    while reads.admits:
        reads.failed("nobody there")
    before = asked
    (report,) = await replica.reconciler.reconcile()
    assert asked == before or reads.admits, "while its circuit is open, it is not asked"
    venue.open_orders = answers  # type: ignore[method-assign]
    await until(lambda: not replica.reconciler.troubles("alpha"), 60)


async def test_trades_that_fail_keep_nobody_from_comparing_orders(replica: Replica, venue: NamelessVenue) -> None:
    async def broken(symbol: str, since_ms: int) -> FillPage:
        raise Unknown("half an answer")

    venue.fills_since = broken  # type: ignore[method-assign,assignment]
    await replica.signal()
    await until(lambda: len(venue.orders) == 1)
    await by_hand(venue, "by-hand")
    (report,) = await replica.reconciler.reconcile()
    assert (report.foreign_orders, report.compared) == (1, 1)
    assert report.errors == ["trades: half an answer"]
