"""The words of the trade, as FIX and the execution literature use them."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum


class Side(StrEnum):
    BUY = "buy"
    SELL = "sell"

    @property
    def sign(self) -> int:
        """+1 for a buy, -1 for a sell."""
        return 1 if self is Side.BUY else -1

    @property
    def opposite(self) -> Side:
        return Side.SELL if self is Side.BUY else Side.BUY


class OrderType(StrEnum):
    MARKET = "market"
    LIMIT = "limit"
    STOP = "stop"
    STOP_LIMIT = "stop_limit"
    TAKE_PROFIT = "take_profit"
    TAKE_PROFIT_LIMIT = "take_profit_limit"
    TRAILING_STOP = "trailing_stop"

    @property
    def has_limit_price(self) -> bool:
        return self in (OrderType.LIMIT, OrderType.STOP_LIMIT, OrderType.TAKE_PROFIT_LIMIT)

    @property
    def has_trigger(self) -> bool:
        return self in (
            OrderType.STOP,
            OrderType.STOP_LIMIT,
            OrderType.TAKE_PROFIT,
            OrderType.TAKE_PROFIT_LIMIT,
        )


class TimeInForce(StrEnum):
    """How long an order may work: until cancelled, at once in part, at once in full, until a date, or only as a maker."""

    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"
    GTD = "GTD"
    PO = "PO"


MAX_DIGITS = 28
"""Digits allowed before, and after, the decimal point of a price or quantity. The ledger's own sums are exact to that."""


def fits(number: Decimal) -> bool:
    """Whether a finite number stays within `MAX_DIGITS` on both sides of the point, trailing zeros not counted."""
    if not number.is_finite():
        return False
    if number == 0:
        return True
    if not -200 < number.adjusted() < 200:
        return False
    _, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    stripped = len(digits)
    while exponent < 0 and stripped > 1 and digits[stripped - 1] == 0:
        stripped -= 1
        exponent += 1
    return number.adjusted() < MAX_DIGITS and -exponent <= MAX_DIGITS
