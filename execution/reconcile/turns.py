"""Long lists gone through without holding up orders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")

TURN = 200
"""Items per turn of the event loop."""


async def in_turns(items: Iterable[T]) -> AsyncIterator[T]:
    """The items, with everybody else's turn in between; what is known of one may change while others are looked at."""
    for number, item in enumerate(items, 1):
        yield item
        if number % TURN == 0:
            await asyncio.sleep(0)
