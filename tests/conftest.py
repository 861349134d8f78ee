"""Servers that tests share: started once per test process, each test in a corner of its own."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog

from execution.embedded.pubsub.process import PubSubProcess
from execution.embedded.redis_server import EmbeddedRedis
from execution.store import Store
from tests.official_pubsub import OfficialPubSub
from tests.official_pubsub import missing as official_missing

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A real server for this test process; tests flush it before use."""
    folder = Path(tempfile.mkdtemp(prefix="exec-redis-"))
    loop = asyncio.new_event_loop()
    started = loop.run_until_complete(EmbeddedRedis.start(folder))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield started.url
    finally:
        asyncio.run_coroutine_threadsafe(started.stop(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    """A connection to an empty store."""
    connected = await Store.connect(redis_url)
    await connected.call("FLUSHALL")
    yield connected
    await connected.close()


@pytest.fixture(scope="session")
def official_pubsub() -> Iterator[str]:
    """Google's own emulator, where it is installed."""
    reason = official_missing()
    if reason is not None:
        pytest.skip(reason)
    server = OfficialPubSub().start()
    yield server.host
    server.stop()


@pytest.fixture(scope="session")
def embedded_pubsub() -> Iterator[str]:
    """Our own emulator, as a process."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(PubSubProcess.start())
    yield server.host
    loop.run_until_complete(server.stop())
    loop.close()


@pytest.fixture
def pubsub_host(request: pytest.FixtureRequest) -> str:
    """A Pub/Sub server for tests of the whole service: our emulator, or Google's where a test asks for both."""
    kind = getattr(request, "param", "embedded")
    host: str = request.getfixturevalue(f"{kind}_pubsub")
    return host
