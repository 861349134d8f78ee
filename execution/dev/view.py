"""The live view of the dev stack, and plain progress lines where there is no terminal."""

from __future__ import annotations

import statistics
import time
from decimal import Decimal

import msgspec
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from execution.dev.watch import Watch
from schemas.event import OrderEvent
from schemas.exact_json import plain
from schemas.order import OrderStatus

ROWS = 12
BAR = 12

_COLOURS = {
    OrderStatus.ACCEPTED: "cyan",
    OrderStatus.WORKING: "blue",
    OrderStatus.PARTIALLY_FILLED: "yellow",
    OrderStatus.FILLED: "green",
    OrderStatus.CANCELED: "bright_black",
    OrderStatus.EXPIRED: "bright_black",
    OrderStatus.REJECTED: "red",
    OrderStatus.FAILED: "bold red",
}


def progress_line(signals: int, watch: Watch, seconds: float) -> str:
    """One line of where things stand."""
    ended = sum(1 for event in watch.latest.values() if event.status.terminal)
    return (
        f"{seconds:5.1f} s  signals {signals:4d}  orders {len(watch.latest):4d} ({ended} ended)"
        f"  fills {len(watch.fills):4d}  events {len(watch.events):5d}"
    )


def cost_lines(watch: Watch) -> list[str]:
    """What the ended orders cost, by algorithm."""
    return [
        f"  {algorithm:26} {len(costs):4d} orders  {statistics.fmean(map(float, costs)):+7.2f} bps against arrival"
        for algorithm, costs in sorted(watch.costs.items())
    ]


def screen(header: str, signals: int, watch: Watch, seconds: float) -> RenderableType:
    """Everything at a glance: orders with their progress, fills, events."""
    summary = Text.assemble(
        ("execution dev ", "bold"), (f"{seconds:.0f} s   ", "dim"), (progress_line(signals, watch, seconds)[9:], "")
    )
    return Group(
        Panel(Group(summary, Text(header, style="dim")), border_style="blue"),
        _orders(watch),
        _columns(_fills(watch), _events(watch)),
        Text("Ctrl-C ends it", style="dim"),
    )


def _orders(watch: Watch) -> Table:
    table = Table(title="Orders", expand=True, title_justify="left", show_edge=False, header_style="bold")
    for name in ("order", "algorithm", "venue", "symbol", "side"):
        table.add_column(name, no_wrap=True)
    for name in ("quantity", "filled", "average"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("progress", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("reason", ratio=1, no_wrap=True)
    for event in list(watch.latest.values())[: -ROWS - 1 : -1]:
        side = str(event.side or "")
        table.add_row(
            event.signal_id.rpartition("_")[2],
            event.algorithm or "",
            event.exchange or "",
            event.symbol or "",
            Text(side, style="green" if side == "buy" else "magenta"),
            _number(event.quantity),
            _number(event.filled_quantity),
            _number(event.average_price, 2),
            _bar(event),
            Text(event.status, style=_COLOURS[event.status]),
            "" if isinstance(event.reason, msgspec.UnsetType) else event.reason,
        )
    return table


def _bar(event: OrderEvent) -> Text:
    quantity = event.quantity or Decimal(0)
    part = float(event.filled_quantity / quantity) if quantity else 0.0
    done = min(round(part * BAR), BAR)
    colour = _COLOURS[event.status]
    return Text.assemble(("━" * done, colour), ("─" * (BAR - done), "bright_black"), f" {part:4.0%}")


def _fills(watch: Watch) -> Table:
    table = Table(title="Fills", title_justify="left", show_edge=False, header_style="bold")
    for name in ("venue", "symbol", "side", "quantity", "price"):
        table.add_column(name, no_wrap=True, justify="right" if name in ("quantity", "price") else "left")
    for event, quantity, price in reversed(watch.recent_fills):
        table.add_row(event.exchange, event.symbol, event.side, _number(quantity), _number(price, 2))
    return table


def _events(watch: Watch) -> Table:
    table = Table(title="Events", title_justify="left", show_edge=False, header_style="bold")
    for name in ("time", "event", "order", "#"):
        table.add_column(name, no_wrap=True)
    for event in list(watch.recent)[:-9:-1]:
        at = time.strftime("%H:%M:%S", time.localtime(event.timestamp / 1000))
        table.add_row(at, event.event_type, event.signal_id.rpartition("_")[2], str(event.sequence))
    return table


def _columns(left: Table, right: Table) -> Table:
    grid = Table.grid(expand=True, padding=(0, 3))
    grid.add_column(ratio=1)
    grid.add_column(ratio=1)
    grid.add_row(left, right)
    return grid


def _number(value: Decimal | None, places: int | None = None) -> str:
    if value is None:
        return ""
    return f"{value:.{places}f}" if places is not None else plain(value)
