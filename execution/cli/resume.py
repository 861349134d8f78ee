"""`execution resume`: a person ends a halt of the dead man's switch."""

from __future__ import annotations

import uuid
from typing import Annotated

import typer

from execution.cli.connection import load_settings, pubsub, run_async
from execution.cli.output import CommandError, out, print_plain
from execution.settings import Settings
from schemas import exact_json


def resume(
    context: typer.Context,
    strategy: Annotated[str | None, typer.Argument(metavar="STRATEGY", help="The strategy's id.")] = None,
    every_halt: Annotated[bool, typer.Option("--all", help="End every halt, also one by a source.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why; told in the event `service.resumed`.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the command's id as JSON.")] = False,
) -> int:
    """End a halt of the dead man's switch: live orders go on where they stood, and new signals are taken again."""
    if (strategy is None) is not every_halt:
        raise CommandError("give either a STRATEGY or --all", 2)
    settings = load_settings(context.obj, needs=("google_cloud_project",))
    return run_async(_resume(settings, strategy, reason, as_json))


async def _resume(settings: Settings, strategy: str | None, reason: str | None, as_json: bool) -> int:
    from execution.pubsub import OutgoingMessage, Publisher, SubscriptionSpec, ensure, topic_name

    command = {"type": "resume", "command_id": f"cli_{uuid.uuid4().hex}"}
    command |= {"scope": "all"} if strategy is None else {"scope": "strategy", "value": strategy}
    command |= {"reason": reason} if reason is not None else {}
    async with pubsub(settings) as channel:
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
        out.print(f"published resume for {strategy or 'every halt'} as {command['command_id']} to {topic}")
    return 0
