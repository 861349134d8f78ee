"""Sums over an order's children that cost the same after a hundred thousand of them as after one.

A child that has ended, with all its trades booked, is added up once. One that may still change is added up when asked for. A
child that changes after its end (a fill that raced its cancel) is taken out again first.
"""

from __future__ import annotations

import bisect
from decimal import Decimal
from operator import attrgetter

from schemas.order import ChildOrder, ChildState, Totals

ZERO = Decimal(0)


class RunningTotals:
    def __init__(self) -> None:
        self.children: list[ChildOrder] = []
        self._active: dict[str, ChildOrder] = {}
        self._filled = self._notional = self._quote_fees = ZERO
        self._fees: dict[str, Decimal] = {}

    @property
    def active(self) -> list[ChildOrder]:
        """The children that may still fill, or whose trades are not all booked, and those that ended since `settle`."""
        return list(self._active.values())

    @property
    def live(self) -> list[ChildOrder]:
        """The children that may still fill."""
        return [child for child in self._active.values() if not child.state.terminal]

    def add(self, child: ChildOrder) -> None:
        """A new child; one that was adopted may be older than others."""
        bisect.insort(self.children, child, key=attrgetter("number"))
        self._active[child.child_id] = child

    def revive(self, child: ChildOrder) -> None:
        """A child is about to change: take it out of what is added up for good."""
        if child.child_id not in self._active:
            self._count(child, -1)
            self._active[child.child_id] = child

    def settle(self) -> None:
        """Add up for good what has ended."""
        if not self._active:
            return
        for child in [child for child in self._active.values() if child.state.terminal and child.claim == child.filled]:
            self._count(child, 1)
            del self._active[child.child_id]

    def _count(self, child: ChildOrder, sign: int) -> None:
        if child.filled:
            self._filled += sign * child.filled
            self._notional += sign * child.notional
            self._quote_fees += sign * child.quote_fees
            for asset, amount in child.fees.items():
                self._fees[asset] = self._fees.get(asset, ZERO) + sign * amount

    @property
    def filled(self) -> Decimal:
        """`totals.filled`, where nothing else is asked for."""
        return sum((child.filled for child in self._active.values()), self._filled)

    @property
    def totals(self) -> Totals:
        """`filled` counts booked trades; executed quantity whose trades are not yet known is in `unknown`."""
        filled, notional, quote_fees = self._filled, self._notional, self._quote_fees
        open_ = unknown = ZERO
        fees = dict(self._fees)
        for child in self._active.values():
            rest = child.claim - child.filled
            if rest:
                at_venue = child.leaves if child.state is ChildState.OPEN else ZERO
                open_ += at_venue
                unknown += rest - at_venue
            if child.filled:
                filled += child.filled
                notional += child.notional
                quote_fees += child.quote_fees
                for asset, amount in child.fees.items():
                    fees[asset] = fees.get(asset, ZERO) + amount
        if fees:
            fees = {asset: amount for asset, amount in fees.items() if amount}
        return Totals(filled, notional, open_, unknown, fees, quote_fees)
