"""The service's own Lua scripts, run by Lua 5.1 as Redis runs them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import lupa.lua51 as lupa  # type: ignore[import-untyped]

from tests.simulation.redis_data import Reply, ReplyError, UnknownCommand

Call = Callable[[bytes, tuple[bytes, ...]], Reply]

_MOST_ON_THE_STACK = 7000
_VALUE, _TABLE, _NESTED = 0, 1, 2
_LISTS = frozenset({b"HMGET", b"TIME", b"SMEMBERS"})
"""Commands whose reply is a list without lists in it."""

# What scripts see is what Redis shows them: no files, no clock, no random numbers, and no globals of their own.
_PRELUDE = b"""
local call, lists = ...
local env = {
  assert = assert, error = error, ipairs = ipairs, next = next, pairs = pairs, pcall = pcall, rawequal = rawequal,
  rawget = rawget, select = select, tonumber = tonumber, tostring = tostring, type = type, unpack = unpack,
  string = string, table = table,
  math = {abs = math.abs, ceil = math.ceil, floor = math.floor, fmod = math.fmod, huge = math.huge, max = math.max,
          min = math.min, modf = math.modf},
  redis = {},
}
function env.redis.call(name, ...)
  if lists[name] then return {call(name, ...)} end
  local reply = call(name, ...)
  if reply == true then return {ok = 'OK'} end
  return reply
end
env._G = env
local strict = {
  __index = function(_, name) error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2) end,
  __newindex = function() error("Attempt to modify a readonly table", 2) end,
}
env.KEYS, env.ARGV = {}, {}
setmetatable(env, strict)

local function compile(text, name)
  local script, problem = loadstring(text, name)
  if not script then error(problem, 0) end
  return setfenv(script, env)
end

local function answer(reply)
  if type(reply) ~= 'table' then return 0, reply end
  if rawget(reply, 'ok') or rawget(reply, 'err') then return 2, reply end
  local count = 0
  while true do
    local one = reply[count + 1]
    if one == nil then return 1, unpack(reply, 1, count) end
    if type(one) == 'table' then return 2, reply end
    count = count + 1
  end
end

local function run(script, keys, ...)
  local all = {...}
  rawset(env, 'KEYS', {unpack(all, 1, keys)})
  rawset(env, 'ARGV', {select(keys + 1, ...)})
  return answer(script())
end

return compile, run
"""


class Lua:
    """One Lua for every simulated server: a server for each would never be freed, as Lua and Python hold each other."""

    def __init__(self) -> None:
        self._lua = lupa.LuaRuntime(
            encoding=None, unpack_returned_tuples=True, register_eval=False, register_builtins=False
        )
        lists = self._lua.table_from(dict.fromkeys(_LISTS, True))
        self._compile, self._run = self._lua.execute(_PRELUDE, self._called, lists)
        self._scripts: dict[bytes, Any] = {}
        self._call: Call | None = None

    def compiled(self, text: bytes) -> bytes:
        """Make a script known; returns its SHA-1.

        Raises:
            ReplyError: it is not Lua.
        """
        sha = hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()
        if sha not in self._scripts:
            first, newline, rest = text.partition(b"\n")
            if first.startswith(b"#!"):
                if first != b"#!lua":
                    raise UnknownCommand(f"a script that begins with {first!r}")
                text = newline + rest
            try:
                self._scripts[sha] = self._compile(text, b"@user_script")
            except lupa.LuaError as error:
                raise ReplyError(f"ERR Error compiling script (new function): {_message(error)}") from None
        return sha

    def run(self, sha: bytes, keys: int, words: tuple[bytes, ...], call: Call) -> Reply:
        """Run a script; `call` carries out its commands.

        Raises:
            ReplyError: it failed, where it stood: what it had written stays.
        """
        if len(words) > _MOST_ON_THE_STACK:
            raise UnknownCommand("a script with more arguments than Lua's stack holds")
        self._call = call
        try:
            kind, *parts = self._run(self._scripts[sha], keys, *words)
        except ReplyError as error:
            raise ReplyError(f"{error} script: {sha.decode()}, on @user_script.") from None
        except lupa.LuaError as error:
            raise ReplyError(f"ERR {_message(error)} script: {sha.decode()}, on @user_script.") from None
        finally:
            self._call = None
        if kind == _TABLE:
            return [_reply(part) for part in parts]
        return _reply(parts[0])

    def _called(self, name: bytes, *words: bytes | float) -> Any:
        assert self._call is not None
        reply = self._call(name, tuple([word if type(word) is bytes else _text(word) for word in words]))
        if type(reply) is bytes or type(reply) is int:
            return reply
        if reply is None:
            return False
        if reply == "OK":
            return True
        if name in _LISTS:
            return tuple([False if one is None else one for one in reply])
        raise UnknownCommand(f"the reply of {name.decode()} inside a script")


def _text(word: Any) -> bytes:
    """A number that a script gives as an argument, as Redis writes it."""
    if type(word) is int:
        return b"%d" % word
    if isinstance(word, float):
        raise UnknownCommand(f"a script gives the number {word!r}, which servers write differently")
    raise ReplyError("ERR Lua redis lib command arguments must be strings or integers")


def _reply(value: Any) -> Reply:
    """What a script returns, as Redis replies it."""
    if isinstance(value, bytes):
        return value
    if value is None or value is False:
        return None
    if value is True:
        return 1
    if isinstance(value, int | float):
        return int(value)
    if lupa.lua_type(value) != "table":
        return None
    if value[b"err"] is not None:
        raise ReplyError(value[b"err"].decode())
    if value[b"ok"] is not None:
        return str(value[b"ok"].decode())
    parts: list[Reply] = []
    while (part := value[len(parts) + 1]) is not None:
        parts.append(_reply(part))
    return parts


def _message(error: Exception) -> str:
    text = error.args[0] if error.args else b""
    return (text.decode(errors="replace") if isinstance(text, bytes) else str(text)).partition("\n")[0]
