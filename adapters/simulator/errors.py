"""Errors as Binance spot gives them."""

from __future__ import annotations


class VenueError(Exception):
    """An error answer: HTTP status, code and text."""

    def __init__(self, code: int, message: str, status: int = 400, data: object = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.data = data


def filter_failure(name: str) -> VenueError:
    return VenueError(-1013, f"Filter failure: {name}")


def missing(parameter: str) -> VenueError:
    return VenueError(-1102, f"Mandatory parameter '{parameter}' was not sent, was empty/null, or malformed.")


def rejected(message: str) -> VenueError:
    return VenueError(-2010, message)


def unsupported(what: str) -> VenueError:
    """A kind of order that the symbol does not take: "Stop loss", "Iceberg", ..."""
    return VenueError(-1013, f"{what} orders are not supported for this symbol.")


def not_required(parameter: str) -> VenueError:
    return VenueError(-1106, f"Parameter '{parameter}' sent when not required.")


INSUFFICIENT = "Account has insufficient balance for requested action."
DUPLICATE = "Duplicate order sent."
WOULD_MATCH = "Order would immediately match and take."
WOULD_TRIGGER = "Stop price would trigger immediately."
CLOSED = "This action is disabled on this account."
MARKET_CLOSED = "Market is closed."
ICEBERG_EXCEEDS = VenueError(-1013, "IcebergQty exceeds QTY.")
UNSUPPORTED_COMBINATION = VenueError(-1014, "Unsupported order combination.")
INVALID_SYMBOL = VenueError(-1121, "Invalid symbol.")
UNKNOWN_CANCEL = VenueError(-2011, "Unknown order sent.")
NO_SUCH_ORDER = VenueError(-2013, "Order does not exist.")
BAD_KEY_FORMAT = VenueError(-2014, "API-key format invalid.", 401)
BAD_KEY = VenueError(-2015, "Invalid API-key, IP, or permissions for action.", 401)
BAD_SIGNATURE = VenueError(-1022, "Signature for this request is not valid.")
OUTSIDE_WINDOW = VenueError(-1021, "Timestamp for this request is outside of the recvWindow.")
AHEAD = VenueError(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")
TOO_PRECISE = VenueError(-1111, "Parameter 'quantity' has too much precision.")
"""Kept for parameters with more than eight decimals."""
