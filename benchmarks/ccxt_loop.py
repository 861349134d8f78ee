"""The yardstick: a bare loop of ccxt's own `create_order`, as it comes from the shelf, in a process of its own.

    python -m benchmarks.ccxt_loop VENUE_URL

Each line on its standard input, `{"prefix": ..., "orders": ..., "at_once": ...}`, is one repetition; it answers by a line with the
CPU time that it took. Nothing of the service is imported here: the adapter changes how ccxt is loaded.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any
from urllib.parse import urlsplit

import ccxt.async_support as ccxt

SYMBOL = "BTC/USDT"
QUANTITY = 0.001


def redirect(urls: dict[str, Any], host: str) -> None:
    """Point all of an exchange's URLs at a local host."""
    for name, value in urls.items():
        if isinstance(value, dict):
            redirect(value, host)
        elif isinstance(value, str) and "://" in value:
            urls[name] = f"http://{host}{urlsplit(value).path}"


async def place(exchange: Any, prefix: str, orders: int, at_once: int) -> dict[str, Any]:
    """Place market orders, so many under way at any time, and see each one filled."""
    called: dict[str, int] = {}
    numbers = iter(range(orders))

    async def caller() -> None:
        for number in numbers:
            name = f"{prefix}{number}"
            called[name] = time.time_ns()
            side = "sell" if number % 2 else "buy"
            order = await exchange.create_order(SYMBOL, "market", side, QUANTITY, None, {"newClientOrderId": name})
            if order["status"] != "closed" or order["filled"] != QUANTITY:
                raise RuntimeError(f"{name} did not fill: {order}")

    busy = time.process_time()
    await asyncio.gather(*(caller() for _ in range(at_once)))
    return {"cpu": time.process_time() - busy, "called": called}


async def main(url: str) -> None:
    """Serve repetitions until standard input ends."""
    exchange = ccxt.binance(
        {
            "apiKey": "local",
            "secret": "local-secret",
            "enableRateLimit": False,
            "options": {"fetchMarkets": {"types": ["spot"]}, "fetchMargins": False},
        }
    )
    redirect(exchange.urls["api"], urlsplit(url).netloc)
    exchange.has["fetchCurrencies"] = False
    try:
        await exchange.load_markets()
        print(json.dumps({"ready": ccxt.__version__}), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await place(exchange, **json.loads(line))), flush=True)
    finally:
        await exchange.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
