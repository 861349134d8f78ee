"""What all ways of watching a market have in common."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from adapters.base import AdapterError
from adapters.ccxt_venue.feed import Feed

CONNECT_SECONDS = 10.0
QUIET_SECONDS = 5.0
"""After so long without a book it is asked for over REST: a quiet market, or a dead stream."""
LONGEST_SILENCE = 10.0
"""A book older than this, that could not be confirmed either, is void."""
GRACE_SECONDS = 1.0
"""How long a stream may be behind REST."""


async def first_of(*waits: Awaitable[Any]) -> None:
    """Wait for the first to end, and raise what it raises; the others are cancelled.

    Raises:
        ConnectionError: it was cancelled, as ccxt does to who waits on a connection that it closes.
    """
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task.cancelled():
                raise ConnectionError("the connection was closed")
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until_silent(feed: Feed, ask: Callable[[], Awaitable[Any]]) -> None:
    """Return never while books come, or REST shows the one that came last.

    Raises:
        ConnectionError: the stream is silent, and the market is not, or nobody knows.
    """
    while True:
        await asyncio.sleep(max(feed.heard_at + QUIET_SECONDS - time.monotonic(), 0.01))
        heard = feed.heard_at
        silent = time.monotonic() - heard
        if silent < QUIET_SECONDS:
            continue
        try:
            raw = await ask()
        except AdapterError as error:
            if time.monotonic() - heard > LONGEST_SILENCE and feed.heard_at == heard:
                raise ConnectionError(f"silent for {silent:.0f} s, and over REST: {error}") from error
            await asyncio.sleep(GRACE_SECONDS)
            continue
        if feed.heard_at != heard:
            continue
        if feed.unchanged(raw):
            feed.asked(raw)
            continue
        await asyncio.sleep(GRACE_SECONDS)
        if feed.heard_at == heard:
            raise ConnectionError(f"silent for {silent:.0f} s while the book changed")
