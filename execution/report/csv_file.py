"""Cost reports as CSV: one row per order, plain numbers, empty where not known."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from schemas import exact_json
from schemas.tca import MARKOUT_HORIZONS, CostReport

_SERIES = ("schedule", "path", "fills")
_SPREAD_OUT = ("markouts", "latencies")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_csv(reports: Sequence[CostReport], path: Path) -> None:
    """Write every figure of every report; series for charts are left out. Costs are in bps, positive is cost.

    Raises:
        OSError: the file cannot be written.
    """
    fields = [name for name in CostReport.__struct_fields__ if name not in (*_SERIES, *_SPREAD_OUT)]
    timed = sorted({name for report in reports for name in report.latencies})
    columns = [
        *fields,
        *(f"markout_{seconds}s_bps" for seconds in MARKOUT_HORIZONS),
        *(f"{name}_{figure}_ms" for name in timed for figure in ("p50", "p95", "max")),
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for report in reports:
            row: list[Any] = [getattr(report, name) for name in fields]
            row += [report.markouts.get(seconds) for seconds in MARKOUT_HORIZONS]
            for name in timed:
                latency = report.latencies.get(name)
                row += [latency.p50, latency.p95, latency.max] if latency else [None, None, None]
            writer.writerow([_cell(value) for value in row])


def _cell(value: Any) -> str | int:
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return exact_json.plain(value)
    if isinstance(value, int):
        return value
    if isinstance(value, dict):
        return _text(" ".join(f"{key}={exact_json.plain(amount)}" for key, amount in sorted(value.items())))
    return _text(" ".join(map(str, value)) if isinstance(value, tuple) else str(value))


def _text(text: str) -> str:
    """Clients choose ids: one that begins like a formula must not become one in a spreadsheet."""
    return f"'{text}" if text.startswith(_FORMULA) else text
