"""Orders at the paper venue, and which of them are remembered."""

from __future__ import annotations

from collections import deque
from decimal import Decimal

from adapters.base import NewOrder, VenueFill, VenueOrder, VenueOrderStatus
from schemas.terms import Side

ZERO = Decimal(0)
_OPEN = VenueOrderStatus.OPEN


class PaperOrder:
    """One order. Written by the matcher only."""

    __slots__ = (
        "ahead",
        "best",
        "buys",
        "fills",
        "limit",
        "locked",
        "order",
        "reason",
        "rest",
        "status",
        "timestamp",
        "venue_order_id",
        "visible",
    )

    def __init__(self, order: NewOrder, venue_order_id: str, now: int) -> None:
        self.order = order
        self.venue_order_id = venue_order_id
        self.buys = order.side is Side.BUY
        self.limit = order.price if order.order_type.has_limit_price else None
        """The worst price it takes; None: any."""
        self.status = _OPEN
        self.rest = order.quantity
        self.fills: list[VenueFill] = []
        self.reason: str | None = None
        self.timestamp = now
        self.visible = ZERO
        """The part of the rest that stands in the queue: all of it, but for an iceberg."""
        self.ahead = ZERO
        """While it rests: the market's quantity at its price that trades before it."""
        self.best: Decimal | None = None
        """Of a trailing stop: the best last price since it was placed."""
        self.locked = ZERO
        """What of the account is held back for it: base of a sell, quote of a buy."""

    def told(self, *, with_fills: bool = False) -> VenueOrder:
        """The order as the venue would tell it now."""
        order = self.order
        return VenueOrder(
            symbol=order.symbol,
            client_order_id=order.client_order_id,
            venue_order_id=self.venue_order_id,
            status=self.status,
            quantity=order.quantity,
            filled=order.quantity - self.rest,
            price=order.price,
            side=order.side,
            order_type=order.order_type,
            stop_price=order.stop_price,
            time_in_force=order.time_in_force,
            timestamp=self.timestamp,
            reason=self.reason,
            fills=tuple(self.fills) if with_fills else (),
        )


class OrderRecords:
    """The open orders, and the last ones that ended."""

    def __init__(self, remembered: int = 10_000) -> None:
        """`remembered`: how many ended orders are still known."""
        self.open: dict[tuple[str, str], PaperOrder] = {}
        """By symbol and client order id."""
        self._by_client_id: dict[tuple[str, str], PaperOrder] = {}
        self._by_venue_id: dict[str, PaperOrder] = {}
        self._ended: deque[PaperOrder] = deque()
        self._remembered = remembered

    def add(self, paper: PaperOrder) -> None:
        name = (paper.order.symbol, paper.order.client_order_id)
        self.open[name] = self._by_client_id[name] = paper
        self._by_venue_id[paper.venue_order_id] = paper

    def end(self, paper: PaperOrder) -> None:
        """An order has ended: keep it as one of the last."""
        del self.open[paper.order.symbol, paper.order.client_order_id]
        self._ended.append(paper)
        if len(self._ended) > self._remembered:
            oldest = self._ended.popleft()
            del self._by_venue_id[oldest.venue_order_id]
            name = (oldest.order.symbol, oldest.order.client_order_id)
            # Its client order id may have been used again since.
            if self._by_client_id[name] is oldest:
                del self._by_client_id[name]

    def find(self, symbol: str, client_order_id: str, venue_order_id: str | None) -> PaperOrder | None:
        """By the venue's id where given, else the latest of that client order id; None: not known (any more)."""
        if venue_order_id is not None:
            paper = self._by_venue_id.get(venue_order_id)
            if paper is not None and paper.order.symbol == symbol:
                return paper
        return self._by_client_id.get((symbol, client_order_id))

    def fills(self, symbol: str, venue_order_id: str) -> list[VenueFill]:
        """The fills of an order, oldest first; none of one that is not known."""
        paper = self._by_venue_id.get(venue_order_id)
        return list(paper.fills) if paper is not None and paper.order.symbol == symbol else []

    def fills_since(self, symbol: str, since_ms: int) -> list[VenueFill]:
        """The fills of the orders known since a time, oldest first."""
        papers = (paper for paper in self._by_venue_id.values() if paper.order.symbol == symbol)
        found = [fill for paper in papers for fill in paper.fills if fill.timestamp >= since_ms]
        found.sort(key=lambda fill: fill.timestamp)
        return found
