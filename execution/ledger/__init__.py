"""The ledger: the only rooms that know Redis keys. One Lua commit per transition."""

from execution.ledger.keys import child_id, generated_order_id, key_of_child, order_key, shard_of
from execution.ledger.ledger import (
    Accepted,
    AcceptOutcome,
    Change,
    Conflict,
    Duplicate,
    Fenced,
    Lease,
    Ledger,
    LedgerMismatch,
    LoadedOrder,
    Overfill,
    ShardsDiffer,
)
from execution.ledger.reader import LedgerReader

__all__ = [
    "AcceptOutcome",
    "Accepted",
    "Change",
    "Conflict",
    "Duplicate",
    "Fenced",
    "Lease",
    "Ledger",
    "LedgerMismatch",
    "LedgerReader",
    "LoadedOrder",
    "Overfill",
    "ShardsDiffer",
    "child_id",
    "generated_order_id",
    "key_of_child",
    "order_key",
    "shard_of",
]
