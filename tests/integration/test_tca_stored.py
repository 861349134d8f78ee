"""Cost reports in a real store: kept whole, found by time, and never more than asked for."""

from __future__ import annotations

import asyncio
import csv
from pathlib import Path

import msgspec
import pytest
import typer

from execution.cli.output import CommandError
from execution.cli.report import report, since_when
from execution.store import Store
from execution.tca.stored import INDEX, load_reports, report_key, save_report
from schemas.tca import CostReport
from tests.unit.test_tca import START, costing

DAY = 86_400


def ended(order_id: str, at: int) -> CostReport:
    return msgspec.structs.replace(costing(1.5, order_id), ended_at=START + at)


async def save(store: Store, *reports: CostReport, most: int = 100) -> None:
    for one in reports:
        await save_report(store, one, DAY, most, now_ms=START + 1000)


async def ids(store: Store, since_ms: int = 0) -> list[str]:
    return [one.order_id for one in await load_reports(store, since_ms=since_ms)]


async def test_what_is_saved_is_loaded_in_order_of_the_end(store: Store) -> None:
    late, early = ended("late", 20), ended("early", 10)
    await save(store, late, early)
    assert await load_reports(store) == [early, late]
    assert await ids(store, START + 11) == ["late"]
    assert await ids(store, START + 20) == ["late"]


async def test_a_report_is_replaced_by_a_later_one_of_the_same_order(store: Store) -> None:
    await save(store, ended("o", 1), ended("o", 5))
    assert [one.ended_at for one in await load_reports(store)] == [START + 5]


async def test_only_the_latest_are_kept(store: Store) -> None:
    await save(store, *(ended(f"o{at}", at) for at in (3, 1, 5, 2, 4)), most=2)
    assert await ids(store) == ["o4", "o5"]
    assert await store.call("EXISTS", *(report_key(f"o{at}") for at in (1, 2, 3))) == 0


async def test_reports_expire_and_leave_the_index(store: Store) -> None:
    await save_report(store, ended("old", 0), DAY, 100, now_ms=START)
    assert DAY - 5 <= await store.call("TTL", report_key("old")) <= DAY
    await save_report(store, ended("new", DAY * 1000 + 1), DAY, 100, now_ms=START + DAY * 1000 + 1)
    assert await store.call("ZRANGE", INDEX, 0, -1) == [b"new"]


async def test_an_expired_or_foreign_report_is_passed_over(store: Store) -> None:
    await save(store, ended("gone", 1), ended("foreign", 2), ended("fine", 3))
    await store.call("DEL", report_key("gone"))
    await store.call("HSET", report_key("foreign"), "report", '{"order_id": 7}')
    assert await ids(store) == ["fine"]


async def test_an_order_may_be_called_like_the_index(store: Store) -> None:
    await save(store, ended("index", 1))
    assert await ids(store) == ["index"]


async def test_more_reports_than_are_asked_for_at_once(store: Store) -> None:
    await save(store, *(ended(f"o{at:03d}", at) for at in range(450)), most=1000)
    assert await ids(store) == [f"o{at:03d}" for at in range(450)]


# -- the command that reads them --------------------------------------------------------------------------------------


@pytest.fixture
def kept(redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A store with three reports, the settings that lead to it, and a folder to write to."""
    reports = [
        msgspec.structs.replace(ended("a", 10), strategy="one", algorithm="twap", venues=("alpha",)),
        msgspec.structs.replace(ended("b", 20), strategy="two", algorithm="vwap", venues=("alpha", "beta")),
        msgspec.structs.replace(ended("c", 30), strategy="two", algorithm="twap", venues=("beta",)),
    ]

    async def fill() -> None:
        async with await Store.connect(redis_url) as store:
            await store.call("FLUSHALL")
            await save(store, *reports)

    asyncio.run(fill())
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    return tmp_path


def run(folder: Path, *arguments: str) -> tuple[int, list[str]]:
    """Run the command as typed; its exit code and the orders in the table it wrote."""
    app = typer.Typer()
    app.command()(report)
    table = folder / "costs.csv"
    table.unlink(missing_ok=True)
    code = app(
        ["--out", str(folder / "costs.html"), "--csv", str(table), *arguments],
        standalone_mode=False,
        prog_name="report",
    )
    if not table.exists():
        return code, []
    with table.open(encoding="utf-8", newline="") as file:
        return code, [row["order_id"] for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), ["a", "b", "c"]),
        (("--strategy", "two"), ["b", "c"]),
        (("--algorithm", "twap"), ["a", "c"]),
        (("--venue", "beta"), ["b", "c"]),
        (("--venue", "alpha", "--algorithm", "vwap"), ["b"]),
        (("--since", "2023-11-14T22:13:20.020Z"), ["b", "c"]),  # START + 20 ms
        (("--since", "2023-11-14"), ["a", "b", "c"]),
    ],
)
def test_the_command_writes_what_was_asked_for(kept: Path, arguments: tuple[str, ...], expected: list[str]) -> None:
    assert run(kept, *arguments) == (0, expected)
    page = (kept / "costs.html").read_text(encoding="utf-8")
    assert page.count('<details class="order"') == len(expected)


def test_nothing_to_tell_writes_nothing(kept: Path) -> None:
    assert run(kept, "--strategy", "three") == (1, [])
    assert run(kept, "--since", "1m") == (1, [])
    assert not (kept / "costs.html").exists()


def test_what_cannot_be_written_or_read_is_said(kept: Path) -> None:
    with pytest.raises(CommandError, match="No such file or directory"):
        run(kept, "--csv", str(kept / "missing" / "costs.csv"))
    with pytest.raises(typer.BadParameter, match="neither a time ago"):
        run(kept, "--since", "yesterday")


@pytest.mark.parametrize(("text", "ago_s"), [("90m", 5400), ("12h", 43_200), ("7d", 7 * DAY), ("2w", 14 * DAY)])
def test_a_time_ago(text: str, ago_s: int) -> None:
    assert since_when(text, START) == START - ago_s * 1000


def test_a_date_is_in_utc_unless_it_says_otherwise() -> None:
    assert since_when("2023-11-14T22:13:20", 0) == START
    assert since_when("2023-11-14T23:13:20+01:00", 0) == START
