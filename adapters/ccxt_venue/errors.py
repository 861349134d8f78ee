"""What an error says about the request: the one audited table.

The venue's own code counts first, ccxt's class second: ccxt gives one class to errors of very different meaning (-1007, "the order may
have been executed", a refused connection and a rate limit are all network errors). Of a create, only what stands here as certain is a
certain reject; everything else is unknown and must be asked for.
"""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Mapping
from enum import Enum
from typing import Any, Literal

import ccxt
import msgspec

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


class Limit(Enum):
    """A code that means "too many": of new orders only, or of everything."""

    ORDERS = "orders"
    ALL = "all"


Meaning = type[AdapterError] | Limit

_BINANCE: dict[str, Meaning] = {
    "-1000": Unknown,  # UNKNOWN
    "-1001": Unknown,  # DISCONNECTED: "internal error; unable to process your request"
    "-1002": CredentialsRefused,  # UNAUTHORIZED
    "-1003": Limit.ALL,  # TOO_MANY_REQUESTS
    "-1004": Unknown,  # SERVER_BUSY
    "-1006": Unknown,  # UNEXPECTED_RESP: "execution status unknown"
    "-1007": Unknown,  # TIMEOUT: "send status unknown; execution status unknown"
    "-1008": Unknown,  # overloaded
    "-1013": Rejected,  # INVALID_MESSAGE: a filter
    "-1014": Rejected,  # UNKNOWN_ORDER_COMPOSITION
    "-1015": Limit.ORDERS,  # TOO_MANY_ORDERS
    "-1016": Unknown,  # SERVICE_SHUTTING_DOWN
    "-1020": Rejected,  # UNSUPPORTED_OPERATION
    "-1021": ClockSkew,  # INVALID_TIMESTAMP
    "-1022": CredentialsRefused,  # INVALID_SIGNATURE: the secret is wrong
    "-1034": Limit.ALL,  # TOO_MANY_CONNECTIONS
    "-2008": CredentialsRefused,  # BAD_API_ID
    "-2010": Rejected,  # NEW_ORDER_REJECTED: the text says why, see _WORDS
    "-2011": Rejected,  # CANCEL_REJECTED: likewise
    "-2013": OrderUnknown,  # NO_SUCH_ORDER
    "-2014": CredentialsRefused,  # BAD_API_KEY_FMT
    "-2015": CredentialsRefused,  # REJECTED_MBX_KEY: key, address or permissions
    "-2021": Unknown,  # cancelReplace half done
    "-2022": Unknown,  # cancelReplace failed
    "-2026": OrderUnknown,  # archived: ended without a trade, long ago
}
_BINANCE |= dict.fromkeys(map(str, range(-1199, -1099)), Rejected)  # a parameter is missing, malformed or too precise

_BINANCE_FUTURES: dict[str, Meaning] = (
    _BINANCE
    | dict.fromkeys(map(str, range(-4199, -3999)), Rejected)  # filters and parameters
    | {
        "-2018": InsufficientFunds,
        "-2019": InsufficientFunds,  # margin
        "-2020": Rejected,  # cannot be filled
        "-2021": Rejected,  # would trigger immediately
        "-2022": Rejected,  # reduce-only
        "-2027": Rejected,  # position limit
        "-2028": Rejected,  # leverage
        "-4116": DuplicateClientOrderId,
        "-5021": Rejected,  # FOK
        "-5022": PostOnlyRejected,
    }
)

_OKX: dict[str, Meaning] = {
    "50001": Unknown,  # service unavailable
    "50004": Unknown,  # timed out: "does not mean success or failure"
    "50011": Limit.ALL,
    "50013": Unknown,  # busy
    "50026": Unknown,
    "50061": Limit.ORDERS,
    "50102": ClockSkew,
    "50105": CredentialsRefused,
    "50111": CredentialsRefused,
    "50113": CredentialsRefused,
    "50114": CredentialsRefused,
    "50119": CredentialsRefused,
    "51001": Rejected,  # no such instrument
    "51008": InsufficientFunds,
    "51016": DuplicateClientOrderId,
    "51020": Rejected,  # below the minimum
    "51149": Unknown,  # timed out
    "51400": OrderUnknown,  # filled, cancelled or not there
    "51401": OrderUnknown,
    "51402": OrderUnknown,
    "51410": Unknown,  # being cancelled already
    "51603": OrderUnknown,
}

_BYBIT: dict[str, Meaning] = {
    "10000": Unknown,  # timeout
    "10001": Rejected,  # parameter
    "10002": ClockSkew,
    "10003": CredentialsRefused,
    "10004": CredentialsRefused,
    "10005": CredentialsRefused,
    "10006": Limit.ALL,
    "10010": CredentialsRefused,  # address
    "10016": Unknown,
    "10018": Limit.ALL,
    "110001": OrderUnknown,
    "110004": InsufficientFunds,
    "110007": InsufficientFunds,
    "110008": OrderUnknown,  # ended
    "110010": OrderUnknown,  # cancelled
    "110012": InsufficientFunds,
    "110072": DuplicateClientOrderId,
    "170131": InsufficientFunds,
    "170141": DuplicateClientOrderId,
    "170213": OrderUnknown,
    "170218": PostOnlyRejected,
}

_KRAKEN: dict[str, Meaning] = {
    "EOrder:Insufficient funds": InsufficientFunds,
    "EOrder:Insufficient initial margin": InsufficientFunds,
    "EOrder:Post only order": PostOnlyRejected,
    "EOrder:Unknown order": OrderUnknown,
    "EOrder:Invalid order": Rejected,
    "EOrder:Invalid price": Rejected,
    "EOrder:Order minimum not met": Rejected,
    "EOrder:Cost minimum not met": Rejected,
    "EOrder:Tick size check failed": Rejected,
    "EOrder:Orders limit exceeded": Rejected,
    "EOrder:Rate limit exceeded": Limit.ORDERS,
    "EAPI:Rate limit exceeded": Limit.ALL,
    "EAPI:Invalid key": CredentialsRefused,
    "EAPI:Invalid signature": CredentialsRefused,
    "EAPI:Invalid nonce": ClockSkew,
    "EGeneral:Permission denied": CredentialsRefused,
    "EGeneral:Invalid arguments": Rejected,
    "EService:Deadline elapsed": Rejected,
    "EService:Unavailable": Unknown,
    "EService:Busy": Unknown,
    "EService:Timeout": Unknown,
    "EGeneral:Internal error": Unknown,
    "EGeneral:Temporary lockout": Limit.ALL,
}

_KUCOIN: dict[str, Meaning] = {
    "200004": InsufficientFunds,
    "400001": CredentialsRefused,
    "400002": ClockSkew,
    "400003": CredentialsRefused,
    "400004": CredentialsRefused,
    "400005": CredentialsRefused,
    "400006": CredentialsRefused,  # address
    "400007": CredentialsRefused,
    "429000": Limit.ALL,
    "500000": Unknown,
}

_COINBASE: dict[str, Meaning] = {
    "INSUFFICIENT_FUND": InsufficientFunds,
    "PREVIEW_INSUFFICIENT_FUND": InsufficientFunds,
    "INVALID_LIMIT_PRICE_POST_ONLY": PostOnlyRejected,
    "PREVIEW_INVALID_LIMIT_PRICE_POST_ONLY": PostOnlyRejected,
    "UNKNOWN_CANCEL_ORDER": OrderUnknown,
}

_CODES: dict[str, dict[str, Meaning]] = {
    "binance": _BINANCE,
    "binanceus": _BINANCE,
    "binanceusdm": _BINANCE_FUTURES,
    "binancecoinm": _BINANCE_FUTURES,
    "aster": _BINANCE_FUTURES,
    "okx": _OKX,
    "bybit": _BYBIT,
    "kraken": _KRAKEN,
    "kucoin": _KUCOIN,
    "coinbase": _COINBASE,
}

_WORDS: tuple[tuple[str, type[AdapterError]], ...] = (
    ("duplicate", DuplicateClientOrderId),
    ("insufficient balance", InsufficientFunds),
    ("insufficient fund", InsufficientFunds),
    ("insufficient margin", InsufficientFunds),
    ("immediately match", PostOnlyRejected),
    ("unknown order", OrderUnknown),
)
"""What tells the rejects of one code apart: on Binance, -2010 is every refused order and -2011 every refused cancel."""

_CLASSES: tuple[tuple[type[Exception], type[AdapterError]], ...] = (
    (ccxt.DuplicateOrderId, DuplicateClientOrderId),
    (ccxt.OrderNotFound, OrderUnknown),
    (ccxt.OrderImmediatelyFillable, PostOnlyRejected),
    (ccxt.InsufficientFunds, InsufficientFunds),
    (ccxt.InvalidNonce, ClockSkew),
    (ccxt.AuthenticationError, CredentialsRefused),
    (ccxt.InvalidOrder, Rejected),
    (ccxt.BadRequest, Rejected),
    (ccxt.ArgumentsRequired, Rejected),
    (ccxt.OperationRejected, Rejected),
    (ccxt.NotSupported, Rejected),
)
"""ccxt's classes for a venue's clear "no", subclasses before their bases. A plain ExchangeError is not among them: it is what ccxt
raises for a code that it does not know."""


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
    """What an error means for the request. `sent`: whether a byte may have left; `status`, `headers` (lower case), `body`: the answer's."""
    if not sent:
        text = scrub(str(error)) or type(error).__name__
        # Either there was no connection, or ccxt would not build such a request.
        return Unavailable(text) if isinstance(error, ccxt.NetworkError) else Rejected(f"not sent: {text}")
    codes = venue_codes(body)
    code = codes[0] if codes else None
    text = scrub(_text(error, status, body))
    table = _CODES.get(exchange, {})
    code, meaning = next(((one, table[one]) for one in codes if one in table), (code, None))
    if status in (418, 429) or isinstance(meaning, Limit):
        return RateLimited(text, until=_until(status, headers, body), code=code)
    if status is None or status >= 500:
        return Unknown(text, code=code)
    if meaning is None and isinstance(error, ccxt.RateLimitExceeded | ccxt.DDoSProtection):
        return RateLimited(text, until=_until(status, headers, body), code=code)
    if meaning is None:
        meaning = next((told for ours, told in _CLASSES if isinstance(error, ours)), Unknown)
    if meaning is Rejected:
        lower = body.lower()
        meaning = next((told for words, told in _WORDS if words in lower), Rejected)
    if kind == "create" and meaning is OrderUnknown:
        meaning = Unknown  # no answer to a create
    elif kind != "create" and meaning is DuplicateClientOrderId:
        meaning = Rejected
    return meaning(text, code=code)


def orders_only(exchange: str, error: RateLimited) -> bool:
    """Whether the limit that was hit is that of new orders, so that cancels may go on."""
    return error.code is not None and _CODES.get(exchange, {}).get(error.code) is Limit.ORDERS


def venue_codes(body: str) -> list[str]:
    """The venue's own error codes in an answer, the most specific first."""
    try:
        told = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    return list(dict.fromkeys(_codes_in(told)))


def _text(error: Exception, status: int | None, body: str) -> str:
    """The venue's own words, else the beginning of its answer, else ccxt's."""
    try:
        told = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = " ".join(body[:200].split()) or str(error) or type(error).__name__
        return said if status is None else f"HTTP {status}: {said}"
    for key in ("msg", "retMsg", "message"):
        if isinstance(told, dict) and isinstance(told.get(key), str) and told[key]:
            return f"{told[key][:300]}"
    return body[:300]


def _codes_in(told: Any) -> list[str]:
    if isinstance(told, list):
        return [code for item in told[:3] for code in _codes_in(item)]
    if not isinstance(told, dict):
        return []
    inner = [code for key in ("data", "result", "error_response") for code in _codes_in(told.get(key))]
    errors = told.get("error")
    named = [str(item) for item in errors] if isinstance(errors, list) else []
    own = [
        str(told[key])
        for key in ("sCode", "retCode", "preview_failure_reason", "failure_reason", "error", "code")
        if isinstance(told.get(key), str | int) and not isinstance(told[key], bool)
    ]
    return [code for code in (*inner, *named, *own) if code not in ("0", "200", "")]


def _until(status: int | None, headers: Mapping[str, str], body: str) -> int:
    """When to try again, in ms since the epoch: as told, else after a second, or two minutes of a ban."""
    now = time.time_ns() // 1_000_000
    banned = re.search(r"until (\d{13})", body)
    if banned is not None:
        return max(int(banned[1]), now + 1000)
    told = headers.get("retry-after", "").strip()
    try:
        seconds = float(told)
    except ValueError:
        date = email.utils.parsedate_tz(told)
        seconds = email.utils.mktime_tz(date) - now / 1000 if date else 120.0 if status == 418 else 1.0
    return now + int(min(max(seconds, 1.0), 3 * 86400.0) * 1000)


_QUERY = re.compile(r"\?[^\s\"'<>]*")
_NAMED = re.compile(
    r"(?i)\b(signature|sign|api[-_]?key|secret|passphrase|password|listen[-_]?key|x-mbx-apikey)([\"']?\s*[=:]\s*[\"']?)[^\s\"'&,}]{12,}"
)
_TOKEN = re.compile(r"[A-Za-z0-9+/_=-]{40,}")


def scrub(text: str) -> str:
    """The text without query strings, and without what is named, or looks like, a key or signature."""
    return _TOKEN.sub("***", _NAMED.sub(r"\1\2***", _QUERY.sub("?...", text)))
