"""Order updates as they happen, through ccxt.pro's connections.

Binance's execution reports are taken as they come off the wire: ccxt merges several into one row, and shows the last one only when the
next one comes. Elsewhere, tight loops over `watch_orders` and `watch_my_trades` deliver what ccxt shows; what they miss is found over REST.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from adapters.base import AdapterError, AdapterHealth, UpdateSink, VenueOrder
from adapters.ccxt_venue import parsing
from adapters.ccxt_venue.limiter import Lane
from adapters.ccxt_venue.requests import Requests

log = structlog.get_logger(__name__)

SHORTEST_PAUSE = 0.25
LONGEST_PAUSE = 15.0
STABLE_SECONDS = 10.0
"""After a stream has stood this long, the next reconnect is tried at once again."""
CONNECT_SECONDS = 10.0
CONFIRMED_AFTER = 0.5
"""Seconds connected and without an error after which a generic subscription counts as standing."""
LISTEN_KEY_SECONDS = 20 * 60.0
_STANDING = "user stream"
"""What waits on a connection of ccxt's, which fails everything that waits on it when it ends."""


class Stream:
    """A venue's stream of our orders and trades. `told` reads an order of ccxt's."""

    def __init__(
        self,
        name: str,
        exchange: Any,
        requests: Requests,
        health: AdapterHealth,
        *,
        told: Callable[[dict[str, Any]], VenueOrder] | None,
    ) -> None:
        self._name = name
        self._exchange = exchange
        self._requests = requests
        self._health = health
        self._told = told
        self._by_listen_key = False
        self._last_reason: str | None = None

    async def run(self, sink: UpdateSink) -> None:
        """Deliver until cancelled, reconnecting with growing pauses."""
        pause = SHORTEST_PAUSE
        try:
            while True:
                try:
                    await (self._run_binance(sink) if self._told is None else self._run_generic(sink, self._told))
                    reason = "ended"
                except Exception as error:  # noqa: BLE001 - ccxt raises anything; whatever it was, the stream is down
                    reason = self._requests.hide(f"{type(error).__name__}: {error}")[:300]
                since = self._health.stream_since
                if self._health.stream_up and since is not None and time.monotonic() - since > STABLE_SECONDS:
                    pause = SHORTEST_PAUSE
                self._down(sink, reason)
                await asyncio.sleep(pause * random.uniform(0.8, 1.2))
                pause = min(pause * 2, LONGEST_PAUSE)
        finally:
            self._health.stream_up = False

    def _up(self, sink: UpdateSink) -> None:
        self._health.stream_up = True
        self._health.stream_since = time.monotonic()
        self._last_reason = None
        log.info("stream up", venue=self._name)
        sink.on_stream(self._name, up=True, reason=None)

    def _down(self, sink: UpdateSink, reason: str) -> None:
        if self._health.stream_up or self._last_reason is None:
            log.warning("stream down: orders are polled until it is back", venue=self._name, reason=reason)
            self._health.last_error = reason
            sink.on_stream(self._name, up=False, reason=reason)
        self._health.stream_up = False
        self._last_reason = reason

    # --- Binance ----------------------------------------------------------------------------------------------------

    async def _run_binance(self, sink: UpdateSink) -> None:
        """By the WebSocket API; a venue that has none may know listen keys."""
        exchange = self._exchange
        exchange.ws_dial_backoff = {}  # the pauses are ours
        ways = [self._subscribe, self._listen]
        if self._by_listen_key:
            ways.reverse()
        failures: list[str] = []
        ended = asyncio.Event()
        exchange.on_message = lambda message: self._binance_message(message, sink, ended)
        try:
            for way in ways:
                try:
                    client, keep = await way()
                except Exception as error:  # noqa: BLE001 - ccxt raises anything; the other way is tried
                    failures.append(f"{type(error).__name__}: {error}")
                else:
                    self._by_listen_key = way == self._listen
                    self._up(sink)
                    await self._until_one_ends(client, ended.wait(), client.future(_STANDING), keep)
                    raise ConnectionError("the venue ended the stream")
        finally:
            exchange.on_message = None
        raise ConnectionError("; ".join(failures))

    async def _until_one_ends(self, client: Any, *waits: Awaitable[Any] | None) -> None:
        """Wait for the first; ccxt fails a connection's futures when it ends."""
        tasks = [asyncio.ensure_future(wait) for wait in waits if wait is not None]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._forget(client)

    async def _subscribe(self) -> tuple[Any, None]:
        exchange = self._exchange
        client = exchange.client(exchange.urls["api"]["ws"]["ws-api"]["spot"])
        subscribing = asyncio.ensure_future(exchange.ensure_user_data_stream_ws_subscribe_signature("spot"))
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await asyncio.sleep(0)
                for future in client.futures.values():
                    # ccxt fails one for whoever else subscribes, too: nobody does, and asyncio would log it with its stack.
                    future.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
                await subscribing
        except BaseException:
            subscribing.cancel()
            await self._forget(client)
            raise
        return client, None

    async def _listen(self) -> tuple[Any, Coroutine[Any, Any, None]]:
        exchange = self._exchange
        raw = await self._requests.ask("read", Lane.READ, exchange.publicPostUserDataStream())
        key = raw.get("listenKey") if isinstance(raw, dict) else None
        if not key:
            raise ConnectionError("no listen key")
        url = f"{exchange.urls['api']['ws']['spot']}/{key}"
        standing = exchange.watch(url, _STANDING, None, _STANDING)
        client = exchange.client(url)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await asyncio.wait({client.connected, standing}, return_when=asyncio.FIRST_COMPLETED)
            if not client.connected.done() or client.connected.exception() is not None:
                await standing
                raise ConnectionError("not connected")
        except BaseException:
            await self._forget(client)
            raise
        return client, self._keep_listen_key(str(key))

    async def _keep_listen_key(self, key: str) -> None:
        while True:
            await asyncio.sleep(LISTEN_KEY_SECONDS)
            try:
                request = self._exchange.publicPutUserDataStream({"listenKey": key})
                await self._requests.ask("read", Lane.READ, request)
            except AdapterError as error:
                log.warning("the listen key could not be renewed", venue=self._name, error=str(error))

    async def _forget(self, client: Any) -> None:
        """Close a connection of ccxt's, and have it make another next time."""
        if self._exchange.clients.get(client.url) is client:
            del self._exchange.clients[client.url]
        await client.close()

    def _binance_message(self, message: Any, sink: UpdateSink, ended: asyncio.Event) -> bool:
        """Deliver an event of ours; True when ccxt need not see the message."""
        if not isinstance(message, dict):
            return False
        inner = message.get("event", message.get("data"))
        event = inner if isinstance(inner, dict) else message
        kind = event.get("e")
        if kind == "executionReport":
            self._report(event, sink)
            return True
        if kind in ("eventStreamTerminated", "listenKeyExpired"):
            ended.set()
            return True
        return kind in ("outboundAccountPosition", "balanceUpdate")

    def _report(self, event: dict[str, Any], sink: UpdateSink) -> None:
        market = self._exchange.markets_by_id.get(event.get("s"))
        if not market:
            return
        try:
            order, fill = parsing.binance_report(event, str(market[0]["symbol"]))
        except (KeyError, ValueError, TypeError, ArithmeticError) as error:
            log.error("an execution report could not be read", venue=self._name, error=repr(error))
            return
        if fill is not None:
            sink.on_fill(self._name, fill)
        sink.on_order(self._name, order)

    # --- everybody else ---------------------------------------------------------------------------------------------

    async def _run_generic(self, sink: UpdateSink, told: Callable[[dict[str, Any]], VenueOrder]) -> None:
        exchange = self._exchange
        exchange.ws_dial_backoff = {}
        loops = []
        if exchange.has.get("watchMyTrades"):
            loops.append(self._watch(exchange.watch_my_trades, lambda row: self._trade(row, sink)))
        if exchange.has.get("watchOrders"):
            loops.append(self._watch(exchange.watch_orders, lambda row: sink.on_order(self._name, told(row))))
        tasks = [asyncio.ensure_future(loop) for loop in loops]
        try:
            await self._connected(tasks)
            self._up(sink)
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, tasks: list[asyncio.Task[None]]) -> None:
        """Wait until a connection stands and no subscription was refused.

        Raises: whatever a subscription failed with; TimeoutError.
        """
        async with asyncio.timeout(CONNECT_SECONDS):
            while not any(client.isConnected for client in self._exchange.clients.values()):
                done, _ = await asyncio.wait(tasks, timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        done, _ = await asyncio.wait(tasks, timeout=CONFIRMED_AFTER, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def _watch(self, watch: Callable[[], Any], deliver: Callable[[Any], None]) -> None:
        while True:
            for row in await watch():
                deliver(row)

    def _trade(self, row: Any, sink: UpdateSink) -> None:
        fill = parsing.unified_trade(row, str(row["symbol"]))
        if fill is not None:
            sink.on_fill(self._name, fill)
