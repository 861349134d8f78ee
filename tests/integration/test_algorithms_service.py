"""Algorithms and order types from outside, on real servers: what a strategy asks for, what the venue saw, what was told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from adapters.simulator.market import MarketConfig
from execution.ledger import order_key
from schemas.event import OrderEvent
from tests.replica import until
from tests.system import System, venue

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]

LIVELY = MarketConfig(seed=7, volatility=0.3, trades=6.0, trade_value=20_000.0)
"""A market with quotes on both sides and takers that come a few times a second."""
STEADY = MarketConfig(volatility=0.0, trades=0.0, permanent_impact=0.0, impact_half_life=0.2)


@pytest.fixture
async def system(redis_url: str, pubsub_host: str, tmp_path: Path) -> AsyncIterator[System]:
    """One venue with a lively market."""
    async with venue(market=LIVELY) as alpha, System(redis_url, pubsub_host, tmp_path, {"alpha": alpha}) as started:
        yield started


@pytest.fixture
async def steady(redis_url: str, pubsub_host: str, tmp_path: Path) -> AsyncIterator[System]:
    """One venue with quotes a basis point off 50 000 on either side, which stay until the test moves the price."""
    async with venue(market=STEADY) as alpha, System(redis_url, pubsub_host, tmp_path, {"alpha": alpha}) as started:
        yield started


@pytest.fixture
async def still(redis_url: str, pubsub_host: str, tmp_path: Path) -> AsyncIterator[System]:
    """One venue where nothing happens but what the test does: 49 750 bid, 50 250 asked."""
    async with venue() as alpha, System(redis_url, pubsub_host, tmp_path, {"alpha": alpha}) as started:
        await started.liquidity()
        yield started


def accepted(system: System, signal_id: str) -> OrderEvent:
    return system.events(signal_id)[0]


async def at_venue(system: System, signal_id: str, name: str | None = None) -> list[dict[str, Any]]:
    """The venue's own record of a signal's orders, in their order."""
    record = await system.control(name).record()
    key = order_key(signal_id)
    found = [order for order in record["orders"] if order["clientOrderId"].startswith(key)]
    return sorted(found, key=lambda order: int(order["orderId"]))


def executed(orders: list[dict[str, Any]]) -> Decimal:
    return sum((Decimal(order["executedQty"]) for order in orders), Decimal(0))


async def told_type(system: System, signal_id: str, event_type: str) -> OrderEvent:
    """The first event of a type, once it was published."""
    await until(lambda: any(event.event_type == event_type for event in system.events(signal_id)))
    return next(event for event in system.events(signal_id) if event.event_type == event_type)


async def ended(system: System, *signal_ids: str, seconds: float = 40.0) -> None:
    """Wait until orders have ended, however."""

    def over() -> bool:
        return all(any(event.status.terminal for event in system.events(name)) for name in signal_ids)

    try:
        await until(over, seconds)
    except TimeoutError:
        told = {
            name: [(event.event_type.value, event.reason) for event in system.events(name)][-5:] for name in signal_ids
        }
        raise AssertionError(f"{told}\n" + "\n".join(replica.words() for replica in system.replicas)) from None


# --- schedules ------------------------------------------------------------------------------------------------------------


async def test_every_schedule_goes_to_its_end(system: System) -> None:
    await system.replica()
    params = {"duration_seconds": 8, "slices": 10}
    await system.signal("adaptive", quantity=Decimal("0.1"), algorithm="twap", algorithm_params=params)
    for name in ("aggressive", "passive"):
        await system.signal(
            name, quantity=Decimal("0.1"), algorithm="twap", algorithm_params={**params, "style": name, "jitter": 0.3}
        )
    await system.signal("sells", side="sell", quantity=Decimal("0.1"), algorithm="twap", algorithm_params=params)
    await system.signal("vwap", quantity=Decimal("0.1"), algorithm="vwap", algorithm_params=params)
    await system.signal(
        "profile", quantity=Decimal("0.1"), algorithm="vwap", algorithm_params={**params, "profile": [1, 0, 3]}
    )
    await system.signal(
        "shortfall",
        quantity=Decimal("0.1"),
        algorithm="implementation_shortfall",
        algorithm_params={**params, "urgency": "high"},
    )
    await system.signal(
        "averse",
        quantity=Decimal("0.1"),
        algorithm="implementation_shortfall",
        algorithm_params={**params, "risk_aversion": 1e-6},
    )
    names = ("adaptive", "aggressive", "passive", "sells", "vwap", "profile", "shortfall", "averse")
    await ended(system, *names)
    await system.agrees()
    for name in names:
        last = system.events(name)[-1]
        assert (last.status, last.filled_quantity) == ("filled", Decimal("0.1")), (name, last)
        orders = await at_venue(system, name)
        assert executed(orders) == Decimal("0.1"), name
        assert last.timestamp - accepted(system, name).timestamp < 9_000, name
        tca = last.tca
        assert not isinstance(tca, msgspec.UnsetType), name
        assert tca.filled == Decimal("0.1")
        assert tca.slippage_arrival_bps is not None, name
    slices = await at_venue(system, "aggressive")
    assert len(slices) >= 10
    assert max(Decimal(order["origQty"]) for order in slices) < Decimal("0.03")


async def test_killed_in_mid_schedule_it_goes_on_elsewhere(system: System) -> None:
    replicas = {f"replica-{number}": await system.replica() for number in range(2)}
    params = {"duration_seconds": 9, "slices": 12, "style": "aggressive"}
    for name in ("a", "b", "c"):
        await system.signal(name, quantity=Decimal("0.12"), algorithm="twap", algorithm_params=params)
    for name in ("a", "b", "c"):
        await system.told(name, "partially_filled")
    owner = system.events("a")[-1].instance_id
    await asyncio.sleep(2.0)
    replicas.pop(owner).kill()
    await ended(system, "a", "b", "c")
    await system.agrees()
    for name in ("a", "b", "c"):
        assert system.events(name)[-1].status == "filled", name
        await never_ahead(system, name, Decimal("0.01"))
        assert executed(await at_venue(system, name)) == Decimal("0.12")
    assert {event.instance_id for event in system.events("a")} == {owner, *replicas}


async def test_restarted_within_its_lease(system: System) -> None:
    """As a pod that is killed and comes back under its name before anybody has missed it."""
    first = await system.replica(LEASE_TTL="4")
    params = {"duration_seconds": 9, "slices": 12}
    for style in ("aggressive", "adaptive", "passive"):
        await system.signal(
            style, quantity=Decimal("0.12"), algorithm="twap", algorithm_params={**params, "style": style}
        )
    await system.told("aggressive", "partially_filled")
    await asyncio.sleep(1.0)
    first.kill()
    await first.ended()
    await system.replica(LEASE_TTL="4", INSTANCE_ID="replica-0")
    await ended(system, "aggressive", "adaptive", "passive")
    await system.agrees()
    await never_ahead(system, "aggressive", Decimal("0.01"))
    for style in ("aggressive", "adaptive", "passive"):
        assert system.events(style)[-1].status == "filled", style
        assert executed(await at_venue(system, style)) == Decimal("0.12")


async def never_ahead(system: System, signal_id: str, each: Decimal) -> None:
    """No slice was traded twice: what was placed up to a slice is never more than planned up to it."""
    record = await system.order(signal_id)
    done = Decimal(0)
    for child in record.children:
        assert child.state.terminal
        done += child.executed
        assert done <= each * (int(child.tag[1:]) + 1), (child.tag, done)


# --- bounds ---------------------------------------------------------------------------------------------------------------


async def test_a_market_beyond_the_slippage_bound_is_waited_out_or_ends_it(steady: System) -> None:
    system, control = steady, steady.control()
    await system.replica()
    params = {"duration_seconds": 8, "slices": 16, "style": "aggressive"}
    common = {"quantity": Decimal("0.16"), "algorithm": "twap", "algorithm_params": params, "max_slippage_bps": 20}
    await system.signal("waits", **common)
    await system.signal("ends", **common, slippage_policy="END")
    await system.signal("sells", **common, side="sell")
    for name in ("waits", "ends", "sells"):
        await system.told(name, "partially_filled")
    await control.price("BTCUSDT", 50_500)
    assert (await system.told("ends", "canceled")).slippage_bps == breach(system, "ends")
    paused = await until_breached(system, "waits")
    assert paused.slippage_bps > 99
    assert "slippage" in str(paused.reason)
    before = paused.filled_quantity
    await asyncio.sleep(1.0)
    assert system.events("waits")[-1].filled_quantity == before
    await control.price("BTCUSDT", 50_020)
    await ended(system, "waits", "sells")
    await system.agrees()
    assert 0 < system.events("ends")[-1].filled_quantity < Decimal("0.16")
    assert not any(isinstance(event.slippage_bps, Decimal) for event in system.events("sells"))
    for name in ("waits", "sells"):
        assert system.events(name)[-1].filled_quantity == Decimal("0.16")
    for order in await at_venue(system, "waits"):
        assert Decimal(order["price"]) <= Decimal(50_000) * Decimal("1.002")


def breach(system: System, signal_id: str) -> Decimal | None:
    told = [event.slippage_bps for event in system.events(signal_id) if isinstance(event.slippage_bps, Decimal)]
    return told[0] if told else None


async def until_breached(system: System, signal_id: str) -> OrderEvent:
    await until(lambda: breach(system, signal_id) is not None)
    return next(event for event in system.events(signal_id) if isinstance(event.slippage_bps, Decimal))


async def test_direct_orders_and_their_slippage_bound(steady: System) -> None:
    system = steady
    await system.replica()
    await system.signal("rests", price=50_500, max_slippage_bps=5)
    await system.signal("taken", quantity=Decimal("0.5"), max_slippage_bps=5)
    await system.signal("far", price=50_500, max_slippage_bps=5, side="buy", post_only=True)
    await system.told("taken", "filled")
    await system.told("rests", "filled")
    assert Decimal((await at_venue(system, "rests"))[0]["price"]) <= 50_025
    await system.signal("none", quantity=1, max_slippage_bps=0)
    none = await system.told("none", "canceled")
    assert none.slippage_bps == 1
    assert none.filled_quantity == 0
    await system.command(type="order.cancel", signal_id="far")
    await ended(system, "far")
    await system.agrees()


# --- triggers -------------------------------------------------------------------------------------------------------------

DOWN = {
    "stop": {"side": "sell", "order_type": "stop", "stop_price": 49_500},
    "stop_limit": {"side": "sell", "order_type": "stop_limit", "stop_price": 49_500, "price": 49_000},
    "take_profit": {"side": "buy", "order_type": "take_profit", "stop_price": 49_500},
    "take_profit_limit": {"side": "buy", "order_type": "take_profit_limit", "stop_price": 49_500, "price": 49_600},
    "trailing_stop": {"side": "sell", "order_type": "trailing_stop"},
}


async def test_every_trigger_at_the_venue_and_at_the_service(steady: System) -> None:
    system, control = steady, steady.control()
    await system.replica()
    for kind, fields in DOWN.items():
        for holder in ("venue", "service"):
            params: dict[str, Any] = {"trigger_at": holder}
            if kind == "trailing_stop":
                params["trail_bps"] = 100
            await system.signal(f"{kind}-{holder}", **fields, algorithm_params=params)
    names = [f"{kind}-{holder}" for kind in DOWN for holder in ("venue", "service")]
    for name in names:
        await system.told(name, "working" if name.endswith("venue") else "accepted")
        first = accepted(system, name)
        assert first.trigger.held_by == name.split("-")[1], name
        assert any(("venue holds" if name.endswith("venue") else "service watches") in note for note in first.notes)
        orders = await at_venue(system, name)
        assert len(orders) == name.endswith("venue"), name
    # The messages again: nothing is doubled, and nothing stops watching.
    for kind, fields in DOWN.items():
        params = {"trigger_at": "service", **({"trail_bps": 100} if kind == "trailing_stop" else {})}
        await system.signal(f"{kind}-service", **fields, algorithm_params=params)
    await control.price("BTCUSDT", 50_500)
    await asyncio.sleep(0.5)
    await control.price("BTCUSDT", 49_900)
    for name in ("trailing_stop-venue", "trailing_stop-service"):
        await system.told(name, "filled")
    await asyncio.sleep(0.3)
    assert all(not event.status.terminal for name in names[:8] for event in system.events(name))
    await control.price("BTCUSDT", 49_490)
    for name in names:
        filled = await system.told(name, "filled")
        assert len(await at_venue(system, name)) == 1
        if name.endswith("service"):
            assert filled.trigger.fired_at is not None
            assert any("trigger was reached" in str(event.reason) for event in system.events(name))
    assert Decimal((await at_venue(system, "take_profit_limit-service"))[0]["price"]) == 49_600
    await system.agrees()


async def test_a_stop_is_amended_at_the_venue_and_at_the_service(steady: System) -> None:
    system, control = steady, steady.control()
    await system.replica()
    for holder in ("venue", "service"):
        params = {"trigger_at": holder}
        await system.signal(holder, side="sell", order_type="stop", stop_price=48_000, algorithm_params=params)
    await system.told("venue", "working")
    await system.told("service", "accepted")
    for holder in ("venue", "service"):
        await system.command(type="order.amend", signal_id=holder, stop_price=Decimal("49500.123"), command_id=holder)
        amended = await told_type(system, holder, "order.amended")
        assert amended.trigger.price == Decimal("49500.13")

    def moved() -> bool:
        placed = [event for event in system.events("venue") if event.event_type == "order.placed"]
        return len(placed) == 2

    await until(moved)
    assert [Decimal(order["stopPrice"]) for order in await at_venue(system, "venue")] == [48_000, Decimal("49500.13")]
    await control.price("BTCUSDT", 49_490)
    for holder in ("venue", "service"):
        await system.told(holder, "filled")
    await system.agrees()


async def test_a_trigger_survives_the_service(steady: System) -> None:
    system, control = steady, steady.control()
    first = await system.replica()
    params = {"trigger_at": "service"}
    await system.signal("stop", side="sell", order_type="stop", stop_price=49_500, algorithm_params=params)
    trailing = {**params, "trail_bps": 100}
    await system.signal("trails", side="sell", order_type="trailing_stop", algorithm_params=trailing)
    sliced = {"duration_seconds": 3, "slices": 3, "style": "aggressive"}
    await system.signal(
        "sliced", side="sell", order_type="stop", stop_price=49_500, algorithm="twap", algorithm_params=sliced
    )
    await system.told("sliced", "accepted")
    await asyncio.sleep(0.5)
    await control.price("BTCUSDT", 51_000)

    async def noticed() -> Decimal | None:
        trigger = (await system.order("trails")).parent.trigger
        return trigger.price if trigger is not None else None

    async with asyncio.timeout(10):
        while await noticed() != 50_490:
            await asyncio.sleep(0.05)
    first.kill()
    await first.ended()
    await control.price("BTCUSDT", 50_600)
    await system.replica()
    await asyncio.sleep(1.0)
    await control.price("BTCUSDT", 50_480)
    trails = await system.told("trails", "filled")
    assert trails.trigger.price == 50_490
    assert not system.events("stop")[-1].status.terminal
    await control.price("BTCUSDT", 49_480)
    await system.told("stop", "filled")
    await system.told("sliced", "filled")
    traded = [order for order in await at_venue(system, "sliced") if Decimal(order["executedQty"])]
    assert len(traded) == 3
    await system.agrees()


# --- commands -------------------------------------------------------------------------------------------------------------


async def test_a_running_schedule_is_amended_paused_and_cancelled(steady: System) -> None:
    system = steady
    await system.replica()
    params = {"duration_seconds": 60, "slices": 60, "style": "aggressive"}
    for name in ("faster", "more", "held", "off"):
        await system.signal(name, quantity=Decimal("0.6"), algorithm="twap", algorithm_params=params)
    for name in ("faster", "more", "held", "off"):
        await system.told(name, "partially_filled")
    await system.command(
        type="order.amend", signal_id="faster", algorithm_params={"duration_seconds": 6, "slices": 6}, command_id="1"
    )
    await system.command(type="order.amend", signal_id="faster", algorithm_params={"style": "bold"}, command_id="2")
    await system.command(
        type="order.amend",
        signal_id="more",
        quantity=Decimal("0.9"),
        algorithm_params={"duration_seconds": 6, "slices": 6},
        command_id="3",
    )
    await system.command(type="order.pause", signal_id="held", command_id="4")
    await system.command(type="order.cancel", signal_id="off", reason="enough", command_id="5")
    off = await system.told("off", "canceled")
    assert 0 < off.filled_quantity < Decimal("0.1")
    faster = await system.told("faster", "filled")
    assert faster.timestamp - accepted(system, "faster").timestamp < 7_000
    assert any(event.field == "algorithm_params.style" for event in system.events("faster"))
    more = await system.told("more", "filled")
    assert more.filled_quantity == Decimal("0.9")
    held = system.events("held")[-1].filled_quantity
    assert held < Decimal("0.1")
    await system.command(type="order.resume", signal_id="held", command_id="6")
    await until(lambda: system.events("held")[-1].filled_quantity > held)
    await system.command(type="order.cancel", signal_id="held", command_id="7")
    await system.told("held", "canceled")
    await system.agrees()


# --- the venue fails ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["aggressive", "adaptive"])
async def test_market_data_that_ceases_is_waited_for(system: System, style: str) -> None:
    control = system.control()
    await system.replica()
    params = {"duration_seconds": 9, "slices": 12, "style": style}
    await system.signal("s", quantity=Decimal("0.12"), algorithm="twap", algorithm_params=params)
    await system.told("s", "partially_filled")
    for _ in range(3):
        await control.fault("drop_streams")
        await asyncio.sleep(0.7)
    await control.fault("stall_streams", seconds=2.0)
    await ended(system, "s")
    assert system.events("s")[-1].status == "filled"
    await system.agrees()
    if style == "aggressive":
        await never_ahead(system, "s", Decimal("0.01"))
