"""Files of recorded data as they come: plain, gzip, zip with members, Parquet; known by their first bytes."""

from __future__ import annotations

import gzip
import io
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from adapters.recorded.read.errors import RecordingError

BLOCK = 1 << 18


class Part(msgspec.Struct, frozen=True):
    """One file, or one member of a zip file."""

    path: Path
    member: str | None = None

    @property
    def name(self) -> str:
        return f"{self.path.name}:{self.member}" if self.member else self.path.name

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The content, unpacked.

        Raises:
            RecordingError: it cannot be opened.
        """
        try:
            with self._raw() as raw:
                magic = raw.read(2)
                raw.seek(0)
                if magic == b"\x1f\x8b":
                    with gzip.GzipFile(fileobj=raw) as unpacked:
                        yield unpacked  # type: ignore[misc]
                else:
                    yield raw
        except (OSError, EOFError, zipfile.BadZipFile) as error:
            raise RecordingError(f"{self.name} cannot be read: {error}") from error

    @contextmanager
    def _raw(self) -> Iterator[IO[bytes]]:
        if self.member is None:
            with self.path.open("rb") as file:
                yield file
        else:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as file:
                yield file

    def lines(self) -> Iterator[str]:
        """The content as lines of text."""
        # Names of columns may be in any encoding; what is read of a file is ASCII in all of them.
        with self.open() as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline=None) as text:
            for line in text:  # noqa: UP028 (a `yield from` that is left early does not close the file in time)
                yield line

    def size(self) -> int:
        """Bytes of the content, unpacked; for gzip those of the packed file."""
        if self.member is None:
            return self.path.stat().st_size
        with zipfile.ZipFile(self.path) as archive:
            return archive.getinfo(self.member).file_size


def parts_of(path: Path) -> list[Part]:
    """The parts of a file (a zip file has one per member) or of all files in a directory, by name.

    Raises:
        RecordingError: there is no such file, or nothing in it.
    """
    if path.is_dir():
        found = [part for file in sorted(path.iterdir()) if file.is_file() for part in parts_of(file)]
    elif not path.is_file():
        raise RecordingError(f"{path} does not exist")
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            found = [
                Part(path, info.filename)
                for info in sorted(archive.infolist(), key=lambda info: info.filename)
                if not info.is_dir() and not info.filename.startswith("__MACOSX")
            ]
    else:
        found = [Part(path)]
    if not found:
        raise RecordingError(f"{path} holds no files")
    return found


def backwards(lines: Iterator[str]) -> Iterator[str]:
    """Lines from the last to the first, through a temporary file: not more than a block is held in memory."""
    with tempfile.TemporaryFile() as spool:
        for line in lines:
            spool.write(line.encode() if line.endswith("\n") else line.encode() + b"\n")
        position = spool.tell()
        rest = b""
        while position:
            step = min(BLOCK, position)
            position -= step
            spool.seek(position)
            block = spool.read(step) + rest
            first, *whole = block.split(b"\n")
            for full in reversed(whole):
                if full:
                    yield full.decode()
            rest = first
        if rest:
            yield rest.decode()
