"""The REST routes of Binance spot, on an engine."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from aiohttp import web
from msgspec import json

from adapters.simulator import dialect
from adapters.simulator.accounts import Account
from adapters.simulator.errors import (
    AHEAD,
    BAD_KEY,
    BAD_KEY_FORMAT,
    BAD_SIGNATURE,
    OUTSIDE_WINDOW,
    VenueError,
    missing,
)
from adapters.simulator.faults import Fault
from adapters.simulator.orders import NewOrder

if TYPE_CHECKING:
    from adapters.simulator.server import Venue

Parameters = dict[str, str]
_JSON = "application/json"


class Lost(Exception):
    """The answer must not reach the client."""


class Rest:
    def __init__(self, venue: Venue) -> None:
        self._venue = venue
        self._public = venue.market_routes.table
        self._signed: dict[tuple[str, str], Callable[[Account, Parameters], Any]] = {
            ("POST", "/api/v3/order"): self.place,
            ("POST", "/api/v3/order/test"): self._test,
            ("GET", "/api/v3/order"): self.get,
            ("DELETE", "/api/v3/order"): self.cancel,
            ("POST", "/api/v3/order/cancelReplace"): self._cancel_replace,
            ("GET", "/api/v3/openOrders"): self._open_orders,
            ("DELETE", "/api/v3/openOrders"): self._cancel_all,
            ("GET", "/api/v3/allOrders"): self._all_orders,
            ("GET", "/api/v3/myTrades"): self._my_trades,
            ("GET", "/api/v3/account"): self._account,
            ("GET", "/api/v3/account/commission"): self._commission,
        }

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request below `/api`."""
        venue, method, path = self._venue, request.method, request.path
        query, body = request.query_string, (await request.read()).decode()
        parameters = dict(parse_qsl(query, keep_blank_values=True)) | dict(parse_qsl(body, keep_blank_values=True))
        faults = venue.faults.for_request(method, path, parameters)
        venue.log_request(method, path, parameters)
        usage = venue.usage
        try:
            await self._before(faults)
            usage.request(method, path, venue.now())
            answer = self._answer(request, method, path, parameters, query + body)
            response = web.Response(body=json.encode(answer), content_type=_JSON, headers=usage.headers())
        except VenueError as error:
            response = self._error(error)
        except Lost:
            return await self._lose(request, faults)
        try:
            return await self._after(faults, response)
        except Lost:
            return await self._lose(request, faults)

    def _answer(self, request: web.Request, method: str, path: str, parameters: Parameters, payload: str) -> Any:
        public = self._public.get((method, path))
        if public is not None:
            return public(parameters)
        signed = self._signed.get((method, path))
        if signed is not None:
            account = self._authenticated(request.headers.get("X-MBX-APIKEY"), parameters, payload)
            if method == "POST" and path.startswith("/api/v3/order") and not path.endswith("test"):
                self._venue.usage.order(self._venue.now())
            return signed(account, parameters)
        if path == "/api/v3/userDataStream":
            return self._listen_key(self._account_of(request.headers.get("X-MBX-APIKEY")), method, parameters)
        raise VenueError(-1000, f"{method} {path} is not among the routes of this local venue.", 404)

    # --- faults -----------------------------------------------------------------------------------------------------

    async def _before(self, faults: list[Fault]) -> None:
        for fault in faults:
            if fault.kind == "latency" and fault.when == "before":
                await asyncio.sleep(self._venue.faults.delay(fault))
            elif fault.kind == "lose_request":
                raise Lost
            elif fault.kind == "reject":
                raise VenueError(fault.code, fault.message)
            elif fault.kind == "rate_limit":
                raise VenueError(-1003, "Too many requests.", fault.status, int(fault.seconds))
            elif fault.kind == "http_error" and fault.when == "before":
                raise _HttpError(fault)

    async def _after(self, faults: list[Fault], response: web.Response) -> web.Response:
        for fault in faults:
            if fault.kind == "latency" and fault.when == "after":
                await asyncio.sleep(self._venue.faults.delay(fault))
            elif fault.kind == "lose_answer":
                raise Lost
            elif fault.kind == "http_error" and fault.when == "after":
                return self._error(_HttpError(fault))
            elif fault.kind == "broken_body":
                return web.Response(body=(fault.body or "").encode(), content_type=_JSON)
        return response

    async def _lose(self, request: web.Request, faults: list[Fault]) -> web.StreamResponse:
        """Never answer: hold the connection as long as asked, then cut it."""
        held = max((fault.seconds for fault in faults if fault.kind.startswith("lose")), default=0.0)
        if held:
            await asyncio.sleep(held)
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    def _error(self, error: VenueError) -> web.Response:
        headers = self._venue.usage.headers()
        if error.status in (418, 429) and isinstance(error.data, int):
            headers["Retry-After"] = str(error.data)
        if isinstance(error, _HttpError) and error.body is not None:
            return web.Response(
                status=error.status, body=error.body.encode(), content_type="text/html", headers=headers
            )
        body: dict[str, Any] = {"code": error.code, "msg": error.message}
        if isinstance(error.data, dict):
            body["data"] = error.data
        return web.Response(status=error.status, body=json.encode(body), content_type=_JSON, headers=headers)

    # --- who asks ---------------------------------------------------------------------------------------------------

    def _account_of(self, key: str | None) -> Account:
        if not key:
            raise BAD_KEY_FORMAT
        account = self._venue.engine.accounts.get(key)
        if account is None:
            raise BAD_KEY
        return account

    def _authenticated(self, key: str | None, parameters: Parameters, payload: str) -> Account:
        account = self._account_of(key)
        signature = parameters.get("signature")
        if signature is None:
            raise missing("signature")
        signed = "&".join(part for part in payload.split("&") if not part.startswith("signature="))
        self.check(account, parameters, signed, signature)
        return account

    def check(self, account: Account, parameters: Parameters, signed: str, signature: str) -> None:
        """Raises: VenueError -1021 or -1022: the request is late, early, or not signed with the account's secret."""
        if not parameters.get("timestamp", "").isdigit():
            raise missing("timestamp")
        sent, now = int(parameters["timestamp"]), self._venue.now()
        if sent >= now + 1000:
            raise AHEAD
        if now - sent > float(parameters.get("recvWindow", "5000")):
            raise OUTSIDE_WINDOW
        expected = hmac.new(account.secret.encode(), signed.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected, signature):
            raise BAD_SIGNATURE

    def _listen_key(self, account: Account, method: str, parameters: Parameters) -> Any:
        keys = self._venue.listen_keys
        if method == "POST":
            key = hashlib.sha256(f"{account.key}:{len(keys)}".encode()).hexdigest()
            keys[key] = account
            return {"listenKey": key}
        if parameters.get("listenKey") not in keys:
            raise VenueError(-1125, "This listenKey does not exist.")
        if method == "DELETE":
            del keys[parameters["listenKey"]]
        return {}

    # --- orders -----------------------------------------------------------------------------------------------------

    def place(self, account: Account, parameters: Parameters) -> Any:
        new = _new_order(parameters)
        detail = parameters.get("newOrderRespType") or ("FULL" if new.kind in ("MARKET", "LIMIT") else "ACK")
        return dialect.placed(self._venue.engine.place(account, new), detail)

    def _test(self, account: Account, parameters: Parameters) -> Any:
        _new_order(parameters)
        return {}

    def get(self, account: Account, parameters: Parameters) -> Any:
        order = self._venue.engine.get(account, *_named(parameters, "orderId", "origClientOrderId"))
        self._venue.check_visible(order)
        return dialect.order(order)

    def cancel(self, account: Account, parameters: Parameters) -> Any:
        symbol, order_id, client_id = _named(parameters, "orderId", "origClientOrderId")
        cancel_id = parameters.get("newClientOrderId") or f"cancel{self._venue.now():x}"
        return dialect.canceled(self._venue.engine.cancel(account, symbol, order_id, client_id, cancel_id))

    def _cancel_replace(self, account: Account, parameters: Parameters) -> Any:
        mode = parameters.get("cancelReplaceMode")
        if mode not in ("STOP_ON_FAILURE", "ALLOW_FAILURE"):
            raise missing("cancelReplaceMode")
        answer: dict[str, Any] = {}
        failed: dict[str, VenueError] = {}
        named = {
            "symbol": parameters.get("symbol", ""),
            "orderId": parameters.get("cancelOrderId", ""),
            "origClientOrderId": parameters.get("cancelOrigClientOrderId", ""),
            "newClientOrderId": parameters.get("cancelNewClientOrderId", ""),
        }
        try:
            answer["cancelResponse"] = self.cancel(account, {key: value for key, value in named.items() if value})
        except VenueError as error:
            failed["cancel"] = error
        if failed and mode == "STOP_ON_FAILURE":
            answer["newOrderResponse"] = None
        else:
            try:
                answer["newOrderResponse"] = self.place(account, parameters)
            except VenueError as error:
                failed["newOrder"] = error
        for step in ("cancel", "newOrder"):
            skipped = step == "newOrder" and answer.get("newOrderResponse", step) is None
            answer[f"{step}Result"] = "FAILURE" if step in failed else "NOT_ATTEMPTED" if skipped else "SUCCESS"
            if step in failed:
                answer[f"{step}Response"] = {"code": failed[step].code, "msg": failed[step].message}
        if not failed:
            return answer
        if "cancel" in failed and answer["newOrderResult"] != "SUCCESS":
            raise VenueError(-2022, "Order cancel-replace failed.", 400, answer)
        raise VenueError(-2021, "Order cancel-replace partially failed.", 409, answer)

    def _open_orders(self, account: Account, parameters: Parameters) -> Any:
        symbol = parameters.get("symbol")
        if symbol is not None:
            self._venue.engine.market(symbol)
        return [dialect.order(order) for order in account.open.values() if symbol in (None, order.symbol.id)]

    def _cancel_all(self, account: Account, parameters: Parameters) -> Any:
        symbol = parameters.get("symbol")
        if symbol is None:
            raise missing("symbol")
        orders = [order for order in account.open.values() if order.symbol.id == symbol]
        if not orders:
            raise VenueError(-2011, "Unknown order sent.")
        return [
            dialect.canceled(self._venue.engine.cancel(account, symbol, order.order_id, None, f"all{order.order_id}"))
            for order in orders
        ]

    def _all_orders(self, account: Account, parameters: Parameters) -> Any:
        symbol = parameters.get("symbol", "")
        self._venue.engine.market(symbol)
        start, first = int(parameters.get("startTime", 0)), int(parameters.get("orderId", 0))
        orders = [
            order
            for order in account.orders.values()
            if order.symbol.id == symbol and order.time >= start and order.order_id >= first
        ]
        limit = min(int(parameters.get("limit", 500)), 1000)
        chosen = orders[:limit] if start or first else orders[-limit:]
        return [dialect.order(order) for order in chosen]

    def _my_trades(self, account: Account, parameters: Parameters) -> Any:
        symbol = parameters.get("symbol", "")
        self._venue.engine.market(symbol)
        order_id = int(parameters["orderId"]) if "orderId" in parameters else None
        first, start = int(parameters.get("fromId", 0)), int(parameters.get("startTime", 0))
        end = int(parameters.get("endTime", 2**62))
        source = account.orders.values() if order_id is None else filter(None, [account.orders.get(order_id)])
        trades = [
            (trade, order)
            for order in source
            if order.symbol.id == symbol
            for trade in order.trades
            if trade.trade_id >= first and start <= trade.time <= end
        ]
        trades.sort(key=lambda pair: pair[0].trade_id)
        limit = min(int(parameters.get("limit", 500)), 1000)
        chosen = trades[:limit] if first or start or order_id is not None else trades[-limit:]
        return [dialect.my_trade(order, trade) for trade, order in chosen]

    def _account(self, account: Account, parameters: Parameters) -> Any:
        engine = self._venue.engine
        return dialect.account(account, f"{engine.maker:.8f}", f"{engine.taker:.8f}", self._venue.now())

    def _commission(self, account: Account, parameters: Parameters) -> Any:
        engine = self._venue.engine
        rates = {"maker": f"{engine.maker:.8f}", "taker": f"{engine.taker:.8f}", "buyer": "0", "seller": "0"}
        return {"symbol": parameters.get("symbol", ""), "standardCommission": rates, "taxCommission": rates}


class _HttpError(VenueError):
    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.code, fault.message, fault.status)
        self.body = fault.body


def _new_order(parameters: Parameters) -> NewOrder:
    for name in ("symbol", "side", "type"):
        if not parameters.get(name):
            raise missing(name)
    return NewOrder(
        symbol=parameters["symbol"],
        side=parameters["side"],
        kind=parameters["type"],
        quantity=_number(parameters, "quantity"),
        quote_quantity=_number(parameters, "quoteOrderQty"),
        price=_number(parameters, "price"),
        stop_price=_number(parameters, "stopPrice"),
        trailing_delta=_bips(parameters),
        iceberg=_number(parameters, "icebergQty"),
        time_in_force=parameters.get("timeInForce"),
        client_order_id=parameters.get("newClientOrderId"),
    )


def _number(parameters: Parameters, name: str) -> Decimal | None:
    value = parameters.get(name)
    if value is None:
        return None
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise VenueError(-1100, f"Illegal characters found in parameter '{name}'; legal range is a number.") from None
    exponent = number.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -8:
        raise VenueError(-1111, f"Parameter '{name}' has too much precision.")
    if number <= 0:
        raise VenueError(-1013, f"Invalid {name}.")
    return number


def _bips(parameters: Parameters) -> int | None:
    value = parameters.get("trailingDelta")
    if value is None:
        return None
    if not value.isdigit():
        raise VenueError(
            -1100, "Illegal characters found in parameter 'trailingDelta'; legal range is '^[0-9]{1,20}$'."
        )
    return int(value)


def _named(parameters: Parameters, by_id: str, by_client_id: str) -> tuple[str, int | None, str | None]:
    if not parameters.get("symbol"):
        raise missing("symbol")
    order_id = parameters.get(by_id)
    return parameters["symbol"], int(order_id) if order_id else None, parameters.get(by_client_id)
