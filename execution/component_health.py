"""What each part of a replica says of its health, in a sentence for operators."""

from __future__ import annotations

import time
from collections.abc import Sequence

from adapters.base import AdapterHealth
from execution.dead_man import DeadMan
from execution.health import ComponentHealth
from execution.leases import ShardLeases
from execution.outbox import Outbox
from execution.pubsub import LibrarySubscriber, Subscriber
from execution.runner import Runner
from execution.settings import Settings
from execution.store import Store


def store_health(store: Store | None) -> ComponentHealth:
    if store is None:
        return ComponentHealth("store", "down", "not connected yet")
    if store.connected:
        return ComponentHealth("store", "ok", "connected")
    return ComponentHealth("store", "down", "not connected: nothing is accepted, nothing new is sent")


def shards_health(leases: ShardLeases, runner: Runner, settings: Settings) -> ComponentHealth:
    beat = leases.last_beat
    if beat is None or time.monotonic() - beat > settings.lease_ttl:
        return ComponentHealth("shards", "down", "leases are not being renewed")
    owned = f"{len(leases.owned)} of {settings.shards} shards"
    return ComponentHealth("shards", "ok", f"{owned}, {leases.replicas} replicas, {runner.live} live orders")


def outbox_health(outbox: Outbox) -> ComponentHealth:
    since, backlog = outbox.failing_since, sum(outbox.backlog.values())
    if since is None:
        return ComponentHealth("outbox", "ok", f"{backlog} events waiting")
    seconds = int(time.monotonic() - since)
    detail = f"events not published for {seconds} s, {backlog} waiting: {outbox.last_error}"
    return ComponentHealth("outbox", "degraded", detail)


def dead_man_health(dead_man: DeadMan) -> ComponentHealth:
    tripped = dead_man.tripped
    if not tripped:
        return ComponentHealth("dead man's switch", "ok", f"{dead_man.armed} pulses watched")
    return ComponentHealth("dead man's switch", "degraded", "; ".join(tripped))


def intake_health(runner: Runner) -> ComponentHealth:
    if runner.room.is_set():
        return ComponentHealth("intake", "ok", f"{runner.sends_waiting} orders waiting for a venue")
    waiting = f"{runner.sends_waiting} orders wait for a venue, {runner.live} are live"
    return ComponentHealth("intake", "degraded", f"paused: {waiting}; the rest stays in Pub/Sub")


def subscription_health(setting: str, subscriber: Subscriber | LibrarySubscriber) -> ComponentHealth:
    status = subscriber.status
    if status.connected:
        return ComponentHealth(f"subscription {setting}", "ok", f"{subscriber.outstanding} held")
    return ComponentHealth(f"subscription {setting}", "down", f"not connected: {status.last_error}")


def venue_health(name: str, health: AdapterHealth, unwatched: int, troubles: Sequence[str] = ()) -> ComponentHealth:
    """`unwatched`: open orders there, under ids of ours, that nobody works; `troubles`: what else is wrong, in words."""
    component, now = f"venue {name}", time.time() * 1000
    if not health.ready:
        return ComponentHealth(component, "down", health.last_error or "not started yet")
    if health.limited_until is not None and health.limited_until > now:
        seconds = (health.limited_until - now) / 1000
        return ComponentHealth(component, "degraded", f"rate limited for {seconds:.0f} s, {health.queued} waiting")
    if troubles:
        return ComponentHealth(component, "degraded", "; ".join(troubles))
    if health.stream_supported and not health.stream_up:
        return ComponentHealth(component, "degraded", f"stream down, polling: {health.last_error}")
    if unwatched:
        return ComponentHealth(component, "degraded", f"{unwatched} open orders of ours there are worked by nobody")
    return ComponentHealth(component, "ok", f"{health.queued} requests waiting")
