"""What comes in is read exactly, and refused by field and reason."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import command, exact_json, signal
from schemas.export import schemas
from schemas.terms import MAX_DIGITS, OrderType, Side, TimeInForce

MINIMUM = (
    '{"signal_id": "sig_123", "strategy_id": "ma_cross", "exchange": "binance", "symbol": "BTC/USDT", "side": "buy",'
    ' "quantity": 0.1, "order_type": "limit", "price": 50000.0, "time_in_force": "GTC"}'
)


def fields(**changes: Any) -> dict[str, Any]:
    base = exact_json.decode(MINIMUM)
    base.update(changes)
    return {name: value for name, value in base.items() if value is not ...}


def test_the_documented_minimum_works_as_it_stands() -> None:
    parsed, ignored = signal.parse(exact_json.decode(MINIMUM))
    assert parsed.quantity == Decimal("0.1")
    assert parsed.price == Decimal(50000)
    assert (parsed.side, parsed.order_type, parsed.time_in_force) == (Side.BUY, OrderType.LIMIT, TimeInForce.GTC)
    assert parsed.algorithm == "direct"
    assert ignored == ()


@pytest.mark.parametrize("text", ["0.1234567890123456789", '"0.1234567890123456789"'])
def test_a_number_keeps_every_digit(text: str) -> None:
    parsed, _ = signal.parse(exact_json.decode(MINIMUM.replace("0.1,", text + ",")))
    assert parsed.quantity == Decimal("0.1234567890123456789")
    assert b"0.1234567890123456789" in exact_json.encode({"quantity": parsed.quantity})


@given(
    st.decimals(min_value=Decimal("1e-28"), max_value=Decimal("1e27"), allow_nan=False, allow_infinity=False, places=28)
)
def test_numbers_survive_there_and_back(number: Decimal) -> None:
    text = f"{number:f}"
    if not any(digit in text for digit in "123456789"):
        return
    parsed, _ = signal.parse({**fields(), "quantity": exact_json.decode(text)})
    assert parsed.quantity == Decimal(text)
    assert Decimal(str(exact_json.decode(exact_json.encode(parsed.quantity)))) == Decimal(text)


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"symbol": ...}, "symbol", "is required"),
        ({"quantity": -1}, "quantity", "greater than 0"),
        ({"quantity": 0}, "quantity", "greater than 0"),
        ({"quantity": "abc"}, "quantity", "must be a number"),
        ({"quantity": True}, "quantity", "must be a number"),
        ({"quantity": "NaN"}, "quantity", "finite"),
        ({"quantity": "Infinity"}, "quantity", "finite"),
        ({"quantity": Decimal("1e-40")}, "quantity", f"{MAX_DIGITS} digits"),
        ({"quantity": Decimal("1e400")}, "quantity", f"{MAX_DIGITS} digits"),
        ({"quantity": None}, "quantity", "must be a number"),
        ({"side": "long"}, "side", "'buy' or 'sell'"),
        ({"order_type": "wish"}, "order_type", "'market', 'limit'"),
        ({"price": ...}, "price", "is required for a limit order"),
        ({"order_type": "stop", "price": ...}, "stop_price", "is required for a stop order"),
        ({"time_in_force": "GTD"}, "expires_at", "is required with time_in_force GTD"),
        ({"time_in_force": "DAY"}, "time_in_force", "'GTC'"),
        ({"post_only": True, "time_in_force": "IOC"}, "time_in_force", "cannot be post-only"),
        ({"post_only": True, "order_type": "market"}, "post_only", "cannot be post-only"),
        ({"signal_id": "with space"}, "signal_id", "pattern"),
        ({"signal_id": "x" * 129}, "signal_id", "128"),
        ({"stop_los": 1}, "stop_los", "did you mean stop_loss?"),
        ({"expires_at": "soon"}, "expires_at", "valid integer"),
        ({"metadata": []}, "metadata", "valid dictionary"),
    ],
)
def test_a_bad_signal_is_refused_by_field_and_reason(changes: dict[str, Any], field: str, reason: str) -> None:
    with pytest.raises(signal.InvalidSignal) as refusal:
        signal.parse(fields(**changes))
    assert refusal.value.field == field
    assert reason in refusal.value.reason


def test_every_wrong_field_is_named() -> None:
    with pytest.raises(signal.InvalidSignal, match="quantity"):
        signal.parse(fields(side="up", quantity="many"))


def test_fields_of_others_are_ignored_and_said() -> None:
    _, ignored = signal.parse(fields(confidence=1, timestamp=123, model="m1"))
    assert ignored == ("confidence", "model")


def test_case_does_not_matter_where_it_cannot_mislead() -> None:
    parsed, _ = signal.parse(fields(side="BUY", order_type="LIMIT", time_in_force="ioc"))
    assert (parsed.side, parsed.order_type, parsed.time_in_force) == (Side.BUY, OrderType.LIMIT, TimeInForce.IOC)


def test_a_signal_is_found_in_an_envelope() -> None:
    inner = fields()
    for envelope in ({"type": "signal.execute", "data": inner}, {"type": "ai.decision.made", "payload": inner}, inner):
        assert signal.unwrap(envelope) == inner


@pytest.mark.parametrize("text", [b"", b"{", b"NaN", b'{"a":Infinity}', b"\xff\xfe", b"{'a':1}", b"[" * 5000])
def test_what_is_not_json_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError):
        exact_json.decode(text)


def test_equal_content_has_one_canonical_form() -> None:
    first = exact_json.decode('{"a": 1.50, "b": {"c": "x", "d": 10}, "n": null}')
    second = exact_json.decode('{"b": {"d": 1e1, "c": "x"}, "a": 1.5}')
    assert exact_json.canonical(first) == exact_json.canonical(second)
    for other in ('{"a": 1.51, "b": {"c": "x", "d": 10}}', '{"a": "1.5", "b": {"c": "x", "d": 10}}', '{"a": 1.5}'):
        assert exact_json.canonical(exact_json.decode(other)) != exact_json.canonical(first)


@pytest.mark.parametrize(
    ("fields_", "field"),
    [
        ({"type": "order.cancel"}, "order_id"),
        ({"type": "order.explode", "order_id": "x"}, "type"),
        ({"order_id": "x"}, "type"),
        ({"type": "order.amend", "order_id": "x"}, "quantity"),
        ({"type": "order.amend", "order_id": "x", "price": -1}, "price"),
        ({"type": "halt", "scope": "venue"}, "value"),
        ({"type": "halt", "scope": "planet"}, "scope"),
    ],
)
def test_a_bad_command_is_refused_by_field(fields_: dict[str, Any], field: str) -> None:
    with pytest.raises(command.InvalidCommand) as refusal:
        command.parse(fields_)
    assert refusal.value.field == field


def test_commands_are_read() -> None:
    amend = command.parse({"type": "order.amend", "signal_id": "s", "price": Decimal("1.5"), "command_id": "c"})
    assert isinstance(amend, command.AmendOrder)
    assert amend.price == Decimal("1.5")
    for kind in ("order.cancel", "order.pause", "order.resume"):
        assert command.parse({"type": kind, "order_id": "o"}).type == kind


def test_every_schema_is_exported_as_json_schema() -> None:
    exported = schemas()
    assert set(exported) == {"signal", "command", "order-event", "parent-order", "child-order", "fill"}
    required = set(exported["signal"]["required"])
    assert required == {"signal_id", "strategy_id", "exchange", "symbol", "side", "quantity", "order_type"}
    for name, schema in exported.items():
        assert json.loads(json.dumps(schema)), name
