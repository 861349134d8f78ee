"""Redis pub/sub as a wake-up: fire and forget, on a connection of its own."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import structlog
from redis.exceptions import RedisError

from execution.store.errors import StoreUnavailable
from execution.store.node import Address

log = structlog.get_logger(__name__)

_PING_AFTER = 10.0
_LONGEST_PAUSE = 2.0


class Subscription:
    """Messages of some channels, for as long as it is open; it subscribes again whenever its connection is lost.

    What is published while it is not connected is gone: a message is a hint to look, never the news itself.
    """

    def __init__(
        self,
        address: Address,
        channels: tuple[str, ...],
        callback: Callable[[str, bytes], None],
        resubscribed: Callable[[], None] | None,
        connect_timeout: float,
    ) -> None:
        self._address = address
        self._channels = channels
        self._callback = callback
        self._resubscribed = resubscribed
        self._connect_timeout = connect_timeout
        self._link = address.link()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Subscribe.

        Raises:
            StoreUnavailable: the store did not confirm it.
        """
        try:
            await self._subscribe()
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"{self._address.name}: not subscribed: {error}", maybe_applied=False) from None
        self._task = asyncio.create_task(self._run(), name=f"subscription to {', '.join(self._channels)}")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._link.disconnect(nowait=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._read()
            except (RedisError, OSError) as error:
                log.warning("store subscription lost", store=self._address.name, error=str(error))
            await self._link.disconnect(nowait=True)
            await self._subscribe_again()

    async def _subscribe_again(self) -> None:
        pause = 0.05
        while True:
            try:
                await self._subscribe()
            except (RedisError, OSError):  # the store itself tells of its loss
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                log.info("subscribed to the store again", store=self._address.name)
                if self._resubscribed is not None:
                    self._guarded(self._resubscribed)
                return

    async def _subscribe(self) -> None:
        link = self._link = self._address.link()
        try:
            async with asyncio.timeout(self._connect_timeout):
                await link.connect()  # type: ignore[no-untyped-call]
                await link.send_command("SUBSCRIBE", *self._channels)
                for _ in self._channels:
                    await link.read_response()
        except BaseException:
            await link.disconnect(nowait=True)
            raise

    async def _read(self) -> None:
        link = self._link
        pinged = False
        while True:
            message = await link.read_response(timeout=_PING_AFTER)
            if message is not None:
                pinged = False
                if message[0] == b"message":
                    self._guarded(self._callback, message[1].decode(), message[2])
            elif pinged:
                raise TimeoutError(f"no answer to a PING within {_PING_AFTER:g} s")
            else:
                pinged = True
                await link.send_command("PING")

    def _guarded(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            callback(*arguments)
        except Exception:
            log.exception("a callback of a store subscription failed", channels=self._channels)
