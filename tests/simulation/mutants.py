"""Safeguards of the service, each switched off in turn: the simulation has to notice. What it does not notice, it does not test.

A mutant is applied to the running process; `python -m tests.simulation --mutants` runs each in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _set(owner: Any, name: str, value: Any) -> None:
    setattr(owner, name, value)


def epoch_check() -> None:
    """A commit is taken whatever the lease's owner and epoch."""
    from execution.ledger import ledger
    from execution.store import Script

    text = ledger._COMMIT.text
    changed = text.replace("if lease[1] ~= ARGV[2] or lease[2] ~= ARGV[3] or now >= tonumber(lease[3])", "if false", 1)
    assert changed != text
    ledger._COMMIT = Script.of("mutant", changed)


def version_check() -> None:
    """A commit is taken whatever the stored version."""
    from execution.ledger import ledger
    from execution.store import Script

    text = ledger._COMMIT.text
    changed = text.replace("if state[1] ~= ARGV[4] then", "if false then", 1)
    assert changed != text
    ledger._COMMIT = Script.of("mutant", changed)


def operation_id() -> None:
    """A repeated commit is taken for another one."""
    from execution.ledger import ledger
    from execution.store import Script

    text = ledger._COMMIT.text
    changed = text.replace("if state[2] == ARGV[1] then return {'OK', 'AGAIN'} end", "", 1)
    assert changed != text
    ledger._COMMIT = Script.of("mutant", changed)


def signal_dedupe() -> None:
    """A signal seen before becomes an order again."""
    from execution.ledger import ledger
    from execution.store import Script

    text = ledger._ACCEPT.text
    changed = text.replace("if known then", "if known and false then", 1)
    assert changed != text
    ledger._ACCEPT = Script.of("mutant", changed)


def early_acknowledge() -> None:
    """A message is acknowledged before it is durable."""
    from execution.intake import Intake

    handle = Intake.handle

    def early(self: Intake, message: Any) -> None:
        message.ack()
        handle(self, message)

    _set(Intake, "handle", early)


def blind_resend() -> None:
    """A create without an answer is sent again, as if it had not happened."""
    from execution.venue_requests import Requests

    async def again(self: Any, child: Any) -> None:
        self._absent(child, resend=True)

    _set(Requests, "_resolve", again)


def unknown_is_failed() -> None:
    """A create without an answer is written off at once."""
    from execution.venue_requests import Requests

    async def void(self: Any, child: Any) -> None:
        self._sends.void(child, "no answer")

    _set(Requests, "_resolve", void)


def expiry_wait() -> None:
    """ "Not found" is believed at once, before the request's expiry."""
    from execution import venue_requests

    venue_requests.EXPIRY_MARGIN_MS = -1_000_000
    venue_requests.AGREEING_READS = 1


def fill_dedupe() -> None:
    """A fill counts as often as it is told."""
    from execution.order_state import OrderState

    class Forgetful(set[Any]):
        def __contains__(self, item: object) -> bool:
            return False

    init = OrderState.__init__

    def forgetful(self: OrderState, *args: Any, **fields: Any) -> None:
        init(self, *args, **fields)
        self._booked = Forgetful()

    _set(OrderState, "__init__", forgetful)


def replace_before_end() -> None:
    """A cancelled child's quantity is given away before its end is certain, by the records as well as by the gate."""
    from execution.gates import WireGate
    from schemas.order import ChildOrder

    claim = ChildOrder.claim

    def early(self: ChildOrder) -> Any:
        return self.executed if self.cancel_requested else claim.fget(self)  # type: ignore[attr-defined]

    _set(ChildOrder, "claim", property(early))
    approve = WireGate.approve
    _set(WireGate, "approve", lambda self, key, _, child: approve(self, key, 10**9, child))


def takeover_asks_first() -> None:
    """Who takes an order over does not ask the venue for what was open."""
    from execution.order_actor import OrderActor

    def forgetful(self: OrderActor) -> None:
        self._markets.follow()
        self.post(None)

    _set(OrderActor, "resume", forgetful)


def cursor_before_publish() -> None:
    """The outbox moves on before its events are out."""
    from execution.outbox import Outbox

    async def lost(self: Any, messages: Any) -> None:
        import contextlib

        from execution.pubsub.errors import PubSubError

        with contextlib.suppress(PubSubError):
            await self._publisher.publish(self._topic, messages)

    _set(Outbox, "_publish", lost)


def lease_margin() -> None:
    """A replica relies on its lease for ever."""
    from execution.ledger import Lease

    _set(Lease, "valid", property(lambda _: True))


def reconciliation() -> None:
    """Venues are never asked what is open."""
    from execution.reconcile import Reconciler

    async def blind(self: Any, venue: str, *, full: bool) -> None:
        return None

    _set(Reconciler, "_look", blind)


def late_fills() -> None:
    """A fill after a child's end is not booked."""
    from execution.order_state import OrderState

    book = OrderState._book

    def deaf(self: OrderState, child: Any, told: Any, now: int) -> None:
        if not child.state.terminal:
            book(self, child, told, now)

    _set(OrderState, "_book", deaf)


def intent_before_send() -> None:
    """A request leaves before its intent is committed."""
    from execution.order_actor import OrderActor

    carry = OrderActor._carry

    def hasty(self: OrderActor, *args: Any) -> None:
        carry(self, *args)
        self._act()

    _set(OrderActor, "_carry", hasty)


def inherited_wait() -> None:
    """Who takes an order over does not wait until what its last owner sent can no longer be carried out."""
    from execution.ledger import Ledger

    acquire = Ledger.acquire

    async def at_once(self: Ledger, *args: Any, **fields: Any) -> Any:
        lease = await acquire(self, *args, **fields)
        if lease is not None:
            lease.quiet_from = 0.0
        return lease

    _set(Ledger, "acquire", at_once)


def _greedy() -> None:
    """Every algorithm places twice what it should."""
    import msgspec

    from execution import order_actor

    decide = order_actor.decide

    def twice(*args: Any) -> Any:
        decision = decide(*args)
        places = tuple(msgspec.structs.replace(place, quantity=2 * place.quantity) for place in decision.place)
        return msgspec.structs.replace(decision, place=places)

    order_actor.decide = twice


def overfill_gates() -> None:
    """Algorithms place too much, and neither the commit nor the gate before the wire counts."""
    from execution.gates import WireGate
    from execution.ledger import ledger
    from execution.store import Script

    _greedy()
    for name in ("_COMMIT", "_ACCEPT"):
        text = getattr(ledger, name).text
        changed = text.replace("return {'OVERFILL'", "if false then return {'OVERFILL'").replace(
            "quantity} end", "quantity} end end"
        )
        changed = changed.replace("ARGV[12]} end", "ARGV[12]} end end").replace(
            "{'OVERFILL'} end", "{'OVERFILL'} end end"
        )
        assert changed != text
        setattr(ledger, name, Script.of("mutant", changed))
    approve = WireGate.approve

    def blind(self: WireGate, key: str, _limit: Any, child: Any) -> Any:
        return approve(self, key, 10**9, child)

    _set(WireGate, "approve", blind)


def outbox_atomicity() -> None:
    """Events are written after the state they tell of, by a second command."""
    from execution.ledger import Ledger, ledger
    from execution.store import STORE_ERRORS, Script
    from schemas import exact_json

    text = ledger._COMMIT.text
    changed = text.replace("for i = at, at + events - 1 do redis.call('XADD', KEYS[3], '*', 'e', ARGV[i]) end", "", 1)
    assert changed != text
    ledger._COMMIT = Script.of("mutant", changed)
    commit = Ledger.commit

    async def later(self: Ledger, key: str, change: Any, lease: Any) -> None:
        await commit(self, key, change, lease)
        for event in change.events:
            try:
                await self._store.call("XADD", self.shards[lease.shard].outbox, "*", "e", exact_json.encode(event))
            except STORE_ERRORS:
                return

    _set(Ledger, "commit", later)


def last_look() -> None:
    """What was canceled, has expired or is not ours any more while it waited to be sent is sent all the same."""
    from execution.child_sends import Sends

    leaving, why_not = Sends._leaving, Sends.why_not

    def blind(self: Sends, child: Any) -> None:
        lease = self._actor.lease
        self._actor.lease = _Valid()  # type: ignore[assignment]
        _set(Sends, "why_not", lambda _, __: None)
        try:
            leaving(self, child)
        finally:
            self._actor.lease = lease
            _set(Sends, "why_not", why_not)

    _set(Sends, "_leaving", blind)


class _Valid:
    valid = True


def refresh_first() -> None:
    """Something new is decided before the venue has told how the open children stand."""
    from execution.venue_requests import Requests

    _set(Requests, "refreshing", property(lambda _: False))


def one_operation_id() -> None:
    """A commit is repeated under another operation id, and so counts twice."""
    from execution.ledger import Ledger

    async def again(self: Any, script: Any, touched: Any, arguments: Any, _lease: Any) -> Any:
        from execution.store import STORE_ERRORS

        while True:
            try:
                return await self._store.script(script, touched, arguments)
            except STORE_ERRORS:
                import asyncio

                arguments[0] = self._next_operation()
                await asyncio.sleep(0.1)

    _set(Ledger, "_repeat", again)


def journal() -> None:
    """Nobody writes again what a store has forgotten."""
    from execution.ledger import Ledger

    async def nothing(*_: Any) -> dict[Any, int]:
        return {}

    async def trusting(self: Any, _: Any) -> dict[Any, int]:
        self._whole.set()
        return {}

    from execution.leases import ShardLeases

    async def restore(self: Any) -> None:
        await self._ledger.restore({})

    _set(Ledger, "restore_shard", nothing)
    _set(Ledger, "restore", trusting)
    _set(ShardLeases, "_restore", restore)


def search_of_the_forgotten() -> None:
    """Who takes over from a store that may have forgotten believes it."""
    from execution.runner import Runner

    _set(Runner, "_search", lambda _, actor, doubted: setattr(actor.lease, "suspect", False))


def doubt() -> None:
    """What was published before the store was replaced is worked like anything else, if the ledger does not know it."""
    from execution.ledger import ledger
    from execution.store import Script

    text = ledger._LEASE.text
    changed = text.replace("doubted = (lease[1] or ARGV[7] == '') and now or tonumber(ARGV[7])", "doubted = 0", 1)
    assert changed != text
    ledger._LEASE = Script.of("mutant", changed)


def tenure() -> None:
    """Who held a shard last, as far as the store knows, takes it that nobody held it since."""
    from execution.ledger import Ledger

    _set(Ledger, "_lost_at", property(lambda _: 0.0, lambda *_: None))


def command_memory() -> None:
    """A command that comes again is carried out again."""
    from execution.order_state import OrderState

    _set(OrderState, "commanded", lambda *_: True)


def protecting_size() -> None:
    """An exit closes what was ordered, not what was filled."""
    import msgspec

    from execution import order_actor
    from execution.gates import WireGate
    from schemas.order import Role

    decide = order_actor.decide

    def whole(algorithm: Any, plan: Any, view: Any) -> Any:
        decision = decide(algorithm, plan, view)
        places = tuple(
            msgspec.structs.replace(place, quantity=view.order.quantity) if place.role is Role.EXIT else place
            for place in decision.place
        )
        return msgspec.structs.replace(decision, place=places)

    order_actor.decide = whole
    approve = WireGate.approve
    _set(WireGate, "approve", lambda self, key, _, child: approve(self, key, 10**9, child))


def cancel_lane() -> None:
    """At the venue's rate limit cancels wait behind orders, as these do behind each other."""
    from adapters.ccxt_venue.limiter import Lane, Limiter

    turn = Limiter.turn

    async def in_order(self: Limiter, weight: float, lane: Lane) -> None:
        await turn(self, weight, Lane.ORDER if lane is Lane.URGENT else lane)

    _set(Limiter, "turn", in_order)


def protect_lane() -> None:
    """At the venue's rate limit what closes a position waits behind what opens one."""
    from adapters.ccxt_venue.limiter import Lane, Limiter

    turn = Limiter.turn

    async def in_order(self: Limiter, weight: float, lane: Lane) -> None:
        await turn(self, weight, Lane.ORDER if lane is Lane.PROTECT else lane)

    _set(Limiter, "turn", in_order)


def acquire_check() -> None:
    """A shard is taken although its lease has not ended."""
    from execution.ledger import ledger
    from execution.store import Script

    text = ledger._LEASE.text
    changed = text.replace("now < ends or (", "(", 1)
    assert changed != text
    ledger._LEASE = Script.of("mutant", changed)


def renew_check() -> None:
    """A lease is renewed whoever holds it by now."""
    from execution.ledger import ledger
    from execution.store import Script

    text = ledger._LEASE.text
    changed = text.replace("if lease[1] ~= ARGV[2] or lease[2] ~= ARGV[3] then return", "if false then return", 1)
    changed = changed.replace("if ARGV[1] == 'renew' and now >= ends then return", "if false then return", 1)
    assert changed.count("if false") == 2
    ledger._LEASE = Script.of("mutant", changed)


def outbox_order() -> None:
    """Events are published in any order."""
    from execution.outbox import Outbox

    publish = Outbox._publish

    async def backwards(self: Any, messages: Any) -> None:
        await publish(self, messages[::-1])

    _set(Outbox, "_publish", backwards)


def projected() -> None:
    """The public keys are written by chance only."""
    import random

    from execution.projections import Projections

    apply = Projections.apply

    async def now_and_then(self: Any, *arguments: Any) -> None:
        if random.random() < 0.7:
            await apply(self, *arguments)

    _set(Projections, "apply", now_and_then)


def trade_cursor() -> None:
    """The public stream of trades takes each as often as it is offered."""
    from execution.ledger import outbox
    from execution.store import Script

    text = outbox._TRADES.text
    changed = text.replace("if ARGV[at] > cursor then", "if true then", 1)
    assert changed != text
    outbox._TRADES = Script.of("mutant", changed)


def dead_man() -> None:
    """The dead man's switch never trips."""
    from execution.ledger.pulses import PulseStore

    async def never(*_: Any) -> bool:
        return False

    _set(PulseStore, "trip", never)


def dead_man_doubts() -> None:
    """It trips however little could be heard of the strategy."""
    from execution.dead_man import DeadMan
    from execution.pulses import Pulses

    async def sure(_: Any) -> bool:
        return True

    _set(DeadMan, "_could_hear", sure)
    _set(Pulses, "restart", lambda *_: None)


def pause() -> None:
    """A paused order is worked on."""
    import copy

    from execution.child_sends import Sends
    from execution.order_actor import OrderActor

    view, why_not = OrderActor._view, Sends.why_not

    def going(self: OrderActor, now: int) -> Any:
        import msgspec

        seen = view(self, now)
        order = copy.copy(seen.order)
        order.paused = False
        return msgspec.structs.replace(seen, order=order)

    _set(OrderActor, "_view", going)
    _set(Sends, "why_not", lambda self, child: None if (why := why_not(self, child)) == _PAUSED else why)


_PAUSED = "paused before it was sent"


def end_of_time() -> None:
    """An order is worked on after its time has run out."""
    import copy

    import msgspec

    from execution.child_sends import Sends
    from execution.order_actor import OrderActor

    view, why_not = OrderActor._view, Sends.why_not

    def going(self: OrderActor, now: int) -> Any:
        seen = view(self, now)
        order = copy.copy(seen.order)
        order.expires_at = None
        return msgspec.structs.replace(seen, order=order)

    _set(OrderActor, "_view", going)
    _set(Sends, "why_not", lambda self, child: None if (why := why_not(self, child)) == _LATE else why)


_LATE = "its time ran out before it was sent"


def adoption() -> None:
    """What a venue has of an order, and the ledger has lost, is not taken up."""
    from execution.order_actor import OrderActor

    async def never(*_: Any) -> None:
        return None

    _set(OrderActor, "adopt", never)


def orphans() -> None:
    """What carries ids of ours and belongs to nobody is left at the venue."""
    from execution.reconcile.open_orders import OpenOrders

    init = OpenOrders.__init__

    def lenient(self: OpenOrders, *arguments: Any, cancel_unknown: bool) -> None:
        init(self, *arguments, cancel_unknown=False)

    _set(OpenOrders, "__init__", lenient)


def commit_shield() -> None:
    """Who is cancelled takes a write under way with it, and does not know what became of it."""
    from execution.ledger import Ledger

    async def bare(self: Any, *arguments: Any) -> Any:
        return await self._repeat(*arguments)

    _set(Ledger, "_certainly", bare)


def quiesce() -> None:
    """Who hands a shard over neither finishes what is under way nor stops deciding."""
    from execution.order_actor import OrderActor

    async def at_once(self: OrderActor, _: float) -> None:
        return None

    _set(OrderActor, "quiesce", at_once)
    _set(OrderActor, "drop", lambda _: None)


MUTANTS: dict[str, Callable[[], None]] = {
    mutant.__name__: mutant
    for mutant in (
        epoch_check,
        version_check,
        operation_id,
        signal_dedupe,
        early_acknowledge,
        blind_resend,
        unknown_is_failed,
        expiry_wait,
        fill_dedupe,
        replace_before_end,
        takeover_asks_first,
        cursor_before_publish,
        lease_margin,
        reconciliation,
        late_fills,
        intent_before_send,
        inherited_wait,
        overfill_gates,
        outbox_atomicity,
        last_look,
        refresh_first,
        one_operation_id,
        journal,
        search_of_the_forgotten,
        command_memory,
        protecting_size,
        cancel_lane,
        protect_lane,
        acquire_check,
        renew_check,
        outbox_order,
        projected,
        trade_cursor,
        dead_man,
        dead_man_doubts,
        pause,
        end_of_time,
        adoption,
        orphans,
        doubt,
        tenure,
        commit_shield,
        quiesce,
    )
}
