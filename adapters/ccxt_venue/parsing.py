"""ccxt's and Binance's structures as ours. Every number comes from the venue's own text; what it did not say stays None."""

from __future__ import annotations

import time
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import ccxt

from adapters.base import Position, VenueFill, VenueOrder, VenueOrderStatus
from schemas.market import BookLevel, MarketRules, OrderBook, PublicTrade
from schemas.terms import OrderType, Side, TimeInForce

ZERO = Decimal(0)

_BINANCE_STATUS = {
    "NEW": VenueOrderStatus.OPEN,
    "PENDING_NEW": VenueOrderStatus.OPEN,
    "PARTIALLY_FILLED": VenueOrderStatus.OPEN,
    "PENDING_CANCEL": VenueOrderStatus.OPEN,
    "FILLED": VenueOrderStatus.FILLED,
    "CANCELED": VenueOrderStatus.CANCELED,
    "REJECTED": VenueOrderStatus.REJECTED,
    "EXPIRED": VenueOrderStatus.EXPIRED,
    "EXPIRED_IN_MATCH": VenueOrderStatus.EXPIRED,
}
_BINANCE_TYPE = {
    "LIMIT": OrderType.LIMIT,
    "LIMIT_MAKER": OrderType.LIMIT,
    "MARKET": OrderType.MARKET,
    "STOP_LOSS": OrderType.STOP,
    "STOP_LOSS_LIMIT": OrderType.STOP_LIMIT,
    "TAKE_PROFIT": OrderType.TAKE_PROFIT,
    "TAKE_PROFIT_LIMIT": OrderType.TAKE_PROFIT_LIMIT,
}
_STATUS = {
    "open": VenueOrderStatus.OPEN,
    "closed": VenueOrderStatus.FILLED,
    "canceled": VenueOrderStatus.CANCELED,
    "canceling": VenueOrderStatus.OPEN,
    "expired": VenueOrderStatus.EXPIRED,
    "rejected": VenueOrderStatus.REJECTED,
}


def number(value: Any) -> Decimal | None:
    """A number as its text says it; None for what is none."""
    if value is None or value == "" or isinstance(value, bool):
        return None
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        return None
    return found if found.is_finite() else None


def order_book(raw: Mapping[str, Any], symbol: str, depth: int, received_at: float | None = None) -> OrderBook:
    """A book of Binance's or ccxt's, best levels first; received now unless told when. A side may be empty, or null;
    what holds nothing is no level."""

    def levels(rows: Any) -> tuple[BookLevel, ...]:
        told = ((Decimal(str(row[0])), Decimal(str(row[1]))) for row in (rows or ())[:depth])
        return tuple(BookLevel(price, quantity) for price, quantity in told if quantity)

    at = time.monotonic() if received_at is None else received_at
    return OrderBook(symbol=symbol, bids=levels(raw["bids"]), asks=levels(raw["asks"]), received_at=at)


def _side(value: Any) -> Side | None:
    text = str(value).lower()
    return Side(text) if text in ("buy", "sell") else None


def _in_force(value: Any) -> TimeInForce | None:
    text = str(value).upper()
    return TimeInForce(text) if text in TimeInForce.__members__ else None


def _binance_type(name: Any, trails: Any) -> OrderType | None:
    return OrderType.TRAILING_STOP if number(trails) else _BINANCE_TYPE.get(str(name))


def _text(value: Any) -> str | None:
    return str(value) if value not in (None, "") else None


# --- Binance's own JSON ---------------------------------------------------------------------------------------------


def binance_order(raw: Mapping[str, Any], symbol: str, *, canceled: str | None = None) -> VenueOrder:
    """An order of REST: the answer to a create, to a question, or to the cancel of the order of that client id.

    Raises:
        KeyError, TypeError, ValueError, ArithmeticError: it cannot be understood.
    """
    client_id = (raw.get("origClientOrderId") or canceled) if canceled is not None else raw.get("clientOrderId")
    order_id, side = _text(raw.get("orderId")), _side(raw.get("side"))
    at = raw.get("updateTime") or raw.get("transactTime") or raw.get("time")
    fills = [
        VenueFill(
            trade_id=str(fill["tradeId"]),
            symbol=symbol,
            side=side,
            price=Decimal(fill["price"]),
            quantity=Decimal(fill["qty"]),
            fee=Decimal(fill.get("commission") or 0),
            fee_asset=_text(fill.get("commissionAsset")),
            maker=False,  # what trades before it rests takes
            timestamp=int(at or 0),
            venue_order_id=order_id,
            client_order_id=_text(client_id),
        )
        for fill in raw.get("fills") or ()
        if side is not None and fill.get("tradeId") not in (None, -1)
    ]
    return VenueOrder(
        symbol=symbol,
        client_order_id=_text(client_id),
        venue_order_id=order_id,
        status=_BINANCE_STATUS.get(str(raw.get("status"))),
        quantity=number(raw.get("origQty")),
        filled=number(raw.get("executedQty")),
        price=number(raw.get("price")) or None,
        side=side,
        order_type=_binance_type(raw.get("type"), raw.get("trailingDelta")),
        stop_price=number(raw.get("stopPrice")) or None,
        time_in_force=_in_force(raw.get("timeInForce")),
        timestamp=int(at) if at else None,
        fills=tuple(fills),
    )


def binance_trade(raw: Mapping[str, Any], symbol: str) -> VenueFill:
    """A trade of `myTrades`."""
    return VenueFill(
        trade_id=str(raw["id"]),
        symbol=symbol,
        side=Side.BUY if raw.get("isBuyer") else Side.SELL,
        price=Decimal(raw["price"]),
        quantity=Decimal(raw["qty"]),
        fee=Decimal(raw.get("commission") or 0),
        fee_asset=_text(raw.get("commissionAsset")),
        maker=raw.get("isMaker"),
        timestamp=int(raw.get("time") or 0),
        venue_order_id=_text(raw.get("orderId")),
    )


def binance_report(event: Mapping[str, Any], symbol: str) -> tuple[VenueOrder, VenueFill | None]:
    """An `executionReport` of the user data stream: the order, and the trade when it is one."""
    client_id = _text(event.get("C")) if event.get("C") not in (None, "", "null") else _text(event.get("c"))
    order_id, side = _text(event.get("i")), _side(event.get("S"))
    at = int(event.get("T") or event.get("E") or 0)
    fill = None
    if event.get("x") == "TRADE" and side is not None:
        fill = VenueFill(
            trade_id=str(event["t"]),
            symbol=symbol,
            side=side,
            price=Decimal(event["L"]),
            quantity=Decimal(event["l"]),
            fee=Decimal(event.get("n") or 0),
            fee_asset=_text(event.get("N")),
            maker=event.get("m"),
            timestamp=at,
            venue_order_id=order_id,
            client_order_id=client_id,
        )
    reason = event.get("r")
    order = VenueOrder(
        symbol=symbol,
        client_order_id=client_id,
        venue_order_id=order_id,
        status=_BINANCE_STATUS.get(str(event.get("X"))),
        quantity=number(event.get("q")),
        filled=number(event.get("z")),
        price=number(event.get("p")) or None,
        side=side,
        order_type=_binance_type(event.get("o"), event.get("d")),
        stop_price=number(event.get("P")) or None,
        time_in_force=_in_force(event.get("f")),
        timestamp=at,
        reason=str(reason) if reason not in (None, "", "NONE") else None,
    )
    return order, fill


def binance_public_trade(raw: Mapping[str, Any]) -> PublicTrade:
    """A trade of anybody, of the trade stream or of `trades`. Its id is a whole number at Binance, and may be anything elsewhere.

    Raises:
        KeyError, TypeError, ValueError, ArithmeticError: it cannot be understood.
    """
    if "t" in raw:
        trade_id, price, quantity, at, buyer_rested = raw["t"], raw["p"], raw["q"], raw.get("T"), raw.get("m")
    else:
        trade_id, price, quantity, at = raw["id"], raw["price"], raw["qty"], raw.get("time")
        buyer_rested = raw.get("isBuyerMaker")
    return PublicTrade(
        trade_id=str(trade_id),
        price=Decimal(str(price)),
        quantity=Decimal(str(quantity)),
        timestamp=int(at or raw.get("E") or time.time_ns() // 1_000_000),
        side=None if buyer_rested is None else Side.SELL if buyer_rested else Side.BUY,
    )


# --- ccxt's unified structures --------------------------------------------------------------------------------------


def unified_order(raw: Mapping[str, Any], symbol: str) -> VenueOrder:
    """An order as ccxt tells it. `closed` with something missing is a cancel, where the venue does not tell them apart."""
    status = _STATUS.get(str(raw.get("status")))
    quantity, filled = number(raw.get("amount")), number(raw.get("filled"))
    if status is VenueOrderStatus.FILLED and quantity is not None and filled is not None and filled < quantity:
        status = VenueOrderStatus.CANCELED
    at = raw.get("lastUpdateTimestamp") or raw.get("lastTradeTimestamp") or raw.get("timestamp")
    trades = [unified_trade(trade, symbol) for trade in raw.get("trades") or () if trade.get("id") is not None]
    return VenueOrder(
        symbol=symbol,
        client_order_id=_text(raw.get("clientOrderId")),
        venue_order_id=_text(raw.get("id")),
        status=status,
        quantity=quantity,
        filled=filled,
        price=number(raw.get("price")) or None,
        side=_side(raw.get("side")),
        order_type=_unified_type(raw),
        stop_price=number(raw.get("triggerPrice")) or None,
        time_in_force=_in_force(raw.get("timeInForce")),
        timestamp=int(at) if at else None,
        fills=tuple(trade for trade in trades if trade is not None),
    )


def _unified_type(raw: Mapping[str, Any]) -> OrderType | None:
    """ccxt tells `limit` or `market` of what waits for a trigger, too; which way it triggers, it does not always say."""
    told, triggers = str(raw.get("type")).lower(), number(raw.get("triggerPrice"))
    if told == "limit":
        return OrderType.STOP_LIMIT if triggers else OrderType.LIMIT
    if told == "market":
        return OrderType.STOP if triggers else OrderType.MARKET
    return None


def unified_trade(raw: Mapping[str, Any], symbol: str) -> VenueFill | None:
    """A trade of ours as ccxt tells it; None for one without an id, a price or an amount."""
    price, quantity, side = number(raw.get("price")), number(raw.get("amount")), _side(raw.get("side"))
    if raw.get("id") is None or price is None or quantity is None or side is None:
        return None
    fee = raw.get("fee") or {}
    taker = raw.get("takerOrMaker")
    return VenueFill(
        trade_id=str(raw["id"]),
        symbol=symbol,
        side=side,
        price=price,
        quantity=quantity,
        fee=number(fee.get("cost")) or ZERO,
        fee_asset=_text(fee.get("currency")),
        maker=None if taker is None else taker == "maker",
        timestamp=int(raw.get("timestamp") or 0),
        venue_order_id=_text(raw.get("order")),
        client_order_id=_text(raw.get("clientOrderId")),
    )


def unified_position(raw: Mapping[str, Any]) -> Position | None:
    """A position in contracts as ccxt tells it, in units of the base; None for one without a symbol or a size."""
    contracts, size = number(raw.get("contracts")), number(raw.get("contractSize")) or Decimal(1)
    if contracts is None or not raw.get("symbol"):
        return None
    quantity = abs(contracts) * size
    short = str(raw.get("side")).lower() == "short" or contracts < 0
    return Position(
        symbol=str(raw["symbol"]),
        quantity=-quantity if short else quantity,
        entry_price=number(raw.get("entryPrice")) or None,
    )


def public_trade(raw: Mapping[str, Any]) -> PublicTrade | None:
    """A trade of anybody as ccxt tells it; None for one without a price or an amount. One without an id is known by what it was."""
    price, quantity, side = number(raw.get("price")), number(raw.get("amount")), _side(raw.get("side"))
    if price is None or quantity is None or quantity <= 0:
        return None
    at = int(raw.get("timestamp") or 0)
    trade_id = _text(raw.get("id")) or f"{at}-{side}-{price:f}-{quantity:f}"
    return PublicTrade(trade_id=trade_id, price=price, quantity=quantity, timestamp=at, side=side)


def tradable(market: Mapping[str, Any]) -> bool:
    """Whether quantities of a market are quantities of its base: spot, and contracts of one unit each."""
    if market.get("spot"):
        return True
    whole = number(market.get("contractSize")) == 1 and bool(market.get("linear"))
    return whole and bool(market.get("swap") or market.get("future"))


def rules(market: Mapping[str, Any], precision_mode: int, **more: Any) -> MarketRules:
    """A market as ccxt loaded it. `more`: what only the exchange's line of the table of dialects knows."""
    precision, limits = market.get("precision") or {}, market.get("limits") or {}

    def step(name: str) -> Decimal:
        value = number(precision.get(name))
        if value is None:
            return ZERO
        return value if precision_mode == ccxt.TICK_SIZE else Decimal(1).scaleb(-int(value))

    def bound(group: str, name: str) -> Decimal:
        return number((limits.get(group) or {}).get(name)) or ZERO

    lot = step("amount")
    market_lot = _filter(market, "MARKET_LOT_SIZE", "stepSize") or lot
    return MarketRules(
        symbol=str(market["symbol"]),
        base=str(market["base"]),
        quote=str(market["quote"]),
        tick=step("price"),
        lot=lot,
        market_lot=max(market_lot, lot),
        min_quantity=bound("amount", "min"),
        max_quantity=bound("amount", "max"),
        market_min_quantity=max(bound("market", "min"), bound("amount", "min")),
        market_max_quantity=bound("market", "max") or bound("amount", "max"),
        min_notional=bound("cost", "min"),
        min_price=bound("price", "min"),
        max_price=bound("price", "max"),
        active=market.get("active") is not False,
        maker_fee=number(market.get("maker")) or ZERO,
        taker_fee=number(market.get("taker")) or ZERO,
        contract=bool(market.get("contract")),
        **more,
    )


def _filter(market: Mapping[str, Any], kind: str, name: str) -> Decimal | None:
    """A field of one of Binance's filters; None where there is none, or it is zero."""
    info = market.get("info")
    for entry in (info.get("filters") or ()) if isinstance(info, dict) else ():
        if entry.get("filterType") == kind:
            return number(entry.get(name)) or None
    return None
