"""How commands reach the service: settings, and the stack of `execution dev` where nothing else is set."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Coroutine, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from execution import logs
from execution.cli.output import CommandError, note
from execution.settings import Settings, SettingsError, Source

if TYPE_CHECKING:  # heavy imports: each command pays for what it uses
    from execution.ledger import LedgerReader
    from execution.pubsub import PubSubChannel
    from execution.store import Store

_SAYS_WHERE = ("google_cloud_project", "pubsub_emulator_host", "redis_url", "adapter_endpoints")
_DEV_NAMES = {
    "project": "GOOGLE_CLOUD_PROJECT",
    "pubsub_emulator_host": "PUBSUB_EMULATOR_HOST",
    "redis_url": "REDIS_URL",
    "http_port": "PORT",
    "adapter_endpoints": "ADAPTER_ENDPOINTS",
}


def load_settings(config: Path | None, needs: Iterable[str]) -> Settings:
    """Settings for a command that talks to a running service; a running `execution dev` serves where nothing else is set.

    Raises:
        SettingsError: a value is wrong or missing.
    """
    settings = Settings.load(config, needs=())
    if settings.origin("log_level") == "default":
        logs.configure(
            settings.model_copy(update={"log_level": "ERROR"})
        )  # beside a command's output only what matters
    else:
        logs.configure(settings)
    if all(settings.origin(name) == "default" for name in _SAYS_WHERE):
        # All or nothing: half of a development stack mixed with half of a real one would be the worst of both.
        dev = running_dev_stack(settings.data_dir)
        if dev is not None:
            note(f"using the running `execution dev` ({settings.data_dir / 'dev.json'})")
            return Settings.load(config, needs=needs, fallback=dev)
    return Settings.load(config, needs=needs)


def running_dev_stack(data_dir: Path) -> Source | None:
    """What `execution dev` wrote about itself, if it still runs."""
    path = data_dir / "dev.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        os.kill(int(found["pid"]), 0)
    except FileNotFoundError:
        return None
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # it runs, as another user
    except (OSError, ValueError, KeyError, TypeError) as error:
        note(f"{path} cannot be used: {error}")
        return None
    values = {name: found[key] for key, name in _DEV_NAMES.items() if found.get(key)}
    more = found.get("env")
    return Source(f"execution dev ({path})", {**(more if isinstance(more, dict) else {}), **values})


@contextlib.asynccontextmanager
async def pubsub(settings: Settings) -> AsyncIterator[PubSubChannel]:
    """A channel to Pub/Sub."""
    from execution.pubsub import connect

    channel = connect(settings.google_cloud_project, settings.pubsub_emulator_host)
    try:
        yield channel
    finally:
        await channel.close()


@contextlib.asynccontextmanager
async def state_store(settings: Settings) -> AsyncIterator[Store]:
    """The service's Redis."""
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
    try:
        yield store
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def ledger(settings: Settings) -> AsyncIterator[LedgerReader]:
    """The ledger, to be read."""
    from execution.ledger import LedgerReader

    async with state_store(settings) as store:
        reader = LedgerReader(store)
        try:
            await reader.open()
        except LookupError as error:
            raise CommandError(str(error)) from error
        yield reader


def run_async(work: Coroutine[Any, Any, int | None]) -> int:
    """Run a command's coroutine; SIGTERM ends it as Ctrl-C does, with everything put away."""

    async def main() -> int | None:
        task = asyncio.current_task()
        assert task is not None
        terminated = False

        def terminate() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        try:
            return await work
        except asyncio.CancelledError:
            if terminated:
                return 128 + signal.SIGTERM
            raise

    return asyncio.run(main()) or 0
