"""What this replica knows of the pulses that orders depend on. No I/O, and no clock but the one it is given.

A pulse's age is counted by our own monotonic clock, from when we saw its count of beats grow: nobody else's clock decides anything,
and what we could not have seen does not count, since every clock starts again after a stall, a reconnect or a start of ours.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from execution.ledger.pulses import StoredPulse, Trip

STRATEGY = "strategy:"
FORGOTTEN_SECONDS = 7 * 86400.0
"""A pulse that is silent for so long, and that nothing depends on, is forgotten."""


@dataclass(slots=True)
class Pulse:
    """One pulse. Times are monotonic seconds."""

    name: str
    beats: int
    timeout: float
    counted_from: float
    """The last beat, or the last time that its clock started again."""
    heard_at: float
    generation: int = 0
    trip: Trip | None = None
    told: bool = True
    """Whether the event of its trip is in an outbox."""
    idle: bool = False
    """Whether it fell silent while no order depended on it."""
    suspected_at: float | None = None
    """When it was first found overdue; None: it is not."""

    @property
    def strategy_id(self) -> str | None:
        """The strategy it is of; None: of a source that stands for all orders."""
        return self.name.removeprefix(STRATEGY) if self.name.startswith(STRATEGY) else None

    @property
    def described(self) -> str:
        kind, _, who = self.name.partition(":")
        return f"{kind} {who}"

    def why(self) -> str:
        """Why it stands still, in words."""
        assert self.trip is not None
        return (
            f"halted by the dead man's switch: {self.described} was silent for {self.trip.silent_ms / 1000:g} s "
            f"(timeout {self.trip.timeout_ms / 1000:g} s); a resume command ends it"
        )


class Pulses:
    """All pulses by name."""

    def __init__(self, default_timeout: float = 30.0) -> None:
        """`default_timeout` in seconds, for pulses that came without one, as those beaten in the store itself do."""
        self._default_timeout = default_timeout
        self._pulses: dict[str, Pulse] = {}
        self._tripped: dict[str, Pulse] = {}

    @property
    def armed(self) -> int:
        return len(self._pulses)

    @property
    def tripped(self) -> Collection[Pulse]:
        return self._tripped.values()

    @property
    def standing(self) -> list[Pulse]:
        """Those that have not tripped."""
        return [pulse for pulse in self._pulses.values() if pulse.trip is None]

    def heard(self, stored: Mapping[str, StoredPulse], now: float) -> tuple[list[Pulse], list[Pulse]]:
        """Take in what the store has; returns those whose halt began or ended, and those whose trip the store has lost."""
        changed, lost = [], []
        for name, told in stored.items():
            pulse = self._pulses.get(name)
            if not told.beats and told.trip is None and (pulse is None or pulse.generation <= told.generation):
                self._pulses.pop(name, None)  # forgotten: only its generation is kept
                continue
            if pulse is None:
                pulse = self._pulses[name] = Pulse(name, told.beats, self._default_timeout, now, now)
            if told.beats != pulse.beats:
                pulse.beats, pulse.counted_from, pulse.heard_at = told.beats, now, now
                pulse.idle, pulse.suspected_at = False, None
            if told.timeout_ms:
                pulse.timeout = told.timeout_ms / 1000
            if pulse.trip is not None and told.generation < pulse.generation:
                lost.append(pulse)
                continue
            if (told.trip is None) is not (pulse.trip is None):
                changed.append(pulse)
                pulse.counted_from, pulse.suspected_at = now, None
            pulse.trip, pulse.generation = told.trip, told.generation
            pulse.told = told.trip is None or told.told == told.generation
        for name in self._pulses.keys() - stored.keys():
            if self._pulses[name].trip is not None:
                lost.append(self._pulses[name])
            else:
                del self._pulses[name]  # the store lost it; the next beat arms it again
        self._tripped = {name: pulse for name, pulse in self._pulses.items() if pulse.trip is not None}
        return changed, lost

    def restart(self, now: float) -> None:
        """Start every clock again: what came meanwhile may have passed us by."""
        for pulse in self._pulses.values():
            pulse.counted_from, pulse.suspected_at = now, None

    def overdue(self, now: float, *, part: float = 1.0, more: float = 0.0) -> list[Pulse]:
        """Those silent for longer than `part` of their timeout, and `more` seconds."""
        return [
            pulse
            for pulse in self._pulses.values()
            if pulse.trip is None and now - pulse.counted_from > pulse.timeout * part + more
        ]

    def confirmed(self, pulse: Pulse, now: float, seconds: float) -> bool:
        """Whether an overdue pulse has been found so for some seconds: what was on its way would have come meanwhile."""
        if pulse.suspected_at is None:
            pulse.suspected_at = now
        return now - pulse.suspected_at >= seconds

    def trips(self, pulse: Pulse, depends: bool, now: float) -> bool:
        """Whether an overdue pulse is to trip: not while no order depends on it, and where one came later, a timeout from then."""
        if depends and pulse.idle:
            pulse.counted_from, pulse.idle, pulse.suspected_at = now, False, None
            return False
        pulse.idle = not depends
        return depends

    def forgotten(self, now: float) -> list[Pulse]:
        """Those that were silent for so long that they may be forgotten."""
        return [pulse for pulse in self.overdue(now) if now - pulse.heard_at > FORGOTTEN_SECONDS]

    def halted(self, strategy_id: str | None) -> str | None:
        """Why nothing of a strategy may trade; None: it may."""
        if not self._tripped:
            return None
        for name, pulse in self._tripped.items():
            if not name.startswith(STRATEGY) or pulse.strategy_id == strategy_id:
                return pulse.why()
        return None
