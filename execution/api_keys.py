"""Who may use the HTTP interface: the keys of API_KEYS and their roles."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from enum import IntEnum


class Role(IntEnum):
    """A role may do what the ones below it may."""

    VIEWER = 1
    TRADER = 2
    ADMIN = 3


@dataclass(frozen=True)
class ApiKey:
    """A key, its owner's name, and what it is good for."""

    name: str
    key: str = field(repr=False)
    role: Role = Role.VIEWER


def parse_api_keys(text: str | None) -> tuple[ApiKey, ...]:
    """Read `name:key[:role],...`; the role is viewer where none is given.

    Raises:
        ValueError: it is not of that form; the message does not repeat it.
    """
    keys = []
    for item in filter(None, (part.strip() for part in (text or "").split(","))):
        name, _, rest = item.partition(":")
        key, _, role = rest.partition(":")
        if not name or not key or (role or "viewer").upper() not in Role.__members__:
            raise ValueError("must be a comma list of name:key[:role], role viewer, trader or admin")
        keys.append(ApiKey(name, key, Role[(role or "viewer").upper()]))
    return tuple(keys)


def who(keys: tuple[ApiKey, ...], presented: str) -> ApiKey | None:
    """The key that was presented; takes as long for a wrong one as for a right one."""
    found = None
    for known in keys:
        if hmac.compare_digest(known.key.encode(), presented.encode()):
            found = known
    return found
