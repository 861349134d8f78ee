"""Algorithms: what to place, amend and cancel, decided from records alone. Imports schemas only.

Every module here that holds a subclass of `Algorithm` with a name adds an algorithm: a new one is one file, and nothing else
changes. Packages outside add theirs by an entry point of the group `execution.algorithms` that names the class.
"""

from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import Any

from algorithms.base import Algorithm


def _found() -> dict[str, Algorithm[Any, Any]]:
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    for entry in entry_points(group="execution.algorithms"):
        entry.load()
    algorithms: dict[str, Algorithm[Any, Any]] = {}
    waiting = list(Algorithm.__subclasses__())
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        name = kind.__dict__.get("name")
        if name is None:
            continue
        if name in algorithms:
            raise ValueError(f"two algorithms are called {name}: {type(algorithms[name]).__name__} and {kind.__name__}")
        algorithms[name] = kind()
    return dict(sorted(algorithms.items()))


ALGORITHMS: dict[str, Algorithm[Any, Any]] = _found()
"""Every algorithm by the name a signal uses."""
