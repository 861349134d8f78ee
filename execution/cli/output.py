"""What the commands print: results on stdout, everything else on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas import exact_json

# What is piped elsewhere is never cut or folded to a width that nobody looks at.
out = Console(soft_wrap=True, highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 2000)
err = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)

_STATUS_STYLE = {
    "filled": "green",
    "partially_filled": "cyan",
    "working": "cyan",
    "canceled": "yellow",
    "expired": "yellow",
    "rejected": "red",
    "failed": "red",
}


class CommandError(Exception):
    """A command cannot go on: one clear line for the person at the terminal. Exit code 1: failure, 2: usage or settings."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def note(text: str) -> None:
    """A remark beside the result."""
    err.print(text, style="dim")


def json_document(value: Any) -> None:
    """One JSON document; numbers with all of their digits."""
    print_plain(exact_json.encode(value).decode())


def print_plain(text: str) -> None:
    """A line exactly as it is, for programs."""
    out.file.write(text + "\n")
    out.file.flush()


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, title: str | None = None) -> None:
    """A table; on a terminal fitted to its width, otherwise wide enough for its longest values."""
    shown = Table(*columns, title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for row in rows:
        shown.add_row(*row)
    out.print(shown, soft_wrap=False)


def status(value: str) -> Text:
    """A status in its colour."""
    return Text(value, style=_STATUS_STYLE.get(value, ""))


def number(value: Decimal | int | None) -> str:
    """A number in plain digits; nothing for None."""
    return "" if value is None else exact_json.plain(Decimal(value))


def clock(timestamp: int, *, day: bool = False) -> str:
    """Milliseconds since the epoch as local time."""
    local = datetime.fromtimestamp(timestamp / 1000).astimezone()
    return local.strftime("%Y-%m-%d %H:%M:%S" if day else "%H:%M:%S.") + ("" if day else f"{timestamp % 1000:03d}")


def event_line(event: Mapping[str, Any]) -> Text:
    """One order event on one line."""
    line = Text(f"{clock(int(event.get('timestamp') or 0))} ")
    line.append(f"{event.get('event_type', '?'):<22} ", style=_STATUS_STYLE.get(str(event.get("status")), ""))
    line.append(str(event.get("order_id") or ""), style="bold")
    words = [str(event[name]) for name in ("signal_id", "strategy_id", "exchange", "symbol", "side") if event.get(name)]
    if event.get("quantity") is not None:
        words.append(f"{number(event.get('filled_quantity'))}/{number(event['quantity'])}")
    if event.get("average_price") is not None:
        words.append(f"@ {number(event['average_price'])}")
    if event.get("reason"):
        words.append(f"({event['reason']})")
    return line.append(" " + " ".join(words))
