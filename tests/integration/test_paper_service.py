"""Paper trading from outside: the whole service on a venue's market data, with fills of its own, and nothing private sent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec
import pytest
from aiohttp import WSMsgType, web

from adapters.simulator.market import MarketConfig
from schemas.event import OrderEvent
from schemas.order import ChildState
from tests.replica import until
from tests.system import System, venue

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]

LIVELY = MarketConfig(seed=3, volatility=0.2, trades=8.0, trade_value=20_000.0)
SYMBOL = "BTCUSDT"


class Seen(NamedTuple):
    """One request on its way to the venue, or one message over a WebSocket."""

    method: str
    path: str
    headers: dict[str, str]
    body: str


class Tap:
    """Everything that goes to a venue passes here, and is noted."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None
        self.seen: list[Seen] = []
        self.url = ""

    async def __aenter__(self) -> Tap:
        self._session = aiohttp.ClientSession(auto_decompress=False)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._pass)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        assert self._runner is not None
        await self._runner.cleanup()
        await self._session.close()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        assert self._session is not None
        headers = {name.lower(): value for name, value in request.headers.items()}
        if headers.get("upgrade", "").lower() == "websocket":
            return await self._stream(request, headers)
        body = await request.read()
        self.seen.append(Seen(request.method, request.path_qs, headers, body.decode()))
        passed = {name: value for name, value in headers.items() if name not in ("host", "accept-encoding")}
        async with self._session.request(
            request.method, self._upstream + request.path_qs, data=body, headers=passed
        ) as answer:
            return web.Response(body=await answer.read(), status=answer.status, content_type=answer.content_type)

    async def _stream(self, request: web.Request, headers: dict[str, str]) -> web.StreamResponse:
        assert self._session is not None
        self.seen.append(Seen("WS", request.path_qs, headers, ""))
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async with self._session.ws_connect(self._upstream + request.path_qs) as upstream:

            async def up() -> None:
                async for message in socket:
                    if message.type is WSMsgType.TEXT:
                        self.seen.append(Seen("WS", request.path_qs, {}, message.data))
                        await upstream.send_str(message.data)
                await upstream.close()

            task = asyncio.create_task(up())
            with contextlib.suppress(ConnectionError):
                async for message in upstream:
                    if message.type is WSMsgType.TEXT:
                        await socket.send_str(message.data)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await socket.close()
        return socket


class Paper(NamedTuple):
    system: System
    tap: Tap

    async def replica(self, **environment: str) -> Any:
        """With keys set, which it has no use for."""
        return await self.system.replica(ADAPTER_ENDPOINTS=f"paper=binance@paper+{self.tap.url}", **environment)

    async def nothing_private(self) -> None:
        """The venue has no order and was asked for nothing that needs a key."""
        record = await self.system.control().record()
        assert record["orders"] == []
        assert record["trades"] == []
        assert await self.system.control().requests() == []
        assert self.tap.seen
        for seen in self.tap.seen:
            assert seen.method in ("GET", "WS"), seen
            assert seen.path.startswith(("/api/v3/", "/ws", "/stream")), seen
            for private in ("/order", "/account", "/mytrades", "/userdatastream", "ws-api", "signature", "recvwindow"):
                assert private not in seen.path.lower(), seen
            names = seen.headers.keys() - {"sec-websocket-key"}
            assert not [name for name in names if "mbx" in name or "auth" in name or "key" in name], seen
            assert "local" not in seen.body, seen
            assert "signature" not in seen.body, seen

    async def told_as_kept(self, *signal_ids: str) -> None:
        """Ledger and events say the same, each fill once; events are numbered without gaps."""
        for signal_id in signal_ids:
            events = self.system.events(signal_id)
            record = await self.system.order(signal_id)
            assert record.parent.status.terminal, signal_id
            await until(lambda e=events, r=record, s=signal_id: len(self.system.events(s)) >= r.parent.sequence)  # type: ignore[misc]
            events = self.system.events(signal_id)
            assert [event.sequence for event in events] == list(range(1, record.parent.sequence + 1)), signal_id
            told = fills(events)
            kept = {fill.trade_id: fill.quantity for fill in record.fills}
            assert told == kept, signal_id
            for child in record.children:
                assert child.state.terminal, (signal_id, child)
                assert child.venue == "paper"


def fills(events: list[OrderEvent]) -> dict[str, Decimal]:
    found: dict[str, Decimal] = {}
    for event in events:
        if not isinstance(event.child, msgspec.UnsetType):
            for fill in event.child.fills:
                assert fill.trade_id not in found, "told twice"
                found[fill.trade_id] = fill.quantity
    return found


@pytest.fixture
async def paper(redis_url: str, pubsub_host: str, tmp_path: Path) -> AsyncIterator[Paper]:
    async with (
        venue(market=LIVELY) as real,
        Tap(real.url) as tap,
        System(redis_url, pubsub_host, tmp_path, {"paper": real}) as system,
    ):
        yield Paper(system, tap)


async def test_orders_of_every_kind_are_filled_on_paper(paper: Paper) -> None:
    system = paper.system
    replica = await paper.replica()
    control = system.control()
    await system.signal("market", quantity=Decimal("0.5"))
    await system.signal("rests", price=49_500, quantity=Decimal("0.2"))
    await system.signal("off", price=45_000)
    await system.signal("ioc", price=40_000, time_in_force="IOC")
    await system.signal("stop", side="sell", order_type="stop", stop_price=49_600)
    schedule = {"duration_seconds": 5, "slices": 8}
    for style in ("aggressive", "adaptive", "passive"):
        params = {**schedule, "style": style}
        await system.signal(style, quantity=Decimal("0.16"), algorithm="twap", algorithm_params=params)
    await system.signal("bracket", quantity=Decimal("0.1"), take_profit=52_000, stop_loss=49_700)
    market = await system.told("market", "filled")
    assert market.average_price is not None
    assert 49_000 < market.average_price < 51_000
    assert market.commission > 0
    for style in ("aggressive", "adaptive", "passive"):
        last = await system.told(style, "filled")
        assert last.filled_quantity == Decimal("0.16")
        assert not isinstance(last.tca, msgspec.UnsetType)
    await system.told("ioc", "expired")
    await system.told("rests", "working")
    await system.command(type="order.cancel", signal_id="off", reason="enough")
    assert (await system.told("off", "canceled")).reason == "enough"
    await system.told("bracket", "filled")
    await control.price(SYMBOL, 49_400, seconds=1.5)
    rests = await system.told("rests", "filled")
    assert rests.average_price is not None
    assert rests.average_price <= 49_500
    stopped = (await system.told("stop", "filled")).average_price
    assert stopped is not None
    assert 49_400 < stopped < 49_700
    await until(lambda: any(event.event_type == "trade.closed" for event in system.events("bracket")), 20)
    closed = next(event for event in system.events("bracket") if event.event_type == "trade.closed")
    assert isinstance(closed.realized_pnl, Decimal)
    assert closed.realized_pnl < 0
    await paper.told_as_kept(*system.published)
    assert await replica.stop() == 0
    await paper.nothing_private()


async def test_paper_orders_over_a_restart(paper: Paper) -> None:
    """A paper venue forgets what rested; what was filled stays filled, and schedules go on."""
    system = paper.system
    first = await paper.replica()
    params = {"duration_seconds": 9, "slices": 12, "style": "aggressive"}
    await system.signal("twap", quantity=Decimal("0.12"), algorithm="twap", algorithm_params=params)
    await system.signal(
        "adaptive", quantity=Decimal("0.12"), algorithm="twap", algorithm_params={**params, "style": "adaptive"}
    )
    await system.signal("rests", price=49_500, quantity=Decimal("0.2"))
    await system.signal("bracket", quantity=Decimal("0.1"), take_profit=52_000, stop_loss=49_700)
    await system.told("twap", "partially_filled")
    await system.told("rests", "working")
    await system.told("bracket", "filled")
    await asyncio.sleep(1.5)
    first.kill()
    await first.ended()
    await paper.replica()
    assert (await system.told("twap", "filled")).filled_quantity == Decimal("0.12")
    assert (await system.told("adaptive", "filled")).filled_quantity == Decimal("0.12")
    rests = await system.told("rests", "canceled")
    assert rests.reason == "paper no longer knows the order"
    assert rests.filled_quantity == 0
    await system.control().price(SYMBOL, 49_400)
    await until(lambda: any(event.event_type == "trade.closed" for event in system.events("bracket")), 20)
    exits = [child for child in (await system.order("bracket")).children if child.role == "exit"]
    assert [child.state for child in exits] == [ChildState.CANCELED, ChildState.FILLED], "the stop was set again"
    await paper.told_as_kept(*system.published)
    await paper.nothing_private()
