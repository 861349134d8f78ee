"""Ways to work the same parent order that are compared: algorithms with their parameters, and the baselines."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, Decimal
from typing import Any

from algorithms import ALGORITHMS
from algorithms.base import Refusal
from execution.order_actor import parsed
from execution.simulate.baselines import MARKET, TWAP_MARKET, known
from execution.simulate.scenarios import ScenarioError
from schemas import exact_json
from schemas.market import MarketRules
from schemas.terms import OrderType, Side

SIGNALS = "signals"
"""The contestant that works each signal of a file as the signal says."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to work the orders."""

    label: str
    algorithm: str
    params: Mapping[str, Any] = field(default_factory=dict)
    baseline: bool = False
    as_signalled: bool = False
    """Whether signals keep their own algorithm."""

    @property
    def slug(self) -> str:
        """The label as a part of an id."""
        return re.sub(r"[^A-Za-z0-9.]+", "-", self.label).strip("-")

    @property
    def described(self) -> str:
        """The algorithm with its parameters, as they can be given again."""
        words = ",".join(f"{name}={_word(value)}" for name, value in self.params.items())
        return f"{self.algorithm}:{words}" if words else self.algorithm


@dataclass(frozen=True, slots=True)
class Order:
    """The parent order that every contestant works."""

    symbol: str
    side: Side
    quantity: Decimal
    order_type: OrderType = OrderType.MARKET
    price: Decimal | None = None
    duration: float = 600.0
    """In seconds, for algorithms that are not told theirs; the others are ended after it."""


def contestants(
    named: Sequence[str],
    order: Order,
    *,
    share: float | None,
    rules: MarketRules,
    signals: bool = False,
    route: bool = False,
) -> list[Contestant]:
    """Those named, or a usual set, behind the two baselines. `share`: of the market's volume that the quantity is.

    Raises:
        ScenarioError: an algorithm or a parameter is not known, or refused; in the words of `--algorithm`.
    """
    found = _baselines(order)
    if signals:
        found.append(Contestant(SIGNALS, "", as_signalled=True))
    if named:
        given = [_parsed(text) for text in named]
    elif signals:
        given = []
    else:
        given = _usual(order, share, rules)
    if route and not any(name in ALGORITHMS and ALGORITHMS[name].routes for name, _ in given):
        given.append(("smart_router", {}))
    made = [(name, _completed(name, params, order)) for name, params in given]
    for name, params in made:
        same = [other for kind, other in made if kind == name]
        label = _label(
            name,
            params,
            [*same, *(one.params for one in found if one.baseline and one.algorithm == name == TWAP_MARKET)],
        )
        if any(other.label == label for other in found):
            raise ScenarioError("--algorithm", f"{label} is given twice")
        found.append(Contestant(label, name, params))
    return found


def signal_of(
    contestant: Contestant,
    order: Order,
    index: int,
    start: int,
    venues: Sequence[str],
) -> dict[str, Any]:
    """The signal of one order. Orders of one index are the same but for how they are worked."""
    limit = contestant.baseline is False and order.order_type is not OrderType.MARKET
    name = f"{contestant.slug}-{index + 1:04d}"
    fields: dict[str, Any] = {
        "signal_id": name,
        "order_id": name,
        "strategy_id": contestant.label,
        "exchange": venues[0],
        "symbol": order.symbol,
        "side": order.side.value,
        "quantity": order.quantity,
        "order_type": order.order_type.value if limit else OrderType.MARKET.value,
        "algorithm": contestant.algorithm,
        "algorithm_params": dict(contestant.params),
    }
    if limit and order.price is not None:
        fields["price"] = order.price
    return _ended(fields, contestant, start, order.duration, venues)


def reworked(
    contestant: Contestant, signal: Mapping[str, Any], index: int, start: int, duration: float, venues: Sequence[str]
) -> dict[str, Any]:
    """A signal from a file as a contestant works it."""
    name = f"{contestant.slug}-{index + 1:04d}"
    fields = {**signal, "signal_id": name, "order_id": name, "strategy_id": contestant.label}
    if contestant.as_signalled:
        return fields
    for word in ("algorithm_params", "venues", "expires_at", "time_in_force", "take_profit", "stop_loss"):
        fields.pop(word, None)
    fields |= {"algorithm": contestant.algorithm, "algorithm_params": dict(contestant.params)}
    if contestant.baseline:
        for word in ("price", "stop_price", "post_only", "max_slippage_bps", "slippage_policy"):
            fields.pop(word, None)
        fields["order_type"] = OrderType.MARKET.value
    return _ended(fields, contestant, start, duration, venues)


def _ended(
    fields: dict[str, Any], contestant: Contestant, start: int, duration: float, venues: Sequence[str]
) -> dict[str, Any]:
    """With an end of its time, where the algorithm has none of its own; with all venues, where it routes."""
    algorithm = ALGORITHMS.get(contestant.algorithm)
    if "duration_seconds" not in contestant.params and not contestant.baseline:
        fields["expires_at"] = start + int(duration * 1000)
    if algorithm is not None and algorithm.routes:
        fields["venues"] = list(venues)
    return fields


def _baselines(order: Order) -> list[Contestant]:
    slices = min(20, max(2, int(order.duration)))
    duration = exact_json.decode(f"{order.duration:g}")
    return [
        Contestant(MARKET, "direct", baseline=True),
        Contestant(TWAP_MARKET, TWAP_MARKET, {"duration_seconds": duration, "slices": slices}, baseline=True),
    ]


def _usual(order: Order, share: float | None, rules: MarketRules) -> list[tuple[str, dict[str, Any]]]:
    """A set that suits the quantity and the duration. `direct` with a market order is the first baseline."""
    found: list[tuple[str, dict[str, Any]]] = []
    if order.order_type is not OrderType.MARKET:
        found.append(("direct", {}))
    found += [("twap", {}), ("vwap", {}), ("implementation_shortfall", {})]
    # Twice the share that the quantity is: volume does not come evenly, and what it is too slow for stays undone.
    if share is not None:
        rate = Decimal(f"{min(max(2 * share, 0.01), 0.5):.2f}")
        found.append(("pov", {"participation": rate, "interval_seconds": min(5, max(1, int(order.duration / 20)))}))
    shown = max(order.quantity / 10, rules.min_quantity, rules.lot)
    if rules.lot:
        shown = (shown / rules.lot).to_integral_value(ROUND_FLOOR) * rules.lot
    pegged = {} if order.order_type is OrderType.LIMIT else {"price_mode": "pegged"}
    found.append(("iceberg", {"display_quantity": shown, **pegged}))
    return found


def _completed(name: str, params: Mapping[str, Any], order: Order) -> dict[str, Any]:
    """Parameters with the duration of all, where the algorithm has one and is not told it."""
    full = dict(params)
    with known():
        algorithm = ALGORITHMS.get(name)
        if algorithm is None:
            names = ", ".join(sorted(ALGORITHMS))
            raise ScenarioError("--algorithm", f"{name!r} is not one of {names}")
        fields = algorithm.Parameters.model_fields
        for strange in full.keys() - fields.keys():
            close = difflib.get_close_matches(strange, fields, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(fields)}"
            raise ScenarioError("--algorithm", f"{name}: {strange}: is no parameter of {name}; {hint}")
        if "duration_seconds" in fields and "duration_seconds" not in full:
            whole = order.duration == int(order.duration)
            full = {"duration_seconds": int(order.duration) if whole else Decimal(f"{order.duration:g}"), **full}
        try:
            parsed(algorithm, full)
        except Refusal as refusal:
            where = refusal.field.removeprefix("algorithm_params").lstrip(".")
            reason = refusal.reason[:1].lower() + refusal.reason[1:]
            raise ScenarioError("--algorithm", f"{name}: {f'{where}: ' if where else ''}{reason}") from None
    return full


def _parsed(text: str) -> tuple[str, dict[str, Any]]:
    """`NAME[:PARAMETER=VALUE,...]`; commas inside brackets separate nothing."""
    name, _, rest = text.partition(":")
    params: dict[str, Any] = {}
    for word in filter(None, (part.strip() for part in re.split(r",(?![^\[]*\])", rest))):
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ScenarioError("--algorithm", f"{name}: {word!r} is not PARAMETER=VALUE")
        if key in params:
            raise ScenarioError("--algorithm", f"{name}: {key} is given twice")
        params[key] = _value(value)
    return name.strip().lower(), params


def _value(text: str) -> Any:
    try:
        return exact_json.decode(text)
    except ValueError:
        return text


def _word(value: Any) -> str:
    return value if isinstance(value, str) else exact_json.encode(value).decode()


def _label(name: str, params: Mapping[str, Any], same: Sequence[Mapping[str, Any]]) -> str:
    """The name, with what tells it apart from others of the same algorithm."""
    if len(same) < 2:
        return name
    own = [f"{key}={_word(value)}" for key, value in params.items() if any(other.get(key) != value for other in same)]
    return f"{name} {' '.join(own)}" if own else name
