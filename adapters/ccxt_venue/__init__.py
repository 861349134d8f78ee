"""Exchanges through ccxt, which builds, signs and parses; sending, limiting and judging errors are ours.

only_needed     ccxt, imported exchange by exchange
endpoint        NAME[=EXCHANGE][@WHERE]
adapter         all of the below behind the adapter protocol
dialects        what differs from exchange to exchange, in one table
binance_orders  orders and trades of Binance spot, in its own JSON
unified_orders  the same everywhere else, by ccxt's unified methods
native          orders that wait, trail or hide at a venue, and which are refused
candles         what was traded per interval
market_data     books and trades of everybody: streamed, or asked for; said to be down in between
market_binance  Binance's streams of books and trades, gaps filled
market_unified  ccxt.pro's streams, and polling
watch           a stream that is silent, and a market that is
feed            at most ten books a second, and every trade once
public_only     what keeps a place that is only watched from being asked for more
parsing         ccxt's and Binance's structures as ours, exactly
stream          order updates as they happen
clock           how far the venue's clock and ours are apart
requests        every request: its lane, its one send, what its failure means
errors          what an error says about the request, in one audited table
limiter         the venue's rate limits, cancels first
exchange        a ccxt exchange on our limiter and transport
transport       HTTP/1.1 over persistent connections, one send per request
"""

import adapters.ccxt_venue.only_needed  # noqa: F401 - before anything imports ccxt
from adapters.ccxt_venue.adapter import CcxtAdapter
from adapters.ccxt_venue.endpoint import Endpoint, parse_endpoints

__all__ = ["CcxtAdapter", "Endpoint", "parse_endpoints"]
