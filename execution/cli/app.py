"""The command line: which commands there are, and how their errors are told."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Annotated

import typer

from execution.cli.algorithms import algorithms
from execution.cli.commands import amend, cancel
from execution.cli.config import config
from execution.cli.development import dev
from execution.cli.operations import doctor, run, schemas
from execution.cli.orders import orders, show
from execution.cli.output import CommandError, err, print_plain
from execution.cli.reconcile import reconcile
from execution.cli.report import report
from execution.cli.resume import resume
from execution.cli.simulate import simulate
from execution.cli.submit import submit
from execution.cli.tail import tail
from execution.cli.watchdog import watchdog
from execution.settings import SettingsError

app = typer.Typer(
    name="execution",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    run,
    dev,
    submit,
    tail,
    orders,
    show,
    cancel,
    amend,
    resume,
    reconcile,
    algorithms,
    report,
    simulate,
    config,
    doctor,
    watchdog,
    schemas,
):
    app.command()(command)


def _version(wanted: bool) -> None:
    if wanted:
        print_plain(importlib.metadata.version("execution-service"))
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    config_file: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Settings in YAML or TOML; the environment wins over it."),
    ] = None,
    _: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)] = False,
) -> None:
    """Carries trading signals to exchanges, and tells what became of them.

    Settings come from the environment, or from --config FILE; `execution config` lists them.
    Where neither says anything, commands use a running `execution dev`.
    """
    context.obj = config_file


def main() -> int:
    """Run one command; returns its exit code: 0 done, 1 failed, 2 wrong usage or settings, 130 Ctrl-C."""
    try:
        code = app(standalone_mode=False)
    except typer.TyperException as error:
        return _fail(error.format_message().replace("Value error, ", ""), error.exit_code)
    except CommandError as error:
        return _fail(str(error), error.code)
    except SettingsError as error:
        return _fail(str(error), 2)
    except typer.Abort:
        return 130
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if not _is_foreseen(error):
            raise
        return _fail(str(error), 1)
    return code if isinstance(code, int) else 0


def _fail(message: str, code: int) -> int:
    for line in filter(None, message.splitlines()):
        err.print(f"execution: {line}")
    return code


def _is_foreseen(error: Exception) -> bool:
    """Whether an error of the service's parts speaks for itself; anything else is a defect and shows its traceback.

    The classes are looked up only now: importing them costs more than most commands.
    """
    from execution.embedded.redis_server import EmbeddedRedisError
    from execution.pubsub import PubSubError
    from execution.store import StoreRefused, StoreTooOld, StoreUnavailable

    return isinstance(error, PubSubError | StoreUnavailable | StoreRefused | StoreTooOld | EmbeddedRedisError)
