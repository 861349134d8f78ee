"""The engine's records in Binance's JSON."""

from __future__ import annotations

from typing import Any

from adapters.simulator.accounts import Account
from adapters.simulator.candles import Candle
from adapters.simulator.engine import Market
from adapters.simulator.orders import ZERO as _ZERO
from adapters.simulator.orders import Order, PublicTrade, Trade
from adapters.simulator.symbols import text


def _conditional(of: Order) -> dict[str, Any]:
    """Fields of an order that only some orders have."""
    fields: dict[str, Any] = {}
    if of.trailing_delta:
        fields["trailingDelta"] = of.trailing_delta
        fields["trailingTime"] = of.tracking_since or -1
    return fields


def order(of: Order) -> dict[str, Any]:
    """As `GET /api/v3/order` answers."""
    return _conditional(of) | {
        "symbol": of.symbol.id,
        "orderId": of.order_id,
        "orderListId": -1,
        "clientOrderId": of.client_order_id,
        "price": text(of.price),
        "origQty": text(of.quantity),
        "executedQty": text(of.filled),
        "origQuoteOrderQty": text(of.quote_quantity),
        "cummulativeQuoteQty": text(of.notional),
        "status": of.status,
        "timeInForce": of.time_in_force,
        "type": of.kind,
        "side": of.side,
        "stopPrice": text(of.stop_price),
        "icebergQty": text(of.iceberg),
        "time": of.time,
        "updateTime": of.updated,
        "isWorking": of.working,
        "workingTime": of.working_since or -1,
        "selfTradePreventionMode": "NONE",
    }


def placed(of: Order, detail: str) -> dict[str, Any]:
    """As `POST /api/v3/order` answers: ACK, RESULT or FULL."""
    answer: dict[str, Any] = {
        "symbol": of.symbol.id,
        "orderId": of.order_id,
        "orderListId": -1,
        "clientOrderId": of.client_order_id,
        "transactTime": of.updated,
    }
    if detail == "ACK":
        return answer
    answer |= {
        "price": text(of.price),
        "origQty": text(of.quantity),
        "executedQty": text(of.filled),
        "origQuoteOrderQty": text(of.quote_quantity),
        "cummulativeQuoteQty": text(of.notional),
        "status": of.status,
        "timeInForce": of.time_in_force,
        "type": of.kind,
        "side": of.side,
        "workingTime": of.working_since or -1,
        "selfTradePreventionMode": "NONE",
    }
    answer |= _conditional(of)
    if of.stop_price:
        answer["stopPrice"] = text(of.stop_price)
    if of.iceberg:
        answer["icebergQty"] = text(of.iceberg)
    if detail == "FULL":
        answer["fills"] = [
            {
                "price": text(trade.price),
                "qty": text(trade.quantity),
                "commission": text(trade.fee),
                "commissionAsset": trade.fee_asset,
                "tradeId": trade.trade_id,
            }
            for trade in of.trades
        ]
    return answer


def canceled(of: Order) -> dict[str, Any]:
    """As `DELETE /api/v3/order` answers."""
    extra = _conditional(of)
    if of.stop_price:
        extra["stopPrice"] = text(of.stop_price)
    if of.iceberg:
        extra["icebergQty"] = text(of.iceberg)
    return extra | {
        "symbol": of.symbol.id,
        "origClientOrderId": of.client_order_id,
        "orderId": of.order_id,
        "orderListId": -1,
        "clientOrderId": of.cancel_id,
        "transactTime": of.updated,
        "price": text(of.price),
        "origQty": text(of.quantity),
        "executedQty": text(of.filled),
        "origQuoteOrderQty": text(of.quote_quantity),
        "cummulativeQuoteQty": text(of.notional),
        "status": of.status,
        "timeInForce": of.time_in_force,
        "type": of.kind,
        "side": of.side,
        "selfTradePreventionMode": "NONE",
    }


def my_trade(of: Order, trade: Trade) -> dict[str, Any]:
    """As `GET /api/v3/myTrades` answers."""
    return {
        "symbol": of.symbol.id,
        "id": trade.trade_id,
        "orderId": of.order_id,
        "orderListId": -1,
        "price": text(trade.price),
        "qty": text(trade.quantity),
        "quoteQty": text(trade.notional),
        "commission": text(trade.fee),
        "commissionAsset": trade.fee_asset,
        "time": trade.time,
        "isBuyer": of.buys,
        "isMaker": trade.maker,
        "isBestMatch": True,
    }


def account(of: Account, maker: str, taker: str, now: int) -> dict[str, Any]:
    """As `GET /api/v3/account` answers."""
    assets = sorted({*of.free, *of.locked})
    return {
        "makerCommission": 0,
        "takerCommission": 0,
        "buyerCommission": 0,
        "sellerCommission": 0,
        "commissionRates": {"maker": maker, "taker": taker, "buyer": "0.00000000", "seller": "0.00000000"},
        "canTrade": True,
        "canWithdraw": False,
        "canDeposit": False,
        "brokered": False,
        "requireSelfTradePrevention": False,
        "preventSor": False,
        "updateTime": now,
        "accountType": "SPOT",
        "balances": [
            {"asset": asset, "free": text(of.free.get(asset, _ZERO)), "locked": text(of.locked.get(asset, _ZERO))}
            for asset in assets
        ],
        "permissions": ["SPOT"],
        "uid": 1,
    }


def execution_report(
    of: Order, execution: str, trade: Trade | None, now: int, cumulative: tuple[Any, Any, str]
) -> dict[str, Any]:
    """As the user data stream tells a change. `cumulative`: executed quantity, executed value and status at that moment."""
    filled, notional, status = cumulative
    canceling = execution == "CANCELED" and of.cancel_id
    extra: dict[str, Any] = {}
    if of.trailing_delta:
        extra["d"] = of.trailing_delta
        if of.tracking_since:
            extra["D"] = of.tracking_since
    if of.working_since:
        extra["W"] = of.working_since
    return extra | {
        "e": "executionReport",
        "E": now,
        "s": of.symbol.id,
        "c": of.cancel_id if canceling else of.client_order_id,
        "S": of.side,
        "o": of.kind,
        "f": of.time_in_force,
        "q": text(of.quantity),
        "p": text(of.price),
        "P": text(of.stop_price),
        "F": text(of.iceberg),
        "g": -1,
        "C": of.client_order_id if canceling else "",
        "x": execution,
        "X": status,
        "r": "NONE",
        "i": of.order_id,
        "l": text(trade.quantity) if trade else "0.00000000",
        "z": text(filled),
        "L": text(trade.price) if trade else "0.00000000",
        "n": text(trade.fee) if trade else "0",
        "N": trade.fee_asset if trade else None,
        "T": trade.time if trade else of.updated,
        "t": trade.trade_id if trade else -1,
        "I": of.order_id * 2,
        "w": of.working and of.open,
        "m": trade.maker if trade else False,
        "M": False,
        "O": of.time,
        "Z": text(notional),
        "Y": text(trade.notional) if trade else "0.00000000",
        "Q": text(of.quote_quantity),
        "V": "NONE",
    }


def position(of: Account, assets: tuple[str, ...], now: int) -> dict[str, Any]:
    """As the user data stream tells balances."""
    return {
        "e": "outboundAccountPosition",
        "E": now,
        "u": now,
        "B": [
            {"a": asset, "f": text(of.free.get(asset, _ZERO)), "l": text(of.locked.get(asset, _ZERO))}
            for asset in assets
        ],
    }


def public_trade(symbol: str, trade: PublicTrade) -> dict[str, Any]:
    """As the trade stream tells a trade."""
    return {
        "e": "trade",
        "E": trade.time,
        "s": symbol,
        "t": trade.trade_id,
        "p": text(trade.price),
        "q": text(trade.quantity),
        "T": trade.time,
        "m": trade.buyer_is_maker,
        "M": True,
    }


def kline(of: Candle, step: int) -> list[Any]:
    """As `GET /api/v3/klines` answers."""
    prices = (text(of.open), text(of.high), text(of.low), text(of.close), text(of.volume))
    taken = (text(of.bought), text(of.bought_value), "0")
    return [of.start, *prices, of.start + step - 1, text(of.value), of.trades, *taken]


def kline_event(symbol: str, interval: str, of: Candle, step: int, now: int, *, closed: bool) -> dict[str, Any]:
    """As the candle stream tells a candle."""
    start, open_, high, low, close, volume, end, value, trades, bought, bought_value, _ = kline(of, step)
    numbers = {"o": open_, "c": close, "h": high, "l": low, "v": volume, "n": trades, "x": closed, "q": value}
    known = {"t": start, "T": end, "s": symbol, "i": interval, "f": of.first_id, "L": of.last_id}
    taken = {"V": bought, "Q": bought_value, "B": "0"}
    return {"e": "kline", "E": now, "s": symbol, "k": {**known, **numbers, **taken}}


def ticker(market: Market, now: int) -> dict[str, Any]:
    """As `GET /api/v3/ticker/24hr` answers, from the trades that are kept."""
    trades = market.trades
    first = trades[0].price if trades else market.last
    prices = [trade.price for trade in trades] or [market.last]
    volume = sum((trade.quantity for trade in trades), _ZERO)
    value = sum((trade.quantity * trade.price for trade in trades), _ZERO)
    bid, ask = market.book.bids.levels(1), market.book.asks.levels(1)
    return {
        "symbol": market.spec.id,
        "priceChange": text(market.last - first),
        "priceChangePercent": text((market.last - first) / first * 100),
        "weightedAvgPrice": text(value / volume if volume else market.last),
        "prevClosePrice": text(first),
        "lastPrice": text(market.last),
        "lastQty": text(trades[-1].quantity if trades else _ZERO),
        "bidPrice": text(bid[0][0] if bid else _ZERO),
        "bidQty": text(bid[0][1] if bid else _ZERO),
        "askPrice": text(ask[0][0] if ask else _ZERO),
        "askQty": text(ask[0][1] if ask else _ZERO),
        "openPrice": text(first),
        "highPrice": text(max(prices)),
        "lowPrice": text(min(prices)),
        "volume": text(volume),
        "quoteVolume": text(value),
        "openTime": trades[0].time if trades else now,
        "closeTime": now,
        "firstId": trades[0].trade_id if trades else -1,
        "lastId": trades[-1].trade_id if trades else -1,
        "count": len(trades),
    }


def levels(of: list[tuple[Any, Any]]) -> list[list[str]]:
    return [[text(price), text(quantity)] for price, quantity in of]
