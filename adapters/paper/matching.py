"""The paper venue's matching model: what would have happened to our orders in a market that is only watched.

Pure: no I/O, no clock, no chance; the same inputs give the same fills. Declared assumptions:

- A taker walks the displayed book level by level, at its prices, never beyond its limit. What it took stays taken until a book
  shows that level with another quantity: one snapshot is not filled up again for the next order. Beyond that, the market does not
  react to us. FOK looks at the depth first; what an IOC or a market order does not find in the book expires.
- A trade is newer than the book before it, and older than the one after it. What is better than the price of the last trade, or of
  the last one whose taker was on the order's own side, is gone until a book shows it (`tape.py`). An order that goes as far as such
  a price meets what is not known: it is open, and works with the next book. One that does not takes nothing, and rests or expires.
- A resting order queues behind a fraction `queue_ahead` of the quantity displayed at its price when it is placed (`queue.py` has
  the queue). It trades, as maker at its own limit price, when a taker of the other side (or one of unknown side) trades at its
  price and reaches its place in the queue; when anybody trades through its price, up to the traded quantity; and when a book's
  opposite side reaches its price, up to the quantity shown there. A price deeper than the book shows has an unknown queue, and
  nothing trades at it until a book shows the level.
- Our own orders never trade with each other. At one price they queue behind one another.
- Stops, take-profits and trailing stops wait for the price of a trade (`triggers.py`), or work at once where the last one has reached
  them. What is set off comes after all trades that are told together. Where those used up what the book shows at the touch, it works
  with the next book as well: in a gap a stop gets the prices on the other side of the gap.
- Only the shown part of an iceberg queues; each next part starts at the back, behind all that is displayed then.
- Fees are the rules' fractions of the notional, of a buy in the base asset where the rules say so, rounded to 12 decimals.
- With an account, an order is held to what is free, including its fee. Contracts are not: margin and profit are not modelled.
- A reduce-only order of a contract is refused when it exceeds what was bought and sold here; later fills of others do not shrink it.
- Orders of time in force GTD work like GTC: ending them is the service's part.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from decimal import Decimal

from adapters.base import (
    DuplicateClientOrderId,
    InsufficientFunds,
    NewOrder,
    OrderUnknown,
    PostOnlyRejected,
    Rejected,
    VenueFill,
    VenueOrderStatus,
)
from adapters.paper.accounts import Account
from adapters.paper.checks import check
from adapters.paper.liquidity import Liquidity
from adapters.paper.orders import OrderRecords, PaperOrder
from adapters.paper.queue import RestingOrders, refresh
from adapters.paper.tape import Tape
from adapters.paper.triggers import Triggers, stop_price
from schemas.market import MarketRules, OrderBook, PublicTrade
from schemas.terms import OrderType, Side, TimeInForce

ZERO = Decimal(0)
ONE = Decimal(1)
_FEE_STEP = Decimal("1e-12")
_OPEN, _FILLED = VenueOrderStatus.OPEN, VenueOrderStatus.FILLED
_MARKET, _TRAILING = OrderType.MARKET, OrderType.TRAILING_STOP
_IOC, _FOK, _PO = TimeInForce.IOC, TimeInForce.FOK, TimeInForce.PO

Change = tuple[PaperOrder, VenueFill | None]
"""An order that changed, and the fill that changed it."""


class Matcher:
    """One symbol: its market as last shown, and our orders in it. Times are given, in ms."""

    def __init__(
        self,
        rules: MarketRules,
        *,
        queue_ahead: Decimal = ONE,
        account: Account | None = None,
        records: OrderRecords | None = None,
        ids: Iterator[int] | None = None,
        id_prefix: str = "p",
    ) -> None:
        """`queue_ahead`: from 0 (always first) to 1 (always last). `account` None: nothing is held to a balance. `records` and
        `ids` are shared by the symbols of one venue."""
        if not 0 <= queue_ahead <= 1:
            raise ValueError(f"queue_ahead is a fraction, not {queue_ahead}")
        self.rules = rules
        self.book: OrderBook | None = None
        self.last: Decimal | None = None
        """The price of the last trade."""
        self.position = ZERO
        """What was bought less what was sold here."""
        self._account = None if rules.contract else account
        self._records = records if records is not None else OrderRecords()
        self._ids = ids if ids is not None else itertools.count(1)
        self._prefix = id_prefix
        self._asks = Liquidity(asks=True)
        self._bids = Liquidity(asks=False)
        self._buys = RestingOrders(buys=True, queue_ahead=queue_ahead)
        self._sells = RestingOrders(buys=False, queue_ahead=queue_ahead)
        self._triggers = Triggers()
        self._tape = Tape()
        self._pending: list[PaperOrder] = []
        """Orders that met no book, or only what trades have gone through: they work with the next one."""
        self._changes: list[Change] = []
        self._now = 0

    # --- the market -------------------------------------------------------------------------------------------------

    def on_book(self, book: OrderBook, now: int) -> Sequence[Change]:
        """The market shows a book."""
        self.book = book
        self._tape.clear()
        self._asks.show(book.asks)
        self._bids.show(book.bids)
        if not (self._buys or self._sells or self._pending):
            return ()
        self._now = now
        if self._buys:
            self._buys.show(book.bids)
            self._cross(self._buys, self._asks)
        if self._sells:
            self._sells.show(book.asks)
            self._cross(self._sells, self._bids)
        if self._pending:
            pending, self._pending = self._pending, []
            for order in pending:
                self._set_off(order)
        return self._take_changes()

    def on_trades(self, trades: Sequence[PublicTrade], now: int) -> Sequence[Change]:
        """Others traded, oldest first."""
        if not trades:
            return ()
        self.last = trades[-1].price
        tape = self._tape
        for trade in trades:
            tape.add(trade)
        if not (self._buys or self._sells or self._triggers):
            return ()
        self._now = now
        reached: list[PaperOrder] = []
        for trade in trades:
            price, rest, side = trade.price, trade.quantity, trade.side
            if side is Side.BUY:
                rest = self._sells.trade(price, rest, reaches=True, fill=self._fill_maker)
                self._buys.trade(price, rest, reaches=False, fill=self._fill_maker)
            else:
                rest = self._buys.trade(price, rest, reaches=True, fill=self._fill_maker)
                self._sells.trade(price, rest, reaches=side is None, fill=self._fill_maker)
            if self._triggers:
                reached += self._triggers.reached(price)
        for order in reached:
            self._set_off(order)
        return self._take_changes()

    def void(self) -> None:
        """The book is no longer known. Resting orders keep their places."""
        self.book = None
        self._asks.void()
        self._bids.void()

    # --- orders -----------------------------------------------------------------------------------------------------

    def place(self, order: NewOrder, now: int) -> PaperOrder:
        """Take an order, and match what can be matched at once.

        Raises:
            Rejected (PostOnlyRejected, InsufficientFunds), DuplicateClientOrderId: it was not taken.
        """
        check(order, self.rules, self.position)
        if (order.symbol, order.client_order_id) in self._records.open:
            raise DuplicateClientOrderId(f"{order.client_order_id} is open already")
        self._now = now
        paper = PaperOrder(order, f"{self._prefix}{next(self._ids)}", now)
        waits = order.order_type is not _MARKET and order.order_type is not OrderType.LIMIT
        if not waits:
            if self.book is None:
                raise Rejected("no market data")
            if self._would_take(paper):
                raise PostOnlyRejected(f"a post-only order at {order.price:f} would take liquidity")
        if self._account is not None:
            self._lock(self._account, paper)
        self._records.add(paper)
        if waits:
            self._triggers.add(paper, self.last)
            if self.last is not None:
                for reached in self._triggers.reached(self.last):
                    self._set_off(reached)
        else:
            self._work(paper)
        self._changes.clear()
        return paper

    def cancel(self, paper: PaperOrder, now: int) -> None:
        """End an open order.

        Raises:
            OrderUnknown: it is not open.
        """
        if paper.status is not _OPEN:
            raise OrderUnknown(f"{paper.order.client_order_id} is {paper.status.value}")
        self._now = now
        if paper in self._pending:
            self._pending.remove(paper)
        elif not self._triggers.remove(paper):
            (self._buys if paper.buys else self._sells).remove(paper)
        self._end(paper, VenueOrderStatus.CANCELED, None)
        self._changes.clear()

    def _would_take(self, paper: PaperOrder) -> bool:
        """Whether a post-only order would not be one."""
        order, limit = paper.order, paper.limit
        if limit is None or not (order.post_only or order.time_in_force is _PO):
            return False
        best = self._against(paper).best()
        return best is not None and _reaches(paper, self._tape.front(best[0], buys=paper.buys))

    # --- matching ---------------------------------------------------------------------------------------------------

    def _against(self, paper: PaperOrder) -> Liquidity:
        return self._asks if paper.buys else self._bids

    def _work(self, paper: PaperOrder, *, set_off: bool = False) -> None:
        """Take what is there, and rest or expire with the rest."""
        against, limit, in_force = self._against(paper), paper.limit, paper.order.time_in_force
        gone, best = False, against.best()
        if best is not None:
            front = self._tape.front(best[0], buys=paper.buys)
            gone = front != best[0]
            if (gone or (set_off and self._tape.has_used_up(*best))) and _reaches(paper, front):
                self._pending.append(paper)
                return
        if in_force is _FOK:
            there = ZERO if gone else sum((quantity for _, quantity in against.look(paper.rest, limit)), ZERO)
            if there < paper.rest:
                self._end(paper, VenueOrderStatus.EXPIRED, f"fill or kill: the book had {there:f}")
                return
        if not gone:
            for price, quantity in against.take(paper.rest, limit):
                self._fill(paper, price, quantity, maker=False)
            if not paper.rest:
                return
        if limit is None:
            self._end(paper, VenueOrderStatus.EXPIRED, "beyond the depth of the book")
        elif in_force is _IOC:
            self._end(paper, VenueOrderStatus.EXPIRED, "immediate or cancel")
        else:
            book = self.book
            levels = () if book is None else book.bids if paper.buys else book.asks
            (self._buys if paper.buys else self._sells).add(paper, levels)

    def _cross(self, resting: RestingOrders, against: Liquidity) -> None:
        """The market's other side has come to our resting orders."""
        for paper in resting:
            quantity = sum((part for _, part in against.take(paper.rest, paper.limit)), ZERO)
            if not quantity:
                return
            resting.sweep(paper)
            self._fill_maker(paper, quantity)
            if not paper.rest:
                resting.remove(paper)
            elif not paper.visible:
                refresh(paper)

    def _set_off(self, paper: PaperOrder) -> None:
        """The last price has reached an order's trigger, or an order that waited for a book meets one."""
        paper.timestamp = self._now
        if self.book is None:
            self._pending.append(paper)
        elif self._would_take(paper):
            self._end(paper, VenueOrderStatus.REJECTED, "post-only: when triggered it would have taken liquidity")
        elif self._account is not None and not self._lock_again(self._account, paper):
            self._end(paper, VenueOrderStatus.REJECTED, "when it came to the book it cost more than the account holds")
        else:
            self._changes.append((paper, None))
            self._work(paper, set_off=True)

    def _fill_maker(self, paper: PaperOrder, quantity: Decimal) -> None:
        assert paper.limit is not None
        paper.visible = paper.visible - quantity if quantity < paper.visible else ZERO
        self._fill(paper, paper.limit, quantity, maker=True)

    def _fill(self, paper: PaperOrder, price: Decimal, quantity: Decimal, *, maker: bool) -> None:
        rules, order = self.rules, paper.order
        rate = rules.maker_fee if maker else rules.taker_fee
        in_base = rules.fee_in_base and paper.buys
        fee = (quantity * rate if in_base else quantity * price * rate).quantize(_FEE_STEP) if rate else ZERO
        paper.rest -= quantity
        paper.timestamp = self._now
        fill = VenueFill(
            trade_id=f"{self._prefix}{next(self._ids)}",
            symbol=order.symbol,
            side=order.side,
            price=price,
            quantity=quantity,
            fee=fee,
            fee_asset=rules.base if in_base else rules.quote,
            maker=maker,
            timestamp=self._now,
            venue_order_id=paper.venue_order_id,
            client_order_id=order.client_order_id,
        )
        paper.fills.append(fill)
        self.position += quantity if paper.buys else -quantity
        self._changes.append((paper, fill))
        if self._account is not None:
            self._settle(self._account, paper, fill)
        if not paper.rest:
            self._close(paper, _FILLED)

    def _end(self, paper: PaperOrder, status: VenueOrderStatus, reason: str | None) -> None:
        paper.reason = reason
        paper.timestamp = self._now
        self._close(paper, status)
        self._changes.append((paper, None))

    def _close(self, paper: PaperOrder, status: VenueOrderStatus) -> None:
        paper.status = status
        self._records.end(paper)
        if self._account is not None and paper.locked:
            self._account.unlock(self.rules.quote if paper.buys else self.rules.base, paper.locked)
            paper.locked = ZERO

    def _take_changes(self) -> Sequence[Change]:
        if not self._changes:
            return ()
        changes, self._changes = self._changes, []
        return changes

    # --- the account ------------------------------------------------------------------------------------------------

    def _lock(self, account: Account, paper: PaperOrder) -> None:
        """Hold back what an order may cost.

        Raises:
            InsufficientFunds
        """
        amount = paper.order.quantity
        if paper.buys:
            amount = self._cost(paper, triggered=False)
        account.lock(self.rules.quote if paper.buys else self.rules.base, amount)
        paper.locked = amount

    def _lock_again(self, account: Account, paper: PaperOrder) -> bool:
        """A buy without a limit price that waited costs what the book now says; whether that can be held back."""
        if not paper.buys or paper.limit is not None:
            return True
        account.unlock(self.rules.quote, paper.locked)
        paper.locked = ZERO
        try:
            amount = self._cost(paper, triggered=True)
            account.lock(self.rules.quote, amount)
        except InsufficientFunds:
            return False
        paper.locked = amount
        return True

    def _cost(self, paper: PaperOrder, *, triggered: bool) -> Decimal:
        """What a buy may cost, with its fee: by its limit, by the book, or by its trigger while it waits for that."""
        rules, quantity = self.rules, paper.order.quantity
        if paper.limit is not None:
            cost = quantity * paper.limit
        elif triggered or paper.order.order_type is _MARKET:
            cost = sum((price * part for price, part in self._asks.look(quantity, None)), ZERO)
        else:
            cost = quantity * (stop_price(paper) or self.last or ZERO)
        if not rules.fee_in_base:
            cost *= ONE + max(rules.taker_fee, rules.maker_fee, ZERO)
        return cost.quantize(_FEE_STEP)

    def _settle(self, account: Account, paper: PaperOrder, fill: VenueFill) -> None:
        rules, cost = self.rules, fill.price * fill.quantity
        if not paper.buys:
            account.spend(rules.base, fill.quantity)
            account.receive(rules.quote, cost - fill.fee)
            paper.locked -= fill.quantity
            return
        in_base = rules.fee_in_base
        paid = cost if in_base else cost + fill.fee
        account.spend(rules.quote, paid)
        account.receive(rules.base, fill.quantity - fill.fee if in_base else fill.quantity)
        paper.locked -= paid


def _reaches(paper: PaperOrder, price: Decimal) -> bool:
    """Whether an order would trade at a price."""
    limit = paper.limit
    return limit is None or (limit >= price if paper.buys else limit <= price)
