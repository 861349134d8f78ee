"""Recorded and synthetic market data as one stream of events, and a market that replays it on the event loop's clock."""

from adapters.recorded.events import Book, MarketEvent, Trades, merged
from adapters.recorded.read import Recording, RecordingError, open_recording
from adapters.recorded.source import RecordedMarket
from adapters.recorded.synthetic import SyntheticConfig, SyntheticMarket

__all__ = [
    "Book",
    "MarketEvent",
    "RecordedMarket",
    "Recording",
    "RecordingError",
    "SyntheticConfig",
    "SyntheticMarket",
    "Trades",
    "merged",
    "open_recording",
]
