"""Logging: JSON lines for machines, plain lines for a terminal, on stderr; registered secrets are masked in both."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, TextIO
from urllib.parse import quote

import msgspec
import structlog

from execution.credentials import MASK
from execution.settings import Settings

_OURS = ("execution", "adapters", "algorithms", "schemas")
_SEVERITY = {
    "debug": "DEBUG",
    "info": "INFO",
    "warning": "WARNING",
    "error": "ERROR",
    "exception": "ERROR",
    "critical": "CRITICAL",
}
_SHORTEST_SECRET = 4
"""Shorter values would mask ordinary words and digits; they are no secrets either."""

_secrets: list[str] = []


def configure(settings: Settings, stream: TextIO | None = None) -> None:
    """Send all logging of this process to stderr, in the form and from the level that the settings say.

    Libraries' logging goes the same way, from WARNING on. Every secret of the settings is registered.
    """
    target = stream or sys.stderr
    for secret in settings.secrets():
        register_secret(secret)
    level = logging.getLevelNamesMapping()[settings.log_level]
    console = settings.log_format == "console" or (settings.log_format == "auto" and target.isatty())
    render: Any = _Console(colors=target.isatty()) if console else _as_json
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *names: _Line(target, *names),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [_ToStructlog()]
    root.setLevel(max(level, logging.WARNING))
    for name in _OURS:
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(True)


def register_secret(value: str) -> None:
    """Mask a value wherever it appears in a log line, also as JSON, Python or a URL would escape it."""
    if len(value) < _SHORTEST_SECRET:
        return
    escaped = (json.dumps(value), json.dumps(value, ensure_ascii=False), repr(value))
    for form in (value, *(text[1:-1] for text in escaped), quote(value, safe="")):
        if form not in _secrets:
            _secrets.append(form)
    _secrets.sort(key=len, reverse=True)  # a secret that contains another one goes first


def scrub(text: str) -> str:
    """The text with every registered secret masked."""
    for secret in _secrets:
        if secret in text:
            text = text.replace(secret, MASK)
    return text


class _Line:
    """Writes finished lines. Whatever the level, a line is a line."""

    def __init__(self, stream: TextIO, name: str = "") -> None:
        self.name = name
        self._stream: TextIO | None = stream

    def msg(self, line: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(scrub(line) + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            # Whoever read the log is gone. Orders go on; there is nowhere left to say so.
            self._stream = None

    debug = info = warning = error = exception = critical = msg


class _ToStructlog(logging.Handler):
    """Carries records of the standard library's logging over."""

    def emit(self, record: logging.LogRecord) -> None:
        logger = structlog.get_logger(record.name)
        more = {"exc_info": record.exc_info} if record.exc_info else {}
        logger.log(record.levelno, record.getMessage().rstrip(), **more)


class _Console:
    """A line for a person; an exception's frames without their local variables, which may hold anything."""

    def __init__(self, *, colors: bool) -> None:
        self._render = structlog.dev.ConsoleRenderer(
            colors=colors, exception_formatter=structlog.dev.plain_traceback, pad_event_to=32
        )

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        stamped = {"timestamp": datetime.now().astimezone().isoformat(timespec="milliseconds")[11:23], "level": method}
        if logger.name:
            stamped["logger"] = logger.name
        return self._render(logger, method, {**stamped, **event})


_exceptions = structlog.processors.ExceptionRenderer()
_encoder = msgspec.json.Encoder(enc_hook=str)


def _as_json(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
    """A line as Google Cloud Logging reads it."""
    line: dict[str, Any] = {
        "severity": _SEVERITY.get(method, "INFO"),
        "time": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "message": event.pop("event"),
    }
    if logger.name:
        line["logger"] = logger.name
    if "exc_info" in event:
        event = _exceptions(logger, method, event)
        if "exception" in event:
            line["stack_trace"] = event.pop("exception")
    for name, value in event.items():
        line[f"{name}_" if name in line else name] = value
    try:
        return _encoder.encode(line).decode()
    except (TypeError, ValueError, RecursionError, UnicodeEncodeError):
        return json.dumps({name: repr(value) if name not in _PLAIN else str(value) for name, value in line.items()})


_PLAIN = frozenset({"severity", "time", "message", "logger"})
