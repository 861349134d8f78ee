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
        self._void(child, "no answer")

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
    """A cancelled child's quantity is given away before its end is certain."""
    from schemas.order import ChildOrder

    claim = ChildOrder.claim

    def early(self: ChildOrder) -> Any:
        return self.executed if self.cancel_requested else claim.fget(self)  # type: ignore[attr-defined]

    _set(ChildOrder, "claim", property(early))


def takeover_asks_first() -> None:
    """Who takes an order over does not ask the venue for what was open."""
    from execution.order_actor import OrderActor

    def forgetful(self: OrderActor) -> None:
        self._follow_markets()
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
    )
}
