"""Probes and metrics over real sockets."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest

from execution.api_keys import ApiKey, parse_api_keys
from execution.health import ComponentHealth, HealthReport
from execution.http_server import HttpServer, PortInUse
from execution.metrics import Metrics

OK = ComponentHealth("store", "ok", "connected")


def report(*components: ComponentHealth, live: bool = True) -> HealthReport:
    return HealthReport(instance="replica-1", live=live, components=list(components))


@asynccontextmanager
async def serving(
    health: Callable[[], HealthReport] = lambda: report(OK),
    *,
    metrics: Metrics | None = None,
    host: str = "127.0.0.1",
    api_keys: tuple[ApiKey, ...] = (),
) -> AsyncIterator[tuple[str, aiohttp.ClientSession]]:
    server = HttpServer(host, 0, metrics or Metrics(), health, api_keys=api_keys)
    port = await server.start()
    async with aiohttp.ClientSession() as session:
        yield f"http://127.0.0.1:{port}", session
    await server.stop()


async def test_ready_names_every_component() -> None:
    degraded = ComponentHealth("venue alpha", "degraded", "stream down, polling")
    async with serving(lambda: report(OK, degraded)) as (url, session):
        for path in ("/health/ready", "/api/v1/health"):
            async with session.get(url + path) as answer:
                assert answer.status == 200
                assert await answer.json() == {
                    "status": "degraded",
                    "live": True,
                    "instance": "replica-1",
                    "components": [
                        {"name": "store", "status": "ok", "detail": "connected"},
                        {"name": "venue alpha", "status": "degraded", "detail": "stream down, polling"},
                    ],
                }


async def test_a_part_that_is_down_makes_it_unready_but_not_dead() -> None:
    async with serving(lambda: report(OK, ComponentHealth("store", "down", "gone"))) as (url, session):
        async with session.get(url + "/health/ready") as answer:
            assert answer.status == 503
            assert (await answer.json())["status"] == "down"
        async with session.get(url + "/health/live") as answer:
            assert answer.status == 200


async def test_a_dead_loop_is_neither_live_nor_ready() -> None:
    async with serving(lambda: report(OK, live=False)) as (url, session):
        for path in ("/health/live", "/health/ready"):
            async with session.get(url + path) as answer:
                assert answer.status == 503


async def test_health_is_asked_at_every_probe() -> None:
    state = [report(OK)]
    async with serving(lambda: state[0]) as (url, session):
        async with session.get(url + "/health/ready") as answer:
            assert answer.status == 200
        state[0] = report(ComponentHealth("store", "down"))
        async with session.get(url + "/health/ready") as answer:
            assert answer.status == 503


async def test_metrics_are_what_was_counted() -> None:
    metrics = Metrics()
    metrics.signal_received()
    metrics.signal_accepted("alpha", 0.004)
    metrics.signal_rejected("price")
    metrics.signal_rejected("whatever the sender wrote")
    metrics.child_sent("alpha", 3.0)
    metrics.venue_request("alpha", "place", "ok", 0.02)
    async with serving(metrics=metrics) as (url, session), session.get(url + "/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain")
        lines = (await answer.text()).splitlines()
    assert "execution_signals_received_total 1.0" in lines
    assert 'execution_signals_accepted_total{venue="alpha"} 1.0' in lines
    assert 'execution_accept_seconds_bucket{le="0.005"} 1.0' in lines
    assert 'execution_accept_seconds_bucket{le="0.002"} 0.0' in lines
    assert 'execution_signals_rejected_total{field="price"} 1.0' in lines
    assert 'execution_signals_rejected_total{field="other"} 1.0' in lines
    assert 'execution_decision_to_wire_seconds_sum{venue="alpha"} 0.003' in lines
    assert 'execution_venue_request_seconds_count{kind="place",outcome="ok",venue="alpha"} 1.0' in lines
    assert any(line.startswith("execution_build_info{") for line in lines)
    assert any(line.startswith("process_resident_memory_bytes") for line in lines)
    assert any(line.startswith("python_gc_") for line in lines)


async def test_label_values_from_outside_are_bounded() -> None:
    metrics = Metrics()
    for number in range(1000):
        metrics.child_rejected("alpha", f"code-{number}")
    lines = metrics.render().decode().splitlines()
    series = [line for line in lines if line.startswith("execution_child_orders_rejected_total")]
    assert len(series) <= 201
    assert 'execution_child_orders_rejected_total{code="other",venue="alpha"} 800.0' in series


async def test_with_keys_everything_but_probes_needs_one() -> None:
    keys = parse_api_keys("prometheus:s3cret,ops:other:admin")
    async with serving(api_keys=keys) as (url, session):
        async with session.get(url + "/health/ready") as answer:
            assert answer.status == 200
        for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": "Bearer "}, {"Authorization": "Basic s3cret"}):
            async with session.get(url + "/metrics", headers=headers) as answer:
                assert answer.status == 401
                assert "an API key is needed" in (await answer.json())["error"]
        for headers in ({"Authorization": "Bearer s3cret"}, {"X-API-Key": "other"}):
            async with session.get(url + "/metrics", headers=headers) as answer:
                assert answer.status == 200


async def test_without_keys_other_machines_reach_the_probes_only() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; tells which address this machine would use
        address = probe.getsockname()[0]
    if address.startswith("127."):
        pytest.skip("this machine has no address but loopback")
    server = HttpServer("0.0.0.0", 0, Metrics(), lambda: report(OK))
    port = await server.start()
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://{address}:{port}/health/live") as answer:
            assert answer.status == 200
        for path in ("/metrics", "/api/v1/health"):
            async with session.get(f"http://{address}:{port}{path}") as answer:
                assert answer.status == 403
        async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
            assert answer.status == 200
    await server.stop()


async def test_a_port_in_use_is_named_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = HttpServer("127.0.0.1", port, Metrics(), lambda: report(OK))
        with pytest.raises(PortInUse, match=f"port {port} on 127.0.0.1 is taken.*set PORT"):
            await server.start()
        await server.stop()


async def test_an_address_of_another_machine_is_named() -> None:
    server = HttpServer("192.0.2.1", 0, Metrics(), lambda: report(OK))
    with pytest.raises(OSError, match=r"HOST 192\.0\.2\.1: cannot listen there"):
        await server.start()
