"""The project file: a TOML table a command, its keys the command's options; what is not given comes from there.

A table may have tables of its own (`[extract-features.train]`): then the command runs once for each, with the keys of
the table above it in common. Paths are relative to the file. The values become click's `default_map`.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

from frozen_cache.errors import UserError

PROJECT_FILE = "frozen-cache.toml"


def read_project(path: Path, commands: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Command -> the defaults of each of its runs, by parameter name; UserError names the key that is not known.

    Groups (`cache`) take a table a command (`[cache.repair]`), but no parts.

    Args:
        commands: click's commands by name.
    """
    if not path.is_file():
        raise UserError(f"--config {path}: there is no such file; `frozen-cache init` writes one")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--config {path} is not TOML that can be read: {error}") from None
    project = {}
    for name, table in content.items():
        command = _known(commands, name, where=str(path), what="command")
        if not isinstance(table, dict):
            raise UserError(f"{path}: `{name}` is to be a table, [{name}]")
        if hasattr(command, "commands"):
            where = f"{path} [{name}]"
            subs = {sub: _known(command.commands, sub, where=where, what="command") for sub in table}
            project[name] = [{sub: _values(subs[sub], sub, keys, path) for sub, keys in table.items()}]
            continue
        common = {key: value for key, value in table.items() if not isinstance(value, dict)}
        parts = [value for value in table.values() if isinstance(value, dict)] or [{}]
        project[name] = [_values(command, name, common | part, path) for part in parts]
    return project


def _values(command: Any, name: str, table: Any, path: Path) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise UserError(f"{path}: `{name}` is to be a table, [{name}]")
    options = {text.removeprefix("--"): option for option in command.params for text in (*option.opts, option.name)}
    values = {}
    for key, value in table.items():
        option = _known(options, key, where=f"{path} [{name}]", what="option")
        if any(isinstance(each, str) and (not each.strip() or "\0" in each) for each in _each(value)):
            raise UserError(f"{path} [{name}]: `{key}` is empty, or holds a character of no text: leave it out")
        values[option.name] = _value(option, value, path.parent, is_path=option.name in _paths(command.callback))
    return values


def _paths(function: Any) -> set[str]:
    """The names of a command's parameters that are paths."""
    hints = get_type_hints(function)
    return {name for name, hint in hints.items() if _names_path(hint)}


def _names_path(hint: Any) -> bool:
    return hint is Path or any(_names_path(part) for part in get_args(hint))


def _value(option: Any, value: Any, base: Path, *, is_path: bool) -> Any:
    if option.multiple:
        return [
            _single(option, each, base, is_path=is_path) for each in (value if isinstance(value, list) else [value])
        ]
    if isinstance(value, list) and option.nargs == 1:
        return ",".join(map(str, value))
    return _single(option, value, base, is_path=is_path)


def _each(value: Any) -> list[Any]:
    """What a list holds; `[]` counts as an empty text."""
    return (value or [""]) if isinstance(value, list) else [value]


def _single(option: Any, value: Any, base: Path, *, is_path: bool) -> Any:
    if is_path and isinstance(value, str):
        return value if "://" in value else str(base / value)
    if option.name == "detector" and isinstance(value, str) and value.startswith("hf:"):
        folder = base / value.removeprefix("hf:")
        return f"hf:{folder}" if folder.is_dir() else value
    if option.name == "detector" and isinstance(value, str) and value.rpartition(":")[0].endswith(".py"):
        return str(base / value)
    return value


def _known(known: Mapping[str, Any], name: str, *, where: str, what: str) -> Any:
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=1)
    advice = f"did you mean `{close[0]}`?" if close else f"known are {', '.join(sorted(known))}"
    raise UserError(f"{where}: there is no {what} `{name}`: {advice}")
