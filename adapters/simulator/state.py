"""What a venue keeps over a restart: its accounts with their orders, trades and balances, and where its numbers and prices stood.

As at an exchange that was down for maintenance: resting orders rest again and stops wait again, while connections, listen keys and what
others had in the books are gone.
"""

from __future__ import annotations

from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from adapters.simulator.accounts import Account
from adapters.simulator.engine import Engine
from adapters.simulator.orders import Order
from adapters.simulator.symbols import SymbolSpec

_HELD_BY_NAME = ("account", "symbol")
_KINDS = {
    name: kind
    for name, kind in get_type_hints(Order, localns={"Account": Account, "SymbolSpec": SymbolSpec}).items()
    if name not in _HELD_BY_NAME
}
_Fields: Any = msgspec.defstruct("_Fields", list(_KINDS.items()))


class _KeptOrder(msgspec.Struct):
    symbol: str
    fields: msgspec.Raw


class _KeptAccount(msgspec.Struct):
    free: dict[str, Decimal]
    locked: dict[str, Decimal]
    orders: list[_KeptOrder]


class _Kept(msgspec.Struct):
    accounts: dict[str, _KeptAccount]
    next_order: int
    next_trades: dict[str, int]
    last: dict[str, Decimal]


def save(engine: Engine, path: Path) -> None:
    """Write down everything that a restart must not lose. The engine takes nothing more after it."""
    kept = _Kept(
        accounts={
            key: _KeptAccount(account.free, account.locked, [_kept(order) for order in account.orders.values()])
            for key, account in engine.accounts.items()
        },
        next_order=next(engine.order_ids),
        next_trades={symbol: next(ids) for symbol, ids in engine.trade_ids.items()},
        last={symbol: market.last for symbol, market in engine.markets.items()},
    )
    written = path.with_suffix(".new")
    written.write_bytes(msgspec.json.encode(kept))
    written.replace(path)


def restore(engine: Engine, path: Path) -> None:
    """Put back what was saved; the engine has its accounts and symbols, and no orders yet.

    Raises:
        ValueError: the file is none of ours, or names accounts or symbols that the venue does not have.
    """
    kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
    if odd := [*(kept.accounts.keys() - engine.accounts.keys()), *(kept.last.keys() - engine.markets.keys())]:
        raise ValueError(f"{path} has {', '.join(sorted(odd))}, which this venue does not have")
    engine.order_ids = count(kept.next_order)
    for symbol, last in kept.last.items():
        engine.trade_ids[symbol] = count(kept.next_trades[symbol])
        engine.markets[symbol].last = engine.markets[symbol].spec.price = last
    for key, saved in kept.accounts.items():
        account = engine.accounts[key]
        account.free, account.locked = saved.free, saved.locked
        for one in saved.orders:
            _put_back(engine, account, one)


def _kept(order: Order) -> _KeptOrder:
    fields = {name: getattr(order, name) for name in _KINDS}
    return _KeptOrder(order.symbol.id, msgspec.Raw(msgspec.json.encode(fields)))


def _put_back(engine: Engine, account: Account, kept: _KeptOrder) -> None:
    market = engine.markets[kept.symbol]
    fields = msgspec.structs.asdict(msgspec.json.decode(kept.fields, type=_Fields))
    order = Order(account=account, symbol=market.spec, **fields)
    account.orders[order.order_id] = order
    account.by_client_id[kept.symbol, order.client_order_id] = order
    if not order.open:
        return
    account.open[order.order_id] = order
    if order.working:
        market.book.side(order).add(order)
    else:
        extreme, since = order.extreme, order.tracking_since
        market.stops.add(order, market.last, order.time)
        if extreme is not None:  # it tracks since before the restart
            order.extreme, order.tracking_since = extreme, since
