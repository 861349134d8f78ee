"""What can be known about a store's fitness to keep orders."""

from __future__ import annotations

from dataclasses import dataclass, field

from redis.exceptions import ResponseError

from execution.store.errors import StoreTooOld
from execution.store.node import Node, parse_info

_OLDEST = (7, 0)


@dataclass(frozen=True)
class StoreReport:
    """One server's answers. What this user may not ask is "unknown"."""

    store: str
    server: str
    """`redis` or `valkey`."""
    version: str
    compatible_with: str
    """The Redis version whose commands it has; differs from `version` for Valkey."""
    role: str
    cluster_enabled: bool
    appendonly: str
    appendfsync: str
    maxmemory_policy: str
    warnings: list[str] = field(default_factory=list)
    """Plain sentences: what could lose orders here, and what to do about it."""


async def examine(node: Node) -> StoreReport:
    """Ask one server what it is.

    Raises:
        StoreTooOld: it is older than Redis 7.0.
        StoreUnavailable: it does not answer.
    """
    info = await _info(node)
    compatible_with = info.get("redis_version", "unknown")
    server = info.get("server_name", "redis")
    version = info.get(f"{server}_version", compatible_with)
    if compatible_with != "unknown" and _numbers(compatible_with) < _OLDEST:
        raise StoreTooOld(f"{node.address.name} is {server} {version}: at least Redis 7.0 or Valkey 7.2 is needed")
    appendonly = {"1": "yes", "0": "no"}.get(info.get("aof_enabled", ""), "unknown")
    report = StoreReport(
        store=node.address.name,
        server=server,
        version=version,
        compatible_with=compatible_with,
        role={"master": "primary", "slave": "replica"}.get(info.get("role", ""), "unknown"),
        cluster_enabled=info.get("cluster_enabled") == "1",
        appendonly=appendonly,
        appendfsync=await _config(node, "appendfsync"),
        maxmemory_policy=info.get("maxmemory_policy") or await _config(node, "maxmemory-policy"),
    )
    report.warnings.extend(_warnings(report, replicas=int(info.get("connected_slaves", "0"))))
    return report


def _warnings(report: StoreReport, replicas: int) -> list[str]:
    found = []
    if "unknown" in (report.role, report.compatible_with):
        found.append("This Redis user may not ask INFO: version, role and a change of server cannot be seen.")
    if report.role == "replica":
        found.append("This Redis is a replica and takes no writes: point REDIS_URL at the primary.")
    if report.appendonly == "no":
        found.append(
            "appendonly is off: when Redis ends, every order since its last snapshot is lost. Set appendonly yes."
        )
    elif "unknown" in (report.appendonly, report.appendfsync):
        found.append(
            "How Redis writes to disk cannot be read here (CONFIG is not permitted):"
            " make sure of append-only persistence with appendfsync always."
        )
    elif report.appendfsync != "always":
        found.append(
            f"appendfsync is {report.appendfsync}: a power cut loses the last seconds of acknowledged orders."
            " Set appendfsync always."
        )
    if report.maxmemory_policy not in ("noeviction", "unknown"):
        found.append(f"maxmemory-policy is {report.maxmemory_policy}: Redis may delete orders. Set it to noeviction.")
    if replicas:
        found.append(
            f"This Redis replicates to {replicas} without waiting for them: a failover can lose acknowledged writes."
            " The service then reconciles with the venues."
        )
    return found


async def _info(node: Node) -> dict[str, str]:
    try:
        return parse_info(await node.send(("INFO",)))
    except ResponseError:  # not permitted
        return {}


async def _config(node: Node, name: str) -> str:
    try:
        pair = await node.send(("CONFIG", "GET", name))
    except ResponseError:  # not permitted, or not known where CONFIG is closed off
        return "unknown"
    return pair[1].decode() if pair else "unknown"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
