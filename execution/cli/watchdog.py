"""`execution watchdog`: cancels our orders when no replica of the service lives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from execution.cli.connection import load_settings, run_async
from execution.cli.output import print_plain
from execution.settings import Settings, SettingsError
from schemas import exact_json

if TYPE_CHECKING:
    from adapters.base import Adapter
    from adapters.ccxt_venue import Endpoint
    from execution.store import Store

ALL_CANCELED = 3
SOME_LEFT = 4
STORE_AGAIN = 1.0
"""Seconds between attempts to reach a store at the start."""


def watchdog(
    context: typer.Context,
    timeout: Annotated[
        float, typer.Option(help="Seconds without a heartbeat of any replica after which orders are canceled.", min=1)
    ] = 60.0,
    every_order: Annotated[
        bool, typer.Option("--all", help="Cancel every open order of the accounts, not only the service's own.")
    ] = False,
    keep_exits: Annotated[
        bool,
        typer.Option("--keep-exits", help="Leave exits of brackets and reduce-only stops that the ledger knows."),
    ] = False,
    cancel_without_store: Annotated[
        bool, typer.Option("--cancel-without-store", help="Count a Redis that does not answer as silence.")
    ] = False,
    once: Annotated[
        bool,
        typer.Option("--once", help="End after the first cancels: exit code 3 nothing is left, 4 something may be."),
    ] = False,
) -> int:
    """Watch the service from beside it, and cancel its orders when no replica has lived for a while. Prints JSON lines."""
    settings = load_settings(context.obj, needs=("adapter_endpoints",))
    return run_async(_watch(settings, timeout, every_order, keep_exits, cancel_without_store, once))


async def _watch(
    settings: Settings, timeout: float, every_order: bool, keep_exits: bool, without_store: bool, once: bool
) -> int:
    from execution.watchdog import Watchdog

    venues = _venues(settings)
    if not venues:
        raise SettingsError(["ADAPTER_ENDPOINTS: no venue holds orders when the service is gone: all are paper"])
    print_event("watching", {"venues": sorted(venues), "timeout_seconds": timeout})
    store = await _store(settings)
    try:
        dog = Watchdog(
            store,
            venues,
            print_event,
            timeout=timeout,
            every_order=every_order,
            keep_exits=keep_exits,
            without_store=without_store,
        )
        await dog.check_venues()
        await dog.run(once=once)
    finally:
        await store.close()
    return SOME_LEFT if dog.left else ALL_CANCELED


async def _store(settings: Settings) -> Store:
    """The service's store, once it is there: what was never seen cannot be missed."""
    from execution.embedded.redis_server import EmbeddedRedis
    from execution.store import STORE_ERRORS, Store

    told = False
    while True:
        url = settings.redis_url or EmbeddedRedis.locate(settings.data_dir / "redis")
        if url is None:
            raise SettingsError(["REDIS_URL: is required: the service's Redis, such as redis://localhost:6379/0"])
        try:
            return await Store.connect(url)
        except STORE_ERRORS as error:
            if not told:
                print_event("store_unreachable", {"error": str(error), "counts_as_silence": False})
            told = True
        except ValueError as error:
            raise SettingsError([f"REDIS_URL: {error}"]) from error
        await asyncio.sleep(STORE_AGAIN)


def _venues(settings: Settings) -> dict[str, Callable[[], Adapter]]:
    from adapters.ccxt_venue import parse_endpoints

    try:
        endpoints = parse_endpoints(settings.adapter_endpoints)
    except ValueError as error:
        raise SettingsError([str(error)]) from error
    return {endpoint.name: _maker(settings, endpoint) for endpoint in endpoints if endpoint.where != "paper"}


def _maker(settings: Settings, endpoint: Endpoint) -> Callable[[], Adapter]:
    from adapters.ccxt_venue import CcxtAdapter

    def make() -> Adapter:
        credentials = settings.credentials(endpoint.name)
        return CcxtAdapter(
            endpoint,
            credentials.for_ccxt() if credentials is not None else None,
            request_ttl_ms=int(settings.request_ttl * 1000),
            clock_bound_ms=settings.clock_bound_ms,
        )

    return make


def print_event(event: str, details: dict[str, Any]) -> None:
    """One line of JSON: what happened, when (ms since the epoch), and its details."""
    print_plain(exact_json.encode({"event": event, "timestamp": time.time_ns() // 1_000_000, **details}).decode())
