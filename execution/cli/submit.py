"""`execution submit`: publish signals, and follow what becomes of them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from execution.cli.connection import load_settings, pubsub, run_async
from execution.cli.output import CommandError, event_line, note, out, print_plain
from execution.settings import Settings
from schemas import exact_json
from schemas.order import OrderStatus
from schemas.signal import InvalidSignal, parse, unwrap

if TYPE_CHECKING:
    from execution.cli.event_stream import EventStream
    from execution.pubsub import PubSubChannel


def submit(
    context: typer.Context,
    file: Annotated[
        str, typer.Argument(help="A JSON object, an array, or one object a line; `-` reads standard input.")
    ],
    validate: Annotated[
        bool, typer.Option("--validate/--no-validate", help="Check every signal here before any is published.")
    ] = True,
    wait: Annotated[bool, typer.Option("--wait", help="Print the orders' events until every order has ended.")] = False,
    timeout: Annotated[float, typer.Option(help="With --wait: seconds after which to stop waiting.", min=0.1)] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print ids and events as JSON, one a line.")] = False,
) -> int:
    """Publish signals to the signals topic."""
    signals = read_signals(file)
    if validate:
        check(signals, file)
    elif wait:
        _require_ids(signals)
    settings = load_settings(context.obj, needs=("google_cloud_project",))
    return run_async(_submit(settings, signals, timeout if wait else None, as_json))


def read_signals(file: str) -> list[dict[str, Any]]:
    """The signals in a file, numbers with all of their digits.

    Raises:
        CommandError: it cannot be read, or is not JSON objects.
    """
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}", 2) from error
    try:
        whole = exact_json.decode(text)
        found = whole if isinstance(whole, list) else [whole]
    except ValueError as not_one_document:
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        if len(lines) < 2 or not _begins_as_document(lines[0][1]):
            raise CommandError(f"{file}: not JSON: {not_one_document}", 2) from not_one_document
        found = [_line(file, number, line) for number, line in lines]
    if not found:
        raise CommandError(f"{file}: holds no signal", 2)
    for number, signal in enumerate(found, 1):
        if not isinstance(signal, dict):
            raise CommandError(f"{file}: signal {number} is not a JSON object", 2)
    return found


def _begins_as_document(line: str) -> bool:
    """Whether a first line is a document of its own: then the file is meant as JSON lines."""
    try:
        exact_json.decode(line)
    except ValueError:
        return False
    return True


def _line(file: str, number: int, line: str) -> Any:
    try:
        return exact_json.decode(line)
    except ValueError as error:
        raise CommandError(f"{file}: line {number} is not JSON: {error}", 2) from error


def check(signals: list[dict[str, Any]], file: str) -> None:
    """Validate all of them.

    Raises:
        CommandError: naming every wrong one.
    """
    problems = []
    for number, fields in enumerate(signals, 1):
        inner = unwrap(fields)
        label = f"signal {number}" + (f" ({inner['signal_id']})" if isinstance(inner.get("signal_id"), str) else "")
        try:
            _, ignored = parse(inner)
        except InvalidSignal as error:
            problems.append(f"{file}: {label}: {error}")
            continue
        if ignored:
            note(f"{label}: {', '.join(ignored)} will be ignored")
    if problems:
        raise CommandError("\n".join([*problems, "nothing was published"]) if len(signals) > 1 else problems[0], 2)


def _require_ids(signals: Iterable[dict[str, Any]]) -> None:
    if not all(isinstance(unwrap(signal).get("signal_id"), str) for signal in signals):
        raise CommandError("--wait needs a signal_id in every signal", 2)


async def _submit(settings: Settings, signals: list[dict[str, Any]], timeout: float | None, as_json: bool) -> int:
    async with pubsub(settings) as channel, contextlib.AsyncExitStack() as stack:
        if timeout is None:
            return await _publish(channel, settings, signals, as_json)
        from execution.cli.event_stream import order_events

        events = await stack.enter_async_context(order_events(channel, settings))  # before the first event can come
        await _publish(channel, settings, signals, as_json)
        return await _follow(events, [str(unwrap(signal)["signal_id"]) for signal in signals], timeout, as_json)


async def _publish(channel: PubSubChannel, settings: Settings, signals: list[dict[str, Any]], as_json: bool) -> int:
    from execution.pubsub import OutgoingMessage, Publisher, SubscriptionSpec, ensure, topic_name

    if channel.is_emulator:
        # With its subscription, so that nothing is lost when the service starts only later.
        spec = SubscriptionSpec(settings.signals_subscription, settings.signals_topic)
        await ensure(channel, channel.project, [], [spec], create=True, timeout=5.0)
    topic = topic_name(channel.project, settings.signals_topic)
    attributes = {"content-type": "application/json"}
    messages = [OutgoingMessage(exact_json.encode(signal), attributes) for signal in signals]
    ids = await Publisher(channel).publish(topic, messages)
    for signal, message_id in zip(signals, ids, strict=True):
        signal_id = unwrap(signal).get("signal_id")
        if as_json:
            print_plain(exact_json.encode({"signal_id": signal_id, "message_id": message_id}).decode())
        else:
            out.print(f"published {signal_id or '(no signal_id)'} as message {message_id} to {topic}")
    return 0


async def _follow(events: EventStream, signal_ids: list[str], timeout: float, as_json: bool) -> int:
    last: dict[str, str] = dict.fromkeys(signal_ids, "no event yet")
    open_ = set(signal_ids)
    try:
        async with asyncio.timeout(timeout):
            while open_:
                event, data = await anext(events)
                signal_id = str(event.get("signal_id"))
                if signal_id not in last:
                    continue
                if as_json:
                    print_plain(data.decode())
                else:
                    out.print(event_line(event))
                last[signal_id] = str(event.get("status"))
                if last[signal_id] in _ENDED and event.get("sequence") != 0:
                    open_.discard(signal_id)
    except TimeoutError:
        waiting = ", ".join(f"{signal_id} ({last[signal_id]})" for signal_id in signal_ids if signal_id in open_)
        raise CommandError(
            f"no end within {timeout:g} s: {waiting}. A signal id that was used before causes no new events: "
            "see `execution show SIGNAL_ID`"
        ) from None
    return 1 if any(status in _BAD for status in last.values()) else 0


_ENDED = frozenset(status.value for status in OrderStatus if status.terminal)
_BAD = frozenset({OrderStatus.REJECTED.value, OrderStatus.FAILED.value})
