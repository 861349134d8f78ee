"""What the page on reliability names exists: metrics, lines of the log, commands with their options, tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from execution.cli.app import app
from execution.metrics import Metrics

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
SOURCE = "\n".join(path.read_text() for name in ("execution", "adapters") for path in (ROOT / name).rglob("*.py"))


def test_metrics_exist() -> None:
    known = {
        name
        for metric in Metrics().registry.collect()
        for name in (metric.name, f"{metric.name}_total", *(sample.name for sample in metric.samples))
    }
    named = set(re.findall(r"`((?:execution|process)_[a-z_]+)[`{]", PAGE))
    assert named
    assert named - known == set()


def test_lines_of_the_log_exist() -> None:
    lists = re.findall(r"log ((?:`[^`]+`(?:, )?)+)", PAGE)
    named = {line for found in lists for line in re.findall(r"`([^`]+)`", found)}
    assert len(named) > 10
    assert {line for line in named if f'"{line}"' not in SOURCE} == set()


@pytest.mark.parametrize("line", sorted(set(re.findall(r"`(execution [a-z]+[^`]*)`", PAGE))))
def test_commands_and_options_exist(line: str) -> None:
    words = line.split()[1:]
    command = get_command(app).commands[words[0]]  # type: ignore[attr-defined]
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words[1:] if word.startswith("-")} <= options


def test_tests_exist() -> None:
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    for name in re.findall(r"`(test_[a-z_]+)`", PAGE):
        assert f"def {name}(" in tests, name
    for name in re.findall(r"\btests/[a-z_/]+\.py", PAGE):
        assert (ROOT / name).exists(), name
