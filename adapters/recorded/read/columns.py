"""The usual spellings of columns, so that a table is known by what its columns are called."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

SPELLINGS: dict[str, tuple[str, ...]] = {
    # In the order of trust: a machine's number before a date for people, arrival order before the exchange's own.
    "time": (
        "localtimestamp", "timestampns", "timestampus", "timestampms", "tsms", "tsns", "tsus", "timestamp", "ts", "unixtimestamp", "unixtime", "unix",
        "transacttime", "transactiontime", "tradetime", "exectime", "createdtime", "createdat", "eventtime", "timems",
        "exchangets", "tradets", "tradetimestamp", "time", "datetime", "date", "epoch",
    ),
    "start": (
        "opentime", "starttime", "startat", "start", "timestampms", "tsms", "timestamp", "ts", "unixtimestamp", "unixtime", "unix", "time", "opents",
        "startts", "datetime", "date", "epoch", "localtimestamp", "t",
    ),
    "price": ("price", "px", "tradeprice", "executionprice", "execprice", "rate", "p", "lastprice"),
    "quantity": (
        "quantity", "qty", "amount", "size", "sz", "baseqty", "basequantity", "baseamount", "basevolume", "volume", "vol", "tradesize", "execqty", "q",
        "lastsize", "v",
    ),
    "side": ("side", "takerside", "aggressorside", "direction", "orderside", "tradeside", "aggressor", "isbuy", "askbid", "tradetype", "type"),
    "buyer_maker": ("isbuyermaker", "buyermaker", "wasthebuyerthemaker", "buyerismaker", "m"),
    "id": ("tradeid", "id", "aggtradeid", "aggregatetradeid", "aid", "trdmatchid", "tid", "execid", "tradeidx", "matchid", "a"),
    "symbol": ("symbol", "instrumentname", "instid", "pair", "market", "instrument", "productid", "currencypair", "ticker", "s"),
    "open": ("open", "openprice", "o"),
    "high": ("high", "highprice", "h"),
    "low": ("low", "lowprice", "l"),
    "close": ("close", "closeprice", "c"),
    "volume": ("volume", "vol", "basevolume", "volumebase", "baseassetvolume", "v", "amount", "quantity"),
    "bid": ("bidprice", "bestbidprice", "bid", "bestbid", "bidpx", "bidprice0", "bidprice1", "b"),
    "bid_quantity": ("bidqty", "bestbidqty", "bidamount", "bidsize", "bestbidsize", "bidquantity", "bestbidamount", "bidvolume", "bidsz"),
    "ask": ("askprice", "bestaskprice", "ask", "bestask", "askpx", "a"),
    "ask_quantity": ("askqty", "bestaskqty", "askamount", "asksize", "bestasksize", "askquantity", "bestaskamount", "askvolume", "asksz"),
}  # fmt: skip

_LEVEL = re.compile(
    r"(?P<side>bid|ask)s?\[?_?(?P<a>\d+)?\]?[._]?(?P<what>price|px|amount|size|qty|quantity|sz)[._]?\[?(?P<b>\d+)?\]?$"
)


class LevelColumns(msgspec.Struct, frozen=True):
    """Where prices and quantities of a book's sides are, best level first."""

    bids: tuple[tuple[int, int], ...]
    asks: tuple[tuple[int, int], ...]


class Columns:
    """The columns of a table by what they mean."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._plain = [plain(name) for name in names]

    def find(self, meaning: str) -> int | None:
        """Which column has a meaning, of several the best; None when no column has it."""
        for spelling in SPELLINGS[meaning]:
            if spelling in self._plain:
                return self._plain.index(spelling)
        if meaning == "time" and "T" in self.names:
            # Binance's messages: `T` is the time of the trade, `t` its id.
            return self.names.index("T")
        if meaning == "volume":
            # "Volume BTC", "Volume USD": the base asset comes first.
            return next((at for at, name in enumerate(self._plain) if name.startswith("volume")), None)
        return None

    def has(self, *names: str) -> bool:
        return all(name in self._plain for name in names)

    def index(self, name: str) -> int:
        """The column of that very name (small letters and digits only)."""
        return self._plain.index(name)

    def levels(self) -> LevelColumns | None:
        """Columns like `asks[0].price` or `bid_price_1`, when there are at least two levels of a side."""
        found: dict[tuple[str, int], dict[bool, int]] = {}
        for at, name in enumerate(self.names):
            match = _LEVEL.match(name.strip().lower())
            if match and (number := match["a"] or match["b"]) is not None:
                found.setdefault((match["side"], int(number)), {})[match["what"] in ("price", "px")] = at
        sides = {
            side: tuple(
                (where[True], where[False])
                for (its, _), where in sorted(found.items())
                if its == side and len(where) == 2
            )
            for side in ("bid", "ask")
        }
        if not sides["bid"] or not sides["ask"]:
            return None
        return LevelColumns(sides["bid"], sides["ask"])


def plain(name: str) -> str:
    """A column's name without case, blanks and signs, and without its translation (`side/...`)."""
    return re.sub(r"[^a-z0-9]", "", name.partition("/")[0].lower())
