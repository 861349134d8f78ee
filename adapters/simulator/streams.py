"""WebSockets: market streams, user data streams, and the WebSocket API."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from aiohttp import WSMsgType, web
from msgspec import DecodeError, json

from adapters.simulator import dialect
from adapters.simulator.accounts import Account
from adapters.simulator.errors import BAD_KEY, VenueError, missing
from adapters.simulator.feeds import Feeds
from adapters.simulator.orders import Order, Trade

if TYPE_CHECKING:
    from adapters.simulator.server import Venue

DEPTH_SECONDS = 0.1
MOST_WAITING = 10_000
"""Messages that a client which does not read may have waiting before it is cut off."""


class Client:
    """One WebSocket: what it listens to, and what waits to be sent."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self.socket = socket
        self.streams: set[str] = set()
        self.combined = False
        self.user: Account | None = None
        self.envelope: int | None = None
        """The subscription id that wraps user events on the WebSocket API; None on a listen key's stream."""
        self.queue: asyncio.Queue[bytes] = asyncio.Queue(MOST_WAITING)
        self.dropped = False

    def send(self, message: Any) -> None:
        try:
            self.queue.put_nowait(json.encode(message))
        except asyncio.QueueFull:
            self.dropped = True

    def send_stream(self, stream: str, data: Any) -> None:
        self.send({"stream": stream, "data": data} if self.combined else data)

    def send_user(self, event: dict[str, Any]) -> None:
        self.send(event if self.envelope is None else {"subscriptionId": self.envelope, "event": event})


class Streams:
    def __init__(self, venue: Venue) -> None:
        self._venue = venue
        self._clients: set[Client] = set()
        self.feeds = Feeds(venue, self._clients)
        self._stalled_until = 0.0
        self._held: list[tuple[Account, dict[str, Any]]] = []
        self._subscriptions = 0
        self._delayed: set[asyncio.TimerHandle] = set()

    # --- connections ------------------------------------------------------------------------------------------------

    async def market(self, request: web.Request) -> web.StreamResponse:
        """`/ws`, `/ws/NAME` (a stream or a listen key) and `/stream?streams=...`."""
        socket = web.WebSocketResponse(heartbeat=None, autoping=True)
        await socket.prepare(request)
        client = Client(socket)
        client.combined = request.path.startswith("/stream")
        names = request.query.get("streams", "").split("/") if client.combined else [request.path.rpartition("/")[2]]
        for name in filter(None, names):
            if name in self._venue.listen_keys:
                client.user = self._venue.listen_keys[name]
            elif "@" in name:
                client.streams.add(name)
        self.feeds.subscribed(client, sorted(client.streams))
        return await self._serve(client, self._command)

    async def api(self, request: web.Request) -> web.StreamResponse:
        """`/ws-api/v3`: requests and answers, and user data streams."""
        socket = web.WebSocketResponse(autoping=True)
        await socket.prepare(request)
        return await self._serve(Client(socket), self._call)

    async def _serve(self, client: Client, answer: Any) -> web.StreamResponse:
        self._clients.add(client)
        sender = asyncio.create_task(self._send(client))
        try:
            async for message in client.socket:
                if message.type is not WSMsgType.TEXT:
                    break
                try:
                    request = json.decode(message.data)
                except DecodeError:
                    client.send({"error": {"code": 3, "msg": "Invalid JSON"}})
                    continue
                answer(client, request)
        finally:
            self._clients.discard(client)
            sender.cancel()
        return client.socket

    async def _send(self, client: Client) -> None:
        loop = asyncio.get_running_loop()
        while True:
            message = await client.queue.get()
            while loop.time() < self._stalled_until:
                await asyncio.sleep(self._stalled_until - loop.time())
            if client.dropped:
                await client.socket.close()
                return
            try:
                await client.socket.send_str(message.decode())
            except ConnectionError:
                return  # the reader notices as well, and ends the connection

    def _command(self, client: Client, request: dict[str, Any]) -> None:
        """SUBSCRIBE, UNSUBSCRIBE and LIST_SUBSCRIPTIONS on a market stream."""
        names = [str(name) for name in request.get("params") or []]
        method = request.get("method")
        if method == "LIST_SUBSCRIPTIONS":
            client.send({"result": sorted(client.streams), "id": request.get("id")})
            return
        client.send({"result": None, "id": request.get("id")})
        if method == "SUBSCRIBE":
            client.streams.update(names)
            self.feeds.subscribed(client, names)
        elif method == "UNSUBSCRIBE":
            client.streams.difference_update(names)

    def _call(self, client: Client, request: dict[str, Any]) -> None:
        """A request of the WebSocket API."""
        identity, method = request.get("id"), str(request.get("method"))
        parameters = {key: _plain(value) for key, value in (request.get("params") or {}).items()}
        try:
            result = self._result(client, method, parameters)
        except VenueError as error:
            client.send({"id": identity, "status": error.status, "error": {"code": error.code, "msg": error.message}})
        else:
            client.send({"id": identity, "status": 200, "result": result, "rateLimits": []})

    def _result(self, client: Client, method: str, parameters: dict[str, str]) -> Any:
        venue = self._venue
        if method == "ping":
            return {}
        if method == "time":
            return {"serverTime": venue.now()}
        if method == "userDataStream.unsubscribe":
            client.user = None
            return {}
        if method == "userDataStream.subscribe" and client.user is not None:
            return self._subscribe(client, client.user)
        account = self._signed(parameters)
        if method == "session.logon":
            client.user = account
            return {"apiKey": account.key, "authorizedSince": venue.now(), "serverTime": venue.now()}
        if method == "userDataStream.subscribe.signature":
            return self._subscribe(client, account)
        orders = {"order.place": venue.rest.place, "order.cancel": venue.rest.cancel, "order.status": venue.rest.get}
        if method not in orders:
            raise VenueError(-1000, f"{method} is not among the methods of this local venue.")
        return orders[method](account, parameters)

    def _subscribe(self, client: Client, account: Account) -> Any:
        client.user, client.envelope = account, self._subscriptions
        self._subscriptions += 1
        return {"subscriptionId": client.envelope}

    def _signed(self, parameters: dict[str, str]) -> Account:
        account = self._venue.engine.accounts.get(parameters.get("apiKey", ""))
        if account is None:
            raise BAD_KEY
        signature = parameters.get("signature")
        if signature is None:
            raise missing("signature")
        signed = urlencode(sorted((key, value) for key, value in parameters.items() if key != "signature"))
        self._venue.rest.check(account, parameters, signed, signature)
        return account

    # --- what is told -----------------------------------------------------------------------------------------------

    def report(self, order: Order, execution: str, trade: Trade | None) -> None:
        """A change of an account's order."""
        now, account, spec = self._venue.now(), order.account, order.symbol
        cumulative = (order.filled, order.notional, order.status)
        event = dialect.execution_report(order, execution, trade, now, cumulative)
        self._tell(account, event, spec.id, order.client_order_id)
        if any(client.user is account for client in self._clients):
            balances = dialect.position(account, (spec.base, spec.quote), now)
            for client in self._clients:
                if client.user is account:
                    client.send_user(balances)

    def _tell(self, account: Account, event: dict[str, Any], symbol: str, client_order_id: str) -> None:
        faults = self._venue.faults.for_event(symbol, client_order_id)
        kinds = {fault.kind for fault in faults}
        if "drop_event" in kinds:
            return
        if "reorder_event" in kinds:
            self._held.append((account, event))
            return
        delay = max((fault.seconds for fault in faults if fault.kind == "delay_event"), default=0.0)
        if delay:
            handle = asyncio.get_running_loop().call_later(delay, self._user_event, account, event)
            self._delayed = {one for one in self._delayed if not one.cancelled()} | {handle}
            return
        self._user_event(account, event)
        if "duplicate_event" in kinds:
            self._user_event(account, event)
        held, self._held = self._held, []
        for owner, earlier in held:
            self._user_event(owner, earlier)

    def _user_event(self, account: Account, event: dict[str, Any]) -> None:
        for client in self._clients:
            if client.user is account:
                client.send_user(event)

    # --- faults -----------------------------------------------------------------------------------------------------

    def stall(self, seconds: float) -> None:
        """Send nothing for a while; the sockets stay open."""
        self._stalled_until = asyncio.get_running_loop().time() + seconds

    def drop(self) -> None:
        """Cut every WebSocket."""
        for client in list(self._clients):
            transport = client.socket._req.transport if client.socket._req is not None else None
            if transport is not None:
                transport.abort()

    async def close(self) -> None:
        for client in list(self._clients):
            await client.socket.close()
        for handle in self._delayed:
            handle.cancel()


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.encode(value).decode()
