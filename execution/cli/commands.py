"""`execution cancel` and `amend`: commands on the control topic, and the events that answer them."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import TYPE_CHECKING, Annotated, Any

import typer

from execution.cli.connection import ledger, load_settings, pubsub, run_async
from execution.cli.output import CommandError, event_line, note, out, print_plain
from execution.settings import Settings, SettingsError
from schemas import exact_json
from schemas.command import InvalidCommand, parse
from schemas.order import OrderStatus

if TYPE_CHECKING:
    from execution.cli.event_stream import EventStream
    from execution.pubsub import PubSubChannel

Identifier = Annotated[str, typer.Argument(metavar="ID", help="An order id or a signal id.")]
Reason = Annotated[str | None, typer.Option(help="Why; kept with the order and told in its events.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the event that answers.")]
Timeout = Annotated[float, typer.Option(help="With --wait: seconds after which to stop waiting.", min=0.1)]
Json = Annotated[bool, typer.Option("--json", help="Print the command's id and the events as JSON, one a line.")]


def cancel(
    context: typer.Context,
    identifier: Identifier,
    reason: Reason = None,
    wait: Wait = False,
    timeout: Timeout = 30.0,
    as_json: Json = False,
) -> int:
    """Cancel an order: what is open at the venues is canceled, what has filled stays filled."""
    settings = load_settings(context.obj, needs=("google_cloud_project",))
    return run_async(
        _send(settings, "order.cancel", identifier, {"reason": reason}, timeout if wait else None, as_json)
    )


def amend(
    context: typer.Context,
    identifier: Identifier,
    quantity: Annotated[
        str | None, typer.Option(help="New total in the base asset, what has filled already counted in.")
    ] = None,
    price: Annotated[str | None, typer.Option(help="New limit price in the quote asset.")] = None,
    reason: Reason = None,
    wait: Wait = False,
    timeout: Timeout = 30.0,
    as_json: Json = False,
) -> int:
    """Give an order a new quantity or limit price; what is not given stays."""
    settings = load_settings(context.obj, needs=("google_cloud_project",))
    fields = {"quantity": quantity, "price": price, "reason": reason}
    return run_async(_send(settings, "order.amend", identifier, fields, timeout if wait else None, as_json))


async def _send(
    settings: Settings, kind: str, identifier: str, fields: dict[str, str | None], timeout: float | None, as_json: bool
) -> int:
    given = {name: value for name, value in fields.items() if value is not None}
    command = {"type": kind, "command_id": f"cli_{uuid.uuid4().hex}", "order_id": identifier, **given}
    try:
        parse(command)
    except InvalidCommand as error:
        raise CommandError(str(error), 2) from error
    if not await _is_order_id(settings, identifier):
        command["signal_id"] = command.pop("order_id")
    async with pubsub(settings) as channel, contextlib.AsyncExitStack() as stack:
        if timeout is None:
            return await _publish(channel, settings, command, as_json)
        from execution.cli.event_stream import order_events

        events = await stack.enter_async_context(order_events(channel, settings))  # before the answer can come
        await _publish(channel, settings, command, as_json)
        return await _answer(events, command, identifier, timeout, as_json)


async def _is_order_id(settings: Settings, identifier: str) -> bool:
    """Whether ID is an order id: by its form, else by the ledger. Where that cannot be asked, it is taken as a signal id."""
    from execution.ledger import LoadedOrder
    from execution.ledger.keys import key_of_generated
    from execution.store import StoreRefused, StoreUnavailable

    if key_of_generated(identifier) is not None:
        return True
    try:
        async with ledger(settings) as reader:
            found = await reader.order(identifier)
    except (SettingsError, CommandError, StoreUnavailable, StoreRefused):
        note(f"{identifier} is taken as a signal id: the ledger cannot be asked whether it is an order id")
        return False
    if found is None:
        raise CommandError(f"no order has the order id or signal id {identifier}")
    if isinstance(found, LoadedOrder):
        return found.parent.signal_id != identifier
    return found.event.signal_id != identifier


async def _publish(channel: PubSubChannel, settings: Settings, command: dict[str, Any], as_json: bool) -> int:
    from execution.pubsub import OutgoingMessage, Publisher, SubscriptionSpec, ensure, topic_name

    if channel.is_emulator:
        # With its subscription, so that nothing is lost when the service starts only later.
        spec = SubscriptionSpec(settings.control_subscription, settings.control_topic)
        await ensure(channel, channel.project, [], [spec], create=True, timeout=5.0)
    topic = topic_name(channel.project, settings.control_topic)
    message = OutgoingMessage(exact_json.encode(command), {"content-type": "application/json"})
    await Publisher(channel).publish(topic, [message])
    if as_json:
        print_plain(exact_json.encode({"command_id": command["command_id"]}).decode())
    else:
        named = command.get("order_id") or command["signal_id"]
        out.print(f"published {command['type']} for {named} as {command['command_id']} to {topic}")
    return 0


async def _answer(events: EventStream, command: dict[str, Any], identifier: str, timeout: float, as_json: bool) -> int:
    """Print the order's events up to the one that answers; 0: done, 1: refused."""
    try:
        async with asyncio.timeout(timeout):
            async for event, data in events:
                if identifier not in (event.get("order_id"), event.get("signal_id")):
                    continue
                if as_json:
                    print_plain(data.decode())
                else:
                    out.print(event_line(event))
                if f"{command['type']} refused" in str(event.get("reason")):
                    return 1
                if event.get("event_type") == "order.amended" and command["type"] == "order.amend":
                    return 0
                if event.get("status") in _ENDED and event.get("sequence") != 0:
                    return 0 if command["type"] == "order.cancel" else 1
    except TimeoutError:
        pass
    raise CommandError(f"no answer within {timeout:g} s: see `execution show {identifier}` and the service's log")


_ENDED = frozenset(status.value for status in OrderStatus if status.terminal)
