"""A Pub/Sub emulator keeps nothing: one that was restarted gets its topics and subscriptions again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from execution.pubsub.errors import PubSubError

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0


async def keep_provided(provide: Callable[[], Awaitable[object]], lacking: Callable[[], bool]) -> None:
    """Provide topics and subscriptions again for as long as Pub/Sub is `lacking`; runs until cancelled.

    Only for an emulator: on the real service what is missing was deleted by somebody, who is not to be overruled.
    """
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if not lacking():
            continue
        try:
            await provide()
        except PubSubError as error:
            log.warning("topics and subscriptions are not provided yet", error=str(error))
