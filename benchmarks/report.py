"""The figures as plain text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from benchmarks.orders import AT_ONCE, Repetition, Results
from benchmarks.profiled import IDLE
from benchmarks.rig import cores

GOAL_RATIO = 1.0
GOAL_ARRIVAL_MS = 1.0


def text(results: Results) -> str:
    """The report: tables, ratios with their goals, and where the service's time goes."""
    parts = [_throughput(results), _ratios(results), _latency(results), _profile(results), _conditions(results)]
    return "\n\n".join(parts)


def _throughput(results: Results) -> str:
    rows = [("", "orders/s", "orders per CPU-second", "CPU per order, ms", "of the servers, ms")]
    for name, repetitions in (
        ("ccxt, one after the other", results.sequential),
        (f"ccxt, {AT_ONCE} at once", results.at_once),
        ("the service, backlog", results.service),
    ):
        servers = sorted({server for repetition in repetitions for server in repetition.servers})
        shares = [f"{server} {_server_ms(repetitions, server):.2f}" for server in servers]
        rows.append(
            (
                name,
                _spread([repetition.per_second for repetition in repetitions], "{:.0f}"),
                _spread([repetition.per_cpu_second for repetition in repetitions], "{:.0f}"),
                _spread([1000 / repetition.per_cpu_second for repetition in repetitions], "{:.2f}"),
                ", ".join(shares) or "-",
            )
        )
    return "Saturated: median (lowest to highest) of the rounds\n" + _table(rows)


def _ratios(results: Results) -> str:
    def ratio(of: Callable[[Repetition], float], bare: Sequence[Repetition]) -> float:
        return median(of(one) / of(other) for one, other in zip(results.service, bare, strict=True))

    rows = [("the service / ccxt, same round", "reached", "goal", "")]
    for name, of in (
        ("orders per CPU-second", lambda repetition: repetition.per_cpu_second),
        ("orders/s", lambda repetition: repetition.per_second),
    ):
        for how, bare in (("one after the other", results.sequential), (f"{AT_ONCE} at once", results.at_once)):
            reached = ratio(of, bare)
            rows.append((f"{name}, ccxt {how}", f"{reached:.2f}", f"{GOAL_RATIO:.2f}", _verdict(reached >= GOAL_RATIO)))
    for rate, pace in results.paces.items():
        reached = pace.arrival_to_wire.quantile(0.5) * 1000
        name = f"arrival to wire at {rate}/s, p50, ms"
        rows.append((name, f"{reached:.2f}", f"{GOAL_ARRIVAL_MS:.2f}", _verdict(reached <= GOAL_ARRIVAL_MS)))
    return _table(rows)


def _latency(results: Results) -> str:
    rows = [("ms", "p50", "p95", "p99", "number")]
    for rate, pace in results.paces.items():
        waits = sorted(pace.publish_to_wire)
        rows.append((f"publish to request at the venue, {rate}/s", *_quantiles(_of(waits)), str(len(waits))))
        buckets = pace.arrival_to_wire
        rows.append(
            (f"arrival of the message to the wire, {rate}/s", *_quantiles(buckets.quantile), str(buckets.count))
        )
    calls = sorted(results.call_to_wire)
    rows.append(("ccxt: call to request at the venue", *_quantiles(_of(calls)), str(len(calls))))
    writes = sorted(results.durable_write)
    rows.append(("one write on the store's disk, which an order waits for", *_quantiles(_of(writes)), str(len(writes))))
    return _table(rows)


def _profile(results: Results) -> str:
    busy = {part: seconds for part, seconds in results.profile.items() if part != IDLE}
    total = sum(busy.values())
    rows = [("where the service's main thread spends its time, in a backlog", "%")]
    for part, seconds in sorted(busy.items(), key=lambda item: -item[1]):
        if seconds / total >= 0.002:
            rows.append((part, f"{seconds / total * 100:.1f}"))
    return _table(rows)


def _conditions(results: Results) -> str:
    return (
        f"{results.checked} orders of the service checked: each once at the venue, filled there and in the ledger, none doubled.\n"
        f"{cores()} processors for all processes, load {results.load:.1f} before the run. Pub/Sub: {results.pubsub}. Store: embedded, every commit on disk (fsync).\n"
        f"ccxt {results.ccxt_version}, unmodified, its rate limiter off. CPU: user and system of all threads of the client's process.\n"
        "orders/s: from the first to the last request at the venue. The service shares the processors with the store and Pub/Sub,\n"
        "which the bare loop does not need; it writes each order to disk before it is sent and publishes its events."
    )


def _server_ms(repetitions: Sequence[Repetition], server: str) -> float:
    return median(repetition.servers[server] / repetition.orders * 1000 for repetition in repetitions)


def _spread(values: Sequence[float], form: str) -> str:
    middle, lowest, highest = (form.format(value) for value in (median(values), min(values), max(values)))
    return middle if len(values) == 1 else f"{middle} ({lowest} to {highest})"


def _quantiles(of: Callable[[float], float]) -> tuple[str, str, str]:
    p50, p95, p99 = (f"{of(fraction) * 1000:.2f}" for fraction in (0.5, 0.95, 0.99))
    return p50, p95, p99


def _of(ordered: Sequence[float]) -> Callable[[float], float]:
    return lambda fraction: ordered[min(int(fraction * len(ordered)), len(ordered) - 1)]


def _verdict(reached: bool) -> str:
    return "reached" if reached else "not reached"


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells[1:]]).rstrip())
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
