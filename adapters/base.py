"""What the service asks of a venue, and how a venue's answers and errors are told.

An adapter is a set of coroutines. It sends a request at most once per call and says exactly what is known of the outcome;
whether to ask again is the caller's decision.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from schemas.market import Candle, MarketRules, OrderBook, PublicTrade
from schemas.terms import OrderType, Side, TimeInForce

ZERO = Decimal(0)


class AdapterError(Exception):
    """Something a venue, or the way to it, answered. `code` is the venue's own where it gave one."""

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class Rejected(AdapterError):
    """Certain: the venue refused the request for good; nothing happened, and the same request will be refused again."""


class PostOnlyRejected(Rejected):
    """Certain: a post-only order would have taken liquidity."""


class InsufficientFunds(Rejected):
    """Certain: the account does not hold what the order needs."""


class DuplicateClientOrderId(AdapterError):
    """The venue already holds an order with this client order id: proof that an earlier request arrived."""


class OrderUnknown(AdapterError):
    """A cancel or amend named an order that is not open at the venue: it ended, or is not there (yet). Ask with `find`."""


class Unknown(AdapterError):
    """The request may have happened: no answer, a broken one, or one that does not say. Ask before doing it again."""


class Retryable(AdapterError):
    """Certain: the request did not happen, and may be tried again."""


class RateLimited(Retryable):
    """Certain: refused for too many requests. `until` is when to try again, in ms since the epoch, by our clock."""

    def __init__(self, message: str, *, until: int, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.until = until


class Unavailable(Retryable):
    """Certain: nothing was sent (no connection, venue down or in maintenance)."""


class ClockSkew(Retryable):
    """Certain: refused because our clock and the venue's differ too much."""


class CredentialsRefused(Rejected):
    """Certain: the venue does not accept the key, its secret, or its permissions."""


class NotReady(AdapterError):
    """An adapter cannot start; the message says what to do."""


class NotReadyYet(NotReady):
    """The venue cannot be reached, or does not work now: the same start may succeed later."""


class NewOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order to be placed. Quantity and price are on the venue's lot and tick already."""

    client_order_id: str
    symbol: str
    side: Side
    order_type: OrderType
    quantity: Decimal
    price: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.GTC
    post_only: bool = False
    stop_price: Decimal | None = None
    """Of an order that waits at the venue for its trigger."""
    trail_bps: Decimal | None = None
    """Of a trailing stop that the venue itself moves: its distance from the best price, in bps."""
    display_quantity: Decimal | None = None
    """Of an iceberg that the venue itself refreshes: what its book shows."""
    reduce_only: bool = False


class ApprovedOrder(NewOrder, frozen=True, kw_only=True):
    """An order that passed the gate before the wire: the only thing an adapter places, and made only by that gate."""

    protects: bool = False
    """It only closes a position: at the venue's rate limit it goes before those that open one."""


class VenueOrderStatus(StrEnum):
    OPEN = "open"
    FILLED = "filled"
    CANCELED = "canceled"
    REJECTED = "rejected"
    EXPIRED = "expired"


class VenueFill(msgspec.Struct, frozen=True, kw_only=True):
    """One trade of ours, as the venue tells it. `trade_id` is unique per venue and symbol; `timestamp` in ms."""

    trade_id: str
    symbol: str
    side: Side
    price: Decimal
    quantity: Decimal
    fee: Decimal = ZERO
    fee_asset: str | None = None
    maker: bool | None = None
    timestamp: int
    venue_order_id: str | None = None
    client_order_id: str | None = None


@dataclass(frozen=True, slots=True)
class FillPage:
    """Some trades of an account, oldest first."""

    fills: list[VenueFill]
    following: Callable[[], Coroutine[Any, Any, FillPage]] | None = None
    """Asks for those that follow; None: these are the last."""


async def every_fill(page: FillPage) -> list[VenueFill]:
    """The trades of a page and of all that follow it."""
    found = list(page.fills)
    while page.following is not None:
        page = await page.following()
        found += page.fills
    return found


class VenueOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order as the venue tells it. What the venue did not say is None, never zero."""

    symbol: str
    client_order_id: str | None
    venue_order_id: str | None
    status: VenueOrderStatus | None
    quantity: Decimal | None = None
    filled: Decimal | None = None
    price: Decimal | None = None
    side: Side | None = None
    order_type: OrderType | None = None
    stop_price: Decimal | None = None
    time_in_force: TimeInForce | None = None
    timestamp: int | None = None
    """When the venue last changed the order, in ms."""
    reason: str | None = None
    fills: tuple[VenueFill, ...] = ()
    """Trades that came with the answer; they need not be all."""


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    asset: str
    free: Decimal
    used: Decimal


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """What the account holds in a contract: quantity in units of the base, below zero when short."""

    symbol: str
    quantity: Decimal
    entry_price: Decimal | None = None


class AdapterHealth(msgspec.Struct, kw_only=True):
    """What operators see of a venue. Times are monotonic seconds; None: not yet."""

    ready: bool = False
    stream_up: bool = False
    stream_supported: bool = True
    stream_since: float | None = None
    last_answer_at: float | None = None
    last_error: str | None = None
    clock_offset_ms: float | None = None
    limited_until: int | None = None
    """Ms since the epoch, while the venue refuses new requests for rate reasons."""
    queued: int = 0
    """Requests waiting for their turn at the rate limit."""


class UpdateSink(Protocol):
    """Where a venue's stream delivers. Plain functions, called in the event loop; they must not block."""

    def on_order(self, venue: str, order: VenueOrder) -> None: ...

    def on_fill(self, venue: str, fill: VenueFill) -> None: ...

    def on_stream(self, venue: str, *, up: bool, reason: str | None) -> None:
        """The stream went up (events may have been missed before: catch up over REST) or down."""


class MarketSink(Protocol):
    """Where a venue's market data is delivered. Plain functions, called in the event loop; they must not block."""

    def on_book(self, venue: str, book: OrderBook) -> None:
        """The book as it is now; what was in between is not told."""

    def on_trades(self, venue: str, symbol: str, trades: Sequence[PublicTrade]) -> None:
        """Trades since the last call, oldest first, none twice and none left out while the stream is up."""

    def on_market(self, venue: str, symbol: str, *, up: bool, reason: str | None) -> None:
        """Market data of a symbol began to come (trades before are not known), or ceased: then the last book is void."""


class Adapter(Protocol):
    """A venue. Every coroutine raises only `AdapterError`s (and `CancelledError`)."""

    name: str
    """What a signal's `exchange` says."""
    health: AdapterHealth
    request_ttl_ms: int
    """A request that has not reached the venue's engine this long after it was built is refused there. 0: no such bound, and "not found" never becomes final by time alone."""
    max_client_order_id: int
    """The longest client order id the venue takes."""

    async def start(self) -> None:
        """Load markets, measure the clock, try the credentials.

        Raises:
            NotReady: with what to do: unreachable, wrong key, clock off, capability missing.
        """

    async def close(self) -> None: ...

    def rules(self, symbol: str) -> MarketRules | None:
        """The rules of a symbol; None when the venue does not trade it."""

    def symbols(self) -> Sequence[str]: ...

    async def refresh_rules(self) -> None:
        """Read the rules of all symbols again.

        Raises:
            AdapterError: they stay as they were.
        """

    async def place(self, order: ApprovedOrder, *, before_send: Callable[[], None] | None = None) -> VenueOrder:
        """Send one create request, once.

        `before_send` is called directly before the bytes leave, after every wait for a turn or a connection. What it
        raises aborts the request, is raised here as it is, and means that nothing was sent.

        Raises:
            Rejected, DuplicateClientOrderId, Unknown, Retryable.
        """

    async def cancel(self, symbol: str, client_order_id: str, venue_order_id: str | None) -> VenueOrder | None:
        """Cancel an order; goes before every waiting create. None: the venue took it without telling the order's state.

        Raises:
            OrderUnknown: not open there. Unknown, Retryable, Rejected.
        """

    async def find(self, symbol: str, client_order_id: str, venue_order_id: str | None = None) -> VenueOrder | None:
        """Ask for an order by its ids; None: the venue says that it does not know it. Of somebody else's, or one of which only the
        venue's id is known, `client_order_id` is "".

        Raises:
            Unknown, Retryable, Rejected: no answer; says nothing of the order.
        """

    async def open_orders(self, symbol: str | None = None) -> list[VenueOrder]: ...

    async def fills(self, symbol: str, venue_order_id: str) -> list[VenueFill]:
        """All trades of an order, oldest first, however many pages it takes."""

    async def fills_since(self, symbol: str, since_ms: int) -> FillPage:
        """The account's trades of a symbol since a time, oldest first, as many as the venue tells at a time.

        An account may have traded more than should be held at once: book a page, let it go, and ask for what follows. No trade
        is in two pages.
        """

    async def order_book(self, symbol: str, depth: int = 20) -> OrderBook: ...

    async def candles(self, symbol: str, *, seconds: int, since_ms: int, limit: int = 1000) -> list[Candle]:
        """What was traded per interval of `seconds`, oldest first, from `since_ms` on; intervals without trades may be missing."""

    async def run_market(self, symbol: str, sink: MarketSink) -> None:
        """Deliver books and trades of a symbol until cancelled; reconnects by itself, polls where no stream exists.

        Several symbols run at once, each by a call of its own.
        """

    async def balances(self) -> list[Balance]: ...

    async def positions(self) -> list[Position]:
        """The account's positions in contracts that can be traded here; empty on spot. A contract without one may be missing."""

    async def run_stream(self, sink: UpdateSink) -> None:
        """Deliver order updates and fills until cancelled; reconnects by itself. Returns at once where no stream exists."""
