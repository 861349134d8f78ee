"""The emulator as a child process."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from pathlib import Path

START_SECONDS = 30.0


class PubSubNotStarted(Exception):
    """The emulator's process ended or said nothing; the message has its last words."""


class PubSubProcess:
    """A running emulator. It ends with its parent."""

    def __init__(self, process: asyncio.subprocess.Process, host: str) -> None:
        self._process = process
        self.host = host
        """`127.0.0.1:PORT`, as `PUBSUB_EMULATOR_HOST` takes it."""

    @classmethod
    async def start(cls, port: int = 0) -> PubSubProcess:
        """Start the emulator and wait until it listens.

        Raises:
            PubSubNotStarted: with the reason it gave.
        """
        with tempfile.TemporaryDirectory(prefix="pubsub-") as folder:
            port_file, errors = Path(folder) / "port", Path(folder) / "errors"
            with errors.open("wb") as log:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "execution.embedded.pubsub",
                    "--port",
                    str(port),
                    "--port-file",
                    str(port_file),
                    "--die-with-parent",
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=log,
                    start_new_session=True,
                )
            try:
                async with asyncio.timeout(START_SECONDS):
                    while not port_file.exists() or not port_file.read_text().endswith("\n"):
                        if process.returncode is not None:
                            words = errors.read_text()[-2000:].strip()
                            raise PubSubNotStarted(f"the Pub/Sub emulator did not start: {words or process.returncode}")
                        await asyncio.sleep(0.02)
            except TimeoutError:
                process.kill()
                raise PubSubNotStarted(f"the Pub/Sub emulator said nothing within {START_SECONDS:g} s") from None
            return cls(process, f"127.0.0.1:{port_file.read_text().strip()}")

    def kill(self) -> None:
        """End it as SIGKILL does."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), 5)
        except TimeoutError:
            self.kill()
            await self._process.wait()

    async def __aenter__(self) -> PubSubProcess:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
