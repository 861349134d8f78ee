"""The pulses of strategies and other sources in Redis: who beats, how often, and what tripped. Any replica may write it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import structlog

from execution.ledger import keys
from execution.store import Script, Store

log = structlog.get_logger(__name__)

_PULSE = Script.load(Path(__file__).parent / "scripts" / "pulse.lua")

PULSES = "execution:pulses"
WAKE = "pulses"
"""What is published on the wake channel when a pulse trips or is resumed."""


class Trip(msgspec.Struct, frozen=True, kw_only=True):
    """Why a pulse tripped. Times in ms."""

    at: int
    """Since the epoch, by the clock of the replica that tripped it."""
    by: str
    """The replica."""
    silent_ms: int
    """How long that replica had heard no beat."""
    timeout_ms: int


UNREADABLE = Trip(at=0, by="", silent_ms=0, timeout_ms=0)
"""Stands for a trip that cannot be read: it halts all the same."""


class StoredPulse(msgspec.Struct, kw_only=True):
    """A pulse as the store has it."""

    beats: int = 0
    timeout_ms: int = 0
    last_ms: int = 0
    """Of the last beat, ms since the epoch, by the store's clock: for people to read; nothing is decided by it."""
    generation: int = 0
    """Grows with each trip and each resume."""
    trip: Trip | None = None
    """While it stands."""
    told: int = 0
    """The generation of the trip whose event is in an outbox."""


class Fellow(msgspec.Struct, kw_only=True):
    """Another replica, by its heartbeat."""

    timestamp: int = 0
    """Of the heartbeat, ms since the epoch, by the store's clock."""
    age: float = float("inf")
    """Seconds since, by the same clock."""
    pulses: list[str] = msgspec.field(default_factory=list)
    """Those that its live orders depend on."""


class PulseStore:
    """Pulses by name; see `pulse_name`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def all(self) -> dict[str, StoredPulse]:
        """Every pulse known.

        Raises:
            StoreUnavailable, StoreRefused
        """
        return parse(await self._store.call("HGETALL", PULSES))

    async def beat(self, name: str, timeout_ms: int) -> int:
        """Count a beat; returns how many there were."""
        return int(await self._run("beat", name, timeout_ms))

    async def trip(self, name: str, beats: int, trip: Trip) -> bool:
        """Trip it, unless it is tripped already or another beat has come; True: by this call."""
        return bool(await self._run("trip", name, beats, msgspec.json.encode(trip)) == b"OK")

    async def restore(self, name: str, generation: int, trip: Trip) -> None:
        """Write a trip again that a restart of the store lost; a later resume stands."""
        await self._run("restore", name, generation, msgspec.json.encode(trip))

    async def resume(self, name: str) -> bool:
        """End a trip; False: none stands."""
        return bool(await self._run("resume", name) == b"OK")

    async def told(self, name: str, generation: int) -> None:
        """The event of a trip is in an outbox."""
        await self._run("told", name, generation)

    async def prune(self, name: str, beats: int) -> None:
        """Forget a pulse that has long been silent."""
        await self._run("prune", name, beats)

    async def fellows(self, instance: str) -> list[Fellow]:
        """The replicas that count as alive, but for one.

        Raises:
            StoreUnavailable, StoreRefused
        """
        found = []
        for name in await self._store.call("ZRANGE", keys.REPLICAS, 0, -1):
            if name.decode() == instance:
                continue
            try:
                fellow = msgspec.json.decode(
                    await self._store.call("GET", keys.heartbeat(name.decode())) or b"{}", type=Fellow
                )
            except msgspec.DecodeError:
                fellow = Fellow()
            if fellow.timestamp:
                fellow.age = (await self._store.server_time_ms() - fellow.timestamp) / 1000
            found.append(fellow)
        return found

    async def _run(self, *arguments: str | bytes | int) -> Any:
        return await self._store.script(_PULSE, [PULSES], arguments)


def pulse_name(strategy_id: str | None, source: str | None) -> str:
    """The name of a strategy's pulse, or of a source's that stands for all orders."""
    return f"strategy:{strategy_id}" if strategy_id is not None else f"source:{source}"


def parse(flat: Any) -> dict[str, StoredPulse]:
    """Pulses from their hash, as `HGETALL` gives it. Fields that cannot be read are left out."""
    pairs: Mapping[bytes, bytes] = flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))
    found: dict[str, StoredPulse] = {}
    for field, value in pairs.items():
        kind, _, name = field.decode(errors="replace").partition(":")
        pulse = found.setdefault(name, StoredPulse())
        try:
            if kind == "x":
                pulse.trip = UNREADABLE
                pulse.trip = msgspec.json.decode(value, type=Trip)
            elif kind in _NUMBERS:
                setattr(pulse, _NUMBERS[kind], int(value))
        except ValueError as error:
            log.error("a pulse in the store is not readable", field=f"{kind}:{name}", error=str(error))
    return found


_NUMBERS = {"b": "beats", "t": "timeout_ms", "l": "last_ms", "g": "generation", "o": "told"}
