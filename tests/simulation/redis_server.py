"""A Redis in memory: one server that answers as the real one does, can fail, and can forget its last writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from tests.simulation.redis_commands import COMMANDS
from tests.simulation.redis_data import Command, Hash, Keyspace, Reply, ReplyError, UnknownCommand
from tests.simulation.redis_lua import Lua
from tests.simulation.redis_streams import Stream

_INFO = """# Server\r
redis_version:7.2.4\r
server_name:valkey\r
valkey_version:9.1.2\r
run_id:{run_id}\r
server_time_usec:{now_us}\r
uptime_in_seconds:{uptime}\r
# Persistence\r
loading:0\r
async_loading:0\r
aof_enabled:1\r
# Memory\r
maxmemory_policy:noeviction\r
# Replication\r
role:master\r
connected_slaves:0\r
# Cluster\r
cluster_enabled:0\r
"""
_CONFIG = {b"appendfsync": b"always", b"maxmemory-policy": b"noeviction"}
_lua: list[Lua] = []


class Peer(Protocol):
    """A connection, as the server sees it."""

    def ended_by_server(self, reason: str) -> None:
        """The server has ended it: nothing that was under way is carried out or answered any more."""

    def deliver(self, channel: bytes, payload: bytes) -> None:
        """A message of a channel that it subscribed to."""


class SimRedis:
    """One server. It draws nothing at random and knows no time but its clock's."""

    def __init__(self, clock: Callable[[], float], *, remember: float = 10.0) -> None:
        """`clock` in seconds since the epoch. Writes of the last `remember` seconds can be lost; 0 is fastest."""
        self.keyspace = Keyspace(clock, remember)
        self.unknown: list[str] = []
        """What was asked over a connection that the model does not know; a run that leaves something here proves nothing."""
        self.calls = 0
        self.written: Callable[[Sequence[bytes], Sequence[bytes], Reply], None] = lambda _keys, _words, _reply: None
        """Called with the keys, the arguments and the reply of each script that was run."""
        self._clock = clock
        self._generation = 1
        self._away_until = self._frozen_until = float("-inf")
        self._began = clock()
        self._known: set[bytes] = set()
        self._peers: dict[Peer, None] = {}
        self._subscribers: dict[bytes, dict[Peer, None]] = {}
        if not _lua:
            _lua.append(Lua())
        self._lua = _lua[0]
        self._commands = COMMANDS | {
            b"PUBLISH": Command(lambda _, channel, payload: self.publish(channel, payload), 2, 2),
        }

    # --- what it answers ------------------------------------------------------------------------------------------------

    def execute(self, *command: bytes) -> Reply:
        """Carry a command out and return the reply: bytes for a bulk string, str for a status, int, None, or a list.

        Raises:
            ReplyError: the reply is an error.
            UnknownCommand: the model does not know the command; Redis may.
        """
        self.calls += 1
        self.keyspace.tick()
        name, words = command[0].upper(), command[1:]
        if name == b"EVALSHA":
            if words[0] not in self._known:
                raise ReplyError("NOSCRIPT No matching script.")
            return self._script(words[0], words[1:])
        if name == b"EVAL":
            sha = self._lua.compiled(words[0])
            self._known.add(sha)
            return self._script(sha, words[1:])
        if name == b"PING":
            return "PONG"
        if name == b"INFO":
            now = self._clock()
            uptime = int(max(now - self._began, 0.0))
            return _INFO.format(run_id=self.run_id, now_us=int(now * 1e6), uptime=uptime).encode()
        if name == b"CONFIG":
            if len(words) != 2 or words[0].upper() != b"GET" or words[1] not in _CONFIG:
                raise UnknownCommand(f"CONFIG {words!r}")
            return [words[1], _CONFIG[words[1]]]
        return self._carry_out(name, words)

    def _carry_out(self, name: bytes, words: Sequence[bytes]) -> Reply:
        command = self._commands.get(name) or self._commands.get(name.upper())
        if command is None:
            raise UnknownCommand(name.decode(errors="replace"))
        if not command.least <= len(words) <= command.most:
            raise ReplyError(f"ERR wrong number of arguments for '{name.decode().lower()}' command")
        return command.run(self.keyspace, *words)

    def _script(self, sha: bytes, words: tuple[bytes, ...]) -> Reply:
        count = int(words[0])
        reply = self._lua.run(sha, count, words[1:], self._carry_out)
        self.written(words[1 : count + 1], words[count + 1 :], reply)
        return reply

    # --- what it holds, for who judges a run ----------------------------------------------------------------------------

    def hashes(self, containing: str) -> list[tuple[str, dict[bytes, bytes]]]:
        """Every hash whose key contains a text: (key, fields)."""
        self.keyspace.tick()
        values = self.keyspace.values
        names = [key for key in values if type(values[key]) is Hash and containing.encode() in key]
        return [(key.decode(), dict(values[key])) for key in names if self.keyspace.exists(key)]

    def stream(self, key: str) -> list[tuple[str, dict[bytes, bytes]]]:
        """The entries of a stream: (id, fields)."""
        self.keyspace.tick()
        found = self.keyspace.find(key.encode(), Stream) or Stream()
        return [
            (f"{at[0]}-{at[1]}", dict(zip(fields[::2], fields[1::2], strict=True)))
            for at, fields in found.entries.items()
        ]

    def stream_length(self, key: str) -> int:
        self.keyspace.tick()
        found = self.keyspace.find(key.encode(), Stream)
        return len(found.entries) if found is not None else 0

    # --- connections ----------------------------------------------------------------------------------------------------

    @property
    def run_id(self) -> str:
        """Identifies the server process, as INFO tells it."""
        return f"{self._generation:040x}"

    @property
    def away(self) -> bool:
        """Whether nobody can connect now."""
        return self._clock() < self._away_until

    @property
    def frozen_for(self) -> float:
        """Seconds until it does something again; 0 when it works."""
        return max(self._frozen_until - self._clock(), 0.0)

    def join(self, peer: Peer) -> None:
        self._peers[peer] = None

    def leave(self, peer: Peer) -> None:
        self._peers.pop(peer, None)
        for subscribers in self._subscribers.values():
            subscribers.pop(peer, None)

    def subscribe(self, peer: Peer, channel: bytes) -> None:
        self._subscribers.setdefault(channel, {})[peer] = None

    def publish(self, channel: bytes, payload: bytes) -> int:
        """Send a message to who is subscribed now; returns how many those are."""
        receivers = list(self._subscribers.get(channel, ()))
        for receiver in receivers:
            receiver.deliver(channel, payload)
        return len(receivers)

    # --- what happens to it ---------------------------------------------------------------------------------------------

    def down(self, seconds: float) -> None:
        """End every connection; nobody can connect for so long. The data stay."""
        self._away_until = max(self._away_until, self._clock() + seconds)
        self._end_connections("the server went away")

    def freeze(self, seconds: float) -> None:
        """Do nothing for so long, as under a long fork or a stopped machine: connections stay, and what arrives is carried
        out afterwards, whether or not its sender still waits."""
        self._frozen_until = max(self._frozen_until, self._clock() + seconds)

    def restart(self, lose_seconds: float = 0.0, *, away: float = 0.0) -> int:
        """The process ends, and another begins `away` seconds later without the writes of the last `lose_seconds` (those of
        one script and of one moment together). Returns how many changes that were.

        Raises:
            ValueError: more is to be lost than is remembered.
        """
        lost = self.keyspace.take_back(lose_seconds)
        self._generation += 1
        self._known.clear()
        self._frozen_until = float("-inf")
        self._began = self._clock() + away
        self.down(away)
        return lost

    def failover(self, lose_seconds: float = 0.0, *, away: float = 0.0) -> int:
        """A replica takes over that lacks the writes of the last `lose_seconds`; see `restart`, which looks the same from
        outside."""
        return self.restart(lose_seconds, away=away)

    def wipe(self, *, away: float = 0.0) -> None:
        """The process ends, and another begins that holds nothing: a store without a disk."""
        self.keyspace.clear()
        self.restart(away=away)

    def _end_connections(self, reason: str) -> None:
        peers, self._peers = self._peers, {}
        self._subscribers.clear()
        for peer in peers:
            peer.ended_by_server(reason)
