"""What an error says about the request: the one audited table.

The venue's own code counts first, ccxt's class second; ccxt gives one class to errors of very different meaning (-1007, "the order
may have been executed", and a refused connection are both network errors). Of a create, only what is listed here is a certain
reject; everything else is unknown and must be asked for.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Literal

import ccxt

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

Kind = Literal["create", "cancel", "read"]

_CODE = re.compile(r'"(?:code|retCode|sCode|error_code)"\s*:\s*"?(-?\d+)"?')
_SECRET = re.compile(
    r"(?i)\b(signature|apikey|api_key|secret|passphrase|x-mbx-apikey|listenkey)([=:\"'\s]+)[A-Za-z0-9+/=_%.-]{4,}"
)
_QUERY = re.compile(r"\?[^\s\"']*")

_BINANCE: dict[int, type[AdapterError]] = {
    -1000: Unknown,  # UNKNOWN
    -1001: Unknown,  # DISCONNECTED
    -1006: Unknown,  # UNEXPECTED_RESP: "execution status unknown"
    -1007: Unknown,  # TIMEOUT: "send status unknown"
    -1008: Unknown,  # SERVER_BUSY
    -1013: Rejected,  # a filter
    -1014: Rejected,  # UNKNOWN_ORDER_COMPOSITION
    -1020: Rejected,  # UNSUPPORTED_OPERATION
    -1021: ClockSkew,
    -1022: CredentialsRefused,  # the signature: the secret is wrong
    -2008: CredentialsRefused,
    -2011: OrderUnknown,
    -2013: OrderUnknown,
    -2014: CredentialsRefused,
    -2015: CredentialsRefused,
    -2026: OrderUnknown,  # archived
    -4116: DuplicateClientOrderId,  # futures
}
_BINANCE |= dict.fromkeys(range(-1199, -1099), Rejected)  # parameters
_BINANCE_RATE = frozenset({-1003, -1015, -1034})

_BINANCE_2010: tuple[tuple[str, type[AdapterError]], ...] = (
    ("duplicate order", DuplicateClientOrderId),
    ("insufficient balance", InsufficientFunds),
    ("immediately match", PostOnlyRejected),
    ("unknown order", OrderUnknown),
)
"""-2010 is every reject of a new order; the text says which."""

_OTHERS: dict[str, dict[int, type[AdapterError]]] = {
    "okx": {
        51016: DuplicateClientOrderId,
        51008: InsufficientFunds,
        51400: OrderUnknown,
        51603: OrderUnknown,
        50102: ClockSkew,
    },
    "bybit": {
        110072: DuplicateClientOrderId,
        170141: DuplicateClientOrderId,
        110001: OrderUnknown,
        170213: OrderUnknown,
        10002: ClockSkew,
        170131: InsufficientFunds,
        110007: InsufficientFunds,
    },
    "kucoin": {200004: InsufficientFunds},
}

_CERTAIN: tuple[type[Exception], ...] = (
    ccxt.InsufficientFunds,
    ccxt.InvalidOrder,
    ccxt.BadSymbol,
    ccxt.BadRequest,
    ccxt.ArgumentsRequired,
    ccxt.PermissionDenied,
    ccxt.AccountSuspended,
    ccxt.AccountNotEnabled,
    ccxt.AuthenticationError,
    ccxt.OperationRejected,
    ccxt.NotSupported,
    ccxt.ContractUnavailable,
)
"""ccxt classes that a venue's clear answer "no" is put into."""


def judge(
    exchange: str,
    kind: Kind,
    error: Exception,
    *,
    sent: bool,
    status: int | None,
    headers: Mapping[str, str],
    body: str,
) -> AdapterError:
    """What an error means for the request. `sent`: whether any of its bytes left; `status`, `headers` (lower case), `body`: the answer's."""
    text = scrub(f"{type(error).__name__}: {body[:300] or error}")
    code = _code(body)
    told = str(code) if code is not None else None
    if status is not None and (status in (418, 429) or (exchange.startswith("binance") and code in _BINANCE_RATE)):
        return RateLimited(text, until=_until(status, headers), code=told)
    if isinstance(error, ccxt.RateLimitExceeded | ccxt.DDoSProtection) and (status is None or status < 500):
        return RateLimited(text, until=_until(status, headers), code=told)
    listed = _listed(exchange, code, body)
    if listed is not None:
        return listed(text, code=told)
    if not sent:
        # ccxt refused to build the request, or there was no connection to send it on.
        return Rejected(text) if isinstance(error, _CERTAIN) else Unavailable(text)
    if kind == "read":
        return Unknown(text, code=told)
    return _by_class(error, kind, text, told, status)


def _by_class(error: Exception, kind: Kind, text: str, code: str | None, status: int | None) -> AdapterError:
    clear = status is not None and status < 500
    if not clear:
        return Unknown(text, code=code)
    if isinstance(error, ccxt.OrderNotFound):
        return OrderUnknown(text, code=code) if kind == "cancel" else Unknown(text, code=code)
    if isinstance(error, ccxt.DuplicateOrderId):
        return DuplicateClientOrderId(text, code=code)
    if isinstance(error, ccxt.InvalidNonce):
        return ClockSkew(text, code=code)
    if isinstance(error, ccxt.InsufficientFunds):
        return InsufficientFunds(text, code=code)
    if isinstance(error, ccxt.OrderImmediatelyFillable):
        return PostOnlyRejected(text, code=code)
    if isinstance(error, ccxt.AuthenticationError):
        return CredentialsRefused(text, code=code)
    if isinstance(error, _CERTAIN) and not isinstance(error, ccxt.OperationFailed):
        return Rejected(text, code=code)
    return Unknown(text, code=code)


def _listed(exchange: str, code: int | None, body: str) -> type[AdapterError] | None:
    if code is None:
        return None
    if exchange.startswith("binance") or exchange in ("mexc", "aster"):
        if code == -2010:
            lower = body.lower()
            return next((error for part, error in _BINANCE_2010 if part in lower), Rejected)
        return _BINANCE.get(code)
    return _OTHERS.get(exchange, {}).get(code)


def _code(body: str) -> int | None:
    found = _CODE.search(body[:2000])
    return int(found.group(1)) if found else None


def _until(status: int | None, headers: Mapping[str, str]) -> int:
    """When to try again: as told, else after a second, or two minutes of a ban."""
    told = headers.get("retry-after", "")
    seconds = int(told) if told.isdigit() else 120 if status == 418 else 1
    return time.time_ns() // 1_000_000 + max(seconds, 1) * 1000


def scrub(text: str) -> str:
    """The text without query strings, keys and signatures."""
    return _SECRET.sub(r"\1\2***", _QUERY.sub("?...", text))
