"""The command line beside a running service: signals in, orders and events out, commands and their answers."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.pubsub_v1 import types

from execution.pubsub import connect, rpc
from tests.console import SCRIPT, Console
from tests.system import System, venue

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]


@pytest.fixture
async def system(redis_url: str, pubsub_host: str, tmp_path: Path) -> AsyncIterator[System]:
    async with venue() as alpha, System(redis_url, pubsub_host, tmp_path, {"alpha": alpha}) as started:
        await started.liquidity()
        yield started


@pytest.fixture
def console(system: System, tmp_path: Path) -> Console:
    return Console(tmp_path, **system.environment)


def signal_of(signal_id: str, **fields: Any) -> dict[str, Any]:
    return {
        "signal_id": signal_id,
        "strategy_id": "tests",
        "exchange": "alpha",
        "symbol": "BTC/USDT",
        "side": "buy",
        "quantity": "0.10",
        "order_type": "limit",
        "price": 49000,
        **fields,
    }


async def temporary_subscriptions(system: System) -> list[str]:
    """Subscriptions that commands have made and not deleted."""
    pb = types.ListSubscriptionsRequest.pb()
    method = rpc.Rpc(
        "/google.pubsub.v1.Subscriber/ListSubscriptions", pb, types.ListSubscriptionsResponse.pb(), "project"
    )
    channel = connect(system.project, system.pubsub_host)
    answer = await channel.call(method, pb(project=f"projects/{system.project}"), 10.0, wait_for_ready=True)
    await channel.close()
    return [one.name for one in answer.subscriptions if "execution-cli" in one.name]


async def test_an_order_s_life_on_the_command_line(system: System, console: Console) -> None:
    replica = await system.replica()
    health = await console("doctor", "--live", f"http://127.0.0.1:{replica.port}")
    assert health.code == 0, health.out

    # Everything is well, also seen by the doctor.
    well = await console("doctor", "--json")
    assert well.code == 0, well.out
    assert {finding["check"] for finding in well.json()} >= {"settings", "Redis", "Pub/Sub", "venue alpha"}

    # Submitted with --wait: followed to the end; a rejection is exit code 1.
    lines = "\n".join(
        json.dumps(one)
        for one in (
            signal_of("now", order_type="market", price=None),
            signal_of("nowhere", exchange="mtgox", note="hello"),
        )
    )
    submitted = await console("submit", "-", "--wait", "--json", stdin=lines)
    assert submitted.code == 1, submitted.err
    assert "note will be ignored" in submitted.err
    published, events = submitted.lines()[:2], submitted.lines()[2:]
    assert [line["signal_id"] for line in published] == ["now", "nowhere"]
    told = {
        name: [event["event_type"] for event in events if event["signal_id"] == name] for name in ("now", "nowhere")
    }
    assert told == {"now": ["order.accepted", "order.placed", "order.filled"], "nowhere": ["order.rejected"]}

    # One that rests, a tail on it, and commands by signal id and by order id.
    assert (await console("submit", "-", stdin=json.dumps(signal_of("rests")))).code == 0
    await system.told("rests", "working")
    order_id = system.events("rests")[0].order_id
    tail = await console.start("tail", "--json", "--order", "rests")
    assert tail.stderr is not None
    assert b"waiting for events" in await tail.stderr.readline()
    amended = await console("amend", "rests", "--price", "49500.50", "--wait")
    assert amended.code == 0, amended.err
    assert "order.amended" in amended.out
    refused = await console("amend", order_id, "--quantity", "0.0000001", "--wait")
    assert refused.code == 1
    assert "order.amend refused" in refused.out
    canceled = await console("cancel", order_id, "--reason", "enough of it", "--wait", "--json")
    assert canceled.code == 0, canceled.err
    assert canceled.lines()[-1]["status"] == "canceled"
    assert canceled.lines()[-1]["reason"] == "enough of it"
    assert (await console("cancel", "rests", "--wait")).code == 1

    # The tail heard all of it, in order, and leaves no subscription behind.
    heard = []
    assert tail.stdout is not None
    while not heard or heard[-1]["status"] != "canceled":
        heard.append(json.loads(await asyncio.wait_for(tail.stdout.readline(), 20)))
    assert [event["sequence"] for event in heard] == list(range(3, 3 + len(heard)))
    assert heard[0]["event_type"] == "order.amended"
    tail.send_signal(signal.SIGINT)
    _, left = await asyncio.wait_for(tail.communicate(), 20)
    assert (tail.returncode, left) == (130, b"")
    assert await temporary_subscriptions(system) == []

    # What the ledger says.
    listed = {row["signal_id"]: row for row in (await console("orders", "--json")).json()}
    assert {name: row["status"] for name, row in listed.items()} == {
        "now": "filled",
        "nowhere": "rejected",
        "rests": "canceled",
    }
    only = (await console("orders", "--status", "filled", "--json")).json()
    assert [row["signal_id"] for row in only] == ["now"]
    shown = (await console("show", "now", "--json")).json()
    assert shown["order"]["quantity"] == 0.1
    assert shown["children"][0]["state"] == "filled"
    assert sum(fill["quantity"] for fill in shown["fills"]) == 0.1
    text = (await console("show", order_id)).out
    assert "enough of it" in text
    assert "49500.5" in text
    table = (await console("orders")).out.splitlines()
    assert len(table) == 4
    missing = await console("show", "nobody")
    assert (missing.code, missing.out) == (1, "")
    assert "nobody" in missing.err


async def test_signals_and_commands_wait_for_a_service_that_starts_later(system: System, console: Console) -> None:
    assert (await console("submit", "-", stdin=json.dumps(signal_of("early", quantity="0.5")))).code == 0
    late = await console("submit", "-", "--wait", "--timeout", "0.5", stdin=json.dumps(signal_of("early2")))
    assert late.code == 1
    assert "no end within 0.5 s: early2 (no event yet)" in late.err
    await system.replica()
    await system.told("early", "working")
    await system.told("early2", "working")


async def test_a_reader_that_closes_the_pipe_ends_the_tail_cleanly(system: System, console: Console) -> None:
    await system.replica()
    script = f"{console.folder}/first.sh"
    Path(script).write_text(f'"{SCRIPT}" tail --json | head -n 1; echo "code ${{PIPESTATUS[0]}}"\n')
    process = await asyncio.create_subprocess_exec(
        "bash",
        script,
        env=console.environment,
        cwd=console.folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    await process.stderr.readline()
    ended = asyncio.create_task(process.communicate())
    for number in range(20):  # the pipe is found closed at the next event after `head` has ended
        await system.signal(f"now-{number}")
        await asyncio.wait([ended], timeout=1.0)
        if ended.done():
            break
    out, err = await asyncio.wait_for(ended, 10)
    first, code = out.decode().splitlines()
    assert json.loads(first)["event_type"] == "order.accepted"
    assert code == "code 1"
    assert err == b""
    assert await temporary_subscriptions(system) == []
