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

from execution.intake import DeadLetter
from execution.ledger import Accepted, AcceptOutcome, Conflict, Duplicate, Ledger, generated_order_id, keys, order_key
from execution.metrics import Metrics
from execution.order_actor import Arrival
from execution.planning import Planner
from execution.pubsub import IncomingMessage
from execution.runner import Runner
from schemas import exact_json
from schemas.event import EventType, OrderEvent
from schemas.order import ZERO, OrderStatus, ParentOrder
from schemas.signal import InvalidSignal, parse, unwrap
from schemas.terms import Side

log = structlog.get_logger(__name__)


class Acceptor:
    """The one path of every signal into the ledger."""

    def __init__(
        self,
        runner: Runner,
        ledger: Ledger,
        planner: Planner,
        metrics: Metrics,
        dead_letter: DeadLetter,
        *,
        instance: str,
        wake_outbox: Callable[[int], None],
        halted: Callable[[ParentOrder], str | None] = lambda _order: None,
    ) -> None:
        """`halted` says why a strategy's signals are refused now; None: they are not."""
        self._runner = runner
        self._ledger = ledger
        self._planner = planner
        self._metrics = metrics
        self._dead_letter = dead_letter
        self._instance = instance
        self._wake_outbox = wake_outbox
        self._halted = halted

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
            parent, rules = await self._planner.plan(signal, key, ignored, published_ms)
            halted = self._halted(parent)
            if halted is not None:
                raise InvalidSignal("strategy_id", halted)
            if signal.order_id is not None:
                await self._claim(signal.order_id, key)
        except InvalidSignal as refusal:
            outcome = await self._reject(key, content, signal_id, fields, refusal)
        else:
            arrival = Arrival(received_at, published_ms)
            outcome = await self._runner.accept(key, content, parent, rules, arrival)
            if isinstance(outcome, Accepted):
                self._metrics.signal_accepted(parent.home, time.monotonic() - received_at)
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
    now = _now()
    return OrderEvent(
        order_id=order_id,
        signal_id=signal_id,
        status=OrderStatus.REJECTED,
        filled_quantity=ZERO,
        average_price=None,
        commission=ZERO,
        timestamp=now,
        event_id=f"evt_{key}_{sequence}_{now:x}",
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
        algorithm=text("algorithm"),
        user_id=text("user_id") or unset,
        trade_id=text("trade_id") or unset,
        reason=f"{field}: {reason}" if field else reason,
        field=field or unset,
    )


def _printable(text: str) -> bool:
    return text.isascii() and all("!" <= character <= "~" for character in text)


def _now() -> int:
    return time.time_ns() // 1_000_000
