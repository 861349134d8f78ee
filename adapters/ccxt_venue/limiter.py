"""A venue's rate limits, kept before it has to refuse us: one limiter per venue and key.

Windows are the venue's own fixed ones (a minute, ten seconds), counted here and corrected by what its answers say. Cancels and the
questions that settle unknown orders go first, and a part of every budget is kept for them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping

RESERVE = 0.1
"""The part of the request weight that new orders leave to cancels and questions."""


class Budget:
    """A limit per fixed window. `interval` in ms."""

    def __init__(self, interval: int, limit: int, header: str | None = None) -> None:
        self.interval = interval
        self.limit = limit
        self.header = header
        self._window = 0
        self._used = 0

    def used(self, now: int) -> int:
        if now // self.interval != self._window:
            self._window, self._used = now // self.interval, 0
        return self._used

    def fits(self, cost: int, now: int, reserve: float) -> bool:
        return self.used(now) + cost <= self.limit * (1 - reserve)

    def take(self, cost: int, now: int) -> None:
        self._used = self.used(now) + cost

    def correct(self, told: int, now: int) -> None:
        """The venue counts differently: believe the larger."""
        self._used = max(self.used(now), told)

    def next_window(self, now: int) -> int:
        return (now // self.interval + 1) * self.interval


class Limiter:
    """Turns at a venue's limits: urgent requests first, then the others, each in order."""

    def __init__(self) -> None:
        self.weight: list[Budget] = []
        self.orders: list[Budget] = []
        self.blocked_until = 0
        """Ms since the epoch: until then the venue refuses everything."""
        self.orders_blocked_until = 0
        self._urgent: deque[tuple[asyncio.Future[None], int, bool]] = deque()
        self._normal: deque[tuple[asyncio.Future[None], int, bool]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def queued(self) -> int:
        return len(self._urgent) + len(self._normal)

    async def turn(self, weight: int, *, order: bool = False, urgent: bool = False) -> None:
        """Wait until a request of this weight may go; `order`: it also counts as a new order."""
        ahead = self._urgent if urgent else (self._urgent or self._normal)
        if not ahead and self._take(weight, order, urgent):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._urgent if urgent else self._normal).append((turn, weight, order))
        self._pump()
        await turn

    def observe(self, headers: Mapping[str, str]) -> None:
        """Correct the counts by what an answer says."""
        now = _now()
        for budget in (*self.weight, *self.orders):
            told = headers.get(budget.header) if budget.header is not None else None
            if told is not None and told.isdigit():
                budget.correct(int(told), now)

    def refused(self, until: int, *, orders_only: bool) -> None:
        """The venue refused for rate reasons until then (ms since the epoch)."""
        if orders_only:
            self.orders_blocked_until = max(self.orders_blocked_until, until)
        else:
            self.blocked_until = max(self.blocked_until, until)

    def _take(self, weight: int, order: bool, urgent: bool) -> bool:
        now = _now()
        if now < self.blocked_until or (order and now < self.orders_blocked_until):
            return False
        reserve = 0.0 if urgent else RESERVE
        if not all(budget.fits(weight, now, reserve) for budget in self.weight):
            return False
        if order and not all(budget.fits(1, now, 0.0) for budget in self.orders):
            return False
        for budget in self.weight:
            budget.take(weight, now)
        if order:
            for budget in self.orders:
                budget.take(1, now)
        return True

    def _pump(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for lane, urgent in ((self._urgent, True), (self._normal, False)):
            while lane:
                turn, weight, order = lane[0]
                if turn.done():
                    lane.popleft()
                elif self._take(weight, order, urgent):
                    lane.popleft()
                    turn.set_result(None)
                else:
                    break
            if lane:
                break
        if self.queued:
            now = _now()
            waits = [budget.next_window(now) for budget in (*self.weight, *self.orders)]
            waits += [until for until in (self.blocked_until, self.orders_blocked_until) if until > now]
            delay = max(min(waits, default=now + 1000) - now, 1) / 1000
            self._timer = asyncio.get_running_loop().call_later(delay + 0.005, self._pump)


def of_binance(rate_limits: list[dict[str, object]]) -> Limiter:
    """The limits that Binance's `exchangeInfo` lists."""
    units = {"SECOND": (1000, "S"), "MINUTE": (60_000, "M"), "HOUR": (3_600_000, "H"), "DAY": (86_400_000, "D")}
    limiter = Limiter()
    for rule in rate_limits:
        unit = units.get(str(rule.get("interval")))
        if unit is None:
            continue
        number, limit = int(str(rule.get("intervalNum", 1))), int(str(rule.get("limit", 0)))
        span = f"{number}{unit[1]}".lower()
        if rule.get("rateLimitType") == "REQUEST_WEIGHT":
            limiter.weight.append(Budget(unit[0] * number, limit, f"x-mbx-used-weight-{span}"))
        elif rule.get("rateLimitType") == "ORDERS":
            limiter.orders.append(Budget(unit[0] * number, limit, f"x-mbx-order-count-{span}"))
    return limiter


def of_interval(milliseconds: float) -> Limiter:
    """One request per so many ms on average, as ccxt's `rateLimit` says."""
    limiter = Limiter()
    limiter.weight.append(Budget(1000, max(int(1000 / milliseconds), 1) if milliseconds > 0 else 1000))
    return limiter


def _now() -> int:
    return time.time_ns() // 1_000_000
