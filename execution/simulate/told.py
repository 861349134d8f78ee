"""What a comparison says beside its figures: verdicts, what to keep in mind, and all of it as one document for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from execution.simulate.compare import Figure, Model, Row, Run, costs
from execution.simulate.plan import Plan
from execution.simulate.scenarios import Survey
from execution.tca.aggregate import FEW

APART_BPS = 20
"""Venues whose prices end further apart are not of one market."""


def verdict(difference: Figure | None) -> str:
    """What a difference says, in a word."""
    if difference is None:
        return ""
    if difference.n < FEW:
        return "too few"
    if not difference.told_apart:
        return "not told apart"
    return "cheaper" if difference.mean < 0 else "dearer"


def remarks(surveys: Sequence[Survey], runs: Sequence[Run], found: Sequence[Row]) -> list[str]:
    """What to keep in mind when reading the figures."""
    told = []
    for one in surveys:
        if any(line.startswith("synthesised books") for line in one.described):
            told.append(
                f"{one.venue}: the books are made up around trades, of which one comes every {one.seconds / one.trades:.1f} s: what resting "
                "orders save or lose is an assumption. The rarer the trades, the more often a resting order is filled by a jump "
                "through its price, and the dearer it looks; compare with other --spread-bps and --depth"
            )
    mids = [one.last_mid for one in surveys if one.last_mid is not None]
    if len(mids) > 1 and (max(mids) - min(mids)) / min(mids) * 10_000 > APART_BPS:
        told.append(
            f"the venues' prices end {(max(mids) - min(mids)) / min(mids) * 10_000:.0f} bps apart: what routing gains from that is not to be had "
            "(synthetic markets share a price with one seed, trades_per_second and curve)"
        )
    for row, run in zip(found, runs, strict=True):
        if row.filled is not None and row.filled < 0.999:
            told.append(
                f"{row.label}: {row.filled:.1%} filled; the rest is priced at the mid when the order ended, as if it could be had there"
            )
        missing = run.asked - len(run.reports) - len(run.refused)
        if missing:
            why = f"{run.unfinished} still worked when the data ended" if run.unfinished else "no child order was sent"
            told.append(f"{row.label}: {missing} of {run.asked} orders have no report: {why}")
        for signal_id, field, reason in run.refused[:3]:
            told.append(f"{row.label}: {signal_id} was refused: {field}: {reason}")
        if len(run.refused) > 3:
            told.append(f"{row.label}: {len(run.refused) - 3} more were refused")
        told += [f"{row.label}: {remark}" for remark in run.notes]
    least = min((row.n for row in found), default=0)
    if least < FEW:
        told.append(f"n = {least} is below {FEW}: it says little; start more orders with --every and --count")
    return told


def document(
    plan: Plan, model: Model, runs: Sequence[Run], found: Sequence[Row], route: Mapping[str, Any] | None, seconds: float
) -> dict[str, Any]:
    children = sum(one.children for one in runs)
    return {
        "data": [
            {
                "venue": one.venue,
                "symbol": one.symbol,
                "first": one.first,
                "last": one.last,
                "trades": one.trades,
                "books": one.books,
                "volume": one.volume,
                "described": one.described,
            }
            for one in plan.surveys
        ],
        "orders": {
            "symbol": plan.order.symbol,
            "side": plan.order.side,
            "quantity": plan.order.quantity,
            "order_type": plan.order.order_type,
            "price": plan.order.price,
            "duration_seconds": plan.order.duration,
            "share_of_volume": plan.share,
            "starts": plan.starts,
        },
        "model": {
            "latency_ms": model.latency_ms,
            "queue_ahead": model.queue_ahead,
            "fees_bps": {
                one.venue: dict(
                    zip(("maker", "taker"), (fee * 10_000 for fee in model.fees_of(one.venue)), strict=True)
                )
                for one in plan.surveys
            },
            "words": model.words(),
        },
        "route": route,
        "references": [one.label for one in plan.contestants[: len(found[0].differences)]],
        "contestants": [
            {
                **_fields(row),
                "algorithm": one.described,
                "baseline": one.baseline,
                "costs_bps": costs(run),
                "notes": list(run.notes),
                "refused": [
                    {"signal_id": name, "field": field, "reason": reason} for name, field, reason in run.refused
                ],
            }
            for one, run, row in zip(plan.contestants, runs, found, strict=True)
        ],
        "remarks": remarks(plan.surveys, runs, found),
        "speed": {
            "children": children,
            "seconds": round(seconds, 3),
            "children_per_second": round(children / seconds, 1),
        },
    }


def _fields(row: Row) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, Figure):
            return {"n": value.n, "mean": value.mean, "low": value.low, "high": value.high}
        return [plain(one) for one in value] if isinstance(value, tuple) else value

    return {name: plain(getattr(row, name)) for name in Row.__slots__}
