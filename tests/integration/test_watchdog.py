"""The watchdog: what it cancels when no replica lives, and what must not make it. A real store; venues in memory, or processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from adapters.base import ApprovedOrder, Unavailable, VenueOrder, VenueOrderStatus
from execution.embedded.redis_server import EmbeddedRedis
from execution.ledger import keys
from execution.store import Store
from execution.watchdog import LOOKS, ROUNDS, Beats, Watchdog
from schemas import exact_json
from schemas.terms import OrderType, Side
from tests.console import Console
from tests.replica import Replica, until
from tests.scripted_venue import ScriptedVenue
from tests.system import System, venue
from tests.unit.story import RULES


def test_beats_by_our_clock_alone() -> None:
    beats = Beats(100)
    assert beats.silent(160) == 60
    assert beats.seen({"a": b"1"}, 161)
    assert not beats.seen({"a": b"1"}, 170), "the same again is no sign of life"
    assert not beats.seen({}, 180)
    assert beats.silent(180) == 19
    assert beats.seen({"a": b"0"}, 181), "the writer's clock may jump either way"
    assert not beats.seen({"a": b"0"}, 182)
    assert beats.seen({"a": b"0", "b": b"0"}, 183), "another replica took over"
    assert beats.silent(183) == 0


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Listing(ScriptedVenue):
    """A venue that may be away, and that lists what is open."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False

    async def start(self) -> None:
        if self.away:
            raise Unavailable("away")

    @property
    def open(self) -> list[str]:
        return [name for name, held in self.orders.items() if held.status is VenueOrderStatus.OPEN]

    async def open_orders(self, symbol: str | None = None) -> list[VenueOrder]:
        return [held.told() for held in self.orders.values() if held.status is VenueOrderStatus.OPEN]


class Watched:
    """A watchdog on a clock of its own, and what it said."""

    def __init__(self, store: Store, at: Listing, **options: Any) -> None:
        self.store = store
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.clock = Clock()
        made: dict[str, Any] = {"alpha": lambda: at}
        self.dog = Watchdog(
            store,
            made,
            lambda what, details: self.said.append((what, details)),
            timeout=60,
            monotonic=self.clock,
            **options,
        )

    async def pass_time(self, seconds: float, *, beats: bool = False) -> list[str]:
        """Look each second; returns what it said meanwhile."""
        before = len(self.said)
        for _ in range(int(seconds)):
            self.clock.now += LOOKS
            if beats:
                await self.beat()
            await self.dog.look()
        return [what for what, _ in self.said[before:]]

    async def beat(self, name: str = "r") -> None:
        await self.store.call("ZADD", keys.REPLICAS, 1, name)
        beat = {"instance": name, "timestamp": time.time_ns()}
        await self.store.call("SET", keys.heartbeat(name), exact_json.encode(beat), "PX", 60_000)


@pytest.fixture
def alpha() -> Listing:
    return Listing()


@pytest.fixture
async def left(store: Store, alpha: Listing) -> None:
    """A replica has worked two orders, one of them protected, and died."""
    replica = await Replica(store, {"alpha": alpha}).start()
    await replica.signal("one")
    await replica.signal("two", order_type="market", price=None, take_profit=120, stop_loss=80)
    await until(lambda: len(alpha.open) >= 2)
    await alpha.place(
        ApprovedOrder(
            client_order_id="somebody-else",
            symbol="BTC/USDT",
            side=Side.BUY,
            order_type=OrderType.LIMIT,
            quantity=Decimal(1),
            price=Decimal(90),
        )
    )
    await replica.die()


async def test_our_orders_go_when_nobody_has_beaten_for_the_timeout(store: Store, alpha: Listing, left: None) -> None:
    watched = Watched(store, alpha)
    assert await watched.pass_time(60) == []
    ours = set(alpha.open) - {"somebody-else"}
    said = await watched.pass_time(5)
    assert alpha.open == ["somebody-else"]
    assert said[0] == "tripped"
    assert said.count("canceled") == len(ours)
    assert said[-1] == "venue_done"
    assert watched.dog.tripped
    assert watched.dog.left == 0
    assert {details["client_order_id"] for what, details in watched.said if what == "canceled"} == ours
    assert await watched.pass_time(3 * ROUNDS) == [], "there is nothing left to say"
    assert await watched.pass_time(2, beats=True) == ["beating_again"]
    assert not watched.dog.tripped


@pytest.mark.parametrize("option", ["every_order", "keep_exits"])
async def test_policies(store: Store, alpha: Listing, left: None, option: str) -> None:
    exits = [name for name in alpha.open if alpha.orders[name].order.side is Side.SELL]
    assert exits
    watched = Watched(store, alpha, **{option: True})
    await watched.pass_time(65)
    assert alpha.open == ([] if option == "every_order" else [*exits, "somebody-else"])


async def test_stops_that_only_reduce_are_exits_too(store: Store) -> None:
    swap = Listing()
    rules = msgspec.structs.replace(RULES, contract=True, native=(OrderType.MARKET, OrderType.LIMIT, OrderType.STOP))
    swap.rules = lambda symbol: rules if symbol == rules.symbol else None  # type: ignore[method-assign]
    replica = await Replica(store, {"alpha": swap}).start()
    await replica.signal("entry")
    stop = {"order_type": "stop", "side": "sell", "stop_price": 90, "price": None, "reduce_only": True}
    await replica.signal("stop", **stop)
    await until(lambda: len(swap.open) == 2)
    await replica.die()
    watched = Watched(store, swap, keep_exits=True)
    await watched.pass_time(65)
    assert [swap.orders[name].order.side for name in swap.open] == [Side.SELL]


async def test_a_store_that_lost_the_ledger_leaves_it_to_the_venues(store: Store, alpha: Listing, left: None) -> None:
    watched = Watched(store, alpha)
    await watched.pass_time(2, beats=True)
    await store.call("FLUSHALL")
    said = await watched.pass_time(65)
    assert "ledger_lost" in said
    assert alpha.open == ["somebody-else"]


async def test_a_store_that_never_had_one_is_no_reason(store: Store, alpha: Listing, left: None) -> None:
    await store.call("FLUSHALL")
    watched = Watched(store, alpha)
    assert await watched.pass_time(200) == []
    assert len(alpha.open) > 1


async def test_nothing_goes_while_a_replica_beats_or_hands_over(store: Store, alpha: Listing, left: None) -> None:
    watched = Watched(store, alpha)
    await watched.pass_time(100, beats=True)
    # It stops cleanly; another takes over after most of the timeout.
    await store.call("DEL", keys.heartbeat("r"))
    await store.call("ZREM", keys.REPLICAS, "r")
    await watched.pass_time(58)
    await watched.beat("s")
    await watched.pass_time(58)
    assert watched.said == []
    assert alpha.cancels == []


async def test_nothing_goes_where_nothing_is_live(store: Store, alpha: Listing) -> None:
    watched = Watched(store, alpha)
    assert await watched.pass_time(200) == []
    assert not watched.dog.tripped


async def test_a_stall_or_a_clock_that_jumped_is_no_silence(store: Store, alpha: Listing, left: None) -> None:
    watched = Watched(store, alpha)
    await watched.pass_time(50)
    watched.clock.now += 10_000
    assert await watched.pass_time(59) == ["stalled"]
    assert alpha.cancels == []
    assert "tripped" in await watched.pass_time(3)


async def test_a_venue_that_is_away_is_tried_again(store: Store, alpha: Listing, left: None) -> None:
    watched = Watched(store, alpha)
    alpha.away = True
    assert await watched.pass_time(62) == ["tripped", "venue_failed", "venue_done"]
    assert watched.dog.left == 1
    alpha.away = False
    await watched.pass_time(ROUNDS + 1)
    assert alpha.open == ["somebody-else"]
    assert watched.dog.left == 0


async def test_it_stops_where_a_replica_comes_back(store: Store, alpha: Listing, left: None) -> None:
    watched = Watched(store, alpha)
    started = alpha.start

    async def start() -> None:
        await watched.beat("back")
        await started()

    alpha.start = start  # type: ignore[method-assign]
    said = await watched.pass_time(64)
    assert said[0] == "tripped"
    assert said[-1] == "beating_again"
    assert alpha.cancels == []
    assert not watched.dog.tripped


@pytest.mark.parametrize("without_store", [False, True])
async def test_a_store_that_is_away_or_starts_again(alpha: Listing, tmp_path: Path, without_store: bool) -> None:
    server = await EmbeddedRedis.start(tmp_path / "redis")
    store = await Store.connect(server.url, timeout=0.2)
    try:
        replica = await Replica(store, {"alpha": alpha}).start()
        await replica.signal("one")
        await until(lambda: alpha.open)
        await replica.die()
        watched = Watched(store, alpha, without_store=without_store)
        await watched.pass_time(50, beats=True)
        await server.stop()
        said = await watched.pass_time(100)
        assert said[0] == "store_unreachable"
        if without_store:
            assert alpha.open == []
            return
        assert said == ["store_unreachable"]
        server = await EmbeddedRedis.start(tmp_path / "redis")
        await until(lambda: store.connected)
        assert await watched.pass_time(59) == ["store_back"]
        assert alpha.cancels == []
        assert "tripped" in await watched.pass_time(3), "it is back, and nobody beats"
        assert alpha.open == []
    finally:
        await store.close()
        await server.stop()


# --- as a process ---------------------------------------------------------------------------------------------------------


@pytest.mark.process
@pytest.mark.timeout(120)
async def test_as_a_process_beside_the_service(redis_url: str, pubsub_host: str, tmp_path: Path) -> None:
    async with venue() as at, System(redis_url, pubsub_host, tmp_path, {"alpha": at}) as system:
        first = await system.replica()
        second = await system.replica()
        for name in ("one", "two"):
            await system.signal(name, price=45_000, quantity=Decimal("0.1"))
            await system.told(name, "working")
        names = [child for name in ("one", "two") for child in await system.creates(name)]
        await system.control().trade("BTCUSDT", "BUY", "1", 44_000)  # somebody else's, on another account
        dog = await Console(tmp_path, **system.environment).start("watchdog", "--timeout", "4", "--once")
        assert dog.stdout is not None
        said = [json.loads(await dog.stdout.readline()) for _ in range(2)]
        assert [line["event"] for line in said] == ["watching", "venue_ready"]

        assert await first.stop() == 0  # the other one takes over
        await asyncio.sleep(5)
        assert dog.returncode is None
        os.kill(dog.pid, signal.SIGSTOP)  # it stands still itself, while the service lives
        await asyncio.sleep(8)
        os.kill(dog.pid, signal.SIGCONT)
        await asyncio.sleep(2)
        assert dog.returncode is None

        second.kill()
        out, _ = await asyncio.wait_for(dog.communicate(), 40)
        lines = [json.loads(line) for line in out.splitlines()]
        assert dog.returncode == 3, lines
        assert sorted(line["client_order_id"] for line in lines if line["event"] == "canceled") == sorted(names)
        assert [line["event"] for line in lines if line["event"] == "tripped"] == ["tripped"]
        record = await system.control().record()
        assert {order["status"] for order in record["orders"] if order["clientOrderId"] in names} == {"CANCELED"}

        # A replica that comes back finds at the venue what was done, and works on.
        third = await system.replica()
        await until(lambda: third.process.returncode is None and len(system.events("one")) > 0)
        for name in ("one", "two"):
            await system.command(type="order.cancel", signal_id=name, command_id=f"c-{name}")
            await system.told(name, "canceled")
        await system.agrees()
