"""Turns at a venue: never more than its share, first come first served, none lost by who gives up."""

from __future__ import annotations

import asyncio

from execution.venue_turns import VenueTurns


async def test_first_come_first_served_and_never_more_than_the_share() -> None:
    all_turns = VenueTurns()
    all_turns.bound(2)
    turns, order, at_once = all_turns.of("alpha"), [], 0

    async def work(number: int) -> None:
        nonlocal at_once
        if turns.free:
            turns.take()
        else:
            assert await turns.wait(str(number))
        at_once += 1
        assert at_once <= 2
        order.append(number)
        await asyncio.sleep(0)
        at_once -= 1
        turns.leave()

    await asyncio.gather(*(work(number) for number in range(20)))
    assert order == list(range(20))
    assert turns.free
    assert all_turns.of("beta").free


async def test_who_is_woken_or_gives_up_keeps_no_turn() -> None:
    all_turns = VenueTurns()
    turns = all_turns.of("alpha")
    turns.take()
    woken, gone, last = (asyncio.create_task(turns.wait(name)) for name in ("woken", "gone", "last"))
    await asyncio.sleep(0)
    turns.wake("woken")
    assert await woken is False
    turns.leave()  # it goes to the next, who gives up in the same moment
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert await last is True
    turns.leave()
    assert turns.free


async def test_what_may_not_wait_takes_a_turn_beyond_the_share() -> None:
    turns = VenueTurns().of("alpha")
    turns.take()
    turns.take()
    waiting = asyncio.create_task(turns.wait("entry"))
    await asyncio.sleep(0)
    turns.leave()
    await asyncio.sleep(0)
    assert not waiting.done()
    turns.leave()
    assert await waiting
