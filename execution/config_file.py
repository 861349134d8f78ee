"""Reading a settings file, YAML or TOML."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import yaml


class ConfigFileError(Exception):
    """The file cannot be read; the message is one line that says why."""


def read_config_file(path: Path) -> dict[str, Any]:
    """The names and values in a file; a list becomes a comma list.

    Raises:
        ConfigFileError: it does not exist, is not YAML or TOML, or holds something else than names with plain values.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigFileError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}") from error
    try:
        found = tomllib.loads(text) if path.suffix.lower() == ".toml" else yaml.safe_load(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigFileError(f"{path}: is not TOML: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark is not None else ""
        raise ConfigFileError(f"{path}: is not YAML: {getattr(error, 'problem', 'cannot be parsed')}{where}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ConfigFileError(f"{path}: must hold names with values, such as `MAX_RETRIES: 3`")
    return {str(name): _plain(path, str(name), value) for name, value in found.items()}


def _plain(path: Path, name: str, value: Any) -> Any:
    if isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
        return ",".join(str(item) for item in value)
    if isinstance(value, dict | list):
        raise ConfigFileError(f"{path}: {name} must be a plain value or a list of them")
    return value
