"""Places where a test may kill the process: between any two writes.

Off unless asked for. `FAILPOINTS` lists `NAME=ACTION[@N]`: at the N-th hit (default the first) of the named point, `kill` ends the
process as SIGKILL does, `hang` stops the whole process (SIGSTOP) as a long pause does.
"""

from __future__ import annotations

import os
import signal

_armed: dict[str, tuple[str, int]] = {}


def arm(text: str) -> None:
    """Arm the points of a `FAILPOINTS` setting.

    Raises:
        ValueError: it is not of the form NAME=ACTION[@N].
    """
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, rest = item.partition("=")
        action, _, nth = rest.partition("@")
        if action not in ("kill", "hang") or (nth and not nth.isdigit()):
            raise ValueError(f"FAILPOINTS: {item!r} is not NAME=kill|hang[@N]")
        _armed[name] = (action, int(nth or 1))


def hit(name: str) -> None:
    """Pass a point."""
    if not _armed or name not in _armed:
        return
    action, left = _armed[name]
    if left > 1:
        _armed[name] = (action, left - 1)
        return
    del _armed[name]
    os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)
