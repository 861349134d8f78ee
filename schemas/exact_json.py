"""JSON whose numbers are read and written digit for digit.

A price that passes through a float is another price: 0.1234567890123456789 would come out with 17 digits. Everything that
carries money goes through these two functions.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec

_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(float_hook=Decimal)
_encoder = msgspec.json.Encoder(decimal_format="number")

encode: Callable[[Any], bytes] = _encoder.encode
"""Write a value (dicts, records, `Decimal`, enums) as JSON; a `Decimal` becomes a number with all of its digits."""


def decode(data: bytes | str) -> Any:
    """Read JSON; a number with a point or an exponent becomes a `Decimal` with every digit of the text.

    Raises:
        ValueError: the text is not JSON (`NaN`, `Infinity` and bytes that are not UTF-8 are not JSON either).
    """
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None


def canonical(value: Any) -> bytes:
    """JSON in one form for equal content: keys sorted, numbers without trailing zeros or exponents.

    Two texts that say the same, in whatever order or spelling of numbers, give the same bytes; used to tell a repeated
    message from one that differs.
    """
    return msgspec.json.encode(_normal(value), order="sorted")


def plain(number: Decimal) -> str:
    """The number in plain digits: no exponent, no trailing zeros (`1E+3` -> `1000`, `0.100` -> `0.1`)."""
    if number == 0:
        return "0"
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _normal(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _normal(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_normal(item) for item in value]
    if isinstance(value, bool):
        return value
    if isinstance(value, Decimal | int):
        return f"#{plain(Decimal(value)) if abs(Decimal(value).adjusted()) < 100 else value}"
    return value
