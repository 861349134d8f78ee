"""When the watch over the pulses trips them, on a clock that a test moves; a real store."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from execution.commands import Commands
from execution.dead_man import CONFIRM, FELLOW_DOUBTED, LOOKS, REDELIVERED, DeadMan
from execution.intake import Intake
from execution.ledger import Ledger, keys
from execution.ledger.pulses import PULSES, PulseStore
from execution.metrics import Metrics
from execution.pubsub import IncomingMessage
from execution.store import Store, StoreUnavailable
from schemas.order import OrderStatus


class Watch:
    """The watch of one replica."""

    def __init__(self, store: Store, instance: str, *, strategies: Iterable[str] = ("ma",)) -> None:
        self.now = 1000.0
        self.stream: int | None = 1
        self.answers = True
        self.replicas = 2
        self.asked = 0
        self.pulses = PulseStore(store)
        self.store = store
        ledger = Ledger(store, shards=4, instance=instance)
        self.ledger = ledger
        self.dead_man = DeadMan(
            self.pulses,
            ledger,
            Metrics(),
            instance=instance,
            default_timeout=30,
            orders=lambda: orders,
            stream=lambda: self.stream,
            answers=self._answer,
            wake_outbox=lambda _: None,
            replicas=lambda: self.replicas,
            monotonic=lambda: self.now,
        )
        orders: list[Any] = [_order(strategy) for strategy in strategies]

    async def _answer(self) -> bool:
        self.asked += 1
        return self.answers

    async def open(self) -> Watch:
        await self.ledger.open()
        await self.dead_man.look()
        return self

    async def beat(self, timeout: float = 10) -> None:
        await self.pulses.beat("strategy:ma", int(timeout * 1000))

    async def pass_time(self, seconds: float) -> bool:
        """Look as often as it does; whether the pulse has tripped."""
        for _ in range(int(seconds / LOOKS)):
            self.now += LOOKS
            await self.dead_man.look()
        return (await self.pulses.all())["strategy:ma"].trip is not None


def _order(strategy: str) -> Any:
    parent = SimpleNamespace(strategy_id=strategy, status=OrderStatus.WORKING)
    return SimpleNamespace(state=SimpleNamespace(parent=parent), closing=False, post=lambda _: None)


@pytest.fixture
async def watch(store: Store) -> Watch:
    return await Watch(store, "a").open()


async def fellow(store: Store, *, age: float = 0.0, **beat: Any) -> None:
    """Another replica, whose heartbeat is so old."""
    from schemas import exact_json

    at = await store.server_time_ms() - int(age * 1000)
    await store.call("ZADD", keys.REPLICAS, at, "b")
    await store.call("SET", keys.heartbeat("b"), exact_json.encode({"instance": "b", "timestamp": at, **beat}))


async def test_it_trips_once_what_is_overdue_was_listened_for_again(watch: Watch) -> None:
    await watch.beat()
    assert not await watch.pass_time(5)
    assert watch.asked == 0, "nobody is asked while beats come"
    assert not await watch.pass_time(5.5)
    assert watch.asked > 0
    assert await watch.pass_time(CONFIRM + LOOKS)


async def test_a_beat_between_suspicion_and_trip_counts(watch: Watch) -> None:
    await watch.beat()
    assert not await watch.pass_time(11)
    await watch.beat()
    assert not await watch.pass_time(10)


async def test_silence_of_what_brings_beats_is_no_silence_of_who_sends_them(watch: Watch) -> None:
    await watch.beat()
    watch.answers = False
    assert not await watch.pass_time(60)
    watch.answers = True
    assert not await watch.pass_time(4)
    assert await watch.pass_time(6 + CONFIRM + 1)


async def test_a_replica_that_stands_still_may_hold_beats_until_they_are_delivered_again(
    watch: Watch, store: Store
) -> None:
    await fellow(store, age=8)
    await watch.beat()
    assert not await watch.pass_time(10 + REDELIVERED)
    assert await watch.pass_time(CONFIRM + 1), "but no longer"


async def test_a_replica_that_is_counted_out_before_any_pulse_is_silent_may_hold_beats_too(watch: Watch) -> None:
    """It stood still, its lease ran out, and what it held comes again only later."""
    await watch.beat()
    assert not await watch.pass_time(3)
    watch.replicas = 1
    assert not await watch.pass_time(7 + REDELIVERED)
    assert await watch.pass_time(CONFIRM + 1), "but no longer"


async def test_a_replica_that_went_is_left_out_of_account_after_a_while(watch: Watch, store: Store) -> None:
    await fellow(store, age=8)
    await watch.beat()
    await watch.pass_time(8)
    await store.call("ZREM", keys.REPLICAS, "b")
    while watch.now < 1000 + FELLOW_DOUBTED + 10:
        await watch.beat()
        assert not await watch.pass_time(4)
    await watch.beat()
    assert await watch.pass_time(10 + CONFIRM + 1)


async def test_a_replica_that_hears_trips_for_one_that_does_not(watch: Watch, store: Store) -> None:
    """The orders are another replica's, which no beat could reach: it would count for ever."""
    watch = await Watch(store, "a", strategies=()).open()
    deaf = await Watch(store, "b").open()
    await watch.beat()
    await fellow(store, pulses=[])
    assert not await watch.pass_time(30), "nothing depends on it"
    deaf.stream = None
    deaf.now += 1
    assert not await deaf.pass_time(60)
    assert deaf.dead_man.depended_on() == ["strategy:ma"]
    await fellow(store, pulses=deaf.dead_man.depended_on())
    assert not await watch.pass_time(10)
    assert await watch.pass_time(CONFIRM + 1)
    await deaf.pass_time(LOOKS)
    halted: Any = SimpleNamespace(strategy_id="ma", reduce_only=False)
    assert "silent" in str(deaf.dead_man.halted(halted))


async def test_a_beat_in_the_store_itself_arms_with_the_default(watch: Watch, store: Store) -> None:
    await store.call("HINCRBY", PULSES, "b:strategy:ma", 1)
    assert not await watch.pass_time(29)
    await store.call("HINCRBY", PULSES, "b:strategy:ma", 1)
    assert not await watch.pass_time(29)
    assert await watch.pass_time(4)


async def test_what_cannot_be_read_ends_nothing(watch: Watch, store: Store) -> None:
    await store.call("HSET", PULSES, "b:strategy:x", "many", "?", "1", "b:strategy:ma", "1")
    await store.call("HSET", PULSES, "x:strategy:newer", "{")
    assert not await watch.pass_time(5)
    halted: Any = SimpleNamespace(strategy_id="newer", reduce_only=False)
    assert watch.dead_man.halted(halted) is not None


async def test_a_beat_that_cannot_be_counted_here_is_left_to_another_replica(watch: Watch) -> None:
    class Away:
        async def beat(self, *_: Any) -> None:
            raise StoreUnavailable("away", maybe_applied=False)

    settled: list[str] = []
    settler: Any = SimpleNamespace(ack=lambda _: settled.append("ack"), nack=lambda _: settled.append("nack"))
    message = IncomingMessage(
        settler,
        data=b'{"type": "heartbeat", "strategy_id": "ma"}',
        attributes={},
        message_id="1",
        publish_time_ms=0,
        ordering_key="",
        delivery_attempt=0,
        received_at=0.0,
    )
    nobody: Any = None
    away: Any = Away()
    commands = Commands(
        nobody, watch.ledger, Metrics(), nobody, nobody, instance="a", wake_outbox=lambda _: None, dead_man=away
    )
    await Intake("commands", commands.take, nobody, Metrics())._settle(message)
    assert settled == ["nack"]
