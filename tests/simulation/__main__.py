"""`python -m tests.simulation`: run seeds, or show that the simulation sees each safeguard that is switched off.

python -m tests.simulation --seeds 1000            from seed 0 on, on every core
python -m tests.simulation --seed 135              one seed, with what befell whom
python -m tests.simulation --mutants --seeds 60    each safeguard switched off in turn: some seed must fail
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor

REAL = time.perf_counter


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=200, help="how many (default %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first one (default %(default)s)")
    parser.add_argument("--seed", type=int, help="run this one alone and tell its story")
    parser.add_argument(
        "--mutants",
        nargs="?",
        const="",
        metavar="NAMES",
        help="switch each safeguard off in turn, or those of a comma list",
    )
    parser.add_argument("--mutant", help="switch this safeguard off")
    parser.add_argument("--each", action="store_true", help="a line for each seed")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets of texts would be another one in every process.
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])
    from tests.simulation.mutants import MUTANTS

    named = {*(options.mutants or "").split(","), options.mutant or ""} - {""}
    if unknown := sorted(named - MUTANTS.keys()):
        parser.error(f"no such safeguard: {', '.join(unknown)}; there are {', '.join(MUTANTS)}")
    if options.mutants is not None:
        return _mutants(options.mutants, options.seeds, options.first, options.processes)
    if options.seed is not None:
        verdict = _run((options.seed, options.mutant))
        print(verdict)
        return 1 if verdict.broken else 0
    return _seeds(range(options.first, options.first + options.seeds), options.mutant, options.processes, options.each)


def _run(job: tuple[int, str | None]):  # type: ignore[no-untyped-def]
    from tests.simulation.mutants import MUTANTS
    from tests.simulation.oracle import Verdict
    from tests.simulation.world import simulate

    seed, mutant = job
    if mutant is not None and mutant not in _applied:
        MUTANTS[mutant]()
        _applied.add(mutant)
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(LONGEST)
    try:
        return simulate(seed)
    except TookTooLong:
        return Verdict(seed, [f"did not come to its end in {LONGEST} s: something goes round and round"])
    finally:
        signal.alarm(0)


class TookTooLong(BaseException):
    """Not an Exception, since nobody on the way may take it for one of its own."""


def _too_long(*_: object) -> None:
    raise TookTooLong


LONGEST = 300
"""Seconds of real time for one seed, which takes about one."""
_applied: set[str] = set()


def _seeds(seeds: range, mutant: str | None, processes: int, each: bool) -> int:
    started = REAL()
    broken, orders, children, fills, steps, seconds = [], 0, 0, 0, 0, 0.0
    with ProcessPoolExecutor(processes) as pool:
        for verdict in pool.map(_run, ((seed, mutant) for seed in seeds), chunksize=4):
            orders += verdict.orders
            children += verdict.children
            fills += verdict.fills
            steps += verdict.steps
            seconds += verdict.virtual_seconds
            if each:
                print(f"seed {verdict.seed}: {verdict.steps:,} steps", flush=True)
            if verdict.broken:
                broken.append(verdict)
                if mutant is None:
                    print(verdict, flush=True)
    elapsed = REAL() - started
    print(
        f"{len(seeds)} seeds, {len(broken)} broken; {orders} orders, {children} child orders, {fills} fills, "
        f"{seconds / 3600:.1f} virtual hours, {steps:,} steps in {elapsed:.0f} s"
    )
    if broken:
        print(
            f"replay one: python -m tests.simulation --seed {broken[0].seed}"
            + (f" --mutant {mutant}" if mutant else "")
        )
    return 1 if broken else 0


def _mutants(names: str, seeds: int, first: int, processes: int) -> int:
    """Each in a process of its own, until a seed fails; returns how many were not noticed."""
    from tests.simulation.mutants import MUTANTS

    unseen, chosen = 0, names.split(",") if names else list(MUTANTS)
    print(f"{'safeguard switched off':26} {'failed at seed':>14} {'seen':>6}   as")
    with multiprocessing.get_context("fork").Pool(processes, maxtasksperchild=1) as pool:
        for name, seed, broken in pool.imap(_first_noticed, [(name, seeds, first) for name in chosen]):
            unseen += seed is None
            at = f"{seed:>14} {seed - first + 1:>6}" if seed is not None else f"{'-':>14} {'no':>6}"
            print(f"{name:26} {at}   {broken[:110] or f'NOT NOTICED in {seeds} seeds'}", flush=True)
    return unseen


def _first_noticed(job: tuple[str, int, int]) -> tuple[str, int | None, str]:
    """The first seed that fails with a safeguard switched off, and what is seen."""
    name, seeds, first = job
    for seed in range(first, first + seeds):
        verdict = _run((seed, name))
        if verdict.broken:
            return name, seed, verdict.broken[0]
    return name, None, ""


if __name__ == "__main__":
    raise SystemExit(main())
