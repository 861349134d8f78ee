"""The venue itself: placing, matching, triggering, cancelling. No I/O; the time is given."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from decimal import ROUND_DOWN, Decimal

from adapters.simulator.accounts import Account
from adapters.simulator.book import Book
from adapters.simulator.candles import Candles
from adapters.simulator.checks import checked
from adapters.simulator.errors import INVALID_SYMBOL, NO_SUCH_ORDER, UNKNOWN_CANCEL, VenueError
from adapters.simulator.orders import NewOrder, Order, PublicTrade, Trade
from adapters.simulator.stops import STOPS, Stops
from adapters.simulator.symbols import SymbolSpec

__all__ = ["Engine", "Market", "NewOrder", "PublicTrade"]

ZERO = Decimal(0)
_FEE_STEP = Decimal("0.00000001")
_BPS = Decimal(10_000)


class Market:
    """One symbol: its book and what last traded."""

    def __init__(self, spec: SymbolSpec, trades_kept: int) -> None:
        self.spec = spec
        self.book = Book()
        self.last = spec.price
        self.trades: deque[PublicTrade] = deque(maxlen=trades_kept)
        self.candles = Candles()
        self.stops = Stops()
        self.held = 0
        """How many hold the stops back at the moment."""


class Engine:
    """All symbols and accounts of one venue."""

    def __init__(
        self,
        specs: list[SymbolSpec],
        *,
        maker_bps: Decimal,
        taker_bps: Decimal,
        now: Callable[[], int],
        trades_kept: int = 5000,
    ) -> None:
        self.markets = {spec.id: Market(spec, trades_kept) for spec in specs}
        self.accounts: dict[str, Account] = {}
        self.maker = maker_bps / _BPS
        self.taker = taker_bps / _BPS
        self.now = now
        self.on_report: Callable[[Order, str, Trade | None], None] = lambda *_: None
        """Told of every change of an order of an account: the order, the execution type, the trade."""
        self.on_trade: Callable[[SymbolSpec, PublicTrade], None] = lambda *_: None
        self.order_ids = itertools.count(1)
        self.trade_ids = {spec.id: itertools.count(1) for spec in specs}

    def market(self, symbol: str) -> Market:
        """Raises: VenueError -1121."""
        try:
            return self.markets[symbol]
        except KeyError:
            raise INVALID_SYMBOL from None

    # --- placing ----------------------------------------------------------------------------------------------------

    def place(self, account: Account, new: NewOrder) -> Order:
        """Take an order and match what can be matched at once.

        Raises:
            VenueError: the order was not taken.
        """
        market = self.market(new.symbol)
        order = checked(account, market, new, self.order_ids, self.now())
        self._lock(order, market)
        account.orders[order.order_id] = order
        account.by_client_id[new.symbol, order.client_order_id] = order
        account.open[order.order_id] = order
        if order.kind in STOPS:
            order.working = False
            self._report(order, "NEW")
            market.stops.add(order, market.last, order.time)
        else:
            order.working_since = order.time
            self._report(order, "NEW")
            self._work(order, market)
        self._trigger(market)
        return order

    def _lock(self, order: Order, market: Market) -> None:
        """Hold back what the order may cost; a market order is held to what the book asks for it."""
        if not order.buys:
            order.locked = order.quantity
            order.account.lock(order.symbol.base, order.locked)
            return
        if order.price:
            order.locked = order.quantity * order.price
        elif order.kind == "MARKET":
            order.locked = _cost(order, market)
        else:
            order.locked = order.quantity * max(order.stop_price, market.last)
        order.account.lock(order.symbol.quote, order.locked)

    def _lock_more(self, order: Order, market: Market) -> None:
        """A stop that buys at market may cost more than was held back for it; what is free is taken as far as it goes."""
        account, quote = order.account, order.symbol.quote
        lacking = min(_cost(order, market) - order.locked, account.free.get(quote, ZERO))
        if lacking > 0 and not account.unlimited:
            account.lock(quote, lacking)
            order.locked += lacking

    # --- matching ---------------------------------------------------------------------------------------------------

    def _work(self, order: Order, market: Market) -> None:
        book = market.book
        limit = order.price or None
        if order.time_in_force == "FOK" and not self._fillable(order, market):
            self._end(order, "EXPIRED")
            return
        against = book.against(order)
        while order.rest:
            resting = against.best()
            if resting is None or (limit is not None and not book.crosses(order.buys, limit)):
                break
            quantity = min(order.rest, resting.shown)
            if not order.account.unlimited and order.buys and not order.price:
                affordable = order.locked / resting.price // order.symbol.lot * order.symbol.lot
                quantity = min(quantity, affordable)
                if not quantity:
                    break
            self._trade(order, resting, quantity, market)
        if not order.rest:
            return
        if limit is None or order.time_in_force in ("IOC", "FOK"):
            self._end(order, "EXPIRED")
        else:
            book.update_id += 1
            book.side(order).add(order)

    @staticmethod
    def _fillable(order: Order, market: Market) -> bool:
        rest = order.rest
        for _, quantity in market.book.against(order).available(order.price or None):
            rest -= quantity
            if rest <= 0:
                return True
        return False

    def _trade(self, taker: Order, maker: Order, quantity: Decimal, market: Market) -> None:
        price, now = maker.price, self.now()
        trade_id = next(self.trade_ids[market.spec.id])
        self._settle(taker, price, quantity, trade_id, now, maker=False)
        self._settle(maker, price, quantity, trade_id, now, maker=True)
        market.book.update_id += 1
        market.book.side(maker).reduce(maker, quantity)
        market.last = price
        market.stops.see(price, now)
        public = PublicTrade(trade_id, price, quantity, now, maker.buys)
        market.trades.append(public)
        market.candles.add(public)
        self.on_trade(market.spec, public)
        for order in (maker, taker):
            if not order.account.unlimited:
                self.on_report(order, "TRADE", order.trades[-1])

    def _settle(self, order: Order, price: Decimal, quantity: Decimal, trade_id: int, now: int, *, maker: bool) -> None:
        spec, account = order.symbol, order.account
        cost = price * quantity
        order.filled += quantity
        order.notional += cost
        order.updated = now
        order.status = "PARTIALLY_FILLED" if order.rest else "FILLED"
        if account.unlimited:
            return
        rate = self.maker if maker else self.taker
        if order.buys:
            fee, asset = (quantity * rate).quantize(_FEE_STEP, ROUND_DOWN), spec.base
            account.pay(spec.quote, cost)
            account.receive(spec.base, quantity - fee)
            order.locked -= cost
            if order.price > price:  # what the better price saves is free again
                saved = (order.price - price) * quantity
                account.unlock(spec.quote, saved)
                order.locked -= saved
        else:
            fee, asset = (cost * rate).quantize(_FEE_STEP, ROUND_DOWN), spec.quote
            account.pay(spec.base, quantity)
            account.receive(spec.quote, cost - fee)
            order.locked -= quantity
        order.trades.append(Trade(trade_id, price, quantity, fee, asset, maker, now))
        if not order.rest:
            self._close(order)

    # --- triggers ---------------------------------------------------------------------------------------------------

    def mark(self, symbol: str, price: Decimal) -> None:
        """Set the last price without a trade; stops that it reaches are worked.

        Raises:
            VenueError: -1121.
        """
        market = self.market(symbol)
        market.last = price
        market.stops.see(price, self.now())
        self._trigger(market)

    @contextlib.contextmanager
    def together(self, market: Market) -> Iterator[None]:
        """Stops wait until all that is placed inside has been placed, so that they do not meet half a book."""
        market.held += 1
        try:
            yield
        finally:
            market.held -= 1
            self._trigger(market)

    def _trigger(self, market: Market) -> None:
        """Work the stops that a trade has reached, until nothing more happens."""
        while not market.held and (order := market.stops.next_reached()) is not None:
            now = self.now()
            order.working, order.working_since, order.updated = True, now, now
            self._report(order, "NEW")
            if order.buys and not order.price:
                self._lock_more(order, market)
            self._work(order, market)

    # --- ending -----------------------------------------------------------------------------------------------------

    def cancel(
        self, account: Account, symbol: str, order_id: int | None, client_id: str | None, cancel_id: str = ""
    ) -> Order:
        """Take an open order off.

        Raises:
            VenueError: -2011, it is not open.
        """
        market = self.market(symbol)
        order = self._find(account, symbol, order_id, client_id)
        if order is None or not order.open:
            raise UNKNOWN_CANCEL
        order.cancel_id = cancel_id
        if order.working:
            market.book.update_id += 1
            market.book.side(order).remove(order)
        else:
            market.stops.remove(order)
        self._end(order, "CANCELED")
        return order

    def get(self, account: Account, symbol: str, order_id: int | None, client_id: str | None) -> Order:
        """Raises: VenueError -2013."""
        self.market(symbol)
        order = self._find(account, symbol, order_id, client_id)
        if order is None:
            raise NO_SUCH_ORDER
        return order

    @staticmethod
    def _find(account: Account, symbol: str, order_id: int | None, client_id: str | None) -> Order | None:
        if order_id is not None:
            order = account.orders.get(order_id)
            return order if order is not None and order.symbol.id == symbol else None
        if client_id is None:
            raise VenueError(-1102, "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!")
        return account.by_client_id.get((symbol, client_id))

    def _end(self, order: Order, status: str) -> None:
        order.status = status
        order.updated = self.now()
        self._close(order)
        self._report(order, status)

    def _close(self, order: Order) -> None:
        account = order.account
        account.open.pop(order.order_id, None)
        if order.locked:
            account.unlock(order.symbol.quote if order.buys else order.symbol.base, order.locked)
            order.locked = ZERO
        if account.unlimited:
            account.orders.pop(order.order_id, None)
            if account.by_client_id.get((order.symbol.id, order.client_order_id)) is order:
                del account.by_client_id[order.symbol.id, order.client_order_id]

    def _report(self, order: Order, execution: str) -> None:
        if not order.account.unlimited:
            self.on_report(order, execution, None)


def _cost(order: Order, market: Market) -> Decimal:
    """What the book asks for the rest of a market order."""
    rest, cost = order.rest, ZERO
    for price, quantity in market.book.asks.available(None):
        part = min(rest, quantity)
        cost += part * price
        rest -= part
        if not rest:
            break
    return cost
