"""One order in detail: its charts, its figures, and what is to be doubted about them."""

from __future__ import annotations

from html import escape

from execution.report import order_charts, parts
from execution.report.svg import number
from schemas.tca import CostReport, Latency, QualityFlag

MEANING = {
    QualityFlag.DECISION_MISSING: "no mid at the signal: costs are since arrival",
    QualityFlag.ARRIVAL_MISSING: "no mid at arrival",
    QualityFlag.ARRIVAL_LATE: "the arrival mid was seen over 1 s away from acceptance",
    QualityFlag.END_MISSING: "no mid at the end: what was missed is not known",
    QualityFlag.COVERAGE_LOW: "a mid was known for less than 90 % of the life",
    QualityFlag.MIDS_MISSING: "fills without a mid: spread and impact are not told apart",
    QualityFlag.MARKOUTS_MISSING: "mark-outs rest on part of the fills",
    QualityFlag.FEES_NOT_CONVERTED: "fees in an asset without a price: costs with fees are not known",
    QualityFlag.FILLS_MISSING: "fills are missing",
    QualityFlag.VOLUME_MISSING: "the market's volume was not seen",
}
_NONE = '<div class="none">nothing was seen to draw</div>'


def section(report: CostReport, *, opened: bool) -> str:
    """An order that unfolds; its summary line says what it was and what it cost."""
    words = [
        f"<b>{escape(report.side.value)} {parts.exact(report.quantity)} {escape(report.symbol)}</b>",
        f"<span>{escape(report.algorithm)}</span>",
        f'<span class="soft">{escape(report.venue)}</span>',
        f'<span class="soft">{escape(report.strategy)}</span>',
        f'<span class="soft">{escape(report.status.value)} {report.fill_ratio:.0%}</span>',
        f'<span class="soft">{parts.clock(report.accepted_at)} UTC</span>',
        f'<span class="cost">{parts.cost(report.since_arrival_bps)} bp</span>',
    ]
    badges = "".join(f'<span class="badge">{MEANING[flag]}</span>' for flag in report.flags)
    return (
        f'<details class="order"{" open" if opened else ""}><summary>{"".join(words)}</summary><div class="inside">'
        f'<div class="three">{_price(report)}{_progress(report)}{_waterfall(report)}</div>'
        f'<div class="facts">{_facts(report)}</div>{badges}</div></details>'
    )


def _price(report: CostReport) -> str:
    legend = parts.key(("mid", "mid"), ("taker", "fill as taker"), ("maker", "as maker"))
    return f"<div><h3>Price and fills</h3>{legend}{order_charts.price(report) or _NONE}</div>"


def _progress(report: CostReport) -> str:
    legend = parts.key(("filled", "filled"), *((("planned", "scheduled"),) if report.schedule else ()))
    return f"<div><h3>Schedule</h3>{legend}{order_charts.progress(report) or _NONE}</div>"


def _waterfall(report: CostReport) -> str:
    basis = "bp of the order at the decision" if report.basis == "decision" else "bp of the order at arrival"
    legend = f'<p class="key">{basis}</p>'
    return f"<div><h3>Cost by part</h3>{legend}{order_charts.waterfall(report) or _NONE}</div>"


def _facts(report: CostReport) -> str:
    sent = f"{report.children_sent} sent, {report.children_filled} filled"
    rest = [
        f"{amount} {word}"
        for amount, word in ((report.children_canceled, "canceled"), (report.children_rejected, "rejected"))
        if amount
    ]
    facts = [
        ("order", escape(report.order_id)),
        ("duration", parts.duration(report.duration_ms)),
        ("child orders", ", ".join([sent, *rest])),
        ("since decision", parts.cost(report.total_bps)),
        ("since arrival", parts.cost(report.since_arrival_bps)),
        ("slippage, arrival", parts.cost(report.slippage_arrival_bps)),
        ("slippage, VWAP", parts.cost(report.slippage_vwap_bps)),
        ("slippage, VWAP of others", parts.cost(report.slippage_vwap_others_bps)),
        ("slippage, TWAP", parts.cost(report.slippage_twap_bps)),
        ("average price", parts.price(report.average_price)),
        ("participation", parts.percent(report.participation, 2).html),
        ("maker share", parts.percent(report.maker_share).html),
        (
            "spread capture",
            parts.MISSING if report.spread_capture is None else number(float(report.spread_capture), 2, signed=True),
        ),
        ("off schedule (RMSE)", parts.percent(report.schedule_rmse, 2).html),
        *((f"mark-out {seconds} s", parts.cost(value)) for seconds, value in sorted(report.markouts.items())),
        *((f"fees in {escape(asset)}", parts.exact(fee)) for asset, fee in sorted(report.fees.items())),
        *((escape(name.replace("_", " ")), _latency(latency)) for name, latency in sorted(report.latencies.items())),
    ]
    return "".join(f"<div><span>{name}</span>{value}</div>" for name, value in facts)


def _latency(latency: Latency) -> str:
    """The one duration there is, or the median and the longest."""
    longest = parts.duration(latency.max)
    return longest if latency.count == 1 else f"{parts.duration(latency.p50)}, max {longest}"
