"""Accounts: an API key with its secret, balances, and orders."""

from __future__ import annotations

from collections import OrderedDict
from decimal import Decimal
from typing import TYPE_CHECKING

from adapters.simulator.errors import INSUFFICIENT, rejected

if TYPE_CHECKING:
    from adapters.simulator.orders import Order

ZERO = Decimal(0)


class Account:
    """Who trades. The market's own participants have no key and no end of money."""

    def __init__(self, key: str, secret: str, balances: dict[str, Decimal] | None = None) -> None:
        self.key = key
        self.secret = secret
        self.unlimited = balances is None
        self.free: dict[str, Decimal] = dict(balances or {})
        self.locked: dict[str, Decimal] = {}
        self.orders: dict[int, Order] = {}
        self.by_client_id: dict[tuple[str, str], Order] = {}
        """The latest order of a client id, by symbol."""
        self.open: OrderedDict[int, Order] = OrderedDict()

    def lock(self, asset: str, amount: Decimal) -> None:
        """Hold an amount back.

        Raises:
            VenueError: -2010, it is not there.
        """
        if self.unlimited:
            return
        if self.free.get(asset, ZERO) < amount:
            raise rejected(INSUFFICIENT)
        self.free[asset] = self.free.get(asset, ZERO) - amount
        self.locked[asset] = self.locked.get(asset, ZERO) + amount

    def unlock(self, asset: str, amount: Decimal) -> None:
        if not self.unlimited and amount:
            self.locked[asset] -= amount
            self.free[asset] = self.free.get(asset, ZERO) + amount

    def pay(self, asset: str, amount: Decimal) -> None:
        """Give away an amount that was held back."""
        if not self.unlimited:
            self.locked[asset] -= amount

    def receive(self, asset: str, amount: Decimal) -> None:
        if not self.unlimited:
            self.free[asset] = self.free.get(asset, ZERO) + amount
