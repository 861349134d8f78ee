"""From a valid signal to a parent order that can be worked here: its venues, its algorithm's plan, its trigger, its bracket.

What cannot be worked is refused by field and reason; what is chosen or adjusted is noted on the order and told when it is
accepted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from adapters.base import Adapter, Unavailable
from algorithms import ALGORITHMS
from algorithms.base import Algorithm, Refusal
from algorithms.direct import DirectParameters
from algorithms.trigger import armed
from execution.history import Histories
from execution.ledger import generated_order_id
from execution.market_data import MarketData
from execution.order_actor import as_record, parsed
from schemas.market import MarketRules
from schemas.order import ParentOrder, Trigger
from schemas.signal import InvalidSignal, Signal
from schemas.terms import OrderType, Side

BPS = Decimal(10_000)
AUTO = "auto"


class Planner:
    def __init__(
        self,
        adapters: Mapping[str, Adapter],
        market: MarketData,
        histories: Histories,
        *,
        execution_timeout: float | None,
        signal_max_age: float,
        bracket_distance_bps: Decimal,
        bracket_policy: str,
        now: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """`execution_timeout` and `signal_max_age` in seconds. `bracket_policy`: what an exit closer to the market than
        `bracket_distance_bps` does: `adjust` moves it, `reject` refuses the signal."""
        self._adapters = adapters
        self._market = market
        self._histories = histories
        self._execution_timeout = execution_timeout
        self._signal_max_age = signal_max_age
        self._bracket_distance_bps = bracket_distance_bps
        self._bracket_policy = bracket_policy
        self._now = now

    async def plan(
        self, signal: Signal, key: str, ignored: tuple[str, ...], published_ms: int
    ) -> tuple[ParentOrder, MarketRules]:
        """The parent order of a signal, and the rules of its home venue.

        Raises:
            InvalidSignal: naming the field and why. Unavailable: a venue has not been reached since our start.
        """
        self._in_time(signal, published_ms)
        algorithm = self._algorithm(signal)
        venues, rules = self._venues(signal, algorithm)
        notes: list[str] = []
        home = rules[venues[0]]
        parent = self._parent(signal, key, ignored, venues)
        parent.published_at = published_ms
        self._fits(signal, home)
        try:
            parameters = parsed(algorithm, signal.algorithm_params)
            parent.trigger = self._trigger(signal, parameters, home, notes)
            self._bracket(parent, home, notes)
            history: Sequence[Any] = ()
            if algorithm.lookback is not None:
                history = await self._histories.candles(venues[0], signal.symbol, algorithm.lookback)
            parent.plan = as_record(algorithm.plan(parent, parameters, home, history))
        except Refusal as refusal:
            raise InvalidSignal(refusal.field, refusal.reason) from None
        parent.notes = (*notes, *algorithm.notes(parent))
        return parent, home

    # --- what can be traded -------------------------------------------------------------------------------------------

    def _in_time(self, signal: Signal, published_ms: int) -> None:
        now = self._now()
        if signal.expires_at is not None:
            if signal.expires_at <= now:
                raise InvalidSignal(
                    "expires_at", f"passed {now - signal.expires_at} ms before the signal could be taken"
                )
        elif published_ms and now - published_ms > self._signal_max_age * 1000:
            age = (now - published_ms) // 1000
            raise InvalidSignal(
                "signal_id", f"the signal is {age} s old, beyond SIGNAL_MAX_AGE={self._signal_max_age:g}"
            )

    def _algorithm(self, signal: Signal) -> Algorithm[Any, Any]:
        algorithm = ALGORITHMS.get(signal.algorithm)
        if algorithm is None:
            raise InvalidSignal("algorithm", f"{signal.algorithm!r} is not one of {', '.join(sorted(ALGORITHMS))}")
        if signal.order_type not in algorithm.order_types:
            known = ", ".join(sorted(algorithm.order_types))
            raise InvalidSignal(
                "order_type", f"{signal.order_type} is not one of {known}, which {signal.algorithm} trades"
            )
        return algorithm

    def _all_started(self, names: Iterable[str]) -> None:
        """Raises Unavailable: what a venue trades is not known, since it was away at our start."""
        for name in names:
            if not self._adapters[name].health.ready:
                raise Unavailable(f"{name} has not started yet: {self._adapters[name].health.last_error}")

    def _venues(self, signal: Signal, algorithm: Algorithm[Any, Any]) -> tuple[list[str], dict[str, MarketRules]]:
        """The venues the order may trade at, the home venue first."""
        named = list(dict.fromkeys(signal.venues or ()))
        if signal.exchange != AUTO:
            if signal.exchange not in self._adapters:
                raise InvalidSignal(
                    "exchange", f"{signal.exchange!r} is not one of {', '.join(sorted(self._adapters))}, or {AUTO}"
                )
            if signal.exchange not in named:
                named.insert(0, signal.exchange)
        elif not named:
            named = sorted(name for name, adapter in self._adapters.items() if _tradable(adapter, signal.symbol))
            if not named:
                self._all_started(self._adapters)
                raise InvalidSignal("symbol", f"{signal.symbol!r} is not traded at {', '.join(sorted(self._adapters))}")
        if len(named) > 1 and not algorithm.routes:
            if signal.venues is not None:
                routing = ", ".join(sorted(name for name, other in ALGORITHMS.items() if other.routes))
                raise InvalidSignal(
                    "venues", f"{signal.algorithm} trades at one venue; these trade at several: {routing}"
                )
            named = [self._best(named, signal)]
        rules: dict[str, MarketRules] = {}
        for name in named:
            adapter = self._adapters.get(name)
            if adapter is None:
                raise InvalidSignal("venues", f"{name!r} is not one of {', '.join(sorted(self._adapters))}")
            found = adapter.rules(signal.symbol)
            if found is None:
                self._all_started([name])
                raise InvalidSignal("symbol", f"{signal.symbol!r} is not traded at {name}")
            if not found.active:
                raise InvalidSignal("symbol", f"{signal.symbol} is not open for trading at {name}")
            rules[name] = found
        first = rules[named[0]]
        strange = [name for name in named if rules[name].contract is not first.contract]
        if strange:
            raise InvalidSignal(
                "venues", f"{signal.symbol} is another kind of market at {strange[0]} than at {named[0]}"
            )
        if signal.reduce_only and not first.contract:
            raise InvalidSignal(
                "reduce_only", f"{signal.symbol} at {named[0]} is a spot market: it has no position to reduce"
            )
        if signal.leverage not in (None, 1):
            raise InvalidSignal("leverage", "is set at the venue, not by a signal: only 1 is taken")
        return named, rules

    def _best(self, venues: list[str], signal: Signal) -> str:
        """The venue whose far touch is the best after fees, of those whose market is known; else the first."""
        priced = []
        for venue in venues:
            feed, rules = self._market.feed(venue, signal.symbol), self._adapters[venue].rules(signal.symbol)
            far = feed.book.touch(signal.side.opposite) if feed is not None and feed.book is not None else None
            if far is not None and rules is not None:
                priced.append((signal.side.sign * far * (1 + signal.side.sign * rules.taker_fee), venue))
        return min(priced)[1] if priced else venues[0]

    def _fits(self, signal: Signal, rules: MarketRules) -> None:
        """Refuse what the venue would refuse."""
        kind = OrderType.LIMIT if signal.order_type.has_limit_price else signal.order_type
        price = (
            rules.round_price(signal.price, signal.side) if signal.order_type.has_limit_price and signal.price else None
        )
        refusal = rules.refusal(rules.round_quantity(signal.quantity, kind), kind, price)
        if refusal is not None and "above the maximum" in refusal[1] and signal.algorithm != "direct":
            return  # it is sliced
        if refusal is not None:
            raise InvalidSignal(*refusal)

    # --- the order ----------------------------------------------------------------------------------------------------

    def _parent(self, signal: Signal, key: str, ignored: tuple[str, ...], venues: list[str]) -> ParentOrder:
        now = self._now()
        expires_at = signal.expires_at
        if expires_at is None and self._execution_timeout is not None and signal.algorithm == "direct":
            expires_at = now + int(self._execution_timeout * 1000)
        parent = ParentOrder(
            order_id=signal.order_id or generated_order_id(key),
            signal_id=signal.signal_id,
            strategy_id=signal.strategy_id,
            exchange=signal.exchange,
            symbol=signal.symbol,
            side=signal.side,
            quantity=signal.quantity,
            order_type=signal.order_type,
            price=signal.price if signal.order_type.has_limit_price else None,
            time_in_force=signal.time_in_force,
            post_only=signal.maker_only,
            algorithm=signal.algorithm,
            algorithm_params=dict(signal.algorithm_params),
            venues=tuple(venues) if len(venues) > 1 or venues[0] != signal.exchange else (),
            stop_price=signal.stop_price,
            take_profit=signal.take_profit,
            stop_loss=signal.stop_loss,
            reduce_only=signal.reduce_only,
            max_slippage_bps=signal.max_slippage_bps,
            slippage_policy=signal.slippage_policy or ("end" if signal.algorithm == "direct" else "pause"),
            decision_price=signal.decision_price,
            expires_at=expires_at,
            user_id=signal.user_id,
            trade_id=signal.trade_id,
            metadata=dict(signal.metadata),
            ignored_fields=ignored,
            created_at=now,
            updated_at=now,
        )
        mid = self._market.mid(parent.home, parent.symbol)
        if mid is not None:
            parent.arrival, parent.arrival_at = mid, now
        return parent

    def _trigger(self, signal: Signal, parameters: Any, rules: MarketRules, notes: list[str]) -> Trigger | None:
        kind = signal.order_type
        if not kind.has_trigger and kind is not OrderType.TRAILING_STOP:
            if signal.stop_price is not None:
                raise Refusal("stop_price", f"a {kind} order has none")
            return None
        own = parameters if isinstance(parameters, DirectParameters) else DirectParameters()
        if kind is OrderType.TRAILING_STOP and own.trail_bps is None:
            raise Refusal("algorithm_params.trail_bps", "is required for a trailing_stop order, with algorithm direct")
        can = kind in rules.native and signal.algorithm == "direct" and own.trigger_source == "last"
        can = can and own.activation_price is None and signal.max_slippage_bps is None
        if own.trigger_at == "venue" and not can:
            raise Refusal(
                "algorithm_params.trigger_at",
                f"the venue cannot hold this {kind} order as asked: trigger_at service or auto watches the price here",
            )
        native = can and own.trigger_at != "service"
        stop = rules.round_price(signal.stop_price, signal.side) if signal.stop_price is not None else None
        notes.append(
            f"the venue holds the {kind} order and fires it"
            if native
            else f"the service watches the price ({own.trigger_source}) and sends the order when its trigger is reached"
        )
        return armed(
            kind,
            stop_price=stop,
            trail_bps=own.trail_bps,
            activation=own.activation_price,
            source=own.trigger_source,
            native=native,
        )

    def _bracket(self, parent: ParentOrder, rules: MarketRules, notes: list[str]) -> None:
        """Check the exits against the price the entry is expected to have, and each other; move what is too close."""
        if not parent.has_bracket:
            return
        if parent.venues and len(parent.venues) > 1:
            raise Refusal(
                "take_profit" if parent.take_profit is not None else "stop_loss", "needs an order at one venue"
            )
        if parent.reduce_only:
            raise Refusal("reduce_only", "an order that closes a position has no bracket")
        sign, exit_side = parent.side.sign, parent.side.opposite
        reference = parent.price or parent.stop_price or parent.arrival
        least = max(self._bracket_distance_bps / BPS * (reference or 0), rules.tick)
        for field in ("take_profit", "stop_loss"):
            price = getattr(parent, field)
            if price is None:
                continue
            way = sign if field == "take_profit" else -sign
            if reference is not None and way * (price - reference) < least:
                wrong = way * (price - reference) <= 0
                if wrong or self._bracket_policy == "reject":
                    where = "on the wrong side of" if wrong else f"closer than {least:f} to"
                    raise Refusal(field, f"{price:f} is {where} the entry's price {reference:f}")
                moved = reference + way * least
                notes.append(
                    f"{field} moved from {price:f} to {moved:f}: at least {least:f} from the entry's price {reference:f}"
                )
                price = moved
            price = rules.round_price(price, exit_side)
            refusal = rules.refusal(rules.round_quantity(parent.quantity, OrderType.LIMIT), OrderType.LIMIT, price)
            if refusal is not None:
                raise Refusal(field, refusal[1])
            setattr(parent, field, price)
        profit, loss = parent.take_profit, parent.stop_loss
        if profit is not None and loss is not None and sign * (profit - loss) <= 0:
            side = "above" if parent.side is Side.BUY else "below"
            raise Refusal("take_profit", f"must be {side} stop_loss for a {parent.side}")
        stops = {OrderType.STOP, OrderType.STOP_LIMIT} & set(rules.native)
        held = "the venue, and the take-profit once the price is near it" if stops else "the service"
        if parent.stop_loss is not None:
            notes.append(
                f"the stop-loss is held by {held}"
                if parent.take_profit is not None or not stops
                else "the stop-loss is held by the venue"
            )


def _tradable(adapter: Adapter, symbol: str) -> bool:
    rules = adapter.rules(symbol)
    return rules is not None and rules.active
