"""The gate directly before the wire.

It trusts nobody's sums: from what this process itself has sent it counts, per parent, what may still fill or has filled, and
lets nothing through that would exceed the parent. Two independent counts must be wrong in the same way for an overfill.
"""

from __future__ import annotations

from decimal import Decimal

from adapters.base import ApprovedOrder
from schemas.order import ChildOrder, Role

ZERO = Decimal(0)


class GateRefused(Exception):
    """A child order would exceed its parent. Nothing was sent; this is a fault of ours."""


class _Sent:
    """What was let through for one parent and one role: the claim of each child, and their sum."""

    __slots__ = ("by_child", "total")

    def __init__(self) -> None:
        self.by_child: dict[str, Decimal] = {}
        self.total = ZERO

    def put(self, child_id: str, claim: Decimal) -> None:
        self.total += claim - self.by_child.get(child_id, ZERO)
        self.by_child[child_id] = claim


class WireGate:
    """Counts what has been let through, per parent."""

    def __init__(self) -> None:
        self._sent: dict[tuple[str, Role], _Sent] = {}

    def approve(self, key: str, limit: Decimal, child: ChildOrder, *, protects: bool = False) -> ApprovedOrder:
        """Let a child order through, and count it. `limit`: the parent's quantity; for an exit, what the entry holds. `protects`:
        whether it only closes a position.

        Raises:
            GateRefused: with it, more would have been sent than the limit.
        """
        sent = self._of(key, child.role)
        others = sent.total - sent.by_child.get(child.child_id, ZERO)
        if others + child.quantity > limit:
            raise GateRefused(f"{child.child_id}: {others:f} sent and {child.quantity:f} to send exceed {limit:f}")
        sent.put(child.child_id, child.quantity)
        return ApprovedOrder(
            client_order_id=child.child_id,
            symbol=child.symbol,
            side=child.side,
            order_type=child.order_type,
            quantity=child.quantity,
            price=child.price,
            time_in_force=child.time_in_force,
            post_only=child.post_only,
            stop_price=child.stop_price,
            trail_bps=child.trail_bps,
            display_quantity=child.display_quantity,
            reduce_only=child.reduce_only,
            protects=protects,
        )

    def settle(self, key: str, child: ChildOrder) -> None:
        """A child has ended (or was never sent): only what it filled still counts."""
        sent = self._sent.get((key, child.role))
        if sent is not None:
            sent.put(child.child_id, child.executed)

    def adopt(self, key: str, child: ChildOrder) -> None:
        """Count a child that this process did not send, and that the venue has."""
        self._of(key, child.role).put(child.child_id, child.claim)

    def know(self, key: str, children: list[ChildOrder]) -> None:
        """Count the children of an order taken over from another replica."""
        self.forget(key)
        for child in children:
            self._of(key, child.role).put(child.child_id, child.claim)

    def _of(self, key: str, role: Role) -> _Sent:
        sent = self._sent.get((key, role))
        if sent is None:
            sent = self._sent[(key, role)] = _Sent()
        return sent

    def forget(self, key: str) -> None:
        """The parent has ended."""
        for role in Role:
            self._sent.pop((key, role), None)
