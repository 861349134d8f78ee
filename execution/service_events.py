"""Events that are about the service, and about no order."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from execution.ledger import Ledger, order_key
from schemas.event import EventType, OrderEvent
from schemas.order import ZERO, OrderStatus


class ServiceEvents:
    """Leaves such events in the outbox of a shard."""

    def __init__(self, ledger: Ledger, *, instance: str, wake_outbox: Callable[[int], None]) -> None:
        self._ledger = ledger
        self._instance = instance
        self._wake_outbox = wake_outbox

    async def tell(
        self,
        kind: EventType,
        once: str,
        *,
        status: OrderStatus,
        reason: str,
        metadata: Mapping[str, Any],
        strategy_id: str | None = None,
        exchange: str | None = None,
    ) -> None:
        """Publish one; `once` makes its id: the same again is told once. Its sequence is 0: it belongs to no order's history.

        Raises:
            StoreUnavailable, StoreRefused: it may not be in the outbox; tell it again.
        """
        key = order_key(f"{kind}\0{once}")
        event = OrderEvent(
            order_id="",
            signal_id="",
            status=status,
            filled_quantity=ZERO,
            average_price=None,
            commission=ZERO,
            timestamp=time.time_ns() // 1_000_000,
            event_id=f"evt_{key}_0",
            event_type=kind,
            sequence=0,
            strategy_id=strategy_id,
            exchange=exchange,
            symbol=None,
            side=None,
            quantity=None,
            remaining_quantity=None,
            commissions={},
            instance_id=self._instance,
            reason=reason,
            metadata=dict(metadata),
        )
        await self._ledger.note(key, f"{kind}:{once}", event)
        self._wake_outbox(self._ledger.shard_of(key))
