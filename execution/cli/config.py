"""`execution config`: every setting, its value, and where it came from."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from execution.cli.connection import load_settings
from execution.cli.output import json_document, print_plain, table
from execution.settings import Settings

_COMPUTED = {"INSTANCE_ID": "host name and pid", "HOST": "127.0.0.1 or 0.0.0.0"}
_CREDENTIALS = (
    "`<NAME>_API_KEY`, `<NAME>_API_SECRET`, `<NAME>_API_PASSWORD`",
    "Credentials of the venue NAME; each also as `..._FILE`, the path of a file that holds it.",
)


def config(
    context: typer.Context,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table of settings and defaults for the documentation.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
) -> int:
    """Print every setting with its meaning, its value (secrets masked) and where it came from."""
    if markdown:
        print_plain(markdown_table())
        return 0
    rows = load_settings(context.obj, needs=()).rows()
    if as_json:
        json_document([row._asdict() for row in rows])
    else:
        table(
            ("setting", "value", "from", "meaning"),
            [
                (
                    row.name,
                    row.value or "-",
                    Text(row.origin, style="dim" if row.origin == "default" else ""),
                    row.meaning,
                )
                for row in rows
            ],
        )
    return 0


def markdown_table() -> str:
    """Every setting with its meaning and default, whatever this machine's environment says."""
    lines = ["| name | meaning | default |", "|---|---|---|"]
    for row in Settings.load(env={}, needs=()).rows():
        default = _COMPUTED.get(row.name) or (f"`{row.value}`" if row.value else "unset")
        lines.append(f"| `{row.name}` | {_cell(row.meaning)} | {default} |")
    lines.append(f"| {_CREDENTIALS[0]} | {_CREDENTIALS[1]} | unset |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
