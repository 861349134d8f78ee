"""Commands on the control topic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from schemas.signal import Identifier, InvalidSignal, Name, Positive, _describe, _field_error, _lower


class _Command(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    command_id: Identifier | None = Field(default=None, description="Repeating it does nothing.")
    reason: Annotated[str, Field(max_length=500)] | None = None


class _OrderCommand(_Command):
    order_id: Identifier | None = None
    signal_id: Identifier | None = None

    @model_validator(mode="after")
    def _names_an_order(self) -> _OrderCommand:
        if self.order_id is None and self.signal_id is None:
            raise _field_error("order_id", "is required, or signal_id")
        return self


class CancelOrder(_OrderCommand):
    type: Literal["order.cancel"]


class AmendOrder(_OrderCommand):
    """New values; what is not given stays. `quantity` is the new total, with what is filled already counted in."""

    type: Literal["order.amend"]
    quantity: Positive | None = None
    price: Positive | None = None
    stop_price: Positive | None = None
    algorithm_params: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> AmendOrder:
        if all(value is None for value in (self.quantity, self.price, self.stop_price, self.algorithm_params)):
            raise _field_error("quantity", "or price, stop_price, algorithm_params is required")
        return self


class PauseOrder(_OrderCommand):
    type: Literal["order.pause"]


class ResumeOrder(_OrderCommand):
    type: Literal["order.resume"]


class Halt(_Command):
    """Stop trading in a scope: no new orders, or also cancel what is open, or also flatten positions."""

    type: Literal["halt"]
    scope: Annotated[Literal["all", "venue", "strategy", "symbol"], BeforeValidator(_lower)] = "all"
    value: Name | None = None
    mode: Annotated[Literal["no_new", "cancel", "flatten"], BeforeValidator(_lower)] = "no_new"

    @model_validator(mode="after")
    def _scope_has_value(self) -> Halt:
        if self.scope != "all" and self.value is None:
            raise _field_error("value", f"is required with scope {self.scope}")
        return self


class Resume(_Command):
    """End a halt, also one of the dead man's switch: of a strategy, or every one."""

    type: Literal["resume"]
    scope: Annotated[Literal["all", "venue", "strategy", "symbol"], BeforeValidator(_lower)] = "all"
    value: Name | None = None

    @model_validator(mode="after")
    def _scope_has_value(self) -> Resume:
        if self.scope != "all" and self.value is None:
            raise _field_error("value", f"is required with scope {self.scope}")
        return self


class Heartbeat(_Command):
    """A strategy, or a source that stands for all orders, is alive. The first one arms the dead man's switch on it."""

    type: Literal["heartbeat"]
    strategy_id: Name | None = None
    source: Name | None = Field(default=None, description="Without `strategy_id`: who beats for all orders.")
    timeout_seconds: Positive | None = Field(
        default=None, description="Silence after which the switch trips, at least 1. Default: DEAD_MAN_TIMEOUT."
    )

    @model_validator(mode="after")
    def _names_somebody(self) -> Heartbeat:
        if self.strategy_id is None and self.source is None:
            raise _field_error("strategy_id", "is required, or source")
        return self


class Reconcile(_Command):
    """Compare a venue's account with the ledger now, or every venue's; answered by an event `service.reconciled`."""

    type: Literal["reconcile"]
    venue: Name | None = None


class Notice(_Command):
    """Something that happened elsewhere, recorded."""

    model_config = ConfigDict(frozen=True, extra="allow")
    type: Literal["ess.tripped", "policy.updated", "model.promoted"]


OrderCommand = CancelOrder | AmendOrder | PauseOrder | ResumeOrder
Command = Annotated[OrderCommand | Halt | Resume | Heartbeat | Reconcile | Notice, Field(discriminator="type")]

COMMANDS: TypeAdapter[OrderCommand | Halt | Resume | Heartbeat | Reconcile | Notice] = TypeAdapter(Command)


class InvalidCommand(InvalidSignal):
    """A command that cannot be read: `field` says where, the message why."""


def parse(fields: Mapping[str, Any]) -> OrderCommand | Halt | Resume | Heartbeat | Reconcile | Notice:
    """Validate a command.

    Raises:
        InvalidCommand: naming the first wrong field.
    """
    try:
        return COMMANDS.validate_python(dict(fields))
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False)[0]
        field, reason = _describe(detail)
        field = "type" if detail["type"].startswith("union_tag") else field.removeprefix(f"{fields.get('type')}.")
        raise InvalidCommand(field, reason) from None
