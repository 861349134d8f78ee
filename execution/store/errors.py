"""What can go wrong between this process and the store, by what is then known about the write."""

from __future__ import annotations

from collections.abc import Callable

from redis.exceptions import (
    AskError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    ResponseError,
)


class StoreUnavailable(ConnectionError):
    """No answer. With `maybe_applied` the request had left and may have been carried out, now or later; without, it never left."""

    def __init__(self, message: str, *, maybe_applied: bool) -> None:
        outcome = "the outcome is unknown" if maybe_applied else "nothing was sent"
        super().__init__(f"{message}; {outcome}")
        self.maybe_applied = maybe_applied


class StoreRefused(ResponseError):
    """The store answered that it will not do this. Certainly nothing was applied.

    `code` is Redis's own (`OOM`, `READONLY`, ...). `transient` says that the same request can succeed later without
    anyone changing the request or its permissions.
    """

    def __init__(self, code: str, message: str) -> None:
        advice = _ADVICE.get(code)
        super().__init__(f"{code} {message}" + (f" ({advice})" if advice else ""), status_code=code)
        self.code = code
        self.message = message
        self.transient = code in _TRANSIENT


class StoreTooOld(Exception):
    """The server is older than Redis 7.0, which lacks what the ledger's scripts rely on."""


_ADVICE = {
    "LOADING": "Redis is still reading its data set from disk",
    "MISCONF": "Redis cannot write to its disk: free space, or look into its log",
    "OOM": "Redis has reached maxmemory: raise it, keep maxmemory-policy noeviction",
    "READONLY": "this is a replica: point REDIS_URL at the primary",
    "MASTERDOWN": "this replica has lost its primary: point REDIS_URL at the primary",
    "NOREPLICAS": "fewer replicas are in step than min-replicas-to-write asks for",
    "NOPERM": "the Redis user of REDIS_URL lacks a permission",
    "NOAUTH": "REDIS_URL needs a password",
    "WRONGPASS": "user or password in REDIS_URL are wrong",
    "CROSSSLOT": "the keys of one call must share a {hash tag}",
}
_TRANSIENT = frozenset(
    {"LOADING", "MISCONF", "OOM", "READONLY", "MASTERDOWN", "NOREPLICAS", "BUSY", "CLUSTERDOWN", "TRYAGAIN"}
)

# Redis gives these before a command, and inside a script only before its first write (for as long as the script runs, the
# state that they report cannot change).
_BEFORE_ANY_WRITE = frozenset(
    {"LOADING", "MISCONF", "OOM", "READONLY", "MASTERDOWN", "NOREPLICAS", "BUSY", "NOAUTH", "WRONGPASS"}
)
# These can also come from the second command of a script whose first has already written.
_UNLESS_INSIDE_A_SCRIPT = frozenset({"NOPERM", "CROSSSLOT", "CLUSTERDOWN", "TRYAGAIN"})
_INSIDE_A_SCRIPT = " script: "

_CLASSES: dict[str, Callable[[str], ResponseError]] = {
    "NOSCRIPT": NoScriptError,
    "NOPERM": NoPermissionError,
    "MOVED": MovedError,
    "ASK": AskError,
}


def reply_error(text: str) -> ResponseError:
    """The exception for an error reply of Redis."""
    code, _, message = text.partition(" ")
    if code in _BEFORE_ANY_WRITE or (code in _UNLESS_INSIDE_A_SCRIPT and _INSIDE_A_SCRIPT not in text):
        return StoreRefused(code, message)
    known = _CLASSES.get(code)
    return known(message) if known else ResponseError(text)
