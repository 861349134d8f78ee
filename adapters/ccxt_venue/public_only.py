"""What keeps an exchange that is only watched from being asked for anything else: it can neither sign nor send it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from adapters.base import Rejected
from adapters.ccxt_venue.dialects import Dialect

Guard = Callable[[str, str, Mapping[str, str]], None]
"""Told method, URL and headers of a request before it leaves. Raises: Rejected: it must not."""

_PRIVATE_PATH = re.compile(
    r"private|order(?!s?[-_]?book)|account|balance|position|wallet|withdraw|deposit|transfer|listen-?key|user|my-?trades|"
    r"fills$|leverage|payment|repay|borrow|convert|sub-?member",
    re.IGNORECASE,
)
_CREDENTIAL = re.compile(
    r"signature|sign$|^key$|api-?_?key|access-?key|passphrase|authorization|authent|recv-?window|mbx-", re.IGNORECASE
)


def guard(dialect: Dialect) -> Guard:
    """The lock at the wire. It knows nothing of how a request was made."""

    def check(method: str, url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        if method != "GET" and not (method == "POST" and parts.path in dialect.asks_by_post):
            raise Rejected(f"not sent: {method} {parts.path} from a place that only watches the market")
        if _PRIVATE_PATH.search(parts.path):
            raise Rejected(f"not sent: {parts.path} is not market data")
        names = [*headers, *(name for name, _ in parse_qsl(parts.query, keep_blank_values=True))]
        if any(_CREDENTIAL.search(name) for name in names):
            raise Rejected(f"not sent: {parts.path} carries a credential")

    return check


def may_build(api: Any, method: str, path: str, parameters: Any, dialect: Dialect) -> None:
    """The lock where ccxt builds a request, by the part of its API that it belongs to.

    Raises:
        Rejected: it is not of the public part, or asks for somebody's account.
    """
    name = ".".join(api) if isinstance(api, list | tuple) else str(api)
    public = "public" in name.lower() or f"{name}/{path}".startswith(dialect.public_apis or ("\n",))
    asks = method == "GET" or f"/{path}".endswith(dialect.asks_by_post or ("\n",))
    whose = isinstance(parameters, Mapping) and "user" in parameters  # Hyperliquid shows anybody's account
    if not public or not asks or whose or "private" in name.lower():
        raise Rejected(f"not built: {method} {path} of {name} from a place that only watches the market")
