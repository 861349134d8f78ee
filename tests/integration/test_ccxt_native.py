"""Orders that wait, trail or hide at the venue, what the rules say of them, and what is refused before it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest

from adapters.base import ApprovedOrder, Rejected, Unknown, VenueOrderStatus
from adapters.ccxt_venue import native
from adapters.ccxt_venue.dialects import DIALECTS, dialect_of
from adapters.simulator.server import VenueConfig
from adapters.simulator.symbols import SymbolSpec
from schemas.market import MarketRules
from schemas.terms import OrderType, Side, TimeInForce
from tests.integration.test_ccxt_adapter import BTC, Scene, config, order, trading, until
from tests.integration.test_ccxt_adapter_foreign import BARE_SYMBOL, started
from tests.unit.test_adapter_dialects import OURS, Capture, Venue, capture

__all__ = ["capture"]
STOPS = {
    OrderType.STOP: ("STOP_LOSS", None),
    OrderType.STOP_LIMIT: ("STOP_LOSS_LIMIT", Decimal("48999.5")),
    OrderType.TAKE_PROFIT: ("TAKE_PROFIT", None),
    OrderType.TAKE_PROFIT_LIMIT: ("TAKE_PROFIT_LIMIT", Decimal("50999.5")),
}


def rich(**changes: Any) -> VenueConfig:
    spec = SymbolSpec(base="BTC", quote="USDT", price=Decimal(50000), max_orders=10_000, **changes)
    return config(symbols=[spec], maker_bps=Decimal(7), taker_bps=Decimal(9))


@asynccontextmanager
async def quoted(settings: VenueConfig | None = None) -> AsyncIterator[Scene]:
    """A started adapter at a market of 49999 to 50001 that traded last at 50001."""
    async with trading(settings or rich()) as scene:
        for side, price in (("BUY", "49999"), ("SELL", "50001")):
            await scene.control.trade("BTCUSDT", side, "5", price)
        await scene.control.trade("BTCUSDT", "BUY", "0.01")
        yield scene


def sell(kind: OrderType, **changes: Any) -> ApprovedOrder:
    profit = kind in (OrderType.TAKE_PROFIT, OrderType.TAKE_PROFIT_LIMIT)
    fields: dict[str, Any] = {
        "side": Side.SELL,
        "order_type": kind,
        "price": STOPS[kind][1] if kind in STOPS else None,
        "stop_price": Decimal(51000 if profit else 49000) if kind in STOPS else None,
    }
    return order(**{**fields, **changes})


# --- what the rules say ---------------------------------------------------------------------------------------------


async def test_the_rules_tell_fees_types_and_who_pays_the_fee_in_what() -> None:
    async with trading(rich()) as scene:
        rules = scene.adapter.rules(BTC)
        assert rules is not None
        assert (rules.maker_fee, rules.taker_fee) == (Decimal("0.0007"), Decimal("0.0009"))
        assert rules.fee_in_base is True
        assert rules.contract is False
        assert rules.native == tuple(OrderType)
        assert rules.native_iceberg is True
        await scene.adapter.refresh_rules()
        assert scene.adapter.rules(BTC) == rules


async def test_a_venue_with_fewer_types_is_told_apart() -> None:
    poor = rich(order_types=["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT"], trailing=False, iceberg=False)
    async with trading(poor) as scene:
        rules = scene.adapter.rules(BTC)
        assert rules is not None
        assert rules.native == (OrderType.MARKET, OrderType.LIMIT, OrderType.STOP_LIMIT)
        assert rules.native_iceberg is False
        for refused in (
            sell(OrderType.STOP),
            order(order_type=OrderType.TRAILING_STOP, price=None, trail_bps=Decimal(50)),
            order(display_quantity=Decimal("0.001")),
        ):
            with pytest.raises(Rejected):
                await scene.adapter.place(refused)
        assert await scene.sent("POST") == []


async def test_a_venue_that_says_nothing_holds_market_and_limit_orders() -> None:
    async with started(GET_exchangeInfo={"symbols": [BARE_SYMBOL]}) as (_, adapter):
        rules = adapter.rules(BTC)
        assert rules is not None
        assert rules.native == (OrderType.MARKET, OrderType.LIMIT)
        assert rules.native_iceberg is False
        assert (rules.maker_fee, rules.taker_fee) == (Decimal("0.001"), Decimal("0.001"))  # ccxt's own table


# --- orders that wait at Binance spot -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(STOPS))
async def test_an_order_that_waits_is_an_open_order_until_its_trigger(kind: OrderType) -> None:
    async with quoted() as scene:
        placed = await scene.adapter.place(sell(kind))
        assert placed.status is VenueOrderStatus.OPEN
        assert placed.filled == 0
        [asked] = await scene.sent("POST")
        name, price = STOPS[kind]
        assert asked["type"] == name
        assert asked["stopPrice"] == ("51000" if "PROFIT" in name else "49000")
        assert asked.get("price") == (f"{price:f}" if price is not None else None)
        assert asked.get("timeInForce") == ("GTC" if price is not None else None)
        found = await scene.adapter.find(BTC, "c1")
        assert found is not None
        assert found.status is VenueOrderStatus.OPEN
        assert [one.client_order_id for one in await scene.adapter.open_orders(BTC)] == ["c1"]
        ended = await scene.adapter.cancel(BTC, "c1", None)
        assert ended is not None
        assert ended.status is VenueOrderStatus.CANCELED
        assert await scene.adapter.open_orders() == []


async def test_a_stop_that_was_reached_is_the_same_order_and_fills() -> None:
    async with quoted() as scene:
        placed = await scene.adapter.place(sell(OrderType.STOP, stop_price=Decimal(49999)))
        await scene.control.trade("BTCUSDT", "SELL", "0.5")
        found = await scene.adapter.find(BTC, "c1")
        assert found is not None
        assert (found.status, found.filled) == (VenueOrderStatus.FILLED, Decimal("0.01"))
        assert found.venue_order_id == placed.venue_order_id
        [fill] = await scene.adapter.fills(BTC, placed.venue_order_id or "")
        assert (fill.quantity, fill.side) == (Decimal("0.01"), Side.SELL)


async def test_a_stop_limit_that_may_not_rest() -> None:
    async with quoted() as scene:
        await scene.adapter.place(sell(OrderType.STOP_LIMIT, time_in_force=TimeInForce.IOC))
        [asked] = await scene.sent("POST")
        assert asked["timeInForce"] == "IOC"


async def test_a_trigger_that_was_passed_already_is_a_certain_no() -> None:
    async with quoted() as scene:
        with pytest.raises(Rejected):
            await scene.adapter.place(sell(OrderType.STOP, stop_price=Decimal(60000)))


async def test_a_trailing_stop_follows_the_price_at_the_venue() -> None:
    async with quoted() as scene:
        trail = sell(OrderType.TRAILING_STOP, trail_bps=Decimal("50.0"), quantity=Decimal("0.5"))
        placed = await scene.adapter.place(trail)
        [asked] = await scene.sent("POST")
        assert (asked["type"], asked["trailingDelta"]) == ("STOP_LOSS", "50")
        assert "stopPrice" not in asked
        assert "price" not in asked
        assert placed.status is VenueOrderStatus.OPEN
        await scene.control.trade("BTCUSDT", "SELL", "1", "52000")
        await scene.control.trade("BTCUSDT", "BUY", "5")  # up to 52000: the trigger follows to 51740
        await scene.control.trade("BTCUSDT", "SELL", "0.1")
        found = await scene.adapter.find(BTC, "c1")
        assert found is not None
        assert (found.status, found.filled) == (VenueOrderStatus.FILLED, Decimal("0.5"))


async def test_a_trailing_stop_with_an_activation_price() -> None:
    async with quoted() as scene:
        later = sell(OrderType.TRAILING_STOP, trail_bps=Decimal(50), stop_price=Decimal(49000))
        await scene.adapter.place(later)
        [asked] = await scene.sent("POST")
        assert (asked["stopPrice"], asked["trailingDelta"]) == ("49000", "50")


async def test_an_iceberg_shows_its_display_quantity_only() -> None:
    async with quoted() as scene:
        await scene.adapter.place(
            order(quantity=Decimal("0.5"), price=Decimal("49999.5"), display_quantity=Decimal("0.1"))
        )
        await scene.adapter.place(order("whole", display_quantity=Decimal("0.01")))
        first, second = await scene.sent("POST")
        assert (first["icebergQty"], first["quantity"], first["timeInForce"]) == ("0.1", "0.5", "GTC")
        assert "icebergQty" not in second  # all of it is shown
        book = await scene.adapter.order_book(BTC)
        assert (book.bids[0].price, book.bids[0].quantity) == (Decimal("49999.5"), Decimal("0.1"))


async def test_a_stop_is_told_by_the_stream_from_birth_to_fill() -> None:
    class Sink:
        def __init__(self) -> None:
            self.said: list[Any] = []

        def on_order(self, venue: str, order: Any) -> None:
            self.said.append(order.status)

        def on_fill(self, venue: str, fill: Any) -> None:
            self.said.append(fill.quantity)

        def on_stream(self, venue: str, *, up: bool, reason: str | None) -> None:
            self.said.append(up)

    async with quoted() as scene:
        sink = Sink()
        stream = asyncio.create_task(scene.adapter.run_stream(sink))
        await until(lambda: sink.said == [True])
        await scene.adapter.place(sell(OrderType.STOP, stop_price=Decimal(49999)))
        await until(lambda: VenueOrderStatus.OPEN in sink.said)
        await scene.control.trade("BTCUSDT", "SELL", "0.5")
        await until(lambda: sink.said[-1] is VenueOrderStatus.FILLED)
        assert Decimal("0.01") in sink.said
        stream.cancel()
        await asyncio.gather(stream, return_exceptions=True)


REFUSED = [
    {"order_type": OrderType.STOP, "price": None},
    {"order_type": OrderType.STOP, "stop_price": Decimal(45000)},  # with a limit price
    {"order_type": OrderType.STOP_LIMIT, "price": None, "stop_price": Decimal(45000)},
    {"order_type": OrderType.STOP_LIMIT, "stop_price": Decimal(45000), "post_only": True},
    {"order_type": OrderType.STOP_LIMIT, "stop_price": Decimal(45000), "time_in_force": TimeInForce.PO},
    {"order_type": OrderType.STOP_LIMIT, "stop_price": Decimal(0)},
    {"order_type": OrderType.TRAILING_STOP, "price": None},
    {"order_type": OrderType.TRAILING_STOP, "price": None, "trail_bps": Decimal(0)},
    {"order_type": OrderType.TRAILING_STOP, "price": None, "trail_bps": Decimal("0.5")},
    {"order_type": OrderType.TRAILING_STOP, "trail_bps": Decimal(50)},  # with a limit price
    {"stop_price": Decimal(45000)},
    {"trail_bps": Decimal(50)},
    {"order_type": OrderType.MARKET, "stop_price": Decimal(45000)},
    {"order_type": OrderType.MARKET, "display_quantity": Decimal("0.001")},
    {"time_in_force": TimeInForce.IOC, "display_quantity": Decimal("0.001")},
    {"display_quantity": Decimal(0)},
    {"reduce_only": True},
    {"price": None},
]


async def test_what_cannot_be_meant_is_refused_before_a_byte_leaves() -> None:
    async with quoted() as scene:
        for changes in REFUSED:
            with pytest.raises(Rejected):
                await scene.adapter.place(order(**changes))
        assert await scene.sent("POST") == []


# --- elsewhere, by captured requests --------------------------------------------------------------------------------

CAPTURED = {
    ("kraken", OrderType.STOP): ("ordertype=stop-loss&", "price=49000"),
    ("kraken", OrderType.STOP_LIMIT): ("ordertype=stop-loss-limit&", "price=49000", "price2=48999.5"),
    ("kraken", OrderType.TAKE_PROFIT): ("ordertype=take-profit&", "price=51000"),
    ("kraken", OrderType.TAKE_PROFIT_LIMIT): ("ordertype=take-profit-limit&", "price=51000", "price2=50999.5"),
    ("kraken", OrderType.TRAILING_STOP): ('"ordertype":"trailing-stop"', '"price":"+0.5%"'),
    ("coinbase", OrderType.STOP_LIMIT): ("stop_limit_stop_limit_gtc", '"stop_price":"49000"', '"48999.5"', "STOP_DOWN"),
    ("coinbase", OrderType.TAKE_PROFIT_LIMIT): ("stop_limit_stop_limit_gtc", '"51000"', '"50999.5"', "STOP_UP"),
    ("aster", OrderType.STOP): ("type=STOP_MARKET&", "stopPrice=49000"),
    ("aster", OrderType.STOP_LIMIT): ("type=STOP&", "stopPrice=49000", "price=48999.5"),
    ("aster", OrderType.TAKE_PROFIT): ("type=TAKE_PROFIT_MARKET&", "stopPrice=51000"),
    ("aster", OrderType.TAKE_PROFIT_LIMIT): ("type=TAKE_PROFIT&", "stopPrice=51000", "price=50999.5"),
}


def test_no_type_stands_in_the_table_that_was_not_captured() -> None:
    told = {
        (name, kind)
        for name, dialect in DIALECTS.items()
        for kind in {*dialect.native, *dialect.native_on_contracts} - set(native.PLAIN)
    }
    assert told == set(CAPTURED)


@pytest.mark.parametrize(("name", "kind"), list(CAPTURED))
async def test_an_order_that_waits_elsewhere_arrives_whole(capture: Capture, name: str, kind: OrderType) -> None:
    async with Venue(name, capture.url) as venue:
        trail = Decimal(50) if kind is OrderType.TRAILING_STOP else None
        asked = sell(kind, client_order_id=OURS, symbol=venue.symbol, trail_bps=trail, quantity=Decimal("0.0123"))
        with pytest.raises(Unknown):
            await venue.orders.place(asked, None)
    for part in (OURS, "0.0123", *CAPTURED[name, kind]):
        assert part in capture.last, part
    assert "reduce" not in capture.last.lower()
    dialect = dialect_of(name)
    if dialect.expiry_param is not None:
        assert dialect.expiry_param in capture.last


REDUCING = {
    "binanceusdm": "reduceOnly=true",
    "krakenfutures": "reduceOnly=true",
    "deribit": "reduce_only=true",
    "bybit": '"reduceOnly":true',
    "okx": '"reduceOnly":true',
    "gate": '"reduce_only":true',
    "bitget": '"reduceOnly":"YES"',
}


@pytest.mark.parametrize("name", [name for name, dialect in DIALECTS.items() if dialect.reduces])
@pytest.mark.parametrize("kind", list(native.PLAIN))
async def test_reduce_only_reaches_the_exchange(capture: Capture, name: str, kind: OrderType) -> None:
    async with Venue(name, capture.url, swap=True) as venue:
        price = Decimal(43210) if kind is OrderType.LIMIT else None
        asked = order(OURS, symbol=venue.symbol, order_type=kind, price=price, quantity=Decimal(2), reduce_only=True)
        with pytest.raises(Unknown):
            await venue.orders.place(asked, None)
    assert REDUCING[name] in capture.last


async def test_what_ccxt_has_no_words_for_is_refused(capture: Capture) -> None:
    async with Venue("kraken", capture.url) as venue:
        for changes in (
            {"display_quantity": Decimal("0.001")},
            {
                "order_type": OrderType.TRAILING_STOP,
                "price": None,
                "trail_bps": Decimal(50),
                "stop_price": Decimal(45000),
            },
        ):
            with pytest.raises(Rejected):
                await venue.orders.place(order(symbol=venue.symbol, **changes), None)
    assert capture.requests == []


def test_reduce_only_is_for_contracts_at_venues_that_heed_it() -> None:
    rules = MarketRules(
        symbol="BTC/USDT:USDT",
        base="BTC",
        quote="USDT",
        tick=Decimal("0.1"),
        lot=Decimal("0.001"),
        market_lot=Decimal("0.001"),
        contract=True,
    )
    asked = order(symbol="BTC/USDT:USDT", reduce_only=True)
    assert native.refusal(asked, rules, reduces=True) is None
    assert native.refusal(asked, rules, reduces=False) is not None
