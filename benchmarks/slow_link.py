"""A TCP link whose bytes can be made to arrive later, in both directions, without being held back by one another."""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import unquote, urlsplit, urlunsplit

CHUNK = 65_536


class SlowLink:
    """Listens on a port of its own and passes everything on to a server. To be used as a context manager."""

    def __init__(self, url: str) -> None:
        """`url` of the server; `self.url` is the same one with this link's port. A `unix://` one becomes `redis://`."""
        self._target = urlsplit(url)
        self.delay = 0.0
        """Seconds by which each byte is late, from the next one on."""
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self.url = ""

    async def __aenter__(self) -> SlowLink:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        here = f"127.0.0.1:{port}"
        local = self._target.scheme == "unix"
        self.url = f"redis://{here}" if local else urlunsplit(self._target._replace(netloc=here))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        there = None
        try:
            if self._target.scheme == "unix":
                back, there = await asyncio.open_unix_connection(unquote(self._target.path))
            else:
                back, there = await asyncio.open_connection(self._target.hostname, self._target.port)
            pipes = [asyncio.create_task(self._pipe(reader, there)), asyncio.create_task(self._pipe(back, writer))]
            try:
                await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pipe in pipes:
                    pipe.cancel()
                await asyncio.gather(*pipes, return_exceptions=True)
        finally:
            self._serving.discard(task)
            for end in (writer, there):
                if end is not None:
                    end.close()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass bytes on, each as late as was said when it came."""
        loop = asyncio.get_running_loop()
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        passing = asyncio.create_task(_pass_on(under_way, writer))
        try:
            with contextlib.suppress(ConnectionError):
                while chunk := await reader.read(CHUNK):
                    under_way.put_nowait((loop.time() + self.delay, chunk))
            under_way.put_nowait((loop.time() + self.delay, b""))
            await passing
        finally:
            passing.cancel()


async def _pass_on(under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while True:
            at, chunk = await under_way.get()
            if at > loop.time():
                await asyncio.sleep(at - loop.time())
            if not chunk:
                return
            writer.write(chunk)
            await writer.drain()
