"""How many new orders wait at a venue at a time: the others wait before it, where they hold nobody up and can be withdrawn.

A venue that is slow, limited or hanging may hold no more than its share of what the service lets wait; else its orders would keep
signals for other venues from being taken.
"""

from __future__ import annotations

import asyncio


class Turns:
    """Of one venue."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._taken = 0
        self._waiting: dict[str, asyncio.Future[bool]] = {}
        """In the order of their coming."""

    @property
    def free(self) -> bool:
        return self._taken < self.most and not self._waiting

    def take(self) -> None:
        """Take a turn at once, whether or not one is free."""
        self._taken += 1

    async def wait(self, who: str) -> bool:
        """Wait for a turn, and take it; False: woken without one."""
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[who] = turn
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self.leave()
            raise
        finally:
            if self._waiting.get(who) is turn:
                del self._waiting[who]

    def wake(self, who: str) -> None:
        """Let one who waits go on without a turn."""
        turn = self._waiting.get(who)
        if turn is not None and not turn.done():
            turn.set_result(False)

    def leave(self) -> None:
        """Give a turn back: the next one has it."""
        self._taken -= 1
        while self._waiting and self._taken < self.most:
            turn = self._waiting.pop(next(iter(self._waiting)))
            if not turn.done():
                self._taken += 1
                turn.set_result(True)


class VenueTurns:
    """Of every venue."""

    def __init__(self) -> None:
        self._most = 1
        self._turns: dict[str, Turns] = {}

    def bound(self, most: int) -> None:
        """So many at each venue."""
        self._most = max(most, 1)
        for turns in self._turns.values():
            turns.most = self._most

    def of(self, venue: str) -> Turns:
        turns = self._turns.get(venue)
        if turns is None:
            turns = self._turns[venue] = Turns(self._most)
        return turns
