"""What an algorithm is: two pure functions over the records of one parent order.

No I/O, no clock, no hidden state. Everything an algorithm may know is in the `View`; everything it wants is in the
`Decision`. The runner carries a decision out and asks again whenever something changed, so a decision states what should be
the case now, and asking twice about the same view gives the same answer.

Most algorithms only say which orders should be at the venue now: they derive from `algorithms.worked.Worked`, which cancels,
waits, rounds and ends the order for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, ClassVar, Generic, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict

from schemas.market import ZERO, Candle, MarketRules, OrderBook
from schemas.order import ChildOrder, OrderStatus, ParentOrder, Role, Totals, Trigger
from schemas.terms import OrderType, Side, TimeInForce


class Market(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the order's symbol at one venue. Nothing that is too old to decide on is in it."""

    venue: str
    rules: MarketRules
    book: OrderBook | None = None
    book_at: int = 0
    """When the book came, in ms since the epoch."""
    last: Decimal | None = None
    """The price of the last trade seen."""
    session: str = ""
    """Another one whenever trades may have been missed in between; `volume` and `notional` count from its beginning."""
    volume: Decimal = ZERO
    """Traded by everybody, in units of the base asset."""
    notional: Decimal = ZERO
    usable: bool = True
    """Whether orders can be sent to the venue now."""
    available: Decimal | None = None
    """What the account has to spend there: quote for a buy, base for a sell; None: not known."""

    @property
    def bid(self) -> Decimal | None:
        return self.book.bid if self.book is not None else None

    @property
    def ask(self) -> Decimal | None:
        return self.book.ask if self.book is not None else None

    @property
    def mid(self) -> Decimal | None:
        return self.book.mid if self.book is not None else None

    def touch(self, side: Side) -> Decimal | None:
        """Where a resting order of a side joins the queue: the bid for a buy, the ask for a sell."""
        return self.book.touch(side) if self.book is not None else None

    def far(self, side: Side) -> Decimal | None:
        """Where an order of a side trades at once: the ask for a buy, the bid for a sell."""
        return self.book.touch(side.opposite) if self.book is not None else None


class View(msgspec.Struct, frozen=True, kw_only=True):
    """One parent order at one moment. `now` is in ms since the epoch."""

    order: ParentOrder
    children: Sequence[ChildOrder]
    """Those that build the position, in the order in which they were decided."""
    live: Sequence[ChildOrder]
    """Those of them that may still fill."""
    totals: Totals
    rules: MarketRules
    """Of the order's home venue."""
    now: int
    markets: Mapping[str, Market] = {}
    """By venue, for the venues the order may trade at."""
    memory: Any = None
    """What the algorithm noted last, of its `Memory` type."""
    exits: Sequence[ChildOrder] = ()
    """The children that close the position again, of a bracket."""
    exit_totals: Totals | None = None

    @property
    def free(self) -> Decimal:
        """The quantity that no child has claimed. Only this may be placed."""
        return self.order.quantity - self.totals.claimed

    def claimed_beside(self, tag: str) -> Decimal:
        """What is filled, open or unknown, not counting what live children of a tag may still fill.

        A target less this is what the order of that tag should be able to fill.
        """
        return self.totals.claimed - sum((child.leaves for child in self.live if child.tag == tag), ZERO)

    @property
    def market(self) -> Market:
        """The home venue's market."""
        home = self.order.home
        known = self.markets.get(home)
        return known if known is not None else Market(venue=home, rules=self.rules)

    def rules_of(self, venue: str | None) -> MarketRules:
        market = self.markets.get(venue) if venue is not None else None
        return market.rules if market is not None else self.rules


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Place a child order; quantity and price as the venue's lot and tick allow."""

    quantity: Decimal
    order_type: OrderType
    price: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.GTC
    post_only: bool = False
    venue: str | None = None
    """None: the parent's home venue."""
    tag: str = ""
    role: Role = Role.ENTRY
    stop_price: Decimal | None = None
    trail_bps: Decimal | None = None
    display_quantity: Decimal | None = None
    reduce_only: bool = False


class Cancel(msgspec.Struct, frozen=True):
    """Cancel a child order that may still fill."""

    child_id: str
    reason: str


class Done(msgspec.Struct, frozen=True):
    """The parent has ended. No child may still fill."""

    status: OrderStatus
    reason: str | None = None
    field: str | None = None
    """With `rejected`: the field of the signal at fault."""


class When(msgspec.Struct, frozen=True, kw_only=True):
    """Ask again when a price reaches a bound; without bounds, whenever the source changes."""

    source: str
    """`bid`, `ask`, `mid` or `last`; `book` for any change of the book, `trade` for any trade."""
    at_or_below: Decimal | None = None
    at_or_above: Decimal | None = None
    venue: str | None = None
    """None: the home venue."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What should happen now. Cancels go out before placements; `wake_at` (ms) and `wake_when` ask to be asked again then."""

    place: tuple[Place, ...] = ()
    cancel: tuple[Cancel, ...] = ()
    wake_at: int | None = None
    wake_when: tuple[When, ...] = ()
    done: Done | None = None
    memory: Any = None
    """What to note, of the algorithm's `Memory` type; None: as before."""
    trigger: Trigger | None = None
    """What became of the order's trigger; None: as before."""
    arrival: Decimal | None = None
    """With a trigger that fires: the price it arrives at, which its costs are measured from."""
    waiting: str | None = None
    """Why nothing is traded now, where something outside has to change first: shown to operators."""
    breach_bps: Decimal | None = None
    """With `waiting` or `done` for slippage: how far from the arrival price it would trade, positive is cost."""
    stop_fired: bool = False
    """The price of a watched stop-loss was reached."""
    protection_ended: str | None = None
    """Why the exits of a bracket need no more watching."""


class Nothing(msgspec.Struct, frozen=True):
    """The plan, or memory, of an algorithm that has none."""


class Parameters(BaseModel):
    """Base of the models that validate a signal's `algorithm_params`."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Lookback(msgspec.Struct, frozen=True):
    """The candles an algorithm plans with: how far back, and of what interval, both in seconds."""

    back: int
    interval: int


P = TypeVar("P", bound=Parameters)
L = TypeVar("L", bound=msgspec.Struct)


class Algorithm(Generic[P, L]):
    """Base of every algorithm: parameters, plan and decisions of one kind of parent order."""

    name: ClassVar[str]
    order_types: ClassVar[frozenset[OrderType]] = frozenset(OrderType)
    """What it can work; triggers are waited for before it begins."""
    Parameters: type[P]
    Plan: type[L]
    """Fixed once, at acceptance or amendment, and stored with the order."""
    Memory: ClassVar[type[msgspec.Struct]] = Nothing
    """What it notes while it works; every field has a default."""
    lookback: ClassVar[Lookback | None] = None
    """The candles `plan` asks for."""
    routes: ClassVar[bool] = False
    """Whether it trades at several venues."""

    def plan(self, order: ParentOrder, parameters: P, rules: MarketRules, history: Sequence[Candle]) -> L:
        """What is fixed once. `history` is oldest first, and empty when the venue did not tell.

        Raises:
            Refusal: the order cannot be worked with these parameters.
        """
        raise NotImplementedError

    def decide(self, plan: L, view: View) -> Decision:
        """What should be the case now."""
        raise NotImplementedError

    def needs_market(self, order: ParentOrder) -> bool:
        """Whether `decide` looks at the market, beyond what triggers and slippage bounds need."""
        return True

    def notes(self, order: ParentOrder) -> tuple[str, ...]:
        """What the plan chose that a user should know, in words; told when the order is accepted."""
        return ()

    def schedule(self, plan: L, order: ParentOrder) -> list[tuple[int, Decimal]]:
        """The quantity meant to be done by a time: (ms since the epoch, cumulative quantity). Empty: no schedule."""
        return []


class Refusal(ValueError):
    """An order cannot be worked: `field` of the signal, and why."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason
