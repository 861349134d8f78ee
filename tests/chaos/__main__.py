"""`python -m tests.chaos`: real processes under seeded faults, judged by the venues' own records.

python -m tests.chaos --seeds 20               20 runs from seed 0 on, one after the other
python -m tests.chaos --seeds 1 --first 7      one seed
python -m tests.chaos --minutes 10             so many runs as begin within ten minutes

The same seed has the same signals and the same faults at the same times; what they meet is decided by the machine, so a failing seed is
tried several times to see it again. The directory of a failing run is kept: the replicas' logs, and what everybody recorded.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

import structlog

from tests.chaos.run import BETWEEN_FAULTS, run


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10, help="how many runs at most (default %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so many minutes")
    parser.add_argument("--seconds", type=float, default=30.0, help="of trouble per run (default %(default)s)")
    parser.add_argument(
        "--between", type=float, default=BETWEEN_FAULTS, help="mean seconds between faults (default %(default)s)"
    )
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()), help="where failing runs are kept")
    options = parser.parse_args()
    logging.disable()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    began = time.monotonic()
    failed, runs, totals, struck = [], 0, Counter[str](), Counter[str]()
    for seed in range(options.first, options.first + options.seeds):
        if time.monotonic() - began > options.minutes * 60:
            break
        folder = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-", dir=options.keep))
        started, runs = time.monotonic(), runs + 1
        try:
            outcome = asyncio.run(run(seed, folder, seconds=options.seconds, between=options.between))
        except Exception as error:
            failed.append(seed)
            print(f"seed {seed}: the run itself failed: {type(error).__name__}: {error}\n  kept: {folder}", flush=True)
            continue
        verdict = outcome.verdict
        counts = {name: getattr(verdict, name) for name in ("orders", "children", "fills", "events")}
        totals.update(counts)
        struck.update(outcome.struck)
        told = ", ".join(f"{count} {name}" for name, count in counts.items())
        befell = ", ".join(f"{name} x{times}" for name, times in sorted(outcome.struck.items()))
        took = f"{time.monotonic() - started:.0f} s, all ended {outcome.ended_in:.0f} s after the last fault"
        print(f"seed {seed}: {'BROKEN' if verdict.broken else 'ok'}; {told}; {took}; {befell}", flush=True)
        if verdict.broken:
            failed.append(seed)
            print(f"{verdict}\n  kept: {folder}", flush=True)
        else:
            shutil.rmtree(folder)
    told = ", ".join(f"{count} {name}" for name, count in totals.items())
    befell = ", ".join(f"{name} x{times}" for name, times in sorted(struck.items()))
    print(f"{runs} runs, {len(failed)} failed {failed or ''}; {told}\nfaults: {befell}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
