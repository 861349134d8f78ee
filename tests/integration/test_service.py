"""The service from outside, on real servers: what goes in on Pub/Sub, what happens at the venue, what comes out."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from execution.ledger import child_id, order_key
from schemas import exact_json
from tests.replica import until
from tests.system import System, venue

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]

ON_BOTH = pytest.mark.parametrize(
    "pubsub_host", ["embedded", pytest.param("official", marks=pytest.mark.official_emulator)], indirect=True
)
"""On our emulator and, where it is installed, on Google's."""


@pytest.fixture
async def system(redis_url: str, pubsub_host: str, tmp_path: Path) -> AsyncIterator[System]:
    async with venue() as alpha, System(redis_url, pubsub_host, tmp_path, {"alpha": alpha}) as started:
        await started.liquidity()
        yield started


@ON_BOTH
async def test_from_signal_to_events(system: System) -> None:
    replica = await system.replica()
    minimum = (
        b'{"signal_id": "sig_123", "strategy_id": "ma_cross", "exchange": "alpha", "symbol": "BTC/USDT", "side": "buy",'
        b' "quantity": 0.1, "order_type": "limit", "price": 50300.0, "time_in_force": "GTC"}'
    )
    await system.raw(minimum, minimum)
    system.published.append("sig_123")
    await system.signal("exact", quantity=Decimal("0.1234567890123456789"))
    filled = await system.told("sig_123", "filled")
    assert [event.event_type for event in system.events("sig_123")] == [
        "order.accepted",
        "order.placed",
        "order.filled",
    ]
    assert filled.average_price == Decimal(50250)
    assert filled.filled_quantity == Decimal("0.1")
    assert filled.commissions == {"BTC": Decimal("0.0001")}
    assert filled.commission == Decimal("5.025")
    exact = await system.told("exact", "filled")
    assert exact.quantity == Decimal("0.1234567890123456789")
    assert exact.remaining_quantity == Decimal("0.0000067890123456789")
    await system.agrees()
    assert await system.creates("sig_123") == [child_id(order_key("sig_123"), 1)]
    state = await system.public_state("sig_123")
    assert (state["state"], state["remaining"], state["average_price"]) == ("FILLED", "0", "50250")
    trades = [trade for trade in await system.public_trades() if trade["signal_id"] == "sig_123"]
    assert [(t["symbol"], t["side"], t["qty"], t["price"]) for t in trades] == [("BTC/USDT", "buy", "0.1", "50250")]
    heartbeat = json.loads(await system.store.call("GET", "execution:heartbeat:replica-0"))
    assert heartbeat["shards"] == [0, 1, 2, 3]
    metrics = await replica.metrics()
    assert "execution_signals_accepted_total" in metrics
    assert await replica.stop() == 0


async def test_every_way_an_order_can_go(system: System) -> None:
    await system.replica()
    await system.signal("maker", price=50_300, post_only=True)
    assert "match" in str((await system.told("maker", "rejected")).reason)
    await system.signal("rests", price=49_000)
    await system.signal("ioc", price=50_250, quantity=2000, time_in_force="IOC")
    await system.signal("fok", price=50_250, quantity=2000, time_in_force="FOK")
    await system.signal("po", price=49_000, time_in_force="PO")
    expires_at = int(time.time() * 1000) + 1500
    await system.signal("gtd", price=49_000, time_in_force="GTD", expires_at=expires_at)
    await system.signal("poor", side="sell", symbol="ETH/USDT", price=3_000, quantity=9000)
    await system.told("ioc", "expired")
    assert system.events("ioc")[-1].filled_quantity == 1000
    assert (await system.told("fok", "expired")).filled_quantity == 0
    gtd = await system.told("gtd", "expired")
    assert gtd.timestamp >= expires_at
    for name in ("rests", "po", "poor"):
        await system.told(name, "working")
        await system.command(type="order.cancel", signal_id=name, reason="enough", command_id=f"c-{name}")
        assert (await system.told(name, "canceled")).reason == "enough"
    await system.agrees()


@ON_BOTH
async def test_cancel_and_amend_by_command(system: System) -> None:
    await system.replica()
    await system.signal("one", price=49_900, quantity=2)
    await system.told("one", "working")
    await system.control().trade("BTCUSDT", "SELL", "0.5", 49_900)
    await system.told("one", "partially_filled")
    order_id = system.events("one")[0].order_id
    await system.command(type="order.amend", order_id=order_id, price=50_260, quantity=3, command_id="a1")
    filled = await system.told("one", "filled")
    assert (filled.quantity, filled.filled_quantity) == (3, 3)
    await system.command(type="order.cancel", order_id=order_id, command_id="a2")
    await until(lambda: "filled already" in str(system.events("one")[-1].reason))
    await system.command(type="order.cancel", order_id="nobody", command_id="a3")
    await until(lambda: any(event.order_id == "nobody" for event in system.watch.events.values()))
    await system.agrees()


@ON_BOTH
async def test_bad_input_is_refused_by_field_and_reason(system: System) -> None:
    await system.replica()
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "b1": ({"exchange": "mtgox"}, "exchange"),
        "b2": ({"symbol": "DOGE/USDT"}, "symbol"),
        "b3": ({"quantity": "lots"}, "quantity"),
        "b4": ({"quantity": Decimal("0.000000001")}, "quantity"),
        "b5": ({"price": 50_000, "quantity": Decimal("0.00002")}, "quantity"),
        "b6": ({"side": None}, "side"),
        "b7": ({"order_type": "limit", "price": 50_000, "take_profit": 40_000}, "take_profit"),
        "b8": ({"order_type": "limit"}, "price"),
    }
    for name, (fields, _) in cases.items():
        await system.signal(name, **fields)
    for name, (_, field) in cases.items():
        event = await system.told(name, "rejected")
        assert event.field == field, name
        assert str(event.reason).startswith(f"{field}: "), name
    await system.signal("twice", quantity=Decimal("0.01"))
    await system.told("twice", "filled")
    await system.signal("twice", quantity=Decimal("0.02"))
    conflict = await system.told("twice", "rejected")
    assert "other content" in str(conflict.reason)
    assert conflict.order_id != system.events("twice")[0].order_id
    bodies = [b"\xff\xfe", b"[]", b'{"strategy_id": "x"}', b"{", b'{"signal_id": 7}']
    await system.raw(*bodies)
    letters: list[bytes] = []
    deadline = time.monotonic() + 15
    while len(letters) < len(bodies) and time.monotonic() < deadline:
        for data, attributes in await system.dead_letters():
            letters.append(data)
            assert attributes["dead-letter-reason"]
    assert sorted(letters) == sorted(bodies)


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "lose_answer"},
        {"kind": "lose_answer", "seconds": 3},
        {"kind": "lose_request"},
        {"kind": "http_error", "status": 503, "when": "after", "code": -1006},
        {"kind": "http_error", "status": 504, "when": "before", "code": -1007},
        {"kind": "http_error", "status": 502, "when": "after", "body": "<html>bad gateway</html>"},
        {"kind": "broken_body", "body": '{"orderId": 1'},
        {"kind": "broken_body"},
        {"kind": "rate_limit", "status": 429, "seconds": 1},
        {"kind": "reject", "code": -1021, "message": "Timestamp for this request is outside of the recvWindow."},
        {"kind": "latency", "seconds": 2, "when": "after"},
        {"kind": "latency", "seconds": 2, "when": "before"},
    ],
    ids=lambda fault: "-".join(str(value) for value in fault.values())[:40],
)
async def test_a_fault_at_the_venue_ends_in_one_order(system: System, fault: dict[str, Any]) -> None:
    await system.replica()
    details = {key: value for key, value in fault.items() if key != "kind"}
    await system.control().fault(fault["kind"], method="POST", path="/api/v3/order", **details)
    await system.signal("s")
    filled = await system.told("s", "filled")
    assert filled.filled_quantity == Decimal("0.01")
    await system.agrees()
    record = await system.control().record()
    assert len(record["trades"]) == 1


@pytest.mark.parametrize(
    "kind", ["drop_event", "duplicate_event", "reorder_event", "delay_event", "drop_streams", "stall_streams"]
)
async def test_a_fault_of_the_stream_loses_and_doubles_no_fill(system: System, kind: str) -> None:
    await system.replica()
    await system.signal("s", price=49_900, quantity=1)
    await system.told("s", "working")
    control = system.control()
    await control.fault(kind, count=3, seconds=1.0)
    for quantity in ("0.25", "0.25", "0.5"):
        await control.trade("BTCUSDT", "SELL", quantity, 49_900)
    await system.told("s", "filled")
    await system.agrees()


async def test_cancels_whose_answer_is_lost(system: System) -> None:
    await system.replica()
    await system.signal("s", price=49_000)
    await system.told("s", "working")
    await system.control().fault("lose_answer", method="DELETE")
    await system.command(type="order.cancel", signal_id="s")
    await system.told("s", "canceled")
    await system.agrees()


@ON_BOTH
async def test_two_replicas_and_one_is_killed(system: System) -> None:
    first = await system.replica()
    second = await system.replica()
    for number in range(30):
        await system.signal(f"s{number}", price=49_900, quantity=Decimal("0.1"))
    for number in range(30):
        await system.told(f"s{number}", "working")
    first.kill()
    await first.ended()
    await system.control().trade("BTCUSDT", "SELL", "3", 49_900)
    for number in range(30):
        await system.told(f"s{number}", "filled")
    await system.agrees()
    assert await second.stop() == 0


async def test_sigterm_hands_over_within_its_time(system: System) -> None:
    first = await system.replica()
    for number in range(10):
        await system.signal(f"s{number}", price=49_900, quantity=Decimal("0.1"))
    for number in range(10):
        await system.told(f"s{number}", "working")
    second = await system.replica()
    started = time.monotonic()
    assert await first.stop() == 0
    assert time.monotonic() - started < 10
    for number in range(10):
        await system.command(type="order.cancel", signal_id=f"s{number}")
    for number in range(10):
        await system.told(f"s{number}", "canceled")
    await system.agrees()
    assert await second.stop() == 0


async def test_a_paused_replica_that_wakes_up_does_no_harm(system: System) -> None:
    first = await system.replica()
    await system.signal("s", price=49_900, quantity=1)
    await system.told("s", "working")
    first.send(signal.SIGSTOP)
    second = await system.replica()
    await system.command(type="order.amend", signal_id="s", price=49_800, command_id="a")
    await until(lambda: [event.event_type for event in system.events("s")].count("order.placed") == 2, 40)
    first.send(signal.SIGCONT)
    await asyncio.sleep(1)
    await system.control().trade("BTCUSDT", "SELL", "1", 49_800)
    await system.told("s", "filled")
    await system.agrees()
    assert await second.stop() == 0
    assert await first.stop() == 0


@pytest.mark.parametrize(
    "point",
    [
        "ledger.before=kill@1",
        "ledger.after=kill@1",
        "signals.before_ack=kill@1",
        "send.before=kill@1",
        "send.answered=kill@1",
        "ledger.before=kill@2",
        "ledger.after=kill@2",
        "order.committed=kill@1",
        "outbox.projected=kill@1",
        "outbox.published=kill@1",
    ],
)
async def test_killed_between_any_two_writes(system: System, point: str) -> None:
    """A replica dies exactly here; another finishes, and everybody's record agrees."""
    first = await system.replica(FAILPOINTS=point)
    await system.signal("s", quantity=Decimal("0.5"))
    assert await first.ended(30) == -signal.SIGKILL
    second = await system.replica()
    await system.told("s", "filled", 60)
    await system.agrees()
    record = await system.control().record()
    assert [trade["qty"] for trade in record["trades"]] == ["0.50000000"]
    trades = await system.public_trades()
    assert [trade["qty"] for trade in trades] == ["0.5"], "the public stream has each trade once"
    assert await second.stop() == 0


async def test_killed_while_canceling(system: System) -> None:
    first = await system.replica(FAILPOINTS="cancel.before=kill")
    await system.signal("s", price=49_000)
    await system.told("s", "working")
    await system.command(type="order.cancel", signal_id="s")
    assert await first.ended(30) == -signal.SIGKILL
    await system.replica()
    await system.told("s", "canceled", 60)
    await system.agrees()


@ON_BOTH
async def test_the_messages_again_and_in_another_order(system: System) -> None:
    await system.replica()
    signals = [
        exact_json.encode(
            {
                "signal_id": f"r{number}",
                "strategy_id": "tests",
                "exchange": "alpha",
                "symbol": "BTC/USDT",
                "side": "buy",
                "quantity": Decimal("0.01"),
                "order_type": "market",
            }
        )
        for number in range(20)
    ]
    system.published += [f"r{number}" for number in range(20)]
    await system.raw(*signals)
    await system.raw(*reversed(signals))
    await system.raw(*signals)
    for number in range(20):
        await system.told(f"r{number}", "filled")
    await system.agrees()
    assert len((await system.control().record())["trades"]) == 20


async def test_start_up_errors_say_what_to_do(system: System) -> None:
    for changes, words in (
        ({"REDIS_URL": "redis://127.0.0.1:1"}, "127.0.0.1:1"),
        ({"ALPHA_API_SECRET": "wrong"}, "secret"),
        ({"ALPHA_API_KEY": "wrong"}, "API key"),
        ({"ADAPTER_ENDPOINTS": "alpha=binance@http://127.0.0.1:1"}, "http://127.0.0.1:1"),
    ):
        replica = await system.replica(wait=False, **changes)
        assert await replica.ended(60) == 1, changes
        assert words in replica.words(), changes
        assert "Traceback" not in replica.words(), changes
    await system.control().clock(60_000)
    replica = await system.replica(wait=False)
    assert await replica.ended(60) == 1
    assert "clock" in replica.words()


async def test_a_slow_venue_leaves_the_backlog_in_pubsub(system: System) -> None:
    replica = await system.replica(MAX_QUEUED_SENDS="20", MAX_OUTSTANDING="50")
    fault = await system.control().fault("latency", seconds=0.3, count=None, method="POST")
    for number in range(300):
        await system.signal(f"s{number}", quantity=Decimal("0.001"))

    async def paused() -> bool:
        report = await replica.health()
        assert report is not None
        return any(part["name"] == "intake" and part["status"] == "degraded" for part in report["components"])

    async with asyncio.timeout(20):
        while not await paused():
            await asyncio.sleep(0.02)
    live = int(await system.store.call("SCARD", "{s00}:live"))
    assert live < 200
    await system.control().clear(fault.id)
    for number in range(300):
        await system.told(f"s{number}", "filled", 60)
    await system.agrees()
