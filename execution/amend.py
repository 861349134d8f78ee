"""New terms for an order that is being worked: what may be changed, and into what."""

from __future__ import annotations

import copy
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec

from algorithms.base import Refusal
from schemas.command import AmendOrder
from schemas.market import MarketRules
from schemas.order import ParentOrder, Totals, Trigger

Replan = Callable[[ParentOrder], dict[str, Any]]


def amend(
    parent: ParentOrder, sums: Totals, rules: MarketRules, command: AmendOrder, replan: Replan | None
) -> tuple[str, str] | None:
    """Give an order its new terms; returns the (field, reason) why they cannot be, or None.

    `sums`: what its entries add up to. `replan` gives the plan for changed parameters, and raises `Refusal` for impossible ones.
    """
    if parent.status.terminal:
        return "order_id", f"the order is {parent.status} already"
    if parent.cancel_requested:
        return "order_id", "the order is being canceled"
    trigger = parent.trigger
    if command.stop_price is not None:
        if trigger is None or trigger.price is None:
            return "stop_price", f"a {parent.order_type} order has none"
        if trigger.fired_at is not None:
            return "stop_price", "its trigger has been reached already"
    if command.price is not None and not parent.order_type.has_limit_price:
        return "price", f"a {parent.order_type} order has none"
    quantity = command.quantity if command.quantity is not None else parent.quantity
    price = command.price if command.price is not None else parent.price
    parameters = {**parent.algorithm_params, **(command.algorithm_params or {})}
    bound = sums.filled + sums.unknown
    if quantity < bound:
        return "quantity", f"{quantity:f} is below the {bound:f} that has filled or may have"
    stop_price = command.stop_price if command.stop_price is not None else parent.stop_price
    if (quantity, price, stop_price, parameters) == (
        parent.quantity,
        parent.price,
        parent.stop_price,
        parent.algorithm_params,
    ):
        return "quantity" if command.quantity is not None else "price", "the order has these terms already"
    if quantity > bound:
        rounded = rules.round_price(price, parent.side) if price is not None else None
        rest = rules.round_quantity(quantity - bound, parent.order_type)
        refusal = rules.refusal(rest, parent.order_type, rounded)
        if refusal is not None and "above the maximum" in refusal[1] and parent.algorithm != "direct":
            refusal = None  # it is sliced
        if refusal is not None and (command.price is not None or not sums.filled):
            return refusal
    beyond = _beyond_exits(parent, price if price is not None else stop_price)
    if beyond is not None and (command.price is not None or command.stop_price is not None):
        return "price" if command.price is not None else "stop_price", beyond
    if parameters != parent.algorithm_params:
        if replan is None:
            return "algorithm_params", f"{parent.algorithm} has none that can be amended"
        changed = copy.copy(parent)
        changed.quantity, changed.price, changed.algorithm_params = quantity, price, parameters
        try:
            parent.plan = replan(changed)
        except Refusal as error:
            return error.field, error.reason
        parent.algorithm_params = parameters
    if command.stop_price is not None and trigger is not None:
        parent.stop_price = command.stop_price
        at = rules.round_price(command.stop_price, parent.side)
        parent.trigger = trigger = msgspec.structs.replace(trigger, price=at)
    if trigger is not None and trigger.fired_at is None and command.algorithm_params:
        parent.trigger = _retrailed(trigger, command.algorithm_params)
    parent.quantity, parent.price = quantity, price
    parent.amendments += 1
    return None


def _retrailed(trigger: Trigger, parameters: dict[str, Any]) -> Trigger:
    """A trailing stop with amended parameters; where it has trailed to by now, it stays."""
    trail, activation = parameters.get("trail_bps"), parameters.get("activation_price")
    return msgspec.structs.replace(
        trigger,
        trail_bps=Decimal(str(trail)) if trail is not None else trigger.trail_bps,
        activation=Decimal(str(activation)) if activation is not None else trigger.activation,
    )


def _beyond_exits(parent: ParentOrder, price: Decimal | None) -> str | None:
    """Why an entry at a price would be closed as soon as it is opened; None: it would not."""
    for name, exit_at, way in (("take_profit", parent.take_profit, 1), ("stop_loss", parent.stop_loss, -1)):
        if price is not None and exit_at is not None and way * parent.side.sign * (exit_at - price) <= 0:
            return f"{price:f} is beyond the order's {name}, {exit_at:f}"
    return None
