"""`python -m tests.simulation`: run seeds, or show that the simulation sees each safeguard that is switched off.

python -m tests.simulation --seeds 1000            from seed 0 on, on every core
python -m tests.simulation --seed 135              one seed, with what befell whom
python -m tests.simulation --mutants --seeds 60    each safeguard switched off in turn: some seed must fail
"""

from __future__ import annotations

import argparse
import os
import subprocess
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
    parser.add_argument("--mutants", action="store_true", help="switch each safeguard off in turn")
    parser.add_argument("--mutant", help="switch this safeguard off")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets of texts would be another one in every process.
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])
    if options.mutants:
        return _mutants(options.seeds, options.first)
    if options.seed is not None:
        verdict = _run((options.seed, options.mutant))
        print(verdict)
        return 1 if verdict.broken else 0
    return _seeds(range(options.first, options.first + options.seeds), options.mutant, options.processes)


def _run(job: tuple[int, str | None]):  # type: ignore[no-untyped-def]
    from tests.simulation.mutants import MUTANTS
    from tests.simulation.world import simulate

    seed, mutant = job
    if mutant is not None and mutant not in _applied:
        MUTANTS[mutant]()
        _applied.add(mutant)
    return simulate(seed)


_applied: set[str] = set()


def _seeds(seeds: range, mutant: str | None, processes: int) -> int:
    started = REAL()
    broken, orders, children, fills, steps, seconds = [], 0, 0, 0, 0, 0.0
    with ProcessPoolExecutor(processes) as pool:
        for verdict in pool.map(_run, ((seed, mutant) for seed in seeds), chunksize=4):
            orders += verdict.orders
            children += verdict.children
            fills += verdict.fills
            steps += verdict.steps
            seconds += verdict.virtual_seconds
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


def _mutants(seeds: int, first: int) -> int:
    """Each in a process of its own; returns how many were not noticed."""
    from tests.simulation.mutants import MUTANTS

    unseen = 0
    print(f"{'safeguard switched off':26} {'seeds that fail':>16}   what is seen first")
    for name in MUTANTS:
        command = [
            sys.executable,
            "-m",
            "tests.simulation",
            "--mutant",
            name,
            "--seeds",
            str(seeds),
            "--first",
            str(first),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = done.stdout.strip().splitlines()
        summary = (
            lines[-2]
            if len(lines) > 1 and lines[-1].startswith("replay")
            else lines[-1]
            if lines
            else done.stderr[-200:]
        )
        failed = summary.split(" broken")[0].rpartition(" ")[2] if " broken" in summary else "?"
        word = ""
        if lines and lines[-1].startswith("replay"):
            seed = lines[-1].split("--seed ")[1].split()[0]
            story = subprocess.run(
                [sys.executable, "-m", "tests.simulation", "--seed", seed, "--mutant", name],
                capture_output=True,
                text=True,
                check=False,
            ).stdout
            word = story.splitlines()[0][:110] if story else ""
        else:
            unseen += 1
        print(f"{name:26} {failed:>10} of {seeds:<4} {word or 'NOT NOTICED'}", flush=True)
    return unseen


if __name__ == "__main__":
    raise SystemExit(main())
