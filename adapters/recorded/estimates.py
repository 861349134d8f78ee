"""What recorded trades and candles tell of their market: tick, lot, spread, typical size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from decimal import Decimal

from schemas.market import Candle, MarketRules, PublicTrade

ONE = Decimal(1)


def finest(numbers: Iterable[Decimal]) -> Decimal:
    """The power of ten (1 or less) of which all numbers are multiples; trailing zeros do not count. 1 for no numbers."""
    least = 0
    for number in numbers:
        _, digits, exponent = number.as_tuple()
        assert isinstance(exponent, int)
        if exponent >= least:
            continue
        at = len(digits)
        while exponent < least and at and digits[at - 1] == 0:
            at -= 1
            exponent += 1
        if at:
            least = min(least, exponent)
    return ONE.scaleb(least)


def roll_spread_bps(prices: Sequence[Decimal]) -> float | None:
    """The bid-ask spread that the bounce of trade prices implies, in bps of their mean; None where they do not bounce.

    Roll (1984), "A simple implicit measure of the effective bid-ask spread in an efficient market": twice the root of minus
    the covariance of successive price changes. A trend, or fewer than 3 changes, gives none.
    """
    if len(prices) < 4:
        return None
    values = [float(price) for price in prices]
    changes = [after - before for before, after in itertools.pairwise(values)]
    mean = math.fsum(changes) / len(changes)
    pairs = list(itertools.pairwise(changes))
    covariance = math.fsum((a - mean) * (b - mean) for a, b in pairs) / len(pairs)
    if covariance >= 0:
        return None
    return 2 * math.sqrt(-covariance) / (math.fsum(values) / len(values)) * 10_000


def last_of_each_moment(trades: Sequence[PublicTrade]) -> list[Decimal]:
    """One price per time: trades of one order that sweeps several levels are no bounce."""
    prices: dict[int, Decimal] = {}
    for trade in trades:
        prices[trade.timestamp] = trade.price
    return list(prices.values())


def typical_size(trades: Sequence[PublicTrade]) -> Decimal:
    """The mean quantity of trades, with 8 digits; 1 for none."""
    if not trades:
        return ONE
    total = sum((trade.quantity for trade in trades), Decimal(0))
    return Decimal(f"{float(total) / len(trades):.8g}")


def candle_seconds(candles: Sequence[Candle]) -> int:
    """The interval of candles: the most common distance of their starts, in seconds; 60 for fewer than two."""
    steps: dict[int, int] = {}
    for before, after in itertools.pairwise(candles):
        step = (after.start - before.start) // 1000
        if step > 0:
            steps[step] = steps.get(step, 0) + 1
    return max(steps, key=lambda step: (steps[step], -step)) if steps else 60


def inferred_rules(symbol: str, tick: Decimal, lot: Decimal) -> MarketRules:
    """Rules of a market of which only prices and quantities are known: its tick and lot, no minimums, no fees."""
    base, _, quote = symbol.partition(":")[0].partition("/")
    return MarketRules(symbol=symbol, base=base, quote=quote, tick=tick, lot=lot, market_lot=lot)
