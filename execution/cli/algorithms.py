"""`execution algorithms`: which there are, what they do, and their parameters."""

from __future__ import annotations

import inspect
import types
import typing
from decimal import Decimal
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo

from execution.cli.output import CommandError, json_document, print_plain, table


def algorithms(
    name: Annotated[str | None, typer.Argument(help="Show one algorithm with its parameters.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables for the documentation.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the JSON Schema of the parameters.")] = False,
) -> int:
    """List the algorithms, or describe one with its parameters, their meaning, units and defaults."""
    from algorithms import ALGORITHMS

    if name is not None and name not in ALGORITHMS:
        raise CommandError(f"{name!r} is not one of {', '.join(ALGORITHMS)}", 2)
    chosen = {name: ALGORITHMS[name]} if name is not None else ALGORITHMS
    if as_json:
        json_document({each: kind.Parameters.model_json_schema() for each, kind in chosen.items()})
    elif markdown:
        print_plain("\n\n".join(f"### {each}\n\n{parameter_table(kind)}" for each, kind in chosen.items()))
    elif name is not None:
        print_plain(f"{inspect.getdoc(inspect.getmodule(type(chosen[name])))}\n")
        table(("parameter", "type", "default", "meaning"), _rows(chosen[name]))
    else:
        table(
            ("algorithm", "what it does"),
            [(each, first_sentence(kind)) for each, kind in chosen.items()],
        )
    return 0


def first_sentence(algorithm: Any) -> str:
    """What an algorithm does, from the head of its module."""
    text = " ".join((inspect.getdoc(inspect.getmodule(type(algorithm))) or "").split())
    head = text.split(". ")[0].rstrip(".")
    return head.split(": ", 1)[-1]


def parameter_table(algorithm: Any) -> str:
    """The parameters as a Markdown table."""
    lines = ["| parameter | type | default | meaning |", "|---|---|---|---|"]
    for name, kind, default, meaning in _rows(algorithm):
        lines.append(f"| `{name}` | {kind} | {default} | {meaning} |".replace("<", "&lt;"))
    return "\n".join(lines)


def _rows(algorithm: Any) -> list[tuple[str, str, str, str]]:
    return [
        (name, _type(info.annotation), _default(info), info.description or "")
        for name, info in algorithm.Parameters.model_fields.items()
    ]


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    if info.default is None:
        return "unset"
    return str(info.default).lower() if isinstance(info.default, bool) else f"{info.default}"


_WORDS: dict[Any, str] = {int: "whole number", float: "number", Decimal: "number", bool: "true or false", str: "text"}


def _type(annotation: Any) -> str:
    """A parameter's type in words."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is Annotated:
        return _type(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(each) for each in arguments if each is not type(None)))
    if origin in (tuple, list):
        return f"list of {_type(arguments[0])}s"
    return _WORDS.get(annotation, "number")
