"""Google's own Pub/Sub emulator as a process, where it is installed: with the Google Cloud CLI, or as a jar beside Java."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

START_SECONDS = 40.0


def find_jar() -> Path | None:
    """The emulator's jar: `PUBSUB_EMULATOR_JAR`, or inside the SDK that `gcloud` on the PATH belongs to."""
    named = os.environ.get("PUBSUB_EMULATOR_JAR")
    if named:
        return Path(named)
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        return None
    roots = [Path(gcloud).resolve().parent.parent, Path("/usr/lib/google-cloud-sdk")]
    for root in roots:
        for jar in sorted((root / "platform" / "pubsub-emulator" / "lib").glob("cloud-pubsub-emulator-*.jar")):
            return jar
    return None


def missing() -> str | None:
    """Why it cannot be started here; None when it can."""
    if shutil.which("java") is None:
        return "Google's emulator needs Java"
    return None if find_jar() is not None else "Google's Pub/Sub emulator is not installed"


class OfficialPubSub:
    """A running emulator at `host`."""

    def __init__(self) -> None:
        self.host = ""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> OfficialPubSub:
        """Start it and wait until it listens."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = ["java", "-Xmx512m", "-jar", str(find_jar()), "--host=127.0.0.1", f"--port={port}"]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    self.host = f"127.0.0.1:{port}"
                    return self
            time.sleep(0.1)
        self.stop()
        raise AssertionError("Google's emulator did not start")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
