"""From a message to a durable parent order: decode exactly, validate, commit, acknowledge.

A message is acknowledged once its order, its rejection or its dead letter is durable, and not before. While the store or the
dead-letter topic does not answer, messages are held, and the flow control of Pub/Sub keeps the rest.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import structlog
from pydantic import ValidationError

from adapters.base import Adapter
from algorithms import ALGORITHMS
from execution.intake import DeadLetter
from execution.ledger import Accepted, AcceptOutcome, Conflict, Duplicate, Ledger, generated_order_id, keys, order_key
from execution.metrics import Metrics
from execution.order_actor import Arrival
from execution.pubsub import IncomingMessage
from execution.runner import Runner
from schemas import exact_json
from schemas.event import EventType, OrderEvent
from schemas.market import MarketRules
from schemas.order import ZERO, OrderStatus, ParentOrder
from schemas.signal import InvalidSignal, Signal, parse, unwrap
from schemas.terms import Side

log = structlog.get_logger(__name__)


class Acceptor:
    """The one path of every signal into the ledger."""

    def __init__(
        self,
        runner: Runner,
        ledger: Ledger,
        adapters: Mapping[str, Adapter],
        metrics: Metrics,
        dead_letter: DeadLetter,
        *,
        instance: str,
        execution_timeout: float | None,
        signal_max_age: float,
        wake_outbox: Callable[[int], None],
    ) -> None:
        """`execution_timeout` and `signal_max_age` in seconds."""
        self._runner = runner
        self._ledger = ledger
        self._adapters = adapters
        self._metrics = metrics
        self._dead_letter = dead_letter
        self._instance = instance
        self._execution_timeout = execution_timeout
        self._signal_max_age = signal_max_age
        self._wake_outbox = wake_outbox

    async def take(self, message: IncomingMessage) -> None:
        """Make what a message says durable: an order, a rejection, or a dead letter.

        Raises:
            StoreUnavailable, PubSubError: it is not; offer it again.
        """
        self._metrics.signal_received()
        try:
            fields = exact_json.decode(message.data)
        except ValueError as error:
            return await self._bury(message, f"not JSON: {error}")
        if not isinstance(fields, Mapping):
            return await self._bury(message, "not a JSON object")
        fields = unwrap(fields)
        signal_id = fields.get("signal_id")
        if not isinstance(signal_id, str) or not signal_id or len(signal_id) > 128 or not _printable(signal_id):
            return await self._bury(message, "signal_id: must be 1 to 128 printable characters without spaces")
        await self.submit(signal_id, fields, message.publish_time_ms, message.received_at)
        return None

    async def submit(
        self, signal_id: str, fields: Mapping[str, Any], published_ms: int, received_at: float
    ) -> AcceptOutcome:
        """Accept or reject a decoded signal; durable on return.

        Raises:
            StoreUnavailable: it is not, or not known to be.
        """
        key = order_key(signal_id)
        content = hashlib.sha256(exact_json.canonical(fields)).hexdigest()[:32]
        try:
            signal, ignored = parse(fields)
            adapter, rules = self._tradable(signal, published_ms)
            parent = self._parent(signal, key, ignored)
            _plan(parent, rules)
            if signal.order_id is not None:
                await self._claim(signal.order_id, key)
        except InvalidSignal as refusal:
            outcome = await self._reject(key, content, signal_id, fields, refusal)
        else:
            arrival = Arrival(received_at, published_ms)
            outcome = await self._runner.accept(key, content, parent, rules, arrival)
            if isinstance(outcome, Accepted):
                self._metrics.signal_accepted(adapter.name, time.monotonic() - received_at)
                log.info(
                    "order accepted",
                    order_id=parent.order_id,
                    signal_id=signal_id,
                    exchange=parent.exchange,
                    symbol=parent.symbol,
                )
        if isinstance(outcome, Duplicate):
            self._metrics.signal_duplicate()
            log.info("signal seen before", signal_id=signal_id, order_id=outcome.order_id)
            # An acceptance whose answer was lost may have left an order that nobody works yet.
            await self._runner.find(key)
        elif isinstance(outcome, Conflict):
            conflict = InvalidSignal("signal_id", f"belongs to order {outcome.order_id}, accepted with other content")
            twin = f"{signal_id}\0{content}"
            await self._reject(order_key(twin), content, signal_id, {**fields, "order_id": None}, conflict)
        return outcome

    # --- validation against what this replica trades ----------------------------------------------------------------

    def _tradable(self, signal: Signal, published_ms: int) -> tuple[Adapter, MarketRules]:
        now = _now()
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
        adapter = self._adapters.get(signal.exchange)
        if adapter is None:
            raise InvalidSignal("exchange", f"{signal.exchange!r} is not one of {', '.join(sorted(self._adapters))}")
        rules = adapter.rules(signal.symbol)
        if rules is None:
            raise InvalidSignal("symbol", f"{signal.symbol!r} is not traded at {signal.exchange}")
        if not rules.active:
            raise InvalidSignal("symbol", f"{signal.symbol} is not open for trading at {signal.exchange}")
        algorithm = ALGORITHMS.get(signal.algorithm)
        if algorithm is None:
            raise InvalidSignal("algorithm", f"{signal.algorithm!r} is not one of {', '.join(sorted(ALGORITHMS))}")
        if signal.order_type not in algorithm.order_types:
            known = ", ".join(sorted(algorithm.order_types))
            raise InvalidSignal(
                "order_type", f"{signal.order_type} is not one of {known}, which {signal.algorithm} trades"
            )
        for field, value in _UNTRADED.items():
            if getattr(signal, field) not in value:
                raise InvalidSignal(field, f"is not supported by algorithm {signal.algorithm} at {signal.exchange}")
        try:
            algorithm.parameters.model_validate(signal.algorithm_params)
        except ValidationError as error:
            detail = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(["algorithm_params", *(str(part) for part in detail["loc"])])
            raise InvalidSignal(where, detail["msg"]) from None
        price = rules.round_price(signal.price, signal.side) if signal.price is not None else None
        quantity = rules.round_quantity(signal.quantity, signal.order_type)
        refusal = rules.refusal(quantity, signal.order_type, price)
        if refusal is not None:
            raise InvalidSignal(*refusal)
        return adapter, rules

    def _parent(self, signal: Signal, key: str, ignored: tuple[str, ...]) -> ParentOrder:
        now = _now()
        expires_at = signal.expires_at
        if expires_at is None and self._execution_timeout is not None and signal.algorithm == "direct":
            expires_at = now + int(self._execution_timeout * 1000)
        return ParentOrder(
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
            expires_at=expires_at,
            user_id=signal.user_id,
            trade_id=signal.trade_id,
            metadata=dict(signal.metadata),
            ignored_fields=ignored,
            created_at=now,
            updated_at=now,
        )

    async def _claim(self, order_id: str, key: str) -> None:
        """Make an order id that the client chose lead to this order."""
        generated = keys.key_of_generated(order_id)
        owner = generated if generated is not None else await self._ledger.claim_alias(order_id, key)
        if owner != key:
            raise InvalidSignal("order_id", f"{order_id} is the id of another order")

    # --- refusals ---------------------------------------------------------------------------------------------------

    async def _reject(
        self, key: str, content: str, signal_id: str, fields: Mapping[str, Any], refusal: InvalidSignal
    ) -> AcceptOutcome:
        given = fields.get("order_id")
        usable = isinstance(given, str) and 0 < len(given) <= 128 and _printable(given) and refusal.field != "order_id"
        event = rejection(
            key,
            self._instance,
            order_id=given if isinstance(given, str) and usable else generated_order_id(key),
            signal_id=signal_id,
            fields=fields,
            field=refusal.field,
            reason=refusal.reason,
        )
        outcome = await self._ledger.reject(key, content, event)
        if isinstance(outcome, Accepted):
            self._metrics.signal_rejected(refusal.field)
            log.warning("signal rejected", signal_id=signal_id, field=refusal.field, reason=refusal.reason)
            self._wake_outbox(self._ledger.shard_of(key))
        return outcome

    async def _bury(self, message: IncomingMessage, reason: str) -> None:
        log.error("message to the dead-letter topic", message_id=message.message_id, reason=reason)
        await self._dead_letter(message, reason)
        self._metrics.signal_dead_lettered()


_UNTRADED: dict[str, tuple[Any, ...]] = {
    "venues": (None,),
    "stop_price": (None,),
    "take_profit": (None,),
    "stop_loss": (None,),
    "reduce_only": (False,),
    "leverage": (None, 1),
    "max_slippage_bps": (None,),
}
"""Fields that change what is traded and that nothing here carries out, with the values that ask for nothing."""


def rejection(
    key: str,
    instance: str,
    *,
    order_id: str,
    signal_id: str,
    fields: Mapping[str, Any],
    field: str,
    reason: str,
    sequence: int = 1,
) -> OrderEvent:
    """The event of a refusal. What the refused message says is repeated only where it is well-formed."""

    def text(name: str) -> str | None:
        value = fields.get(name)
        return value[:128] if isinstance(value, str) else None

    try:
        side = Side(str(fields.get("side")).lower())
    except ValueError:
        side = None
    unset = msgspec.UNSET
    return OrderEvent(
        order_id=order_id,
        signal_id=signal_id,
        status=OrderStatus.REJECTED,
        filled_quantity=ZERO,
        average_price=None,
        commission=ZERO,
        timestamp=_now(),
        event_id=f"evt_{key}_{sequence}",
        event_type=EventType.REJECTED,
        sequence=sequence,
        strategy_id=text("strategy_id"),
        exchange=text("exchange"),
        symbol=text("symbol"),
        side=side,
        quantity=None,
        remaining_quantity=None,
        commissions={},
        instance_id=instance,
        user_id=text("user_id") or unset,
        trade_id=text("trade_id") or unset,
        reason=f"{field}: {reason}" if field else reason,
        field=field or unset,
    )


def _plan(parent: ParentOrder, rules: MarketRules) -> None:
    parent.plan = dict(ALGORITHMS[parent.algorithm].plan(parent, rules))


def _printable(text: str) -> bool:
    return text.isascii() and all("!" <= character <= "~" for character in text)


def _now() -> int:
    return time.time_ns() // 1_000_000
