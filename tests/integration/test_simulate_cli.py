"""`execution simulate` as a user runs it: tables, files, signals, routes, errors, and an end by Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from pathlib import Path

import pytest

from tests.console import Console

CALM = "volatility=0.005,spread_bps=2,trades_per_second=3,minutes=10,history_days=1"


@pytest.fixture
def console(tmp_path: Path) -> Console:
    return Console(tmp_path)


@pytest.fixture
def trades(tmp_path: Path) -> Path:
    """Twenty minutes of trades that bounce between bid and ask."""
    draw = random.Random(5)
    mid, lines = 50_000.0, ["timestamp,symbol,side,price,amount"]
    for index in range(2_400):
        mid += draw.gauss(0, 0.3)
        side = draw.choice(("buy", "sell"))
        price = round(mid + (2.5 if side == "buy" else -2.5), 1)
        lines.append(f"{1_700_000_000_000 + index * 500},BTC/USDT,{side},{price},{draw.randint(1, 50) / 1000}")
    path = tmp_path / "trades.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


async def test_tables_say_what_it_cost_how_sure_that_is_and_by_which_model(console: Console) -> None:
    outcome = await console("simulate", "--synthetic", CALM, "--duration", "25")
    assert outcome.code == 0, outcome.err
    for words in (
        "95 % interval",
        "Prices do not react to our orders",
        "Queue:",
        "less twap-market",
        "child orders in",
        "a second",
    ):
        assert words in outcome.out
    rows = [line.split()[0] for line in outcome.out.splitlines() if line and not line.startswith((" ", "-"))]
    for name in ("market", "twap-market", "twap", "vwap", "implementation_shortfall", "pov", "iceberg"):
        assert rows.count(name) == 3
    assert "it says little" not in outcome.out
    few = await console("simulate", "--synthetic", CALM, "--duration", "25", "--count", "3", "--algorithm", "twap")
    assert "n = 3 is below 20: it says little" in few.out
    assert "too few" in few.out


async def test_recorded_trades_as_json_csv_and_page(console: Console, trades: Path, tmp_path: Path) -> None:
    outcome = await console(
        *("simulate", "--data", f"kraken={trades}", "--side", "sell", "--participation", "0.02", "--count", "8"),
        *(
            "--duration",
            "60",
            "--algorithm",
            "twap:style=passive,slices=6",
            "--algorithm",
            "twap:style=aggressive,slices=6",
        ),
        *("--taker-bps", "5", "--maker-bps", "-1", "--json", "--out", "page.html", "--csv", "orders.csv"),
        *("--processes", "2"),
    )
    assert outcome.code == 0, outcome.err
    document = outcome.json()
    labels = [one["label"] for one in document["contestants"]]
    assert labels == ["market", "twap-market", "twap style=passive", "twap style=aggressive"]
    by_label = {one["label"]: one for one in document["contestants"]}
    assert [len(one["costs_bps"]) for one in document["contestants"]] == [8] * 4
    assert document["orders"]["share_of_volume"] == pytest.approx(0.02, rel=0.01)
    assert document["data"][0]["trades"] == 2_400
    assert document["references"] == ["market", "twap-market"]
    assert by_label["twap style=aggressive"]["fees"] == pytest.approx(5, abs=0.01)
    saved = by_label["twap style=passive"]["differences"][1]
    assert saved["high"] < 0, "resting earns the spread and the rebate"
    assert by_label["market"]["differences"][0] is None
    page = (tmp_path / "page.html").read_text()
    assert "Cost against risk" in page
    assert "twap style=passive" in page
    assert len((tmp_path / "orders.csv").read_text().splitlines()) == 1 + 4 * 8


async def test_the_same_simulation_again_is_the_same(console: Console, trades: Path) -> None:
    words = ("simulate", "--data", str(trades), "--count", "4", "--duration", "60", "--algorithm", "pov", "--json")
    first, second = await asyncio.gather(console(*words, "--processes", "1"), console(*words, "--processes", "3"))
    one, other = first.json(), second.json()
    assert one.pop("speed")["children"] == other.pop("speed")["children"]
    assert one == other


async def test_real_signals_are_worked_as_they_say_and_by_others(
    console: Console, trades: Path, tmp_path: Path
) -> None:
    common = {"strategy_id": "mine", "exchange": "okx", "symbol": "BTC/USDT", "order_type": "market"}
    lines = [
        {**common, "signal_id": "a", "side": "buy", "quantity": 0.02, "at": 30},
        {
            "data": {
                **common,
                "signal_id": "b",
                "side": "sell",
                "quantity": "0.05",
                "algorithm": "twap",
                "algorithm_params": {"duration_seconds": 60},
            },
            "at": 1_700_000_300_000,
        },
    ]
    (tmp_path / "signals.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    words = ("simulate", "--data", str(trades), "--signals", "signals.jsonl", "--algorithm", "vwap", "--duration", "90")
    outcome = await console(*words, "--json")
    assert outcome.code == 0, outcome.err
    document = outcome.json()
    assert [one["label"] for one in document["contestants"]] == ["market", "twap-market", "signals", "vwap"]
    assert document["orders"]["starts"] == [1_700_000_035_000, 1_700_000_300_000]
    assert [one["n"] for one in document["contestants"]] == [2, 2, 2, 2]
    refused = await console(*words[:-1], "90", "--symbol", "BTC/USDT", "--data", f"kraken={trades}")
    assert refused.code == 2
    assert (
        "--signals: signal 1: exchange: 'okx' is not one of recorded, kraken; name the data: --data okx=FILE"
        in refused.err
    )


async def test_a_route_over_two_books_is_told_beforehand(console: Console) -> None:
    outcome = await console(
        *(
            "simulate",
            "--synthetic",
            f"a:{CALM},depth=0.05",
            "--synthetic",
            f"b:{CALM},depth=0.04",
            "--quantity",
            "0.3",
        ),
        *("--algorithm", "smart_router", "--duration", "20"),
    )
    assert outcome.code == 0, outcome.err
    assert "Route of the first order" in outcome.out
    assert "bps cheaper than" in outcome.out
    assert "smart_router" in outcome.out


async def test_errors_name_the_option_and_what_is_wrong(console: Console, trades: Path, tmp_path: Path) -> None:
    (tmp_path / "odd.csv").write_text("this,is,nothing\n1,2,3\n")
    wrong = {
        ("--data", "odd.csv"): "--data: odd.csv: unknown layout; seen: CSV, columns this, is, nothing",
        ("--data", "trades.csv", "--symbol", "ETH/USDT"): "--data: recorded holds no events of ETH/USDT",
        ("--synthetic", CALM, "--algorithm", "sniper"): "--algorithm: sniper: trigger_price: is required",
        ("--signals", "gone.jsonl"): "--signals: gone.jsonl: cannot be read",
        ("--queue-ahead", "2"): "'--queue-ahead'",
    }
    for words, said in wrong.items():
        outcome = await console("simulate", *words)
        assert outcome.code == 2, (words, outcome.err)
        assert said in outcome.err, words
        assert "Traceback" not in outcome.err
        assert outcome.err.startswith("execution: "), words


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_ctrl_c_ends_it_without_a_word_and_leaves_nothing_running(console: Console, processes: str) -> None:
    words = ("--synthetic", "hours=12,history_days=0", "--count", "10", "--quantity", "0.1", "--processes", processes)
    process = await console.start("simulate", *words)
    assert process.stdout is not None
    while b"Latency" not in await process.stdout.readline():
        pass
    await asyncio.sleep(0.7)
    process.send_signal(signal.SIGINT)
    # Both streams end only when every process that holds them has ended.
    _, err = await asyncio.wait_for(process.communicate(), 20)
    assert (process.returncode, err) == (130, b"")
