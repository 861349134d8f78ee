"""Transaction cost analysis: measure one order, keep the reports, compare groups of them."""

from execution.tca.aggregate import DIMENSIONS, FEW, Group, aggregate
from execution.tca.measure import marked_out, measure

__all__ = ["DIMENSIONS", "FEW", "Group", "aggregate", "marked_out", "measure"]
