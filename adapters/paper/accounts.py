"""What the paper account holds."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from adapters.base import Balance, InsufficientFunds

ZERO = Decimal(0)


class Account:
    """Free and used amounts per asset. Used: held back for open orders."""

    def __init__(self, balances: Mapping[str, Decimal]) -> None:
        self.free = dict(balances)
        self.used = dict.fromkeys(balances, ZERO)

    def can_lock(self, asset: str, amount: Decimal) -> bool:
        return self.free.get(asset, ZERO) >= amount

    def lock(self, asset: str, amount: Decimal) -> None:
        """Hold an amount back.

        Raises:
            InsufficientFunds: so much is not free.
        """
        free = self.free.get(asset, ZERO)
        if free < amount:
            raise InsufficientFunds(f"{amount:f} {asset} needed, {free:f} free")
        self.free[asset] = free - amount
        self.used[asset] = self.used.get(asset, ZERO) + amount

    def unlock(self, asset: str, amount: Decimal) -> None:
        """Free what was held back."""
        self.free[asset] = self.free.get(asset, ZERO) + amount
        self.used[asset] = self.used.get(asset, ZERO) - amount

    def spend(self, asset: str, amount: Decimal) -> None:
        """Pay out of what was held back."""
        self.used[asset] = self.used.get(asset, ZERO) - amount

    def receive(self, asset: str, amount: Decimal) -> None:
        self.free[asset] = self.free.get(asset, ZERO) + amount

    def balances(self) -> list[Balance]:
        return [Balance(asset=asset, free=self.free[asset], used=self.used.get(asset, ZERO)) for asset in self.free]
