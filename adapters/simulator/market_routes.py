"""The REST routes of Binance spot that need no key: symbols, books, the tape, candles, tickers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from adapters.simulator import dialect
from adapters.simulator.candles import tape_rows
from adapters.simulator.engine import Market
from adapters.simulator.errors import VenueError, missing
from adapters.simulator.orders import PublicTrade

if TYPE_CHECKING:
    from adapters.simulator.server import Venue

Parameters = dict[str, str]
_MINUTE = 60_000
INTERVALS = {
    "1s": 1000,
    **{f"{n}m": n * _MINUTE for n in (1, 3, 5, 15, 30)},
    **{f"{n}h": n * 60 * _MINUTE for n in (1, 2, 4, 6, 8, 12)},
    "1d": 1440 * _MINUTE,
    "3d": 3 * 1440 * _MINUTE,
}
"""Length of a candle in ms."""


class MarketRoutes:
    def __init__(self, venue: Venue) -> None:
        self._venue = venue
        self.table: dict[tuple[str, str], Callable[[Parameters], Any]] = {
            ("GET", "/api/v3/ping"): lambda _: {},
            ("GET", "/api/v3/time"): lambda _: {"serverTime": venue.now()},
            ("GET", "/api/v3/exchangeInfo"): self._exchange_info,
            ("GET", "/api/v3/depth"): self._depth,
            ("GET", "/api/v3/trades"): self._trades,
            ("GET", "/api/v3/historicalTrades"): self._trades,
            ("GET", "/api/v3/aggTrades"): self._aggregate_trades,
            ("GET", "/api/v3/klines"): self._klines,
            ("GET", "/api/v3/ticker/24hr"): self._tickers,
            ("GET", "/api/v3/ticker/price"): self._prices,
            ("GET", "/api/v3/ticker/bookTicker"): self._book_tickers,
        }

    def _market(self, parameters: Parameters) -> Market:
        if not parameters.get("symbol"):
            raise missing("symbol")
        return self._venue.engine.market(parameters["symbol"])

    def _exchange_info(self, parameters: Parameters) -> Any:
        venue = self._venue
        return {
            "timezone": "UTC",
            "serverTime": venue.now(),
            "rateLimits": venue.config.limits.info(),
            "exchangeFilters": [],
            "symbols": [market.spec.info() for market in venue.engine.markets.values()],
        }

    def _depth(self, parameters: Parameters) -> Any:
        book = self._market(parameters).book
        limit = min(_whole(parameters, "limit", 100), 5000)
        return {
            "lastUpdateId": book.update_id,
            "bids": dialect.levels(book.bids.levels(limit)),
            "asks": dialect.levels(book.asks.levels(limit)),
        }

    def _tape(self, parameters: Parameters) -> list[PublicTrade]:
        """The last trades, or the first ones from an id or a time on."""
        first, start = _whole(parameters, "fromId", 0), _whole(parameters, "startTime", 0)
        end = _whole(parameters, "endTime", 2**62)
        limit = min(_whole(parameters, "limit", 500), 1000)
        trades = [one for one in self._market(parameters).trades if one.trade_id >= first and start <= one.time <= end]
        return trades[:limit] if first or start else trades[-limit:]

    def _trades(self, parameters: Parameters) -> Any:
        return [
            {
                "id": trade.trade_id,
                "price": f"{trade.price:.8f}",
                "qty": f"{trade.quantity:.8f}",
                "quoteQty": f"{trade.price * trade.quantity:.8f}",
                "time": trade.time,
                "isBuyerMaker": trade.buyer_is_maker,
                "isBestMatch": True,
            }
            for trade in self._tape(parameters)
        ]

    def _aggregate_trades(self, parameters: Parameters) -> Any:
        return [
            {
                "a": trade["id"],
                "p": trade["price"],
                "q": trade["qty"],
                "f": trade["id"],
                "l": trade["id"],
                "T": trade["time"],
                "m": trade["isBuyerMaker"],
                "M": True,
            }
            for trade in self._trades(parameters)
        ]

    def _klines(self, parameters: Parameters) -> Any:
        market, interval = self._market(parameters), parameters.get("interval", "")
        step = INTERVALS.get(interval)
        if step is None:
            raise VenueError(-1120, "Invalid interval.")
        limit = min(_whole(parameters, "limit", 500), 1000)
        if step < _MINUTE:
            since, until = _whole(parameters, "startTime", 0), _whole(parameters, "endTime", 2**62)
            rows = [row for row in tape_rows(list(market.trades), step) if since <= row.start <= until]
            rows = rows[:limit] if since else rows[-limit:]
        else:
            rows = market.candles.rows(
                step,
                self._venue.now(),
                since=_whole(parameters, "startTime", 0) or None,
                until=_whole(parameters, "endTime", 0) or None,
                limit=limit,
            )
        return [dialect.kline(row, step) for row in rows]

    def _tickers(self, parameters: Parameters) -> Any:
        return self._each(parameters, lambda market: dialect.ticker(market, self._venue.now()))

    def _prices(self, parameters: Parameters) -> Any:
        return self._each(parameters, lambda market: {"symbol": market.spec.id, "price": f"{market.last:.8f}"})

    def _book_tickers(self, parameters: Parameters) -> Any:
        fields = ("symbol", "bidPrice", "bidQty", "askPrice", "askQty")
        return self._each(
            parameters, lambda market: {key: dialect.ticker(market, self._venue.now())[key] for key in fields}
        )

    def _each(self, parameters: Parameters, tell: Callable[[Any], Any]) -> Any:
        if "symbol" in parameters:
            return tell(self._venue.engine.market(parameters["symbol"]))
        return [tell(market) for market in self._venue.engine.markets.values()]


def _whole(parameters: Parameters, name: str, default: int) -> int:
    value = parameters.get(name)
    if value is None:
        return default
    if not value.isdigit():
        raise VenueError(-1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'.")
    return int(value)
