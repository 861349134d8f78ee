"""Paper trading: a real (or recorded) market's data in, simulated fills out, behind the adapter protocol."""

from adapters.paper.adapter import PaperAdapter
from adapters.paper.capabilities import Capabilities
from adapters.paper.source import MarketSource

__all__ = ["Capabilities", "MarketSource", "PaperAdapter"]
