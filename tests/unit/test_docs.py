"""docs/algorithms.md is true of the code: its tables, examples, pictures, and the algorithm that it shows how to write."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from adapters.recorded import SyntheticConfig, SyntheticMarket
from algorithms import ALGORITHMS
from execution.cli.algorithms import parameter_table
from execution.order_actor import parsed
from execution.routes import RouteRequest
from execution.simulate.simulation import Scenario, simulate
from schemas import exact_json
from schemas.signal import Signal, parse
from schemas.tca import CostReport, QualityFlag
from schemas.terms import OrderType

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "algorithms.md").read_text()
EXAMPLES: list[dict[str, Any]] = [
    exact_json.decode(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
]
CODE = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL))
MENTIONED = {word for code in CODE for word in re.findall(r"\w+", code)}
"""Every word that stands in `code`."""


def section(algorithm: str) -> str:
    """What the page says of an algorithm."""
    found = re.search(rf"^### {algorithm}\n(.*?)(?=^##)", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None, f"no section: ### {algorithm}"
    return found[1]


# --- algorithms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_parameter_table_is_what_the_command_prints(algorithm: str) -> None:
    found = re.search(rf"<!-- parameters: {algorithm} -->\n(.*?)<!-- end -->", section(algorithm), re.DOTALL)
    assert found is not None
    assert found[1].strip() == parameter_table(ALGORITHMS[algorithm]), "see `execution algorithms --markdown`"


def test_tables_are_of_algorithms_that_exist() -> None:
    assert sorted(re.findall(r"<!-- parameters: (\w+) -->", PAGE)) == sorted(ALGORITHMS)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_section_says_what_happens_at_the_end_and_shows_a_signal_and_a_run(algorithm: str) -> None:
    text = section(algorithm)
    assert "*At the end of its time" in text
    example = exact_json.decode(re.search(r"```json\n(.*?)```", text, re.DOTALL)[1])  # type: ignore[index]
    assert example["algorithm"] == algorithm
    image = re.search(r"!\[[^\]]+\]\((images/\w+\.svg)\)", text)
    assert image is not None
    assert image[1] == f"images/{algorithm}.svg"


def test_pictures_are_there_and_each_is_shown() -> None:
    shown = set(re.findall(r"\(images/(\w+\.svg)\)", PAGE))
    there = {path.name for path in (ROOT / "docs" / "images").iterdir()}
    assert shown == there
    for name in there:
        assert (ROOT / "docs" / "images" / name).read_text().startswith("<svg "), name


# --- signals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["signal_id"])
def test_example_is_a_valid_signal(example: dict[str, Any]) -> None:
    signal, ignored = parse(example)
    assert ignored == ()
    parsed(ALGORITHMS[signal.algorithm], signal.algorithm_params)


def test_examples_are_accepted_by_the_service() -> None:
    """All of them, by the planner with its rules, bracket distances and triggers, over three venues."""
    config = SyntheticConfig(seconds=60, trades_per_second=2, seed=4, history_seconds=86_400)
    start = config.start_ms
    told: list[Any] = []
    outcome = simulate(
        Scenario(
            markets={venue: lambda: SyntheticMarket(config) for venue in ("alpha", "beta", "gamma")},
            signals=[(start + 5_000 + 10 * index, example) for index, example in enumerate(EXAMPLES)],
            start=start,
        ),
        told.extend,
    )
    assert [f"{signal_id}: {why}" for signal_id, why in outcome.refused] == []
    assert {event.signal_id for event in told if event.event_type == "order.accepted"} == {
        example["signal_id"] for example in EXAMPLES
    }
    assert not [event for event in told if event.event_type in ("order.rejected", "order.failed")]


def test_every_field_of_a_signal_is_told() -> None:
    assert set(Signal.model_fields) - MENTIONED == set()


def test_every_order_type_is_told() -> None:
    assert {kind.value for kind in OrderType} - MENTIONED == set()


def test_every_field_of_a_route_request_is_told() -> None:
    assert set(RouteRequest.model_fields) - MENTIONED == set()


# --- costs --------------------------------------------------------------------------------------------------------------


def test_every_figure_of_a_cost_report_is_told_in_its_table() -> None:
    table = PAGE[PAGE.index("## Transaction costs") : PAGE.index("## Simulation and paper trading")]
    told = {word for row in re.findall(r"^\| (.*?) \|", table, re.MULTILINE) for word in re.findall(r"`(\w+)`", row)}
    fields = {field.name for field in msgspec.structs.fields(CostReport)}
    flags = {flag.value for flag in QualityFlag}
    assert fields | flags == told


def test_every_latency_is_told() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "execution").rglob("*.py"))
    names = re.findall(r"\.timed\(\"(\w+)\"", sources) + re.findall(r"found.setdefault\(\"(\w+)\"", sources)
    assert len(names) > 3
    assert set(names) - MENTIONED == set()


# --- options and names --------------------------------------------------------------------------------------------------


def test_commands_and_options_exist() -> None:
    """Every `execution ...` option on the page is one of the command's help."""
    from typer.main import get_command

    from execution.cli.app import app

    known = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in get_command(app).commands.items()  # type: ignore[attr-defined]
    }
    lines = [line.strip() for line in PAGE.splitlines() if line.startswith("    execution ")]
    used = [code for code in [*CODE, *lines] if re.match(r"execution [a-z]", code)]
    assert used
    for code in used:
        words = code.split()
        assert words[1] in known, code
        assert {word for word in words if word.startswith("--")} <= known[words[1]], code


def test_links_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL), re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    anchors |= {re.sub(r"-take-profits.*", "", anchor) for anchor in anchors}
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) - anchors == set()


def test_files_that_it_names_exist() -> None:
    named = {
        code for code in CODE if re.fullmatch(r"(algorithms|adapters|execution|tests|docs)/[\w/.]+\.(py|md)", code)
    }
    assert named
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_what_a_venue_holds_is_as_the_table_says() -> None:
    from adapters.ccxt_venue.dialects import DIALECTS

    plain = {OrderType.MARKET, OrderType.LIMIT}
    holds = {name: set(dialect.native) - plain for name, dialect in DIALECTS.items() if set(dialect.native) - plain}
    assert holds == {
        "kraken": set(OrderType) - plain,
        "coinbase": {OrderType.STOP_LIMIT, OrderType.TAKE_PROFIT_LIMIT},
    }
    contracts = {
        name: set(dialect.native_on_contracts) - plain
        for name, dialect in DIALECTS.items()
        if set(dialect.native_on_contracts) - plain
    }
    assert contracts == {"aster": set(OrderType) - plain - {OrderType.TRAILING_STOP}}


# --- the algorithm that the page writes -----------------------------------------------------------------------------------

RUN = """
from decimal import Decimal

from adapters.recorded import SyntheticConfig, SyntheticMarket
from algorithms import ALGORITHMS
from algorithms.base import Refusal
from execution.simulate.simulation import Scenario, simulate
from tests.unit.story import Story

assert ALGORITHMS["ladder"].__module__ == "ladder"

story = Story("1", None, algorithm="ladder", params={"steps": 4, "distance_bps": "10"})
story.market("100", "100.1")
placed = [(child.price, child.quantity, child.post_only) for child in story.live]
quarter = Decimal("0.25")
assert placed == [(Decimal(price), quarter, True) for price in ("100", "99.9", "99.8", "99.7")], placed
for child in story.live:
    story.venue("open", child=child)
story.market("90", "90.1")
assert [child.price for child in story.live] == [child[0] for child in placed], "it stays where it is"
first = story.live[0]
story.fills(story.trade("0.25"), child=first)
assert len(story.live) == 3 and not story.decision.place, "what is filled is not placed again"
story.amend(quantity="0.75")
for child in [child for child in story.live if child.cancel_requested]:
    story.venue("canceled", child=child)
assert story.state.totals.claimed <= Decimal("0.75")
story.cancel()
for child in story.live:
    story.venue("canceled", child=child)
assert story.told[-1] == "canceled", story.told

try:
    Story("0.002", None, algorithm="ladder", params={"steps": 3})
except Refusal as refusal:
    assert refusal.field == "algorithm_params.steps"
else:
    raise AssertionError("parts too small for the venue were accepted")

config = SyntheticConfig(seconds=900, trades_per_second=3, volatility=0.03, seed=6)
for side in ("buy", "sell"):
    outcome = simulate(
        Scenario(
            markets={"alpha": lambda: SyntheticMarket(config)},
            signals=[(config.start_ms + 5_000, {
                "signal_id": side, "strategy_id": "s", "exchange": "alpha", "symbol": "BTC/USDT", "side": side,
                "quantity": "1", "order_type": "market", "algorithm": "ladder",
                "algorithm_params": {"steps": 4, "distance_bps": "2"},
                "expires_at": config.start_ms + 800_000,
            })],
            start=config.start_ms,
        )
    )
    [report] = outcome.reports
    assert report.filled > 0 and report.maker_share == 1, (report.filled, report.maker_share)
    assert report.status in ("filled", "expired")
    print(side, report.status, report.filled)
"""


def test_the_example_algorithm_runs_from_a_package_of_its_own(tmp_path: Path) -> None:
    found = re.search(r"<!-- example: ladder.py -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    (tmp_path / "ladder.py").write_text(found[1])
    installed = tmp_path / "ladder-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: ladder\nVersion: 1.0\n")
    entry = re.search(r'\[project\.entry-points\."(execution\.algorithms)"\]\s+(ladder) = "(ladder:Ladder)"', PAGE)
    assert entry is not None
    (installed / "entry_points.txt").write_text(f"[{entry[1]}]\n{entry[2]} = {entry[3]}\n")
    (tmp_path / "run.py").write_text(RUN)
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(tmp_path / "run.py")],
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "buy" in ran.stdout
    assert "sell" in ran.stdout
