"""What a simulated Redis does with streams. Entry ids come from its clock."""

from __future__ import annotations

import itertools

from tests.simulation.redis_data import Commands, Keyspace, Reply, ReplyError, UnknownCommand, integer, syntax_error

STREAM_COMMANDS = Commands()
_NODE = 100
"""Entries that Redis keeps together, and drops only together when it trims with `~`."""

Id = tuple[int, int]
_HIGHEST = (1 << 64) - 1


class Stream:
    """Entries in the order of their ids; an emptied stream stays, with its last id."""

    __slots__ = ("entries", "last")

    def __init__(self) -> None:
        self.entries: dict[Id, list[bytes]] = {}
        self.last: Id = (0, 0)

    def take_out(self, keys: Keyspace, ids: list[Id]) -> int:
        """Remove entries; returns how many there were."""
        gone = {at: self.entries.pop(at) for at in ids if at in self.entries}
        if gone:
            keys.log(self._put_back, gone)
        return len(gone)

    def forget(self, at: Id, last: Id) -> None:
        """Take an appended entry back."""
        self.entries.pop(at, None)
        self.last = last

    def _put_back(self, gone: dict[Id, list[bytes]]) -> None:
        self.entries = dict(sorted({**gone, **self.entries}.items()))


@STREAM_COMMANDS.of("XADD")
def _xadd(keys: Keyspace, key: bytes, *words: bytes) -> Reply:
    most = None
    if words and words[0].upper() == b"MAXLEN":
        if len(words) < 3 or words[1] != b"~":
            raise UnknownCommand("XADD MAXLEN without ~")
        most, words = integer(words[2]), words[3:]
    if len(words) < 3 or len(words) % 2 == 0:
        raise ReplyError("ERR wrong number of arguments for 'xadd' command")
    if words[0] != b"*":
        raise UnknownCommand("XADD with an id of the caller's")
    stream = keys.own(key, Stream)
    last = stream.last
    at = (keys.now, 0) if keys.now > last[0] else (last[0], last[1] + 1)
    stream.entries[at] = list(words[1:])
    stream.last = at
    keys.log(stream.forget, at, last)
    if most is not None:
        surplus = (len(stream.entries) - most) // _NODE * _NODE
        if surplus > 0:
            stream.take_out(keys, list(itertools.islice(stream.entries, surplus)))
    return b"%d-%d" % at


@STREAM_COMMANDS.of("XLEN")
def _xlen(keys: Keyspace, key: bytes) -> Reply:
    stream = keys.find(key, Stream)
    return 0 if stream is None else len(stream.entries)


@STREAM_COMMANDS.of("XRANGE")
def _xrange(keys: Keyspace, key: bytes, start: bytes, end: bytes, *options: bytes) -> Reply:
    count = None
    if options:
        if len(options) != 2 or options[0].upper() != b"COUNT":
            raise syntax_error()
        count = max(integer(options[1]), 0)
    first, last = _bound(start, 0), _bound(end, _HIGHEST)
    stream = keys.find(key, Stream)
    if stream is None:
        return []
    if count == 0:
        return None
    found = ([b"%d-%d" % at, fields] for at, fields in stream.entries.items() if first <= at <= last)
    return list(itertools.islice(found, count))


@STREAM_COMMANDS.of("XDEL")
def _xdel(keys: Keyspace, key: bytes, entry: bytes, *more: bytes) -> Reply:
    stream = keys.find(key, Stream)
    return 0 if stream is None else stream.take_out(keys, [_id(text, 0) for text in (entry, *more)])


@STREAM_COMMANDS.of("XTRIM")
def _xtrim(keys: Keyspace, key: bytes, how: bytes, exactly: bytes, threshold: bytes) -> Reply:
    if how.upper() != b"MINID" or exactly != b"=":
        raise UnknownCommand(f"XTRIM {how!r} {exactly!r}")
    first = _id(threshold, 0)
    stream = keys.find(key, Stream)
    if stream is None:
        return 0
    return stream.take_out(keys, list(itertools.takewhile(lambda at: at < first, stream.entries)))


def _bound(text: bytes, missing: int) -> Id:
    """An id, or `-` or `+` for the ends."""
    if text == b"-":
        return (0, 0)
    return (_HIGHEST, _HIGHEST) if text == b"+" else _id(text, missing)


def _id(text: bytes, missing: int) -> Id:
    """An id; `missing` stands for the number behind the dash where there is none."""
    milliseconds, dash, number = text.partition(b"-")
    try:
        return int(milliseconds), int(number) if dash else missing
    except ValueError:
        raise ReplyError("ERR Invalid stream ID specified as stream command argument") from None
