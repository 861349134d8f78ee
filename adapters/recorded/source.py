"""A venue's market data replayed from events, on the running loop's clock. The read side of an adapter: nothing can be placed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal

import msgspec

from adapters.base import AdapterHealth, MarketSink, NotReady, Rejected, Unavailable
from adapters.recorded.events import Book, EventSource, MarketEvent, Trades
from adapters.recorded.passed import Tape, candles_of, ended
from adapters.recorded.read.errors import RecordingError
from schemas.market import Candle, MarketRules, OrderBook, PublicTrade

LOOP_PAUSE_MS = 1000
"""Between the last event of a pass and the first of the next."""


class _Moment(msgspec.Struct):
    """All events of one recorded time; `due` is when they happen here, in wall ms."""

    due: int
    events: list[MarketEvent]


class RecordedMarket:
    """Replays a source's events: an event of the recorded time `t` happens at `starts_at + (t - first) / speed`.

    `now()` is the wall clock in ms, and advances with the running loop's clock; with a loop of virtual time a replay takes no
    time. `starts_at` None: when `start()` is called. Times of trades and candles are told on that clock, so a replay with
    `starts_at` at the first event's time tells them as recorded. With `loop`, the events begin again when they end (a pass
    of its own for the trades' ids).

    What happens at one moment is delivered in one callback; of books that follow each other in it, only the last.
    """

    def __init__(
        self,
        source: EventSource,
        *,
        name: str,
        now: Callable[[], int],
        starts_at: int | None = None,
        speed: float = 1.0,
        loop: bool = False,
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        if speed <= 0:
            raise ValueError("speed is positive")
        self.name = name
        self.health = AdapterHealth(stream_supported=False)
        self.ended = asyncio.Event()
        """Set when the last event has been delivered, or a broken file ended the replay; then `failure` says why."""
        self.failure: str | None = None
        self._source = source
        self._now = now
        self._starts_at = starts_at
        self._speed = speed
        self._repeat = loop
        self._monotonic = monotonic
        self._rules: MarketRules | None = None
        self._moments: Iterator[_Moment] = iter(())
        self._next: _Moment | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._book: Book | None = None
        self._tape = Tape()
        self._history: list[Candle] = []
        self._history_seconds = 60
        self._sinks: list[MarketSink] = []
        self._origin = self._first = 0

    # --- the read side of an adapter

    async def start(self) -> None:
        """Open the recording and begin to replay it.

        Raises:
            NotReady: it holds no events, or cannot be read.
        """
        try:
            self._rules = self._source.rules()
            history, self._history_seconds = self._source.history()
            first = next(self._source.events(), None)
        except RecordingError as error:
            raise NotReady(str(error)) from error
        if first is None:
            raise NotReady(f"no events to replay: {'; '.join(self._source.describe())}")
        self._first = first.ts
        self._origin = self._now() if self._starts_at is None else self._starts_at
        self._history = [msgspec.structs.replace(candle, start=self._at(candle.start)) for candle in history]
        self._moments = self._all_moments()
        self.health.ready = True
        self._advance()
        self._schedule()

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._next = None
        self.health.ready = False

    def rules(self, symbol: str) -> MarketRules | None:
        return self._rules if symbol == self._source.symbol else None

    def symbols(self) -> Sequence[str]:
        return [self._source.symbol]

    async def refresh_rules(self) -> None:
        """The rules of a recording do not change."""

    async def order_book(self, symbol: str, depth: int = 20) -> OrderBook:
        """The last book that happened.

        Raises:
            Rejected: not the symbol of the recording. Unavailable: no book has happened yet.
        """
        self._check(symbol)
        if self._book is None:
            raise Unavailable(f"the recording of {symbol} has shown no book yet")
        return self._book.order_book(self._clock(), depth)

    async def candles(self, symbol: str, *, seconds: int, since_ms: int, limit: int = 1000) -> list[Candle]:
        """Candles of what has happened by now: history that is over, then trades that were delivered. Never of what comes.

        Intervals shorter than those of the history are told only from the trades; at a `speed` that is not 1, candles of
        the history stand where they happened on this clock, but are not cut in pieces.
        """
        self._check(symbol)
        length = max(1, int(self._history_seconds / self._speed))
        past: list[Candle] = []
        if self._history_seconds <= seconds:
            past = ended(self._history, length, min(self._now(), self._origin))
        return candles_of([*past, *self._tape.bars(seconds)], seconds=seconds, since_ms=since_ms, limit=limit)

    async def run_market(self, symbol: str, sink: MarketSink) -> None:
        """Deliver books and trades to a sink until cancelled. The last book so far is told at once.

        Raises:
            Rejected: not the symbol of the recording.
        """
        self._check(symbol)
        self._sinks.append(sink)
        try:
            sink.on_market(self.name, symbol, up=True, reason=None)
            if self._book is not None:
                sink.on_book(self.name, self._book.order_book(self._clock()))
            await self.ended.wait()
            sink.on_market(self.name, symbol, up=False, reason=self.failure or "the recording ended")
            await asyncio.get_running_loop().create_future()
        finally:
            self._sinks.remove(sink)

    def describe(self) -> list[str]:
        """What is replayed: the source's own lines, and how."""
        speed = f" at {self._speed:g} times its speed" if self._speed != 1 else ""
        return [
            *self._source.describe(),
            f"replayed as {self.name}{speed}{', again and again' if self._repeat else ''}",
        ]

    # --- the replay

    def _at(self, ts: int) -> int:
        """When a recorded time is here."""
        return self._origin + (ts - self._first if self._speed == 1 else int((ts - self._first) / self._speed))

    def _all_moments(self) -> Iterator[_Moment]:
        shift = 0
        turn = 1
        while True:
            moment: _Moment | None = None
            recorded = last = self._first
            broken: RecordingError | None = None
            try:
                for event in self._source.events():
                    last = event.ts
                    if moment is None or event.ts != recorded:
                        if moment is not None:
                            yield moment
                        recorded = event.ts
                        moment = _Moment(self._at(recorded + shift), [])
                    moment.events.append(self._moved(event, moment.due, turn))
            except RecordingError as error:
                broken = error
            if moment is not None:
                yield moment
            if broken is not None:
                raise broken
            if not self._repeat or moment is None:
                return
            shift += last - self._first + LOOP_PAUSE_MS
            turn += 1

    def _moved(self, event: MarketEvent, due: int, turn: int) -> MarketEvent:
        if due == event.ts and turn == 1:
            return event
        if isinstance(event, Book):
            return Book(due, event.symbol, event.bids, event.asks, event.venue)
        prefix = f"{turn}:" if turn > 1 else ""
        trades = tuple(
            PublicTrade(
                trade_id=prefix + trade.trade_id,
                price=trade.price,
                quantity=trade.quantity,
                timestamp=due,
                side=trade.side,
            )
            for trade in event.trades
        )
        return Trades(due, event.symbol, trades, event.venue)

    def _advance(self) -> None:
        """Read the next moment; at the end of the recording there is none."""
        try:
            self._next = next(self._moments, None)
        except RecordingError as error:
            self._next, self.failure = None, str(error)
            self.health.last_error = self.failure
        if self._next is None:
            self.ended.set()

    def _schedule(self) -> None:
        if self._next is None:
            self._timer = None
            return
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(loop.time() + max(0, self._next.due - self._now()) / 1000, self._happen)

    def _happen(self) -> None:
        moment = self._next
        if moment is None:
            return
        if moment.due > self._now():
            # The loop's clock ran ahead of the wall clock by a fraction of a millisecond: nothing happens early.
            self._schedule()
            return
        try:
            self._deliver(moment.events)
        finally:
            self._advance()
            self._schedule()

    def _deliver(self, events: list[MarketEvent]) -> None:
        told: deque[MarketEvent] = deque()
        for event in events:
            if isinstance(event, Book):
                if told and isinstance(told[-1], Book):
                    told.pop()
                self._book = event
            else:
                self._tape.add(event.trades)
            told.append(event)
        clock = self._clock()
        self.health.last_answer_at = clock
        for event in told:
            if isinstance(event, Book):
                book = event.order_book(clock)
                for sink in tuple(self._sinks):
                    sink.on_book(self.name, book)
            else:
                for sink in tuple(self._sinks):
                    sink.on_trades(self.name, event.symbol, event.trades)

    def _clock(self) -> float:
        return self._monotonic() if self._monotonic is not None else asyncio.get_running_loop().time()

    def _check(self, symbol: str) -> None:
        if symbol != self._source.symbol:
            raise Rejected(f"the recording is of {self._source.symbol}, not of {symbol}")


def span_of(source: EventSource) -> tuple[int, int, Decimal | None]:
    """The times of the first and last event in ms, and the first mid; reads through the whole source.

    Raises:
        ValueError: the source has no events.
    """
    first = last = None
    mid: Decimal | None = None
    for event in source.events():
        if first is None:
            first = event.ts
        last = event.ts
        if mid is None and isinstance(event, Book):
            mid = (event.bids[0].price + event.asks[0].price) / 2
    if first is None or last is None:
        raise ValueError("the source has no events")
    return first, last, mid
