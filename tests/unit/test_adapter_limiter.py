"""Turns at the rate limit."""

from __future__ import annotations

import asyncio
import time

import pytest

from adapters.base import AdapterHealth, RateLimited
from adapters.ccxt_venue import limiter
from adapters.ccxt_venue.limiter import Budget, Lane, Limiter


def far() -> int:
    """A window that does not end during a test."""
    return 10_000 * 86_400_000


async def waits(request: asyncio.Task[None]) -> bool:
    for _ in range(5):
        await asyncio.sleep(0)
    return not request.done()


async def test_without_limits_nobody_waits() -> None:
    turns = Limiter(AdapterHealth())
    for lane in Lane:
        await turns.turn(1000, lane)


async def test_a_reserve_is_kept_for_urgent_requests() -> None:
    health = AdapterHealth()
    turns = Limiter(health, weight=[Budget(far(), 100)])
    for _ in range(9):
        await turns.turn(10, Lane.READ)
    waiting = asyncio.create_task(turns.turn(10, Lane.ORDER))
    assert await waits(waiting)
    assert health.queued == 1
    assert health.limited_until is not None
    await asyncio.wait_for(turns.turn(10, Lane.URGENT), 1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert health.queued == 0
    turns.close()


async def test_what_closes_a_position_goes_before_what_opens_one() -> None:
    """Where both wait, and where the limit on orders is nearly used up."""
    turns, went = Limiter(AdapterHealth(), orders=[Budget(far(), 20)]), list[Lane]()

    async def go(lane: Lane) -> None:
        await turns.turn(1, lane)
        went.append(lane)

    for _ in range(19):
        await asyncio.wait_for(turns.turn(1, Lane.ORDER), 1)
    opening = asyncio.create_task(go(Lane.ORDER))
    assert await waits(opening), "the last one is kept"
    await asyncio.wait_for(turns.turn(1, Lane.PROTECT), 1)
    closing = asyncio.create_task(go(Lane.PROTECT))
    assert await waits(closing)
    turns.adopt(Limiter(AdapterHealth(), orders=[Budget(far(), 1)]))
    await asyncio.wait_for(turns.turn(1, Lane.URGENT), 1)
    await asyncio.wait_for(closing, 1)
    assert await waits(opening)
    assert went == [Lane.PROTECT]
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    turns.close()


async def test_watching_the_market_leaves_half_of_the_budget_to_orders() -> None:
    turns = Limiter(AdapterHealth(), weight=[Budget(far(), 100)])
    for _ in range(5):
        await turns.turn(10, Lane.MARKET)
    waiting = asyncio.create_task(turns.turn(10, Lane.MARKET))
    assert await waits(waiting)
    for _ in range(4):
        await asyncio.wait_for(turns.turn(10, Lane.ORDER), 1)
    await asyncio.wait_for(turns.turn(10, Lane.URGENT), 1)
    assert await waits(waiting)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    turns.close()


async def test_who_waits_goes_by_lane_and_then_in_order() -> None:
    health = AdapterHealth()
    turns = Limiter(health)
    turns.refused(int(time.time() * 1000) + 60, orders_only=False)
    went: list[str] = []

    async def go(name: str, lane: Lane) -> None:
        await turns.turn(1, lane)
        went.append(name)

    names = [
        ("market", Lane.MARKET),
        ("read", Lane.READ),
        ("order1", Lane.ORDER),
        ("order2", Lane.ORDER),
        ("cancel", Lane.URGENT),
    ]
    await asyncio.gather(*(go(name, lane) for name, lane in names))
    assert went == ["cancel", "order1", "order2", "read", "market"]
    assert health.queued == 0


async def test_a_limit_of_orders_holds_neither_cancels_nor_reads() -> None:
    turns = Limiter(AdapterHealth(), orders=[Budget(far(), 1)])
    await turns.turn(1, Lane.ORDER)
    waiting = asyncio.create_task(turns.turn(1, Lane.ORDER))
    assert await waits(waiting)
    await asyncio.wait_for(asyncio.gather(turns.turn(1, Lane.URGENT), turns.turn(1, Lane.READ)), 1)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    turns.close()


async def test_whose_turn_does_not_come_in_time_is_told_until_when(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(limiter.PATIENCE_MS, Lane.ORDER, 30)
    turns = Limiter(AdapterHealth(), orders=[Budget(far(), 1)])
    await turns.turn(1, Lane.ORDER)
    with pytest.raises(RateLimited) as caught:
        await turns.turn(1, Lane.ORDER)
    assert caught.value.until > time.time() * 1000
    turns.refused(int(time.time() * 1000) + 3_600_000, orders_only=False)
    with pytest.raises(RateLimited):  # longer than even a cancel waits
        await turns.turn(1, Lane.URGENT)
    turns.close()


async def test_answers_correct_the_counts_of_their_own_window_only() -> None:
    now = int(time.time() * 1000)
    turns = Limiter(AdapterHealth(), weight=[Budget(far(), 100, "x-mbx-used-weight-1m")])
    turns.observe({"x-mbx-used-weight-1m": "95"}, now - far())  # sent in the window before
    await asyncio.wait_for(turns.turn(5, Lane.READ), 1)
    turns.observe({"x-mbx-used-weight-1m": "95"}, now)
    waiting = asyncio.create_task(turns.turn(1, Lane.READ))
    assert await waits(waiting)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    turns.close()


async def test_a_request_heavier_than_its_budget_goes_alone() -> None:
    turns = Limiter(AdapterHealth(), weight=[Budget(far(), 10)])
    await asyncio.wait_for(turns.turn(50, Lane.READ), 1)


async def test_binances_list_of_limits_however_odd() -> None:
    rules = [
        {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 2},
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "FORTNIGHT", "intervalNum": 1, "limit": 1},
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 0, "limit": 1},
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE"},
        "nonsense",
    ]
    turns = limiter.of_binance(AdapterHealth(), rules)
    turns.observe({"x-mbx-order-count-10s": "2"}, int(time.time() * 1000))
    await asyncio.wait_for(turns.turn(10_000, Lane.READ), 1)
