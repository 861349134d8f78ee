"""A ccxt exchange whose requests travel on our transport.

Only `fetch` is replaced: what ccxt builds and signs goes out as it is, and what comes back goes through ccxt's own error handling.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

import ccxt
import ccxt.pro

from adapters.ccxt_venue.dialects import Dialect
from adapters.ccxt_venue.endpoint import Endpoint
from adapters.ccxt_venue.transport import NoAnswer, NotSent, Transport

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy")


class Call:
    """One request, as its caller and the transport see it."""

    __slots__ = ("_before_send", "body", "headers", "refusal", "sent", "status")

    def __init__(self, before_send: Callable[[], None] | None = None) -> None:
        self._before_send = before_send
        self.sent = False
        self.refusal: BaseException | None = None
        """What `before_send` raised."""
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.body = ""

    def leaving(self) -> None:
        """Directly before the bytes leave."""
        if self._before_send is not None:
            try:
                self._before_send()
            except BaseException as refusal:
                self.refusal = refusal
                raise
        self.sent = True


current: ContextVar[Call | None] = ContextVar("call", default=None)
"""The call on whose behalf ccxt fetches."""


def build(
    endpoint: Endpoint, dialect: Dialect, credentials: dict[str, str], timeout: float, transport: Transport
) -> Any:
    """A ccxt.pro exchange for an endpoint. `credentials` by ccxt's names; `timeout` in seconds."""
    base = getattr(ccxt.pro, endpoint.exchange)

    class OnTransport(base):  # type: ignore[misc, valid-type]
        on_message: Callable[[Any], None] | None = None
        """Told of every message of a WebSocket, before ccxt merges it away."""

        async def fetch(self, url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
            return await _fetch(self, transport, url, method, headers, body)

        def handle_message(self, client: Any, message: Any) -> None:
            if self.on_message is not None:
                self.on_message(message)
            super().handle_message(client, message)

    direct = not any(os.environ.get(name) for name in _PROXIES)
    made = OnTransport if direct else base
    made.__name__ = base.__name__
    exchange = made(
        {
            **credentials,
            "enableRateLimit": False,
            "timeout": int(timeout * 1000),
            "newUpdates": True,
            "options": {**copy.deepcopy(dialect.options), "maxRetriesOnFailure": 0, "adjustForTimeDifference": False},
        }
    )
    exchange.has = {**exchange.has, "fetchCurrencies": False}
    exchange.number = str
    exchange.streaming = {**exchange.streaming, "keepAlive": 10_000}
    if endpoint.where == "sandbox":
        exchange.set_sandbox_mode(True)
    elif endpoint.url is not None:
        _redirect(exchange.urls["api"], endpoint.url)
        # ccxt chooses Binance's table of spot errors by the real host's name.
        spot = exchange.exceptions.get("spot")
        if isinstance(spot, dict):
            for group in ("exact", "broad"):
                exchange.exceptions.setdefault(group, {}).update(spot.get(group, {}))
    return exchange


def _redirect(urls: dict[str, Any], base: str) -> None:
    """Put another host into every URL; its path stays."""
    target = urlsplit(base)
    secure = target.scheme == "https"
    for name, value in urls.items():
        if isinstance(value, dict):
            _redirect(value, base)
        elif isinstance(value, str) and "://" in value:
            scheme, _, rest = value.partition("://")
            _, slash, path = rest.partition("/")
            socket = scheme.startswith("ws")
            new = ("wss" if secure else "ws") if socket else target.scheme
            urls[name] = f"{new}://{target.netloc}{slash}{path}"


async def _fetch(exchange: Any, transport: Transport, url: str, method: str, headers: Any, body: Any) -> Any:
    """What ccxt's own `fetch` does, on our transport: errors of the transport become ccxt's."""
    call = current.get() or Call()
    request_headers = {"Accept-Encoding": "gzip", **exchange.headers, **(headers or {})}
    payload = body.encode() if isinstance(body, str) else body
    named = f"{exchange.id} {method} {url.partition('?')[0]}"
    try:
        answer = await transport.request(
            method, url, request_headers, payload, seconds=exchange.timeout / 1000, before_send=call.leaving
        )
    except NotSent as error:
        raise ccxt.ExchangeNotAvailable(f"{named}: {error}") from error
    except NoAnswer as error:
        raise ccxt.RequestTimeout(f"{named}: {error}") from error
    text = answer.body.decode(errors="replace")
    call.status, call.headers, call.body = answer.status, answer.headers, text
    exchange.last_response_headers = answer.headers
    parsed = exchange.parse_json(text)
    exchange.handle_errors(
        answer.status, answer.reason, url, method, answer.headers, text, parsed, request_headers, body
    )
    exchange.handle_http_status_code(answer.status, answer.reason, url, method, text)
    return parsed if parsed is not None else text
