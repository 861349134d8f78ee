"""Random commands and script calls, as the service words them: for holding the simulated Redis against the real one."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

import execution.ledger
from execution.ledger.keys import ShardKeys
from execution.ledger.ledger import _fixed
from execution.store import Script

_FOLDER = Path(execution.ledger.__file__).parent / "scripts"
SCRIPTS = {path.stem: Script.load(path) for path in _FOLDER.glob("*.lua")}
SHARD = ShardKeys(0)


@dataclass(frozen=True)
class Entry:
    """Stands for the id of an earlier stream entry: the `number`-th from the end, or what follows it."""

    number: int
    following: bool = False


@dataclass(frozen=True)
class Call:
    """A script call; `right` makes owner, epoch and version those that the script wants to see."""

    script: str
    fields: dict[str, Any]
    right: bool = True


def _key(kind: str) -> st.SearchStrategy[str]:
    return st.sampled_from([f"{kind}1", f"{kind}1", f"{kind}2", "any"])


_texts = st.sampled_from(["", "0", "7", "-3", "x", "1.5", "väl\0ue", "y" * 100])
_names = st.sampled_from(["f", "g", "h", "v"])
_seconds = st.sampled_from([1000, 200_000, 10**6, 0, -1, "x"])
_scores = st.sampled_from(["0", "1", "-2", "1.5", "1700000000000", "inf", "x", "1e3"])
_bounds = st.sampled_from(["-inf", "+inf", "0", "(0", "1", "(1.5", "1000", "x"])
_entries = st.builds(Entry, st.integers(0, 5)) | st.sampled_from(["-", "+", "5-1", "99999999999999-0", "5", "x"])
_starts = _entries | st.builds(Entry, st.integers(0, 5), st.just(True))
_set_options = st.sampled_from([(), ("NX",), ("EX", 1000), ("PX", 10**8), ("NX", "EX", 200_000), ("EX", 0), ("EX",)])


def _command(name: str, *words: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(st.just(name), *words)


def _with_list(name: str, key: st.SearchStrategy[str], words: st.SearchStrategy[list[Any]]) -> st.SearchStrategy[Any]:
    return st.tuples(key, words).map(lambda made: (name, made[0], *made[1]))


def _list(*of: st.SearchStrategy[Any], least: int = 1) -> st.SearchStrategy[list[Any]]:
    one = st.tuples(*of)
    return st.lists(one, min_size=least, max_size=4).map(lambda rows: [word for row in rows for word in row])


_any_key = st.sampled_from(["s1", "h1", "m1", "z1", "x1", "any", "nobody"])

commands: st.SearchStrategy[tuple[Any, ...]] = st.one_of(
    _command("GET", _key("s")),
    st.tuples(_key("s"), _texts, _set_options).map(lambda made: ("SET", made[0], made[1], *made[2])),
    _command("EXISTS", _any_key, _any_key),
    _command("DEL", _any_key),
    _command("EXPIRE", _any_key, _seconds),
    _command("PERSIST", _any_key),
    _command("TTL", _any_key),
    _command("PTTL", _any_key),
    _command("TYPE", _any_key),
    _command("HGET", _key("h"), _names),
    _command("HEXISTS", _key("h"), _names),
    _with_list("HDEL", _key("h"), _list(_names)),
    _with_list("HMGET", _key("h"), _list(_names)),
    _command("HGETALL", _key("h")),
    _with_list("HSET", _key("h"), _list(_names, _texts)),
    _with_list("HSET", _key("h"), _list(_names, least=0)),
    _command("HINCRBY", _key("h"), _names, st.sampled_from([1, -5, "x"])),
    _with_list("SADD", _key("m"), _list(_texts)),
    _with_list("SREM", _key("m"), _list(_texts)),
    _command("SMEMBERS", _key("m")),
    _with_list("ZADD", _key("z"), _list(_scores, _names)),
    _with_list("ZREM", _key("z"), _list(_names)),
    _command("ZCARD", _key("z")),
    _command("ZRANGE", _key("z"), st.integers(-5, 5), st.integers(-5, 5)),
    _command("ZRANGEBYSCORE", _key("z"), _bounds, _bounds),
    _command("ZREMRANGEBYSCORE", _key("z"), _bounds, _bounds),
    _with_list("XADD", _key("x"), _list(_names, _texts).map(lambda words: ["*", *words])),
    _with_list("XADD", _key("x"), _list(_names, _texts, least=0).map(lambda words: ["MAXLEN", "~", 50, "*", *words])),
    _command("XLEN", _key("x")),
    _command("XRANGE", _key("x"), _starts, _entries),
    _command("XRANGE", _key("x"), st.just("-"), st.just("+"), st.just("COUNT"), st.integers(0, 3)),
    _with_list("XDEL", _key("x"), _list(_entries)),
    _command("XTRIM", _key("x"), st.just("MINID"), st.just("="), _starts),
    _command("PUBLISH", st.just("channel"), _texts),
    _command(
        "SCAN", st.just(0), st.just("MATCH"), st.sampled_from(["*", "h*", "*1", "?1"]), st.just("COUNT"), st.just(1000)
    ),
    _command("DBSIZE"),
    _command("GET"),
    _command("EVALSHA", st.just("0" * 40), st.just(0)),
)

# --- the ledger's scripts -----------------------------------------------------------------------------------------------

_owners, _epochs = st.sampled_from(["a", "b"]), st.integers(1, 3)
_orders = st.sampled_from(["k1", "k2"])
_quantities = st.sampled_from(["0", "1", "2.5", "10", "0.0000000000000000000000000001", "9999999.9999999"]).map(
    lambda text: _fixed(Decimal(text))
)
_operations = st.sampled_from([f"o{number}" for number in range(12)])
_events = st.lists(st.sampled_from(['{"e":1}', "é" * 40]), max_size=2)
_right = st.sampled_from([True, True, True, True, False])
_child_fields = st.lists(st.tuples(st.sampled_from(["c:1", "c:2", "parent"]), _texts), max_size=3)


def _call(script: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Call]:
    return st.builds(Call, st.just(script), st.fixed_dictionaries(fields), _right)


calls: st.SearchStrategy[Call] = st.one_of(
    _call(
        "lease",
        verb=st.sampled_from(["acquire", "acquire", "renew", "release"]),
        owner=_owners,
        epoch=_epochs,
        ms=st.sampled_from([10**7, 10**7, 10**7, 0]),
        more=st.sampled_from(["", "own", "run1", "run2"]),
    ),
    _call(
        "accept",
        order=_orders,
        operation=_operations,
        content=st.sampled_from(["h1 ord", "h1 ord", "h2 ord"]),
        mode=st.sampled_from(["own", "own", "hand", "end"]),
        owner=_owners,
        epoch=_epochs,
        quantity=_quantities,
        claimed=_quantities,
        events=_events,
    ),
    *[
        _call(
            "commit",
            order=_orders,
            operation=_operations,
            owner=_owners,
            epoch=_epochs,
            version=st.integers(1, 4),
            places=st.integers(0, 1),
            quantity=_quantities | st.just(""),
            ended=st.sampled_from([0, 0, 0, 1, 2]),
            held=_quantities,
            claims=st.lists(st.tuples(st.sampled_from(["k:1", "k:2", "x:3"]), _quantities), max_size=3),
            events=_events,
            fields=_child_fields,
        )
        for _ in range(3)
    ],
    _call("hand", command=_texts, operation=st.sampled_from(["c1", "c2"])),
    _call("note", event=_texts, command=st.sampled_from(["c1", "c2"])),
    _call("published", owner=_owners, epoch=_epochs, last=st.builds(Entry, st.integers(0, 4))),
    _call(
        "trades",
        shard=st.integers(0, 1),
        most=st.just(1000),
        trades=st.lists(st.tuples(st.integers(100, 120), _texts, _texts), max_size=4),
    ),
    _call(
        "pulse",
        verb=st.sampled_from(["beat", "beat", "trip", "restore", "resume", "told", "prune"]),
        source=st.sampled_from(["p", "q"]),
        number=st.integers(0, 4),
        text=_texts,
    ),
    _call(
        "order_state",
        order=_orders,
        sequence=st.integers(1, 20),
        keep=st.sampled_from(["", 200_000]),
        fields=_child_fields,
    ),
)


def wording(call: Call, state: dict[bytes, bytes], version: bytes | None) -> tuple[list[str], list[Any]]:
    """Keys and arguments of a script call. `state` is the shard's lease, `version` that of the order, as they are."""
    said = dict(call.fields)
    if call.right:
        if call.script != "lease" or said["verb"] != "acquire":
            said["owner"], said["epoch"] = state.get(b"owner", b"a"), state.get(b"epoch", b"1")
        said["version"] = version or b"1"
    key = said.get("order", "")
    match call.script:
        case "lease":
            return [SHARD.lease, SHARD.inbox], [said["verb"], said["owner"], said["epoch"], said["ms"], said["more"]]
        case "accept":
            words = [said["operation"], said["content"], said["mode"], said["owner"], said["epoch"], said["quantity"]]
            words += [said["claimed"], 200_000, 300_000, key, len(said["events"]), *said["events"]]
            keys = [SHARD.order(key), SHARD.signal(key), SHARD.live, SHARD.outbox, SHARD.lease, SHARD.inbox]
            return keys, [*words, "v", 1, "parent", "{}", "k:1", said["claimed"]]
        case "commit":
            words = [said["operation"], said["owner"], said["epoch"], said["version"], said["places"], said["quantity"]]
            words += [said["ended"], 200_000, 300_000, len(said["claims"]), len(said["events"]), said["held"]]
            words += [word for pair in said["claims"] for word in pair]
            words += said["events"] + [word for pair in said["fields"] for word in pair]
            return [SHARD.order(key), SHARD.live, SHARD.outbox, SHARD.lease, SHARD.signal(key)], words
        case "note":
            return [SHARD.outbox, SHARD.command(said["command"])], [said["event"], 200_000]
        case "hand":
            return [SHARD.inbox, SHARD.command(said["operation"])], [said["command"], 200_000]
        case "published":
            following = Entry(said["last"].number, following=True)
            return [SHARD.outbox, SHARD.outbox_cursor, SHARD.lease], [
                said["owner"],
                said["epoch"],
                said["last"],
                following,
            ]
        case "trades":
            rows = [word for at, *values in said["trades"] for word in (at, "f", values[0], "g", values[1])]
            return ["STREAM:TRADE", "cursors"], [said["shard"], said["most"], 2, *rows]
        case "pulse":
            return ["pulses"], [said["verb"], said["source"], said["number"], said["text"]]
        case "order_state":
            words = [word for pair in said["fields"] for word in pair]
            return [f"ORDER:{key}"], [said["sequence"], said["keep"], *words]
    raise AssertionError(call.script)
