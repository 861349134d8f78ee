"""What looks at venues say, added up over the replicas; and positions as ccxt tells them."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from adapters.base import Position, VenueOrderStatus
from adapters.ccxt_venue import parsing
from execution.reconcile import Drift, VenueReport
from execution.reconcile.report import MOST_LISTED, summary
from execution.reconcile.request import Answer
from schemas import exact_json
from schemas.terms import OrderType, TimeInForce

DRIFT = Drift(symbol="BTC/USDT:USDT", at_venue=Decimal("1.5"), expected=Decimal(2))


def look(instance: str, **fields: object) -> VenueReport:
    return msgspec.convert({"venue": "alpha", "instance": instance, "at": 5, **fields}, VenueReport)


def test_what_the_replicas_saw_is_added_up() -> None:
    first = look("a", open_orders=7, compared=3, adopted=["x"], fills_booked=2, seconds=0.5, foreign_orders=1)
    second = look("b", open_orders=7, compared=4, cancelled=["y"], seconds=0.75)
    answer = Answer(request_id="r", reports=[second, first])
    (total,) = answer.by_venue()
    assert (total.open_orders, total.compared, total.fills_booked, total.foreign_orders) == (7, 7, 2, 1)
    assert (total.adopted, total.cancelled, total.seconds) == (["x"], ["y"], 0.75)
    assert (first.compared, first.cancelled) == (3, []), "their own reports stay as they are"
    assert answer.complete
    assert exact_json.decode(exact_json.encode(answer.fields()))["venues"][0]["instance"] == "a, b"


@pytest.mark.parametrize(
    "answer",
    [
        Answer(request_id="r"),
        Answer(request_id="r", reports=[look("a")], silent=["b"]),
        Answer(request_id="r", reports=[look("a", errors=["trades: no"])]),
    ],
)
def test_an_answer_that_says_not_everything_is_not_complete(answer: Answer) -> None:
    assert not answer.complete


def test_it_is_told_in_words() -> None:
    assert summary([look("a")]) == "alpha: the ledger and the venue agree"
    report = look("a", adopted=["x"], fills_booked=2)
    report.drifts = [DRIFT]
    assert summary([report]) == "alpha: 1 adopted, 2 fills booked, 1 positions that our fills do not explain"
    assert DRIFT.amount == Decimal("-0.5")


def test_what_is_repaired_is_news_and_what_stays_is_told_once() -> None:
    assert look("a", ended=1).repaired
    assert not look("a", foreign_orders=3).repaired
    assert look("a", foreign_orders=3).findings == look("a", foreign_orders=4).findings
    assert look("a", unwatched=1).findings != look("a").findings


def test_an_event_lists_no_more_than_some() -> None:
    fields = look("a", adopted=[str(number) for number in range(100)]).fields()
    assert len(fields["adopted"]) == MOST_LISTED


@pytest.mark.parametrize(
    ("raw", "quantity"),
    [
        ({"contracts": "2", "contractSize": "1", "side": "long", "entryPrice": "100.5"}, "2"),
        ({"contracts": "2", "contractSize": "0.1", "side": "short"}, "-0.2"),
        ({"contracts": "-3", "side": None}, "-3"),
        ({"contracts": "0", "side": "long"}, "0"),
    ],
)
def test_positions(raw: dict[str, str], quantity: str) -> None:
    told = parsing.unified_position({"symbol": "BTC/USDT:USDT", **raw})
    assert told is not None
    assert (told.symbol, told.quantity) == ("BTC/USDT:USDT", Decimal(quantity))
    assert isinstance(told, Position)


def test_a_position_without_a_size_is_none() -> None:
    assert parsing.unified_position({"symbol": "BTC/USDT:USDT", "contracts": None}) is None


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        ({"type": "LIMIT_MAKER"}, OrderType.LIMIT),
        ({"type": "STOP_LOSS_LIMIT", "stopPrice": "90"}, OrderType.STOP_LIMIT),
        ({"type": "STOP_LOSS", "trailingDelta": 50}, OrderType.TRAILING_STOP),
        ({"type": "TAKE_PROFIT", "stopPrice": "110"}, OrderType.TAKE_PROFIT),
        ({"type": "SOMETHING_NEW"}, None),
    ],
)
def test_what_an_order_at_binance_is(raw: dict[str, str], kind: OrderType | None) -> None:
    told = parsing.binance_order(
        {"orderId": 1, "clientOrderId": "c", "status": "NEW", "side": "BUY", "timeInForce": "IOC", **raw}, "BTC/USDT"
    )
    assert (told.order_type, told.time_in_force, told.status) == (kind, TimeInForce.IOC, VenueOrderStatus.OPEN)
    assert told.stop_price == (Decimal(raw["stopPrice"]) if "stopPrice" in raw else None)


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        ({"type": "limit"}, OrderType.LIMIT),
        ({"type": "market", "triggerPrice": 90}, OrderType.STOP),
        ({"type": None}, None),
    ],
)
def test_what_an_order_of_ccxts_is(raw: dict[str, object], kind: OrderType | None) -> None:
    assert parsing.unified_order({"id": "1", "status": "open", **raw}, "BTC/USDT").order_type is kind
