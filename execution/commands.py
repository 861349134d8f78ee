"""Commands from the control topic, and from the command line through it.

A command on an order is carried out by the order's owner; another replica leaves it in the owner's inbox. Either way the message
is acknowledged once the command is durable. What cannot be done is answered by an event with the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import structlog

from adapters.base import Unavailable
from algorithms import ALGORITHMS
from execution.accept import rejection
from execution.adrift import Adrift
from execution.dead_man import SHORTEST, DeadMan
from execution.history import Histories
from execution.intake import DeadLetter
from execution.ledger import Fenced, Ledger, keys
from execution.metrics import Metrics
from execution.order_actor import Booking, OrderActor
from execution.pubsub import IncomingMessage
from execution.reconcile.desk import ReconciliationDesk
from execution.runner import Runner
from execution.store import STORE_ERRORS
from schemas import exact_json
from schemas.command import (
    AmendOrder,
    CancelOrder,
    Heartbeat,
    InvalidCommand,
    OrderCommand,
    PauseOrder,
    Reconcile,
    Resume,
    ResumeOrder,
    parse,
)
from schemas.market import Candle

log = structlog.get_logger(__name__)

HANDED_BACK = 1.0
"""Seconds after which a heartbeat that cannot be counted here is left to another replica."""


class Commands:
    """Carries commands out, or to who can."""

    def __init__(
        self,
        runner: Runner,
        ledger: Ledger,
        metrics: Metrics,
        dead_letter: DeadLetter,
        histories: Histories,
        *,
        instance: str,
        wake_outbox: Callable[[int], None],
        dead_man: DeadMan | None = None,
        adrift: Adrift | None = None,
        reconciliation: ReconciliationDesk | None = None,
    ) -> None:
        self._runner = runner
        self._ledger = ledger
        self._metrics = metrics
        self._dead_letter = dead_letter
        self._instance = instance
        self._wake_outbox = wake_outbox
        self._histories = histories
        self._dead_man = dead_man
        self._adrift = adrift
        self._reconciliation = reconciliation
        self._read_again: dict[int, bool] = {}
        """Of the shards whose inbox is being read: whether something came since."""

    async def read_inbox(self, shard: int) -> None:
        """Carry out what other replicas left for the owner of a shard. One reader at a time: each command left there asks for one, and
        were each to read all that is there, a thousand commands would be looked at a million times."""
        again = shard in self._read_again
        self._read_again[shard] = True
        if again:
            return
        try:
            while self._read_again[shard]:
                self._read_again[shard] = False
                await self._read_once(shard)
        finally:
            del self._read_again[shard]

    async def _read_once(self, shard: int) -> None:
        done = []
        for entry, data in await self._runner.read_inbox(shard):
            fields = exact_json.decode(data)
            try:
                command = parse(fields["command"])
                if isinstance(command, OrderCommand):
                    await self._carry_out(command, str(fields["command_id"]), handed=True)
            except (Fenced, Unavailable):
                continue  # the next owner reads it, or we, once its venue has started
            except (InvalidCommand, KeyError) as error:
                log.error("an unreadable entry in the inbox was dropped", shard=shard, error=str(error))
                self._metrics.internal_error("inbox")
            done.append(entry)
        await self._ledger.settle_inbox(shard, done)

    async def take(self, message: IncomingMessage) -> None:
        """Carry out what a message says, or leave it to who can, or answer why it cannot be.

        Raises:
            StoreUnavailable, PubSubError, Fenced, Unavailable: nothing is certain; offer it again.
        """
        try:
            fields = exact_json.decode(message.data)
        except ValueError as error:
            return await self._dead_letter(message, f"not JSON: {error}")
        if not isinstance(fields, Mapping):
            return await self._dead_letter(message, "not a JSON object")
        command_id = fields.get("command_id")
        if not isinstance(command_id, str) or not command_id:
            command_id = f"message-{message.message_id}"
        try:
            command = parse(fields)
        except InvalidCommand as refusal:
            return await self._refuse(fields, command_id, refusal.field, refusal.reason)
        if isinstance(command, Heartbeat) and self._dead_man is not None:
            try:
                return await self._beat(self._dead_man, command, fields, command_id)
            except STORE_ERRORS:
                await asyncio.sleep(HANDED_BACK)
                return message.nack()  # a replica that reaches the store may count it; held here, it would be missed
        if isinstance(command, Reconcile) and self._reconciliation is not None:
            return await self._reconcile(self._reconciliation, command, fields, command_id)
        if isinstance(command, Resume) and self._dead_man is not None:
            return await self._resume(self._dead_man, command, fields, command_id)
        if not isinstance(command, OrderCommand):
            reason = f"{command.type} is not carried out by this version of the service"
            return await self._refuse(fields, command_id, "type", reason)
        try:
            await self._carry_out(command, command_id)
        except STORE_ERRORS:
            if isinstance(command, CancelOrder) and self._adrift is not None:
                self._adrift.ask(command)
            raise
        if isinstance(command, CancelOrder) and self._adrift is not None:
            self._adrift.carried_out(command)
        return None

    async def _beat(self, dead_man: DeadMan, command: Heartbeat, fields: Mapping[str, Any], command_id: str) -> None:
        self._metrics.command(command.type)
        timeout = float(command.timeout_seconds) if command.timeout_seconds is not None else None
        if timeout is not None and timeout < SHORTEST:
            return await self._refuse(fields, command_id, "timeout_seconds", f"must be at least {SHORTEST:g}")
        return await dead_man.beat(command.strategy_id, command.source, timeout)

    async def _reconcile(
        self, desk: ReconciliationDesk, command: Reconcile, fields: Mapping[str, Any], command_id: str
    ) -> None:
        self._metrics.command(command.type)
        unknown = desk.unknown(command.venue)
        if unknown is not None:
            return await self._refuse(fields, command_id, "venue", unknown)
        return await desk.command(command.venue, command_id, command.reason)

    async def _resume(self, dead_man: DeadMan, command: Resume, fields: Mapping[str, Any], command_id: str) -> None:
        self._metrics.command(command.type)
        if command.scope not in ("all", "strategy"):
            return await self._refuse(fields, command_id, "scope", f"nothing is halted by {command.scope}")
        strategy_id = command.value if command.scope == "strategy" else None
        if not await dead_man.resume(strategy_id, command.reason, command_id):
            what = f"strategy {strategy_id} is not halted" if strategy_id is not None else "nothing is halted"
            return await self._refuse(fields, command_id, "value" if strategy_id is not None else "scope", what)
        return None

    async def _carry_out(self, command: OrderCommand, command_id: str, *, handed: bool = False) -> None:
        """`handed`: it comes from the inbox of its order's shard.

        Raises:
            Fenced: it was handed to this replica, which does not hold the shard (yet, or any more): it stays in the inbox.
        """
        self._metrics.command(command.type)
        key = await self._ledger.find_key(command.order_id, command.signal_id)
        if key is None:
            fields = command.model_dump(exclude_none=True)
            return await self._refuse(fields, command_id, "order_id", "no such order")
        shard = self._ledger.shard_of(key)
        if self._runner.lease_of(key) is None and handed:
            raise Fenced(f"shard {shard}")  # handed on, it would come back at once, for as long as that lasts
        if self._runner.lease_of(key) is None:
            data = {"command": command.model_dump(exclude_none=True), "command_id": command_id}
            await self._ledger.hand_command(shard, exact_json.encode(data))
            return None
        actor = await self._runner.find(key)
        if actor is None:
            self._runner.all_started()
            fields = command.model_dump(exclude_none=True)
            return await self._refuse(fields, command_id, "order_id", "the order was rejected on arrival")
        history: Sequence[Candle] = ()
        if isinstance(command, AmendOrder) and command.algorithm_params:
            parent = actor.state.parent
            lookback = ALGORITHMS[parent.algorithm].lookback
            if lookback is not None:
                history = await self._histories.candles(parent.home, parent.symbol, lookback)
        await actor.booked(_booking(actor, command, command_id, history))
        return None

    async def _refuse(self, fields: Mapping[str, Any], command_id: str, field: str, reason: str) -> None:
        """Answer a command that reaches no order. Sequence 0: the event belongs to no order's history."""
        named = fields.get("order_id") or fields.get("signal_id")
        signal_id = fields.get("signal_id")
        log.warning("command refused", type=fields.get("type"), named=named, field=field, reason=reason)
        self._metrics.command_refused()
        key = keys.order_key(f"command\0{command_id}")
        event = rejection(
            key,
            self._instance,
            order_id=named if isinstance(named, str) else "",
            signal_id=signal_id if isinstance(signal_id, str) else "",
            fields=fields,
            field=field,
            reason=f"command {str(fields.get('type'))[:64]} refused: {reason}",
            sequence=0,
        )
        await self._ledger.note(key, command_id, event)
        self._wake_outbox(self._ledger.shard_of(key))


def _booking(actor: OrderActor, command: OrderCommand, command_id: str, history: Sequence[Candle]) -> Booking:
    state = actor.state

    def book(now: int) -> None:
        if not state.commanded(command_id):
            actor.log.info("command seen before", command_id=command_id)
            return
        field: str | None = "order_id"
        match command:
            case CancelOrder():
                refusal = state.request_cancel(command.reason, now)
            case AmendOrder():
                answer = state.amend(command, now, partial(actor.replan, history=history))
                field, refusal = answer if answer is not None else (None, None)
            case PauseOrder() | ResumeOrder():
                refusal = state.pause(isinstance(command, PauseOrder), command.reason, now)
        if refusal is not None:
            state.answer(f"{command.type} refused: {refusal}", now, field)
        actor.log.info("command carried out", type=command.type, reason=command.reason, refusal=refusal)

    return book
