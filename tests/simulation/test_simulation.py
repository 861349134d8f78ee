"""Seeded runs of the whole service on virtual time: every promise holds in each of them, and the same seed is the same run.

Each batch runs in a process of its own, with the order of sets fixed. `make simulate SEEDS=n` runs more.
"""

from __future__ import annotations

import os
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
    one, two = simulation("--seed", "7"), simulation("--seed", "7")
    assert one.stdout == two.stdout
    assert "every promise held" in one.stdout


@pytest.mark.parametrize("mutant", ["signal_dedupe", "fill_dedupe", "blind_resend"])
def test_a_safeguard_switched_off_is_noticed(mutant: str) -> None:
    """A sample; `python -m tests.simulation --mutants` prints the whole table."""
    done = simulation("--mutant", mutant, "--seeds", "24")
    assert done.returncode == 1, f"{mutant} was not noticed: {done.stdout}"
