"""Reconciliation: open orders, trades and positions of each venue account, against the ledger.

`reconciler` says when a venue is looked at; `open_orders`, `trades` and `positions` compare and repair one thing each; `report` is what
a look says of itself, and `request` asks every replica for one.
"""

from execution.reconcile.reconciler import Reconciler
from execution.reconcile.report import Drift, VenueReport

__all__ = ["Drift", "Reconciler", "VenueReport"]
