"""`execution orders` and `show`: what the ledger holds."""

from __future__ import annotations

from typing import Annotated

import typer

from execution.cli.connection import ledger, load_settings, run_async
from execution.cli.output import CommandError, json_document, note
from execution.settings import Settings
from schemas.order import OrderStatus


def orders(
    context: typer.Context,
    status: Annotated[OrderStatus | None, typer.Option(help="Only orders in this status.")] = None,
    limit: Annotated[int, typer.Option(help="How many, newest first.", min=1)] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
) -> int:
    """List orders, newest first."""
    return run_async(_orders(load_settings(context.obj, needs=()), status, limit, as_json))


async def _orders(settings: Settings, status: OrderStatus | None, limit: int, as_json: bool) -> int:
    from execution.cli import order_view

    async with ledger(settings) as reader:
        found = await reader.orders(status.value if status else None, limit)
    rows = [order_view.summary(order) for order in found]
    if as_json:
        json_document(rows)
    elif rows:
        order_view.print_list(rows)
        if len(rows) == limit:
            note(f"the newest {limit}; more with --limit")
    else:
        note(f"no {status.value} orders" if status else "no orders yet")
    return 0


def show(
    context: typer.Context,
    identifier: Annotated[str, typer.Argument(metavar="ID", help="An order id or a signal id.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print all records as one JSON object.")] = False,
) -> int:
    """Show an order, its child orders and its fills."""
    return run_async(_show(load_settings(context.obj, needs=()), identifier, as_json))


async def _show(settings: Settings, identifier: str, as_json: bool) -> int:
    from execution.cli import order_view

    async with ledger(settings) as reader:
        order = await reader.order(identifier)
    if order is None:
        raise CommandError(f"no order has the order id or signal id {identifier}")
    if as_json:
        json_document(order_view.document(order))
    else:
        order_view.print_order(order)
    return 0
