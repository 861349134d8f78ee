"""Files of recorded market data, known by their content, as one stream of events."""

from adapters.recorded.read.errors import RecordingError
from adapters.recorded.read.recording import Recording, Units, open_recording

__all__ = ["Recording", "RecordingError", "Units", "open_recording"]
