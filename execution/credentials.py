"""Venue credentials: `<NAME>_API_KEY`, `_API_SECRET`, `_API_PASSWORD`, each also as the path of a file that holds it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

MASK = "********"
_VARIABLE = re.compile(r"^([A-Z0-9_]+)_API_(KEY|SECRET|PASSWORD)(_FILE)?$")
_MEANING = {"KEY": "API key", "SECRET": "API secret", "PASSWORD": "API password or passphrase"}


class CredentialsError(Exception):
    """Credentials that cannot be used; the message is one line without secrets."""


@dataclass(frozen=True, repr=False)
class Credentials:
    """An account at a venue. Printing it shows no secret."""

    api_key: str
    api_secret: str
    api_password: str | None = None

    def __repr__(self) -> str:
        return f"Credentials(api_key={MASK!r})"

    def for_ccxt(self) -> dict[str, str]:
        """By the names that ccxt gives them."""
        named = {"apiKey": self.api_key, "secret": self.api_secret}
        return named if self.api_password is None else {**named, "password": self.api_password}


class CredentialRow(NamedTuple):
    """A variable as operators see it."""

    name: str
    meaning: str
    value: str
    origin: str


class _Given(NamedTuple):
    value: str
    origin: str


def is_credential(name: str) -> bool:
    """Whether a variable's name is one of a credential."""
    return _VARIABLE.match(name) is not None


def variable_prefix(venue: str) -> str:
    """What a venue's variables begin with: upper case, everything but letters and digits as `_`."""
    return re.sub(r"[^A-Z0-9]", "_", venue.upper())


class CredentialVariables:
    """The credential variables found, for whatever venue."""

    def __init__(self) -> None:
        self._given: dict[str, _Given] = {}

    def add(self, name: str, value: str, origin: str) -> None:
        """Note a variable, unless an earlier origin has said something of the same credential in either form."""
        stem = name.removesuffix("_FILE")
        earlier = self._given.get(stem) or self._given.get(f"{stem}_FILE")
        if earlier is None or earlier.origin == origin:
            self._given[name] = _Given(value, origin)

    def of(self, venue: str) -> Credentials | None:
        """The credentials of a venue; None when none are set.

        Raises:
            CredentialsError: only half of them are set, or a file cannot be read.
        """
        prefix = variable_prefix(venue)
        key, secret, password = (self._read(f"{prefix}_API_{part}") for part in ("KEY", "SECRET", "PASSWORD"))
        if key is None and secret is None:
            return None
        if key is None or secret is None:
            missing = f"{prefix}_API_{'KEY' if key is None else 'SECRET'}"
            raise CredentialsError(f"{missing}: is required, or {missing}_FILE, because the other half is set")
        return Credentials(key, secret, password)

    def secrets(self) -> list[str]:
        """Every value that can be read. A file that cannot be is told by `of`, to whoever needs it."""
        found = []
        for name in {name.removesuffix("_FILE") for name in self._given}:
            try:
                found.append(self._read(name) or "")
            except CredentialsError:
                continue
        return [value for value in found if value]

    def origin(self, name: str) -> str | None:
        """Where a variable was set; None when it is not."""
        return self._given[name].origin if name in self._given else None

    def rows(self, venues: Iterable[str]) -> list[CredentialRow]:
        """The variables of these venues, set or not, and those in a settings file that belong to none of them."""
        prefixes = {variable_prefix(venue): venue for venue in venues}
        shown = {f"{prefix}_API_{part}" for prefix in prefixes for part in ("KEY", "SECRET")}
        for name, given in self._given.items():
            # Other programs' keys live in the same environment; a settings file is this service's alone.
            if name.rpartition("_API_")[0] in prefixes or given.origin != "environment":
                shown = shown - {name.removesuffix("_FILE")} | {name}
        return [self._row(name, prefixes) for name in sorted(shown)]

    def _row(self, name: str, prefixes: dict[str, str]) -> CredentialRow:
        match = _VARIABLE.match(name)
        assert match is not None
        given = self._given.get(name)
        in_file = match[3] is not None
        meaning = f"{_MEANING[match[2]]} of {prefixes.get(match[1], 'no venue in ADAPTER_ENDPOINTS')}"
        if given is None:
            return CredentialRow(name, f"{meaning}.", "", "default")
        if in_file:
            return CredentialRow(name, f"{meaning}: the file that holds it.", given.value, given.origin)
        return CredentialRow(name, f"{meaning}.", MASK, given.origin)

    def _read(self, name: str) -> str | None:
        if name in self._given:
            return self._given[name].value.strip()
        file = self._given.get(f"{name}_FILE")
        if file is None:
            return None
        where = f"{name}_FILE: {file.value} (from {file.origin})"
        try:
            value = Path(file.value).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise CredentialsError(f"{where} cannot be read: {reason}") from error
        if not value:
            raise CredentialsError(f"{where} is empty")
        return value
