"""A seeded path of trades inside a candle that respects its open, high, low, close and volume exactly."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from decimal import ROUND_HALF_EVEN, Decimal

from schemas.market import Candle, PublicTrade
from schemas.terms import Side


def candle_trades(candle: Candle, *, seconds: int, tick: Decimal, trades: int, seed: int) -> list[PublicTrade]:
    """Trades within `[start, start + seconds)` whose first, highest, lowest and last price and whose sum are the candle's.

    The path goes from the open over high and low (the one further from the close tends to come first) to the close, along straight lines
    with noise on the tick. `trades`: about how many; fewer than the corners of the path need are not given. A candle without
    volume has no trades. The same candle and seed give the same trades, whatever came before.
    """
    if not candle.volume:
        return []
    draw = random.Random(f"{seed}:{candle.start}")
    corners = _corners(candle, draw)
    count = max(trades, len(corners))
    prices = _prices(corners, count, candle, tick, draw)
    quantities = _quantities(candle.volume, count, draw)
    span = max(1, seconds * 1000)
    times = sorted(draw.randrange(span) for _ in range(count))
    made: list[PublicTrade] = []
    before: Decimal | None = None
    side = draw.choice((Side.BUY, Side.SELL))
    for number, (price, quantity, at) in enumerate(zip(prices, quantities, times, strict=True)):
        # The tick rule (Lee and Ready 1991): up is a buy, down a sell, unchanged as before.
        if before is not None and price != before:
            side = Side.BUY if price > before else Side.SELL
        before = price
        made.append(
            PublicTrade(
                trade_id=f"{candle.start}-{number}",
                price=price,
                quantity=quantity,
                timestamp=candle.start + at,
                side=side,
            )
        )
    return made


def path_of(candles: Iterable[Candle], *, seconds: int, tick: Decimal, trades: int, seed: int) -> Iterator[PublicTrade]:
    """The trades of candles, one candle after the other."""
    for candle in candles:
        yield from candle_trades(candle, seconds=seconds, tick=tick, trades=trades, seed=seed)


def _corners(candle: Candle, draw: random.Random) -> list[Decimal]:
    """Open, extremes and close, without an extreme that open or close are already."""
    ends = (candle.open, candle.close)
    rising = candle.close > candle.open or (candle.close == candle.open and draw.random() < 0.5)
    extremes = [candle.low, candle.high] if rising else [candle.high, candle.low]
    if draw.random() < 0.2:
        extremes.reverse()
    inner = [extreme for extreme in extremes if extreme not in ends]
    if not inner and candle.open == candle.close:
        return [candle.open]
    return [candle.open, *inner, candle.close]


def _prices(corners: list[Decimal], count: int, candle: Candle, tick: Decimal, draw: random.Random) -> list[Decimal]:
    if len(corners) == 1:
        return corners * count
    places = [0, *sorted(draw.sample(range(1, count - 1), len(corners) - 2)), count - 1]
    noise = float(candle.high - candle.low) / 8
    prices: list[Decimal] = []
    for (begin, start), (end, goal) in zip(
        zip(places, corners, strict=True), zip(places[1:], corners[1:], strict=True), strict=False
    ):
        prices.append(start)
        for at in range(begin + 1, end):
            way = float(start) + float(goal - start) * (at - begin) / (end - begin) + draw.gauss(0, noise)
            on_tick = (Decimal(f"{way:.12g}") / tick).to_integral_value(ROUND_HALF_EVEN) * tick
            prices.append(min(max(on_tick, candle.low), candle.high))
    prices.append(corners[-1])
    return prices


def _quantities(volume: Decimal, count: int, draw: random.Random) -> list[Decimal]:
    """`count` positive quantities, lognormal in size, whose sum is the volume, in units of its last digit or finer."""
    written = volume.as_tuple().exponent
    assert isinstance(written, int)
    exponent = min(written, 0)
    units = int(volume.scaleb(-exponent))
    while units < count:
        exponent -= 1
        units *= 10
    weights = [draw.lognormvariate(0, 1) for _ in range(count)]
    total = sum(weights)
    spare = units - count
    shares = [1 + int(spare * weight / total) for weight in weights]
    # Floats may give too much or too little by their last digits; the largest share takes the difference.
    shares[max(range(count), key=shares.__getitem__)] += units - sum(shares)
    return [Decimal(share).scaleb(exponent) for share in shares]
