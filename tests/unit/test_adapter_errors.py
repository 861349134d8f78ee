"""The audited table of errors, for what the local venue cannot be made to answer."""

from __future__ import annotations

import ccxt
import pytest

from adapters.base import (
    AdapterError,
    ClockSkew,
    CredentialsRefused,
    DuplicateClientOrderId,
    InsufficientFunds,
    OrderUnknown,
    PostOnlyRejected,
    RateLimited,
    Rejected,
    Unavailable,
    Unknown,
)
from adapters.ccxt_venue.errors import Kind, judge, orders_only, scrub, venue_codes


def judged(
    exchange: str,
    body: str,
    *,
    kind: Kind = "create",
    error: Exception | None = None,
    status: int | None = 200,
    sent: bool = True,
) -> AdapterError:
    return judge(exchange, kind, error or ccxt.ExchangeError("x"), sent=sent, status=status, headers={}, body=body)


@pytest.mark.parametrize(
    ("exchange", "body", "meaning"),
    [
        ("okx", '{"code":"1","data":[{"sCode":"51008","sMsg":"Insufficient"}]}', InsufficientFunds),
        (
            "okx",
            '{"code":"1","data":[{"sCode":"51016","sMsg":"Client order ID already exists."}]}',
            DuplicateClientOrderId,
        ),
        ("okx", '{"code":"50004","msg":"API endpoint request timeout."}', Unknown),
        ("okx", '{"code":"1","data":[{"sCode":"51149","sMsg":"Order timed out."}]}', Unknown),
        ("okx", '{"code":"50102","msg":"Timestamp request expired"}', ClockSkew),
        ("okx", '{"code":"50011","msg":"Too Many Requests"}', RateLimited),
        ("bybit", '{"retCode":110072,"retMsg":"OrderLinkedID is duplicate"}', DuplicateClientOrderId),
        ("bybit", '{"retCode":10016,"retMsg":"Internal server error."}', Unknown),
        ("bybit", '{"retCode":10002,"retMsg":"invalid request, please check your server timestamp"}', ClockSkew),
        ("bybit", '{"retCode":10004,"retMsg":"error sign!"}', CredentialsRefused),
        ("kraken", '{"error":["EOrder:Insufficient funds"]}', InsufficientFunds),
        ("kraken", '{"error":["EService:Unavailable"]}', Unknown),
        ("kraken", '{"error":["EAPI:Invalid nonce"]}', ClockSkew),
        ("kraken", '{"error":["EOrder:Post only order"]}', PostOnlyRejected),
        ("kucoin", '{"code":"200004","msg":"Balance insufficient!"}', InsufficientFunds),
        ("coinbase", '{"success":false,"error_response":{"error":"INSUFFICIENT_FUND"}}', InsufficientFunds),
        ("binanceusdm", '{"code":-4116,"msg":"clientOrderId is duplicated"}', DuplicateClientOrderId),
        ("binanceusdm", '{"code":-2022,"msg":"ReduceOnly Order is rejected."}', Rejected),
        ("binance", '{"code":-2022,"msg":"Order cancel-replace failed."}', Unknown),
        ("binanceusdm", '{"code":-1007,"msg":"Timeout waiting for response"}', Unknown),
        ("binanceusdm", '{"code":-2019,"msg":"Margin is insufficient."}', InsufficientFunds),
    ],
)
def test_the_venues_own_code_decides(exchange: str, body: str, meaning: type[AdapterError]) -> None:
    # ccxt's class is the least helpful one on purpose
    assert type(judged(exchange, body)) is meaning


@pytest.mark.parametrize(
    ("error", "create", "cancel", "read"),
    [
        (ccxt.InsufficientFunds("x"), InsufficientFunds, InsufficientFunds, InsufficientFunds),
        (ccxt.OrderNotFound("x"), Unknown, OrderUnknown, OrderUnknown),
        (ccxt.DuplicateOrderId("x"), DuplicateClientOrderId, Rejected, Rejected),
        (ccxt.OrderImmediatelyFillable("x"), PostOnlyRejected, PostOnlyRejected, PostOnlyRejected),
        (ccxt.InvalidOrder("x"), Rejected, Rejected, Rejected),
        (ccxt.BadSymbol("x"), Rejected, Rejected, Rejected),
        (ccxt.MarketClosed("x"), Rejected, Rejected, Rejected),
        (ccxt.PermissionDenied("x"), CredentialsRefused, CredentialsRefused, CredentialsRefused),
        (ccxt.RateLimitExceeded("x"), RateLimited, RateLimited, RateLimited),
        (ccxt.InvalidNonce("x"), ClockSkew, ClockSkew, ClockSkew),
        (ccxt.ExchangeError("x"), Unknown, Unknown, Unknown),
        (ccxt.OperationFailed("x"), Unknown, Unknown, Unknown),
        (ccxt.RequestTimeout("x"), Unknown, Unknown, Unknown),
        (ccxt.ExchangeNotAvailable("x"), Unknown, Unknown, Unknown),
        (ccxt.OnMaintenance("x"), Unknown, Unknown, Unknown),
        (ccxt.BadResponse("x"), Unknown, Unknown, Unknown),
        (KeyError("x"), Unknown, Unknown, Unknown),
    ],
)
def test_ccxts_class_decides_where_no_code_is_known(
    error: Exception, create: type[AdapterError], cancel: type[AdapterError], read: type[AdapterError]
) -> None:
    kinds: list[tuple[Kind, type[AdapterError]]] = [("create", create), ("cancel", cancel), ("read", read)]
    for kind, meaning in kinds:
        assert type(judged("whitebit", "{}", kind=kind, error=error, status=400)) is meaning


def test_nothing_but_a_complete_answer_is_a_certain_reject() -> None:
    for error in (ccxt.InsufficientFunds("x"), ccxt.InvalidOrder("x"), ccxt.RateLimitExceeded("x")):
        assert type(judged("whitebit", "", error=error, status=None)) is Unknown
        assert type(judged("whitebit", "", error=error, status=503)) is Unknown


def test_what_was_not_sent_is_certain() -> None:
    assert type(judged("kraken", "", error=ccxt.ExchangeNotAvailable("x"), status=None, sent=False)) is Unavailable
    assert type(judged("kraken", "", error=ccxt.ArgumentsRequired("x"), status=None, sent=False)) is Rejected
    assert type(judged("kraken", "", error=TypeError("x"), status=None, sent=False)) is Rejected


def test_only_the_limit_of_orders_leaves_cancels_alone() -> None:
    for code, alone in (("-1015", True), ("-1003", False), ("-1034", False)):
        limited = judged("binance", f'{{"code":{code},"msg":"Too many"}}', status=429)
        assert isinstance(limited, RateLimited)
        assert orders_only("binance", limited) is alone


def test_codes_the_most_specific_first() -> None:
    assert venue_codes('{"code":"1","data":[{"sCode":"51008"}],"msg":""}') == ["51008", "1"]
    assert venue_codes("<html>") == []
    assert venue_codes("[" * 100_000) == []
    assert venue_codes('{"code":0,"retCode":0}') == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET https://h/api?timestamp=1&signature=abc 502", "GET https://h/api?... 502"),
        ("{'X-MBX-APIKEY': 'abcdefghijklmnop'}", "{'X-MBX-APIKEY': '***'}"),
        ("signature=0123456789abcdef&x=1", "signature=***&x=1"),
        ('{"listenKey":"pqia91ma19a5s61cv6a81va65sdf19v8a65a1a5s61cv6a81va65sdf19v8a65a1"}', '{"listenKey":"***"}'),
        ("the signature: check the API secret", "the signature: check the API secret"),
        ("wss://h/ws/" + "a1" * 32, "***"),
    ],
)
def test_scrubbing(text: str, shown: str) -> None:
    assert scrub(text) == shown or ("a1" * 32 in text and "a1" * 32 not in scrub(text))
