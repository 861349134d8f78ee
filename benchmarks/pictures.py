"""The pictures in docs/algorithms.md, one real simulated run each: `python -m benchmarks.pictures [DIRECTORY]`."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Any

import structlog

from adapters.recorded import SyntheticConfig, SyntheticMarket
from execution.report import order_charts
from execution.report.style import CSS
from execution.simulate.simulation import Scenario, simulate
from schemas.tca import CostReport

SECONDS = 600
PARENTS: dict[str, dict[str, Any]] = {
    "direct": {"order_type": "limit", "price": "99995"},
    "twap": {"algorithm_params": {"duration_seconds": SECONDS, "slices": 12}},
    "vwap": {
        "algorithm_params": {"duration_seconds": SECONDS, "slices": 12, "profile": [8, 6, 4, 3, 2, 2, 2, 2, 3, 4, 6, 8]}
    },
    "implementation_shortfall": {"algorithm_params": {"duration_seconds": SECONDS, "slices": 12, "urgency": "high"}},
    "pov": {"algorithm_params": {"participation": "0.15", "duration_seconds": SECONDS}},
    "iceberg": {
        "order_type": "limit",
        "price": "99998",
        "algorithm_params": {"display_quantity": "0.3", "variance": "0.2"},
    },
    "peg": {"algorithm_params": {"duration_seconds": SECONDS}},
    "sniper": {"order_type": "limit", "price": "99990"},
    "smart_router": {"algorithm_params": {"mode": "post"}, "order_type": "limit", "price": "100005"},
}
"""What each algorithm is given, beside buying 4 BTC."""


def main() -> int:
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images")
    target.mkdir(parents=True, exist_ok=True)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    config = SyntheticConfig(seconds=SECONDS + 120, trades_per_second=2, spread_bps=1, volatility=0.02, seed=4)
    for algorithm, fields in PARENTS.items():
        signal = {
            "signal_id": f"picture-{algorithm}",
            "strategy_id": "docs",
            "exchange": "alpha",
            "symbol": "BTC/USDT",
            "side": "buy",
            "quantity": "4",
            "order_type": "market",
            "algorithm": algorithm,
            "expires_at": config.start_ms + 5_000 + SECONDS * 1000,
            **fields,
        }
        outcome = simulate(
            Scenario(
                markets={"alpha": lambda: SyntheticMarket(config)},
                signals=[(config.start_ms + 5_000, signal)],
                start=config.start_ms,
            )
        )
        if not outcome.reports:
            print(f"{algorithm}: nothing to draw: {outcome.refused}", file=sys.stderr)
            return 1
        (target / f"{algorithm}.svg").write_text(picture(outcome.reports[0]))
        print(f"{target / f'{algorithm}.svg'}: {outcome.reports[0].fill_ratio:.0%} filled")
    return 0


def picture(report: CostReport) -> str:
    """The price with the fills, and the schedule with what was filled, as one picture of its own."""
    price, progress = order_charts.price(report) or "", order_charts.progress(report) or ""
    light = dict(re.findall(r"--([\w-]+):([^;}]+)", CSS.split("@media")[0]))
    rules = "".join(re.findall(r"svg [^{}]+\{[^}]*\}", CSS))
    for name, value in light.items():
        rules = rules.replace(f"var(--{name})", value)
    placed = price.replace("<svg ", '<svg x="10" y="22" width="560" height="236" ', 1) + progress.replace(
        "<svg ", '<svg x="585" y="22" width="350" height="236" ', 1
    )
    title = f"{report.algorithm}: buy {report.quantity:f} {report.symbol}"
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 950 265" font-family="system-ui,sans-serif" font-size="11">'
        f"<style>{rules}</style>"
        f'<rect width="950" height="265" fill="{light["card"]}"/><text x="14" y="15" class="row">{title}</text>{placed}</svg>\n'
    )


if __name__ == "__main__":
    raise SystemExit(main())
