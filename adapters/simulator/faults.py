"""What can be made to go wrong at the venue, to order."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Literal

import msgspec

Kind = Literal[
    "lose_answer",
    "lose_request",
    "latency",
    "http_error",
    "broken_body",
    "rate_limit",
    "reject",
    "stale_reads",
    "drop_streams",
    "stall_streams",
    "duplicate_event",
    "drop_event",
    "delay_event",
    "reorder_event",
]


class Fault(msgspec.Struct, kw_only=True):
    """One fault, for the next `count` requests (None: until cleared) that match.

    Kinds: `lose_answer` (the request is carried out, the connection closed, or held for `seconds`), `lose_request` (the same without
    carrying it out), `latency` (`seconds` and up to `jitter` more, before or after), `http_error` (`status` with `code` and `message`, or
    `body`; before or after carrying it out), `broken_body` (carried out, 200 with `body`), `rate_limit` (429 or 418 in `status`, with
    Retry-After `seconds`), `reject` (`code` and `message`), `stale_reads` (for `seconds`, order lookups know nothing newer than its start),
    `drop_streams`, `stall_streams` (for `seconds`), and on events of the user data stream `duplicate_event`, `drop_event`, `delay_event` (by
    `seconds`), `reorder_event` (held until the next one has gone).
    """

    kind: Kind
    id: str = ""
    count: int | None = 1
    probability: float = 1.0
    method: str | None = None
    path: str | None = None
    symbol: str | None = None
    client_order_id: str | None = None
    when: Literal["before", "after"] = "before"
    seconds: float = 0.0
    jitter: float = 0.0
    status: int = 500
    code: int = -1000
    message: str = "An unknown error occurred while processing the request."
    body: str | None = None


REQUEST_KINDS = frozenset(
    {"lose_answer", "lose_request", "latency", "http_error", "broken_body", "rate_limit", "reject"}
)
EVENT_KINDS = frozenset({"duplicate_event", "drop_event", "delay_event", "reorder_event"})


class Faults:
    """The faults now ordered."""

    def __init__(self, seed: int = 1) -> None:
        self._active: list[Fault] = []
        self._random = random.Random(seed)
        self._ids = itertools.count(1)

    @property
    def active(self) -> list[Fault]:
        return list(self._active)

    def order(self, fault: Fault) -> Fault:
        fault.id = fault.id or f"f{next(self._ids)}"
        self._active.append(fault)
        return fault

    def clear(self, fault_id: str | None = None) -> None:
        self._active = [fault for fault in self._active if fault_id is not None and fault.id != fault_id]

    def for_request(self, method: str, path: str, parameters: dict[str, str]) -> list[Fault]:
        """The faults that this request meets; each is used up once."""
        if not self._active:
            return []
        client_id = parameters.get("newClientOrderId") or parameters.get("origClientOrderId")
        return self._use(
            lambda fault: (
                fault.kind in REQUEST_KINDS
                and fault.method in (None, method)
                and fault.path in (None, path)
                and fault.symbol in (None, parameters.get("symbol"))
                and fault.client_order_id in (None, client_id)
            )
        )

    def for_event(self, symbol: str, client_order_id: str) -> list[Fault]:
        """The faults that this event of a user data stream meets."""
        if not self._active:
            return []
        return self._use(
            lambda fault: (
                fault.kind in EVENT_KINDS
                and fault.symbol in (None, symbol)
                and fault.client_order_id in (None, client_order_id)
            )
        )

    def delay(self, fault: Fault) -> float:
        """How long a fault takes, in seconds."""
        return fault.seconds + self._random.random() * fault.jitter

    def _use(self, matches: Callable[[Fault], bool]) -> list[Fault]:
        met = []
        for fault in list(self._active):
            if matches(fault) and (fault.probability >= 1 or self._random.random() < fault.probability):
                met.append(fault)
                if fault.count is not None:
                    fault.count -= 1
                    if fault.count <= 0:
                        self._active.remove(fault)
        return met
