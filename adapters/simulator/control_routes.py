"""`/_control`: the venue's own record, its faults and its market, from outside. No real venue has this."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from adapters.simulator import dialect
from adapters.simulator.errors import VenueError
from adapters.simulator.faults import Fault
from adapters.simulator.orders import NewOrder
from adapters.simulator.replay import RecordedTrade, ReplayConfig, read_recording

if TYPE_CHECKING:
    from adapters.simulator.server import Venue


class Foreign(msgspec.Struct, kw_only=True):
    """An order of somebody else: liquidity to trade against, or a taker of ours."""

    symbol: str
    side: str
    quantity: Decimal
    price: Decimal | None = None


class PriceMove(msgspec.Struct, kw_only=True):
    """Where the price shall be; `seconds`: over how long, zero at once."""

    symbol: str
    price: Decimal
    seconds: float = 0.0


class Rules(msgspec.Struct, kw_only=True):
    """By what a symbol trades from now on; what is left out stays."""

    symbol: str
    tick: Decimal | None = None
    lot: Decimal | None = None
    min_quantity: Decimal | None = None
    min_notional: Decimal | None = None


class Pause(msgspec.Struct, kw_only=True):
    paused: bool
    symbol: str | None = None


class ReplayRequest(msgspec.Struct, kw_only=True):
    """A recording to follow: its trades, or the path of a file at the venue."""

    symbol: str
    trades: list[RecordedTrade] = []
    path: str | None = None
    speed: float = 1.0


class ControlRoutes:
    def __init__(self, venue: Venue) -> None:
        self._venue = venue

    async def handle(self, request: web.Request) -> web.Response:
        name = f"_{request.method.lower()}_{request.match_info['what']}"
        route = getattr(self, name, None)
        if route is None:
            return web.Response(status=404, text=f"no {request.method} of {request.match_info['what']}")
        try:
            answer = route(request, await request.read())
        except (msgspec.MsgspecError, VenueError, KeyError, ValueError, OSError) as error:
            return web.Response(status=400, text=f"{type(error).__name__}: {error}")
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

    def _get_faults(self, request: web.Request, body: bytes) -> Any:
        return self._venue.faults.active

    def _post_faults(self, request: web.Request, body: bytes) -> Any:
        fault = msgspec.json.decode(body, type=Fault)
        if fault.kind == "drop_streams":
            self._venue.streams.drop()
        elif fault.kind == "stall_streams":
            self._venue.streams.stall(fault.seconds)
        else:
            fault = self._venue.faults.order(fault)
            if fault.kind == "stale_reads":
                loop = asyncio.get_running_loop()
                loop.call_later(max(fault.seconds * 10, 5), self._venue.faults.clear, fault.id)
        return fault

    def _delete_faults(self, request: web.Request, body: bytes) -> Any:
        self._venue.faults.clear(request.query.get("id"))
        return {}

    def _get_record(self, request: web.Request, body: bytes) -> Any:
        """Everything that accounts ordered and traded, with their balances."""
        wanted = request.query.get("key")
        accounts = [account for key, account in self._venue.engine.accounts.items() if wanted in (None, key)]
        orders = [order for account in accounts for order in account.orders.values()]
        return {
            "name": self._venue.config.name,
            "orders": [dialect.order(order) for order in orders],
            "trades": [
                {**dialect.my_trade(order, trade), "clientOrderId": order.client_order_id}
                for order in orders
                for trade in order.trades
            ],
            "balances": {
                account.key: {
                    asset: {"free": str(account.free.get(asset, 0)), "locked": str(account.locked.get(asset, 0))}
                    for asset in sorted({*account.free, *account.locked})
                }
                for account in accounts
            },
        }

    def _get_requests(self, request: web.Request, body: bytes) -> Any:
        return list(self._venue.requests)

    def _post_book(self, request: web.Request, body: bytes) -> Any:
        foreign = msgspec.json.decode(body, type=Foreign)
        new = NewOrder(
            symbol=foreign.symbol,
            side=foreign.side,
            kind="MARKET" if foreign.price is None else "LIMIT",
            quantity=foreign.quantity,
            price=foreign.price,
            time_in_force=None if foreign.price is None else "GTC",
        )
        order = self._venue.engine.place(self._venue.foreign, new)
        return {"orderId": order.order_id, "status": order.status, "executedQty": str(order.filled)}

    def _delete_book(self, request: web.Request, body: bytes) -> Any:
        """Take the foreign orders of a symbol off the book."""
        engine, foreign = self._venue.engine, self._venue.foreign
        symbol = request.query["symbol"]
        orders = [order for order in foreign.open.values() if order.symbol.id == symbol]
        for order in orders:
            engine.cancel(foreign, symbol, order.order_id, None)
        return {"canceled": len(orders)}

    def _post_price(self, request: web.Request, body: bytes) -> Any:
        """Move the price, now or in a straight line over some seconds."""
        asked = msgspec.json.decode(body, type=PriceMove)
        if asked.price <= 0 or asked.seconds < 0:
            raise ValueError("the price must be above zero and the seconds not below")
        if asked.seconds:
            self._venue.markets.ramp(asked.symbol, asked.price, asked.seconds)
        else:
            self._venue.markets.move(asked.symbol, asked.price)
        return {}

    def _get_market(self, request: web.Request, body: bytes) -> Any:
        return self._venue.markets.state()

    def _post_market(self, request: web.Request, body: bytes) -> Any:
        """Halt or continue the synthetic participants or the recording."""
        asked = msgspec.json.decode(body, type=Pause)
        self._venue.markets.pause(asked.symbol, paused=asked.paused)
        return self._venue.markets.state()

    def _post_replay(self, request: web.Request, body: bytes) -> Any:
        asked = msgspec.json.decode(body, type=ReplayRequest)
        trades = asked.trades if asked.path is None else read_recording(Path(asked.path))
        trades = [RecordedTrade(one.ts_ms, one.price, one.quantity, one.side.upper()) for one in trades]
        self._venue.markets.replay(asked.symbol, trades, ReplayConfig(speed=asked.speed))
        return {"trades": len(trades)}

    def _delete_replay(self, request: web.Request, body: bytes) -> Any:
        self._venue.markets.end_replay(request.query["symbol"])
        return {}

    def _post_clock(self, request: web.Request, body: bytes) -> Any:
        self._venue.clock_offset = msgspec.json.decode(body, type=dict[str, int])["offset_ms"]
        return {}

    def _post_rules(self, request: web.Request, body: bytes) -> Any:
        asked = msgspec.json.decode(body, type=Rules)
        spec = self._venue.engine.market(asked.symbol).spec
        spec.tick, spec.lot = asked.tick or spec.tick, asked.lot or spec.lot
        spec.min_quantity = asked.min_quantity or spec.min_quantity
        spec.min_notional = asked.min_notional or spec.min_notional
        return spec.info()

    def _post_halt(self, request: web.Request, body: bytes) -> Any:
        asked = msgspec.json.decode(body, type=dict[str, Any])
        self._venue.engine.market(asked["symbol"]).spec.halted = bool(asked["halted"])
        return {}
