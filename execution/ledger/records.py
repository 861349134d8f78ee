"""What the ledger takes and gives: leases, outcomes, changes, and orders as they are stored."""

from __future__ import annotations

import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from schemas.event import OrderEvent
from schemas.order import ChildOrder, Fill, ParentOrder, Role

_parent = msgspec.json.Decoder(ParentOrder, float_hook=Decimal)
"""What a signal says in its own words (metadata, parameters) keeps its digits too."""
_child = msgspec.json.Decoder(ChildOrder)
_fill = msgspec.json.Decoder(Fill)


class Fenced(Exception):
    """The shard is not, or no longer, ours: another replica may own the order. Nothing was written."""


class Overfill(Exception):
    """A commit would have let the children claim more than the parent's quantity. Nothing was written."""


class LedgerMismatch(Exception):
    """The order in the ledger is not as this replica knows it. Nothing was written."""


class ShardsDiffer(ValueError):
    """SHARDS differs from what the ledger was made with; set it to the ledger's number."""


class Lease(msgspec.Struct):
    """Ownership of one shard. `valid_until` is our monotonic clock, with a margin before the lease really ends."""

    shard: int
    owner: str
    epoch: int
    valid_until: float
    inherited_until: int
    """Ms since the epoch, the store's clock: until then the previous owner may have sent requests."""
    quiet_from: float = 0.0
    """The same moment on our monotonic clock, which does not jump, or later."""
    suspect: bool = False
    """Whether the store was restarted or failed over since an owner last confirmed the shard as whole: what the last owner wrote
    at the end may be missing, though it acted on it."""
    doubted_until: int = 0
    """Ms since the epoch, the store's clock, when this or an earlier owner acquired it while suspect, or when a store began that did not
    know the shard: what was published before may have been accepted, and acted on, already."""

    @property
    def valid(self) -> bool:
        return time.monotonic() < self.valid_until


class Accepted(msgspec.Struct, frozen=True):
    """The order is in the ledger, by this call."""


class Duplicate(msgspec.Struct, frozen=True):
    """The same signal was accepted (or rejected) before; it has an order already."""

    order_id: str


class Conflict(msgspec.Struct, frozen=True):
    """The signal id belongs to a signal with other content."""

    order_id: str


AcceptOutcome = Accepted | Duplicate | Conflict


class Change(msgspec.Struct, kw_only=True):
    """What one commit writes."""

    parent: ParentOrder
    children: Sequence[ChildOrder] = ()
    fills: Sequence[Fill] = ()
    events: Sequence[OrderEvent] = ()
    places: frozenset[Role] = frozenset()
    """The roles for which new claims are made, which must fit: entries the parent's quantity, exits what is held."""
    over: bool = False
    """Nothing more is to be decided: the order leaves the live ones, and is kept for a while."""
    reopened: bool = False
    """It was over and is not any more: a fill came late that needs protection."""
    held: Decimal = Decimal(0)
    """What the entry has filled: the most that exits may close."""
    commands: Sequence[str] = ()
    """The ids of the commands that it carries out."""


class LoadedOrder(msgspec.Struct):
    parent: ParentOrder
    children: list[ChildOrder]
    fills: list[Fill]
    commands: set[str] = msgspec.field(default_factory=set)
    """The ids of the commands that were carried out."""
    doubt: bool = False
    """Whether its signal may have been accepted before, and acted on, in what the store has forgotten."""


def parse_order(flat: Any) -> LoadedOrder | None:
    """An order from its hash, as `HGETALL` gives it."""
    pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
    parent: ParentOrder | None = None
    children: list[ChildOrder] = []
    fills: list[Fill] = []
    commands: set[str] = set()
    doubt = False
    for name, value in pairs:
        if name == b"parent":
            parent = _parent.decode(value)
        elif name.startswith(b"c:"):
            children.append(_child.decode(value))
        elif name.startswith(b"f:"):
            fills.append(_fill.decode(value))
        elif name.startswith(b"m:"):
            commands.add(name[2:].decode())
        elif name == b"doubt":
            doubt = True
        elif name == b"v":
            version = int(value)
    if parent is None:
        return None
    parent.version = version
    children.sort(key=lambda child: child.number)
    fills.sort(key=lambda fill: (fill.timestamp, fill.trade_id))
    return LoadedOrder(parent, children, fills, commands, doubt)
