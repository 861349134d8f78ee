"""`execution run` under a sampling profiler, and where its CPU time goes by part of the program.

    python -m benchmarks.profiled FILE

SIGUSR1 begins the profile, SIGUSR2 ends it and writes FILE: JSON, seconds by part.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from pyinstrument import Profiler

IDLE = "waiting"
OTHER = "other"
EVENT_LOOP = "event loop: asyncio, sockets, gRPC's core"

PARTS = (
    ("selectors.py", IDLE),
    ("execution/outbox.py", "outbox: projections, events to Pub/Sub"),
    ("execution/projections.py", "outbox: projections, events to Pub/Sub"),
    ("execution/ledger/outbox.py", "outbox: projections, events to Pub/Sub"),
    ("execution/pubsub/publisher.py", "outbox: projections, events to Pub/Sub"),
    ("schemas/event.py", "outbox: projections, events to Pub/Sub"),
    ("execution/pubsub/", "Pub/Sub: receive, acknowledge"),
    ("/grpc/", "Pub/Sub: receive, acknowledge"),
    ("/proto/", "Pub/Sub: receive, acknowledge"),
    ("execution/accept.py", "decode, validate, accept"),
    ("schemas/signal.py", "decode, validate, accept"),
    ("/pydantic/", "decode, validate, accept"),
    ("execution/ledger/", "ledger: encode, commit"),
    ("execution/store/", "ledger: encode, commit"),
    ("/redis/", "ledger: encode, commit"),
    ("/hiredis/", "ledger: encode, commit"),
    ("adapters/ccxt_venue/parsing.py", "venue: parse"),
    ("adapters/ccxt_venue/stream.py", "venue: stream of updates"),
    ("/ccxt/pro/", "venue: stream of updates"),
    ("/ccxt/async_support/base/ws/", "venue: stream of updates"),
    ("/aiohttp/", "venue: stream of updates"),
    ("adapters/ccxt_venue/transport.py", "venue: transport"),
    ("adapters/ccxt_venue/limiter.py", "venue: transport"),
    ("adapters/ccxt_venue/", "venue: build, sign"),
    ("/ccxt/", "venue: build, sign"),
    ("execution/order_", "orders: decide, book, requests"),
    ("execution/venue_requests.py", "orders: decide, book, requests"),
    ("execution/runner.py", "orders: decide, book, requests"),
    ("execution/gates.py", "orders: decide, book, requests"),
    ("execution/reconcile.py", "orders: decide, book, requests"),
    ("algorithms/", "orders: decide, book, requests"),
    ("schemas/order.py", "orders: decide, book, requests"),
    ("schemas/market.py", "orders: decide, book, requests"),
    ("execution/logs.py", "logs and metrics"),
    ("/structlog/", "logs and metrics"),
    ("/logging/", "logs and metrics"),
    ("execution/metrics.py", "logs and metrics"),
    ("/prometheus_client/", "logs and metrics"),
    ("/asyncio/", EVENT_LOOP),
)
"""Parts of the program by where a frame's code lies. A sample belongs to its innermost frame that is listed."""


def part_of(files: Iterable[str]) -> str:
    """The part that a stack belongs to, given its files from the innermost outwards."""
    for file in files:
        for piece, part in PARTS:
            if piece in file:
                return part
    return OTHER


def summed(profiler: Profiler) -> dict[str, float]:
    """Seconds by part."""
    session = profiler.last_session
    assert session is not None
    parts: dict[str, float] = {}
    for stack, seconds in session.frame_records:
        part = part_of(frame.split("\0")[1] for frame in reversed(stack) if frame.count("\0"))
        parts[part] = parts.get(part, 0.0) + seconds
    return parts


def main(file: Path) -> int:
    """Run the service until SIGTERM."""
    from execution.cli import main as execution

    profiler = Profiler(interval=0.001, async_mode="disabled")

    def end(*_: object) -> None:
        profiler.stop()
        unfinished = file.with_suffix(".new")
        unfinished.write_text(json.dumps(summed(profiler)))
        unfinished.rename(file)

    signal.signal(signal.SIGUSR1, lambda *_: profiler.start())
    signal.signal(signal.SIGUSR2, end)
    sys.argv = ["execution", "run"]
    return execution()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
