"""The gate directly before the wire.

It trusts nobody's sums: from what this process itself has sent it counts, per parent, what may still fill or has filled, and
lets nothing through that would exceed the parent. Two independent counts must be wrong in the same way for an overfill.
"""

from __future__ import annotations

from decimal import Decimal

from adapters.base import ApprovedOrder
from schemas.order import ChildOrder

ZERO = Decimal(0)


class GateRefused(Exception):
    """A child order would exceed its parent. Nothing was sent; this is a fault of ours."""


class WireGate:
    """Counts what has been let through, per parent."""

    def __init__(self) -> None:
        self._sent: dict[str, dict[str, Decimal]] = {}

    def approve(self, key: str, limit: Decimal, child: ChildOrder) -> ApprovedOrder:
        """Let a child order through, and count it. `limit` is the parent's quantity.

        Raises:
            GateRefused: with it, more would have been sent than the parent's quantity.
        """
        sent = self._sent.setdefault(key, {})
        others = sum((quantity for child_id, quantity in sent.items() if child_id != child.child_id), ZERO)
        if others + child.quantity > limit:
            raise GateRefused(f"{child.child_id}: {others:f} sent and {child.quantity:f} to send exceed {limit:f}")
        sent[child.child_id] = child.quantity
        return ApprovedOrder(
            client_order_id=child.child_id,
            symbol=child.symbol,
            side=child.side,
            order_type=child.order_type,
            quantity=child.quantity,
            price=child.price,
            time_in_force=child.time_in_force,
            post_only=child.post_only,
        )

    def settle(self, key: str, child: ChildOrder) -> None:
        """A child has ended (or was never sent): only what it filled still counts."""
        sent = self._sent.get(key)
        if sent is not None:
            sent[child.child_id] = child.executed

    def know(self, key: str, children: list[ChildOrder]) -> None:
        """Count the children of an order taken over from another replica."""
        self._sent[key] = {child.child_id: child.claim for child in children}

    def forget(self, key: str) -> None:
        """The parent has ended."""
        self._sent.pop(key, None)
