"""What is wrong with a file of recorded data."""


class RecordingError(Exception):
    """A file cannot be read as market data; the message names the file, what was seen, and what would do."""
