"""Keys and ids, all derived from the signal id so that every replica computes the same ones.

An order's key is 20 characters of a hash of its signal id. The key says its shard, names its records, and is the first part
of its children's client order ids, so that an order found at a venue leads back to its record.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib

KEY_LENGTH = 20
_CHILD = re.compile(r"([a-z2-7]{20})n(\d{1,6})")
_GENERATED = re.compile(r"ord_([a-z2-7]{20})")


def order_key(signal_id: str) -> str:
    """The key of the order that a signal becomes: 100 bits of a hash, in the alphabet every venue takes."""
    digest = hashlib.sha256(signal_id.encode()).digest()
    return base64.b32encode(digest[:13])[:KEY_LENGTH].decode().lower()


def generated_order_id(key: str) -> str:
    """The order id of a signal that brought none."""
    return f"ord_{key}"


def key_of_generated(order_id: str) -> str | None:
    """The key inside an order id of ours; None when a client chose the id."""
    match = _GENERATED.fullmatch(order_id)
    return match.group(1) if match else None


def child_id(key: str, number: int) -> str:
    """The client order id of a child: letters and digits only, at most 27 characters."""
    return f"{key}n{number}"


def key_of_child(client_order_id: str | None) -> tuple[str, int] | None:
    """The order key and child number in a client order id of ours; None for anybody else's."""
    match = _CHILD.fullmatch(client_order_id) if client_order_id else None
    return (match.group(1), int(match.group(2))) if match else None


def shard_of(key: str, shards: int) -> int:
    """The shard that an order belongs to."""
    return zlib.crc32(key.encode()) % shards


class ShardKeys:
    """The Redis keys of one shard. They share a hash tag, so that one script may touch them all on a cluster."""

    __slots__ = ("inbox", "lease", "live", "number", "outbox", "outbox_cursor", "tag")

    def __init__(self, shard: int) -> None:
        self.number = shard
        self.tag = f"{{s{shard:02d}}}"
        self.lease = f"{self.tag}:lease"
        self.live = f"{self.tag}:live"
        self.inbox = f"{self.tag}:inbox"
        self.outbox = f"{self.tag}:outbox"
        self.outbox_cursor = f"{self.tag}:outbox:cursor"

    def order(self, key: str) -> str:
        return f"{self.tag}:order:{key}"

    def signal(self, key: str) -> str:
        return f"{self.tag}:signal:{key}"

    def alias(self, order_id: str) -> str:
        return f"{self.tag}:alias:{order_id}"

    def command(self, command_id: str) -> str:
        return f"{self.tag}:command:{command_id}"


SHARDS = "execution:shards"
REPLICAS = "execution:replicas"
WAKE_CHANNEL = "execution:wake"


def heartbeat(instance: str) -> str:
    return f"execution:heartbeat:{instance}"


def order_state(order_id: str) -> str:
    return f"ORDER:{order_id}"


STREAM_TRADE = "STREAM:TRADE"
STREAM_TRADE_CURSORS = "{STREAM:TRADE}:cursors"
