"""A venue as a child process."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import tempfile
from pathlib import Path

import msgspec

from adapters.simulator.control import VenueControl
from adapters.simulator.server import VenueConfig

START_SECONDS = 30.0


class VenueNotStarted(Exception):
    """The venue's process ended or said nothing; the message has its last words."""


class VenueProcess:
    """A running venue. It ends with its parent."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, folder: Path) -> None:
        self._process = process
        self.url = url
        self._folder = folder

    @classmethod
    async def start(cls, config: VenueConfig) -> VenueProcess:
        """Start a venue and wait until it listens.

        Raises:
            VenueNotStarted: with the reason it gave.
        """
        folder = Path(tempfile.mkdtemp(prefix="venue-"))
        settings, port_file, errors = folder / "config.json", folder / "port", folder / "errors"
        settings.write_bytes(msgspec.json.encode(config))
        with errors.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "adapters.simulator",
                "--config-file",
                str(settings),
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
                        raise VenueNotStarted(errors.read_text()[-2000:] or f"exit code {process.returncode}")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            process.kill()
            raise VenueNotStarted(f"it said nothing within {START_SECONDS:g} s") from None
        return cls(process, f"http://{config.host}:{port_file.read_text().strip()}", folder)

    def control(self) -> VenueControl:
        return VenueControl(self.url)

    def kill(self) -> None:
        """End it as SIGKILL does."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def pause(self) -> None:
        """Freeze it: connections stay open, nothing answers."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), 5)
        except TimeoutError:
            self.kill()
            await self._process.wait()
        for path in self._folder.iterdir():
            path.unlink()
        self._folder.rmdir()

    async def __aenter__(self) -> VenueProcess:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
