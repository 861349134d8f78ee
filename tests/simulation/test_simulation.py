"""Seeded runs of the whole service on virtual time: every promise holds in each of them, and the same seed is the same run.

Each batch runs in a process of its own, with the order of sets fixed. `make simulate SEEDS=n` runs more.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BATCH = 60


def simulation(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--processes", "1", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, 5 * BATCH, BATCH))
def test_every_promise_holds_in_every_run(first: int) -> None:
    done = simulation("--first", str(first), "--seeds", str(BATCH))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_seed_is_one_run() -> None:
    """Alone, again, and after others in the same process."""
    alone, again = simulation("--seed", "7"), simulation("--seed", "7")
    assert alone.stdout == again.stdout
    assert "every promise held" in alone.stdout
    steps = re.search(r"[\d,]+ steps", alone.stdout)
    after_others = simulation("--first", "5", "--seeds", "3", "--each")
    assert steps is not None
    assert f"seed 7: {steps.group()}" in after_others.stdout


def test_safeguards_switched_off_are_noticed() -> None:
    """A sample; `python -m tests.simulation --mutants` prints the whole table."""
    sample = (
        "epoch_check,early_acknowledge,blind_resend,expiry_wait,signal_dedupe,fill_dedupe,intent_before_send,late_fills"
    )
    done = simulation("--mutants", sample, "--seeds", "60")
    assert done.returncode == 0, done.stdout
