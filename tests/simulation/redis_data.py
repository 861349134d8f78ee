"""The data of a simulated Redis: keys that expire by a clock, and a log by which the latest writes can be taken back."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

Reply = Any
"""bytes: a bulk string; str: a status; int; None; a list or tuple of replies."""

T = TypeVar("T")


class ReplyError(Exception):
    """An error reply, as Redis words it."""


class UnknownCommand(NotImplementedError):
    """The model does not know this command, or this form of it. Teach it, or do not use it."""


class Hash(dict[bytes, bytes]):
    """A hash; its fields in the order they were first written."""


class Members(dict[bytes, None]):
    """A set; a dict, because the order of Python's sets differs between processes."""


class Scores(dict[bytes, float]):
    """A sorted set, as score by member."""


class Command(NamedTuple):
    """A command: what carries it out on a keyspace, and how many arguments it takes after its name."""

    run: Callable[..., Reply]
    least: int
    most: int


Handler = TypeVar("Handler", bound=Callable[..., Reply])


class Commands(dict[bytes, Command]):
    """Commands by name."""

    def of(self, name: str) -> Callable[[Handler], Handler]:
        """Decorator: this function carries out the command `name`."""

        def register(handler: Handler) -> Handler:
            parameters = list(inspect.signature(handler).parameters.values())[1:]
            named = [one for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
            least = sum(one.default is one.empty for one in named)
            most = len(named) if len(named) == len(parameters) else 1 << 30
            self[name.encode()] = Command(handler, least, most)
            return handler

        return register


class Keyspace:
    """Keys, values and expiry times (ms since the epoch).

    Every write leaves in `_undo` what takes it back, for `remember` seconds. An undo function gets the containers themselves:
    in reverse order, each finds its container as it left it.
    """

    def __init__(self, clock: Callable[[], float], remember: float) -> None:
        self.values: dict[bytes, Any] = {}
        self.expires: dict[bytes, int] = {}
        self.now_us = 0
        self.now = 0
        self._clock = clock
        self._remember = remember
        self._written = 0.0
        self._undo: deque[tuple[float, Callable[..., object], tuple[Any, ...]]] = deque()

    def tick(self) -> None:
        """Read the clock. Redis does so once per command and per script."""
        seconds = self._clock()
        self.now_us = round(seconds * 1e6)
        self.now = self.now_us // 1000
        self._written = seconds
        undo, horizon = self._undo, seconds - self._remember
        while undo and undo[0][0] < horizon:
            undo.popleft()

    def log(self, take_back: Callable[..., object], *args: Any) -> None:
        """Remember how to take back what is written now."""
        if self._remember:
            self._undo.append((self._written, take_back, args))

    def take_back(self, seconds: float) -> int:
        """Undo what was written less than `seconds` ago; returns how many writes that were.

        Raises:
            ValueError: so much is not remembered.
        """
        if seconds > self._remember:
            raise ValueError(f"only the writes of the last {self._remember:g} s are remembered")
        since, count = self._clock() - seconds, 0
        while self._undo and self._undo[-1][0] > since:
            _, take_back, args = self._undo.pop()
            take_back(*args)
            count += 1
        self._undo.clear()  # older ones lead to a time before the server that lives now
        return count

    def clear(self) -> None:
        """Forget everything, also how to take it back."""
        self.values.clear()
        self.expires.clear()
        self._undo.clear()

    def find(self, key: bytes, kind: type[T]) -> T | None:
        """The value of a key that has not expired; None where there is none.

        Raises:
            ReplyError: the key holds a value of another kind.
        """
        value = self.values.get(key)
        if value is None or (key in self.expires and self._expired(key)):
            return None
        if type(value) is not kind:
            raise ReplyError("WRONGTYPE Operation against a key holding the wrong kind of value")
        return value

    def own(self, key: bytes, kind: type[T]) -> T:
        """The value of a key, made empty where there is none."""
        found = self.find(key, kind)
        if found is None:
            found = kind()
            self.values[key] = found
            self.log(put, self.values, key, None)
        return found

    def exists(self, key: bytes) -> bool:
        return key in self.values and not (key in self.expires and self._expired(key))

    def delete(self, key: bytes) -> bool:
        """Remove a key; returns whether it was there."""
        if not self.exists(key):
            return False
        self._remove(key)
        return True

    def write(self, key: bytes, value: Any) -> None:
        """Put a value in the place of whatever the key held."""
        self.log(put, self.values, key, self.values.get(key))
        self.values[key] = value

    def expire_at(self, key: bytes, at: int | None) -> None:
        """Set when a key expires (ms since the epoch), or that it does not."""
        before = self.expires.get(key)
        if before != at:
            self.log(put, self.expires, key, before)
            put(self.expires, key, at)

    def drop_empty(self, key: bytes, value: Hash | Members | Scores) -> None:
        """Redis keeps no empty containers (streams excepted)."""
        if not value:
            self._remove(key)

    def _expired(self, key: bytes) -> bool:
        if self.now <= self.expires[key]:
            return False
        self._remove(key)
        return True

    def _remove(self, key: bytes) -> None:
        self.expire_at(key, None)
        self.log(put, self.values, key, self.values.pop(key))


def put(mapping: dict[Any, Any], key: Any, value: Any) -> None:
    """Set an entry; None removes it."""
    if value is None:
        mapping.pop(key, None)
    else:
        mapping[key] = value


def put_all(mapping: dict[Any, Any], entries: dict[Any, Any]) -> None:
    """Set entries; those that are None are removed."""
    for key, value in entries.items():
        put(mapping, key, value)


def integer(text: bytes) -> int:
    """An argument that must be an integer."""
    try:
        number = int(text)
    except ValueError:
        number = None
    if number is None or b"%d" % number != text:  # Python also reads " 7", "+7" and "1_000"
        raise ReplyError("ERR value is not an integer or out of range")
    return number


def syntax_error() -> ReplyError:
    return ReplyError("ERR syntax error")
