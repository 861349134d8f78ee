"""What the local venue keeps over a restart."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from adapters.simulator import dialect
from adapters.simulator.accounts import Account
from adapters.simulator.engine import Engine
from adapters.simulator.orders import NewOrder
from adapters.simulator.state import restore, save
from tests.system import venue_config

OTHERS = Account("", "")


def engine() -> Engine:
    made = Engine(venue_config().symbols, maker_bps=Decimal(10), taker_bps=Decimal(10), now=lambda: 1_000)
    made.accounts["us"] = Account("us", "secret", {"BTC": Decimal(100), "USDT": Decimal(10_000_000)})
    return made


def order(account: Account, at: Engine, side: str, kind: str = "LIMIT", **more: Any) -> None:
    fields = {"quantity": Decimal(1), "time_in_force": "GTC" if kind.endswith("LIMIT") else None, **more}
    at.place(account, NewOrder(symbol="BTCUSDT", side=side, kind=kind, **fields))


def test_a_restart_changes_nothing_of_an_account(tmp_path: Path) -> None:
    before = engine()
    us = before.accounts["us"]
    order(us, before, "BUY", price=Decimal(49_990), client_order_id="rests")
    order(us, before, "SELL", price=Decimal(50_010), client_order_id="partly", quantity=Decimal(3))
    order(OTHERS, before, "BUY", price=Decimal(50_010))
    order(us, before, "SELL", "STOP_LOSS", stop_price=Decimal(49_900), client_order_id="waits")
    order(us, before, "SELL", "STOP_LOSS", trailing_delta=100, client_order_id="follows")
    order(us, before, "BUY", price=Decimal(49_000), client_order_id="gone")
    before.cancel(us, "BTCUSDT", None, "gone")
    before.mark("BTCUSDT", Decimal(50_040))
    save(before, tmp_path / "state")
    after = engine()
    restore(after, tmp_path / "state")
    kept = after.accounts["us"]
    assert [dialect.order(one) for one in kept.orders.values()] == [dialect.order(one) for one in us.orders.values()]
    assert [one.trades for one in kept.orders.values()] == [one.trades for one in us.orders.values()]
    assert (kept.free, kept.locked) == (us.free, us.locked)
    assert list(kept.open) == list(us.open)
    assert after.markets["BTCUSDT"].last == Decimal(50_040)
    for at in (before, after):
        order(OTHERS, at, "BUY", price=Decimal(50_020), quantity=Decimal(2))
        order(OTHERS, at, "SELL", price=Decimal(49_900), quantity=Decimal(1))
        order(OTHERS, at, "BUY", price=Decimal(49_900), quantity=Decimal(5))
        at.mark("BTCUSDT", Decimal(49_500))
    statuses = {one.client_order_id: one.status for one in kept.orders.values()}
    assert statuses == {one.client_order_id: one.status for one in us.orders.values()}
    assert list(statuses.values()) == ["FILLED"] * 4 + ["CANCELED"]
    assert (kept.free, kept.locked) == (us.free, us.locked)
    numbers = [trade.trade_id for one in kept.orders.values() for trade in one.trades]
    assert len(numbers) == len(set(numbers))


def test_a_state_of_another_venue_is_refused(tmp_path: Path) -> None:
    before = engine()
    before.accounts["them"] = Account("them", "secret", {})
    save(before, tmp_path / "state")
    with pytest.raises(ValueError, match="them"):
        restore(engine(), tmp_path / "state")
