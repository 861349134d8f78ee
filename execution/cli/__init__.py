"""The `execution` command."""

from execution.cli.app import main

__all__ = ["main"]
