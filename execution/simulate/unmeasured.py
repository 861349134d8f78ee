"""Metrics of a run that nobody watches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from execution.metrics import Metrics


class _Nothing:
    """A metric, or a family of them, that keeps nothing."""

    def __call__(self, *labels: str) -> _Nothing:
        return self

    def inc(self, amount: float = 1) -> None: ...

    def set(self, value: float) -> None: ...

    def set_function(self, value: Callable[[], float]) -> None: ...

    def observe(self, value: float) -> None: ...


class Unmeasured(Metrics):
    """Takes what `Metrics` takes, and keeps nothing of it."""

    def _counter(self, name: str, text: str, *labels: str) -> Any:
        return _Nothing()

    def _gauge(self, name: str, text: str, *labels: str) -> Any:
        return _Nothing()

    def _histogram(self, name: str, text: str, *labels: str) -> Any:
        return _Nothing()
