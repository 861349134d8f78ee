"""Logs: the form that Cloud Logging reads, libraries' records, and that no registered secret gets through."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
import structlog

from execution import logs
from execution.settings import Settings


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, configuration = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in ("execution", "adapters", "algorithms", "schemas"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    logging.captureWarnings(False)
    structlog.contextvars.clear_contextvars()
    structlog.configure(**configuration)


def configure(stream: io.StringIO | None = None, **env: str) -> io.StringIO:
    target = stream or io.StringIO()
    settings = Settings.load(env={"PUBSUB_EMULATOR_HOST": "x:1", "ADAPTER_ENDPOINTS": "alpha", **env})
    logs.configure(settings, target)
    return target


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_what_cloud_logging_reads() -> None:
    stream = configure()
    structlog.get_logger("execution.test").bind(order_id="ord_1").warning("held", quantity=Decimal("0.10"))
    (line,) = lines(stream)
    assert line["severity"] == "WARNING"
    assert line["message"] == "held"
    assert line["logger"] == "execution.test"
    assert line["order_id"] == "ord_1"
    assert line["quantity"] == "0.10"
    assert line["time"].endswith("Z")
    assert "T" in line["time"]


def test_context_variables_are_in_every_line_within_them() -> None:
    stream = configure()
    with structlog.contextvars.bound_contextvars(signal_id="sig_1"):
        structlog.get_logger().info("inside")
    structlog.get_logger().info("outside")
    inside, outside = lines(stream)
    assert inside["signal_id"] == "sig_1"
    assert "signal_id" not in outside


def test_levels_below_the_setting_are_dropped() -> None:
    stream = configure(LOG_LEVEL="warning")
    logger = structlog.get_logger()
    logger.info("no")
    logger.error("yes")
    logging.getLogger("execution.part").info("no")
    assert [line["message"] for line in lines(stream)] == ["yes"]


def test_an_exception_is_a_stack_trace_on_the_same_line() -> None:
    stream = configure()
    try:
        raise RuntimeError("no such thing")
    except RuntimeError:
        structlog.get_logger().exception("failed")
    (line,) = lines(stream)
    assert line["severity"] == "ERROR"
    assert "RuntimeError: no such thing" in line["stack_trace"]


def test_libraries_are_heard_from_warning_on_and_our_own_parts_from_the_level() -> None:
    stream = configure()
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("some.library").warning("trouble with %s", "it")
    logging.getLogger("execution.pubsub").info("ours")
    assert [(line["severity"], line["message"]) for line in lines(stream)] == [
        ("WARNING", "trouble with it"),
        ("INFO", "ours"),
    ]


def test_fields_named_as_ours_are_kept_beside_them() -> None:
    stream = configure()
    structlog.get_logger().info("x", time=5, severity="high")
    (line,) = lines(stream)
    assert (line["time_"], line["severity_"], line["severity"]) == (5, "high", "INFO")


def test_what_json_cannot_say_is_still_logged() -> None:
    stream = configure()
    structlog.get_logger().info("odd", thing=object(), number=2**70, text="\ud800", names={1: "a"})
    assert len(lines(stream)) == 1


@pytest.mark.parametrize("form", ["json", "console"])
def test_registered_secrets_are_masked_wherever_they_appear(form: str) -> None:
    stream = configure(
        LOG_FORMAT=form,
        REDIS_URL="redis://:redis%2Fpass@host/0",
        ALPHA_API_KEY="the-key-1",
        ALPHA_API_SECRET='quote"and\\slash',
        API_KEYS="ops:ops-key-1",
    )
    logs.register_secret("registered-later")
    logger = structlog.get_logger()
    logger.info("a the-key-1 in the message", field='x quote"and\\slash y', url="redis://:redis%2Fpass@host/0")
    logger.info("nested", deep={"list": ["ops-key-1", {"registered-later": 1}]})
    logging.getLogger("library").warning("sent redis/pass")
    try:
        raise ValueError("the-key-1 is wrong")
    except ValueError:
        logger.exception("failed")
    text = stream.getvalue()
    for secret in ("the-key-1", "quote", "redis/pass", "redis%2Fpass", "ops-key-1", "registered-later"):
        assert secret not in text
    assert text.count("********") >= 7


def test_a_terminal_gets_lines_for_people() -> None:
    terminal = Terminal()
    configure(terminal)
    structlog.get_logger("execution.test").info("order accepted", order_id="ord_1")
    text = terminal.getvalue()
    assert "order accepted" in text
    assert "ord_1" in text
    assert not text.startswith("{")


def test_json_is_forced_by_setting_on_a_terminal() -> None:
    terminal = Terminal()
    configure(terminal, LOG_FORMAT="json")
    structlog.get_logger().info("x")
    assert lines(terminal)[0]["message"] == "x"


def test_a_reader_that_is_gone_does_not_stop_the_service() -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    configure(Broken())
    logger = structlog.get_logger()
    logger.error("nobody reads this")
    logger.error("nor this")
