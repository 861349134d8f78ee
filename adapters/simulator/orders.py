"""Requests to place, orders, and trades of the venue."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from adapters.simulator.accounts import Account
    from adapters.simulator.symbols import SymbolSpec

ZERO = Decimal(0)


class NewOrder(msgspec.Struct, kw_only=True):
    """A request to place."""

    symbol: str
    side: str
    kind: str
    quantity: Decimal | None = None
    quote_quantity: Decimal | None = None
    price: Decimal | None = None
    stop_price: Decimal | None = None
    trailing_delta: int | None = None
    iceberg: Decimal | None = None
    time_in_force: str | None = None
    client_order_id: str | None = None


class PublicTrade(msgspec.Struct):
    """A trade as everybody sees it."""

    trade_id: int
    price: Decimal
    quantity: Decimal
    time: int
    buyer_is_maker: bool


@dataclass(slots=True)
class Trade:
    """One side of a trade, as its owner sees it."""

    trade_id: int
    price: Decimal
    quantity: Decimal
    fee: Decimal
    fee_asset: str
    maker: bool
    time: int

    @property
    def notional(self) -> Decimal:
        return self.price * self.quantity


@dataclass(slots=True, eq=False)
class Order:
    order_id: int
    client_order_id: str
    account: Account
    symbol: SymbolSpec
    side: str
    kind: str
    time_in_force: str
    quantity: Decimal
    price: Decimal
    """Zero for a market order."""
    stop_price: Decimal
    quote_quantity: Decimal
    """What a market order by quote amount may spend; zero otherwise."""
    time: int
    updated: int
    iceberg: Decimal = ZERO
    """What the book shows of it at a time; zero: all."""
    display: Decimal = ZERO
    """Of an iceberg: what is left of the part now shown."""
    trailing_delta: int = 0
    """Distance of a trailing stop from the best price since it tracks, in bips; zero: the stop price stands."""
    extreme: Decimal | None = None
    """Best price since a trailing stop tracks; None: it does not yet."""
    tracking_since: int = 0
    """When a trailing stop began to track, in ms since the epoch; zero: not yet."""
    working_since: int = 0
    """When it began to work on the book, in ms since the epoch; zero: not yet."""
    status: str = "NEW"
    filled: Decimal = ZERO
    notional: Decimal = ZERO
    locked: Decimal = ZERO
    """What is still held back of the account for it."""
    working: bool = True
    """False while a stop waits for its trigger."""
    cancel_id: str = ""
    """The client id of the request that cancelled it."""
    trades: list[Trade] = field(default_factory=list)

    @property
    def buys(self) -> bool:
        return self.side == "BUY"

    @property
    def open(self) -> bool:
        return self.status in ("NEW", "PARTIALLY_FILLED")

    @property
    def rest(self) -> Decimal:
        return self.quantity - self.filled

    @property
    def shown(self) -> Decimal:
        """What the book shows of it."""
        return self.display if self.iceberg else self.quantity - self.filled
