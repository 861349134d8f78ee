"""What a venue accepts for a symbol, and what its order book shows."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import msgspec

from schemas.terms import OrderType, Side

ZERO = Decimal(0)


class MarketRules(msgspec.Struct, frozen=True, kw_only=True):
    """What a venue accepts for one symbol. Zero means the venue sets no such bound."""

    symbol: str
    base: str
    quote: str
    tick: Decimal
    lot: Decimal
    market_lot: Decimal
    min_quantity: Decimal = ZERO
    max_quantity: Decimal = ZERO
    market_min_quantity: Decimal = ZERO
    market_max_quantity: Decimal = ZERO
    min_notional: Decimal = ZERO
    min_price: Decimal = ZERO
    max_price: Decimal = ZERO
    active: bool = True
    maker_fee: Decimal = ZERO
    """As a fraction of the notional; negative: a rebate."""
    taker_fee: Decimal = ZERO
    fee_in_base: bool = False
    """Whether a buy pays its fee in the base asset: less arrives than was bought."""
    contract: bool = False
    """Whether a derivative is traded, where `reduce_only` has a meaning."""
    native: tuple[OrderType, ...] = (OrderType.MARKET, OrderType.LIMIT)
    """The order types the venue itself can hold."""
    native_iceberg: bool = False
    """Whether the venue itself can hide part of a resting order."""

    def round_quantity(self, quantity: Decimal, order_type: OrderType) -> Decimal:
        """The largest quantity the venue can trade that is not above `quantity`."""
        step = self.market_lot if order_type is OrderType.MARKET else self.lot
        return (quantity / step).to_integral_value(ROUND_FLOOR) * step if step else quantity

    def round_price(self, price: Decimal, side: Side) -> Decimal:
        """The nearest price on the tick that does not cross `price`: down for a buy, up for a sell."""
        if not self.tick:
            return price
        rounding = ROUND_FLOOR if side is Side.BUY else ROUND_CEILING
        return (price / self.tick).to_integral_value(rounding) * self.tick

    def refusal(self, quantity: Decimal, order_type: OrderType, price: Decimal | None) -> tuple[str, str] | None:
        """Why the venue would refuse such an order, as (field, reason); None when nothing speaks against it.

        The quantity and price are taken as already rounded. Without a price the notional cannot be judged, and is not.
        """
        market = order_type is OrderType.MARKET
        least = self.market_min_quantity if market else self.min_quantity
        most = self.market_max_quantity if market else self.max_quantity
        if quantity <= 0:
            return "quantity", f"is below the lot size {self.market_lot if market else self.lot:f} of {self.symbol}"
        if quantity < least:
            return "quantity", f"{quantity:f} is below the minimum {least:f} of {self.symbol}"
        if most and quantity > most:
            return "quantity", f"{quantity:f} is above the maximum {most:f} of {self.symbol}"
        if price is not None and not market:
            if price <= 0 or price < self.min_price:
                return (
                    "price",
                    f"{price:f} is below the lowest price {max(self.min_price, self.tick):f} of {self.symbol}",
                )
            if self.max_price and price > self.max_price:
                return "price", f"{price:f} is above the highest price {self.max_price:f} of {self.symbol}"
            if self.min_notional and quantity * price < self.min_notional:
                value = f"{quantity:f} x {price:f} = {quantity * price:f}"
                return (
                    "quantity",
                    f"{value} {self.quote} is below the minimum notional {self.min_notional:f} of {self.symbol}",
                )
        return None


class BookLevel(msgspec.Struct, frozen=True):
    price: Decimal
    quantity: Decimal


class OrderBook(msgspec.Struct, frozen=True, kw_only=True):
    """Best levels first. `received_at` is our monotonic clock in seconds, for the book's age."""

    symbol: str
    bids: tuple[BookLevel, ...]
    asks: tuple[BookLevel, ...]
    received_at: float

    @property
    def bid(self) -> Decimal | None:
        """The best price to sell at; None while there is none."""
        return self.bids[0].price if self.bids else None

    @property
    def ask(self) -> Decimal | None:
        """The best price to buy at; None while there is none."""
        return self.asks[0].price if self.asks else None

    @property
    def mid(self) -> Decimal | None:
        """Half way between bid and ask; None while one is missing."""
        return (self.bids[0].price + self.asks[0].price) / 2 if self.bids and self.asks else None

    @property
    def crossed(self) -> bool:
        """Whether it shows what no book can hold, somebody who buys for no less than another sells for: it was put together wrongly."""
        return bool(self.bids and self.asks) and self.bids[0].price >= self.asks[0].price

    def touch(self, side: Side) -> Decimal | None:
        """The best price of a side: where a buyer's (seller's) resting order would queue."""
        return self.bid if side is Side.BUY else self.ask

    def opposite(self, side: Side) -> tuple[BookLevel, ...]:
        """The levels that an order of a side trades against."""
        return self.asks if side is Side.BUY else self.bids


class PublicTrade(msgspec.Struct, frozen=True, kw_only=True):
    """A trade between anybody, as the venue's tape shows it. `side` is the taker's, where told; `timestamp` in ms."""

    trade_id: str
    price: Decimal
    quantity: Decimal
    timestamp: int
    side: Side | None = None


class Candle(msgspec.Struct, frozen=True, kw_only=True):
    """What was traded from `start` (ms) for one interval. `volume` is in units of the base asset."""

    start: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
