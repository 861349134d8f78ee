"""Order updates as they happen, through ccxt.pro.

Binance's execution reports are taken as they come off the wire: ccxt merges several into one row, and shows the last only when the next one
comes. Elsewhere, tight loops over `watch_orders` and `watch_my_trades` deliver what ccxt shows; what they miss is found over REST.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import structlog

from adapters.base import AdapterHealth, UpdateSink
from adapters.ccxt_venue import parsing
from adapters.ccxt_venue.errors import scrub

log = structlog.get_logger(__name__)

SHORTEST_PAUSE = 0.25
LONGEST_PAUSE = 15.0
CONFIRMED_AFTER = 1.0
"""Seconds without an error after which a generic subscription counts as standing."""


class Stream:
    def __init__(self, name: str, exchange: Any, health: AdapterHealth, *, binance: bool) -> None:
        self._name = name
        self._exchange = exchange
        self._health = health
        self._binance = binance

    async def run(self, sink: UpdateSink) -> None:
        """Deliver until cancelled, reconnecting with growing pauses."""
        pause = SHORTEST_PAUSE
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                await (self._run_binance(sink) if self._binance else self._run_generic(sink))
            except Exception as error:  # noqa: BLE001 - ccxt raises anything; whatever it was, the stream is down
                self._down(sink, scrub(f"{type(error).__name__}: {error}")[:300])
            if loop.time() - started > LONGEST_PAUSE:
                pause = SHORTEST_PAUSE
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))
            pause = min(pause * 2, LONGEST_PAUSE)

    def _up(self, sink: UpdateSink) -> None:
        self._health.stream_up = True
        self._health.stream_since = asyncio.get_running_loop().time()
        sink.on_stream(self._name, up=True, reason=None)

    def _down(self, sink: UpdateSink, reason: str) -> None:
        self._health.stream_up = False
        self._health.last_error = reason
        sink.on_stream(self._name, up=False, reason=reason)

    # --- Binance ----------------------------------------------------------------------------------------------------

    async def _run_binance(self, sink: UpdateSink) -> None:
        exchange = self._exchange
        exchange.on_message = lambda message: self._binance_message(message, sink)
        try:
            await exchange.ensure_user_data_stream_ws_subscribe_signature("spot")
            self._up(sink)
            while True:
                await exchange.watch_orders()  # keeps the subscription and raises when it breaks
        finally:
            exchange.on_message = None

    def _binance_message(self, message: Any, sink: UpdateSink) -> None:
        if not isinstance(message, dict):
            return
        event = message.get("event")
        event = event if isinstance(event, dict) else message
        if event.get("e") != "executionReport":
            return
        market = self._exchange.markets_by_id.get(event.get("s"))
        if not market:
            return
        try:
            order, fill = parsing.binance_report(event, market[0]["symbol"])
        except (KeyError, ValueError, ArithmeticError) as error:
            log.error("an execution report could not be read", venue=self._name, error=str(error))
            return
        if fill is not None:
            sink.on_fill(self._name, fill)
        sink.on_order(self._name, order)

    # --- everybody else ---------------------------------------------------------------------------------------------

    async def _run_generic(self, sink: UpdateSink) -> None:
        exchange = self._exchange
        loops = []
        if exchange.has.get("watchMyTrades"):
            loops.append(self._watch(exchange.watch_my_trades, lambda row: self._trade(row, sink)))
        if exchange.has.get("watchOrders"):
            loops.append(self._watch(exchange.watch_orders, lambda row: self._order(row, sink)))
        tasks = [asyncio.ensure_future(loop) for loop in loops]
        try:
            done, _ = await asyncio.wait(tasks, timeout=CONFIRMED_AFTER, return_when=asyncio.FIRST_EXCEPTION)
            if not done:
                self._up(sink)
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, watch: Callable[[], Any], deliver: Callable[[Any], None]) -> None:
        while True:
            for row in await watch():
                deliver(row)

    def _trade(self, row: Any, sink: UpdateSink) -> None:
        fill = parsing.unified_trade(row, row["symbol"])
        if fill is not None:
            sink.on_fill(self._name, fill)

    def _order(self, row: Any, sink: UpdateSink) -> None:
        sink.on_order(self._name, parsing.unified_order(row, row["symbol"]))
