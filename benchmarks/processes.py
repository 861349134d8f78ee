"""CPU time of processes, as the kernel counts it (Linux)."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used in all its threads, user and system, in seconds; steps of 10 ms."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / _TICKS


def child_running(module: str) -> int:
    """The pid of the child of this process that runs a Python module.

    Raises:
        LookupError: there is none.
    """
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in children.read_text().split():
            if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                return int(pid)
    raise LookupError(f"no child runs {module}")
