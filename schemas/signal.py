"""A risk-approved signal, as strategies and risk services publish it.

Numbers may be JSON numbers or strings. Times are milliseconds since the epoch; quantities are in the base asset, prices in
the quote asset.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from schemas.terms import MAX_DIGITS, OrderType, Side, TimeInForce, fits

SIGNAL_TYPES = frozenset({"signal.execute", "ai.decision.made"})
"""Message types that are signals by another name."""


def _exact(value: Any) -> Decimal:
    """A number as its text says it. Floats are refused: their digits are already gone."""
    if isinstance(value, bool) or not isinstance(value, Decimal | int | str):
        raise ValueError("must be a number, or a string holding one")
    try:
        number = value if isinstance(value, Decimal) else Decimal(value.strip() if isinstance(value, str) else value)
    except InvalidOperation:
        raise ValueError("must be a number, or a string holding one") from None
    if not number.is_finite():
        raise ValueError("must be a finite number")
    if not fits(number):
        raise ValueError(f"must have at most {MAX_DIGITS} digits before and after the point")
    return number


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


_NUMBER = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^-?\d+(\.\d+)?([eE][+-]?\d+)?$"}]}

Number = Annotated[Decimal, BeforeValidator(_exact), WithJsonSchema(_NUMBER)]
Positive = Annotated[
    Decimal, BeforeValidator(_exact), Field(gt=0), WithJsonSchema({**_NUMBER, "description": "greater than 0"})
]
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[!-~]+$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class Signal(BaseModel):
    """What to trade. The documented minimum is `signal_id`, `strategy_id`, `exchange`, `symbol`, `side`, `quantity`,
    `order_type`, with `price` for a limit order."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    signal_id: Identifier = Field(description="Unique per signal, for ever: the same id twice is one order.")
    strategy_id: Name
    exchange: Name = Field(description="A name from ADAPTER_ENDPOINTS, or `auto`.")
    symbol: Name = Field(description="As ccxt writes it: BASE/QUOTE.")
    side: Annotated[Side, BeforeValidator(_lower)]
    quantity: Positive = Field(description="In the base asset.")
    order_type: Annotated[OrderType, BeforeValidator(_lower)]
    price: Positive | None = Field(default=None, description="Limit price, in the quote asset.")
    time_in_force: Annotated[TimeInForce, BeforeValidator(_upper)] = TimeInForce.GTC
    algorithm: Annotated[Name, BeforeValidator(_lower)] = "direct"
    algorithm_params: dict[str, Any] = Field(default_factory=dict)
    venues: tuple[Name, ...] | None = None
    stop_price: Positive | None = None
    take_profit: Positive | None = None
    stop_loss: Positive | None = None
    reduce_only: bool = False
    post_only: bool = False
    leverage: Positive | None = None
    max_slippage_bps: Annotated[Number, Field(ge=0)] | None = Field(
        default=None, description="No child trades further than this from the arrival price; positive is cost."
    )
    slippage_policy: Annotated[Literal["pause", "end"], BeforeValidator(_lower)] | None = Field(
        default=None,
        description="What a market beyond max_slippage_bps does: pause until it comes back, or end the order. "
        "Default: end for algorithm direct, pause for the others.",
    )
    decision_price: Positive | None = Field(
        default=None, description="The mid when the strategy decided; transaction costs are measured from it too."
    )
    expires_at: Annotated[int, Field(gt=0)] | None = Field(default=None, description="Ms since the epoch.")
    user_id: Name | None = None
    trade_id: Name | None = None
    order_id: Identifier | None = Field(default=None, description="Used as the order's id when given.")
    metadata: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Signal:
        if self.order_type.has_limit_price and self.price is None:
            raise _field_error("price", f"is required for a {self.order_type} order")
        if self.order_type.has_trigger and self.stop_price is None:
            raise _field_error("stop_price", f"is required for a {self.order_type} order")
        if self.time_in_force is TimeInForce.GTD and self.expires_at is None:
            raise _field_error("expires_at", "is required with time_in_force GTD")
        maker_only = self.post_only or self.time_in_force is TimeInForce.PO
        if maker_only and not self.order_type.has_limit_price:
            raise _field_error("post_only", f"a {self.order_type} order cannot be post-only")
        if maker_only and self.time_in_force in (TimeInForce.IOC, TimeInForce.FOK):
            raise _field_error("time_in_force", f"{self.time_in_force} cannot be post-only")
        return self

    @property
    def maker_only(self) -> bool:
        return self.post_only or self.time_in_force is TimeInForce.PO


class InvalidSignal(ValueError):
    """A signal that cannot be traded: `field` says where, the message why."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field = field
        self.reason = reason


def unwrap(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """The signal inside a message: itself, or the object under `data`, `payload` or `signal` of an envelope."""
    if "signal_id" not in message:
        for key in ("data", "payload", "signal"):
            inner = message.get(key)
            if isinstance(inner, Mapping) and "signal_id" in inner:
                return inner
    return message


def parse(fields: Mapping[str, Any]) -> tuple[Signal, tuple[str, ...]]:
    """Validate a signal; also returns the names of fields that mean nothing to this service.

    Raises:
        InvalidSignal: naming the first wrong field and, in the reason, every other one. A field one slip away from a known
            one counts as wrong: a misspelt `stop_loss` must not trade without its stop.
    """
    unknown = [name for name in fields if name not in _KNOWN and name not in _ENVELOPE]
    for name in unknown:
        close = difflib.get_close_matches(name.lower(), _KNOWN, n=1, cutoff=0.85)
        if close and close[0] not in fields:
            raise InvalidSignal(name[:64], f"unknown field; did you mean {close[0]}?")
    try:
        return Signal.model_validate(fields), tuple(sorted(name[:64] for name in unknown))
    except ValidationError as error:
        problems = [_describe(detail) for detail in error.errors(include_url=False, include_input=False)]
        field, reason = problems[0]
        others = "; ".join(f"{name}: {why}" for name, why in problems[1:5])
        raise InvalidSignal(field, f"{reason} (also {others})" if others else reason) from None


_KNOWN = frozenset(Signal.model_fields)
_ENVELOPE = frozenset(
    {"type", "event_type", "timestamp", "version", "schema_version", "source", "event_id", "approved_at"}
)


def _field_error(field: str, reason: str) -> Exception:
    return ValueError(f"\0{field}\0{reason}")


def _describe(detail: Any) -> tuple[str, str]:
    """The field and the reason of one pydantic error, in words that fit after `field: `."""
    message = str(detail["msg"]).removeprefix("Value error, ")
    if message.startswith("\0"):
        _, field, reason = message.split("\0", 2)
        return field, reason
    field = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "missing":
        return field, "is required"
    return field, message[:1].lower() + message[1:]
