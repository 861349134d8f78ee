"""The command line without a service: settings, help, errors in one line, validation, and the connection file of the dev stack."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from pathlib import Path

import pytest

from execution.health import ComponentHealth, HealthReport
from execution.http_server import HttpServer
from execution.metrics import Metrics
from execution.store import Store
from tests.console import Console, Outcome

SIGNAL = {
    "signal_id": "sig_1",
    "strategy_id": "tests",
    "exchange": "alpha",
    "symbol": "BTC/USDT",
    "side": "buy",
    "quantity": 0.1,
    "order_type": "limit",
    "price": 50000.0,
}


@pytest.fixture
def console(tmp_path: Path) -> Console:
    return Console(tmp_path)


def refused(outcome: Outcome, *said: str, code: int = 2) -> None:
    """The command failed with one clear line each, and nothing on standard output."""
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    lines = outcome.err.splitlines()
    assert len(lines) == len(said), outcome.err
    for line, words in zip(lines, said, strict=True):
        assert line.startswith("execution: ")
        assert words in line


async def test_help_names_every_command(console: Console) -> None:
    outcome = await console("--help")
    assert outcome.code == 0
    for command in ("run", "dev", "submit", "tail", "orders", "show", "cancel", "amend", "config", "doctor", "schemas"):
        assert f" {command} " in outcome.out
    version = await console("--version")
    assert version.out.strip().replace(".", "").isdigit()


async def test_wrong_usage_is_one_line_and_code_2(console: Console) -> None:
    outcomes = await asyncio.gather(
        console("sbumit"), console("show"), console("orders", "--limit", "0"), console("orders", "--status", "gone")
    )
    for outcome, words in zip(outcomes, ("sbumit", "'ID'", "'--limit'", "'gone' is not one of"), strict=True):
        refused(outcome, words)


async def test_run_says_what_is_missing(console: Console) -> None:
    refused(await console("run"), "GOOGLE_CLOUD_PROJECT: is required", "ADAPTER_ENDPOINTS: is required")


async def test_wrong_settings_are_told_before_anything_else(console: Console) -> None:
    (console.folder / "c.yaml").write_text("max_retrys: 3\n")
    first, second = await asyncio.gather(
        console("--config", "c.yaml", "orders"), console("run", env={"PORT": "x", "REDIS_URL": "http://:hunter22@h"})
    )
    refused(first, "did you mean MAX_RETRIES?")
    refused(second, "REDIS_URL: must be redis://", "PORT: must be a port number from 0 to 65535, not 'x'")
    assert "hunter22" not in second.err


async def test_config_prints_every_setting_with_its_origin_and_masks_secrets(console: Console) -> None:
    (console.folder / "c.toml").write_text("max_retries = 5\n")
    env = {"REDIS_URL": "redis://:hunter22@h:1/0", "ADAPTER_ENDPOINTS": "alpha=binance", "ALPHA_API_SECRET": "hunter33"}
    table, as_json = await asyncio.gather(
        console("--config", "c.toml", "config", env=env), console("--config", "c.toml", "config", "--json", env=env)
    )
    rows = {row["name"]: row for row in as_json.json()}
    assert (rows["MAX_RETRIES"]["value"], rows["MAX_RETRIES"]["origin"]) == ("5", "file c.toml")
    assert (rows["REDIS_URL"]["value"], rows["REDIS_URL"]["origin"]) == ("redis://:********@h:1/0", "environment")
    assert (rows["PORT"]["value"], rows["PORT"]["origin"]) == ("8002", "default")
    assert rows["ALPHA_API_SECRET"]["value"] == "********"
    assert rows["ALPHA_API_KEY"]["value"] == ""
    assert "hunter" not in table.out + as_json.out
    for name in rows:
        assert any(line.startswith(f"{name} ") for line in table.out.splitlines())


async def test_config_markdown_is_the_same_on_every_machine(console: Console) -> None:
    here, there = await asyncio.gather(
        console("config", "--markdown"), console("config", "--markdown", env={"PORT": "9", "API_KEYS": "a:b"})
    )
    assert here.out == there.out
    assert "| `MAX_RETRIES` | Tries of a retryable venue request. | `3` |" in here.out.splitlines()
    assert "host name and pid" in here.out


async def test_schemas_are_printed_or_written(console: Console) -> None:
    printed, written = await asyncio.gather(console("schemas"), console("schemas", "out"))
    assert {"signal", "order-event", "command"} <= printed.json().keys()
    assert written.code == 0
    signal = json.loads((console.folder / "out" / "signal.schema.json").read_text())
    assert "quantity" in signal["required"]
    assert json.loads((console.folder / "out" / "order-event.schema.json").read_text())["$schema"]


# --- submit: what is refused before anything is published -----------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "holds no signal"),
        ("[1]", "signal 1 is not a JSON object"),
        ('{"a": 1}\n{"a": \n', "line 2 is not JSON"),
        (json.dumps(SIGNAL | {"price": None}), "signal 1 (sig_1): price: is required for a limit order"),
        (json.dumps(SIGNAL | {"quantity": "lots"}), "signal 1 (sig_1): quantity: must be a number"),
        (json.dumps(SIGNAL | {"stop_los": 1}), "did you mean stop_loss?"),
    ],
)
async def test_a_bad_signal_is_refused_by_field_and_reason(console: Console, text: str, said: str) -> None:
    refused(await console("submit", "-", stdin=text), said)


async def test_one_bad_signal_keeps_all_from_being_published(console: Console) -> None:
    signals = [SIGNAL, SIGNAL | {"signal_id": "sig_2", "side": "bye"}, SIGNAL | {"signal_id": "sig_3", "quantity": -1}]
    (console.folder / "signals.json").write_text(json.dumps(signals))
    outcome = await console("submit", "signals.json")
    refused(outcome, "signal 2 (sig_2): side", "signal 3 (sig_3): quantity", "nothing was published")


async def test_a_file_that_is_not_there_is_named(console: Console) -> None:
    refused(await console("submit", "signals.json"), "signals.json: cannot be read: No such file")


async def test_submit_says_when_no_emulator_answers(console: Console) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    env = {"PUBSUB_EMULATOR_HOST": f"127.0.0.1:{port}"}
    outcome = await console("submit", "-", stdin=json.dumps(SIGNAL), env=env)
    refused(outcome, f"no Pub/Sub emulator answers at 127.0.0.1:{port}", code=1)


async def test_a_ledger_that_is_not_reached_or_empty_is_told(console: Console, store: Store, redis_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    nowhere, none, odd, empty = await asyncio.gather(
        console("orders", env={"REDIS_URL": f"redis://127.0.0.1:{port}/0"}),
        console("orders"),
        console("show", "sig_1", env={"REDIS_URL": "redis://h:port"}),
        console("orders", env={"REDIS_URL": redis_url}),
    )
    refused(nowhere, "is not reached", code=1)
    refused(none, "REDIS_URL: is required")
    refused(odd, "REDIS_URL: the Redis URL cannot be read")
    refused(empty, "holds no orders yet", code=1)


# --- the connection file of the dev stack ---------------------------------------------------------------------------


def write_dev_file(folder: Path, pid: int, redis_url: str) -> None:
    (folder / ".execution").mkdir()
    connection = {
        "pubsub_emulator_host": "127.0.0.1:1",
        "redis_url": redis_url,
        "project": "local-dev",
        "http_port": 8123,
        "adapter_endpoints": "alpha=binance@http://127.0.0.1:2",
        "pid": pid,
        "env": {"ALPHA_API_KEY": "local", "ALPHA_API_SECRET": "local-secret"},
    }
    (folder / ".execution" / "dev.json").write_text(json.dumps(connection))


async def test_commands_use_a_running_dev_stack_and_say_so(console: Console) -> None:
    write_dev_file(console.folder, os.getpid(), "redis://127.0.0.1:3/0")
    outcome = await console("config", "--json")
    rows = {row["name"]: row for row in outcome.json()}
    assert rows["GOOGLE_CLOUD_PROJECT"]["value"] == "local-dev"
    assert rows["REDIS_URL"]["value"] == "redis://127.0.0.1:3/0"
    assert rows["PORT"]["value"] == "8123"
    assert rows["ALPHA_API_SECRET"]["value"] == "********"
    assert rows["REDIS_URL"]["origin"].startswith("execution dev")
    assert rows["SHARDS"]["origin"] == "default"
    assert "using the running `execution dev`" in outcome.err
    assert len(outcome.err.splitlines()) == 1


async def test_the_dev_stack_is_left_alone_where_the_environment_names_another(console: Console) -> None:
    write_dev_file(console.folder, os.getpid(), "redis://127.0.0.1:3/0")
    outcome = await console("config", "--json", env={"REDIS_URL": "redis://real:6379/0"})
    rows = {row["name"]: row for row in outcome.json()}
    assert rows["REDIS_URL"]["value"] == "redis://real:6379/0"
    assert rows["PUBSUB_EMULATOR_HOST"]["value"] == ""
    assert outcome.err == ""


async def test_a_dev_stack_that_has_ended_is_not_used(console: Console) -> None:
    ended = await asyncio.create_subprocess_exec("true")
    await ended.wait()
    write_dev_file(console.folder, ended.pid, "redis://127.0.0.1:3/0")
    refused(await console("orders"), "REDIS_URL: is required")


# --- doctor ---------------------------------------------------------------------------------------------------------


async def test_doctor_names_what_is_wrong_and_what_to_do(console: Console) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as closed:
        port, nobody = taken.getsockname()[1], closed.getsockname()[1]
        closed.close()
        env = {
            "PUBSUB_EMULATOR_HOST": f"127.0.0.1:{nobody}",
            "REDIS_URL": f"redis://127.0.0.1:{nobody}/0",
            "ADAPTER_ENDPOINTS": f"alpha=binance@http://127.0.0.1:{nobody},beta=mtgox",
            "PORT": str(port),
            "DATA_DIR": "/dev/null/x",
        }
        outcome = await console("doctor", "--json", env=env)
    found = {finding["check"]: finding for finding in outcome.json()}
    assert outcome.code == 1
    assert found["settings"]["status"] == "ok"
    for check in ("data directory", "Redis", "Pub/Sub", "venues", f"PORT {port}"):
        assert found[check]["status"] == "down", check
        assert found[check]["detail"]
    assert "mtgox" in found["venues"]["detail"]
    assert "Is it started?" in found["Pub/Sub"]["detail"]
    assert found[f"PORT {port}"]["advice"] == "free it, or set PORT"


async def test_doctor_tells_wrong_settings_too(console: Console) -> None:
    outcome = await console("doctor", env={"MAX_RETRIES": "x"})
    assert outcome.code == 1
    assert outcome.out.startswith("✘ settings: MAX_RETRIES: must be")


async def test_doctor_live_is_the_container_s_health_check(console: Console) -> None:
    state = [ComponentHealth("store", "ok", "connected"), ComponentHealth("venue alpha", "degraded", "polling")]
    server = HttpServer(
        "127.0.0.1", 0, Metrics(), lambda: HealthReport(instance="r", live=True, components=list(state))
    )
    port = await server.start()
    url = f"http://127.0.0.1:{port}"
    well = await console("doctor", "--live", url)
    assert (well.code, well.out) == (0, "✔ store: connected\n! venue alpha: polling\n")
    state.append(ComponentHealth("outbox", "down", "stuck"))
    ill = await console("doctor", "--live", url)
    assert ill.code == 1
    assert "✘ outbox: stuck" in ill.out
    await server.stop()
    gone = await console("doctor", "--live", url)
    assert gone.code == 1
    assert "no answer" in gone.out
