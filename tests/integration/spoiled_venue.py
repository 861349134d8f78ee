"""A proxy in front of the local venue that lacks, breaks or changes parts of it, as other people's venues do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Edit = Callable[[dict[str, Any]], dict[str, Any] | None]
"""Changes a message of a socket; None: it is not passed on."""


async def absent(_: web.Request) -> web.StreamResponse:
    return web.Response(status=404, text="<html>Not Found</html>", content_type="text/html")


async def unsupported(_: web.Request) -> web.StreamResponse:
    return web.json_response({"code": -1121, "msg": "Invalid symbol."}, status=400)


async def hanging(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(3600)
    raise AssertionError


def answering(what: Any) -> Handler:
    async def handle(_: web.Request) -> web.StreamResponse:
        return web.json_response(what)

    return handle


async def deaf(request: web.Request) -> web.StreamResponse:
    """Takes a socket, and never says anything on it."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for _ in socket:
        pass
    return socket


async def refusing(request: web.Request) -> web.StreamResponse:
    """Answers a subscription, also the one in the path, with an error."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    error = {"id": None, "error": {"code": 2, "msg": "Invalid request: unknown stream"}}
    await socket.send_json(error)
    async for _ in socket:
        await socket.send_json(error)
    return socket


async def closing(request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await socket.close()
    return socket


class SpoiledVenue:
    """Passes everything on to `target`, but for `rest` (by path, below `/api/v3/`) and `sockets` (by the beginning of the path)."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.rest: dict[str, Handler] = {}
        self.edit_rest: dict[str, Callable[[Any], Any]] = {}
        self.sockets: dict[str, Handler] = {}
        self.edit: Edit = lambda message: message
        self.late = 0.0
        """Seconds before a market socket passes anything on."""
        self.autoping = True
        self.asked: list[tuple[float, str]] = []
        """When what was asked for: REST paths and sockets, by the loop's clock."""
        self.url = ""
        self._runner: web.AppRunner | None = None
        self._client: aiohttp.ClientSession | None = None
        self._open: set[web.WebSocketResponse] = set()

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._client = aiohttp.ClientSession()
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        for socket in list(self._open):
            await socket.close()
        if self._client is not None:
            await self._client.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def times(self, beginning: str) -> int:
        return sum(path.startswith(beginning) for _, path in self.asked)

    async def cut(self) -> None:
        """End every socket."""
        for socket in list(self._open):
            await socket.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((asyncio.get_running_loop().time(), request.path))
        if request.headers.get("Upgrade", "").lower() == "websocket":
            for beginning, handler in self.sockets.items():
                if request.path.startswith(beginning) and not request.path.startswith("/ws-api"):
                    return await handler(request)
            return await self._socket(request)
        name = request.path.removeprefix("/api/v3/")
        return await self.rest[name](request) if name in self.rest else await self._pass(request, name)

    async def _pass(self, request: web.Request, name: str) -> web.StreamResponse:
        assert self._client is not None
        url, body = self._target + request.path_qs, await request.read()
        headers = {
            key: value for key, value in request.headers.items() if key.lower() not in ("host", "content-length")
        }
        async with self._client.request(request.method, url, headers=headers, data=body or None) as answer:
            found = await answer.json()
            edited = self.edit_rest.get(name, lambda told: told)(found)
            return web.json_response(edited, status=answer.status)

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        assert self._client is not None
        market = not request.path.startswith("/ws-api")
        ours = web.WebSocketResponse(autoping=self.autoping or not market)
        await ours.prepare(request)
        self._open.add(ours)
        async with self._client.ws_connect(self._target + request.path_qs) as theirs:

            async def up() -> None:
                async for message in ours:
                    if message.type is aiohttp.WSMsgType.TEXT:
                        await theirs.send_str(message.data)
                await theirs.close()

            sending = asyncio.create_task(up())
            try:
                if market and self.late:
                    await asyncio.sleep(self.late)
                async for message in theirs:
                    told = json.loads(message.data)
                    changed = self.edit(told) if market else told
                    if changed is not None and not ours.closed:
                        await ours.send_json(changed)
            finally:
                sending.cancel()
                self._open.discard(ours)
        return ours
