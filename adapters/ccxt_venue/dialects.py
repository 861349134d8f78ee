"""What differs from exchange to exchange, in one table.

From ccxt's requests captured with the transport stubbed, and the exchanges' documentation. An exchange that is not here is traded by
ccxt's unified conventions, after a check of its capabilities.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """How one exchange is spoken to."""

    client_id_param: str = "clientOrderId"
    """The parameter of a create that carries our client order id."""
    max_client_order_id: int = 32
    expiry_param: str | None = None
    """A parameter of a create that bounds its life in transit."""
    expiry_option: str | None = None
    """The same as an option of the ccxt exchange, for all signed requests."""
    expiry_as: Literal["window_ms", "deadline_iso", "deadline_ms"] = "window_ms"
    lookup: Literal["fetch_order", "open_and_closed"] = "fetch_order"
    """How an order is found by its client order id."""
    lookup_params: Callable[[str], dict[str, Any]] = msgspec.field(
        default_factory=lambda: lambda client_id: {"clientOrderId": client_id}
    )
    cancel_params: Callable[[str], dict[str, Any]] = msgspec.field(
        default_factory=lambda: lambda client_id: {"clientOrderId": client_id}
    )
    options: dict[str, Any] = {}
    """Options of the ccxt exchange."""


def _binance_id(client_id: str) -> dict[str, Any]:
    return {"origClientOrderId": client_id}


_BINANCE = Dialect(
    client_id_param="newClientOrderId",
    max_client_order_id=36,
    expiry_param="recvWindow",
    lookup_params=_binance_id,
    cancel_params=_binance_id,
    options={"fetchMarkets": {"types": ["spot"]}, "fetchMargins": False, "warnOnFetchOpenOrdersWithoutSymbol": False},
)

DIALECTS: dict[str, Dialect] = {
    "binance": _BINANCE,
    "binanceus": _BINANCE,
    "mexc": Dialect(expiry_option="recvWindow"),
    "bybit": Dialect(
        max_client_order_id=36,
        expiry_option="recvWindow",
        lookup_params=lambda client_id: {"acknowledged": True, "orderLinkId": client_id},
        cancel_params=lambda client_id: {"orderLinkId": client_id},
    ),
    "okx": Dialect(),
    "kraken": Dialect(
        max_client_order_id=36, expiry_param="deadline", expiry_as="deadline_iso", lookup="open_and_closed"
    ),
    "krakenfutures": Dialect(
        max_client_order_id=100,
        expiry_param="processBefore",
        expiry_as="deadline_iso",
        lookup_params=lambda client_id: {"cliOrdIds": [client_id]},
    ),
    "coinbase": Dialect(client_id_param="client_order_id", max_client_order_id=64, lookup="open_and_closed"),
    "kucoin": Dialect(max_client_order_id=40),
    "bitget": Dialect(max_client_order_id=40, expiry_param="receiveWindow"),
    "gate": Dialect(max_client_order_id=28),
    "htx": Dialect(max_client_order_id=64),
    "deribit": Dialect(
        client_id_param="label",
        max_client_order_id=64,
        expiry_param="valid_until",
        expiry_as="deadline_ms",
        lookup="open_and_closed",
    ),
    "hyperliquid": Dialect(max_client_order_id=34, lookup="open_and_closed", options={"builderFee": False}),
    "aster": Dialect(max_client_order_id=36, expiry_param="recvWindow", options={"builderFee": False}),
}

NEEDED = ("createOrder", "cancelOrder", "fetchOpenOrders", "fetchMyTrades")
"""What an exchange must have to be traded at all."""


def dialect_of(exchange: str) -> Dialect:
    """The exchange's line of the table, or the unified conventions."""
    return DIALECTS.get(exchange, Dialect())


def missing(exchange: Any, dialect: Dialect) -> list[str]:
    """The capabilities that a ccxt exchange lacks for being traded safely."""
    lacking = [name for name in NEEDED if not exchange.has.get(name)]
    if dialect.lookup == "fetch_order" and not exchange.has.get("fetchOrder"):
        lacking.append("fetchOrder")
    return lacking
