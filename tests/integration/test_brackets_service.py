"""Brackets from outside, on real servers: what was opened is protected, whatever happens to the service or at the venue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from adapters.simulator.market import MarketConfig
from adapters.simulator.symbols import SymbolSpec
from execution.ledger import order_key
from schemas.event import OrderEvent
from tests.replica import until
from tests.system import System, venue

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]

STEADY = MarketConfig(volatility=0.0, trades=0.0, permanent_impact=0.0, impact_half_life=0.2)
"""Quotes a basis point off 50 000 on either side, which stay until a test moves the price."""
LONG = {"quantity": Decimal("0.1"), "take_profit": 51_000, "stop_loss": 49_000}
ARRIVED = Decimal("0.0999")
"""What a buy of 0.1 brings: its fee is paid in the base asset."""
SYMBOL = "BTCUSDT"


@pytest.fixture
async def system(redis_url: str, pubsub_host: str, tmp_path: Path) -> AsyncIterator[System]:
    async with venue(market=STEADY) as alpha, System(redis_url, pubsub_host, tmp_path, {"alpha": alpha}) as started:
        yield started


@pytest.fixture
async def still(redis_url: str, pubsub_host: str, tmp_path: Path) -> AsyncIterator[System]:
    """A venue where nothing happens but what the test does: 49 750 bid, 50 250 asked, for 5 each."""
    async with venue() as alpha, System(redis_url, pubsub_host, tmp_path, {"alpha": alpha}) as started:
        await started.liquidity("5")
        yield started


@pytest.fixture
async def poor(redis_url: str, pubsub_host: str, tmp_path: Path) -> AsyncIterator[System]:
    """A venue that has no stop orders."""
    spec = SymbolSpec(
        base="BTC",
        quote="USDT",
        price=Decimal(50_000),
        order_types=("LIMIT", "LIMIT_MAKER", "MARKET"),
        trailing=False,
    )
    async with (
        venue(market=STEADY, symbols=[spec]) as alpha,
        System(redis_url, pubsub_host, tmp_path, {"alpha": alpha}) as started,
    ):
        yield started


async def at_venue(system: System, signal_id: str, *, live: bool = False) -> list[dict[str, Any]]:
    """The venue's own record of a signal's orders, in their order; `live`: those that may still fill."""
    record = await system.control().record()
    key = order_key(signal_id)
    found = [order for order in record["orders"] if order["clientOrderId"].startswith(key)]
    if live:
        found = [order for order in found if order["status"] in ("NEW", "PARTIALLY_FILLED")]
    return sorted(found, key=lambda order: int(order["orderId"]))


async def resting(
    system: System, signal_id: str, fits: Callable[[dict[str, Any]], bool] = lambda _: True, seconds: float = 15.0
) -> dict[str, Any]:
    """The one order of a signal at the venue, once it is as asked."""
    found: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(seconds):
            while True:
                found = await at_venue(system, signal_id, live=True)
                assert len(found) <= 1, found
                if found and fits(found[0]):
                    return found[0]
                await asyncio.sleep(0.02)
    except TimeoutError:
        told = [(event.event_type.value, event.reason, event.child) for event in system.events(signal_id)]
        logs = "\n".join(replica.words() for replica in system.replicas)
        raise AssertionError(f"at the venue: {found}\n{told[-6:]}\n{logs}") from None


def stops(order: dict[str, Any]) -> bool:
    return bool(order["type"] in ("STOP_LOSS", "STOP_LOSS_LIMIT"))


def profits(order: dict[str, Any]) -> bool:
    return bool(order["type"] in ("LIMIT", "LIMIT_MAKER"))


def of(quantity: str) -> Callable[[dict[str, Any]], bool]:
    return lambda order: stops(order) and Decimal(order["origQty"]) == Decimal(quantity)


async def closed(system: System, signal_id: str) -> OrderEvent:
    """The event that tells that the position is closed."""

    def found() -> list[OrderEvent]:
        return [event for event in system.events(signal_id) if event.event_type == "trade.closed"]

    try:
        await until(found, 20)
    except TimeoutError:
        told = [(event.event_type.value, event.reason, event.child) for event in system.events(signal_id)]
        logs = "\n".join(replica.words() for replica in system.replicas)
        raise AssertionError(f"{told[-6:]}\n{logs}") from None
    return found()[0]


async def adds_up(system: System, signal_id: str) -> None:
    """The profit told is what the venue's own trades say, and nothing of the position is left but dust and fees."""
    told = await closed(system, signal_id)
    await system.agrees()
    record = await system.control().record()
    key = order_key(signal_id)
    cash = base = last = Decimal(0)
    for trade in record["trades"]:
        if not trade["clientOrderId"].startswith(key):
            continue
        way, last = 1 if trade["isBuyer"] else -1, Decimal(trade["price"])
        cash -= way * Decimal(trade["quoteQty"])
        base += way * Decimal(trade["qty"])
        fee = Decimal(trade["commission"])
        if trade["commissionAsset"] == "BTC":
            base -= fee
        else:
            cash -= fee
    # What a short bought back paid its fee in the base asset: that much is missing, and counted.
    assert abs(base) < Decimal("0.00002") if told.side == "buy" else abs(base) <= Decimal("0.0001")
    assert told.realized_pnl == pytest.approx(cash + base * last, abs=Decimal("0.5"))


# --- as it should be ------------------------------------------------------------------------------------------------------


async def test_the_take_profit_is_reached(system: System) -> None:
    await system.replica()
    await system.signal("s", **LONG)
    stop = await resting(system, "s", stops)
    assert Decimal(stop["origQty"]) == ARRIVED
    assert Decimal(stop["stopPrice"]) == 49_000
    await until(lambda: len(system.events("s")) >= 4)
    assert [event.event_type.value for event in system.events("s")][:4] == [
        "order.accepted",
        "order.placed",
        "order.filled",
        "trade.opened",
    ]
    assert any("stop-loss is held by the venue" in note for note in system.events("s")[0].notes)
    await system.control().price(SYMBOL, 50_900)
    profit = await resting(system, "s", profits)
    assert (Decimal(profit["origQty"]), Decimal(profit["price"])) == (ARRIVED, 51_000)
    await system.control().price(SYMBOL, 50_400)
    await resting(system, "s", stops)
    await system.control().price(SYMBOL, 50_950)
    await resting(system, "s", profits)
    await system.control().price(SYMBOL, 51_010)
    told = await closed(system, "s")
    assert told.realized_pnl is not None
    assert 80 < told.realized_pnl < 100
    assert told.status == "filled"
    assert told.filled_quantity == Decimal("0.1")
    await adds_up(system, "s")


async def test_the_stop_loss_is_reached(system: System) -> None:
    await system.replica()
    await system.signal("long", **LONG)
    await system.signal("short", side="sell", quantity=Decimal("0.1"), take_profit=49_000, stop_loss=51_000)
    await system.signal("only", quantity=Decimal("0.1"), stop_loss=49_500)
    await system.signal("hope", quantity=Decimal("0.1"), take_profit=52_500)
    for name in ("long", "short", "only"):
        await resting(system, name, stops)
    await resting(system, "hope", profits)
    await system.control().price(SYMBOL, 49_490)
    assert (await closed(system, "only")).realized_pnl < -50
    await system.control().price(SYMBOL, 48_990)
    assert (await closed(system, "long")).realized_pnl < -100
    assert (await closed(system, "short")).realized_pnl > 80
    await system.command(type="order.cancel", signal_id="hope", reason="enough")
    await until(lambda: "exits ended" in str(system.events("hope")[-1].reason))
    assert not await at_venue(system, "hope", live=True)
    assert system.events("hope")[-1].status == "filled"
    for name in ("long", "short", "only"):
        await adds_up(system, name)


async def test_an_entry_in_parts_is_protected_as_it_grows(still: System) -> None:
    system, control = still, still.control()
    await system.replica()
    await system.signal("s", price=49_900, **LONG)
    await system.told("s", "working")
    assert len(await at_venue(system, "s", live=True)) == 1
    for quantity, arrived in (("0.02", "0.01998"), ("0.03", "0.04995"), ("0.05", "0.0999")):
        await control.trade(SYMBOL, "SELL", quantity, 49_900)
        await resting_exit(system, "s", arrived)
    filled = await system.told("s", "filled")
    assert filled.average_price == 49_900
    await control.trade(SYMBOL, "BUY", "10", 50_950)
    await resting(system, "s", profits)
    await control.trade(SYMBOL, "BUY", "1", 51_000)
    await adds_up(system, "s")


async def test_a_sliced_entry_has_a_bracket(system: System) -> None:
    await system.replica()
    params = {"duration_seconds": 4, "slices": 4, "style": "aggressive"}
    await system.signal("s", algorithm="twap", algorithm_params=params, **LONG)
    await resting_exit(system, "s", "0.02497")
    await system.told("s", "filled")
    await resting(system, "s", of("0.0999"))
    await system.control().price(SYMBOL, 48_900)
    await adds_up(system, "s")


async def resting_exit(system: System, signal_id: str, quantity: str) -> None:
    """Wait until the exit at the venue, beside what remains of the entry, is a stop of a quantity."""
    deadline = time.monotonic() + 15
    while True:
        live = await at_venue(system, signal_id, live=True)
        if [Decimal(order["origQty"]) for order in live if stops(order)] == [Decimal(quantity)]:
            return
        told = [(event.event_type.value, event.reason, event.child) for event in system.events(signal_id)]
        assert time.monotonic() < deadline, f"{live}\n{told[-5:]}"
        await asyncio.sleep(0.02)


# --- the service dies, the venue interferes -------------------------------------------------------------------------------


async def test_killed_while_protected(system: System) -> None:
    first = await system.replica()
    for name in ("kept", "gone", "passed", "profits"):
        await system.signal(name, **{**LONG, "stop_loss": 48_000 if name == "passed" else 49_000})
    before = {name: await resting(system, name, stops) for name in ("kept", "gone", "passed", "profits")}
    first.kill()
    await first.ended()
    await by_hand(system, before["gone"])
    await by_hand(system, before["passed"])
    second = await system.replica()
    await resting(system, "gone", of("0.0999"))
    await resting(system, "passed", of("0.0999"))
    assert (await resting(system, "kept"))["orderId"] == before["kept"]["orderId"]
    second.kill()
    await second.ended()
    await system.control().price(SYMBOL, 48_950)
    await system.replica()
    for name in ("kept", "gone", "profits"):
        await adds_up_later(system, name)
    await resting(system, "passed", of("0.0999"))
    await system.control().price(SYMBOL, 51_005)
    await closed(system, "passed")
    for name in before:
        await adds_up(system, name)


async def adds_up_later(system: System, signal_id: str) -> None:
    assert (await closed(system, signal_id)).realized_pnl < -80


async def by_hand(system: System, order: dict[str, Any]) -> None:
    """Cancel an order at the venue as somebody else with the same key does."""
    import ccxt.async_support as ccxt

    exchange = ccxt.binance(
        {"apiKey": "local", "secret": "local-secret", "options": {"fetchMarkets": {"types": ["spot"]}}}
    )
    base = system.venues["alpha"].url
    exchange.urls["api"] = {
        name: url.replace("https://api.binance.com", base)
        for name, url in exchange.urls["api"].items()
        if isinstance(url, str)
    }
    try:
        await exchange.private_delete_order({"symbol": SYMBOL, "orderId": order["orderId"]})
    finally:
        await exchange.close()


async def test_an_exit_cancelled_by_hand_is_placed_again(system: System) -> None:
    await system.replica()
    await system.signal("s", **LONG)
    stop = await resting(system, "s", stops)
    await by_hand(system, stop)
    again = await resting(system, "s", lambda order: stops(order) and order["orderId"] != stop["orderId"])
    await by_hand(system, again)
    await resting(system, "s", lambda order: stops(order) and order["orderId"] > again["orderId"])
    await system.control().price(SYMBOL, 50_950)
    profit = await resting(system, "s", profits)
    await by_hand(system, profit)
    await resting(system, "s", lambda order: profits(order) and order["orderId"] != profit["orderId"])
    await system.control().price(SYMBOL, 51_005)
    await adds_up(system, "s")


async def test_a_cancel_of_the_protected_order_takes_the_exits_off(still: System) -> None:
    system = still
    await system.replica()
    await system.signal("s", **LONG)
    await resting(system, "s", stops)
    await system.signal("parts", price=49_900, **LONG)
    await system.told("parts", "working")
    await system.control().trade(SYMBOL, "SELL", "0.04", 49_900)
    await resting_exit(system, "parts", "0.03996")
    for name in ("s", "parts"):
        await system.command(type="order.cancel", signal_id=name, reason="enough", command_id=name)
    await until(lambda: "exits ended" in str(system.events("s")[-1].reason))
    assert not await at_venue(system, "s", live=True)
    assert (await system.told("parts", "canceled")).filled_quantity == Decimal("0.04")
    # The rest of the entry is off; what came of it is still protected, until that is cancelled too.
    await resting(system, "parts", of("0.03996"))
    await system.command(type="order.cancel", signal_id="parts", reason="all of it", command_id="again")
    await until(lambda: "exits ended" in str(system.events("parts")[-1].reason))
    assert not await at_venue(system, "parts", live=True)
    await system.agrees()


# --- what a venue cannot, and what is refused -----------------------------------------------------------------------------


async def test_a_venue_without_stops_is_watched(poor: System) -> None:
    system = poor
    first = await system.replica()
    await system.signal("long", **LONG)
    await system.signal("profits", **LONG)
    await system.signal("naked", quantity=Decimal("0.1"), stop_loss=49_000)
    for name in ("long", "profits"):
        profit = await resting(system, name, profits)
        assert Decimal(profit["price"]) == 51_000
        accepted = await system.told(name, "accepted")
        assert any("held by the service" in note for note in accepted.notes)
    await system.told("naked", "filled")
    await system.signal("stop", side="sell", order_type="stop", stop_price=49_000, quantity=Decimal("0.1"))
    venue_held = {"trigger_at": "venue"}
    await system.signal("no", side="sell", order_type="stop", stop_price=49_000, algorithm_params=venue_held)
    assert (await system.told("no", "rejected")).field == "algorithm_params.trigger_at"
    assert (await system.told("stop", "accepted")).trigger.held_by == "service"
    first.kill()
    await first.ended()
    await system.replica()
    await asyncio.sleep(1.0)
    await system.control().price(SYMBOL, 48_980)
    for name in ("long", "naked"):
        assert (await closed(system, name)).realized_pnl < -80
    await system.told("stop", "filled")
    for name in ("long", "profits", "naked"):
        await adds_up(system, name)


async def test_a_bracket_too_close_is_moved_or_refused(system: System) -> None:
    replica = await system.replica(BRACKET_DISTANCE_BPS="20")
    await system.signal("moved", price=49_900, quantity=Decimal("0.1"), take_profit=49_910, stop_loss=49_890)
    told = (await system.told("moved", "accepted")).notes
    assert any(note.startswith("take_profit moved from 49910 to 49999.8") for note in told), told
    assert any(note.startswith("stop_loss moved from 49890 to 49800.2") for note in told), told
    await system.signal("wrong", price=49_900, quantity=Decimal("0.1"), take_profit=49_800, stop_loss=49_000)
    assert (await system.told("wrong", "rejected")).field == "take_profit"
    await system.signal("crossed", side="sell", price=50_100, quantity=Decimal("0.1"), stop_loss=50_000)
    assert (await system.told("crossed", "rejected")).field == "stop_loss"
    await system.command(type="order.cancel", signal_id="moved")
    await system.told("moved", "canceled")
    assert await replica.stop() == 0
    await system.replica(BRACKET_DISTANCE_BPS="20", BRACKET_POLICY="reject")
    await system.signal("refused", price=49_900, quantity=Decimal("0.1"), take_profit=49_910, stop_loss=49_000)
    refused = await system.told("refused", "rejected")
    assert refused.field == "take_profit"
    assert "closer" in str(refused.reason)
    await system.agrees()
