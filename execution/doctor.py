"""Whether everything that the service needs is there, and what to do where it is not."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import tempfile
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import msgspec

from execution.health import ComponentStatus
from execution.settings import Settings, SettingsError


class Finding(msgspec.Struct, frozen=True):
    """What one check found. `degraded` does not keep the service from working; `advice` says what to do."""

    status: ComponentStatus
    check: str
    detail: str
    advice: str = ""


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Check everything in the order in which the service needs it. Nothing is created or changed."""
    for finding in _settings(settings):
        yield finding
    yield _data_dir(settings)
    async for finding in _store(settings):
        yield finding
    yield await _pubsub(settings)
    async for finding in _venues(settings):
        yield finding
    yield _port(settings.host, settings.port, "PORT")


def ask_live(url: str, timeout: float = 5.0) -> dict[str, Any]:
    """The health report of a running service; one that does not answer counts as down.

    Args:
        url: `http://host:port`, with or without a path.
        timeout: seconds.
    """
    parts = urlsplit(url if "//" in url else f"//{url}")
    host = parts.hostname or "127.0.0.1"
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    path = parts.path.rstrip("/") or "/health/ready"
    try:
        connection = kind(host, parts.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request("GET", path)
            report = msgspec.json.decode(connection.getresponse().read())
        if isinstance(report, dict) and isinstance(report.get("components"), list):
            return report
        reason = "what answers there is not this service"
    except (OSError, http.client.HTTPException, msgspec.DecodeError, ValueError) as error:
        reason = f"no answer: {error}"
    return {"status": "down", "components": [{"name": url, "status": "down", "detail": reason}]}


def _settings(settings: Settings) -> list[Finding]:
    findings = []
    if not settings.google_cloud_project:
        findings.append(
            Finding(
                "down",
                "settings",
                "GOOGLE_CLOUD_PROJECT is not set",
                "set it to the project id, or set PUBSUB_EMULATOR_HOST to use an emulator",
            )
        )
    if not settings.adapter_endpoints:
        findings.append(
            Finding("down", "settings", "ADAPTER_ENDPOINTS is not set", "name the venues, such as binance@sandbox")
        )
    if not findings:
        chosen = sum(row.origin != "default" for row in settings.rows())
        findings.append(Finding("ok", "settings", f"{chosen} set, the rest at their defaults (`execution config`)"))
    return findings


def _data_dir(settings: Settings) -> Finding:
    folder = settings.data_dir.absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            free = os.statvfs(existing).f_bavail * os.statvfs(existing).f_frsize
    except OSError as error:
        return Finding(
            "down", "data directory", f"{existing}: {error.strerror}", "set DATA_DIR to a writable directory"
        )
    detail = f"{folder}, {free / 1e9:.1f} GB free"
    if settings.redis_url is None and free < 1e9:
        return Finding("degraded", "data directory", detail, "the embedded store lives there: free some space")
    return Finding("ok", "data directory", detail)


async def _store(settings: Settings) -> AsyncIterator[Finding]:
    from execution.embedded.redis_server import EmbeddedRedis, EmbeddedRedisError, find_server
    from execution.store import Store, StoreRefused, StoreTooOld, StoreUnavailable

    url = settings.redis_url or EmbeddedRedis.locate(settings.data_dir / "redis")
    if url is None:
        try:
            binary = find_server()
        except EmbeddedRedisError as error:
            yield Finding("down", "Redis", str(error), "set REDIS_URL to a Redis 7 or Valkey 7.2 server")
            return
        yield Finding("ok", "Redis", f"REDIS_URL is not set: `execution run` starts {binary} in {settings.data_dir}")
        return
    try:
        async with await Store.connect(url) as store:
            report = await store.check()
    except (StoreUnavailable, StoreRefused, StoreTooOld, ValueError) as error:
        yield Finding("down", "Redis", str(error), "check REDIS_URL, and that the server runs and is reached from here")
        return
    yield Finding("ok", "Redis", f"{report.store}: {report.server} {report.version}, {report.role}")
    for warning in report.warnings:
        fact, _, advice = warning.partition(": ")
        yield Finding("degraded", "Redis", fact, advice)


async def _pubsub(settings: Settings) -> Finding:
    from execution.pubsub import PubSubError, PubSubNotReady, SubscriptionSpec, connect, ensure

    if not settings.google_cloud_project:
        return Finding("down", "Pub/Sub", "not checked: no project is set")
    name = settings.pubsub_emulator_host or "Google Cloud"
    try:
        channel = connect(settings.google_cloud_project, settings.pubsub_emulator_host)
    except PubSubError as error:
        return Finding("down", "Pub/Sub", str(error))
    try:
        remarks = await ensure(
            channel,
            settings.google_cloud_project,
            topics=[settings.events_topic, settings.dead_letter_topic],
            subscriptions=[
                SubscriptionSpec(settings.signals_subscription, settings.signals_topic),
                SubscriptionSpec(settings.control_subscription, settings.control_topic),
            ],
            create=False,
            timeout=10.0,
        )
    except PubSubNotReady as error:
        if channel.is_emulator:
            detail = f"the emulator at {name} answers; `execution run` creates what is missing there"
            return Finding("ok", "Pub/Sub", detail)
        return Finding("down", "Pub/Sub", "; ".join(error.problems))
    except (PubSubError, ValueError) as error:
        return Finding("down", "Pub/Sub", str(error))
    finally:
        await channel.close()
    detail = f"{name}: topics and subscriptions of project {settings.google_cloud_project} are there"
    return Finding("degraded" if remarks else "ok", "Pub/Sub", "; ".join([detail, *remarks]))


async def _venues(settings: Settings) -> AsyncIterator[Finding]:
    if not settings.adapter_endpoints:
        return
    from adapters.base import AdapterError
    from adapters.ccxt_venue import CcxtAdapter, parse_endpoints

    try:
        endpoints = parse_endpoints(settings.adapter_endpoints)
    except ValueError as error:
        yield Finding("down", "venues", str(error))
        return
    for endpoint in endpoints:
        check = f"venue {endpoint.name}"
        try:
            credentials = settings.credentials(endpoint.name)
        except SettingsError as error:
            yield Finding("down", check, str(error))
            continue
        adapter = CcxtAdapter(
            endpoint,
            credentials.for_ccxt() if credentials is not None else None,
            request_ttl_ms=int(settings.request_ttl * 1000),
            clock_bound_ms=settings.clock_bound_ms,
        )
        try:
            await adapter.start()
        except AdapterError as error:
            yield Finding("down", check, str(error))
        else:
            yield Finding("ok", check, f"{len(adapter.symbols())} symbols, the credentials are accepted")
            yield _clock(settings, endpoint.name, adapter.health.clock_offset_ms)
        finally:
            await adapter.close()


def _clock(settings: Settings, venue: str, offset: float | None) -> Finding:
    check = f"clock at {venue}"
    if offset is None:
        return Finding("ok", check, "the venue does not tell its time")
    detail = f"{abs(offset):.0f} ms {'ahead of' if offset > 0 else 'behind'} ours, {settings.clock_bound_ms} allowed"
    if abs(offset) > settings.clock_bound_ms / 2:
        return Finding("degraded", check, detail, "synchronise this machine's clock (NTP)")
    return Finding("ok", check, detail)


def _port(host: str, port: int, name: str) -> Finding:
    check = f"{name} {port}"
    if port == 0:
        return Finding("ok", check, "any free port is taken")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            running = name == "PORT" and ask_live(f"http://127.0.0.1:{port}", timeout=2.0)
            if running and "instance" in running:
                return Finding("ok", check, f"the service runs there ({running['instance']}, {running['status']})")
            return Finding("down", check, f"cannot be listened on: {error.strerror}", f"free it, or set {name}")
    return Finding("ok", check, f"free on {host}")
