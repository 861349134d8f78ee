"""One part of a recording: its layout, its symbol, and its rows as records in the order of time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import msgspec

from adapters.recorded.events import Book
from adapters.recorded.read.depth import DepthMessages, message_symbol
from adapters.recorded.read.errors import RecordingError
from adapters.recorded.read.files import Part
from adapters.recorded.read.layouts import Kind, Layout, Record, recognise
from adapters.recorded.read.ordering import ReadReport
from adapters.recorded.read.tables import Table, table_of
from adapters.recorded.read.values import canonical, symbol_in_name, time_ms, unified
from schemas.market import Candle, PublicTrade

BROKEN = (ValueError, ArithmeticError, IndexError, KeyError, TypeError, AttributeError)
"""What reading a row that is not of its file's layout may raise."""


class Stream(msgspec.Struct, frozen=True):
    """A part whose layout is known. `layout` None: messages of books."""

    table: Table
    layout: Layout | None
    written: str | None
    """The symbol as the file writes it, in its first row or its name; None where it says none."""
    first_ts: int
    newest_first: bool = False

    @property
    def part(self) -> Part:
        return self.table.part

    @property
    def kind(self) -> Kind:
        return self.layout.kind if self.layout is not None else Kind.BOOKS

    def line(self) -> str:
        """What was recognised, in one line."""
        name = self.layout.name if self.layout is not None else "book messages (snapshots and changes)"
        order = ", newest first" if self.newest_first else ""
        return f"{self.part.name}: {self.kind} in the layout {name} ({self.table.form}{order})"

    def records(self, symbol: str, venue: str | None, report: ReadReport) -> Iterator[Record]:
        """Records of a symbol, in the order of the file, or from its end when it begins with the newest.

        Raises:
            RecordingError: a row is not of the layout.
        """
        if self.layout is None:
            yield from self._books(symbol, venue, report)
            return
        layout = self.layout
        read = layout.reader(symbol, venue)
        if self.newest_first:
            report.reversed_parts += 1
        wanted: dict[Any, bool] = {}
        for number, row in enumerate(self.table.rows_backwards() if self.newest_first else self.table.rows(), 1):
            report.rows += 1
            try:
                if layout.symbol is not None:
                    written = row[layout.symbol]
                    if (ours := wanted.get(written)) is None:
                        ours = wanted[written] = not written or canonical(str(written)) == canonical(symbol)
                    if not ours:
                        report.other_symbols += 1
                        continue
                record = read(row)
            except BROKEN as error:
                where = f"row {number}{' from its end' if self.newest_first else ''}"
                raise RecordingError(f"{self.part.name}: {where} {list(row)!r}: {error}") from error
            if record is None or (isinstance(record, PublicTrade) and not record.quantity):
                report.empty += not layout.folded
                continue
            yield record

    def _books(self, symbol: str, venue: str | None, report: ReadReport) -> Iterator[Book]:
        books = DepthMessages(symbol, venue)
        assert self.table.messages is not None
        for number, message in enumerate(self.table.messages(), 1):
            report.rows += 1
            try:
                written = message_symbol(message)
                if written is not None and canonical(written) != canonical(symbol):
                    report.other_symbols += 1
                    continue
                book = books.read(message)
            except BROKEN as error:
                raise RecordingError(f"{self.part.name}: message {number}: {error}") from error
            if book is None:
                report.empty += 1
            else:
                yield book


def stream_of(part: Part) -> Stream:
    """Recognise a part.

    Raises:
        RecordingError: its layout is not known, or its first rows are not of it.
    """
    table = table_of(part)
    if table.messages is not None:
        message = next(table.messages())
        written = message_symbol(message) or symbol_in_name(part.name)
        book = DepthMessages(written or "", None).read(message)
        return Stream(table, None, written, book.ts if book else 0)
    sample = table.sample()
    layout = recognise(table, sample)
    try:
        times = [time_ms(row[layout.time]) for row in sample]
        told = str(sample[0][layout.symbol] or "") if layout.symbol is not None else ""
        if layout.kind is not Kind.BOOKS:
            read = layout.reader("", None)
            for row in sample[:5]:
                read(row)
    except BROKEN as error:
        raise RecordingError(f"{part.name}: taken for {layout.name}, but its first rows are not: {error}") from error
    newest_first = _descending(times)
    written = told or unified(table.key or "") or symbol_in_name(part.name)
    return Stream(table, layout, written, min(times), newest_first)


def _descending(times: list[int]) -> bool:
    down = sum(after < before for before, after in itertools.pairwise(times))
    up = sum(after > before for before, after in itertools.pairwise(times))
    return down > up and times[0] > times[-1]


def time_of(record: Record) -> int:
    if isinstance(record, PublicTrade):
        return record.timestamp
    return record.start if isinstance(record, Candle) else record.ts
