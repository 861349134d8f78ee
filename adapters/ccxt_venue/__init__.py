"""Exchanges through ccxt, which builds, signs and parses; sending, limiting and judging errors are ours.

endpoint    NAME[=EXCHANGE][@WHERE]
dialects    what differs from exchange to exchange, in one table
errors      what an error says about the request, in one audited table
transport   HTTP/1.1 over persistent connections, one send per request
exchange    a ccxt exchange on that transport
limiter     the venue's rate limits, cancels first
parsing     ccxt's and Binance's structures as ours, exactly
stream      order updates as they happen
adapter     all of it behind the adapter protocol
"""

import adapters.ccxt_venue.only_needed  # noqa: F401 - before anything imports ccxt
from adapters.ccxt_venue.adapter import CcxtAdapter
from adapters.ccxt_venue.endpoint import Endpoint, parse_endpoints

__all__ = ["CcxtAdapter", "Endpoint", "parse_endpoints"]
