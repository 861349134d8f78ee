"""`make bench`: the whole service against a bare loop of ccxt, in one run."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time

import structlog

from benchmarks.orders import Sizes, WrongOrders, measure
from benchmarks.report import text
from benchmarks.rig import Rig
from benchmarks.service import ServiceFailed

MICRO = """\
Parts alone, each with its own --help or docstring:
  python benchmarks/store.py           one commit through the store's client, against plain redis-py
  python benchmarks/pubsub_client.py   receiving and acknowledging, against Google's subscriber
  python benchmarks/ccxt_transport.py  one order through the ccxt adapter, against plain ccxt
"""


def main() -> int:
    """Measure and print; returns 0, or 1 when the orders were not exactly right."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Orders per second, CPU per order and latency of the whole service, beside a bare loop of unmodified ccxt on the"
        " same local venue. Prints nothing unless every order is exactly right.",
        epilog=MICRO,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--orders", type=int, default=5000, help="signals in the backlog of each round (default %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="repetitions, in turns with ccxt (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="one small round, under a minute")
    parser.add_argument(
        "--pubsub", metavar="HOST:PORT", help="use the Pub/Sub emulator that runs there instead of this project's"
    )
    options = parser.parse_args()
    if not sys.platform.startswith("linux"):
        parser.error("CPU times are read from /proc: Linux only")
    if options.orders < 2 or options.rounds < 1:
        parser.error("at least 2 orders and 1 round")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    sizes = Sizes(options.orders, options.rounds, sequential=600, at_once=1200, paced={50: 4.0, 200: 3.0})
    if options.quick:
        sizes = Sizes(min(options.orders, 1500), 1, sequential=300, at_once=600, paced={50: 3.0, 200: 2.0})
    started = time.monotonic()
    try:
        print(asyncio.run(_run(options.pubsub, sizes)))
    except (WrongOrders, ServiceFailed, TimeoutError) as error:
        print(f"no figures: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"{time.monotonic() - started:.0f} s")
    return 0


async def _run(pubsub_host: str | None, sizes: Sizes) -> str:
    def say(what: str) -> None:
        print(f"... {what}", file=sys.stderr)

    say("starting a store, Pub/Sub, a venue, the ccxt loop and the service")
    async with Rig(pubsub_host) as rig:
        return text(await measure(rig, sizes, say))


if __name__ == "__main__":
    sys.exit(main())
