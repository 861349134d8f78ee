"""The venue's engine over random orders: priority is kept, money is conserved, nothing goes below zero."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.simulator.accounts import Account
from adapters.simulator.engine import Engine, NewOrder
from adapters.simulator.errors import VenueError
from adapters.simulator.orders import ZERO
from tests.system import venue_config

RICH = Decimal(1_000_000)
FEE = Decimal(10)


def engine_with(count: int) -> tuple[Engine, list[Account]]:
    engine = Engine(venue_config().symbols, maker_bps=FEE, taker_bps=FEE, now=lambda: 0)
    accounts = [Account(f"k{n}", "s", {"BTC": RICH, "USDT": RICH}) for n in range(count)]
    for account in accounts:
        engine.accounts[account.key] = account
    return engine, accounts


order = st.tuples(
    st.integers(0, 2),
    st.sampled_from(["BUY", "SELL"]),
    st.sampled_from(["LIMIT", "LIMIT", "LIMIT", "MARKET", "LIMIT_MAKER", "STOP_LOSS_LIMIT"]),
    st.integers(1, 50),
    st.integers(-20, 20),
    st.sampled_from(["GTC", "GTC", "IOC", "FOK"]),
    st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(order, min_size=1, max_size=40))
def test_money_is_conserved_and_never_negative(orders: list[tuple[int, str, str, int, int, str, bool]]) -> None:
    engine, accounts = engine_with(3)
    fees = {"BTC": ZERO, "USDT": ZERO}
    for who, side, kind, quantity, offset, in_force, cancel in orders:
        price = Decimal(50_000 + offset * 10)
        try:
            placed = engine.place(
                accounts[who],
                NewOrder(
                    symbol="BTCUSDT",
                    side=side,
                    kind=kind,
                    quantity=Decimal(quantity) / 1000,
                    price=None if kind == "MARKET" else price,
                    stop_price=price if kind == "STOP_LOSS_LIMIT" else None,
                    time_in_force=None if kind in ("MARKET", "LIMIT_MAKER") else in_force,
                ),
            )
            if cancel and placed.open:
                engine.cancel(accounts[who], "BTCUSDT", placed.order_id, None)
        except VenueError:
            pass
        book = engine.market("BTCUSDT").book
        bid, ask = book.bids.best_price, book.asks.best_price
        assert bid is None or ask is None or bid < ask, "a crossed book"
        for account in accounts:
            assert min([*account.free.values(), *account.locked.values(), ZERO]) >= 0
            for one in account.orders.values():
                assert one.filled == sum((trade.quantity for trade in one.trades), ZERO) <= one.quantity
    for account in accounts:
        for one in list(account.open.values()):
            engine.cancel(account, "BTCUSDT", one.order_id, None)
        assert all(amount == 0 for amount in account.locked.values()), "something stays locked with nothing open"
        for one in account.orders.values():
            for trade in one.trades:
                fees[trade.fee_asset] += trade.fee
    for asset in ("BTC", "USDT"):
        assert sum((account.free[asset] for account in accounts), ZERO) + fees[asset] == RICH * 3


def test_the_best_price_comes_first_and_then_who_came_first() -> None:
    engine, (first, second, taker) = engine_with(3)

    def rest(account: Account, price: int) -> int:
        new = NewOrder(
            symbol="BTCUSDT", side="SELL", kind="LIMIT", quantity=Decimal(1), price=Decimal(price), time_in_force="GTC"
        )
        return engine.place(account, new).order_id

    early, later = rest(first, 50_010), rest(second, 50_010)
    late_but_better = rest(second, 50_000)
    engine.place(taker, NewOrder(symbol="BTCUSDT", side="BUY", kind="MARKET", quantity=Decimal("2.5")))
    assert second.orders[late_but_better].status == "FILLED"
    assert first.orders[early].status == "FILLED"
    assert second.orders[later].filled == Decimal("0.5")
