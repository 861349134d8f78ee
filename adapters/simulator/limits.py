"""Request weight and order counts, enforced as Binance does: 429 first, 418 for who goes on."""

from __future__ import annotations

from typing import Any

import msgspec

from adapters.simulator.errors import VenueError

_WEIGHTS = {
    ("GET", "/api/v3/exchangeInfo"): 20,
    ("GET", "/api/v3/account"): 20,
    ("GET", "/api/v3/myTrades"): 20,
    ("GET", "/api/v3/allOrders"): 20,
    ("GET", "/api/v3/depth"): 5,
    ("GET", "/api/v3/trades"): 25,
    ("GET", "/api/v3/order"): 4,
    ("GET", "/api/v3/openOrders"): 6,
}


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much is allowed; the same numbers stand in `exchangeInfo`."""

    weight_per_minute: int = 6000
    orders_per_10s: int = 100
    orders_per_day: int = 200_000

    def info(self) -> list[dict[str, Any]]:
        def limit(kind: str, interval: str, number: int, most: int) -> dict[str, Any]:
            return {"rateLimitType": kind, "interval": interval, "intervalNum": number, "limit": most}

        return [
            limit("REQUEST_WEIGHT", "MINUTE", 1, self.weight_per_minute),
            limit("ORDERS", "SECOND", 10, self.orders_per_10s),
            limit("ORDERS", "DAY", 1, self.orders_per_day),
        ]


class Usage:
    """What has been used, of one address and account."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._minute = (0, 0)
        self._tens = (0, 0)
        self._day = (0, 0)
        self._warned = 0
        self._banned_until = 0

    def request(self, method: str, path: str, now: int) -> None:
        """Count a request.

        Raises:
            VenueError: -1003, too many of them; `data` holds the seconds to wait.
        """
        if now < self._banned_until:
            raise self._ban()
        minute, used = self._minute
        if minute != now // 60_000:
            minute, used, self._warned = now // 60_000, 0, 0
        used += _WEIGHTS.get((method, path), 1)
        self._minute = (minute, used)
        if used > self._limits.weight_per_minute:
            self._warned += 1
            wait = 60 - now // 1000 % 60
            if self._warned > 20:
                self._banned_until = now + 120_000
                raise self._ban()
            text = f"Too much request weight used; current limit is {self._limits.weight_per_minute} request weight per 1 MINUTE."
            raise VenueError(-1003, text, 429, wait)

    def order(self, now: int) -> None:
        """Count an order.

        Raises:
            VenueError: -1015, too many of them.
        """
        tens, used = self._tens
        day, today = self._day
        if tens != now // 10_000:
            tens, used = now // 10_000, 0
        if day != now // 86_400_000:
            day, today = now // 86_400_000, 0
        if used >= self._limits.orders_per_10s:
            text = f"Too many new orders; current limit is {self._limits.orders_per_10s} orders per 10 SECOND."
            raise VenueError(-1015, text, 429, 10 - now // 1000 % 10)
        if today >= self._limits.orders_per_day:
            text = f"Too many new orders; current limit is {self._limits.orders_per_day} orders per 1 DAY."
            raise VenueError(-1015, text, 429, 60)
        self._tens, self._day = (tens, used + 1), (day, today + 1)

    def headers(self) -> dict[str, str]:
        return {
            "X-MBX-USED-WEIGHT-1M": str(self._minute[1]),
            "X-MBX-ORDER-COUNT-10S": str(self._tens[1]),
            "X-MBX-ORDER-COUNT-1D": str(self._day[1]),
        }

    def _ban(self) -> VenueError:
        text = f"Way too much request weight used; IP banned until {self._banned_until}."
        return VenueError(-1003, text, 418, 120)
