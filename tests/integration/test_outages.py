"""Each thing the service leans on goes away for a while under trading: what stops, what goes on, and what must agree afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from adapters.simulator.market import MarketConfig
from adapters.simulator.process import VenueProcess
from execution.embedded.pubsub.process import PubSubProcess
from execution.embedded.redis_server import EmbeddedRedis
from execution.ledger import order_key
from tests.replica import until
from tests.system import Replica, System, venue

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]

STEADY = MarketConfig(volatility=0.0, trades=0.0, permanent_impact=0.0, impact_half_life=0.2)
"""Quotes a basis point off 50 000 on either side."""
FAR = 40_000
"""Where a bid rests."""


class Way:
    """The way to a venue, which can be cut: connections break, and new ones are refused. With `streams`, only those that become
    WebSockets."""

    def __init__(self, venue: VenueProcess) -> None:
        self._target = int(venue.url.rpartition(":")[2])
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._streams: set[asyncio.StreamWriter] = set()
        self._no_streams = False
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def mend(self) -> Way:
        self._no_streams = False
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def cut(self, *, streams: bool = False) -> None:
        self._no_streams = streams
        if not streams and self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._streams if streams else self._open):
            writer.close()
        if not streams:
            await asyncio.gather(*self._serving)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            stream = b"upgrade: websocket" in head.lower()
            if stream:
                self._streams.add(writer)
            if not (stream and self._no_streams):
                there, back = await asyncio.open_connection("127.0.0.1", self._target)
                back.write(head)
                pipes = [asyncio.create_task(_pipe(reader, back)), asyncio.create_task(_pipe(there, writer))]
                await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
                back.close()
                writer.close()
                await asyncio.wait(pipes)
        writer.close()
        self._open.discard(writer)
        self._streams.discard(writer)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()


@contextlib.asynccontextmanager
async def two_venues(
    redis_url: str, pubsub_host: str, folder: Path, **changes: Any
) -> AsyncIterator[tuple[System, Way]]:
    """Alpha, whose way can be cut, and beta."""
    async with venue(**changes) as alpha, venue(**changes) as beta:
        way = await Way(alpha).mend()
        try:
            async with System(redis_url, pubsub_host, folder, {"alpha": alpha, "beta": beta}) as system:
                system.environment["ADAPTER_ENDPOINTS"] = f"alpha=binance@{way.url},beta=binance@{beta.url}"
                yield system, way
        finally:
            await way.cut()


async def requests(system: System, method: str, venue: str = "alpha") -> list[dict[str, Any]]:
    return [one for one in await system.control(venue).requests() if one["method"] == method]


async def component(replica: Replica, name: str) -> dict[str, str]:
    report = await replica.health()
    assert report is not None
    found: dict[str, str] = next(part for part in report["components"] if part["name"] == name)
    return found


async def metric(replica: Replica, pattern: str) -> float:
    found = re.search(rf"^execution_{pattern} (\S+)$", await replica.metrics(), re.MULTILINE)
    return float(found[1]) if found else 0.0


async def becomes(what: Any, seconds: float = 30.0) -> None:
    """Wait until a coroutine says so."""
    deadline = time.monotonic() + seconds
    while not await what():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.05)


async def test_the_store_is_away(embedded_pubsub: str, tmp_path: Path) -> None:
    store = await EmbeddedRedis.start(tmp_path / "store")
    async with venue(market=STEADY) as alpha, System(store.url, embedded_pubsub, tmp_path, {"alpha": alpha}) as system:
        replica = await system.replica(LEASE_TTL="12")
        now = time.time_ns() // 1_000_000
        params = {"duration_seconds": 12, "slices": 40, "style": "aggressive"}
        await system.signal("sliced", quantity=Decimal("0.4"), algorithm="twap", algorithm_params=params)
        for number in range(3):
            await system.signal(f"rests{number}", price=FAR, expires_at=now + 6_000 + 500 * number)
        await system.signal("stays", price=FAR)
        for name in ("rests0", "rests1", "rests2", "stays"):
            await system.told(name, "working")
        await until(lambda: any(event.filled_quantity for event in system.events("sliced")))
        assert not await requests(system, "DELETE")
        await store.stop()
        await system.signal("meanwhile")
        await asyncio.sleep(0.5)
        sent = await requests(system, "POST")

        async def canceled() -> bool:
            return len({str(one["parameters"]["orderId"]) for one in await requests(system, "DELETE")}) >= 3

        await becomes(canceled)
        await asyncio.sleep(1.0)
        assert await requests(system, "POST") == sent, "nothing new is sent while nothing can be written"
        assert (await component(replica, "store"))["status"] == "down"
        store = await EmbeddedRedis.start(tmp_path / "store")
        await system.told("meanwhile", "filled")
        await system.told("sliced", "filled", 60)
        for number in range(3):
            await system.told(f"rests{number}", "expired")
        await system.command(type="order.cancel", signal_id="stays")
        await system.told("stays", "canceled")
        await system.agrees()
    await store.stop()


async def test_the_store_is_away_for_longer_than_a_lease(embedded_pubsub: str, tmp_path: Path) -> None:
    """Cancels by command and at the end of an order's time leave all the same; nothing is placed in their stead."""
    store = await EmbeddedRedis.start(tmp_path / "store")
    async with venue(market=STEADY) as alpha, System(store.url, embedded_pubsub, tmp_path, {"alpha": alpha}) as system:
        await system.replica()
        iceberg = {"algorithm": "iceberg", "algorithm_params": {"display_quantity": "0.01"}}
        await system.signal("byhand", price=FAR)
        await system.signal("sliced", price=FAR, quantity=Decimal("0.1"), **iceberg)
        await system.signal("stays", price=FAR)
        await system.signal("expires", price=FAR, expires_at=time.time_ns() // 1_000_000 + 8_000)
        names = ("byhand", "sliced", "expires")
        for name in (*names, "stays"):
            await system.told(name, "working")
        await store.stop()
        await asyncio.sleep(4)  # its leases are over
        sent = await requests(system, "POST")
        assert not await requests(system, "DELETE")
        for name in ("byhand", "sliced"):
            await system.command(type="order.cancel", signal_id=name, reason="by hand")

        async def canceled() -> bool:
            record = await system.control().record()
            gone = [one["clientOrderId"] for one in record["orders"] if one["status"] == "CANCELED"]
            return len(gone) == 3 and not any(name.startswith(order_key("stays")) for name in gone)

        await becomes(canceled)
        store = await EmbeddedRedis.start(tmp_path / "store")
        for name in ("byhand", "sliced"):
            assert (await system.told(name, "canceled")).reason == "by hand"
        await system.told("expires", "expired")
        await asyncio.sleep(1)
        assert await requests(system, "POST") == sent, "what was canceled is not placed again"
        await system.command(type="order.cancel", signal_id="stays")
        await system.told("stays", "canceled")
        await system.agrees()
    await store.stop()


async def test_pubsub_is_away(redis_url: str, tmp_path: Path) -> None:
    async with (
        await PubSubProcess.start() as pubsub,
        venue(market=STEADY) as alpha,
        System(redis_url, pubsub.host, tmp_path, {"alpha": alpha}) as system,
    ):
        replica = await system.replica()
        params = {"duration_seconds": 8, "slices": 20, "style": "aggressive"}
        await system.signal("sliced", quantity=Decimal("0.2"), algorithm="twap", algorithm_params=params)
        await system.signal("rests", price=50_000)
        await system.told("rests", "working")
        await until(lambda: any(event.filled_quantity for event in system.events("sliced")))
        os.kill(pubsub._process.pid, signal.SIGSTOP)
        try:
            sent = len(await requests(system, "POST"))
            await system.control().trade("BTCUSDT", "SELL", "0.01", 50_000)

            async def went_on() -> bool:
                record = await system.order("rests")
                return record.parent.status.terminal and len(await requests(system, "POST")) > sent + 5

            await becomes(went_on)
            assert await metric(replica, "outbox_backlog") > 0
            told = {name: len(system.events(name)) for name in ("sliced", "rests")}
            assert "filled" not in [event.status for event in system.events("rests")]
        finally:
            os.kill(pubsub._process.pid, signal.SIGCONT)
        await system.told("rests", "filled")
        await system.told("sliced", "filled")
        assert all(len(system.events(name)) > before for name, before in told.items())
        await system.agrees()


async def test_a_venue_is_away(redis_url: str, embedded_pubsub: str, tmp_path: Path) -> None:
    async with two_venues(redis_url, embedded_pubsub, tmp_path, market=STEADY) as (system, way):
        replica = await system.replica()
        for name, seconds in (("alpha", 30), ("beta", 10)):
            params = {"duration_seconds": seconds, "slices": 20, "style": "aggressive"}
            await system.signal(
                f"sliced-{name}", exchange=name, quantity=Decimal("0.2"), algorithm="twap", algorithm_params=params
            )
            await until(lambda name=name: any(event.filled_quantity for event in system.events(f"sliced-{name}")))
        await system.signal("rests", price=FAR)
        await system.told("rests", "working")
        await way.cut()
        later = time.time_ns() // 1_000_000 + 60_000
        await system.signal("waits", expires_at=later)
        await system.signal("limit", price=49_000)
        await system.signal("short", expires_at=later - 58_000)
        await system.signal("revoked", price=49_000)

        async def opened() -> bool:
            return "orders circuit open" in (await component(replica, "venue alpha"))["detail"]

        await becomes(opened)
        assert (await component(replica, "venue alpha"))["status"] == "degraded"
        assert (await component(replica, "venue beta"))["status"] == "ok"

        async def counted() -> bool:
            return await metric(replica, r'venue_circuit_open\{endpoint="orders",venue="alpha"\}') >= 0.5

        await becomes(counted)
        assert await metric(replica, r'venue_circuit_open\{endpoint="orders",venue="beta"\}') == 0
        await system.signal("elsewhere", exchange="beta")
        await system.told("elsewhere", "filled")
        await system.signal("routed", exchange="auto", venues=["alpha", "beta"], algorithm="smart_router")
        routed = await system.told("routed", "filled")
        assert routed.status == "filled"
        assert len(await system.creates("routed")) == 1
        await system.told("short", "expired")
        await system.command(type="order.cancel", signal_id="revoked")
        await system.told("revoked", "canceled")
        await system.command(type="order.cancel", signal_id="rests")
        tried = await metric(replica, r'cancels_sent_total\{venue="alpha"\}')

        async def probed() -> bool:
            again = await metric(replica, r'venue_circuit_opened_total\{endpoint="orders",venue="alpha"\}')
            cancels = await metric(replica, r'cancels_sent_total\{venue="alpha"\}')
            return again >= 3 and cancels >= tried + 3

        await becomes(probed)
        assert {event.status for event in system.events("waits")} == {"accepted"}
        await system.told("sliced-beta", "filled", 60)
        await way.mend()
        await system.told("waits", "filled")
        await system.told("limit", "working")
        await system.told("rests", "canceled")
        assert len(await system.creates("waits")) == 1

        async def closed() -> bool:
            return (await component(replica, "venue alpha"))["status"] == "ok"

        await becomes(closed)
        await system.command(type="order.cancel", signal_id="limit")
        await system.told("sliced-alpha", "filled", 60)
        await system.agrees()


async def test_market_data_is_away(redis_url: str, embedded_pubsub: str, tmp_path: Path) -> None:
    async with two_venues(redis_url, embedded_pubsub, tmp_path, market=STEADY) as (system, way):
        await system.replica()
        params = {"duration_seconds": 5, "slices": 10, "style": "aggressive"}
        bound = {"max_slippage_bps": 50, "slippage_policy": "pause"}
        await system.signal("sliced", quantity=Decimal("0.1"), algorithm="twap", algorithm_params=params)
        await until(lambda: any(event.filled_quantity for event in system.events("sliced")))
        for path in ("/api/v3/depth", "/api/v3/ticker/bookTicker", "/api/v3/aggTrades", "/api/v3/trades"):
            await system.control().fault("http_error", path=path, status=503, count=None)
        await way.cut(streams=True)
        await asyncio.sleep(1.5)
        before = await system.creates("sliced")
        await system.signal("measured", **bound)
        await system.signal("plain")
        await system.told("plain", "filled")
        await system.signal("elsewhere", exchange="beta", **bound)
        await system.told("elsewhere", "filled")
        await asyncio.sleep(1.5)
        assert await system.creates("sliced") == before, "what needs the market waits for it"
        assert not await system.creates("measured")
        assert {event.status for event in system.events("measured")} == {"accepted"}
        await system.control().clear()
        await way.mend()
        await system.told("measured", "filled", 60)
        await system.told("sliced", "filled", 60)
        assert order_key("sliced") in (await system.creates("sliced"))[-1]
        await system.agrees()


async def test_a_venue_that_is_away_at_the_start_keeps_no_other_from_being_worked(
    redis_url: str, embedded_pubsub: str, tmp_path: Path
) -> None:
    async with two_venues(redis_url, embedded_pubsub, tmp_path, market=STEADY) as (system, way):
        replica = await system.replica()
        expires = time.time_ns() // 1_000_000 + 12_000
        await system.signal("alpha", price=FAR)
        await system.signal("revoked", price=FAR)
        await system.signal("beta", exchange="beta", price=FAR, expires_at=expires)
        for name in ("alpha", "revoked", "beta"):
            await system.told(name, "working")
        replica.kill()
        await replica.ended()
        await way.cut()
        replica = await system.replica(wait=False)

        async def told() -> bool:
            report = await replica.health()
            parts = {part["name"]: part for part in report["components"]} if report is not None else {}
            return "cannot be reached" in parts.get("venue alpha", {}).get("detail", "")

        await becomes(told)
        await system.signal("more", exchange="beta")
        await system.told("more", "filled")
        await system.told("beta", "expired")
        await system.signal("waits")
        await system.command(type="order.cancel", signal_id="revoked")
        await asyncio.sleep(1)
        assert not system.events("waits"), "it is neither refused nor taken before its venue is known"
        await way.mend()
        await system.told("waits", "filled", 60)
        await system.told("revoked", "canceled", 60)
        await system.command(type="order.cancel", signal_id="alpha")
        await system.told("alpha", "canceled")
        assert (await component(replica, "venue alpha"))["status"] == "ok"
        await system.agrees()


@pytest.mark.parametrize("trouble", ["bans us", "hangs"])
async def test_a_venue_whose_orders_wait_holds_up_no_other(
    redis_url: str, embedded_pubsub: str, tmp_path: Path, trouble: str
) -> None:
    async with two_venues(redis_url, embedded_pubsub, tmp_path, market=STEADY) as (system, _):
        replica = await system.replica(MAX_QUEUED_SENDS="8")
        alpha = system.control("alpha")
        if trouble == "bans us":
            await alpha.fault("rate_limit", status=418, seconds=600, count=None, path="/api/v3/order")
        else:
            await alpha.fault("lose_request", seconds=600, count=None, method="POST", path="/api/v3/order")
        names = [f"waits{number}" for number in range(20)]
        for name in names:
            await system.signal(name, price=FAR)
        for name in names:
            await system.told(name, "accepted")
        await system.signal("elsewhere", exchange="beta")
        await system.told("elsewhere", "filled", 9)
        assert (await component(replica, "intake"))["status"] == "ok"
        # What only waits can be withdrawn at once, and not when the venue takes orders again.
        await system.command(type="order.cancel", signal_id="waits19")
        await system.told("waits19", "canceled")
