"""Algorithms: what to place, amend and cancel, decided from records alone. Imports schemas only."""

from typing import Any

from algorithms.base import Algorithm
from algorithms.direct import Direct

ALGORITHMS: dict[str, Algorithm[Any, Any]] = {algorithm.name: algorithm for algorithm in (Direct(),)}
"""Every algorithm by the name a signal uses."""
