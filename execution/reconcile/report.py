"""What a look at a venue found and repaired, as operators, events and the command line are told."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

MOST_LISTED = 20
"""Ids in an event; the numbers are complete."""


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """A position that our fills do not explain. Signed quantities in the base asset: below zero is short."""

    symbol: str
    at_venue: Decimal
    expected: Decimal

    @property
    def amount(self) -> Decimal:
        return self.at_venue - self.expected


class VenueReport(msgspec.Struct, kw_only=True):
    """One look of one replica at one venue. It compares the orders of its own shards; the others' are left to them."""

    venue: str
    instance: str
    at: int
    """Ms since the epoch."""
    seconds: float = 0.0
    open_orders: int = 0
    """Open on the account."""
    compared: int = 0
    """Of this replica's, compared with them."""
    fills: int = 0
    """Trades of the account that were compared."""
    ended: int = 0
    """The ledger held them for open, and they had ended."""
    adopted: list[str] = []
    """Client order ids at the venue that the ledger had lost: children of their order again."""
    cancelled: list[str] = []
    """Client order ids of ours that nobody works, taken off the venue."""
    unwatched: int = 0
    """Open under ids of ours without anybody who works them, those just cancelled included."""
    fills_booked: int = 0
    fills_unbooked: int = 0
    """Trades of ours whose order is not in the ledger."""
    foreign_orders: int = 0
    """Open on the account, not ours: never touched."""
    foreign_fills: int = 0
    drifts: list[Drift] = []
    errors: list[str] = []

    @property
    def size(self) -> int:
        """How much there was to compare."""
        return self.open_orders + self.fills

    @property
    def repaired(self) -> bool:
        return bool(self.ended or self.adopted or self.cancelled or self.fills_booked)

    @property
    def findings(self) -> tuple[Any, ...]:
        """What cannot be repaired; told again when it changes. Of what is foreign, only whether there is any."""
        return self.unwatched, self.foreign_orders > 0, self.fills_unbooked, tuple(self.drifts)

    def words(self) -> str:
        """In a sentence; what is zero is left out."""
        counts = [
            (self.adopted, "adopted"),
            (self.cancelled, "cancelled that nobody worked"),
            (self.ended, "found ended"),
            (self.fills_booked, "fills booked"),
            (self.fills_unbooked, "fills of ours without an order in the ledger"),
            (self.unwatched, "open under ids of ours that nobody works"),
            (self.foreign_orders, "foreign orders open"),
            (self.drifts, "positions that our fills do not explain"),
            (self.errors, "errors"),
        ]
        told = [f"{len(what) if isinstance(what, list) else what} {words}" for what, words in counts if what]
        return f"{self.venue}: {', '.join(told) or 'the ledger and the venue agree'}"

    def fields(self) -> dict[str, Any]:
        """For an event: lists cut short."""
        record: dict[str, Any] = msgspec.to_builtins(self, builtin_types=(Decimal,))
        for name in ("adopted", "cancelled", "drifts", "errors"):
            record[name] = record[name][:MOST_LISTED]
        return record


def summary(reports: Sequence[VenueReport]) -> str:
    """Several looks in a sentence."""
    return "; ".join(report.words() for report in reports) or "no venue was looked at"
