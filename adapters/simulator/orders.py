"""Orders and trades of the venue."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adapters.simulator.accounts import Account
    from adapters.simulator.symbols import SymbolSpec

ZERO = Decimal(0)


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
