"""The page of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from execution.simulate.compare import Row, Run


@dataclass(frozen=True, slots=True)
class Page:
    """What the page tells, beside the runs."""

    orders: str
    data: Sequence[str]
    model: Sequence[str]
    remarks: Sequence[str]
    contestants: Sequence[str]
    verdicts: Sequence[str]
    runs: Sequence[Run]
    rows: Sequence[Row]


def write_page(page: Page, path: Path) -> None:
    """Write the page as one file that loads nothing.

    Raises:
        OSError: the file cannot be written.
    """
    raise NotImplementedError
