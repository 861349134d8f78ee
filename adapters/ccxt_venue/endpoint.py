"""Which exchange a venue name means, and where it is: `NAME[=EXCHANGE][@WHERE]`."""

from __future__ import annotations

import difflib
import re
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from adapters.ccxt_venue import only_needed

FORM = "NAME[=EXCHANGE][@WHERE], WHERE one of live, sandbox, paper, http://host:port, or paper+http://host:port"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


class Endpoint(msgspec.Struct, frozen=True):
    """A venue: the name that signals use, ccxt's id of the exchange, and where it is reached."""

    name: str
    exchange: str
    where: Literal["live", "sandbox", "url", "paper"] = "live"
    """`paper`: only its market data is real, of the live venue or of the one at `url`."""
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
            raise ValueError(f"ADAPTER_ENDPOINTS: the name {endpoint.name} is given twice. The form is {FORM}")
        endpoints.append(endpoint)
    if not endpoints:
        raise ValueError(f"ADAPTER_ENDPOINTS is empty: name at least one venue as {FORM}")
    return endpoints


def _parse(item: str) -> Endpoint:
    named, _, where = item.partition("@")
    name, _, exchange = named.partition("=")
    name, exchange, where = name.strip(), exchange.strip() or name.strip(), where.strip() or "live"
    if not _NAME.fullmatch(name):
        raise _wrong(item, f"{name!r} is not a name: letters, digits, and _ - . after the first letter")
    if exchange not in only_needed.exchanges():
        near = difflib.get_close_matches(exchange, only_needed.exchanges(), 1)
        raise _wrong(item, f"ccxt knows no exchange {exchange!r}{f', but {near[0]}' if near else ''}")
    if where == "live":
        return Endpoint(name, exchange)
    if where == "sandbox":
        return Endpoint(name, exchange, "sandbox")
    if where == "paper":
        return Endpoint(name, exchange, "paper")
    paper = where.startswith("paper+")
    where = where.removeprefix("paper+")
    try:
        parts = urlsplit(where)
        right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and parts.username is None
    except ValueError:
        right = False
    if not right or parts.query or parts.fragment or parts.path.strip("/"):
        raise _wrong(item, "what follows @ is neither live, sandbox, paper nor a URL of scheme, host and port only")
    return Endpoint(name, exchange, "paper" if paper else "url", f"{parts.scheme}://{parts.netloc}")


def _wrong(item: str, why: str) -> ValueError:
    shown = re.sub(r"//[^/@]*@", "//***@", item)
    return ValueError(f"ADAPTER_ENDPOINTS: {shown!r}: {why}. The form is {FORM}")
