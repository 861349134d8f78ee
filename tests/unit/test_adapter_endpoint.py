"""`ADAPTER_ENDPOINTS`, and where redirected requests go."""

from __future__ import annotations

import pytest

from adapters.ccxt_venue import Endpoint, parse_endpoints
from adapters.ccxt_venue.exchange import redirect


def test_names_exchanges_and_places() -> None:
    text = (
        "binance, main=kraken@live ,test=bybit@sandbox,local=binance@http://127.0.0.1:9000/,tls=okx@https://venue.test,"
        "gate@paper,dry=binance@paper+http://127.0.0.1:9000"
    )
    assert parse_endpoints(text) == [
        Endpoint("binance", "binance"),
        Endpoint("main", "kraken"),
        Endpoint("test", "bybit", "sandbox"),
        Endpoint("local", "binance", "url", "http://127.0.0.1:9000"),
        Endpoint("tls", "okx", "url", "https://venue.test"),
        Endpoint("gate", "gate", "paper"),
        Endpoint("dry", "binance", "paper", "http://127.0.0.1:9000"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "at least one"),
        ("nosuchexchange", "nosuchexchange"),
        ("a=nosuchexchange@live", "nosuchexchange"),
        ("binance@paper+", "paper+"),
        ("binance@paper+live", "paper+live"),
        ("binance@paperhttp://h:1", "paperhttp"),
        ("binance@moon", "moon"),
        ("binance@ftp://x", "ftp://x"),
        ("binance@http://", "http://"),
        ("binance@http://h:99999", "99999"),
        ("binance@http://h:1/path", "/path"),
        ("binance@http://user:hidden@h:1", "***"),
        ("a=binance,a=kraken", "twice"),
        ("binanse", "but binance"),
        ("=binance", "NAME"),
        ("a b=binance", "NAME"),
    ],
)
def test_what_is_wrong_is_named_with_the_form(text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_endpoints(text)
    assert said in str(caught.value)
    assert "ADAPTER_ENDPOINTS" in str(caught.value)
    assert "NAME[=EXCHANGE][@WHERE]" in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_every_address_is_redirected_and_keeps_its_path() -> None:
    urls = {
        "public": "https://api.{hostname}/api/v3",
        "ws": {"spot": "wss://stream.binance.com:9443/ws", "ws-api": {"spot": "wss://ws-api.binance.com/ws-api/v3"}},
        "bare": "https://www.okx.com",
        "number": 7,
    }
    redirect(urls, "http://127.0.0.1:9000")
    assert urls == {
        "public": "http://127.0.0.1:9000/api/v3",
        "ws": {"spot": "ws://127.0.0.1:9000/ws", "ws-api": {"spot": "ws://127.0.0.1:9000/ws-api/v3"}},
        "bare": "http://127.0.0.1:9000",
        "number": 7,
    }
    redirect(urls, "https://venue.test")
    assert urls["ws"]["spot"] == "wss://venue.test/ws"  # type: ignore[index]
