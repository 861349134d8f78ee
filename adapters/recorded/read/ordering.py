"""Rows that come a little out of order, or twice, put right; what was done is counted."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

import msgspec

WINDOW_MS = 5000
"""How late a row may come and still be put in its place."""
REMEMBERED = 200_000
"""How many of the last ids are known when one comes again."""


class ReadReport(msgspec.Struct):
    """What was done to rows while they were read. Counts of one pass over the files."""

    rows: int = 0
    sorted: int = 0
    """Came after a later row, within the window: put in their place."""
    too_late: int = 0
    """Came after a later row, beyond the window: left out."""
    duplicates: int = 0
    """Had an id that was there already: left out."""
    empty: int = 0
    """Had a quantity of zero, no numbers, or one side of a book only, or a crossed one: left out."""
    other_symbols: int = 0
    reversed_parts: int = 0

    def lines(self) -> list[str]:
        """What was done, one line for each thing that was."""
        told = [f"{self.rows} rows read"]
        for number, what in (
            (self.sorted, "rows out of order put in their place"),
            (self.too_late, f"rows more than {WINDOW_MS} ms out of order left out"),
            (self.duplicates, "rows with a known id left out"),
            (self.empty, "rows without quantity, or with an empty or crossed book, left out"),
            (self.other_symbols, "rows of other symbols left out"),
            (self.reversed_parts, "files read from their end, since they begin with the newest"),
        ):
            if number:
                told.append(f"{number} {what}")
        return told


T = TypeVar("T")


def ordered(
    records: Iterable[T], time: Callable[[T], int], report: ReadReport, window_ms: int = WINDOW_MS
) -> Iterator[T]:
    """Records by time; of the same time in their order. Holds no more than a window of them."""
    waiting: list[tuple[int, int, T]] = []
    newest = floor = -1 << 62
    for number, record in enumerate(records):
        ts = time(record)
        if ts < newest:
            if ts < floor:
                report.too_late += 1
                continue
            report.sorted += 1
        else:
            newest = ts
        heapq.heappush(waiting, (ts, number, record))
        while waiting[0][0] < newest - window_ms:
            floor, _, ready = heapq.heappop(waiting)
            yield ready
    while waiting:
        yield heapq.heappop(waiting)[2]


def once(records: Iterable[T], identity: Callable[[T], Hashable], report: ReadReport) -> Iterator[T]:
    """Records whose id did not come before, as far as the last ids are remembered."""
    known: OrderedDict[Hashable, None] = OrderedDict()
    for record in records:
        name = identity(record)
        if name in known:
            report.duplicates += 1
            continue
        known[name] = None
        if len(known) > REMEMBERED:
            known.popitem(last=False)
        yield record
