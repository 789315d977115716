"""Running one command, with what is not given taken from a project file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from frozen_cache.cli.project import read_project
from frozen_cache.errors import UserError


def invoke(group: Any, arguments: list[str], *, config: Path | None = None) -> Any:
    """Run a command of click's `group`: once, or once for each part of its table in the project file `config`."""
    if config is None:
        return group(arguments, standalone_mode=False)
    name = next((argument for argument in arguments if not argument.startswith("-")), "")
    parts = read_project(config, group.commands).get(name, [{}])
    if len(parts) > 1 and "--out" in arguments:
        raise UserError(f"--out: [{name}] in {config} has {len(parts)} parts, each with an --out of its own")
    result = None
    for defaults in parts:
        result = group(arguments, standalone_mode=False, default_map={name: defaults})
    return result
