"""Lua scripts, known to the server by their hash."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text and the SHA-1 by which `EVALSHA` names it."""

    name: str
    text: str
    sha: str

    @classmethod
    def load(cls, path: Path) -> Script:
        """Read a `.lua` file."""
        return cls.of(path.stem, path.read_text(encoding="utf-8"))

    @classmethod
    def of(cls, name: str, text: str) -> Script:
        return cls(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
