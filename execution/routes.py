"""A route beforehand: what the venues show of a symbol now, and how an order would best be split over them.

Only looked at: books, rules and balances are read, and nothing is ever placed, cancelled or kept. What it says holds for the
books that it saw, whose ages it tells; by the time an order arrives they are others.

`GET /api/v1/routes` lists the venues; with `?symbol=BTC/USDT` each with its market. `POST /api/v1/routes/optimize` takes
`RouteRequest` as JSON and answers with the legs of `algorithms.routing.optimize`, the whole's cost after fees, that cost
against the mid and against the best single venue, and why each other venue gets nothing:

    curl -s localhost:8002/api/v1/routes/optimize -d '{"symbol": "BTC/USDT", "side": "buy", "quantity": 1.5}'

A book comes from a stream where one is up, fresh and deep enough; else the venue is asked. One that does not answer in time is
left out, with a warning.
"""

from __future__ import annotations

import asyncio
import difflib
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from adapters.base import Adapter, AdapterError
from algorithms.routing import Unused
from execution.component_health import venue_health
from execution.market_data import MarketData
from execution.route_costs import DEPTH, Seen, split
from schemas import exact_json
from schemas.market import MarketRules, OrderBook
from schemas.signal import Name, Positive
from schemas.terms import Side

T = TypeVar("T")

ZERO = Decimal(0)
ANSWER_SECONDS = 2.0
"""How long a venue is waited for."""
LEAST_AGE_MS, USUAL_AGE_MS, MOST_AGE_MS = 250, 2_000, 60_000
"""Bounds of `max_age_ms`. Requests here share a rate limit with orders: the same is not asked again any sooner."""
BALANCE_SECONDS = 2.0
"""How long balances are taken as what they were."""
MOST_WAITING = 16
"""Requests under way at once; more are refused."""
MOST_KEPT = 256
"""Answers of venues kept for who asks the same."""

Age = Annotated[
    int,
    Field(
        ge=LEAST_AGE_MS,
        le=MOST_AGE_MS,
        description="Milliseconds; a book older than this is asked for anew.",
    ),
]


class RouteRequest(BaseModel):
    """What is to be routed. Quantity in the base asset, price in the quote asset; numbers or strings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: Name = Field(description="As ccxt writes it: BASE/QUOTE.")
    side: Annotated[Side, BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)]
    quantity: Positive
    price: Positive | None = Field(default=None, description="The worst price, before fees, that may be traded at.")
    venues: Annotated[tuple[Name, ...], Field(min_length=1)] | None = Field(
        default=None, description="Names from ADAPTER_ENDPOINTS; default: every venue that trades the symbol."
    )
    max_age_ms: Age = USUAL_AGE_MS


class RouteQuery(BaseModel):
    """What of the venues is to be shown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: Name | None = Field(default=None, description="As ccxt writes it: BASE/QUOTE.")
    max_age_ms: Age = USUAL_AGE_MS


class Refused(ValueError):
    """A request that cannot be answered: `status` is HTTP's, `field` what is wrong ("": no part of the request)."""

    def __init__(self, status: int, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.status = status
        self.field = field
        self.reason = reason


class Routes:
    """What venues offer for an order, read only."""

    def __init__(
        self,
        adapters: Mapping[str, Adapter],
        market: MarketData,
        *,
        now: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`now` in ms since the epoch; `monotonic` in seconds, the clock of `OrderBook.received_at`."""
        self._adapters = adapters
        self._market = market
        self._now = now
        self._monotonic = monotonic
        self._books: _Answers[OrderBook] = _Answers(monotonic)
        self._balances: _Answers[dict[str, Decimal]] = _Answers(monotonic)
        self._waiting = 0
        self._turn = asyncio.Lock()

    async def shown(self, query: Mapping[str, Any]) -> dict[str, Any]:
        """The venues; with a symbol each with its book's best prices, its rules and what the account has to spend there.

        Raises:
            Refused: 404 for a symbol that no venue trades; 422 for a wrong parameter; 429 when too many ask at once.
        """
        asked = _parsed(RouteQuery, query)
        health = {name: venue_health(name, adapter.health, 0) for name, adapter in self._adapters.items()}
        venues: dict[str, dict[str, Any]] = {
            name: {"venue": name, "status": str(health[name].status), "detail": health[name].detail}
            for name in sorted(self._adapters)
        }
        if asked.symbol is None:
            for name, told in venues.items():
                told["symbols"] = len(self._adapters[name].symbols())
            return {"venues": list(venues.values())}
        names = self._trading(asked.symbol, sorted(self._adapters))
        with self._place():
            seen = await self._look(asked.symbol, names, asked.max_age_ms, lambda _: True)
        found = {one.name: self._market_of(one) for one in seen}
        for name, told in venues.items():
            told.update(found.get(name) or {"missing": f"does not trade {asked.symbol}"})
        shown: dict[str, Any] = _tidy({"symbol": asked.symbol, "venues": list(venues.values())})
        return shown

    async def optimize(self, fields: Any) -> dict[str, Any]:
        """The best split of an order for the books as they are now, and what it costs. Nothing is sent.

        Raises:
            Refused: 404 for a symbol that no venue trades; 422 for a wrong field; 429 when too many ask at once.
        """
        if not isinstance(fields, Mapping):
            raise Refused(400, "body", "must be a JSON object")
        asked = _parsed(RouteRequest, fields)
        names = self._named(asked.venues)
        trading = self._trading(asked.symbol, names)
        with self._place():
            seen = await self._look(asked.symbol, trading, asked.max_age_ms, lambda book: _deep_enough(book, asked))
            reasons = {name: f"does not trade {asked.symbol}" for name in names if name not in trading}
            reasons |= {one.name: one.missing for one in seen if one.missing is not None}
            usable = [one for one in seen if one.missing is None]
            warnings = [{"venue": one.name, "reason": reason} for one in seen for reason in one.warnings]
            # One at a time: it is pure computing, and the loop needs the rest of the processor.
            async with self._turn:
                books = {one.name: self._book_of(one) for one in usable}
                for name, book in books.items():
                    if book["age_ms"] > asked.max_age_ms:
                        warnings.append({"venue": name, "reason": f"its book is {book['age_ms']} ms old"})
                try:
                    told = await asyncio.to_thread(split, asked.side, asked.quantity, asked.price, usable)
                except ValueError as error:
                    raise Refused(422, "venues", str(error)) from None
        told["reasons"] = {**reasons, **told["reasons"]}
        for name in told.pop("used_up"):
            warnings.append({"venue": name, "reason": "all that was seen of its book is used: more may lie deeper"})
        order = {"symbol": asked.symbol, "side": asked.side, "quantity": asked.quantity, "price": asked.price}
        answer: dict[str, Any] = _tidy({**order, **told, "books": books, "warnings": warnings})
        return answer

    # --- what is asked for -------------------------------------------------------------------------------------------

    def _named(self, venues: tuple[str, ...] | None) -> list[str]:
        for name in venues or ():
            if name not in self._adapters:
                raise Refused(422, "venues", f"{name!r} is not one of {', '.join(sorted(self._adapters))}")
        return list(dict.fromkeys(venues)) if venues else sorted(self._adapters)

    def _trading(self, symbol: str, names: Sequence[str]) -> list[str]:
        found = [name for name in names if self._adapters[name].rules(symbol) is not None]
        if not found:
            raise Refused(404, "symbol", f"{symbol!r} is not traded at {', '.join(names)}")
        return found

    @contextmanager
    def _place(self) -> Iterator[None]:
        """One of the requests that may be under way at once."""
        if self._waiting >= MOST_WAITING:
            raise Refused(429, "", f"{MOST_WAITING} requests for routes are under way already: ask again in a second")
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    # --- looking ------------------------------------------------------------------------------------------------------

    async def _look(
        self, symbol: str, names: Sequence[str], max_age_ms: int, enough: Callable[[OrderBook], bool]
    ) -> list[Seen]:
        """Every venue at once. `enough`: whether a streamed book shows all that matters."""
        seen = list(await asyncio.gather(*(self._see(symbol, name, max_age_ms, enough) for name in names)))
        for one in seen:
            # The slowest venue was waited for: what streams is newer now.
            newer = self._streamed(one.name, symbol, max_age_ms)
            if one.missing is None and one.source == "stream" and newer is not None and enough(newer):
                one.book = newer
        return seen

    async def _see(self, symbol: str, name: str, max_age_ms: int, enough: Callable[[OrderBook], bool]) -> Seen:
        adapter = self._adapters[name]
        rules = adapter.rules(symbol)
        assert rules is not None
        one = Seen(name=name, rules=rules)
        one.missing = _unusable(adapter, rules, self._now())
        if one.missing is not None:
            if one.missing != Unused.CLOSED:
                one.warnings.append(one.missing)
            return one
        streamed = self._streamed(name, symbol, max_age_ms)
        one.book, one.source = streamed, "stream"
        balances = self._balances.get(name, lambda: _free(adapter), BALANCE_SECONDS)
        if streamed is not None and enough(streamed):
            book, free = None, await balances
        else:
            asked = self._books.get((name, symbol), lambda: adapter.order_book(symbol, DEPTH), max_age_ms / 1000)
            book, free = await asyncio.gather(asked, balances)
        if isinstance(book, OrderBook):
            one.book, one.source = book, "request"
        elif book is not None and streamed is not None:
            one.warnings.append(f"did not answer, its streamed book is taken: {book}")
        elif book is not None:
            one.missing, one.source = f"did not answer: {book}", None
            one.warnings.append(one.missing)
        if isinstance(free, str):
            one.warnings.append(f"its balances are not known, and taken as enough: {free}")
        elif not rules.contract:
            one.free = {asset: free.get(asset, ZERO) for asset in (rules.base, rules.quote)}
        return one

    def _streamed(self, name: str, symbol: str, max_age_ms: int) -> OrderBook | None:
        feed = self._market.feed(name, symbol)
        if feed is None or not feed.up or feed.book is None or self._age_ms(feed.book) > max_age_ms:
            return None
        return feed.book

    def _age_ms(self, book: OrderBook) -> int:
        return max(0, round((self._monotonic() - book.received_at) * 1000))

    # --- telling ------------------------------------------------------------------------------------------------------

    def _book_of(self, one: Seen) -> dict[str, Any]:
        book = one.book
        if book is None:
            return {"bid": None, "ask": None, "age_ms": None, "source": None}
        return {"bid": book.bid, "ask": book.ask, "age_ms": self._age_ms(book), "source": one.source}

    def _market_of(self, one: Seen) -> dict[str, Any]:
        rules = one.rules
        return {
            **self._book_of(one),
            "active": rules.active,
            "tick": rules.tick,
            "lot": rules.lot,
            "min_quantity": rules.min_quantity,
            "max_quantity": rules.max_quantity or None,
            "min_notional": rules.min_notional,
            "maker_fee": rules.maker_fee,
            "taker_fee": rules.taker_fee,
            "fee_in_base": rules.fee_in_base,
            "available": one.free,
            "missing": one.missing,
            "warnings": one.warnings,
        }


class _Answers(Generic[T]):
    """Questions to venues: each is asked once at a time, and its answer serves again for as long as it is new enough."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._asked: dict[Hashable, tuple[float, asyncio.Task[T | str]]] = {}

    async def get(self, key: Hashable, ask: Callable[[], Any], max_age: float) -> T | str:
        """The answer, not older than `max_age` seconds; or why there is none."""
        now = self._monotonic()
        at, task = self._asked.pop(key, (0.0, None))
        if task is not None and task.done() and (task.exception() is not None or isinstance(task.result(), str)):
            max_age = LEAST_AGE_MS / 1000
        if task is None or (task.done() and now - at > max_age):
            at, task = now, asyncio.create_task(_told(ask))
        self._asked[key] = at, task
        while len(self._asked) > MOST_KEPT:
            del self._asked[next(iter(self._asked))]
        # A question that was given up goes on: the next one who asks the same must not send it once more.
        await asyncio.wait({task}, timeout=ANSWER_SECONDS)
        return task.result() if task.done() else f"nothing within {ANSWER_SECONDS:g} s"


async def _told(ask: Callable[[], Any]) -> Any:
    try:
        return await ask()
    except AdapterError as error:
        return str(error) or type(error).__name__


async def _free(adapter: Adapter) -> dict[str, Decimal] | str:
    balances = await adapter.balances()
    return {balance.asset: balance.free for balance in balances} or "the account lists no assets"


def _unusable(adapter: Adapter, rules: MarketRules, now: int) -> str | None:
    health = adapter.health
    if not health.ready:
        return f"not ready: {health.last_error or 'not started'}"
    if health.limited_until is not None and health.limited_until > now:
        return f"rate limited for another {health.limited_until - now} ms"
    return None if rules.active else str(Unused.CLOSED)


def _deep_enough(book: OrderBook, asked: RouteRequest) -> bool:
    """Whether the book shows all that the order could take of it."""
    levels, limit = book.opposite(asked.side), asked.price
    if limit is not None and levels and (levels[-1].price - limit) * asked.side.sign > 0:
        return True
    return sum((level.quantity for level in levels), ZERO) >= asked.quantity


# --- requests and answers -----------------------------------------------------------------------------------------------

Model = TypeVar("Model", bound=BaseModel)


def _parsed(model: type[Model], fields: Mapping[str, Any]) -> Model:
    """Raises: Refused, naming the first wrong field, what is unknown before what is missing."""
    try:
        return model.model_validate(dict(fields))
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
    problem = min(problems, key=lambda one: one["type"] != "extra_forbidden")
    field = ".".join(str(part) for part in problem["loc"])[:64]
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "missing":
        reason = "is required"
    elif problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(field.lower(), model.model_fields, n=1)
        reason = f"unknown field; did you mean {close[0]}?" if close else "unknown field"
    else:
        reason = message[:1].lower() + message[1:]
    raise Refused(422, field, reason)


def _tidy(value: Any) -> Any:
    """Numbers without trailing zeros or exponents, whatever they were computed from."""
    if isinstance(value, Decimal):
        return Decimal(exact_json.plain(value))
    if isinstance(value, dict):
        return {key: _tidy(item) for key, item in value.items()}
    return [_tidy(item) for item in value] if isinstance(value, list | tuple) else value
