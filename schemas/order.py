"""Records of a parent order, its child orders and its fills, and the states they may go through.

How much is filled, open or unknown is derived from the children, never stored beside them. Quantities are in units of the
base asset, prices in the quote asset, times in milliseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from enum import StrEnum
from typing import Any

import msgspec

from schemas.terms import OrderType, Side, TimeInForce

ZERO = Decimal(0)


class OrderStatus(StrEnum):
    """The state of a parent order, as its events carry it."""

    ACCEPTED = "accepted"
    WORKING = "working"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    CANCELED = "canceled"
    REJECTED = "rejected"
    EXPIRED = "expired"
    FAILED = "failed"

    @property
    def terminal(self) -> bool:
        return self in _TERMINAL_STATUSES


_TERMINAL_STATUSES = frozenset(
    {OrderStatus.FILLED, OrderStatus.CANCELED, OrderStatus.REJECTED, OrderStatus.EXPIRED, OrderStatus.FAILED}
)


class ChildState(StrEnum):
    """The state of a child order.

    `pending`: committed, its request may be under way. `unknown`: a request left and no certain answer came; counts as if
    filled until the venue has been asked. `void`: certainly never came to exist at the venue.
    """

    PENDING = "pending"
    UNKNOWN = "unknown"
    OPEN = "open"
    FILLED = "filled"
    CANCELED = "canceled"
    REJECTED = "rejected"
    EXPIRED = "expired"
    VOID = "void"

    @property
    def terminal(self) -> bool:
        return self in _TERMINAL_CHILD_STATES


_TERMINAL_CHILD_STATES = frozenset(
    {ChildState.FILLED, ChildState.CANCELED, ChildState.REJECTED, ChildState.EXPIRED, ChildState.VOID}
)

_S = OrderStatus
_ENDS = frozenset({_S.FILLED, _S.CANCELED, _S.EXPIRED, _S.FAILED})

ORDER_TRANSITIONS: dict[OrderStatus, frozenset[OrderStatus]] = {
    _S.ACCEPTED: _ENDS | {_S.WORKING, _S.PARTIALLY_FILLED, _S.REJECTED},
    _S.WORKING: _ENDS | {_S.PARTIALLY_FILLED, _S.REJECTED},
    _S.PARTIALLY_FILLED: _ENDS,
    # An order that ended short can still learn of a fill that happened before its end: the fill wins.
    _S.CANCELED: frozenset({_S.FILLED}),
    _S.EXPIRED: frozenset({_S.FILLED}),
    _S.FAILED: frozenset({_S.FILLED}),
    _S.REJECTED: frozenset(),
    _S.FILLED: frozenset(),
}
"""Which status may follow which. Staying in a status is always legal and not listed."""

_C = ChildState
_CHILD_ENDS = frozenset({_C.FILLED, _C.CANCELED, _C.EXPIRED})

CHILD_TRANSITIONS: dict[ChildState, frozenset[ChildState]] = {
    _C.PENDING: _CHILD_ENDS | {_C.UNKNOWN, _C.OPEN, _C.REJECTED, _C.VOID},
    _C.UNKNOWN: _CHILD_ENDS | {_C.PENDING, _C.OPEN, _C.REJECTED, _C.VOID},
    _C.OPEN: _CHILD_ENDS | {_C.REJECTED},
    # The last fill may be seen after the cancel that raced it.
    _C.CANCELED: frozenset({_C.FILLED}),
    _C.EXPIRED: frozenset({_C.FILLED}),
    _C.FILLED: frozenset(),
    # What was held for certain is corrected by the venue's own record, and only by it.
    _C.REJECTED: frozenset({_C.OPEN, _C.FILLED, _C.CANCELED, _C.EXPIRED}),
    _C.VOID: frozenset({_C.OPEN, _C.FILLED, _C.CANCELED, _C.EXPIRED}),
}
"""Which child state may follow which. Staying in a state is always legal and not listed."""


class IllegalTransition(ValueError):
    """A record was asked to go from a state to one that cannot follow it."""

    def __init__(self, what: str, before: StrEnum, after: StrEnum) -> None:
        super().__init__(f"{what}: {before} cannot become {after}")
        self.before = before
        self.after = after


class Fill(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One trade of a child order at its venue. `trade_id` is the venue's own; a fill counts once by it."""

    trade_id: str
    child_id: str
    price: Decimal
    quantity: Decimal
    fee: Decimal = ZERO
    fee_asset: str | None = None
    maker: bool | None = None
    timestamp: int
    mid: Decimal | None = None
    """The mid when the fill was booked, and half the spread then; None: not known."""
    half_spread: Decimal | None = None


class Tape(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was seen of the market while an order worked."""

    volume: Decimal = ZERO
    """Traded by everybody, in units of the base asset."""
    notional: Decimal = ZERO
    mid_integral: Decimal = ZERO
    """Sum of mid times the milliseconds it held."""
    observed_ms: int = 0


class Role(StrEnum):
    """What a child order is for: to build the position its parent asks for, or to close it again (a bracket's exit)."""

    ENTRY = "entry"
    EXIT = "exit"


class Trigger(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a stop, take-profit or trailing stop waits for, and what became of it. Prices in the quote asset."""

    native: bool = False
    """Whether the venue holds it; else the service watches the price and sends when it is reached."""
    source: str = "last"
    """The price that counts: of the last trade (`last`), the `mid`, or what could be traded at (`touch`)."""
    price: Decimal | None = None
    """Where it fires now; of a trailing stop, it moves with the market, one way only. None: not active yet."""
    trail_bps: Decimal | None = None
    activation: Decimal | None = None
    """Of a trailing stop: the price from which on it trails; None: at once."""
    extreme: Decimal | None = None
    """The best price seen since a trailing stop became active."""
    fired_at: int | None = None
    fired_price: Decimal | None = None
    """The price that was seen when it fired."""


class ChildOrder(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One order at a venue. `child_id` is its client order id: fixed before anything is sent."""

    child_id: str
    number: int
    venue: str
    symbol: str
    side: Side
    order_type: OrderType
    quantity: Decimal
    price: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.GTC
    post_only: bool = False
    tag: str = ""
    """The algorithm's own mark: which slice or which leg this is."""
    role: Role = Role.ENTRY
    stop_price: Decimal | None = None
    trail_bps: Decimal | None = None
    display_quantity: Decimal | None = None
    reduce_only: bool = False
    state: ChildState = ChildState.PENDING
    venue_order_id: str | None = None
    filled: Decimal = ZERO
    """Sum of the fills booked, by trade id."""
    notional: Decimal = ZERO
    """Sum of price times quantity of the fills booked."""
    venue_filled: Decimal = ZERO
    """The largest cumulative quantity the venue has reported; above `filled` while trades are still to be fetched."""
    fees: dict[str, Decimal] = {}
    quote_fees: Decimal = ZERO
    """The part of `fees` that can be said in the quote asset: paid in it, or in the base asset at the fill's price."""
    sends: int = 0
    """How often its request may have left."""
    valid_until: int = 0
    """When the last request that may have left can no longer be executed by the venue: "not found" is final after it."""
    amendment: int = 0
    """The parent's count of amendments when this child was decided."""
    cancel_requested: bool = False
    would_take: bool = False
    """Refused because it was to rest and would have traded at once: no fault of the order's."""
    reason: str | None = None
    created_at: int
    updated_at: int

    def to(self, state: ChildState) -> None:
        """Go to a state.

        Raises:
            IllegalTransition: `CHILD_TRANSITIONS` does not allow it.
        """
        if state is not self.state:
            if state not in CHILD_TRANSITIONS[self.state]:
                raise IllegalTransition(f"child {self.child_id}", self.state, state)
            self.state = state

    @property
    def executed(self) -> Decimal:
        """What has certainly been filled, booked trade by trade or only reported in total so far."""
        return self.filled if self.filled >= self.venue_filled else self.venue_filled

    @property
    def claim(self) -> Decimal:
        """What of the parent this child may use up: all of it while it may still fill, else what it did fill."""
        executed = self.filled if self.filled >= self.venue_filled else self.venue_filled
        return executed if self.state in _TERMINAL_CHILD_STATES or executed > self.quantity else self.quantity

    @property
    def leaves(self) -> Decimal:
        """What may still fill."""
        return self.claim - self.executed


class ParentOrder(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A signal that became an order. `sequence` numbers its events without gaps; `version` its commits."""

    order_id: str
    signal_id: str
    strategy_id: str
    exchange: str
    symbol: str
    side: Side
    quantity: Decimal
    order_type: OrderType
    price: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.GTC
    post_only: bool = False
    algorithm: str = "direct"
    algorithm_params: dict[str, Any] = {}
    plan: dict[str, Any] = {}
    """What the algorithm planned once; with its memory and the children, all it needs to go on after a restart."""
    memory: dict[str, Any] = {}
    """What the algorithm noted while it worked."""
    venues: tuple[str, ...] = ()
    """The venues it may trade at; empty: at `exchange` alone."""
    stop_price: Decimal | None = None
    trigger: Trigger | None = None
    take_profit: Decimal | None = None
    stop_loss: Decimal | None = None
    reduce_only: bool = False
    max_slippage_bps: Decimal | None = None
    slippage_policy: str = "pause"
    """What a price beyond `max_slippage_bps` does: `pause` until it comes back, or `end` the order."""
    decision_price: Decimal | None = None
    """The mid when the strategy decided, as the signal says."""
    arrival: Decimal | None = None
    """The mid when the order was accepted, or as soon after it as one was known."""
    arrival_at: int = 0
    tape: Tape | None = None
    """What the home market did up to the last commit."""
    waiting: str | None = None
    """Why nothing is traded now, where something outside has to change first."""
    stop_fired: bool = False
    """The price of a stop-loss that the service watches was reached: it closes, wherever the price goes then."""
    protection_ended: str | None = None
    """Why the exits of a bracket are no longer kept in place."""
    expires_at: int | None = None
    user_id: str | None = None
    trade_id: str | None = None
    metadata: dict[str, Any] = {}
    ignored_fields: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What was chosen or adjusted at acceptance, in words."""
    status: OrderStatus = OrderStatus.ACCEPTED
    reason: str | None = None
    cancel_requested: bool = False
    cancel_reason: str | None = None
    paused: bool = False
    amendments: int = 0
    sequence: int = 0
    version: int = 0
    published_at: int = 0
    """When its signal was published, in ms; 0: it did not come by Pub/Sub."""
    created_at: int
    updated_at: int

    @property
    def routes(self) -> tuple[str, ...]:
        """The venues it may trade at."""
        return self.venues or (self.exchange,)

    @property
    def home(self) -> str:
        """The venue whose market it is measured by."""
        return self.exchange if not self.venues or self.exchange in self.venues else self.venues[0]

    @property
    def works_as(self) -> OrderType:
        """The order type once its trigger, where it has one, has fired."""
        return _TRIGGERED.get(self.order_type, self.order_type)

    @property
    def limit_price(self) -> Decimal | None:
        return self.price if self.works_as is OrderType.LIMIT else None

    @property
    def has_bracket(self) -> bool:
        return self.take_profit is not None or self.stop_loss is not None

    def to(self, status: OrderStatus) -> None:
        """Go to a status.

        Raises:
            IllegalTransition: `ORDER_TRANSITIONS` does not allow it.
        """
        if status is not self.status:
            if status not in ORDER_TRANSITIONS[self.status]:
                raise IllegalTransition(f"order {self.order_id}", self.status, status)
            self.status = status


_TRIGGERED = {
    OrderType.STOP: OrderType.MARKET,
    OrderType.TAKE_PROFIT: OrderType.MARKET,
    OrderType.TRAILING_STOP: OrderType.MARKET,
    OrderType.STOP_LIMIT: OrderType.LIMIT,
    OrderType.TAKE_PROFIT_LIMIT: OrderType.LIMIT,
}


class Totals(msgspec.Struct, frozen=True):
    """What the children of a parent add up to."""

    filled: Decimal
    notional: Decimal
    open: Decimal
    unknown: Decimal
    fees: dict[str, Decimal]
    quote_fees: Decimal

    @property
    def claimed(self) -> Decimal:
        """filled + open + unknown: what must never exceed the parent's quantity."""
        return self.filled + self.open + self.unknown

    @property
    def average_price(self) -> Decimal | None:
        """Volume-weighted price of the fills; None while there are none."""
        return self.notional / self.filled if self.filled else None


def totals(children: Iterable[ChildOrder]) -> Totals:
    """Add the children up. `filled` counts booked trades; executed quantity whose trades are not yet known is in `unknown`."""
    filled = notional = open_ = unknown = quote_fees = ZERO
    fees: dict[str, Decimal] = {}
    for child in children:
        filled += child.filled
        notional += child.notional
        quote_fees += child.quote_fees
        rest = child.claim - child.filled
        if rest:
            if child.state is ChildState.OPEN:
                open_ += child.leaves
                unknown += rest - child.leaves
            else:
                unknown += rest
        for asset, amount in child.fees.items():
            fees[asset] = fees.get(asset, ZERO) + amount
    return Totals(filled, notional, open_, unknown, fees, quote_fees)
