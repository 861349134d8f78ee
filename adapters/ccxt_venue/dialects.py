"""What differs from exchange to exchange, in one table.

From the requests that ccxt 4.5 builds, captured with the transport stubbed, and the exchanges' documentation. An exchange that is not
here is traded by ccxt's unified conventions, after a check of its capabilities; since nothing is known of how its requests expire,
"not found" never becomes final there by time alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from schemas.terms import OrderType


def _unified(client_id: str) -> tuple[str | None, dict[str, Any]]:
    return None, {"clientOrderId": client_id}


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """How one exchange is spoken to."""

    client_id_param: str = "clientOrderId"
    """The parameter of a create that carries our client order id."""
    max_client_order_id: int = 32
    client_id_as: Callable[[str], str] = str
    """Our client order id in the exchange's alphabet. Ours are letters and digits."""
    client_id_prefix: str = ""
    """What the exchange, or ccxt, puts before it."""
    expiry_param: str | None = None
    """A parameter of a create that bounds its life in transit."""
    expiry_option: str | None = None
    """The same as an option of the ccxt exchange, for all signed requests."""
    expiry_as: Literal["window_ms", "deadline_iso", "deadline_ms"] = "window_ms"
    expiry_header: str | None = None
    """The same as a header of a create: a time in ms."""
    asks_by_post: tuple[str, ...] = ()
    """Paths of POST requests that change nothing, which ccxt may make before a create."""
    native: tuple[OrderType, ...] = (OrderType.MARKET, OrderType.LIMIT)
    """What the exchange holds itself on spot, and shows among its ordinary orders, by the same ids, before and after the trigger. On
    Binance spot `exchangeInfo` says it."""
    native_on_contracts: tuple[OrderType, ...] = (OrderType.MARKET, OrderType.LIMIT)
    reduces: bool = False
    """Whether ccxt's `reduceOnly` reaches the exchange, and nothing else with it."""
    fee_in_base: bool | None = None
    """Whether a buy on spot pays its fee in what it buys; None: as ccxt's `feeSide` says."""
    public_apis: tuple[str, ...] = ()
    """Parts of ccxt's API, with the beginning of the path, that are public without being called so."""
    shows_trades: bool = True
    """Whether ccxt's `fetchTrades` asks for everybody's trades."""
    stream_depth: int | None = None
    """The levels of a streamed book, where the exchange's own choice is not asked for."""
    known: bool = True
    """Whether this exchange stands in the table."""
    lookup: Literal["fetch_order", "open_and_closed", "label"] = "fetch_order"
    """How an order is found by its client order id: by a question for it, by listing, or by Deribit's label."""
    lookup_by: Callable[[str], tuple[str | None, dict[str, Any]]] = _unified
    """The id and the parameters of `fetch_order` that ask by client order id."""
    list_by: Callable[[str], dict[str, Any]] = lambda _: {}
    """What narrows a list of orders down to one client order id."""
    cancel_by: Callable[[str], tuple[str | None, dict[str, Any]]] | None = _unified
    """The same for `cancel_order`; None: it must be found first."""
    cancel_all_after: bool = False
    """Whether ccxt's `cancelAllOrdersAfter` arms a timer at the exchange that every further call winds up again, and 0 disarms."""
    instant: tuple[str, ...] = ("IOC", "FOK")
    """The times in force that the exchange itself knows, beside GTC."""
    weight_per_cost: float = 1.0
    """The exchange's own request weight in one unit of ccxt's cost."""
    options: dict[str, Any] = {}
    """Options of the ccxt exchange."""

    @property
    def expires(self) -> bool:
        """Whether a create carries its own expiry."""
        return bool(self.expiry_param or self.expiry_option or self.expiry_header)


def _original(client_id: str) -> tuple[str | None, dict[str, Any]]:
    return None, {"origClientOrderId": client_id}


def _hex128(client_id: str) -> str:
    return "0x" + hashlib.blake2b(client_id.encode(), digest_size=16).hexdigest()


_BINANCE = Dialect(
    client_id_param="newClientOrderId",
    max_client_order_id=36,
    expiry_param="recvWindow",
    lookup_by=_original,
    cancel_by=_original,
    weight_per_cost=5.0,
    options={
        "fetchMarkets": {"types": ["spot"]},
        "fetchMargins": False,
        "warnOnFetchOpenOrdersWithoutSymbol": False,
    },
)
_BINANCE_FUTURES = Dialect(
    client_id_param="newClientOrderId",
    max_client_order_id=36,
    expiry_param="recvWindow",
    lookup_by=_original,
    cancel_by=_original,
    options={"warnOnFetchOpenOrdersWithoutSymbol": False, "builderFee": False},
)

_STOPS = (
    OrderType.MARKET,
    OrderType.LIMIT,
    OrderType.STOP,
    OrderType.STOP_LIMIT,
    OrderType.TAKE_PROFIT,
    OrderType.TAKE_PROFIT_LIMIT,
)
# Not here, though ccxt has them: OKX, KuCoin, Bitget, Gate, HTX and Binance's futures keep stops apart from orders, under ids of their own.
# For Bybit and Kraken's futures ccxt makes them reduce-only unasked. On Coinbase it drops a trail, and places a market order.

DIALECTS: dict[str, Dialect] = {
    "binance": _BINANCE,
    "binanceus": _BINANCE,
    "binanceusdm": msgspec.structs.replace(_BINANCE_FUTURES, reduces=True),
    "binancecoinm": _BINANCE_FUTURES,
    "aster": msgspec.structs.replace(_BINANCE_FUTURES, native_on_contracts=_STOPS),
    "mexc": Dialect(expiry_option="recvWindow"),
    "bybit": Dialect(
        stream_depth=50,
        reduces=True,
        max_client_order_id=36,
        expiry_option="recvWindow",
        lookup_by=lambda client_id: (None, {"acknowledged": True, "orderLinkId": client_id}),
        cancel_by=lambda client_id: (None, {"orderLinkId": client_id}),
    ),
    "okx": Dialect(expiry_header="expTime", cancel_all_after=True, reduces=True, fee_in_base=True),
    "kraken": Dialect(
        stream_depth=25,
        native=(*_STOPS, OrderType.TRAILING_STOP),
        fee_in_base=False,
        expiry_param="deadline",
        expiry_as="deadline_iso",
        lookup="open_and_closed",
        list_by=lambda client_id: {"clientOrderId": client_id},
        cancel_all_after=True,
    ),
    "krakenfutures": Dialect(
        public_apis=("charts/", "history/market/"),
        reduces=True,
        max_client_order_id=100,
        expiry_param="processBefore",
        expiry_as="deadline_iso",
        lookup_by=lambda client_id: (None, {"cliOrdIds": [client_id]}),
        cancel_by=None,
        cancel_all_after=True,
    ),
    "coinbase": Dialect(
        client_id_param="client_order_id",
        max_client_order_id=64,
        lookup="open_and_closed",
        cancel_by=None,
        native=(OrderType.MARKET, OrderType.LIMIT, OrderType.STOP_LIMIT, OrderType.TAKE_PROFIT_LIMIT),
        fee_in_base=False,
    ),
    "kucoin": Dialect(max_client_order_id=40, fee_in_base=False, asks_by_post=("/api/v1/bullet-public",)),
    "bitget": Dialect(max_client_order_id=40, expiry_param="receiveWindow", reduces=True, fee_in_base=True),
    "gate": Dialect(
        reduces=True,
        max_client_order_id=28,
        client_id_prefix="t-",
        expiry_header="x-gate-exptime",
        cancel_by=lambda client_id: (f"t-{client_id}", {}),
    ),
    "htx": Dialect(max_client_order_id=64, cancel_all_after=True),
    "deribit": Dialect(
        client_id_param="label",
        max_client_order_id=64,
        expiry_param="valid_until",
        expiry_as="deadline_ms",
        lookup="label",
        cancel_by=None,
        reduces=True,
    ),
    "hyperliquid": Dialect(
        max_client_order_id=128,
        client_id_as=_hex128,
        shows_trades=False,
        fee_in_base=True,
        instant=("IOC",),
        asks_by_post=("/info",),
        options={"builderFee": False, "refSet": True},
    ),
}

NEEDED = ("createOrder", "cancelOrder", "fetchOpenOrders", "fetchMyTrades")
"""What an exchange must have to be traded at all."""


def dialect_of(exchange: str) -> Dialect:
    """The exchange's line of the table, or the unified conventions."""
    return DIALECTS.get(exchange, Dialect(known=False))


def missing(exchange: Any, dialect: Dialect) -> list[str]:
    """The capabilities that a ccxt exchange lacks for being traded safely."""
    lacking = [name for name in NEEDED if not exchange.has.get(name)]
    if dialect.lookup == "fetch_order" and not exchange.has.get("fetchOrder"):
        lacking.append("fetchOrder")
    if dialect.lookup == "open_and_closed" and not exchange.has.get("fetchClosedOrders"):
        lacking.append("fetchClosedOrders")
    return lacking
