"""Which exchange a venue name means, and where it is: `NAME[=EXCHANGE][@WHERE]`."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from adapters.ccxt_venue import only_needed

FORM = "NAME[=EXCHANGE][@WHERE], WHERE one of live, sandbox, paper, or http://host:port"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


class Endpoint(msgspec.Struct, frozen=True):
    """A venue: the name that signals use, ccxt's id of the exchange, and where it is reached."""

    name: str
    exchange: str
    where: Literal["live", "sandbox", "url"] = "live"
    url: str | None = None


def parse_endpoints(text: str) -> list[Endpoint]:
    """Read `ADAPTER_ENDPOINTS`.

    Raises:
        ValueError: what is wrong with which item, and the form it must have.
    """
    endpoints: list[Endpoint] = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        endpoint = _parse(item)
        if any(known.name == endpoint.name for known in endpoints):
            raise ValueError(f"ADAPTER_ENDPOINTS: the name {endpoint.name} is given twice")
        endpoints.append(endpoint)
    if not endpoints:
        raise ValueError(f"ADAPTER_ENDPOINTS is empty: name at least one venue as {FORM}")
    return endpoints


def _parse(item: str) -> Endpoint:
    named, _, where = item.partition("@")
    name, _, exchange = named.partition("=")
    name, exchange, where = name.strip(), exchange.strip() or name.strip(), where.strip() or "live"
    if not _NAME.fullmatch(name):
        raise ValueError(f"ADAPTER_ENDPOINTS: {item!r} is not {FORM}")
    if exchange not in only_needed.exchanges():
        raise ValueError(f"ADAPTER_ENDPOINTS: {exchange!r} in {item!r} is not an exchange that ccxt knows")
    if where == "live":
        return Endpoint(name, exchange)
    if where == "sandbox":
        return Endpoint(name, exchange, "sandbox")
    if where == "paper":
        raise ValueError(
            f"ADAPTER_ENDPOINTS: {item!r}: this version has no paper trading; use sandbox or a local venue"
        )
    parts = urlsplit(where)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.path.strip("/"):
        raise ValueError(
            f"ADAPTER_ENDPOINTS: {where!r} in {item!r} is not one of live, sandbox, paper, http://host:port"
        )
    return Endpoint(name, exchange, "url", f"{parts.scheme}://{parts.netloc}")
