"""`execution reconcile`: every replica compares the venues with the ledger, now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from execution.cli.connection import load_settings, run_async, state_store
from execution.cli.output import CommandError, json_document, out
from execution.settings import Settings

if TYPE_CHECKING:
    from execution.reconcile.request import Answer


def reconcile(
    context: typer.Context,
    venue: Annotated[str | None, typer.Option(metavar="NAME", help="This venue only.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the replicas' reports as JSON.")] = False,
) -> int:
    """Compare orders, fills and positions of the venues with the ledger now, and repair what differs.

    Exit code 0: everything was compared; 1: a replica or a venue did not answer.
    """
    return run_async(_reconcile(load_settings(context.obj, needs=()), venue, as_json))


async def _reconcile(settings: Settings, venue: str | None, as_json: bool) -> int:
    from execution.reconcile.request import ask

    async with state_store(settings) as store:
        answer = await ask(store, venue)
    if not answer.reports and not answer.silent:
        known = f"no running replica knows a venue {venue}" if venue is not None else "no replica is running"
        raise CommandError(known)
    if as_json:
        json_document(answer.fields())
    else:
        _print(answer)
    return 0 if answer.complete else 1


def _print(answer: Answer) -> None:
    for report in answer.by_venue():
        out.print(
            f"{report.words()} ({report.open_orders} open there, {report.compared} compared, {report.seconds:g} s)"
        )
        for words, ids in (("adopted", report.adopted), ("cancelled", report.cancelled), ("error", report.errors)):
            for one in ids:
                out.print(f"  {words}: {one}")
        for drift in report.drifts:
            out.print(f"  position of {drift.symbol}: {drift.at_venue:f} at the venue, {drift.expected:f} explained")
    for instance in answer.silent:
        out.print(f"{instance}: no answer", style="red")
