"""What a subscriber of the order events hears during a run, and what follows from it alone: rates, ends, how late slices were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from execution.dev.watch import Watch
from execution.pubsub import IncomingMessage
from schemas.event import EventType, OrderEvent


@dataclass(frozen=True)
class Slice:
    """A slice of a schedule that traded: which one of how many, over how many ms, and when the venue executed it (ms)."""

    signal_id: str
    index: int
    count: int
    duration: int
    at: int

    def due(self, started: int) -> int:
        """Its time in the schedule, ms since the epoch, of an order that began then."""
        return started + self.index * self.duration // self.count


class Heard(Watch):
    """A watch of the events that also keeps when orders began and ended, and when their slices traded."""

    def __init__(self) -> None:
        super().__init__()
        self.accepted: dict[str, int] = {}
        """When an order was accepted, ms since the epoch, by signal id."""
        self.ended: dict[str, str] = {}
        """The last status of the orders that ended, by signal id."""
        self.newly_ended: list[str] = []
        """Signal ids; to be emptied by whoever acts on it."""
        self.schedules: dict[str, tuple[int, int]] = {}
        """Of the scheduled orders: into how many slices, over how many ms."""
        self.slices: list[Slice] = []
        self.first_fills: dict[str, int] = {}
        """When the venue executed an order for the first time, ms since the epoch."""
        self.children = 0
        self.writers: list[tuple[str, str, int]] | None = None
        """(signal id, replica, ms since the epoch) of each event's commit; None: not kept."""

    def handle(self, message: IncomingMessage) -> None:
        known = len(self.events)
        super().handle(message)
        if len(self.events) > known:
            self._take(self.recent[-1])

    def _take(self, event: OrderEvent) -> None:
        signal_id = event.signal_id
        if event.sequence <= 0:
            return
        if self.writers is not None:
            self.writers.append((signal_id, event.instance_id, event.timestamp))
        if event.event_type is EventType.ACCEPTED:
            self.accepted[signal_id] = event.timestamp
        elif event.event_type is EventType.PLACED:
            self.children += 1
        if event.status.terminal and signal_id not in self.ended:
            self.ended[signal_id] = event.status.value
            self.newly_ended.append(signal_id)
        child = event.child
        if isinstance(child, msgspec.UnsetType) or not child.fills:
            return
        at = child.fills[0].timestamp
        self.first_fills.setdefault(signal_id, at)
        schedule = self.schedules.get(signal_id)
        tag = child.tag or ""
        if schedule is not None and tag[:1] == "s" and tag[1:].isdigit():
            self.slices.append(Slice(signal_id, int(tag[1:]), *schedule, at))

    def lateness(self, since: int = 0, started: Mapping[str, int] | None = None) -> list[int]:
        """How late slices were, ms, in order of size: all but each order's first, whose time is its acceptance; from the `since`th
        slice on. `started`: when the orders' time began; by default when the accepted events were written, a moment later.
        """
        begins = self.accepted if started is None else started
        return sorted(
            one.at - one.due(begins[one.signal_id])
            for one in self.slices[since:]
            if one.index > 0 and one.signal_id in begins
        )


def quantile(ordered: Sequence[float], fraction: float) -> float:
    """A quantile of what is in order of size; not a number when there is nothing."""
    if not ordered:
        return float("nan")
    return float(ordered[min(int(fraction * len(ordered)), len(ordered) - 1)])
