"""Files of every layout are known by their content, and give the same trades, candles and books."""

from __future__ import annotations

import gzip
import json
import os
import sys
import zipfile
from decimal import Decimal as D
from pathlib import Path

import pytest

from adapters.recorded import Book, RecordingError, Trades, open_recording
from adapters.recorded.read import Units
from adapters.recorded.synthesis import BookSynthesis
from schemas.market import BookLevel
from schemas.terms import Side

T = 1_700_000_000_000
QUIET = BookSynthesis(spread_bps=1, refresh_ms=0)

# The same two trades (a buy of 0.5 at 100.1, a second later a sell of 0.25 at 100) as venues write them.
TRADES = {
    "Binance trades": (
        "BTCUSDT-trades.csv",
        "id,price,qty,quote_qty,time,is_buyer_maker\n7,100.1,0.5,50.05,1700000000000,false\n8,100.0,0.25,25,1700000001000,true\n",
    ),
    "Binance aggTrades": (
        "BTCUSDT-aggTrades.csv",
        "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n"
        "7,100.1,0.5,1,2,1700000000000,False\n8,100.0,0.25,3,3,1700000001000,True\n",
    ),
    "Bybit trades": (
        "BTCUSDT2023-11-14.csv",
        "timestamp,symbol,side,size,price,tickDirection,trdMatchID,grossValue,homeNotional,foreignNotional\n"
        "1700000000.0001,BTCUSDT,Buy,0.5,100.1,PlusTick,aa-1,1,0.5,50.05\n1700000001.0,BTCUSDT,Sell,0.25,100.0,MinusTick,aa-2,1,.25,25\n",
    ),
    "Bybit spot trades": (
        "BTCUSDT_2023-11-14.csv",
        "id,timestamp,price,volume,side,rpi\n7,1700000000000,100.1,0.5,buy,0\n8,1700000001000,100.0,0.25,sell,0\n",
    ),
    "OKX trades": (
        "BTC-USDT-trades-2023-11-14.csv",
        "instrument_name,trade_id,side,price,size,created_time\nBTC-USDT,7,buy,100.1,0.5,1700000000000\nBTC-USDT,8,sell,100.0,0.25,1700000001000\n",
    ),
    "Tardis trades": (
        "trades_BTCUSDT.csv",
        "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"
        "binance,BTCUSDT,1699999999990000,1700000000000100,7,buy,100.1,0.5\nbinance,BTCUSDT,1700000000990000,1700000001000200,8,sell,100.0,0.25\n",
    ),
    "ccxt fetch_trades": (
        "btcusdt.json",
        json.dumps(
            [
                {"info": {"a": 1}, "timestamp": T, "datetime": "x", "symbol": "BTC/USDT", "id": "7", "type": None, "side": "buy", "takerOrMaker": None, "price": 100.1, "amount": 0.5},
                {"info": {"a": 2}, "timestamp": T + 1000, "datetime": "x", "symbol": "BTC/USDT", "id": "8", "type": None, "side": "sell", "takerOrMaker": None, "price": 100.0, "amount": 0.25},
            ]
        ),
    ),
    "Kraken REST trades": (
        "trades.json",
        '{"error":[],"result":{"XBTUSDT":[["100.10","0.5",1700000000.0001,"b","l","",7],["100.00","0.25",1700000001.0,"s","m","",8]],"last":"1"}}',
    ),
    "trades": (
        "tape BTC-USDT.csv",
        "\ufeffDate;Px;Qty;Side\n2023-11-14T22:13:20Z;100.1;0.5;BUY\n2023-11-14 22:13:21+00:00;100.0;0.25;SELL\n",
    ),
}  # fmt: skip
UNNAMED = {
    "Binance trades": "7,100.1,0.5,50.05,1700000000000000,False,True\n8,100.0,0.25,25,1700000001000000,True,True\n",
    "Binance aggTrades": "7,100.1,0.5,1,2,1700000000000,False,True\n8,100.0,0.25,3,3,1700000001000,True,True\n",
    "Kraken archive trades": "1700000000,100.1,0.5\n1700000001,100.0,0.25\n",
}


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def told(recording) -> list[tuple[int, D, D, Side | None]]:
    return [
        (trade.timestamp, trade.price, trade.quantity, trade.side)
        for event in recording.events()
        if isinstance(event, Trades)
        for trade in event.trades
    ]


EXPECTED = [(T, D("100.1"), D("0.5"), Side.BUY), (T + 1000, D(100), D("0.25"), Side.SELL)]


@pytest.mark.parametrize("layout", TRADES)
def test_trades_under_named_columns(tmp_path: Path, layout: str) -> None:
    name, text = TRADES[layout]
    recording = open_recording(write(tmp_path, name, text), synthesis=QUIET)
    assert told(recording) == EXPECTED
    assert recording.symbol == "BTC/USDT"
    assert any(f"in the layout {layout} (" in line for line in recording.describe())


@pytest.mark.parametrize("layout", UNNAMED)
def test_trades_without_names(tmp_path: Path, layout: str) -> None:
    recording = open_recording(write(tmp_path, "x.csv", UNNAMED[layout]), symbol="BTC/USDT", synthesis=QUIET)
    sides = (None, None) if "Kraken" in layout else (Side.BUY, Side.SELL)
    assert told(recording) == [(*row[:3], side) for row, side in zip(EXPECTED, sides, strict=True)]
    assert any(f"in the layout {layout} (" in line for line in recording.describe())


@pytest.mark.parametrize("packed", ["gz", "zip", "jsonl", "jsonl.gz", "parquet", "misnamed"])
def test_however_it_is_packed(tmp_path: Path, packed: str) -> None:
    _, text = TRADES["Binance trades"]
    path = tmp_path / f"BTCUSDT.{packed}"
    names, *rows = [line.split(",") for line in text.splitlines()]
    records = [dict(zip(names, row, strict=True)) for row in rows]
    lines = "\n".join(json.dumps(record) for record in records)
    if packed in ("gz", "misnamed"):
        path = path if packed == "gz" else tmp_path / "BTCUSDT.csv"
        path.write_bytes(gzip.compress(text.encode()))
    elif packed == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("BTCUSDT-trades.csv", text)
    elif packed == "parquet":
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        table = pa.table(
            {
                "trade_id": [7, 8],
                "ts": pa.array([T * 1_000_000, (T + 1000) * 1_000_000], pa.timestamp("ns")),
                "price": [100.1, 100.0],
                "qty": pa.array([D("0.50"), D("0.25")], pa.decimal128(10, 2)),
                "side": ["buy", "sell"],
            }
        )
        pq.write_table(table, path)
    else:
        path.write_bytes(gzip.compress(lines.encode()) if packed.endswith("gz") else lines.encode())
    assert told(open_recording(path, synthesis=QUIET)) == EXPECTED


def test_parquet_without_its_reader_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1" + bytes(100))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(RecordingError, match=r"execution-service\[data\]"):
        open_recording(tmp_path / "x.parquet")


CANDLES = {
    "klines": "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore\n"
    "1699999980000,100,102,99,101,5,1700000039999,1,1,1,1,0\n1700000040000,101,103,100.5,102,6,1700000099999,1,1,1,1,0\n",
    "klines without names, us": "1699999980000000,100,102,99,101,5,1700000039999999,1,1,1,1,0\n"
    "1700000040000000,101,103,100.5,102,6,1700000099999999,1,1,1,1,0\n",
    "CryptoDataDownload": "https://www.CryptoDataDownload.com\nUnix,Date,Symbol,Open,High,Low,Close,Volume BTC,Volume USDT,tradecount\n"
    "1700000040000,2023-11-14 22:14:00,BTCUSDT,101,103,100.5,102,6,600,9\n1699999980000,2023-11-14 22:13:00,BTCUSDT,100,102,99,101,5,500,9\n",
    "Kraken archive": "1699999980,100,102,99,101,5,12\n1700000040,101,103,100.5,102,6,13\n",
    "Kraken REST": '{"error":[],"result":{"XBTUSDT":[[1699999980,"100","102","99","101","100.2","5",12],[1700000040,"101","103","100.5","102","101","6",13]],"last":1}}',
    "ccxt": "[[1699999980000,100,102,99,101,5],[1700000040000,101,103,100.5,102,6]]",
    "Coinbase": "[[1700000040,100.5,103,101,102,6],[1699999980,99,102,100,101,5]]",
    "names of people": "date,open,high,low,close,volume\n2023-11-14 22:13:00,100,102,99,101,5\n2023-11-14 22:14:00,101,103,100.5,102,6\n",
}  # fmt: skip


@pytest.mark.parametrize("layout", CANDLES)
def test_candles_become_trades_that_respect_them(tmp_path: Path, layout: str) -> None:
    recording = open_recording(write(tmp_path, "x", CANDLES[layout]), symbol="BTC/USDT", synthesis=QUIET)
    trades = told(recording)
    assert recording.candle_seconds == 60
    for start, bar in (
        (1_699_999_980_000, (100, 102, 99, 101, 5)),
        (1_700_000_040_000, (101, 103, D("100.5"), 102, 6)),
    ):
        inside = [trade for trade in trades if start <= trade[0] < start + 60_000]
        prices = [trade[1] for trade in inside]
        assert (prices[0], max(prices), min(prices), prices[-1], sum(trade[2] for trade in inside)) == bar
    assert any("synthesised trades" in line for line in recording.describe())


def test_quotes_and_book_snapshots(tmp_path: Path) -> None:
    level = BookLevel
    book = ((level(D("99.5"), D(2)),), (level(D("100.5"), D(3)),))
    ticker = "update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,transaction_time,event_time\n1,99.5,2,100.5,3,1700000000000,1700000000001\n"
    unnamed = "12,99.5,2,100.5,3,1700000000000,1700000000001\n"
    quotes = "exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount\nx,BTCUSDT,1,1700000000000000,3,100.5,99.5,2\n"
    deep = (
        "exchange,symbol,timestamp,local_timestamp,asks[0].price,asks[0].amount,bids[0].price,bids[0].amount,asks[1].price,asks[1].amount,bids[1].price,bids[1].amount\n"
        "x,BTCUSDT,1,1700000000000000,100.5,3,99.5,2,101,4,,\n"
    )
    for number, text in enumerate((ticker, unnamed, quotes)):
        (event,) = open_recording(write(tmp_path, f"{number}.csv", text), symbol="BTC/USDT").events()
        assert isinstance(event, Book)
        assert (event.ts, event.bids, event.asks) == (T, *book)
    (event,) = open_recording(write(tmp_path, "deep.csv", deep), symbol="BTC/USDT").events()
    assert isinstance(event, Book)
    assert event.bids == book[0]
    assert event.asks == (*book[1], level(D(101), D(4)))


def test_snapshots_and_deltas_keep_a_book(tmp_path: Path) -> None:
    lines = [
        {"topic": "orderbook.500.BTCUSDT", "type": "snapshot", "ts": T, "data": {"s": "BTCUSDT", "b": [["99", "1"], ["98", "5"]], "a": [["101", "1"]]}},
        {"topic": "orderbook.500.BTCUSDT", "type": "delta", "ts": T + 10, "data": {"s": "BTCUSDT", "b": [["99", "0"], ["98.5", "2"]], "a": [["101", "7"]]}},
        {"topic": "orderbook.500.BTCUSDT", "type": "snapshot", "ts": T + 20, "data": {"s": "BTCUSDT", "b": [["90", "1"]], "a": [["110", "1"]]}},
    ]  # fmt: skip
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("2023-11-14_BTCUSDT_ob500.data", "\n".join(json.dumps(line) for line in lines))
    recording = open_recording(path)
    tops = [
        ([(int(at.price * 10), int(at.quantity)) for at in book.bids], book.asks[0].quantity)
        for book in recording.events()
    ]
    assert tops == [([(990, 1), (980, 5)], 1), ([(985, 2), (980, 5)], 7), ([(900, 1)], 1)]
    assert recording.rules().tick == D("0.1")


def test_changes_of_single_prices_make_books(tmp_path: Path) -> None:
    text = "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount\n" + "".join(
        f"x,BTCUSDT,1,{ts}000,{snapshot},{side},{price},{amount}\n"
        for ts, snapshot, side, price, amount in (
            (T, "true", "bid", 99, 1), (T, "true", "ask", 101, 1), (T + 5, "false", "bid", 99, 0), (T + 5, "false", "bid", 98, 4), (T + 9, "false", "ask", 101, 2),
        )
    )  # fmt: skip
    books = list(open_recording(write(tmp_path, "l2.csv", text)).events())
    assert [(book.ts, book.bids[0].price, book.asks[0].quantity) for book in books] == [(T, 99, 1), (T + 5, 98, 1)]


def test_rows_out_of_order_and_twice_are_put_right_and_counted(tmp_path: Path) -> None:
    head = "id,time,price,qty,side\n"
    rows = [(1, 0), (3, 200), (2, 100), (3, 200), (4, 9000), (5, 50), (6, 9001)]
    text = head + "".join(f"{name},{T + at},100,{name},buy\n" for name, at in rows) + f"7,{T + 9002},100,0,buy\n"
    recording = open_recording(write(tmp_path, "BTCUSDT.csv", text), synthesis=QUIET)
    assert [row[2] for row in told(recording)] == [1, 2, 3, 4, 6] or [row[2] for row in told(recording)] == [
        1,
        5,
        2,
        3,
        4,
        6,
    ]
    report = recording.report
    assert (report.rows, report.sorted + report.too_late, report.duplicates, report.empty) == (8, 2, 1, 1)
    assert any("with a known id" in line for line in recording.describe())


def test_newest_first_is_read_from_the_end(tmp_path: Path) -> None:
    lines = [f"{number},{T + number * 500},100.{number % 7},0.5,buy\n" for number in range(30_000)]
    path = write(tmp_path, "BTCUSDT.csv", "id,time,price,qty,side\n" + "".join(reversed(lines)))
    recording = open_recording(path, synthesis=QUIET)
    assert [row[0] for row in told(recording)] == [T + number * 500 for number in range(30_000)]
    assert recording.report.too_late == 0


def test_only_the_symbol_that_was_asked_for(tmp_path: Path) -> None:
    text = f"time,symbol,price,qty\n{T},BTC-USDT-SWAP,100,1\n{T},ETH-USDT-SWAP,10,2\n{T + 1},BTC-USDT-SWAP,100,3\n"
    recording = open_recording(write(tmp_path, "x.csv", text), symbol="BTC/USDT:USDT", synthesis=QUIET)
    assert [row[2] for row in told(recording)] == [1, 3]
    assert recording.report.other_symbols == 1


def test_books_trades_and_bounds_go_together(tmp_path: Path) -> None:
    trades = write(tmp_path, "a.csv", f"time,price,qty\n{T},100,1\n{T + 20},100,1\n{T + 30},100,1\n")
    quotes = write(
        tmp_path, "b.csv", f"time,bid,bidqty,ask,askqty\n{T},99,1,101,1\n{T + 10},99,1,101,1\n{T + 20},99,2,101,1\n"
    )
    recording = open_recording([quotes, trades], symbol="BTC/USDT", since_ms=T + 10, until_ms=T + 30)
    assert [(event.ts - T, type(event).__name__) for event in recording.events()] == [
        (10, "Book"),
        (20, "Trades"),
        (20, "Book"),
    ]
    assert "nothing synthesised" in recording.describe()


def test_quantities_that_are_contracts_or_amounts(tmp_path: Path) -> None:
    path = write(tmp_path, "BTCUSD.csv", f"time,price,size,side\n{T},50000,100,buy\n")
    for units, expected in ((Units(contract_size=D("0.01")), D(1)), (Units(in_quote=True), D("0.002"))):
        assert [row[2] for row in told(open_recording(path, units=units, synthesis=QUIET))] == [expected]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "foo,bar\n1,2\n", "unknown layout; seen: CSV, columns foo, bar"),
        ("b.csv", "1,2,3,4\n5,6,7,8\n", "no names of columns, a first row ['1', '2', '3', '4']"),
        ("c.csv", "", "is empty"),
        ("d.json", '{"a": 1}', "known layouts"),
        ("e.bin", "\x00\x01\x02", "neither text nor Parquet"),
        ("f.csv", "time,price,qty\n", "has no rows"),
        ("g.csv", "time,price,qty\n1700000000000,x,1\n", "taken for trades"),
        ("h.csv", "time,price,qty\n1700000000000,1,1\n", "does not tell its symbol"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_said(tmp_path: Path, name: str, text: str, says: str) -> None:
    with pytest.raises(RecordingError) as caught:
        open_recording(write(tmp_path, name, text))
    assert says in str(caught.value)
    assert name in str(caught.value)


def test_a_broken_row_is_named(tmp_path: Path) -> None:
    rows = "".join(f"{T + at},100,1\n" for at in range(20))
    recording = open_recording(
        write(tmp_path, "BTCUSDT.csv", f"time,price,qty\n{rows}{T + 20},NaN,1\n"), synthesis=QUIET
    )
    with pytest.raises(RecordingError, match=r"BTCUSDT.csv: row 21 .*finite"):
        list(recording.events())


DATA = Path(os.environ.get("MARKET_RECORDINGS", "recordings"))
"""Where real recordings are; they are not part of the project."""


@pytest.mark.skipif(not DATA.is_dir(), reason="recordings are not here")
@pytest.mark.parametrize(
    ("name", "symbol", "trades"),
    [("kraken-xbtusdt-trades.json", "BTC/USDT", 1000), ("kraken-xbtusdt-ohlc-1m.json", "BTC/USDT", None), ("bybit-xrpusdt-ob500.zip", "XRP/USDT", 0)],
)  # fmt: skip
def test_real_recordings(name: str, symbol: str, trades: int | None) -> None:
    recording = open_recording(DATA / name)
    assert recording.symbol == symbol
    events = list(recording.events())
    assert [event.ts for event in events] == sorted(event.ts for event in events)
    if trades is not None:
        assert sum(len(event.trades) for event in events if isinstance(event, Trades)) == trades


def test_messages_of_another_symbol_are_refused(tmp_path: Path) -> None:
    line = {"ts": T, "type": "snapshot", "data": {"s": "XRPUSDT", "b": [["99", "1"]], "a": [["101", "1"]]}}
    path = write(tmp_path, "x.jsonl", json.dumps(line))
    with pytest.raises(RecordingError, match=r"x.jsonl is of XRPUSDT, not of BTC/USDT"):
        open_recording(path, symbol="BTC/USDT")
    assert len(list(open_recording(path, symbol="XRP/USDT").events())) == 1


def test_a_long_json_array_is_read_in_pieces(tmp_path: Path) -> None:
    rows = [{"timestamp": T + at, "price": 100.5, "amount": 1, "note": "é" * 9} for at in range(4000)]
    text = json.dumps(rows, ensure_ascii=False, indent=1)
    assert len(text) > 4 * 65_536
    recording = open_recording(write(tmp_path, "BTCUSDT.json", text), synthesis=QUIET)
    assert [row[0] for row in told(recording)] == [T + at for at in range(4000)]
    broken = open_recording(write(tmp_path, "ETHUSDT.json", text[:-200]), synthesis=QUIET)
    with pytest.raises(RecordingError, match="breaks off"):
        list(broken.events())


def test_candles_beside_trades_are_history_only(tmp_path: Path) -> None:
    trades = write(tmp_path, "a.csv", f"time,price,qty\n{T + 50_000},100,1\n")
    bars = write(tmp_path, "b.csv", CANDLES["names of people"])
    recording = open_recording([trades, bars], symbol="BTC/USDT", synthesis=QUIET)
    assert len(told(recording)) == 1
    candles, seconds = recording.history()
    assert [candle.close for candle in candles] == [101]
    assert seconds == 60
    assert "candles serve as history only" in recording.describe()
    earlier = open_recording([trades, bars], symbol="BTC/USDT", since_ms=T + 39_999)
    assert earlier.history()[0] == [], "the candle ends a millisecond later"
