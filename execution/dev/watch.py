"""What the published events tell: read from a subscription of its own, as any consumer would."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from decimal import Decimal

import msgspec

from execution.pubsub import IncomingMessage
from schemas.event import EventType, OrderEvent

_event = msgspec.json.Decoder(OrderEvent)
ORDERS_KEPT = 200


class Watch:
    """Keeps each event once, by its id: delivery is at least once."""

    def __init__(self) -> None:
        self.events: dict[str, OrderEvent] = {}
        self.by_signal: dict[str, list[OrderEvent]] = {}
        self.repeated = 0
        self.latest: OrderedDict[str, OrderEvent] = OrderedDict()
        """The newest event of each order, most recently changed last."""
        self.types: Counter[str] = Counter()
        self.recent: deque[OrderEvent] = deque(maxlen=12)
        self.fills: dict[tuple[str, str, str], Decimal] = {}
        """Quantity by venue, symbol and trade id."""
        self._protected: set[str] = set()
        """Orders of which exits may be at a venue."""
        self.costs: dict[str, list[Decimal]] = {}
        """Slippage against arrival in bps of the orders that ended, by algorithm."""
        self.recent_fills: deque[tuple[OrderEvent, Decimal, Decimal]] = deque(maxlen=8)

    def handle(self, message: IncomingMessage) -> None:
        """Take a message from the subscriber."""
        event = _event.decode(message.data)
        message.ack()
        if event.event_id in self.events:
            self.repeated += 1
            return
        self.events[event.event_id] = event
        self.by_signal.setdefault(event.signal_id, []).append(event)
        self.types[event.event_type] += 1
        self.recent.append(event)
        if event.sequence > 0:
            known = self.latest.get(event.order_id)
            if known is None or known.sequence < event.sequence:
                self.latest[event.order_id] = event
                self.latest.move_to_end(event.order_id)
        reason = "" if isinstance(event.reason, msgspec.UnsetType) else event.reason
        if event.event_type is EventType.TRADE_OPENED:
            self._protected.add(event.order_id)
        elif event.event_type is EventType.TRADE_CLOSED or reason.startswith("exits ended"):
            self._protected.discard(event.order_id)
        if not isinstance(event.tca, msgspec.UnsetType) and event.tca.slippage_arrival_bps is not None:
            self.costs.setdefault(event.tca.algorithm, []).append(event.tca.slippage_arrival_bps)
        if not isinstance(event.child, msgspec.UnsetType):
            for fill in event.child.fills:
                self.fills[event.child.venue, event.symbol or "", fill.trade_id] = fill.quantity
                self.recent_fills.append((event, fill.quantity, fill.price))

    @property
    def open(self) -> list[OrderEvent]:
        """The newest event of each order that has not ended, or whose exits still work."""
        return [
            event for event in self.latest.values() if not event.status.terminal or event.order_id in self._protected
        ]
