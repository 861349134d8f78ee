"""What a new order must satisfy before the engine takes it; the answers are Binance's."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING

from adapters.simulator.accounts import Account
from adapters.simulator.errors import (
    DUPLICATE,
    ICEBERG_EXCEEDS,
    MARKET_CLOSED,
    UNSUPPORTED_COMBINATION,
    WOULD_MATCH,
    WOULD_TRIGGER,
    VenueError,
    filter_failure,
    missing,
    not_required,
    rejected,
    unsupported,
)
from adapters.simulator.orders import NewOrder, Order
from adapters.simulator.stops import STOPS, reached
from adapters.simulator.symbols import ICEBERG_PARTS, ORDER_TYPES, TRAILING_DELTA, SymbolSpec

if TYPE_CHECKING:
    from adapters.simulator.engine import Market

ZERO = Decimal(0)
_LIMITS = frozenset({"LIMIT", "LIMIT_MAKER", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"})
_TIMED = _LIMITS - {"LIMIT_MAKER"}


def checked(account: Account, market: Market, new: NewOrder, ids: Iterator[int], now: int) -> Order:
    """The order that a request makes.

    Raises:
        VenueError: it is not taken, and why.
    """
    spec = market.spec
    if spec.halted:
        raise rejected(MARKET_CLOSED)
    _check_shape(spec, new)
    quantity = _quantity(market, new)
    price = new.price if new.kind in _LIMITS else None
    working = 0 if account.unlimited else sum(1 for order in account.open.values() if order.symbol is spec)
    spec.check(quantity, price, market.last, working, small=account.unlimited)
    if new.iceberg is not None:
        _check_iceberg(spec, quantity, new.iceberg)
    client_id = new.client_order_id or f"local{next(ids):x}"
    known = account.by_client_id.get((new.symbol, client_id))
    if known is not None and known.open:
        raise rejected(DUPLICATE)
    if new.kind == "LIMIT_MAKER" and price is not None and market.book.crosses(new.side == "BUY", price):
        raise rejected(WOULD_MATCH)
    if new.stop_price is not None:
        if new.stop_price % spec.tick:
            raise filter_failure("PRICE_FILTER")
        if reached(new.kind, new.side, new.stop_price, market.last):
            raise rejected(WOULD_TRIGGER)
    return Order(
        order_id=next(ids),
        client_order_id=client_id,
        account=account,
        symbol=spec,
        side=new.side,
        kind=new.kind,
        time_in_force=new.time_in_force or "GTC",
        quantity=quantity,
        price=price or ZERO,
        stop_price=new.stop_price or ZERO,
        quote_quantity=new.quote_quantity or ZERO,
        iceberg=new.iceberg or ZERO,
        trailing_delta=new.trailing_delta or 0,
        time=now,
        updated=now,
    )


def _check_shape(spec: SymbolSpec, new: NewOrder) -> None:
    """Whether the parameters fit together, whatever the market says."""
    if new.side not in ("BUY", "SELL"):
        raise VenueError(-1117, "Invalid side.")
    if new.kind not in ORDER_TYPES:
        raise VenueError(-1116, "Invalid orderType.")
    if new.kind not in spec.order_types:
        raise unsupported(new.kind.replace("_", " ").capitalize())
    if new.kind in _LIMITS and new.price is None:
        raise missing("price")
    if new.kind in STOPS:
        if new.stop_price is None and new.trailing_delta is None:
            raise missing("stopPrice")
    elif new.stop_price is not None:
        raise not_required("stopPrice")
    if new.trailing_delta is not None:
        if new.kind not in STOPS:
            raise not_required("trailingDelta")
        if not spec.trailing_allowed:
            raise unsupported("Trailing stop")
        if not TRAILING_DELTA[0] <= new.trailing_delta <= TRAILING_DELTA[1]:
            raise filter_failure("TRAILING_DELTA")
    if new.kind in _TIMED and new.time_in_force is None:
        raise missing("timeInForce")
    if new.time_in_force not in (None, "GTC", "IOC", "FOK"):
        raise VenueError(-1115, "Invalid timeInForce.")
    if new.iceberg is not None:
        if new.kind not in _LIMITS:
            raise not_required("icebergQty")
        if new.time_in_force not in (None, "GTC"):
            raise UNSUPPORTED_COMBINATION
        if not spec.iceberg:
            raise unsupported("Iceberg")


def _check_iceberg(spec: SymbolSpec, quantity: Decimal, shown: Decimal) -> None:
    if shown >= quantity:
        raise ICEBERG_EXCEEDS
    if shown < spec.min_quantity or shown % spec.lot:
        raise filter_failure("LOT_SIZE")
    if (quantity / shown).to_integral_value(ROUND_CEILING) > ICEBERG_PARTS:
        raise filter_failure("ICEBERG_PARTS")


def _quantity(market: Market, new: NewOrder) -> Decimal:
    if new.quantity is not None:
        return new.quantity
    if new.kind != "MARKET" or new.quote_quantity is None:
        raise missing("quantity")
    book = market.book
    best = book.asks.best_price if new.side == "BUY" else book.bids.best_price
    if best is None:
        raise rejected("Market has no liquidity.")
    return new.quote_quantity / best // market.spec.lot * market.spec.lot
