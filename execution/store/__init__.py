"""The state store: Redis, seen so that a write whose outcome is not known is never taken for a failure or a success."""

from execution.store.errors import StoreRefused, StoreTooOld, StoreUnavailable
from execution.store.report import StoreReport
from execution.store.script import Script
from execution.store.store import Store
from execution.store.subscription import Subscription

__all__ = ["Script", "Store", "StoreRefused", "StoreReport", "StoreTooOld", "StoreUnavailable", "Subscription"]
