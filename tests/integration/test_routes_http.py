"""Routes beforehand, over real HTTP, for real venues; and nothing ever reaches an order endpoint."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from adapters.ccxt_venue import CcxtAdapter, parse_endpoints
from adapters.paper import PaperAdapter
from adapters.simulator.control import VenueControl
from adapters.simulator.server import Venue
from adapters.simulator.symbols import SymbolSpec
from execution.api_keys import ApiKey, parse_api_keys
from execution.health import ComponentHealth, HealthReport
from execution.http_server import MOST_BYTES, HttpServer
from execution.market_data import MarketData
from execution.metrics import Metrics
from execution.routes import MOST_WAITING, Routes
from schemas import exact_json
from tests.replica import until
from tests.system import System, venue, venue_config

BTC = "BTC/USDT"
KEYS = {"apiKey": "local", "secret": "local-secret"}
FEES = {"alpha": Decimal(2), "beta": Decimal(10)}
ONLY_ALPHA = [
    SymbolSpec(base="BTC", quote="USDT", price=Decimal(50_000)),
    SymbolSpec(base="LTC", quote="USDT", price=Decimal(100)),
]


class Desk:
    """The HTTP interface of a service with two venues: alpha dearer with a low fee, beta cheaper with a high one."""

    def __init__(self, url: str, session: aiohttp.ClientSession, market: MarketData) -> None:
        self.url = url
        self.session = session
        self.market = market
        self.venues: dict[str, Venue] = {}
        self.controls: dict[str, VenueControl] = {}
        self.adapters: dict[str, CcxtAdapter] = {}

    async def get(self, query: str = "", *, status: int = 200) -> Any:
        async with self.session.get(f"{self.url}/api/v1/routes{query}") as answer:
            assert answer.status == status, await answer.text()
            return exact_json.decode(await answer.read())

    async def post(self, body: bytes, *, status: int = 200) -> Any:
        async with self.session.post(f"{self.url}/api/v1/routes/optimize", data=body) as answer:
            assert answer.status == status, await answer.text()
            return exact_json.decode(await answer.read())

    async def optimize(self, *, status: int = 200, **fields: Any) -> Any:
        asked = {"symbol": BTC, "side": "buy", "quantity": Decimal(1), **fields}
        return await self.post(exact_json.encode(asked), status=status)


@asynccontextmanager
async def desk_over(
    alpha: dict[str, Any] | None = None, beta: dict[str, Any] | None = None, *, keys: tuple[ApiKey, ...] = ()
) -> AsyncIterator[Desk]:
    """Books: alpha 2 @ 50000 and 5 @ 50020 (bid 49970), fee 2 bps; beta 1 @ 49978 and 5 @ 50015 (bid 49969.5), fee 10 bps.

    Buys pay their fee in what they buy. At the end nothing may have reached an order endpoint of any venue.
    """
    wanted = {
        "alpha": {"taker_bps": FEES["alpha"], **(alpha or {})},
        "beta": {"taker_bps": FEES["beta"], **(beta or {})},
    }
    async with AsyncExitStack() as stack:
        venues = {name: Venue(venue_config(**changes)) for name, changes in wanted.items()}
        for one in venues.values():
            await one.start()
            stack.push_async_callback(one.stop)
        adapters = {
            name: CcxtAdapter(parse_endpoints(f"{name}=binance@{one.url}")[0], KEYS) for name, one in venues.items()
        }
        market = MarketData(adapters, now=lambda: time.time_ns() // 1_000_000, monotonic=time.monotonic)
        for adapter in adapters.values():
            await adapter.start()
            stack.push_async_callback(adapter.close)
        stack.push_async_callback(market.close)
        routes = Routes(adapters, market)
        health = HealthReport(instance="a", live=True, components=[ComponentHealth("store", "ok")])
        server = HttpServer("127.0.0.1", 0, Metrics(), lambda: health, api_keys=keys, routes=lambda: routes)
        port = await server.start()
        stack.push_async_callback(server.stop)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        desk = Desk(f"http://127.0.0.1:{port}", session, market)
        desk.venues, desk.adapters = venues, adapters
        for name, one in venues.items():
            desk.controls[name] = await stack.enter_async_context(VenueControl(one.url))
        for quantity, price in (("2", 50_000), ("5", 50_020)):
            await desk.controls["alpha"].trade("BTCUSDT", "SELL", quantity, Decimal(price))
        for quantity, price in (("1", 49_978), ("5", 50_015)):
            await desk.controls["beta"].trade("BTCUSDT", "SELL", quantity, Decimal(price))
        await desk.controls["alpha"].trade("BTCUSDT", "BUY", "3", Decimal(49_970))
        await desk.controls["beta"].trade("BTCUSDT", "BUY", "3", Decimal("49969.5"))
        yield desk
        for one in venues.values():
            assert not one.requests, "something reached an order endpoint"


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with desk_over() as opened:
        yield opened


def by_name(shown: Any) -> dict[str, Any]:
    return {one["venue"]: one for one in shown["venues"]}


# --- what is shown ------------------------------------------------------------------------------------------------------


async def test_the_venues_their_health_and_symbols(desk: Desk) -> None:
    found = by_name(await desk.get())
    assert list(found) == ["alpha", "beta"]
    assert found["alpha"]["symbols"] == 2
    assert found["alpha"]["status"] in ("ok", "degraded")


async def test_a_symbol_at_every_venue() -> None:
    async with desk_over({"symbols": ONLY_ALPHA, "balances": {"USDT": Decimal("1234.5")}}) as desk:
        found = by_name(await desk.get(f"?symbol={BTC}"))
        alpha, beta = found["alpha"], found["beta"]
        assert (alpha["bid"], alpha["ask"]) == (49_970, 50_000)
        assert (beta["bid"], beta["ask"]) == (Decimal("49969.5"), 49_978)
        assert (alpha["taker_fee"], beta["taker_fee"]) == (Decimal("0.0002"), Decimal("0.001"))
        assert (alpha["tick"], alpha["lot"]) == (Decimal("0.01"), Decimal("0.00001"))
        assert (alpha["min_quantity"], alpha["min_notional"]) == (Decimal("0.00001"), 5)
        assert alpha["available"] == {"BTC": 1_000_000_000, "USDT": Decimal("1234.5")}
        assert (alpha["source"], alpha["missing"]) == ("request", None)
        assert 0 <= alpha["age_ms"] <= 2_000
        only = by_name(await desk.get("?symbol=LTC/USDT"))
        assert only["beta"]["missing"] == "does not trade LTC/USDT"
        assert (only["alpha"]["bid"], only["alpha"]["missing"]) == (None, None)
        told = await desk.optimize(symbol="LTC/USDT")
        assert told["reasons"] == {"alpha": "empty book", "beta": "does not trade LTC/USDT"}
        assert (told["routed"], told["mid"], told["best_single"]) == (0, None, None)


async def test_what_is_asked_wrongly(desk: Desk) -> None:
    assert await desk.get("?symbol=DOGE/USDT", status=404) == {
        "field": "symbol",
        "reason": "'DOGE/USDT' is not traded at alpha, beta",
    }
    assert (await desk.get("?symbol=", status=422))["field"] == "symbol"
    assert await desk.get("?symbl=BTC/USDT", status=422) == {
        "field": "symbl",
        "reason": "unknown field; did you mean symbol?",
    }


# --- the split ----------------------------------------------------------------------------------------------------------


async def test_the_cheapest_after_fees_not_by_price(desk: Desk) -> None:
    # After fees: alpha 50010.002 and 50030.006, beta 50028.028 and 50065.065: beta's better price is not the first.
    told = await desk.optimize(quantity=Decimal("2.5"))
    alpha_fee = (100_000 * Decimal("0.0002") / Decimal("0.9998")).quantize(Decimal("1e-28"))
    beta_fee = (24_989 * Decimal("0.001") / Decimal("0.999")).quantize(Decimal("1e-28"))
    assert told["legs"] == [
        {
            "venue": "alpha",
            "quantity": 2,
            "limit_price": 50_000,
            "average_price": 50_000,
            "fee": alpha_fee,
            "cost": 100_000 + alpha_fee,
        },
        {
            "venue": "beta",
            "quantity": Decimal("0.5"),
            "limit_price": 49_978,
            "average_price": 49_978,
            "fee": beta_fee,
            "cost": 24_989 + beta_fee,
        },
    ]
    assert (told["routed"], told["unrouted"], told["reasons"]) == (Decimal("2.5"), 0, {})
    assert (told["cost"], told["fee"]) == (124_989 + alpha_fee + beta_fee, alpha_fee + beta_fee)
    assert told["average_price"] == Decimal("49995.6")
    assert told["effective_price"] == ((124_989 + alpha_fee + beta_fee) / Decimal("2.5")).quantize(Decimal("1e-28"))
    # The best bid is alpha's 49970, the best ask beta's 49978; 2.5 coins at 49974 are 124935.
    assert told["mid"] == 49_974
    assert told["cost_against_mid"] == told["cost"] - 124_935
    assert told["cost_against_mid_bps"] == Decimal("7.9256")
    # Alpha alone: 2 at 50000 and half a coin at 50020, with 2 bps.
    single = told["best_single"]
    assert (single["venue"], single["routed"], single["unrouted"]) == ("alpha", Decimal("2.5"), 0)
    assert round(single["cost"], 6) == Decimal("125035.007001")
    assert round(single["saving"], 6) == Decimal("0.988987")
    assert single["saving_bps"] == Decimal("0.0791")
    assert told["exact"] is True
    assert told["warnings"] == []
    assert {name: (book["bid"], book["ask"], book["source"]) for name, book in told["books"].items()} == {
        "alpha": (49_970, 50_000, "request"),
        "beta": (Decimal("49969.5"), 49_978, "request"),
    }


async def test_a_sell_costs_what_is_received_less_than_the_mid(desk: Desk) -> None:
    told = await desk.optimize(side="SELL", quantity="4")
    assert [(leg["venue"], leg["quantity"]) for leg in told["legs"]] == [("alpha", 3), ("beta", 1)]
    received = 3 * Decimal(49_970) * Decimal("0.9998") + Decimal("49969.5") * Decimal("0.999")
    assert told["cost"] == received
    assert told["cost_against_mid"] == 4 * Decimal(49_974) - received
    assert told["best_single"]["unrouted"] == 1
    assert (told["best_single"]["saving"], told["best_single"]["saving_bps"]) == (None, None)


async def test_nothing_beyond_the_limit(desk: Desk) -> None:
    told = await desk.optimize(quantity=3, price=Decimal("49999.99"))
    assert [(leg["venue"], leg["quantity"]) for leg in told["legs"]] == [("beta", 1)]
    assert (told["unrouted"], told["reasons"]) == (2, {"alpha": "beyond the limit"})
    nothing = await desk.optimize(quantity=3, price=40_000)
    assert (nothing["legs"], nothing["routed"], nothing["cost"]) == ([], 0, 0)
    assert (nothing["effective_price"], nothing["cost_against_mid"], nothing["best_single"]) == (None, None, None)
    assert nothing["reasons"] == {"alpha": "beyond the limit", "beta": "beyond the limit"}


async def test_no_more_than_the_accounts_hold() -> None:
    async with desk_over({"balances": {"USDT": Decimal(20)}}, {"balances": {"USDT": Decimal(30_000)}}) as desk:
        told = await desk.optimize(quantity=1)
        # 20 / 50000 and 30000 / 49978, in whole lots.
        wanted = [("alpha", Decimal("0.0004")), ("beta", Decimal("0.60026"))]
        assert [(leg["venue"], leg["quantity"]) for leg in told["legs"]] == wanted
        assert told["unrouted"] == Decimal("0.39934")
    async with desk_over({"balances": {"USDT": Decimal(4)}}, {"balances": {"BTC": Decimal(1)}}) as desk:
        told = await desk.optimize(quantity=1)
        assert told["reasons"] == {"alpha": "no balance"}
        assert told["unrouted"] == 0
        sold = await desk.optimize(quantity=2, side="sell", venues=["beta"])
        assert (sold["routed"], sold["unrouted"]) == (1, 1)


async def test_only_the_venues_that_are_named(desk: Desk) -> None:
    told = await desk.optimize(venues=["beta", "beta"])
    assert [leg["venue"] for leg in told["legs"]] == ["beta"]
    assert list(told["books"]) == ["beta"]
    wrong = await desk.optimize(venues=["gamma"], status=422)
    assert wrong == {"field": "venues", "reason": "'gamma' is not one of alpha, beta"}


async def test_numbers_come_back_digit_for_digit(desk: Desk) -> None:
    async with desk.session.post(
        f"{desk.url}/api/v1/routes/optimize",
        data=b'{"symbol": "BTC/USDT", "side": "buy", "quantity": 0.1000000000000000000001, "price": "50000.000000000000001"}',
    ) as answer:
        assert answer.content_type == "application/json"
        text = await answer.text()
    assert '"quantity":0.1000000000000000000001,' in text
    assert '"price":50000.000000000000001,' in text
    assert '"unrouted":0.0000000000000000000001,' in text or '"unrouted":1E-22,' in text


# --- venues that do not answer ------------------------------------------------------------------------------------------


async def test_a_venue_that_is_down_is_left_out_and_named(desk: Desk) -> None:
    await desk.venues["alpha"].stop()
    told = await desk.optimize()
    assert [leg["venue"] for leg in told["legs"]] == ["beta"]
    assert told["reasons"]["alpha"].startswith("did not answer: ")
    assert {"venue": "alpha", "reason": told["reasons"]["alpha"]} in told["warnings"]
    assert list(told["books"]) == ["beta"]
    shown = by_name(await desk.get(f"?symbol={BTC}"))
    assert (shown["alpha"]["bid"], shown["beta"]["ask"]) == (None, 49_978)
    assert shown["alpha"]["missing"].startswith("did not answer: ")


async def test_a_venue_that_hangs_is_not_waited_for(desk: Desk) -> None:
    await desk.controls["alpha"].fault("latency", path="/api/v3/depth", seconds=30, count=None)
    told = await desk.optimize()
    assert [leg["venue"] for leg in told["legs"]] == ["beta"]
    assert told["reasons"] == {"alpha": "did not answer: nothing within 2 s"}


async def test_balances_that_are_not_told_bound_nothing(desk: Desk) -> None:
    await desk.controls["alpha"].fault("http_error", path="/api/v3/account", status=403, code=-1002, count=None)
    told = await desk.optimize(quantity=Decimal("0.01"), venues=["alpha"])
    assert told["routed"] == Decimal("0.01")
    [warning] = told["warnings"]
    assert warning["venue"] == "alpha"
    assert warning["reason"].startswith("its balances are not known, and taken as enough: ")


async def test_a_halted_market_takes_nothing(desk: Desk) -> None:
    await desk.controls["alpha"].halt("BTCUSDT")
    await desk.adapters["alpha"].refresh_rules()
    told = await desk.optimize()
    assert [leg["venue"] for leg in told["legs"]] == ["beta"]
    assert told["reasons"] == {"alpha": "not trading"}


async def test_a_venue_that_refuses_for_its_rate_limit_is_not_asked(desk: Desk) -> None:
    desk.adapters["alpha"].health.limited_until = time.time_ns() // 1_000_000 + 60_000
    told = await desk.optimize()
    assert [leg["venue"] for leg in told["legs"]] == ["beta"]
    assert told["reasons"]["alpha"].startswith("rate limited for another ")


# --- books that stream --------------------------------------------------------------------------------------------------


async def test_a_fresh_stream_serves_where_it_is_deep_enough(desk: Desk) -> None:
    feed = desk.market.hold("alpha", BTC, "test")
    await until(lambda: feed.up and feed.book is not None)
    await desk.controls["alpha"].trade("BTCUSDT", "SELL", "0.25", Decimal("49999.5"))
    await until(lambda: feed.book is not None and feed.book.ask == Decimal("49999.5"))
    told = await desk.optimize(quantity=1, venues=["alpha"], max_age_ms=60_000)
    assert told["books"]["alpha"]["source"] == "stream"
    assert told["books"]["alpha"]["ask"] == Decimal("49999.5")
    assert told["average_price"] == Decimal("49999.875")
    # 7.25 are shown, and that is all there is: the venue is asked whether it has more.
    more = await desk.optimize(quantity=9, venues=["alpha"])
    assert (more["books"]["alpha"]["source"], more["unrouted"]) == ("request", Decimal("1.75"))
    assert more["warnings"] == []
    shown = by_name(await desk.get(f"?symbol={BTC}&max_age_ms=60000"))
    assert (shown["alpha"]["source"], shown["beta"]["source"]) == ("stream", "request")


async def test_a_streamed_book_is_the_one_after_the_slowest_venue_was_waited_for(desk: Desk) -> None:
    feed = desk.market.hold("alpha", BTC, "test")
    await until(lambda: feed.up and feed.book is not None)
    await desk.controls["beta"].fault("latency", path="/api/v3/depth", seconds=30, count=None)
    waiting = asyncio.create_task(desk.optimize(max_age_ms=60_000))
    await asyncio.sleep(0.2)
    await desk.controls["alpha"].trade("BTCUSDT", "SELL", "0.25", Decimal("49999.5"))
    await until(lambda: feed.book is not None and feed.book.ask == Decimal("49999.5"))
    told = await waiting
    assert told["books"]["alpha"]["ask"] == Decimal("49999.5")
    assert told["average_price"] == Decimal("49999.875")


async def test_an_old_streamed_book_is_asked_for_anew(desk: Desk) -> None:
    feed = desk.market.hold("alpha", BTC, "test")
    await until(lambda: feed.up and feed.book is not None)
    assert feed.book is not None
    feed.book = msgspec.structs.replace(feed.book, received_at=time.monotonic() - 10)
    told = await desk.optimize(venues=["alpha"], max_age_ms=5_000)
    assert told["books"]["alpha"]["source"] == "request"
    old = await desk.optimize(venues=["alpha"], max_age_ms=60_000)
    assert old["books"]["alpha"]["source"] == "stream"
    assert old["books"]["alpha"]["age_ms"] >= 10_000


async def test_what_lies_deeper_than_was_seen_is_told(desk: Desk) -> None:
    for step in range(60):
        await desk.controls["beta"].trade("BTCUSDT", "SELL", "0.01", Decimal(50_100 + step))
    told = await desk.optimize(quantity=8, venues=["beta"])
    assert told["routed"] == Decimal("6.48")
    assert told["warnings"] == [
        {"venue": "beta", "reason": "all that was seen of its book is used: more may lie deeper"}
    ]


async def test_a_paper_venue_without_an_account_is_not_bounded() -> None:
    async with desk_over() as desk:
        source = CcxtAdapter(parse_endpoints(f"paper=binance@{desk.venues['alpha'].url}")[0], None, public_only=True)
        adapter = PaperAdapter("paper", source, latency_ms=1)
        await adapter.start()
        try:
            told = await Routes({"paper": adapter}, desk.market).optimize(
                {"symbol": BTC, "side": "buy", "quantity": Decimal("0.5")}
            )
        finally:
            await adapter.close()
        assert told["routed"] == Decimal("0.5")
        assert "the account lists no assets" in told["warnings"][0]["reason"]


# --- many, and whatever is sent -----------------------------------------------------------------------------------------


async def test_the_same_question_is_not_asked_twice_at_once(desk: Desk) -> None:
    await desk.controls["alpha"].fault("http_error", path="/api/v3/depth", status=503, count=100)
    answers = await asyncio.gather(*(desk.optimize() for _ in range(MOST_WAITING)))
    assert {answer["legs"][0]["venue"] for answer in answers} == {"beta"}
    [fault] = await desk.controls["alpha"].faults()
    assert fault.count == 99


async def test_too_many_at_once_are_refused(desk: Desk) -> None:
    await desk.controls["alpha"].fault("latency", path="/api/v3/depth", seconds=30, count=None)

    async def status() -> int:
        async with desk.session.get(f"{desk.url}/api/v1/routes?symbol={BTC}") as answer:
            await answer.read()
            return answer.status

    statuses = await asyncio.gather(*(status() for _ in range(MOST_WAITING + 3)))
    assert sorted(statuses) == [200] * MOST_WAITING + [429] * 3


BAD: list[tuple[bytes, int, str, str]] = [
    (b"", 400, "body", "is not JSON"),
    (b"{nonsense", 400, "body", "is not JSON"),
    (b"\xff\xfe", 400, "body", "is not JSON"),
    (b'{"quantity": NaN}', 400, "body", "is not JSON"),
    (b"[1, 2]", 400, "body", "must be a JSON object"),
    (b"{}", 422, "symbol", "is required"),
    (b'{"symbol": "BTC/USDT", "side": "buy"}', 422, "quantity", "is required"),
    (b'{"symbol": "BTC/USDT", "side": "hold", "quantity": 1}', 422, "side", "'buy' or 'sell'"),
    (b'{"symbol": "BTC/USDT", "side": "buy", "quantity": 0}', 422, "quantity", "greater than 0"),
    (b'{"symbol": "BTC/USDT", "side": "buy", "quantity": "much"}', 422, "quantity", "must be a number"),
    (b'{"symbol": "BTC/USDT", "side": "buy", "quantity": true}', 422, "quantity", "must be a number"),
    (b'{"symbol": "BTC/USDT", "side": "buy", "quantity": 1e999}', 422, "quantity", "at most 28 digits"),
    (b'{"symbol": "BTC/USDT", "side": "buy", "quantity": 1, "price": -1}', 422, "price", "greater than 0"),
    (b'{"symbol": "BTC/USDT", "side": "buy", "quantity": 1, "limit_prise": 1}', 422, "limit_prise", "unknown field"),
    (b'{"symbol": "BTC/USDT", "sied": "buy", "quantity": 1}', 422, "sied", "did you mean side?"),
    (b'{"symbol": "BTC/USDT", "side": "buy", "quantity": 1, "venues": []}', 422, "venues", "at least 1"),
    (b'{"symbol": "BTC/USDT", "side": "buy", "quantity": 1, "venues": "alpha"}', 422, "venues", "tuple"),
    (b'{"symbol": "BTC/USDT", "side": "buy", "quantity": 1, "max_age_ms": 3}', 422, "max_age_ms", "250"),
    (b'{"symbol": "DOGE/USDT", "side": "buy", "quantity": 1}', 404, "symbol", "is not traded at alpha, beta"),
    (b'{"symbol": "' + b"x" * MOST_BYTES + b'"}', 413, "body", "is longer than"),
]


async def test_what_is_wrong_is_named(desk: Desk) -> None:
    for body, status, field, reason in BAD:
        told = await desk.post(body, status=status)
        assert told["field"] == field, body
        assert reason in told["reason"], told


async def test_a_viewer_may_and_a_stranger_may_not() -> None:
    keys = parse_api_keys("desk:s3cret:viewer")
    async with desk_over(keys=keys) as desk:
        assert "an API key is needed" in (await desk.get(status=401))["error"]
        assert "an API key is needed" in (await desk.optimize(status=401))["error"]
        desk.session.headers["X-API-Key"] = "s3cret"
        assert (await desk.optimize())["routed"] == 1
        assert len((await desk.get())["venues"]) == 2


async def test_while_the_service_starts_it_says_so() -> None:
    health = HealthReport(instance="a", live=True, components=[])
    server = HttpServer("127.0.0.1", 0, Metrics(), lambda: health)
    port = await server.start()
    async with aiohttp.ClientSession() as session:
        for method, path in (("GET", "routes"), ("POST", "routes/optimize")):
            async with session.request(
                method, f"http://127.0.0.1:{port}/api/v1/{path}", data=b"{}" if method == "POST" else None
            ) as answer:
                assert answer.status == 503
                assert "starting" in (await answer.json())["error"]
    await server.stop()


@pytest.mark.process
async def test_the_daemon_serves_it(redis_url: str, pubsub_host: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        venues = {name: await stack.enter_async_context(venue(taker_bps=bps)) for name, bps in FEES.items()}
        async with System(redis_url, pubsub_host, tmp_path, venues) as system:
            await system.liquidity()
            replica = await system.replica()
            desk = f"http://127.0.0.1:{replica.port}/api/v1/routes"
            asked = {"symbol": BTC, "side": "buy", "quantity": 1, "price": "50250"}
            async with aiohttp.ClientSession() as session:
                async with session.get(desk) as answer:
                    assert [one["venue"] for one in (await answer.json())["venues"]] == ["alpha", "beta"]
                async with session.post(f"{desk}/optimize", json=asked) as answer:
                    told = exact_json.decode(await answer.read())
            assert [(leg["venue"], leg["limit_price"]) for leg in told["legs"]] == [("alpha", 50_250)]
            assert told["reasons"] == {"beta": "dearer after fees"}
            for name in system.venues:
                assert await system.control(name).requests() == []
