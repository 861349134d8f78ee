"""The state store: Redis, seen so that a write whose outcome is not known is never taken for a failure or a success."""

from execution.store.errors import StoreRefused, StoreTooOld, StoreUnavailable
from execution.store.report import StoreReport
from execution.store.script import Script
from execution.store.store import Store
from execution.store.subscription import Subscription

STORE_ERRORS = (StoreUnavailable, StoreRefused)
"""Whatever keeps a call from being answered with a reply; `StoreRefused` was certainly not applied."""

__all__ = [
    "STORE_ERRORS",
    "Script",
    "Store",
    "StoreRefused",
    "StoreReport",
    "StoreTooOld",
    "StoreUnavailable",
    "Subscription",
]
