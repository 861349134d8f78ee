"""A ccxt exchange whose requests take our limiter's turns and travel on our transport.

What ccxt builds and signs goes out as it is, and what comes back goes through ccxt's own error handling; its HTTP client, its throttler
and its JSON numbers as floats are replaced.
"""

from __future__ import annotations

import copy
import re
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import ccxt
import ccxt.pro
import msgspec
import structlog

from adapters.base import Rejected
from adapters.ccxt_venue import public_only as public
from adapters.ccxt_venue.dialects import Dialect
from adapters.ccxt_venue.endpoint import Endpoint
from adapters.ccxt_venue.limiter import Lane, Limiter
from adapters.ccxt_venue.transport import NoAnswer, NotSent, Transport

log = structlog.get_logger(__name__)

USER_AGENT = "execution-service"
KEEP_ALIVE_MS = 10_000
"""Between two pings of a WebSocket; two that stay unanswered end it."""

HTTP_OK = 200
LONG_BODY = 65_536
"""Bytes."""

_PLAIN = re.compile(r"[A-Za-z0-9_.~-]*").fullmatch
_decode = msgspec.json.Decoder(float_hook=str).decode
"""JSON with every number that has a point or an exponent as its own text: ccxt passes texts through digit for digit."""
_decode_rows = msgspec.json.Decoder(list[msgspec.Raw]).decode


def read_row(row: Any) -> dict[str, Any]:
    """A row of a list that was asked for row by row.

    Raises:
        ValueError: it is no JSON object.
    """
    read = _decode(row) if isinstance(row, msgspec.Raw) else row
    if not isinstance(read, dict):
        raise ValueError("a row is no object")
    return read


class Call:
    """One request, as its caller, the limiter and the transport see it."""

    __slots__ = (
        "_before_send",
        "body",
        "client_id",
        "headers",
        "lane",
        "refusal",
        "row_by_row",
        "sent",
        "sent_at",
        "status",
        "turn_taken",
    )

    def __init__(self, lane: Lane, before_send: Callable[[], None] | None = None, client_id: str | None = None) -> None:
        self.lane = lane
        self.client_id = client_id
        """Of a create: what its request must hold. ccxt asks some exchanges this and that before it places an order."""
        self.row_by_row = False
        """A long list comes as the text of each row, for `read_row`: as dictionaries it would take many times its memory at once."""
        self.turn_taken = False
        """Its turn was awaited already, before it was built."""
        self.sent = False
        """Whether a byte may have left; of a create, a byte of the order itself."""
        self.sent_at = 0
        """When, in ms since the epoch."""
        self.refusal: BaseException | None = None
        """What `before_send` raised."""
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self.body = ""
        self._before_send = before_send

    def carries_order(self, method: str, url: str, body: Any, asks_by_post: tuple[str, ...]) -> bool:
        """Whether this is the request itself, and not one that ccxt makes before it.

        Raises:
            Rejected: it would change something at the venue, and does not hold the order's client id: it must not leave.
        """
        if self.client_id is None or self.client_id in url:
            return True
        text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
        if self.client_id in text:
            return True
        path = urlsplit(url).path
        if method != "GET" and path not in asks_by_post:
            raise Rejected(f"not sent: ccxt's {method} {path} does not carry the client order id")
        return False

    def leaving(self) -> None:
        """Directly before the bytes leave."""
        if self._before_send is not None:
            try:
                self._before_send()
            except BaseException as refusal:
                self.refusal = refusal
                raise
        self.sent_at = time.time_ns() // 1_000_000
        self.sent = True
        self.status = None  # of an earlier request of the same call


def _nothing() -> None:
    """Before a request that ccxt makes ahead of an order."""


current: ContextVar[Call | None] = ContextVar("call", default=None)
"""The call on whose behalf ccxt sends."""


def build(
    endpoint: Endpoint,
    dialect: Dialect,
    *,
    timeout: float,
    ttl_ms: int,
    transport: Transport,
    limiter: Limiter,
    public_only: bool = False,
) -> Any:
    """A ccxt.pro exchange for an endpoint; `timeout` in seconds, `ttl_ms` after which a create expires. `public_only`: it holds no
    credentials, builds no private request, and lets none pass."""
    base = getattr(ccxt.pro, endpoint.exchange)
    proxies = urllib.request.getproxies()
    local = endpoint.url is not None
    guard = public.guard(dialect) if public_only else None
    usual_lane = Lane.MARKET if public_only else Lane.READ

    class OnTransport(base):  # type: ignore[misc, valid-type]
        on_message: Callable[[Any], bool] | None = None
        """Told of every message of a WebSocket before ccxt is; True: ccxt need not be told."""
        on_client_message: Callable[[Any, Any], bool] | None = None
        """The same, told the connection that it came on as well."""
        after_message: Callable[[], None] | None = None
        """Called when ccxt has read a message."""
        number: Any
        rate_limits: Any = None
        """The rate limits that Binance's `exchangeInfo` told last."""

        async def throttle(self, cost: Any = None) -> None:
            call = current.get()
            if call is None or not call.turn_taken:
                lane = usual_lane if call is None else call.lane
                await limiter.turn(dialect.weight_per_cost * float(1 if cost is None else cost), lane)

        async def fetch(self, url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
            if guard is not None:
                guard(method, url, headers or {})
            call = current.get() or Call(usual_lane)
            leaving = call.leaving
            if call.client_id is not None:
                if call.carries_order(method, url, body, dialect.asks_by_post):
                    if dialect.expiry_header is not None:
                        deadline = time.time_ns() // 1_000_000 + limiter.skew_ms + ttl_ms
                        headers = {**(headers or {}), dialect.expiry_header: str(deadline)}
                elif dialect.known:
                    leaving = _nothing
            if proxies and _proxied(url, proxies):
                if method == "GET" and call.client_id is not None and leaving == call.leaving:
                    raise Rejected(
                        "not sent: the client for proxies may send a GET twice, and this one places an order"
                    )
                leaving()
                return await _fetch_by_proxy(self, super().fetch, call, url, method, headers, body)
            return await _fetch(self, transport, call, leaving, url, method, headers, body)

        def sign(self, path: str, api: Any = "public", method: str = "GET", params: Any = None, *more: Any) -> Any:
            if guard is not None:
                public.may_build(api, method, path, params, dialect)
            return super().sign(path, api, method, params or {}, *more)

        def safe_trade(self, trade: Any, market: Any = None) -> Any:
            """Streamed books need numbers that can be compared; a trade keeps its digits."""
            was, self.number = self.number, str
            try:
                return super().safe_trade(trade, market)
            finally:
                self.number = was

        def check_required_credentials(self, error: bool = True) -> bool:
            if guard is not None and error:
                raise Rejected("not sent: a place that only watches the market has no credentials")
            return bool(super().check_required_credentials(error))

        def urlencode(self, params: dict[str, Any] = {}, *options: Any, **more: Any) -> str:  # noqa: B006 - as ccxt's
            """ccxt's quotes every value; nothing of ours needs it."""
            if not options and not more:
                texts = [str(value) for value in params.values() if type(value) in (int, str)]
                if len(texts) == len(params) and _PLAIN("".join((*params, *texts))):
                    return "&".join(map("=".join, zip(params, texts, strict=True)))
            return str(base.urlencode(params, *options, **more))

        def on_rest_response(
            self, code: Any, reason: Any, url: Any, method: Any, headers: Any, body: Any, *_: Any
        ) -> Any:
            call = current.get()
            if call is not None:
                call.status, call.body = code, body
                call.headers = {name.lower(): value for name, value in headers.items()}
            return body.strip()

        def handle_message(self, client: Any, message: Any) -> None:
            client.lastPong = self.milliseconds()  # who speaks lives, whether pings are answered or not
            if self.on_client_message is not None and self.on_client_message(client, message):
                return
            if self.on_message is None or not self.on_message(message):
                super().handle_message(client, message)
                if self.after_message is not None:
                    self.after_message()

        async def handle_builder_fee_approval(self, *_: Any) -> bool:
            """ccxt would approve a builder of its own, on the account, before an order."""
            return True

        def is_spot_url(self, client: Any) -> bool:
            # ccxt tells spot from contracts by the real host's name.
            spot = local and client.url.startswith(self.urls["api"]["ws"]["spot"])
            return bool(spot or super().is_spot_url(client))

    OnTransport.__name__ = base.__name__
    exchange = OnTransport(
        {
            "enableRateLimit": True,
            "timeout": int(timeout * 1000),
            "newUpdates": True,
            "aiohttp_trust_env": True,
            "options": {**copy.deepcopy(dialect.options), "maxRetriesOnFailure": 0, "adjustForTimeDifference": False},
        }
    )
    exchange.has = {**exchange.has, "fetchCurrencies": False}
    if not dialect.shows_trades:
        exchange.has["fetchTrades"] = False
    exchange.number = str
    exchange.streaming = {**exchange.streaming, "keepAlive": KEEP_ALIVE_MS}
    if endpoint.where == "sandbox":
        exchange.set_sandbox_mode(True)
    elif endpoint.url is not None:
        redirect(exchange.urls["api"], endpoint.url)
        exchange.timeout_on_exit = 0
        # ccxt chooses Binance's table of spot errors by the real host's name.
        spot = exchange.exceptions.get("spot")
        if isinstance(spot, dict):
            for group in ("exact", "broad"):
                exchange.exceptions.setdefault(group, {}).update(spot.get(group, {}))
    if _proxied(endpoint.url or "https://exchange.invalid", proxies):
        log.warning("requests go through the proxy of the environment, by ccxt's slower client", venue=endpoint.name)
    return exchange


def redirect(urls: dict[str, Any], base: str) -> None:
    """Put another host into every URL; its path stays."""
    target = urlsplit(base)
    secure = target.scheme == "https"
    for name, value in urls.items():
        if isinstance(value, dict):
            redirect(value, base)
        elif isinstance(value, str) and "://" in value:
            scheme, _, rest = value.partition("://")
            _, slash, path = rest.partition("/")
            socket = scheme.startswith("ws")
            new = ("wss" if secure else "ws") if socket else target.scheme
            urls[name] = f"{new}://{target.netloc}{slash}{path}"


def _proxied(url: str, proxies: Mapping[str, str]) -> bool:
    """Whether the environment sends this URL through a proxy."""
    parts = urlsplit(url)
    if parts.scheme not in proxies and "all" not in proxies:
        return False
    return not urllib.request.proxy_bypass(parts.hostname or "")


async def _fetch(
    exchange: Any,
    transport: Transport,
    call: Call,
    leaving: Callable[[], None],
    url: str,
    method: str,
    headers: Any,
    body: Any,
) -> Any:
    """What ccxt's own `fetch` does, on our transport; the transport's errors become ccxt's."""
    request_headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "gzip", **exchange.headers, **(headers or {})}
    payload = body.encode() if isinstance(body, str) else body
    try:
        answer = await transport.request(
            method,
            url,
            request_headers,
            payload,
            seconds=exchange.timeout / 1000,
            before_send=leaving,
            urgent=call.lane is Lane.URGENT,
        )
    except NotSent as error:
        raise ccxt.ExchangeNotAvailable(f"{method} {url.partition('?')[0]}: {error}") from error
    except NoAnswer as error:
        raise ccxt.RequestTimeout(f"{method} {url.partition('?')[0]}: {error}") from error
    # Of a long list only the beginning: for people, and for ccxt's search for errors, which a list has none of.
    long = answer.status == HTTP_OK and len(answer.body) > LONG_BODY and answer.body.startswith(b"[")
    text = (answer.body[:LONG_BODY] if long else answer.body).decode(errors="replace")
    call.status, call.headers, call.body = answer.status, answer.headers, text
    exchange.last_response_headers = answer.headers
    try:
        parsed = _decode_rows(answer.body) if long and call.row_by_row else _decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        parsed = None
    exchange.handle_errors(
        answer.status, answer.reason, url, method, answer.headers, text, parsed, request_headers, body
    )
    exchange.handle_http_status_code(answer.status, answer.reason, url, method, text)
    return _readable(exchange, call, url, parsed)


async def _fetch_by_proxy(
    exchange: Any, fetch: Callable[..., Any], call: Call, url: str, method: str, headers: Any, body: Any
) -> Any:
    """ccxt's own client, which knows proxies. Only a failed connect is certain not to have sent anything."""
    try:
        parsed = await fetch(url, method, headers, body)
    except ccxt.NetworkError as error:
        if isinstance(error.__cause__, aiohttp.ClientConnectorError):
            call.sent = False
        raise
    return _readable(exchange, call, url, parsed if isinstance(parsed, dict | list) else None)


def _readable(exchange: Any, call: Call, url: str, parsed: Any) -> Any:
    if parsed is None:
        beginning = " ".join(call.body[:100].split()) or "nothing"
        raise ccxt.BadResponse(f"{beginning!r} in place of JSON")
    if url.endswith("/exchangeInfo") and isinstance(parsed, dict):
        exchange.rate_limits = parsed.get("rateLimits")
    return parsed
