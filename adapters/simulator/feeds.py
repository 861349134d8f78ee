"""What the market streams tell: trades, books, candles, tickers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from adapters.simulator import dialect
from adapters.simulator.candles import MINUTE, Candle, tape_rows
from adapters.simulator.engine import Market
from adapters.simulator.market_routes import INTERVALS
from adapters.simulator.orders import PublicTrade
from adapters.simulator.symbols import SymbolSpec

if TYPE_CHECKING:
    from adapters.simulator.server import Venue
    from adapters.simulator.streams import Client

_SNAPSHOTS = ("depth5", "depth10", "depth20")


class Feeds:
    """The market streams of all clients."""

    def __init__(self, venue: Venue, clients: set[Client]) -> None:
        self._venue = venue
        self._clients = clients
        self._traded: set[str] = set()
        """Symbols that traded since the last flush."""
        self._open: dict[tuple[str, str], int] = {}
        """By symbol and interval that somebody listens to: where the candle begins that was told last."""

    def trade(self, spec: SymbolSpec, trade: PublicTrade) -> None:
        """A trade, told at once."""
        name = spec.id.lower()
        self._traded.add(spec.id)
        for client in self._clients:
            if f"{name}@trade" in client.streams:
                client.send_stream(f"{name}@trade", dialect.public_trade(spec.id, trade))
            if f"{name}@aggTrade" in client.streams:
                data = dialect.public_trade(spec.id, trade)
                del data["t"]
                data |= {"e": "aggTrade", "a": trade.trade_id, "f": trade.trade_id, "l": trade.trade_id}
                client.send_stream(f"{name}@aggTrade", data)

    def subscribed(self, client: Client, streams: Iterable[str]) -> None:
        """Who begins to listen to a candle, a best price or a partial book gets it as it is now."""
        now = self._venue.now()
        for stream in streams:
            symbol, _, kind = stream.partition("@")
            market = self._venue.engine.markets.get(symbol.upper())
            what = kind.partition("@")[0]
            if market is None:
                continue
            if what in _SNAPSHOTS or what == "bookTicker":
                self._tell_book(client, stream, kind, {"s": market.spec.id}, market, now)
            elif (interval := what.removeprefix("kline_")) in INTERVALS:
                # Noted here: it may end before the first flush that knows of this listener.
                self._open.setdefault((market.spec.id, interval), now // INTERVALS[interval] * INTERVALS[interval])
                self._tell_candle(client, stream, market, interval, now, closed=None)

    def flush(self) -> None:
        """Tell what changed in the books, and the candles of what traded or ended."""
        now = self._venue.now()
        for market in self._venue.engine.markets.values():
            changes = market.book.take_changes()
            if changes is None:
                continue
            first, last, bids, asks = changes
            update = {
                "e": "depthUpdate",
                "E": now,
                "s": market.spec.id,
                "U": first,
                "u": last,
                "b": dialect.levels(list(bids.items())),
                "a": dialect.levels(list(asks.items())),
            }
            for client, stream, kind in self._listeners(market):
                self._tell_book(client, stream, kind, update, market, now)
        for market in self._venue.engine.markets.values():
            self._flush_candles(market, now)
        self._traded.clear()

    def _listeners(self, market: Market) -> list[tuple[Client, str, str]]:
        name = market.spec.id.lower()
        return [
            (client, stream, stream.partition("@")[2])
            for client in self._clients
            for stream in client.streams
            if stream.partition("@")[0] == name
        ]

    # --- books ------------------------------------------------------------------------------------------------------

    def _tell_book(
        self, client: Client, stream: str, kind: str, update: dict[str, Any], market: Market, now: int
    ) -> None:
        what, book = kind.partition("@")[0], market.book
        if what == "depth":
            client.send_stream(stream, update)
        elif what in _SNAPSHOTS:
            depth = int(what.removeprefix("depth"))
            bids, asks = dialect.levels(book.bids.levels(depth)), dialect.levels(book.asks.levels(depth))
            client.send_stream(stream, {"lastUpdateId": book.update_id, "bids": bids, "asks": asks})
        elif what == "bookTicker":
            bids, asks = dialect.levels(book.bids.levels(1)), dialect.levels(book.asks.levels(1))
            if bids and asks:
                best = {"b": bids[0][0], "B": bids[0][1], "a": asks[0][0], "A": asks[0][1]}
                client.send_stream(stream, {"u": book.update_id, "s": update["s"], **best})
        elif what == "ticker":
            full = dialect.ticker(market, now)
            letters = dict(zip("pPwxcQbBaAohlvqOCFLn", list(full.values())[1:], strict=True))
            client.send_stream(stream, {"e": "24hrTicker", "E": now, "s": update["s"], **letters})

    # --- candles ----------------------------------------------------------------------------------------------------

    def _flush_candles(self, market: Market, now: int) -> None:
        symbol = market.spec.id
        heard: dict[str, list[tuple[Client, str]]] = {}
        for client, stream, kind in self._listeners(market):
            if kind.removeprefix("kline_") in INTERVALS and kind.startswith("kline_"):
                heard.setdefault(kind.removeprefix("kline_"), []).append((client, stream))
        for key in [key for key in self._open if key[0] == symbol and key[1] not in heard]:
            del self._open[key]
        for interval, listeners in heard.items():
            start = now // INTERVALS[interval] * INTERVALS[interval]
            before = self._open.get((symbol, interval), start)
            self._open[symbol, interval] = start
            for client, stream in listeners:
                if before < start:
                    self._tell_candle(client, stream, market, interval, now, closed=before)
                if before < start or symbol in self._traded:
                    self._tell_candle(client, stream, market, interval, now, closed=None)

    def _tell_candle(
        self, client: Client, stream: str, market: Market, interval: str, now: int, *, closed: int | None
    ) -> None:
        step = INTERVALS[interval]
        candle = _candle(market, step, now // step * step if closed is None else closed, now)
        event = dialect.kline_event(market.spec.id, interval, candle, step, now, closed=closed is not None)
        client.send_stream(stream, event)


def _candle(market: Market, step: int, start: int, now: int) -> Candle:
    """The candle that begins at a time."""
    if step < MINUTE:
        rows = tape_rows([trade for trade in market.trades if start <= trade.time < start + step], step)
    else:
        rows = market.candles.rows(step, now, since=start, until=None, limit=1)
    return rows[0] if rows else Candle(start, market.last, market.last, market.last, market.last)
