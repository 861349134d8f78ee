"""JSON Schema of everything that crosses a process boundary: `python -m schemas.export [DIRECTORY]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from schemas.command import COMMANDS
from schemas.event import OrderEvent
from schemas.order import ChildOrder, Fill, ParentOrder
from schemas.signal import Signal


def schemas() -> dict[str, dict[str, Any]]:
    """Every schema by name (JSON Schema 2020-12)."""
    return {
        "signal": Signal.model_json_schema(),
        "command": COMMANDS.json_schema(),
        "order-event": msgspec.json.schema(OrderEvent),
        "parent-order": msgspec.json.schema(ParentOrder),
        "child-order": msgspec.json.schema(ChildOrder),
        "fill": msgspec.json.schema(Fill),
    }


def write(directory: Path) -> list[Path]:
    """Write each schema to `NAME.schema.json` in the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, schema in schemas().items():
        path = directory / f"{name}.schema.json"
        path.write_text(
            json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2) + "\n"
        )
        paths.append(path)
    return paths


if __name__ == "__main__":
    if len(sys.argv) > 1:
        for written in write(Path(sys.argv[1])):
            sys.stdout.write(f"{written}\n")
    else:
        sys.stdout.write(json.dumps(schemas(), indent=2) + "\n")
