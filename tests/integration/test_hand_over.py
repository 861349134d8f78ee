"""A shard is handed over while an order of it is between its commit and its request: what is committed leaves all the same.

Otherwise the next owner, who cannot know that it did not, would wait until such a request can no longer be executed.
"""

from __future__ import annotations

import asyncio
import contextlib
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from adapters.base import Unavailable
from execution.circuit import Endpoint
from execution.ledger import child_id, order_key
from execution.store import Store
from schemas.order import OrderStatus
from tests.replica import Replica, until
from tests.scripted_venue import ScriptedVenue

FIRST, SECOND = (child_id(order_key("sig"), number) for number in (1, 2))


class Gate:
    """Holds calls of a coroutine function until it is opened."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped
        self._open = asyncio.Event()
        self.waiting = 0

    async def __call__(self, *arguments: Any) -> Any:
        self.waiting += 1
        await self._open.wait()
        return await self._wrapped(*arguments)

    def open(self) -> None:
        self._open.set()


async def handed_over(replica: Replica, gate: Gate) -> None:
    """Hand everything over, and let what is held on once no shard is ours any more."""
    leaving = asyncio.create_task(replica.stop())
    await until(lambda: all(replica.runner.lease_of(order_key(f"{number}")) is None for number in range(40)))
    gate.open()
    await leaving


async def test_an_order_accepted_meanwhile_is_sent(store: Store) -> None:
    venue = ScriptedVenue()
    first = await Replica(store, {"alpha": venue}, "a").start()
    gate = Gate(first.ledger.accept)
    first.ledger.accept = gate  # type: ignore[method-assign, assignment]
    offered = asyncio.create_task(first.signal(order_type="market", price=None))
    await until(lambda: gate.waiting)
    await handed_over(first, gate)
    await offered
    assert venue.creates == [FIRST]
    second = await Replica(store, {"alpha": venue}, "b").start()
    assert (await second.ends()).parent.status is OrderStatus.FILLED
    assert venue.creates == [FIRST]
    await second.die()


@pytest.mark.parametrize("lost", [False, True])
async def test_a_child_committed_meanwhile_is_sent(store: Store, lost: bool) -> None:
    """Also where its answer is lost: it is asked for by the next owner, and not sent again."""
    venue = ScriptedVenue()
    first = await Replica(store, {"alpha": venue}, "a").start()
    await first.signal(quantity=10, order_type="limit", algorithm="iceberg", algorithm_params={"display_quantity": 5})
    await until(lambda: FIRST in venue.orders)
    await until(lambda: first.runner.get(order_key("sig")).state.children[0].state.value == "open")  # type: ignore[union-attr]
    gate = Gate(first.ledger.commit)
    first.ledger.commit = gate  # type: ignore[method-assign, assignment]
    if lost:
        venue.script.append("lost_after")
    venue.fill(FIRST, "5")
    await until(lambda: gate.waiting)
    await handed_over(first, gate)
    assert venue.creates == [FIRST, SECOND]
    second = await Replica(store, {"alpha": venue}, "b").start()
    await until(lambda: venue.sink is second.reconciler)
    venue.fill(SECOND, "5")
    assert (await second.ends()).parent.status is OrderStatus.FILLED
    assert venue.creates == [FIRST, SECOND]
    await second.die()


async def test_what_its_venue_keeps_back_is_left_to_the_next_owner_and_not_tried_again_and_again(store: Store) -> None:
    """Its circuit is open when the shard is handed over: it is looked at once, and not as fast as the processor can."""
    venue = ScriptedVenue()
    first = await Replica(store, {"alpha": venue}, "a").start()
    circuit = first.market.circuits.of("alpha", Endpoint.ORDERS)
    for _ in range(5):
        with contextlib.suppress(Unavailable), circuit.passage():
            raise Unavailable("away")
    assert not circuit.admits
    await first.signal()
    actor = first.runner.get(order_key("sig"))
    assert actor is not None
    steps, step = 0, actor._step

    async def counted() -> None:
        nonlocal steps
        steps += 1
        await step()

    actor._step = counted  # type: ignore[method-assign]
    gate = Gate(first.ledger.commit)
    first.ledger.commit = gate  # type: ignore[method-assign, assignment]
    actor.post(partial(actor.state.arrived, Decimal(100)))
    await until(lambda: gate.waiting)
    await asyncio.wait_for(handed_over(first, gate), 5)
    assert steps < 10
    assert venue.creates == []
    second = await Replica(store, {"alpha": venue}, "b").start()
    await until(lambda: venue.creates == [FIRST])
    await second.die()
