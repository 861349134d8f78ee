"""A venue's rate limits, kept before it has to refuse us: one limiter per venue and key.

Windows are the venue's own fixed ones (a minute, ten seconds, by its clock), counted here and corrected by what its answers say.
Cancels, and the questions that settle unknown orders, go strictly first, and a part of every budget is kept for them; orders that only
close a position go before those that open one.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from enum import IntEnum

from adapters.base import AdapterHealth, ApprovedOrder, RateLimited

RESERVE = 0.1
"""The part of a weight budget that orders and reads leave to urgent requests."""
MARKET_RESERVE = 0.5
"""The part that watching the market leaves to everything else."""
MARGIN_MS = 5
"""Waited beyond the beginning of a window, for clocks that differ a little."""


class Lane(IntEnum):
    URGENT = 0
    """Cancels, and questions about unknown orders."""
    PROTECT = 1
    """Orders that only close a position."""
    ORDER = 2
    READ = 3
    MARKET = 4
    """Books and trades of everybody, again and again."""


PATIENCE_MS = {Lane.URGENT: 60_000, Lane.PROTECT: 5_000, Lane.ORDER: 5_000, Lane.READ: 5_000, Lane.MARKET: 5_000}
"""How long a request waits here for its turn, before it is given back as rate limited."""
_RESERVES = {
    Lane.URGENT: 0.0,
    Lane.PROTECT: RESERVE / 2,
    Lane.ORDER: RESERVE,
    Lane.READ: RESERVE,
    Lane.MARKET: MARKET_RESERVE,
}
_ORDERS_KEPT = 0.05
"""The part of the limits on orders that is kept for those that only close a position."""
_CREATES = (Lane.PROTECT, Lane.ORDER)


def lane_of(order: ApprovedOrder) -> Lane:
    """The lane in which an order is placed."""
    return Lane.PROTECT if order.protects else Lane.ORDER


class Budget:
    """A limit per fixed window of `interval` ms. `header`: where an answer says how much of it is used."""

    def __init__(self, interval: int, limit: float, header: str | None = None) -> None:
        self.interval = interval
        self.limit = limit
        self.header = header
        self._window = 0
        self._used = 0.0

    def fits(self, cost: float, now: int, reserve: float = 0.0) -> bool:
        used = self._used_in(now)
        return used == 0 or used + cost <= self.limit * (1 - reserve)

    def take(self, cost: float, now: int) -> None:
        self._used = self._used_in(now) + cost

    def correct(self, told: int, sent: int, now: int) -> None:
        """The venue's own count, of the window in which the request was sent: the larger count holds."""
        if sent // self.interval == now // self.interval:
            self._used = max(self._used_in(now), told)

    def next_window(self, now: int) -> int:
        return (now // self.interval + 1) * self.interval

    def _used_in(self, now: int) -> float:
        window = now // self.interval
        if window != self._window:
            self._window, self._used = window, 0.0
        return self._used


class _Ticket:
    __slots__ = ("deadline", "turn", "weight")

    def __init__(self, weight: float, deadline: int) -> None:
        self.weight = weight
        self.deadline = deadline
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Limiter:
    """Turns at a venue's limits. What operators see of it goes into `health`."""

    def __init__(
        self,
        health: AdapterHealth,
        *,
        weight: Sequence[Budget] = (),
        requests: Sequence[Budget] = (),
        orders: Sequence[Budget] = (),
    ) -> None:
        self.skew_ms = 0
        """The venue's clock minus ours."""
        self._health = health
        self._weight, self._requests, self._orders = tuple(weight), tuple(requests), tuple(orders)
        self._blocked_until = 0
        self._orders_blocked_until = 0
        self._lanes: dict[Lane, deque[_Ticket]] = {lane: deque() for lane in Lane}
        self._waiting = 0
        """Tickets in the lanes, also those whose owner gave up."""
        self._timer: asyncio.TimerHandle | None = None

    def adopt(self, other: Limiter) -> None:
        """Go on with the budgets of another limiter, learned later."""
        self._weight, self._requests, self._orders = other._weight, other._requests, other._orders

    def spacing(self, weight: float) -> float:
        """Seconds per request of this weight, on average, that use all there is."""
        spacings = [budget.interval * weight / budget.limit for budget in self._weight]
        return max([*spacings, *(budget.interval / budget.limit for budget in self._requests)], default=0.0) / 1000

    async def turn(self, weight: float, lane: Lane) -> None:
        """Wait until a request of this weight may go.

        Raises:
            RateLimited: its turn does not come within the lane's patience.
        """
        now = _now()
        if not self._waiting and self._take(weight, lane, now):
            return
        blocked = max(self._blocked_until, self._orders_blocked_until if lane in _CREATES else 0)
        if blocked - now > PATIENCE_MS[lane]:
            raise _limited(blocked)
        ticket = _Ticket(weight, now + PATIENCE_MS[lane])
        self._lanes[lane].append(ticket)
        self._waiting += 1
        self._health.queued += 1
        self._pump()
        try:
            await ticket.turn
        finally:
            self._health.queued -= 1

    def observe(self, headers: Mapping[str, str], sent_ms: int) -> None:
        """Correct the counts by an answer's headers (names in lower case) to a request sent at `sent_ms`, our clock."""
        now = _now() + self.skew_ms
        for budgets in (self._weight, self._orders):
            for budget in budgets:
                told = headers.get(budget.header) if budget.header is not None else None
                if told is not None and told.isdigit():
                    budget.correct(int(told), sent_ms + self.skew_ms, now)

    def refused(self, until: int, *, orders_only: bool) -> None:
        """The venue refused for rate reasons until then (ms since the epoch, our clock)."""
        if orders_only:
            self._orders_blocked_until = max(self._orders_blocked_until, until)
        else:
            self._blocked_until = max(self._blocked_until, until)
        self._pump()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _take(self, weight: float, lane: Lane, now: int) -> bool:
        if now < self._blocked_until:
            return False
        at = now + self.skew_ms
        order, reserve = lane in _CREATES, _RESERVES[lane]
        if order and now < self._orders_blocked_until:
            return False
        for budget in self._orders if order else ():
            kept = int(budget.limit * _ORDERS_KEPT) if lane is Lane.ORDER else 0
            if not budget.fits(1 + kept, at):
                return False
        if not all(budget.fits(weight, at, reserve) for budget in self._weight):
            return False
        if not all(budget.fits(1, at, reserve) for budget in self._requests):
            return False
        for budget in self._weight:
            budget.take(weight, at)
        for budget in self._requests:
            budget.take(1, at)
        if order:
            for budget in self._orders:
                budget.take(1, at)
        return True

    def _pump(self) -> None:
        """Let go who may; come back when that may change."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now, held, protecting = _now(), False, False
        for lane, tickets in self._lanes.items():
            while tickets:
                ticket = tickets[0]
                if ticket.turn.done():
                    pass
                elif not (held or (protecting and lane is Lane.ORDER)) and self._take(ticket.weight, lane, now):
                    ticket.turn.set_result(None)
                elif ticket.deadline <= now:
                    ticket.turn.set_exception(_limited(self._free_at(now)))
                else:
                    break
                tickets.popleft()
                self._waiting -= 1
            held = held or (bool(tickets) and lane is Lane.URGENT)
            protecting = protecting or (bool(tickets) and lane is Lane.PROTECT)
        blocked = max(self._blocked_until, self._orders_blocked_until)
        free_at = self._free_at(now) if self._waiting else blocked if blocked > now else None
        # Who watches the market waits while orders may still go.
        waits = blocked > now or any(tickets for lane, tickets in self._lanes.items() if lane is not Lane.MARKET)
        self._health.limited_until = free_at if waits else None
        if free_at is not None:
            deadlines = [tickets[0].deadline for tickets in self._lanes.values() if tickets]
            wake = min([free_at, *deadlines])
            self._timer = asyncio.get_running_loop().call_later(max(wake - now, 1) / 1000, self._pump)

    def _free_at(self, now: int) -> int:
        """When somebody may go who may not go now: the end of a block, or the next window."""
        blocks = [until for until in (self._blocked_until, self._orders_blocked_until) if until > now]
        if blocks:
            return min(blocks) + 1
        at = now + self.skew_ms
        windows = [budget.next_window(at) for budget in (*self._weight, *self._requests, *self._orders)]
        return min(windows, default=at + 1000) - self.skew_ms + MARGIN_MS


def of_binance(health: AdapterHealth, rate_limits: Sequence[object]) -> Limiter:
    """The limits that Binance's `exchangeInfo` lists."""
    units = {"SECOND": (1000, "s"), "MINUTE": (60_000, "m"), "HOUR": (3_600_000, "h"), "DAY": (86_400_000, "d")}
    found: dict[str, list[Budget]] = {"REQUEST_WEIGHT": [], "RAW_REQUESTS": [], "ORDERS": []}
    headers = {"REQUEST_WEIGHT": "x-mbx-used-weight-", "ORDERS": "x-mbx-order-count-"}
    for rule in rate_limits:
        if not isinstance(rule, dict):
            continue
        unit, kind = units.get(str(rule.get("interval"))), str(rule.get("rateLimitType"))
        number, limit = str(rule.get("intervalNum", 1)), str(rule.get("limit", ""))
        if unit is None or kind not in found or not number.isdigit() or not limit.isdigit():
            continue
        if int(number) > 0 and int(limit) > 0:
            header = f"{headers[kind]}{number}{unit[1]}" if kind in headers else None
            found[kind].append(Budget(unit[0] * int(number), int(limit), header))
    return Limiter(health, weight=found["REQUEST_WEIGHT"], requests=found["RAW_REQUESTS"], orders=found["ORDERS"])


def of_interval(health: AdapterHealth, milliseconds: float) -> Limiter:
    """One request of cost 1 per so many ms on average, as ccxt's `rateLimit` says."""
    if milliseconds <= 0:
        return Limiter(health)
    interval = max(1000, int(milliseconds))
    return Limiter(health, weight=[Budget(interval, interval / milliseconds)])


def _limited(until: int) -> RateLimited:
    return RateLimited("waits at the venue's rate limit", until=until)


def _now() -> int:
    return time.time_ns() // 1_000_000
