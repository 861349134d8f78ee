"""How many whole lots each of several offers gets, at the least total cost: exact, in integers.

An offer sells lots at costs that never fall from one lot to the next (a book walked from its best price), and takes either
nothing or a number of lots within its allowed ranges. The most quantity comes first, then the least cost.

- Offers of one lot size: the cheapest lots first (greedy is exact while marginal costs do not fall: Fox, 1966).
- Lot sizes where the finest divides what the others have in common: what the coarse lots can never make up is taken from
  the finest, cheapest first; the finest are then tied, cheapest first, into bundles of that common size. The same again.
- Lot sizes that remain (such as 2 and 5): an optimum lies within `2 * D` lots, D being the coarsest over the finest lot, of
  the optimum without lots. (If it were further, some of the steps from the one to the other would sum to zero and could be
  taken back at no cost: Eisenbrand and Weismantel, 2019, for one row.) A dynamic programme looks at that window.
- Ranges with a hole (a minimum): branch and bound, where the bound is the same problem without the hole.

Where that would take too long (see `MOST_STEPS`, `MOST_NODES`) the answer is feasible but not proven: `exact` is False.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import accumulate, count
from math import gcd, lcm

import msgspec

MOST_STEPS = 200_000
"""Above this many steps the dynamic programme over odd lot sizes looks at a smaller window, and is not exact."""
MOST_NODES = 4096
"""Above this many nodes branching ends, and is not exact. Ten offers with one minimum each need at most 2,047."""

Run = tuple[int, int, tuple[tuple[int, int], ...]]
"""Equal units in a row: the cost of one, how many, and what one consists of as (offer, lots)."""
Range = tuple[int, int]
"""From how many lots to how many, both included."""

NOBODY = -1
"""The offer that stands for quantity that nobody takes."""


class Offer(msgspec.Struct, frozen=True):
    """What can be had in whole lots."""

    lot: int
    """The quantity of one lot."""
    runs: tuple[tuple[int, int], ...]
    """(cost of one lot, lots), best first: the costs never fall."""
    allowed: tuple[Range, ...]
    """The numbers of lots, besides none, that may be taken: ascending, apart from each other, within the runs."""

    @property
    def most(self) -> int:
        """The most lots that may be taken."""
        return self.allowed[-1][1] if self.allowed else 0

    def allows(self, lots: int) -> bool:
        return not lots or any(low <= lots <= high for low, high in self.allowed)


class Allocation(msgspec.Struct, frozen=True):
    lots: tuple[int, ...]
    """Per offer."""
    wished: tuple[int, ...]
    """Per offer, what it would have got if any number of lots up to its most were allowed."""
    exact: bool
    """Whether no better allocation exists. False: a better one may."""


class _Solution(msgspec.Struct, frozen=True):
    cost: int
    """With the quantity that nobody takes, at more than anything else can save."""
    lots: tuple[int, ...]
    exact: bool


def allocate(quantity: int, offers: Sequence[Offer]) -> Allocation:
    """The lots per offer that take the most of `quantity`, and among those the ones of least total cost."""
    if not offers:
        return Allocation((), (), True)
    unit = gcd(*(offer.lot for offer in offers))
    # Dearer than any other choice: leaving one unit must never pay.
    dearest = max((abs(cost) // offer.lot + 1 for offer in offers for cost, _ in offer.runs), default=1)
    penalty = 2 * dearest * quantity + 1

    def solved(ranges: tuple[Range, ...]) -> _Solution | None:
        return _solve(quantity // unit * unit, offers, ranges, unit, penalty)

    ranges = tuple((0, offer.most) for offer in offers)
    root = solved(ranges)
    assert root is not None
    ticket = count()
    open_nodes = [(root.cost, next(ticket), ranges, root)]
    nodes, exact = 1, root.exact
    while True:
        _, _, ranges, best = heapq.heappop(open_nodes)
        torn = next((i for i, offer in enumerate(offers) if not offer.allows(best.lots[i])), None)
        if torn is None:
            return Allocation(best.lots, root.lots, exact)
        if nodes >= MOST_NODES:
            # From here on downwards only: each step settles one offer, so it ends.
            exact = False
            open_nodes.clear()
        for choice in ((0, 0), *offers[torn].allowed):
            branch = (*ranges[:torn], choice, *ranges[torn + 1 :])
            solution = solved(branch)
            nodes += 1
            if solution is not None:
                exact = exact and solution.exact
                heapq.heappush(open_nodes, (solution.cost, next(ticket), branch, solution))


def _solve(
    quantity: int, offers: Sequence[Offer], ranges: Sequence[Range], unit: int, penalty: int
) -> _Solution | None:
    """The best lots where each offer takes any number of lots of its one range; None when the least is too much."""
    taken = [low for low, _ in ranges]
    rest = quantity - sum(offer.lot * low for offer, low in zip(offers, taken, strict=True))
    if rest < 0:
        return None
    cost, exact = 0, True
    sizes: defaultdict[int, list[Run]] = defaultdict(list)
    for index, (offer, (low, high)) in enumerate(zip(offers, ranges, strict=True)):
        skip, left = low, high - low
        for price, lots in offer.runs:
            forced = min(skip, lots)
            cost += forced * price
            skip -= forced
            free = min(lots - forced, left)
            left -= free
            if free:
                sizes[offer.lot].append((price, free, ((index, 1),)))
            elif not left and not skip:
                break
    sizes[unit].append((penalty, rest // unit, ((NOBODY, 1),)))

    def take(runs: Iterable[Run], units: int) -> list[Run]:
        """Takes that many units from the front; what is left behind them."""
        nonlocal cost
        after: list[Run] = []
        for price, lots, parts in runs:
            used = min(lots, units)
            if used:
                units -= used
                cost += used * price
                for index, each in parts:
                    if index != NOBODY:
                        taken[index] += used * each
            if lots > used:
                after.append((price, lots - used, parts))
        assert not units, "what nobody takes fills the rest"
        return after

    while rest:
        finest = min(sizes)
        runs = sorted(sizes.pop(finest))
        if not sizes:
            take(runs, rest // finest)
            break
        common = gcd(*sizes)
        if common == finest:
            sizes[finest] = runs
            units, exact = _mixed(rest, sizes)
            for size, number in units.items():
                take(sorted(sizes[size]), number)
            break
        odd = rest % common
        runs = take(runs, odd // finest)
        rest -= odd
        sizes[common] += _bundled(runs, common // finest)
    return _Solution(cost, tuple(taken), exact)


def _bundled(runs: Iterable[Run], size: int) -> list[Run]:
    """Runs, in their order, tied into bundles of `size` units. What does not fill the last bundle is dropped."""
    bundles: list[Run] = []
    inside: Counter[int] = Counter()
    price_inside = held = 0
    for price, units, parts in runs:
        left = units
        while left:
            if not held and left >= size:
                bundles.append((price * size, left // size, tuple((index, each * size) for index, each in parts)))
                left %= size
                continue
            used = min(left, size - held)
            for index, each in parts:
                inside[index] += used * each
            price_inside += used * price
            held += used
            left -= used
            if held == size:
                bundles.append((price_inside, 1, tuple(sorted(inside.items()))))
                inside, price_inside, held = Counter(), 0, 0
    return bundles


class _Curve:
    """The cost of the first units of some sorted runs."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.prices = [price for price, _, _ in runs]
        self.ends = list(accumulate(units for _, units, _ in runs))
        self.costs = list(accumulate(price * units for price, units, _ in runs))

    def __call__(self, units: int) -> int:
        if not units:
            return 0
        at = bisect_left(self.ends, units)
        return self.costs[at] - (self.ends[at] - units) * self.prices[at]


def _mixed(rest: int, sizes: dict[int, list[Run]]) -> tuple[dict[int, int], bool]:
    """How many units of each size make up `rest` at the least cost, and whether that is proven.

    The finest size divides every other and, as quantity that nobody takes comes in it, can always make up the rest.
    """
    finest, *coarse = sorted(sizes)
    rest //= finest
    weights = {size: size // finest for size in sizes}
    curves = {size: _Curve(sorted(runs)) for size, runs in sizes.items()}

    # The optimum without lots: the cheapest per quantity first, only the last unit of all broken.
    scale = lcm(*weights.values())
    merged = sorted(
        (price * (scale // weights[size]), size, units) for size, runs in sizes.items() for price, units, _ in runs
    )
    around: Counter[int] = Counter()
    left = rest
    for _, size, units in merged:
        used = min(left, units * weights[size])
        around[size] += used
        left -= used

    coarsest = weights[coarse[-1]]
    needed = 2 * coarsest
    reach = needed
    while reach > 1 and _steps(reach, coarsest, len(coarse)) > MOST_STEPS:
        reach -= max(1, reach // 8)
    # Sums of coarse units, as distance from the optimum without lots: (cost, units per coarse size).
    states: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, ())}
    widest = reach * coarsest
    base = 0
    for size in coarse:
        weight, curve = weights[size], curves[size]
        middle = around[size] // weight
        base += middle * weight
        options = [
            ((units - middle) * weight, curve(units), units)
            for units in range(max(0, middle - reach), min(curve.ends[-1], middle + reach) + 1)
        ]
        reached: dict[int, tuple[int, tuple[int, ...]]] = {}
        for distance, (cost, chosen) in states.items():
            for step, price, units in options:
                at = distance + step
                if -widest <= at <= widest:
                    known = reached.get(at)
                    if known is None or cost + price < known[0]:
                        reached[at] = (cost + price, (*chosen, units))
        states = reached
    curve = curves[finest]
    _, best, chosen = min(
        (cost + curve(rest - base - distance), rest - base - distance, chosen)
        for distance, (cost, chosen) in states.items()
        if 0 <= rest - base - distance <= curve.ends[-1]
    )
    return {finest: best, **dict(zip(coarse, chosen, strict=True))}, reach == needed


def _steps(reach: int, coarsest: int, sizes: int) -> int:
    """About how many steps the dynamic programme takes."""
    width = 2 * reach + 1
    return sum(min(width**n, 2 * reach * coarsest + 1) * width for n in range(sizes))
