"""What a halt does to orders between any two of their steps; a real store, a venue in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from adapters.base import ApprovedOrder, VenueOrder, VenueOrderStatus
from execution.circuit import LIMITS, Endpoint, State
from execution.store import Store
from schemas.order import ChildState, OrderStatus, ParentOrder
from schemas.terms import OrderType
from tests.replica import Replica, until
from tests.scripted_venue import ScriptedVenue
from tests.unit.story import RULES

WHY = "halted by a test"


class Halts:
    """A halt of one strategy that a test switches."""

    def __init__(self) -> None:
        self.on = False

    def __call__(self, order: ParentOrder) -> str | None:
        return WHY if self.on and order.strategy_id == "tests" else None

    def switch(self, replica: Replica, on: bool) -> None:
        self.on = on
        for actor in replica.runner.actors():
            actor.post(None)


class Waiting(ScriptedVenue):
    """A venue before whose wire a test may do something."""

    def __init__(self) -> None:
        super().__init__()
        self.before: Callable[[], None] = lambda: None

    async def place(self, order: ApprovedOrder, *, before_send: Callable[[], None] | None = None) -> VenueOrder:
        self.before()
        return await super().place(order, before_send=before_send)

    @property
    def open(self) -> list[str]:
        return [name for name, held in self.orders.items() if held.status is VenueOrderStatus.OPEN]


@pytest.fixture
def halts() -> Halts:
    return Halts()


@pytest.fixture
def venue() -> Waiting:
    return Waiting()


@pytest.fixture
async def replica(store: Store, venue: Waiting, halts: Halts) -> AsyncIterator[Replica]:
    started = await Replica(store, {"alpha": venue}, halted=halts).start()
    yield started
    await started.die()


async def test_what_was_decided_does_not_leave_once_halted(replica: Replica, venue: Waiting, halts: Halts) -> None:
    venue.before = lambda: setattr(halts, "on", True)
    await replica.signal()
    await asyncio.sleep(0.3)
    assert venue.creates == []
    record = await replica.order()
    assert (record.parent.status, record.parent.waiting) == (OrderStatus.ACCEPTED, WHY)
    assert [child.state for child in record.children] == [ChildState.VOID]
    venue.before = lambda: None
    halts.switch(replica, False)
    await until(lambda: venue.open)
    assert (await replica.order()).parent.waiting is None


@pytest.mark.parametrize("algorithm", ["direct", "iceberg", "twap"])
async def test_entries_are_taken_off_and_come_back(
    replica: Replica, venue: Waiting, halts: Halts, algorithm: str
) -> None:
    parameters: dict[str, Any] = {"iceberg": {"display_quantity": 4}, "twap": {"duration_seconds": 600, "slices": 2}}
    venue.quote = ("99", "101")
    await replica.signal(algorithm=algorithm, algorithm_params=parameters.get(algorithm))
    await until(lambda: venue.open)
    halts.switch(replica, True)
    await until(lambda: not venue.open)
    created = len(venue.creates)
    await asyncio.sleep(0.5)
    record = await replica.order()
    assert len(venue.creates) == created
    assert not record.parent.status.terminal
    assert record.parent.waiting == WHY
    assert record.children[-1].reason == WHY
    halts.switch(replica, False)
    await until(lambda: venue.open)


async def test_a_halted_order_can_be_canceled_and_its_fills_are_booked(
    replica: Replica, venue: Waiting, halts: Halts
) -> None:
    await replica.signal()
    await until(lambda: venue.open)
    venue.fill(venue.open[0], "3")
    halts.switch(replica, True)
    await until(lambda: not venue.open)
    await replica.commands._carry_out(_cancel(), "c1")
    record = await replica.ends()
    assert record.parent.status is OrderStatus.CANCELED
    assert sum(fill.quantity for fill in record.fills) == 3


async def test_exits_stay_and_new_ones_are_placed_for_what_had_filled(
    replica: Replica, venue: Waiting, halts: Halts
) -> None:
    await replica.signal(take_profit=120, stop_loss=80)
    await until(lambda: venue.open)
    entry = venue.open[0]
    halts.on = True
    venue.fill(entry, "4")  # it fills as the halt begins
    await until(lambda: entry not in venue.open and venue.open)
    assert {venue.orders[name].order.side for name in venue.open} == {"sell"}


async def test_a_replica_that_takes_a_halted_order_over_leaves_it_alone(
    store: Store, replica: Replica, venue: Waiting, halts: Halts
) -> None:
    await replica.signal()
    await until(lambda: venue.open)
    await replica.die()
    halts.on = True
    other = await Replica(store, {"alpha": venue}, "b", halted=halts).start()
    try:
        await until(lambda: not venue.open)
        created = len(venue.creates)
        await asyncio.sleep(0.3)
        assert len(venue.creates) == created
    finally:
        await other.die()


@pytest.mark.parametrize("reduces", [True, False])
async def test_a_stop_that_can_only_reduce_waits_for_no_circuit(store: Store, reduces: bool) -> None:
    venue = Waiting()
    rules = msgspec.structs.replace(RULES, contract=True, native=(OrderType.MARKET, OrderType.LIMIT, OrderType.STOP))
    venue.rules = lambda symbol: rules if symbol == rules.symbol else None  # type: ignore[method-assign]
    replica = await Replica(store, {"alpha": venue}).start()
    try:
        circuit = replica.market.circuits.of("alpha", Endpoint.ORDERS)
        for _ in range(LIMITS[Endpoint.ORDERS].failures):
            circuit.failed("away")
        stop = {"order_type": "stop", "side": "sell", "stop_price": 90, "price": None, "reduce_only": reduces}
        await replica.signal("stop", **stop)
        await until(lambda: venue.creates or replica.runner.live)
        if reduces:
            await until(lambda: venue.open)
            assert circuit.state is not State.CLOSED
        else:
            await asyncio.sleep(0.3)
            assert venue.creates == []
    finally:
        await replica.die()


def _cancel() -> Any:
    from schemas.command import parse

    return parse({"type": "order.cancel", "signal_id": "sig"})
