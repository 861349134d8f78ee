"""`python -m execution.embedded.pubsub`: the emulator on a port of its own."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import signal
import sys
from pathlib import Path

from execution.embedded.pubsub.server import PubSubServer

_PR_SET_PDEATHSIG = 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m execution.embedded.pubsub", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8085, help="0: a free one")
    parser.add_argument("--port-file", type=Path, help="where to write the port once it listens")
    parser.add_argument("--die-with-parent", action="store_true")
    arguments = parser.parse_args()
    parent = os.getppid() if arguments.die_with_parent else None
    return asyncio.run(_serve(arguments.host, arguments.port, arguments.port_file, parent))


async def _serve(host: str, port: int, port_file: Path | None, parent: int | None) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if parent is not None and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    server = PubSubServer(host, port)
    try:
        bound = await server.start()
    except OSError as error:
        sys.stderr.write(f"{error}; choose another --port, or 0 for a free one\n")
        return 1
    if port_file is not None:
        port_file.write_text(f"{bound}\n")
    sys.stdout.write(f"Pub/Sub emulator (development only) listening on {host}:{bound}\n")
    sys.stdout.flush()
    while not stopping.is_set():
        try:
            await asyncio.wait_for(stopping.wait(), 1.0)
        except TimeoutError:
            if parent is not None and os.getppid() != parent:
                break
    await server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
