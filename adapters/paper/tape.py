"""What others traded since the book was shown: what that leaves of it is known once a new book shows it."""

from __future__ import annotations

from decimal import Decimal

from schemas.market import PublicTrade
from schemas.terms import Side

ZERO = Decimal(0)


class Tape:
    """The trades since the last book. Of each side's takers only the latest price counts: they would have traded at a better one."""

    __slots__ = ("_at_last", "_bought", "_last", "_sold")

    def __init__(self) -> None:
        self._last: Decimal | None = None
        self._at_last = ZERO
        """The quantity of the trades in a row at the last price."""
        self._bought: Decimal | None = None
        self._sold: Decimal | None = None

    def clear(self) -> None:
        """A new book is shown."""
        if self._last is not None:
            self._last = self._bought = self._sold = None

    def add(self, trade: PublicTrade) -> None:
        price, side = trade.price, trade.side
        if price == self._last:
            self._at_last += trade.quantity
        else:
            self._last, self._at_last = price, trade.quantity
        if side is Side.BUY:
            self._bought = price
        elif side is Side.SELL:
            self._sold = price

    def front(self, best: Decimal, *, buys: bool) -> Decimal:
        """The best price that a taker of a side can hope for, of a book that shows `best`.

        Nothing better than the price of the last trade is left, whoever was its taker: a seller who trades at a price has found
        no bid above it, and an ask below would have been met by that bid. Nor is what takers of its own side went through.
        """
        last, own = self._last, self._bought if buys else self._sold
        if last is not None and (last > best if buys else last < best):
            best = last
        if own is not None and (own > best if buys else own < best):
            best = own
        return best

    def has_used_up(self, price: Decimal, quantity: Decimal) -> bool:
        """Whether the last trades were at a price, and for no less than a quantity."""
        return price == self._last and self._at_last >= quantity
