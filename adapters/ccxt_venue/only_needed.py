"""ccxt, imported exchange by exchange.

`import ccxt.pro` reads more than three hundred modules, one of each exchange for each of three interfaces, and takes seconds: seconds during which
a replica that restarts works no order. Here the packages `ccxt`, `ccxt.async_support` and `ccxt.pro` are put in place empty, and load a name when it is
first asked for. ccxt's code is run as it is. Where ccxt has been imported already, it is used so.

This room must be imported before ccxt is.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

_SHARED = ("ccxt.base.errors", "ccxt.base.decimal_to_precision")
"""Whose names ccxt's packages also show as their own."""


class _OnDemand(ModuleType):
    """A package that imports what it is asked for."""

    exchange_module = ""

    def __getattr__(self, name: str) -> Any:
        if name == "__version__":
            return importlib.metadata.version("ccxt")
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "exchanges":
            return exchanges()
        value = self._shared(name)
        if value is None:
            try:
                module = importlib.import_module(f"{self.__name__}.{name}")
            except ModuleNotFoundError:
                raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}") from None
            value = getattr(module, name, module)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        """An exchange's name means its class, also after an import has put its module here."""
        if isinstance(value, ModuleType) and value.__name__ == f"{self.__name__}.{name}":
            value = getattr(value, name, value)
        super().__setattr__(name, value)

    def _shared(self, name: str) -> Any:
        if name == "Exchange":
            return importlib.import_module(self.exchange_module).Exchange
        return next((found for room in _SHARED if (found := getattr(importlib.import_module(room), name, None))), None)


def exchanges() -> list[str]:
    """The ids of the exchanges that ccxt.pro knows."""
    folder = Path(next(iter(sys.modules["ccxt.pro"].__path__)))
    return sorted(file.stem for file in folder.glob("*.py") if file.stem != "__init__")


def _install() -> None:
    spec = importlib.util.find_spec("ccxt")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    root = Path(next(iter(spec.submodule_search_locations)))
    for name, module_of_exchange in (
        ("ccxt", "ccxt.base.exchange"),
        ("ccxt.async_support", "ccxt.async_support.base.exchange"),
        ("ccxt.pro", "ccxt.async_support.base.exchange"),
    ):
        package = _OnDemand(name)
        folder = root.joinpath(*name.split(".")[1:])
        package.__path__ = [str(folder)]
        package.__package__ = name
        package.__spec__ = importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        package.exchange_module = module_of_exchange
        sys.modules[name] = package
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, package)


if "ccxt" not in sys.modules:
    _install()
else:
    importlib.import_module("ccxt.pro")
