"""Cells of recorded data as exact values, however they are written."""

from __future__ import annotations

import itertools
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from schemas.terms import Side

Cell = Any
"""Text of a CSV, a JSON value (its fractions as `Decimal`), or a value of a Parquet column."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
BUYS = frozenset({"buy", "b", "bid", "1", "buyer", "long", "true"})
SELLS = frozenset({"sell", "s", "ask", "-1", "seller", "short", "false", "a"})
TRUE = frozenset({"true", "t", "1", "yes"})
FALSE = frozenset({"false", "f", "0", "no"})
QUOTES = (
    "USDT",
    "USDC",
    "FDUSD",
    "TUSD",
    "BUSD",
    "DAI",
    "USD",
    "EUR",
    "GBP",
    "JPY",
    "KRW",
    "TRY",
    "AUD",
    "CAD",
    "CHF",
    "BTC",
    "ETH",
    "BNB",
)
KRAKEN_NAMES = {"XBT": "BTC", "XDG": "DOGE"}
_SUFFIX = re.compile(r"[-_.](SWAP|PERP|PERPETUAL|P)$")


def exact(cell: Cell) -> Decimal:
    """The number of a cell, digit for digit; of a float the shortest text that reads back as it.

    Raises:
        ValueError: no finite number.
    """
    try:
        number = Decimal(cell) if not isinstance(cell, float) else Decimal(repr(cell))
    except (InvalidOperation, TypeError) as error:
        raise ValueError(f"{cell!r} is no number") from error
    if not number.is_finite():
        raise ValueError(f"{cell!r} is no finite number")
    return number


def time_ms(cell: Cell) -> int:
    """A time in ms since the epoch: from s, ms, us or ns by its size, or from ISO 8601 (UTC unless it says otherwise).

    Sizes: below 1e11 seconds (until the year 5138), below 1e14 ms, below 1e17 us, else ns. Fractions are cut off.

    Raises:
        ValueError: no time.
    """
    if isinstance(cell, str):
        text = cell.strip()
        if not text.isdigit():
            return _from_text(text)
        number = int(text)
    elif isinstance(cell, datetime):
        return _from_datetime(cell)
    elif isinstance(cell, int) and not isinstance(cell, bool):
        number = cell
    else:
        return _from_decimal(exact(cell))
    if number < 100_000_000_000:
        return number * 1000
    if number < 100_000_000_000_000:
        return number
    if number < 100_000_000_000_000_000:
        return number // 1000
    return number // 1_000_000


def _from_decimal(number: Decimal) -> int:
    for bound, factor in ((11, Decimal(1000)), (14, Decimal(1)), (17, Decimal("0.001"))):
        if number < Decimal(10) ** bound:
            return int(number * factor)
    return int(number * Decimal("0.000001"))


def _from_text(text: str) -> int:
    try:
        return _from_decimal(Decimal(text))
    except (InvalidOperation, ValueError, OverflowError):
        pass
    try:
        return _from_datetime(datetime.fromisoformat(text.removesuffix("UTC").strip()))
    except ValueError:
        raise ValueError(f"{text!r} is no time") from None


def _from_datetime(value: datetime) -> int:
    return ((value if value.tzinfo else value.replace(tzinfo=UTC)) - EPOCH) // MILLISECOND


def looks_like_time(cell: Cell) -> bool:
    """Whether a cell is a time between 2001 and 2100, so that a column without a name can be known as one."""
    if isinstance(cell, bool) or cell is None:
        return False
    try:
        ms = time_ms(cell)
    except ValueError:
        return False
    return 1_000_000_000_000 <= ms <= 4_102_444_800_000


def looks_like_number(cell: Cell) -> bool:
    if isinstance(cell, bool) or cell is None:
        return False
    try:
        exact(cell)
    except ValueError:
        return False
    return True


def looks_like_flag(cell: Cell) -> bool:
    return isinstance(cell, bool) or (isinstance(cell, str) and cell.strip().lower() in ("true", "false"))


def taker_side(cell: Cell) -> Side | None:
    """The taker's side; None where it is not told."""
    text = str(cell).strip().lower()
    return Side.BUY if text in BUYS else Side.SELL if text in SELLS else None


def flag(cell: Cell) -> bool:
    """Raises:
    ValueError: neither true nor false.
    """
    if isinstance(cell, bool):
        return cell
    text = str(cell).strip().lower()
    if text in TRUE:
        return True
    if text in FALSE:
        return False
    raise ValueError(f"{cell!r} is neither true nor false")


def canonical(symbol: str) -> str:
    """A symbol without what venues write differently: `BTC/USDT:USDT`, `XBT-USDT-SWAP`, `btcusdt` are all `BTCUSDT`."""
    text = _SUFFIX.sub("", symbol.upper().partition(":")[0])
    text = re.sub(r"[^A-Z0-9]", "", text)
    for theirs, ours in KRAKEN_NAMES.items():
        text = text.replace(theirs, ours)
    return text


def unified(symbol: str) -> str | None:
    """A symbol as BASE/QUOTE; None where it cannot be told apart."""
    text = canonical(symbol)
    for quote in QUOTES:
        if text.endswith(quote) and 2 <= len(text) - len(quote) <= 10:
            return f"{text.removesuffix(quote)}/{quote}"
    return None


def symbol_in_name(name: str) -> str | None:
    """The symbol that a file's name tells; None when it tells none."""
    words = [word for word in re.split(r"[^A-Za-z0-9]+", name) if word]
    for word in words:
        if not word.isdigit() and (found := unified(word)):
            return found
    pairs = [(first, second) for first, second in itertools.pairwise(words) if canonical(second) in QUOTES]
    if not pairs:
        return None
    # "tape BTC-USDT": of two that would do, the one with the more usual quote asset.
    base, quote = min(pairs, key=lambda pair: QUOTES.index(canonical(pair[1])))
    return None if base.isdigit() else f"{canonical(base)}/{canonical(quote)}"
