"""Algorithms and order types from outside, on real servers: what a strategy asks for, what the venue saw, what was told."""

from __future__ import annotations

import asyncio
import csv
import os
import sys
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from adapters.simulator.market import MarketConfig
from adapters.simulator.process import VenueProcess
from execution.ledger import order_key
from schemas.event import OrderEvent
from tests.replica import until
from tests.system import System, venue, venue_config

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]

LIVELY = MarketConfig(seed=7, volatility=0.3, trades=6.0, trade_value=20_000.0)
"""A market with quotes on both sides and takers that come a few times a second."""
STEADY = MarketConfig(volatility=0.0, trades=0.0, permanent_impact=0.0, impact_half_life=0.2)

DUST = Decimal("0.00012")
"""A rest worth less than the venue's least notional; one that rested may be left so by who took most of it."""


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
        assert last.status == "filled", (name, last.reason)
        assert Decimal("0.1") - last.filled_quantity < DUST, (name, last.reason)
        orders = await at_venue(system, name)
        assert executed(orders) == last.filled_quantity, name
        assert last.timestamp - accepted(system, name).timestamp < 9_000, name
        tca = last.tca
        assert not isinstance(tca, msgspec.UnsetType), name
        assert tca.filled == last.filled_quantity
        assert tca.slippage_arrival_bps is not None, name
    slices = await at_venue(system, "aggressive")
    assert len(slices) > 5, "slices, and not all of it at the end"
    assert max(Decimal(order["origQty"]) for order in slices) < Decimal("0.05")


async def test_every_other_algorithm_goes_to_its_end(system: System) -> None:
    first = await system.replica()
    await system.replica()
    wanted = Decimal("0.12")
    params: dict[str, dict[str, Any]] = {
        "iceberg": {"display_quantity": Decimal("0.03"), "price_mode": "pegged", "min_interval_ms": 200},
        "fixed": {"display_quantity": Decimal("0.03")},
        "native": {"display_quantity": Decimal("0.03"), "native": True},
        "peg": {"duration_seconds": 8, "at_end": "cross", "post_only": False},
        "mid": {"reference": "mid", "duration_seconds": 3},
        "sniper": {"trigger_price": 50_400, "max_quantity_per_take": Decimal("0.05"), "lockout_ms": 300},
        "pov": {"participation": Decimal("0.3"), "style": "aggressive", "interval_seconds": 1},
        "follows": {"participation": Decimal("0.3"), "interval_seconds": 1, "duration_seconds": 6},
    }
    algorithm = {"fixed": "iceberg", "native": "iceberg", "mid": "peg", "follows": "pov"}
    for name, given in params.items():
        price = 50_400 if name in ("fixed", "native") else None
        await system.signal(
            name, quantity=wanted, price=price, algorithm=algorithm.get(name, name), algorithm_params=given
        )
    for name in params:
        await until(lambda n=name: system.events(n))  # type: ignore[misc]
        assert accepted(system, name).status == "accepted", accepted(system, name).reason
    await asyncio.sleep(1.5)
    first.kill()
    await ended(system, *params, seconds=60)
    await system.agrees()
    for name in params:
        last = system.events(name)[-1]
        orders = await at_venue(system, name)
        assert executed(orders) == last.filled_quantity, name
        if name not in ("mid", "follows"):
            assert last.status == "filled", (name, last.reason)
            assert wanted - last.filled_quantity < DUST, (name, last.reason)
        else:
            assert last.status in ("filled", "expired"), (name, last.reason)
        if name in ("sniper", "fixed", "iceberg"):
            most = Decimal("0.05") if name == "sniper" else Decimal("0.04")
            assert all(Decimal(order["origQty"]) <= most for order in orders), name
    assert [order["icebergQty"] for order in await at_venue(system, "native")] == ["0.03000000"]


async def test_an_order_over_two_venues(redis_url: str, pubsub_host: str, tmp_path: Path) -> None:
    async with (
        venue() as alpha,
        venue() as beta,
        System(redis_url, pubsub_host, tmp_path, {"alpha": alpha, "beta": beta}) as system,
    ):
        await system.control("alpha").trade("BTCUSDT", "BUY", "1", 49_990)
        await system.control("alpha").trade("BTCUSDT", "SELL", "0.4", 50_000)
        await system.control("alpha").trade("BTCUSDT", "SELL", "9", 50_040)
        await system.control("beta").trade("BTCUSDT", "BUY", "1", 49_980)
        await system.control("beta").trade("BTCUSDT", "SELL", "0.4", 50_010)
        await system.control("beta").trade("BTCUSDT", "SELL", "9", 50_030)
        first = await system.replica()
        await system.signal("warm", exchange="auto", price=40_000, algorithm="smart_router")
        await until(lambda: first.log.read_text().count("market data up") == 2)
        await asyncio.sleep(0.5)
        await system.signal("split", exchange="auto", quantity=1, price=50_050, algorithm="smart_router")
        await system.signal(
            "posts",
            exchange="auto",
            venues=["beta", "alpha"],
            side="sell",
            quantity=Decimal("0.5"),
            price=50_020,
            algorithm="smart_router",
            algorithm_params={"mode": "post"},
        )
        split = await system.told("split", "filled")
        # The best prices first, as far as a book a few hundred ms old is believed; then the cheaper of both second levels.
        shares = [executed(await at_venue(system, "split", name)) for name in ("alpha", "beta")]
        assert sum(shares) == 1
        assert Decimal("0.3") < shares[0] <= Decimal("0.4")
        assert split.average_price is not None
        assert split.average_price < 50_013
        await system.told("posts", "working")
        first.kill()
        await first.ended()
        await system.replica()
        await asyncio.sleep(2.0)
        both = [*await at_venue(system, "posts", "alpha"), *await at_venue(system, "posts", "beta")]
        assert len([order for order in both if order["status"] == "NEW"]) == 1
        for name in ("alpha", "beta"):
            await system.control(name).trade("BTCUSDT", "BUY", "0.5", 50_025)
        await system.told("posts", "filled")
        await system.command(type="order.cancel", signal_id="warm")
        await system.told("warm", "canceled")
        await system.agrees()


async def test_killed_in_mid_schedule_it_goes_on_elsewhere(system: System) -> None:
    replicas = {f"replica-{number}": await system.replica() for number in range(2)}
    params = {"duration_seconds": 7, "slices": 12, "style": "aggressive"}
    for name in ("a", "b", "c"):
        await system.signal(name, quantity=Decimal("0.12"), algorithm="twap", algorithm_params=params)
    for name in ("a", "b", "c"):
        await system.told(name, "partially_filled")
    owner = system.events("a")[-1].instance_id
    await asyncio.sleep(1.0)
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
    params = {"duration_seconds": 7, "slices": 12}
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
        last = system.events(style)[-1]
        assert last.status == "filled", style
        assert Decimal("0.12") - last.filled_quantity < DUST, (style, last.reason)
        assert executed(await at_venue(system, style)) == last.filled_quantity


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
    params = {"duration_seconds": 6, "slices": 16, "style": "aggressive"}
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
        for holder in ("service", "venue"):  # the first one comes to a market that nobody follows yet
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
    async with asyncio.timeout(20):
        while system.events("trails")[-1].status != "filled":
            # A trigger on the last price sees what trades after the service is back.
            await control.price("BTCUSDT", 50_480)
            await asyncio.sleep(0.3)
    trails = system.events("trails")[-1]
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


async def test_market_data_that_ceases_is_waited_for(system: System) -> None:
    control = system.control()
    await system.replica()
    params = {"duration_seconds": 8, "slices": 12}
    for style in ("aggressive", "adaptive"):
        await system.signal(
            style, quantity=Decimal("0.12"), algorithm="twap", algorithm_params={**params, "style": style}
        )
    await system.told("aggressive", "partially_filled")
    for _ in range(3):
        await control.fault("drop_streams")
        await asyncio.sleep(0.5)
    await control.fault("stall_streams", seconds=2.0)
    await ended(system, "aggressive", "adaptive")
    for style in ("aggressive", "adaptive"):
        assert system.events(style)[-1].status == "filled", system.events(style)[-1].reason
    await system.agrees()
    await never_ahead(system, "aggressive", Decimal("0.01"))


async def test_a_venue_that_restarts_in_mid_schedule(redis_url: str, pubsub_host: str, tmp_path: Path) -> None:
    """It forgets its orders, as no real venue does; what was traded before stays traded, and the schedule goes on."""
    alpha = await VenueProcess.start(venue_config(market=LIVELY))
    port = int(alpha.url.rpartition(":")[2])
    async with System(redis_url, pubsub_host, tmp_path, {"alpha": alpha}) as system:
        await system.replica()
        params = {"duration_seconds": 8, "slices": 12}
        for style in ("aggressive", "adaptive"):
            await system.signal(
                style, quantity=Decimal("0.12"), algorithm="twap", algorithm_params={**params, "style": style}
            )
        await system.told("aggressive", "partially_filled")
        await asyncio.sleep(1.5)
        alpha.kill()
        await asyncio.sleep(1.5)
        async with await VenueProcess.start(venue_config(market=LIVELY, port=port)):
            await ended(system, "aggressive", "adaptive")
            for style in ("aggressive", "adaptive"):
                last = system.events(style)[-1]
                record = await system.order(style)
                assert last.status == "filled", (style, last.reason)
                assert Decimal("0.12") - last.filled_quantity < DUST, (style, last.reason)
                assert sum(fill.quantity for fill in record.fills) == last.filled_quantity
            await never_ahead(system, "aggressive", Decimal("0.01"))
    await alpha.stop()


# --- what it cost ---------------------------------------------------------------------------------------------------------


async def test_the_cost_report_is_written_as_a_page_and_a_table(system: System, tmp_path: Path) -> None:
    await system.replica()
    params = {"duration_seconds": 3, "slices": 6}
    await system.signal(
        "twap", quantity=Decimal("0.12"), algorithm="twap", algorithm_params=params, decision_price=49_950
    )
    await system.signal("market", side="sell", decision_price=50_000)
    await ended(system, "twap", "market")
    told = {name: system.events(name)[-1].tca for name in ("twap", "market")}
    twap = told["twap"]
    assert not isinstance(twap, msgspec.UnsetType)
    assert twap.basis == "decision"
    assert twap.total_bps is not None
    parts = (twap.delay_bps, twap.execution_bps, twap.opportunity_bps, twap.fees_bps)
    assert sum(part for part in parts if part is not None) == pytest.approx(twap.total_bps, abs=Decimal("0.001"))
    page, table = tmp_path / "report.html", tmp_path / "report.csv"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "execution.cli",
        "report",
        "--out",
        str(page),
        "--csv",
        str(table),
        env={"PATH": os.environ["PATH"], "REDIS_URL": system.redis_url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    rows = {row["signal_id"]: row for row in csv.DictReader(table.read_text().splitlines())}
    assert rows.keys() == {"twap", "market"}
    for name, row in rows.items():
        tca = told[name]
        assert not isinstance(tca, msgspec.UnsetType)
        assert Decimal(row["filled"]) == tca.filled
        assert Decimal(row["total_bps"]) == tca.total_bps
        assert Decimal(row["average_price"]) == tca.average_price
    html = page.read_text()
    assert all(event.order_id in html for event in (accepted(system, "twap"), accepted(system, "market")))
