"""Pieces of HTML: figures, tables, legends. Every text that comes from outside is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from html import escape

import msgspec

from execution.report.svg import number
from execution.tca.tracking import significant
from schemas import exact_json

Number = Decimal | float | int
MISSING = "–"


class Cell(msgspec.Struct, frozen=True):
    """One cell of a table: its HTML, and what it is sorted by. `text` cells stand at the left."""

    html: str
    value: str = ""
    text: bool = False


def text(value: str) -> Cell:
    return Cell(f'<span title="{escape(value)}">{escape(value)}</span>', escape(value), text=True)


def bps(value: Number | None, places: int = 2) -> Cell:
    return Cell(cost(value, places), "" if value is None else f"{value:f}")


def count(value: int) -> Cell:
    return Cell(f"{value:,}", str(value))


def percent(value: Number | None, places: int = 0) -> Cell:
    return Cell(MISSING if value is None else f"{value:.{places}%}", "" if value is None else f"{value:f}")


def moment(at: int) -> Cell:
    return Cell(clock(at), str(at))


def amount(value: Decimal | None, unit: str = "") -> Cell:
    """A large sum, rounded for reading."""
    if value is None:
        return Cell(MISSING)
    places = 0 if abs(value) >= 1000 else 2
    return Cell(escape(f"{value:,.{places}f} {unit}".strip()), f"{value:f}")


def cost(value: Number | None, places: int = 2) -> str:
    """bps with their sign, in the colour of a cost or of a gain; a dash when not known."""
    if value is None:
        return MISSING
    shown = number(float(value), places, signed=True)
    style = "up" if shown.startswith("+") else "down" if shown.startswith("−") else ""
    return f'<span class="{style}">{shown}</span>'


def exact(value: Decimal | None) -> str:
    return MISSING if value is None else exact_json.plain(value)


def price(value: Decimal | None) -> str:
    """An average price, to ten digits."""
    return exact(None if value is None else significant(value, 10))


def clock(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def duration(ms: int) -> str:
    seconds = ms / 1000
    if seconds < 10:
        return f"{ms:,} ms"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"


def table(
    heads: Sequence[str], rows: Iterable[tuple[Sequence[Cell], str]], *, texts: int = 1, sortable: bool = False
) -> str:
    """A table whose first `texts` columns are words; each row comes with its class."""
    head = "".join(f'<th class="t">{name}</th>' if i < texts else f"<th>{name}</th>" for i, name in enumerate(heads))
    lines = []
    for cells, style in rows:
        inside = "".join(_td(cell, sortable) for cell in cells)
        lines.append(f'<tr class="{style}">{inside}</tr>' if style else f"<tr>{inside}</tr>")
    kind = ' class="sort"' if sortable else ""
    return (
        f'<div class="scroll"><table{kind}><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    )


def _td(cell: Cell, sortable: bool) -> str:
    style = ' class="t"' if cell.text else ""
    value = f' data-v="{cell.value}"' if sortable else ""
    return f"<td{style}{value}>{cell.html}</td>"


def tile(name: str, figure: str, under: str = "") -> str:
    return (
        f'<div class="card tile"><div class="name">{name}</div><div class="figure">{figure}</div>'
        f'<div class="under">{under}</div></div>'
    )


def card(title: str, inside: str, *, note: str = "", style: str = "") -> str:
    told = f'<p class="soft small">{note}</p>' if note else ""
    return f'<section class="card {style}"><h3>{title}</h3>{told}{inside}</section>'


def key(*entries: tuple[str, str]) -> str:
    """A legend: (mark, meaning)."""
    return '<p class="key">' + "".join(f'<i class="k-{mark}"></i>{meaning}' for mark, meaning in entries) + "</p>"
