"""`execution dev`."""

from __future__ import annotations

import asyncio
import os
import re
from typing import Annotated

import typer

from execution import logs
from execution.cli.output import CommandError
from execution.settings import Settings

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h)?")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def dev(
    context: typer.Context,
    duration: Annotated[
        str | None,
        typer.Option("--for", metavar="20s", help="End by itself after this long (s, m, h), with a summary."),
    ] = None,
    rate: Annotated[float, typer.Option(min=0.1, max=200.0, help="Signals per second of the demo strategy.")] = 4.0,
) -> int:
    """Run everything locally: Redis, Pub/Sub, three venues, a demo strategy, the service, a live view.

    Ends on Ctrl-C with a summary; exit code 0 when signals, orders, fills and events add up, 1 when they do not.
    """
    settings = Settings.load(context.obj, needs=())
    logs.configure(settings.model_copy(update={"log_level": "CRITICAL"}))  # the service logs to its own file
    from execution.dev.main import main

    given = {
        name.upper(): str(getattr(settings, name))
        for name in Settings.model_fields
        if settings.origin(name) != "default" and getattr(settings, name) is not None
    }
    seconds = _seconds(duration) if duration is not None else None
    return asyncio.run(main(settings, seconds=seconds, rate=rate, environment={**os.environ, **given}))


def _seconds(text: str) -> float:
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise CommandError(f"--for {text}: must be a time such as 20s, 5m or 1h", 2)
    return float(match.group(1)) * _UNITS[match.group(2) or "s"]
