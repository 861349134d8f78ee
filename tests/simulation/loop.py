"""An event loop of virtual time on which several replicas live, and on which one can die or freeze between any two steps.

Every callback belongs to the replica in whose context it was scheduled. A dead replica's callbacks are dropped: nothing of it
runs any more, not even its `finally` blocks, as after SIGKILL. A frozen one's are kept until it thaws, as after SIGSTOP.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from execution.simulate.virtual_time import VirtualLoop

REPLICA: contextvars.ContextVar[str] = contextvars.ContextVar("replica", default="")


@dataclass(slots=True)
class _Call:
    """One callback of a replica."""

    owner: str
    callback: Callable[..., Any]
    args: tuple[Any, ...]
    context: contextvars.Context
    handle: asyncio.Handle | None = None


class SimLoop(VirtualLoop):
    def __init__(self) -> None:
        super().__init__()
        self._dead: set[str] = set()
        self._frozen: dict[str, list[_Call]] = {}
        self._countdown: dict[str, tuple[int, Callable[[], None]]] = {}
        self.steps = 0
        """Callbacks run so far, of all replicas."""

    # --- fates --------------------------------------------------------------------------------------------------------

    def kill(self, replica: str) -> None:
        """Nothing of a replica runs any more."""
        self._dead.add(replica)
        self._frozen.pop(replica, None)
        self._countdown.pop(replica, None)

    def freeze(self, replica: str) -> None:
        """Nothing of a replica runs until it thaws."""
        if replica not in self._dead:
            self._frozen.setdefault(replica, [])

    def thaw(self, replica: str) -> None:
        """A frozen replica goes on, and does not know that time has passed."""
        for call in self._frozen.pop(replica, []):
            super().call_soon(self._guarded, call, context=call.context)

    def after(self, replica: str, steps: int, fate: Callable[[], None]) -> None:
        """Let something befall a replica after so many more of its callbacks: between any two of its awaits."""
        self._countdown[replica] = (steps, fate)

    # --- scheduling ---------------------------------------------------------------------------------------------------

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> asyncio.Handle:
        context = contextvars.copy_context() if context is None else context
        owner = context.get(REPLICA, "")
        if not owner:
            return super().call_soon(callback, *args, context=context)
        call = _Call(owner, callback, args, context)
        call.handle = super().call_soon(self._guarded, call, context=context)
        return call.handle

    def call_at(
        self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        context = contextvars.copy_context() if context is None else context
        owner = context.get(REPLICA, "")
        if not owner:
            return super().call_at(when, callback, *args, context=context)
        call = _Call(owner, callback, args, context)
        call.handle = handle = super().call_at(when, self._guarded, call, context=context)
        return handle

    def _guarded(self, call: _Call) -> None:
        owner = call.owner
        if owner in self._dead or (call.handle is not None and call.handle.cancelled()):
            return None
        if owner in self._frozen:
            self._frozen[owner].append(call)
            return None
        self.steps += 1
        waiting = self._countdown.get(owner)
        if waiting is not None:
            left, fate = waiting
            if left <= 0:
                del self._countdown[owner]
                fate()
                return self._guarded(call)
            self._countdown[owner] = (left - 1, fate)
        call.callback(*call.args)
        return None
