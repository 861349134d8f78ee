"""`execution run`, `doctor` and `schemas`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from execution.cli.connection import load_settings, run_async
from execution.cli.output import CommandError, json_document, note, out, print_plain
from execution.settings import Settings, SettingsError


def run(context: typer.Context) -> int:
    """Run the service until SIGTERM or Ctrl-C."""
    settings = Settings.load(context.obj)
    from execution import daemon

    return asyncio.run(daemon.run(settings))


def doctor(
    context: typer.Context,
    live: Annotated[
        str | None, typer.Option(metavar="URL", help="Ask the running service at URL for its health instead.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as a JSON array.")] = False,
) -> int:
    """Check settings, Redis, Pub/Sub, venues, clocks, folders and ports, and say what to do. Exit code 0: all is well."""
    if live is not None:
        return _live(live, as_json)
    try:
        settings = load_settings(context.obj, needs=())
    except SettingsError as error:
        return _print_findings_of_settings(error, as_json)
    return run_async(_examine(settings, as_json))


def _live(url: str, as_json: bool) -> int:
    from execution.doctor import ask_live

    report = ask_live(url)
    if as_json:
        json_document(report)
    else:
        for part in report["components"]:
            out.print(f"{_MARK[part['status']]} {part['name']}: {part['detail'] or part['status']}")
    return 0 if report["status"] != "down" else 1


def _print_findings_of_settings(error: SettingsError, as_json: bool) -> int:
    from execution.doctor import Finding

    findings = [Finding("down", "settings", problem) for problem in error.problems]
    if as_json:
        json_document(findings)
    else:
        for finding in findings:
            _print(finding.status, finding.check, finding.detail, finding.advice)
    return 1


async def _examine(settings: Settings, as_json: bool) -> int:
    from execution import logs
    from execution.doctor import examine

    logs.configure(settings.model_copy(update={"log_level": "CRITICAL"}))
    findings = []
    async for finding in examine(settings):
        findings.append(finding)
        if not as_json:
            _print(finding.status, finding.check, finding.detail, finding.advice)
    if as_json:
        json_document(findings)
    return 1 if any(finding.status == "down" for finding in findings) else 0


def _print(status: str, check: str, detail: str, advice: str) -> None:
    out.print(f"{_MARK[status]} {check}: {detail}", style=_STYLE[status])
    if advice:
        out.print(f"  -> {advice}")


_MARK = {"ok": "\u2714", "degraded": "!", "down": "\u2718"}
_STYLE = {"ok": "", "degraded": "yellow", "down": "red"}


def schemas(
    directory: Annotated[Path | None, typer.Argument(help="Where to write NAME.schema.json files.")] = None,
) -> int:
    """Print the JSON Schemas of signals, commands, events and records, or write them to a directory."""
    from schemas import export

    if directory is None:
        json_document(export.schemas())
        return 0
    try:
        written = export.write(directory)
    except OSError as error:
        raise CommandError(f"{directory}: cannot be written: {error.strerror}") from error
    for path in written:
        print_plain(str(path))
    note(f"{len(written)} schemas")
    return 0
