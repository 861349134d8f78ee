"""`execution tail`: order events as they happen."""

from __future__ import annotations

from typing import Annotated

import typer

from execution.cli.connection import load_settings, pubsub, run_async
from execution.cli.output import event_line, note, out, print_plain
from execution.settings import Settings


def tail(
    context: typer.Context,
    order: Annotated[
        list[str] | None, typer.Option("--order", help="Only this order or signal id; may be given again.")
    ] = None,
    strategy: Annotated[
        list[str] | None, typer.Option("--strategy", help="Only this strategy; may be given again.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print events as published, one a line.")] = False,
) -> int:
    """Print order events as they happen, until Ctrl-C."""
    settings = load_settings(context.obj, needs=("google_cloud_project",))
    return run_async(_tail(settings, frozenset(order or ()), frozenset(strategy or ()), as_json))


async def _tail(settings: Settings, orders: frozenset[str], strategies: frozenset[str], as_json: bool) -> int:
    from execution.cli.event_stream import order_events

    async with pubsub(settings) as channel, order_events(channel, settings) as events:
        note(f"waiting for events on {settings.events_topic}; Ctrl-C ends")
        async for event, data in events:
            if orders and orders.isdisjoint((event.get("order_id"), event.get("signal_id"))):
                continue
            if strategies and event.get("strategy_id") not in strategies:
                continue
            if as_json:
                print_plain(data.decode())
            else:
                out.print(event_line(event))
    return 0
