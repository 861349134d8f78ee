"""An event loop whose time passes only when nothing is left to do: hours of waiting take no time, in an order that repeats."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Stuck(RuntimeError):
    """Everything waits for something that nothing will ever bring."""


class _Selector(selectors.SelectSelector):
    """Instead of waiting, it tells how long it would have waited."""

    def __init__(self, passed: Callable[[float], None]) -> None:
        super().__init__()
        self._passed = passed

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            found = super().select(0)
            if not found:
                raise Stuck("nothing is scheduled and nothing is ready")
            return found
        if timeout > 0:
            self._passed(timeout)
        return ()


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its time begins at 0 and is in seconds. No threads and no network: what comes from outside would come at any time."""

    def __init__(self) -> None:
        self._virtual = 0.0
        super().__init__(_Selector(self._advance))
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._virtual

    def _advance(self, seconds: float) -> None:
        self._virtual += seconds


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a loop of virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
