"""Order books around recorded trades, where none were recorded."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from decimal import Decimal

import msgspec

from adapters.recorded.events import Book, MarketEvent, Trades
from adapters.recorded.ladder import DepthProfile, Ladders, ticks_of
from schemas.terms import Side


class BookSynthesis(msgspec.Struct, frozen=True, kw_only=True):
    """How books are made up. `spread_bps` None: estimated from the trades (Roll 1984), at least one tick.

    While no trade comes, the last book is told again every `refresh_ms`; 0: it is not.
    """

    spread_bps: float | None = None
    depth: DepthProfile = DepthProfile()
    refresh_ms: int = 1000
    seed: int = 1


def books_around(
    events: Iterable[Trades],
    *,
    tick: Decimal,
    lot: Decimal,
    quantity: Decimal,
    spread_bps: float,
    synthesis: BookSynthesis,
) -> Iterator[MarketEvent]:
    """Trades, and after those of each moment the book that they leave: nothing of a book is known from trades to come.

    The last trade took one side of the spread: a buy was at the ask, a sell at the bid. Where the taker's side is not told, the
    tick rule tells it (Lee and Ready 1991: up from the last price is a buy, down a sell, unchanged as before).
    """
    draw = random.Random(f"books:{synthesis.seed}")
    ladders: Ladders | None = None
    last: Decimal | None = None
    side = Side.BUY
    book: Book | None = None
    for event in events:
        if book is not None and synthesis.refresh_ms:
            for ts in range(book.ts + synthesis.refresh_ms, event.ts, synthesis.refresh_ms):
                yield Book(ts, book.symbol, book.bids, book.asks, book.venue)
        yield event
        for trade in event.trades:
            if trade.side is not None:
                side = trade.side
            elif last is not None and trade.price != last:
                side = Side.BUY if trade.price > last else Side.SELL
            last = trade.price
        assert last is not None
        if ladders is None:
            ladders = Ladders(
                tick=tick, lot=lot, price=last, quantity=quantity, profile=synthesis.depth, seed=synthesis.seed
            )
        width = max(1, round(float(last) * spread_bps / 10_000 / float(tick)))
        at = ticks_of(last, tick)
        bid = max(1, at - width if side is Side.BUY else at)
        shape = draw.getrandbits(16)
        book = Book(
            event.ts,
            event.symbol,
            ladders.side(bid, -1, shape),
            ladders.side(bid + width, 1, shape >> 8),
            event.venue,
        )
        yield book
