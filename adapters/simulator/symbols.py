"""What can be traded, and the filters that an order must pass."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from adapters.simulator.errors import filter_failure

ORDER_TYPES = (
    "LIMIT",
    "LIMIT_MAKER",
    "MARKET",
    "STOP_LOSS",
    "STOP_LOSS_LIMIT",
    "TAKE_PROFIT",
    "TAKE_PROFIT_LIMIT",
)
ICEBERG_PARTS = 10
TRAILING_DELTA = (10, 2000)
"""Bounds of a trailing stop's distance, in bips."""


class SymbolSpec(msgspec.Struct, kw_only=True):
    """One symbol: `BTC`/`USDT`, its steps and bounds."""

    base: str
    quote: str
    price: Decimal
    """Where the synthetic market starts."""
    tick: Decimal = Decimal("0.01")
    lot: Decimal = Decimal("0.00001")
    min_quantity: Decimal = Decimal("0.00001")
    max_quantity: Decimal = Decimal(9000)
    min_notional: Decimal = Decimal(5)
    price_band: Decimal = Decimal(5)
    """A limit price may be this many times away from the market, or this fraction of it."""
    max_orders: int = 200
    halted: bool = False
    order_types: tuple[str, ...] = ORDER_TYPES
    """What may be sent as `type`; fewer than all play a venue that has no stops of its own."""
    iceberg: bool = True
    trailing: bool = True

    @property
    def id(self) -> str:
        return self.base + self.quote

    @property
    def trailing_allowed(self) -> bool:
        return self.trailing and any(kind.startswith(("STOP_LOSS", "TAKE_PROFIT")) for kind in self.order_types)

    def check(
        self, quantity: Decimal, price: Decimal | None, market: Decimal, open_orders: int, *, small: bool = False
    ) -> None:
        """Raise what Binance answers to an order that its filters refuse; `small`: the least notional does not matter.

        Raises:
            VenueError: -1013 with the filter's name.
        """
        if price is not None:
            if price < self.tick or price % self.tick:
                raise filter_failure("PRICE_FILTER")
            if price > market * self.price_band or price < market / self.price_band:
                raise filter_failure("PERCENT_PRICE_BY_SIDE")
        if not self.min_quantity <= quantity <= self.max_quantity or quantity % self.lot:
            raise filter_failure("LOT_SIZE")
        if not small and quantity * (price if price is not None else market) < self.min_notional:
            raise filter_failure("NOTIONAL")
        if open_orders >= self.max_orders:
            raise filter_failure("MAX_NUM_ORDERS")

    def info(self) -> dict[str, Any]:
        """The symbol as `exchangeInfo` tells it."""
        band = f"{self.price_band:f}"
        inverse = f"{1 / self.price_band:.8f}"
        return {
            "symbol": self.id,
            "status": "BREAK" if self.halted else "TRADING",
            "baseAsset": self.base,
            "baseAssetPrecision": 8,
            "quoteAsset": self.quote,
            "quotePrecision": 8,
            "quoteAssetPrecision": 8,
            "baseCommissionPrecision": 8,
            "quoteCommissionPrecision": 8,
            "orderTypes": list(self.order_types),
            "icebergAllowed": self.iceberg,
            "ocoAllowed": False,
            "otoAllowed": False,
            "quoteOrderQtyMarketAllowed": True,
            "allowTrailingStop": self.trailing_allowed,
            "cancelReplaceAllowed": True,
            "amendAllowed": False,
            "isSpotTradingAllowed": True,
            "isMarginTradingAllowed": False,
            "filters": [
                {
                    "filterType": "PRICE_FILTER",
                    "minPrice": text(self.tick),
                    "maxPrice": text(Decimal(100_000_000)),
                    "tickSize": text(self.tick),
                },
                {
                    "filterType": "LOT_SIZE",
                    "minQty": text(self.min_quantity),
                    "maxQty": text(self.max_quantity),
                    "stepSize": text(self.lot),
                },
                {
                    "filterType": "MARKET_LOT_SIZE",
                    "minQty": text(Decimal(0)),
                    "maxQty": text(self.max_quantity),
                    "stepSize": text(Decimal(0)),
                },
                {
                    "filterType": "PERCENT_PRICE_BY_SIDE",
                    "bidMultiplierUp": band,
                    "bidMultiplierDown": inverse,
                    "askMultiplierUp": band,
                    "askMultiplierDown": inverse,
                    "avgPriceMins": 5,
                },
                {
                    "filterType": "NOTIONAL",
                    "minNotional": text(self.min_notional),
                    "applyMinToMarket": True,
                    "maxNotional": "9000000.00000000",
                    "applyMaxToMarket": False,
                    "avgPriceMins": 5,
                },
                {"filterType": "ICEBERG_PARTS", "limit": ICEBERG_PARTS},
                {
                    "filterType": "TRAILING_DELTA",
                    "minTrailingAboveDelta": TRAILING_DELTA[0],
                    "maxTrailingAboveDelta": TRAILING_DELTA[1],
                    "minTrailingBelowDelta": TRAILING_DELTA[0],
                    "maxTrailingBelowDelta": TRAILING_DELTA[1],
                },
                {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": self.max_orders},
            ],
            "permissions": [],
            "permissionSets": [["SPOT"]],
            "defaultSelfTradePreventionMode": "NONE",
            "allowedSelfTradePreventionModes": ["NONE"],
        }


def text(number: Decimal) -> str:
    """A number as Binance writes it: eight decimals."""
    return f"{number:.8f}"
