"""What a simulated Redis does with strings, hashes, sets, sorted sets and keys: the commands the service uses, no others."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Callable

from tests.simulation.redis_data import (
    Commands,
    Hash,
    Keyspace,
    Members,
    Reply,
    ReplyError,
    Scores,
    UnknownCommand,
    integer,
    put,
    put_all,
    syntax_error,
)
from tests.simulation.redis_streams import STREAM_COMMANDS, Stream

COMMANDS = Commands(STREAM_COMMANDS)
_TYPES = {bytes: "string", Hash: "hash", Members: "set", Scores: "zset", Stream: "stream"}


# --- strings ------------------------------------------------------------------------------------------------------------


@COMMANDS.of("GET")
def _get(keys: Keyspace, key: bytes) -> Reply:
    return keys.find(key, bytes)


@COMMANDS.of("SET")
def _set(keys: Keyspace, key: bytes, value: bytes, *options: bytes) -> Reply:
    only_new, expires_at = False, None
    words = iter(options)
    for word in words:
        option = word.upper()
        if option == b"NX":
            only_new = True
        elif option in (b"EX", b"PX"):
            text = next(words, None)
            if text is None or expires_at is not None:
                raise syntax_error()
            duration = integer(text) * (1000 if option == b"EX" else 1)
            if duration <= 0:
                raise ReplyError("ERR invalid expire time in 'set' command")
            expires_at = keys.now + duration
        else:
            raise UnknownCommand(f"SET with {word!r}")
    if only_new and keys.exists(key):
        return None
    keys.write(key, value)
    keys.expire_at(key, expires_at)
    return "OK"


# --- keys ---------------------------------------------------------------------------------------------------------------


@COMMANDS.of("EXISTS")
def _exists(keys: Keyspace, key: bytes, *more: bytes) -> Reply:
    return sum(keys.exists(name) for name in (key, *more))


@COMMANDS.of("DEL")
def _del(keys: Keyspace, key: bytes, *more: bytes) -> Reply:
    return sum(keys.delete(name) for name in (key, *more))


@COMMANDS.of("EXPIRE")
def _expire(keys: Keyspace, key: bytes, seconds: bytes) -> Reply:
    duration = integer(seconds)
    if not keys.exists(key):
        return 0
    if duration <= 0:
        keys.delete(key)
    else:
        keys.expire_at(key, keys.now + duration * 1000)
    return 1


@COMMANDS.of("PERSIST")
def _persist(keys: Keyspace, key: bytes) -> Reply:
    if not keys.exists(key) or key not in keys.expires:
        return 0
    keys.expire_at(key, None)
    return 1


@COMMANDS.of("PTTL")
def _pttl(keys: Keyspace, key: bytes) -> Reply:
    if not keys.exists(key):
        return -2
    at = keys.expires.get(key)
    return -1 if at is None else at - keys.now


@COMMANDS.of("TTL")
def _ttl(keys: Keyspace, key: bytes) -> Reply:
    milliseconds = _pttl(keys, key)
    return milliseconds if milliseconds < 0 else (milliseconds + 500) // 1000


@COMMANDS.of("TYPE")
def _type(keys: Keyspace, key: bytes) -> Reply:
    return _TYPES[type(keys.values[key])] if keys.exists(key) else "none"


@COMMANDS.of("DBSIZE")
def _dbsize(keys: Keyspace) -> Reply:
    return sum(keys.exists(key) for key in list(keys.values))


@COMMANDS.of("FLUSHALL")
def _flushall(keys: Keyspace) -> Reply:
    for key in list(keys.values):
        keys.delete(key)
    return "OK"


@COMMANDS.of("SCAN")
def _scan(keys: Keyspace, cursor: bytes, *options: bytes) -> Reply:
    """Everything in one answer, which Redis may do too: COUNT is a hint."""
    given = {name.upper(): value for name, value in zip(options[::2], options[1::2], strict=True)}
    if set(given) - {b"MATCH", b"COUNT"} or integer(cursor) != 0:
        raise UnknownCommand(f"SCAN {cursor!r} {options!r}")
    matches = _glob(given.get(b"MATCH", b"*"))
    return [b"0", [key for key in list(keys.values) if matches(key) and keys.exists(key)]]


def _glob(pattern: bytes) -> Callable[[bytes], object]:
    if re.search(rb"[\[\]\\]", pattern):
        raise UnknownCommand(f"the pattern {pattern!r}")
    return re.compile(fnmatch.translate(pattern.decode("latin-1")).encode("latin-1")).match


# --- hashes -------------------------------------------------------------------------------------------------------------


@COMMANDS.of("HGET")
def _hget(keys: Keyspace, key: bytes, field: bytes) -> Reply:
    found = keys.find(key, Hash)
    return None if found is None else found.get(field)


@COMMANDS.of("HEXISTS")
def _hexists(keys: Keyspace, key: bytes, field: bytes) -> Reply:
    found = keys.find(key, Hash)
    return int(found is not None and field in found)


@COMMANDS.of("HDEL")
def _hdel(keys: Keyspace, key: bytes, field: bytes, *more: bytes) -> Reply:
    found = keys.find(key, Hash)
    if found is None:
        return 0
    before = {name: found.get(name) for name in (field, *more) if name in found}
    for name in before:
        del found[name]
    keys.log(put_all, found, before)
    keys.drop_empty(key, found)
    return len(before)


@COMMANDS.of("HMGET")
def _hmget(keys: Keyspace, key: bytes, field: bytes, *more: bytes) -> Reply:
    found = keys.find(key, Hash) or Hash()
    return [found.get(name) for name in (field, *more)]


@COMMANDS.of("HGETALL")
def _hgetall(keys: Keyspace, key: bytes) -> Reply:
    found = keys.find(key, Hash) or Hash()
    return [part for pair in found.items() for part in pair]


@COMMANDS.of("HSET")
def _hset(keys: Keyspace, key: bytes, field: bytes, value: bytes, *more: bytes) -> Reply:
    if len(more) % 2:
        raise ReplyError("ERR wrong number of arguments for 'hset' command")
    into = keys.own(key, Hash)
    written = {field: value}
    if more:
        written.update(zip(more[::2], more[1::2], strict=True))
    before = {name: into.get(name) for name in written}
    into.update(written)
    keys.log(put_all, into, before)
    return list(before.values()).count(None)


@COMMANDS.of("HINCRBY")
def _hincrby(keys: Keyspace, key: bytes, field: bytes, by: bytes) -> Reply:
    amount = integer(by)
    known = keys.find(key, Hash)
    before = None if known is None else known.get(field)
    try:
        total = (0 if before is None else int(before)) + amount
    except ValueError:
        raise ReplyError("ERR hash value is not an integer") from None
    into = keys.own(key, Hash)
    keys.log(put, into, field, before)
    into[field] = b"%d" % total
    return total


# --- sets ---------------------------------------------------------------------------------------------------------------


@COMMANDS.of("SADD")
def _sadd(keys: Keyspace, key: bytes, member: bytes, *more: bytes) -> Reply:
    into = keys.own(key, Members)
    fresh = [name for name in dict.fromkeys((member, *more)) if name not in into]
    for name in fresh:
        into[name] = None
        keys.log(put, into, name, None)
    return len(fresh)


@COMMANDS.of("SREM")
def _srem(keys: Keyspace, key: bytes, member: bytes, *more: bytes) -> Reply:
    found = keys.find(key, Members)
    if found is None:
        return 0
    gone = [name for name in dict.fromkeys((member, *more)) if name in found]
    for name in gone:
        del found[name]
        keys.log(found.__setitem__, name, None)
    keys.drop_empty(key, found)
    return len(gone)


@COMMANDS.of("SMEMBERS")
def _smembers(keys: Keyspace, key: bytes) -> Reply:
    return list(keys.find(key, Members) or ())


# --- sorted sets --------------------------------------------------------------------------------------------------------


@COMMANDS.of("ZADD")
def _zadd(keys: Keyspace, key: bytes, score: bytes, member: bytes, *more: bytes) -> Reply:
    if len(more) % 2:
        raise syntax_error()
    words = (score, member, *more)
    written = {name: _score(text) for text, name in zip(words[::2], words[1::2], strict=True)}
    into = keys.own(key, Scores)
    before = {name: into.get(name) for name in written}
    into.update(written)
    keys.log(put_all, into, before)
    return list(before.values()).count(None)


@COMMANDS.of("ZREM")
def _zrem(keys: Keyspace, key: bytes, member: bytes, *more: bytes) -> Reply:
    found = keys.find(key, Scores)
    if found is None:
        return 0
    return _take_out(keys, key, found, [name for name in dict.fromkeys((member, *more)) if name in found])


@COMMANDS.of("ZREMRANGEBYSCORE")
def _zremrangebyscore(keys: Keyspace, key: bytes, least: bytes, most: bytes) -> Reply:
    above, below = _bound(least), _bound(most)
    found = keys.find(key, Scores)
    if found is None:
        return 0
    return _take_out(keys, key, found, [name for name, at in found.items() if _within(at, above, below)])


@COMMANDS.of("ZCARD")
def _zcard(keys: Keyspace, key: bytes) -> Reply:
    return len(keys.find(key, Scores) or ())


@COMMANDS.of("ZRANGE")
def _zrange(keys: Keyspace, key: bytes, start: bytes, stop: bytes) -> Reply:
    first, last = integer(start), integer(stop)
    found = keys.find(key, Scores) or Scores()
    first = max(first + len(found), 0) if first < 0 else first
    last = last + len(found) if last < 0 else last
    return _ordered(found)[first : last + 1] if first <= last else []


@COMMANDS.of("ZRANGEBYSCORE")
def _zrangebyscore(keys: Keyspace, key: bytes, least: bytes, most: bytes) -> Reply:
    above, below = _bound(least), _bound(most)
    found = keys.find(key, Scores) or Scores()
    return [name for name in _ordered(found) if _within(found[name], above, below)]


def _take_out(keys: Keyspace, key: bytes, found: Scores, names: list[bytes]) -> int:
    for name in names:
        keys.log(put, found, name, found.pop(name))
    keys.drop_empty(key, found)
    return len(names)


def _ordered(found: Scores) -> list[bytes]:
    return sorted(found, key=lambda name: (found[name], name))


def _score(text: bytes) -> float:
    try:
        score = float(text)
    except ValueError:
        raise ReplyError("ERR value is not a valid float") from None
    if math.isnan(score):
        raise ReplyError("ERR value is not a valid float")
    return score


def _bound(text: bytes) -> tuple[float, bool]:
    """A bound and whether it is itself outside."""
    try:
        return float(text.removeprefix(b"(")), text.startswith(b"(")
    except ValueError:
        raise ReplyError("ERR min or max is not a float") from None


def _within(score: float, above: tuple[float, bool], below: tuple[float, bool]) -> bool:
    low = score > above[0] if above[1] else score >= above[0]
    return low and (score < below[0] if below[1] else score <= below[0])


# --- the server ---------------------------------------------------------------------------------------------------------


@COMMANDS.of("TIME")
def _time(keys: Keyspace) -> Reply:
    seconds, microseconds = divmod(keys.now_us, 1_000_000)
    return [b"%d" % seconds, b"%d" % microseconds]
