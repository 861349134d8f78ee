"""What a paper venue holds by itself, and at which fees."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from schemas.market import MarketRules
from schemas.terms import OrderType


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """The order types that the paper venue takes. The default is all that the model knows."""

    native: tuple[OrderType, ...] = tuple(OrderType)
    iceberg: bool = True


def paper_rules(
    rules: MarketRules, capabilities: Capabilities | None, maker_fee: Decimal | None, taker_fee: Decimal | None
) -> MarketRules:
    """A market's rules as the paper venue has them. None leaves what the market itself says."""
    if capabilities is not None:
        rules = msgspec.structs.replace(rules, native=capabilities.native, native_iceberg=capabilities.iceberg)
    if maker_fee is not None:
        rules = msgspec.structs.replace(rules, maker_fee=maker_fee)
    if taker_fee is not None:
        rules = msgspec.structs.replace(rules, taker_fee=taker_fee)
    return rules
