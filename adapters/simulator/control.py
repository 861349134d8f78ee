"""Ordering faults at a local venue, and reading its record, from another process."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import aiohttp
import msgspec

from adapters.simulator.faults import Fault


class VenueControl:
    """The control routes of the venue at a URL."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/_control"
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> VenueControl:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def fault(self, kind: str, **details: Any) -> Fault:
        """Order a fault; see `Fault` for kinds and details."""
        return msgspec.convert(await self._ask("POST", "faults", {"kind": kind, **details}), Fault)

    async def faults(self) -> list[Fault]:
        return msgspec.convert(await self._ask("GET", "faults"), list[Fault])

    async def clear(self, fault_id: str | None = None) -> None:
        await self._ask("DELETE", "faults" if fault_id is None else f"faults?id={fault_id}")

    async def record(self) -> dict[str, Any]:
        """All orders, trades and balances of the accounts, as Binance's JSON."""
        answer: dict[str, Any] = await self._ask("GET", "record")
        return answer

    async def requests(self) -> list[dict[str, Any]]:
        """The order requests that arrived, with the time in ns since the epoch."""
        answer: list[dict[str, Any]] = await self._ask("GET", "requests")
        return answer

    async def trade(self, symbol: str, side: str, quantity: Decimal | str, price: Decimal | str | None = None) -> Any:
        """Somebody else's order: resting with a price, else taking at market."""
        return await self._ask(
            "POST", "book", {"symbol": symbol, "side": side, "quantity": str(quantity), "price": price and str(price)}
        )

    async def clear_book(self, symbol: str) -> None:
        """Take somebody else's orders off the book."""
        await self._ask("DELETE", f"book?symbol={symbol}")

    async def price(self, symbol: str, price: Decimal | str, *, seconds: float = 0.0) -> None:
        """Move the market: now, or in a straight line over some seconds."""
        await self._ask("POST", "price", {"symbol": symbol, "price": str(price), "seconds": seconds})

    async def market(self) -> dict[str, Any]:
        """By symbol: who moves it (`kind`), `paused`, `last`, and of a recording `replayed` and `finished`."""
        answer: dict[str, Any] = await self._ask("GET", "market")
        return answer

    async def pause(self, symbol: str | None = None) -> None:
        """Halt the synthetic participants or the recording of a symbol, or of all."""
        await self._ask("POST", "market", {"symbol": symbol, "paused": True})

    async def unpause(self, symbol: str | None = None) -> None:
        await self._ask("POST", "market", {"symbol": symbol, "paused": False})

    async def replay(
        self, symbol: str, trades: Sequence[tuple[int, Decimal | str, Decimal | str, str]], *, speed: float = 1.0
    ) -> None:
        """Let recorded trades drive a symbol: (ms, price, quantity, taker's side)."""
        lines = [(at, str(price), str(quantity), side) for at, price, quantity, side in trades]
        await self._ask("POST", "replay", {"symbol": symbol, "trades": lines, "speed": speed})

    async def end_replay(self, symbol: str) -> None:
        await self._ask("DELETE", f"replay?symbol={symbol}")

    async def clock(self, offset_ms: int) -> None:
        """Set the venue's clock off."""
        await self._ask("POST", "clock", {"offset_ms": offset_ms})

    async def halt(self, symbol: str, *, halted: bool = True) -> None:
        await self._ask("POST", "halt", {"symbol": symbol, "halted": halted})

    async def rules(self, symbol: str, **changed: Decimal | str) -> None:
        """Change by what a symbol trades: `tick`, `lot`, `min_quantity`, `min_notional`."""
        await self._ask("POST", "rules", {"symbol": symbol, **changed})

    async def _ask(self, method: str, what: str, body: Any = None) -> Any:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        data = msgspec.json.encode(body) if body is not None else None
        async with self._session.request(method, f"{self._url}/{what}", data=data) as response:
            content = await response.read()
            if response.status != 200:
                raise ValueError(content.decode())
            return msgspec.json.decode(content)
