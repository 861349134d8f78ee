"""The ledger: the only rooms that know Redis keys. One Lua commit per transition."""

from execution.ledger.journal import Restored
from execution.ledger.keys import child_id, generated_order_id, key_of_child, order_key, shard_of
from execution.ledger.ledger import Ledger
from execution.ledger.reader import LedgerReader
from execution.ledger.records import (
    Accepted,
    AcceptOutcome,
    Change,
    Conflict,
    Duplicate,
    Fenced,
    Lease,
    LedgerMismatch,
    LoadedOrder,
    Overfill,
    ShardsDiffer,
)

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
    "Restored",
    "ShardsDiffer",
    "child_id",
    "generated_order_id",
    "key_of_child",
    "order_key",
    "shard_of",
]
