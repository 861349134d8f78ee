"""The command `execution dev`: start everything, show it working, and say at the end whether it adds up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from adapters.simulator.process import VenueNotStarted
from execution.dev.audit import Audit, audit
from execution.dev.stack import DevStackError, Stack
from execution.dev.strategy import DemoStrategy
from execution.dev.view import cost_lines, progress_line, screen
from execution.dev.watch import Watch
from execution.embedded.pubsub.process import PubSubNotStarted
from execution.embedded.redis_server import EmbeddedRedisError
from execution.ledger import LedgerReader
from execution.pubsub import (
    Publisher,
    PubSubChannel,
    Subscriber,
    SubscriptionSpec,
    connect,
    ensure,
    subscription_name,
    topic_name,
)
from execution.pubsub.errors import PubSubError
from execution.settings import Settings
from execution.store import Store

SETTLE_SECONDS = 20.0
LINE_SECONDS = 2.0
PATIENCE = 1.0
"""A signal to a process group comes twice, from the terminal and from make; only one that comes later means "at once"."""
FRAMES_PER_SECOND = 4


async def main(settings: Settings, *, seconds: float | None, rate: float, environment: Mapping[str, str]) -> int:
    """Run the dev stack for so many seconds, or until Ctrl-C or SIGTERM; returns the exit code.

    `rate`: signals per second. `environment`: what the servers and the service inherit.
    """
    console = Console(file=sys.stdout, highlight=False)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    asked: list[float] = []

    def stop() -> None:
        asked.append(loop.time())
        if asked[-1] - asked[0] > PATIENCE:
            os._exit(130)  # asked again: at once; the children end with us
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    console.print("starting: state store, Pub/Sub emulator, three venues, the service ...", style="dim")
    try:
        stack = await Stack.start(Path(settings.data_dir), environment, settings.port)
    except (DevStackError, VenueNotStarted, PubSubNotStarted, EmbeddedRedisError, OSError) as error:
        sys.stderr.write(f"execution dev: {error}\n")
        return 1
    try:
        await stack.start_service()
        return await _Session(settings, stack, console, rate).run(seconds, stopping)
    except (DevStackError, PubSubError) as error:
        sys.stderr.write(f"execution dev: {error}\n")
        return 1
    finally:
        await stack.stop()


class _Session:
    """One run on a stack that stands."""

    def __init__(self, settings: Settings, stack: Stack, console: Console, rate: float) -> None:
        self._settings = settings
        self._stack = stack
        self._console = console
        self._rate = rate
        self._project = stack.environment["GOOGLE_CLOUD_PROJECT"]
        self._watch = Watch()
        self._started = time.monotonic()

    async def run(self, seconds: float | None, stopping: asyncio.Event) -> int:
        settings, stack = self._settings, self._stack
        channel = connect(self._project, stack.environment["PUBSUB_EMULATOR_HOST"])
        subscriber = await self._follow(channel)
        following = asyncio.create_task(subscriber.run())
        strategy = DemoStrategy(
            Publisher(channel),
            topic_name(self._project, settings.signals_topic),
            topic_name(self._project, settings.control_topic),
            {name: venue.url for name, venue in stack.venues.items()},
            seed=int(time.time()),
        )
        for line in self._introduction():
            self._console.print(line, style="dim")
        publishing = asyncio.create_task(strategy.run(self._rate))
        assert stack.service is not None
        service = asyncio.create_task(stack.service.wait())
        try:
            ended = await self._show(strategy, seconds, stopping, service)
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)
            if ended:
                raise DevStackError(f"the service ended by itself: {stack.last_words()}")
            return await self._finish(strategy)
        finally:
            publishing.cancel()
            service.cancel()
            await subscriber.stop(1.0)
            following.cancel()
            await asyncio.gather(publishing, service, following, return_exceptions=True)
            await channel.close()

    async def _follow(self, channel: PubSubChannel) -> Subscriber:
        """A subscription of our own on the event topic, as any consumer would have."""
        setting = f"dev-view-{os.getpid()}"
        spec = SubscriptionSpec(setting, self._settings.events_topic)
        await ensure(channel, self._project, [self._settings.events_topic], [spec], create=True)
        return Subscriber(channel, subscription_name(self._project, setting), self._watch.handle)

    def _introduction(self) -> list[str]:
        stack = self._stack
        venues = ", ".join(f"{name} {venue.url}" for name, venue in stack.venues.items())
        return [
            *stack.notes,
            f"venues: {venues}",
            f"health http://127.0.0.1:{stack.port}/health/ready   metrics http://127.0.0.1:{stack.port}/metrics",
            f"log {stack.log_file}   in a second terminal: execution orders | tail | show ID | cancel ID | submit FILE",
        ]

    async def _show(
        self,
        strategy: DemoStrategy,
        seconds: float | None,
        stopping: asyncio.Event,
        service: asyncio.Task[int],
    ) -> bool:
        """Show until the time is up or a stop is asked for; True when the service ended by itself."""
        stop = asyncio.create_task(stopping.wait())
        started = self._started = time.monotonic()
        live = self._console.is_terminal
        pause = 1 / FRAMES_PER_SECOND if live else LINE_SECONDS
        header = "\n".join(self._introduction())
        with Live(console=self._console, auto_refresh=False, screen=True) if live else contextlib.nullcontext() as view:
            while not stop.done() and not service.done():
                elapsed = time.monotonic() - started
                if seconds is not None and elapsed >= seconds:
                    break
                left = pause if seconds is None else min(pause, max(seconds - elapsed, 0.01))
                await asyncio.wait([stop, service], timeout=left, return_when=asyncio.FIRST_COMPLETED)
                elapsed = time.monotonic() - started
                if isinstance(view, Live):
                    view.update(screen(header, len(strategy.published), self._watch, elapsed), refresh=True)
                else:
                    self._console.print(progress_line(len(strategy.published), self._watch, elapsed))
        stop.cancel()
        return service.done()

    async def _finish(self, strategy: DemoStrategy) -> int:
        """Let every order end, stop the service as its host would, and compare everybody's records."""
        self._console.print("stopping: canceling what is open, waiting for the last events ...", style="dim")
        deadline = time.monotonic() + SETTLE_SECONDS
        asked: set[tuple[str, bool]] = set()
        while time.monotonic() < deadline:
            told = {event.signal_id for event in self._watch.latest.values()}
            waiting = {(event.signal_id, event.status.terminal) for event in self._watch.open}
            if not waiting and told >= strategy.published.keys():
                break
            for order in waiting - asked:
                # A bracket is asked twice: once for its entry, then for its exits.
                asked.add(order)
                await strategy.cancel(order[0], "the demo ends")
            await asyncio.sleep(0.1)
        code = await self._stack.stop_service()
        by_hand = (signal for signal, events in self._watch.by_signal.items() if signal and events[-1].sequence > 0)
        result = await self._audit(list(dict.fromkeys([*strategy.published, *by_hand])))
        if code != 0:
            result.problems.append(f"the service ended with exit code {code}: {self._stack.last_words()}")
        self._report(result)
        return 0 if result.adds_up else 1

    async def _audit(self, signals: list[str]) -> Audit:
        """Compare, and again for a few seconds while events are still on their way."""
        records: dict[str, dict[str, Any]] = {}
        for name, venue in self._stack.venues.items():
            async with venue.control() as control:
                records[name] = await control.record()
        store = await Store.connect(self._stack.environment["REDIS_URL"])
        try:
            reader = LedgerReader(store)
            await reader.open()
            deadline = time.monotonic() + 5
            while True:
                result = await audit(signals, records, reader, self._watch)
                if result.adds_up or time.monotonic() > deadline:
                    return result
                await asyncio.sleep(0.2)
        finally:
            await store.close()

    def _report(self, result: Audit) -> None:
        say = self._console.print
        statuses = ", ".join(f"{count} {status}" for status, count in sorted(result.statuses.items()))
        seconds = time.monotonic() - self._started
        say()
        say(f"signals published   {result.signals}")
        say(f"orders              {result.orders}   ({statuses})")
        say(
            f"fills               {result.fills_at_venues} at the venues, {result.fills_in_ledger} in the ledger, "
            f"{result.fills_in_events} in events"
        )
        say(f"events published    {result.events}   ({result.events_repeated} delivered again, counted once)")
        costs = cost_lines(self._watch)
        if costs:
            say("cost by algorithm   (positive is cost; execution report writes a page with charts)")
        for line in costs:
            say(line)
        for problem in result.problems[:20]:
            say(f"  does not add up: {problem}", style="red")
        if len(result.problems) > 20:
            say(f"  ... and {len(result.problems) - 20} more", style="red")
        verdict = "everything adds up" if result.adds_up else f"{len(result.problems)} contradictions"
        say(f"{verdict} after {seconds:.0f} s", style="bold green" if result.adds_up else "bold red")
