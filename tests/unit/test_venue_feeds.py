"""What the local venue's market streams tell, on a clock of the test's own."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
from aiohttp import web

from adapters.simulator.orders import NewOrder
from adapters.simulator.server import Venue, VenueConfig
from adapters.simulator.streams import Client
from adapters.simulator.symbols import SymbolSpec

SECOND = 1_700_000_000_000


def _limit(side: str, quantity: str) -> NewOrder:
    size, price = Decimal(quantity), Decimal(50_000)
    return NewOrder(symbol="BTCUSDT", side=side, kind="LIMIT", quantity=size, price=price, time_in_force="GTC")


def _told(client: Client) -> list[dict[str, Any]]:
    return [msgspec.json.decode(client.queue.get_nowait())["k"] for _ in range(client.queue.qsize())]


def test_a_candle_that_ended_before_the_first_flush_is_told_as_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    venue = Venue(VenueConfig(symbols=[SymbolSpec(base="BTC", quote="USDT", price=Decimal(50_000))]))
    now = SECOND + 990
    monkeypatch.setattr(venue, "now", lambda: now)
    venue.engine.now = venue.now
    client = Client(Mock(spec=web.WebSocketResponse))
    client.streams.add("btcusdt@kline_1s")
    venue.streams._clients.add(client)
    venue.streams.feeds.subscribed(client, sorted(client.streams))
    venue.engine.place(venue.foreign, _limit("SELL", "1"))
    venue.engine.place(venue.foreign, _limit("BUY", "0.25"))
    now = SECOND + 1_080
    venue.streams.feeds.flush()
    closed = [candle for candle in _told(client) if candle["x"]]
    assert [(candle["t"], candle["v"]) for candle in closed] == [(SECOND, "0.25000000")]
