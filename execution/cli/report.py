"""`execution report`: what orders cost, as a page and as a table."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from execution.cli.connection import load_settings, run_async
from execution.cli.output import CommandError, note
from execution.settings import Settings, SettingsError

if TYPE_CHECKING:  # heavy imports: each command pays for what it uses
    from execution.store import Store
    from schemas.tca import CostReport

_AGO = re.compile(r"(\d{1,6})([mhdw])")
_UNIT_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def report(
    context: typer.Context,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page to write.")] = Path("report.html"),
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Also write a table, one row per order.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Orders that ended since: 90m, 12h, 7d, 2w ago, or an ISO date or time (UTC)."
        ),
    ] = None,
    strategy: Annotated[str | None, typer.Option(help="Only orders of this strategy.")] = None,
    algorithm: Annotated[str | None, typer.Option(help="Only orders worked by this algorithm.")] = None,
    venue: Annotated[
        str | None, typer.Option(help="Only orders traded at this venue, there alone or there too.")
    ] = None,
) -> int:
    """Write what orders cost against the market. Positive is cost, always; in basis points."""
    since_ms = 0 if since is None else since_when(since, time.time_ns() // 1_000_000)
    settings = load_settings(context.obj, needs=())
    return run_async(_report(settings, out, csv, since_ms, strategy, algorithm, venue))


async def _report(
    settings: Settings,
    out: Path,
    csv: Path | None,
    since_ms: int,
    strategy: str | None,
    algorithm: str | None,
    venue: str | None,
) -> int:
    from execution.report import write_csv, write_html
    from execution.tca.stored import load_reports

    async with _store(settings) as store:
        found = await load_reports(store, since_ms=since_ms)
    chosen = [one for one in found if _matches(one, strategy, algorithm, venue)]
    if not chosen:
        note("no order has a cost report yet" if not found else f"none of {len(found)} cost reports matches")
        return 1
    try:
        write_html(chosen, out)
        if csv is not None:
            write_csv(chosen, csv)
    except OSError as error:
        raise CommandError(f"{error.filename or out}: {error.strerror}") from error
    note(f"{len(chosen)} orders in {out}" + (f" and {csv}" if csv is not None else ""))
    return 0


def since_when(text: str, now_ms: int) -> int:
    """A time in ms: some minutes, hours, days or weeks before now, or an ISO date or time, in UTC unless it says otherwise.

    Raises:
        typer.BadParameter: it is neither.
    """
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now_ms - int(ago[1]) * _UNIT_MS[ago[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is neither a time ago, such as 90m, 12h, 7d or 2w, nor an ISO date or time", param_hint="--since"
        ) from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _matches(report: CostReport, strategy: str | None, algorithm: str | None, venue: str | None) -> bool:
    return (
        strategy in (None, report.strategy)
        and algorithm in (None, report.algorithm)
        and (venue is None or venue in report.venues)
    )


@contextlib.asynccontextmanager
async def _store(settings: Settings) -> AsyncIterator[Store]:
    from execution.embedded.redis_server import EmbeddedRedis
    from execution.store import Store

    url = settings.redis_url or EmbeddedRedis.locate(settings.data_dir / "redis")
    if url is None:
        raise SettingsError(
            [
                "REDIS_URL: is required: the service's Redis, such as redis://localhost:6379/0 (no embedded one runs in "
                f"{settings.data_dir})"
            ]
        )
    try:
        store = await Store.connect(url)
    except ValueError as error:
        raise SettingsError([f"REDIS_URL: {error}"]) from error
    async with store:
        yield store
