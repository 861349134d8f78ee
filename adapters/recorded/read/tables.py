"""A file's content as rows under names, whatever it is written in: CSV, JSON, JSON lines, Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import islice
from typing import Any

import msgspec

from adapters.recorded.read.errors import RecordingError
from adapters.recorded.read.files import Part, backwards
from adapters.recorded.read.values import Cell, looks_like_flag, looks_like_number, looks_like_time
from schemas.exact_json import decode

LONGEST_LINE = 1 << 20
"""Bytes within which the first of several JSON lines ends."""
SAMPLE = 500
"""Rows that are looked at to know a layout."""
CHUNK = 1 << 16
LARGEST_DOCUMENT = 256 << 20
"""Bytes of a JSON document with its rows inside, which must be held in memory."""

LETTERS = frozenset("bslm")
"""Kraken's sides and order types: no names of columns."""

Row = Sequence[Cell]


class Table(msgspec.Struct, frozen=True):
    """Rows of a part. `names` is None when the file does not tell them; `messages` are JSON objects with lists inside."""

    part: Part
    form: str
    names: tuple[str, ...] | None
    rows: Callable[[], Iterator[Row]]
    rows_backwards: Callable[[], Iterator[Row]]
    messages: Callable[[], Iterator[dict[str, Any]]] | None = None
    key: str | None = None
    """What a JSON document calls its rows: Kraken's are under the symbol."""

    def sample(self) -> list[Row]:
        return list(islice(self.rows(), SAMPLE))


def table_of(part: Part) -> Table:
    """Raises:
    RecordingError: the content is no text in a form that is known.
    """
    with part.open() as raw:
        head = raw.read(4096)
    if head.startswith(b"PAR1"):
        return _parquet(part)
    if b"\x00" in head:
        raise RecordingError(f"{part.name}: neither text nor Parquet; it begins with {head[:16]!r}")
    text = head.decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if not text:
        raise RecordingError(f"{part.name} is empty")
    return _json(part, text[0]) if text[0] in "{[" else _csv(part)


def _csv(part: Part) -> Table:
    head = [line for line in islice(part.lines(), 50) if line.strip()]
    # Some files begin with a line of advertisement or comment.
    skipped = 0
    while skipped < min(5, len(head) - 1) and (head[skipped].startswith("#") or not _delimiters(head[skipped])):
        skipped += 1
    if not head or not _delimiters(head[skipped]):
        raise RecordingError(f"{part.name}: no columns in its first line {head[0].strip()[:80]!r}")
    delimiter = max(",;\t|", key=head[skipped].count)
    first = next(csv.reader([head[skipped]], delimiter=delimiter))
    names = tuple(first) if not all(_plain(cell) for cell in first) else None

    def body() -> Iterator[str]:
        return islice((line for line in part.lines() if line.strip()), skipped + (names is not None), None)

    return Table(
        part,
        "CSV",
        names,
        lambda: csv.reader(body(), delimiter=delimiter),
        lambda: csv.reader(backwards(body()), delimiter=delimiter),
    )


def _delimiters(line: str) -> int:
    return max(line.count(delimiter) for delimiter in ",;\t|")


def _plain(cell: str) -> bool:
    return not cell or looks_like_number(cell) or looks_like_flag(cell) or looks_like_time(cell) or cell in LETTERS


def _json(part: Part, opening: str) -> Table:
    first_line, more = _first_line(part)
    by_lines = first_line is not None and (more or _rows_within(first_line) is None)
    if by_lines:
        form, read = "JSON lines", _lines
    elif opening == "[":
        form, read = "JSON", _elements
    else:
        form, read = "JSON", _document

    def values() -> Iterator[Any]:
        return read(part)

    key = _document_rows(part)[0] if read is _document else None
    first = next(values(), None)
    if isinstance(first, dict) and _levels(first):
        return Table(part, form, None, lambda: iter(()), lambda: iter(()), values)
    if isinstance(first, dict):
        names = tuple(name for name, value in first.items() if not isinstance(value, dict | list))

        def rows() -> Iterator[Row]:
            return ([item.get(name) for name in names] for item in values())

        return Table(part, form, names, rows, lambda: reversed(list(rows())), key=key)
    if isinstance(first, list):
        return Table(part, form, None, values, lambda: reversed(list(values())), key=key)
    raise RecordingError(f"{part.name}: JSON without rows; its first value is {str(first)[:80]!r}")


def _first_line(part: Part) -> tuple[Any, bool]:
    """What the first line says when it is JSON by itself, else None; and whether there are more lines."""
    with part.open() as raw:
        head = raw.read(LONGEST_LINE).decode("utf-8-sig", "replace").lstrip()
    line, _, more = head.partition("\n")
    try:
        return decode(line), bool(more.strip())
    except ValueError:
        return None, True


def _lines(part: Part) -> Iterator[Any]:
    for number, line in enumerate(part.lines(), 1):
        if not line.strip():
            continue
        try:
            yield decode(line)
        except ValueError as error:
            raise RecordingError(f"{part.name}: line {number} is no JSON: {error}") from error


def _elements(part: Part) -> Iterator[Any]:
    """The elements of a JSON array, one after the other, without holding the array."""
    decoder = json.JSONDecoder(parse_float=Decimal)
    with part.open() as raw:
        text = raw.read(CHUNK).decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
        position, ended = 1, False
        while True:
            while position < len(text) and text[position] in " \t\r\n,":
                position += 1
            if position < len(text) and text[position] == "]":
                return
            try:
                value, position = decoder.raw_decode(text, position)
            except json.JSONDecodeError as error:
                if ended:
                    raise RecordingError(f"{part.name}: its JSON breaks off or is broken: {error}") from error
                more = raw.read(max(CHUNK, len(text)))
                ended = not more
                # A character of several bytes may be cut here; numbers and names that are read never hold one.
                text, position = text[position:] + more.decode("utf-8", "replace"), 0
                continue
            yield value


def _document(part: Part) -> Iterator[Any]:
    return iter(_document_rows(part)[1])


def _document_rows(part: Part) -> tuple[str, list[Any]]:
    if part.size() > LARGEST_DOCUMENT:
        raise RecordingError(
            f"{part.name}: one JSON document of {part.size() >> 20} MB cannot be read piece by piece; "
            "write its rows one a line (JSON lines)"
        )
    with part.open() as raw:
        data = raw.read()
    try:
        value = decode(data.removeprefix(b"\xef\xbb\xbf"))
    except ValueError as error:
        raise RecordingError(f"{part.name} is no JSON: {error}") from error
    rows = _rows_within(value)
    if rows is None:
        raise RecordingError(
            f"{part.name}: JSON without rows; it has {sorted(value)[:8] if isinstance(value, dict) else value!r}"
        )
    return rows


def _rows_within(value: Any, key: str = "", depth: int = 3) -> tuple[str, list[Any]] | None:
    """Name and rows in an answer of a venue's REST interface: `{"result": {"XBTUSDT": [...]}}`, `{"data": [...]}`."""
    if isinstance(value, list):
        return (key, value) if value and isinstance(value[0], list | dict) else None
    if not isinstance(value, dict) or not depth or _levels(value):
        return None
    for name, inner in value.items():
        if (rows := _rows_within(inner, name, depth - 1)) is not None:
            return rows
    return None


def _levels(message: dict[str, Any]) -> bool:
    """Whether a message holds levels of a book, itself or under `data`."""
    data = message.get("data", message)
    if isinstance(data, list) and data:
        data = data[0]
    if not isinstance(data, dict):
        return False
    return any(
        isinstance(data.get(bids), list) and isinstance(data.get(asks), list)
        for bids, asks in (("b", "a"), ("bids", "asks"))
    )


def _parquet(part: Part) -> Table:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise RecordingError(
            f"{part.name} is Parquet; reading it needs pyarrow: pip install 'execution-service[data]'"
        ) from error

    def batches(order: Callable[[range], Iterable[int]]) -> Iterator[Any]:
        with part.open() as raw:
            file = pq.ParquetFile(raw)
            for group in order(range(file.num_row_groups)):
                yield file, group

    def columns(batch: Any) -> list[Row]:
        cells = []
        for column in batch.columns:
            if pa.types.is_timestamp(column.type):
                # As the number of its own unit: a datetime holds no nanoseconds.
                column = column.cast(pa.int64())
            cells.append(column.to_pylist())
        return list(zip(*cells, strict=True))

    def rows() -> Iterator[Row]:
        for file, group in batches(iter):
            for batch in file.iter_batches(batch_size=8192, row_groups=[group]):
                yield from columns(batch)

    def rows_backwards() -> Iterator[Row]:
        for file, group in batches(reversed):
            yield from reversed(columns(file.read_row_group(group).combine_chunks()))

    with part.open() as raw:
        names = tuple(pq.ParquetFile(raw).schema_arrow.names)
    return Table(part, "Parquet", names, rows, rows_backwards)
