"""What an algorithm is: two pure functions over the records of one parent order.

No I/O, no clock, no hidden state. Everything an algorithm may know is in the `View`; everything it wants is in the
`Decision`. The runner carries a decision out and asks again whenever something changed, so a decision states what should be
the case now, and asking twice about the same view gives the same answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, ClassVar, Protocol

import msgspec
from pydantic import BaseModel

from schemas.market import MarketRules
from schemas.order import ChildOrder, OrderStatus, ParentOrder, Totals
from schemas.terms import OrderType, TimeInForce


class View(msgspec.Struct, frozen=True):
    """One parent order at one moment. `now` is in ms since the epoch."""

    order: ParentOrder
    children: Sequence[ChildOrder]
    """In the order in which they were decided."""
    totals: Totals
    rules: MarketRules
    now: int

    @property
    def free(self) -> Decimal:
        """The quantity that no child has claimed. Only this may be placed."""
        return self.order.quantity - self.totals.claimed


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Place a child order at the parent's venue and symbol; quantity and price as the venue's lot and tick allow."""

    quantity: Decimal
    order_type: OrderType
    price: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.GTC
    post_only: bool = False


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


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What should happen now. Cancels go out before placements; `wake_at` (ms) asks to be asked again then."""

    place: tuple[Place, ...] = ()
    cancel: tuple[Cancel, ...] = ()
    wake_at: int | None = None
    done: Done | None = None


class Algorithm(Protocol):
    name: ClassVar[str]
    parameters: ClassVar[type[BaseModel]]
    """Validates a signal's `algorithm_params`."""
    order_types: ClassVar[frozenset[OrderType]]
    """What it can work."""

    def plan(self, order: ParentOrder, rules: MarketRules) -> Mapping[str, Any]:
        """What is fixed once, at acceptance, and stored with the order."""

    def decide(self, view: View) -> Decision:
        """What should be the case now."""
