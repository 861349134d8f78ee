"""Ways that can be broken: a TCP proxy per client and server, whose faults last for as long as a `with` block.

All proxies run in a thread with a loop of its own, so that a busy test does not slow them down. Faults of one way add up: it works
again when the last of them is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, TypeVar

Target = tuple[str, int] | Path
"""Host and port, or a Unix socket."""
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)
T = TypeVar("T")


class Proxies:
    """The thread in which all ways of a world run."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._thread.start()
        self._links: list[Link] = []

    async def link(self, name: str, target: Target) -> Link:
        """A way to a server, which listens from now on."""
        link = Link(self, name, target)
        await self.there(link._listen())
        self._links.append(link)
        return link

    async def there(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something in the proxies' thread."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def close(self) -> None:
        for link in self._links:
            await self.there(link._close())
        await self.there(_end_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)
        self._loop.close()


async def _end_all() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class _Pair:
    """One connection through a way."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.spoiled = False
        """Bytes of it are lost: it must never carry on as if they were not."""

    def reset(self) -> None:
        for writer in (self.client, self.server):
            _reset(writer)


class Link:
    """A client's way to a server. The client connects to `port`."""

    def __init__(self, proxies: Proxies, name: str, target: Target) -> None:
        self.name = name
        self.target = target
        self.port = 0
        self.connections = 0
        """Made so far."""
        self._proxies = proxies
        self._server: asyncio.Server | None = None
        self._reserved: socket.socket | None = None
        self._pairs: set[_Pair] = set()
        self._cuts = 0
        self._stalls = 0
        self._moving: asyncio.Event | None = None
        self._delays: list[float] = []
        self._no_answers = 0
        self._no_requests = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def cut(self) -> AsyncIterator[None]:
        """Connections are reset, new ones refused."""
        await self._proxies.there(self._cut(1))
        try:
            yield
        finally:
            await self._proxies.there(self._cut(-1))

    @contextlib.asynccontextmanager
    async def stalled(self) -> AsyncIterator[None]:
        """Nothing passes, nothing breaks. What was sent meanwhile arrives late."""
        await self._proxies.there(self._stall(1))
        try:
            yield
        finally:
            await self._proxies.there(self._stall(-1))

    @contextlib.asynccontextmanager
    async def slowed(self, seconds: float) -> AsyncIterator[None]:
        """Everything comes later, by up to so many seconds each way."""
        self._delays.append(seconds)
        try:
            yield
        finally:
            self._delays.remove(seconds)

    @contextlib.asynccontextmanager
    async def without_answers(self) -> AsyncIterator[None]:
        """Requests arrive and have their effect, answers are lost; in the end the connections that lost some are reset."""
        self._no_answers += 1
        try:
            yield
        finally:
            self._no_answers -= 1
            await self._proxies.there(self._reset_spoiled())

    @contextlib.asynccontextmanager
    async def without_requests(self) -> AsyncIterator[None]:
        """Requests are lost on their way; in the end the connections that lost some are reset."""
        self._no_requests += 1
        try:
            yield
        finally:
            self._no_requests -= 1
            await self._proxies.there(self._reset_spoiled())

    async def reset(self) -> None:
        """Reset the connections there are; new ones are taken."""
        await self._proxies.there(self._reset_all())

    # --- in the proxies' thread ---------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        self._moving = asyncio.Event()
        self._moving.set()
        # A second socket on the port, which never listens, keeps it ours while connections are refused.
        self._reserved = _bound(0)
        self.port = self._reserved.getsockname()[1]
        await self._open()

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._accept, sock=_bound(self.port))

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._reset_all()
        if self._reserved is not None:
            self._reserved.close()

    async def _cut(self, change: int) -> None:
        self._cuts += change
        if self._cuts and self._server is not None:
            self._server.close()
            self._server = None
            await self._reset_all()
        elif not self._cuts and self._server is None:
            await self._open()

    async def _stall(self, change: int) -> None:
        assert self._moving is not None
        self._stalls += change
        if self._stalls:
            self._moving.clear()
        else:
            self._moving.set()

    async def _reset_all(self) -> None:
        for pair in list(self._pairs):
            pair.reset()

    async def _reset_spoiled(self) -> None:
        for pair in list(self._pairs):
            if pair.spoiled:
                pair.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._moving is not None
        self.connections += 1
        await self._moving.wait()
        try:
            if isinstance(self.target, Path):
                there, server = await asyncio.open_unix_connection(self.target)
            else:
                there, server = await asyncio.open_connection(*self.target)
        except OSError:
            _reset(writer)
            return
        pair = _Pair(writer, server)
        self._pairs.add(pair)
        try:
            if not self._cuts:
                pipes = [
                    asyncio.create_task(self._pipe(pair, reader, server, answers=False)),
                    asyncio.create_task(self._pipe(pair, there, writer, answers=True)),
                ]
                await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
                for pipe in pipes:
                    pipe.cancel()
                await asyncio.wait(pipes)
        finally:
            self._pairs.discard(pair)
            for end in (writer, server):
                end.close()

    async def _pipe(
        self, pair: _Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        assert self._moving is not None
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                if self._delays:
                    await asyncio.sleep(random.uniform(0, sum(self._delays)))
                await self._moving.wait()
                if self._no_answers if answers else self._no_requests:
                    pair.spoiled = True
                if not pair.spoiled:
                    writer.write(chunk)
                    await writer.drain()


def _bound(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection as a broken network does: what is under way is gone, the other side learns of it at once."""
    plain = writer.get_extra_info("socket")
    if plain is not None and plain.family == socket.AF_INET:
        with contextlib.suppress(OSError):
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
    writer.transport.abort()
