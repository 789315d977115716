"""`frozen-cache run`: all that a project file says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from frozen_cache.cli.invoke import invoke
from frozen_cache.cli.project import PROJECT_FILE, read_project
from frozen_cache.errors import UserError
from frozen_cache.progress import say

ORDER = ("convert", "extract-features", "train-head", "evaluate")
"""The commands that `run` takes from a project file, each if it has a table there."""
GO_ON = {"convert": "--overwrite", "train-head": "--resume", "evaluate": "--overwrite"}
"""What lets a command go on with, or replace, what an earlier run of the project left."""


def run(
    context: typer.Context,
    project: Annotated[Path, typer.Argument(help="The project file, as `frozen-cache init` writes it.")] = Path(
        PROJECT_FILE
    ),
) -> None:
    """Do what a project file says, in order: extract, train, evaluate. The same command goes on where it stopped."""
    group = context.find_root().command
    tables = read_project(project, group.commands)  # type: ignore[attr-defined]
    steps = [name for name in ORDER if name in tables]
    if not steps:
        raise UserError(f"{project} has nothing to run: give it a table [extract-features], [train-head] or [evaluate]")
    for name in steps:
        say(f"== {name}")
        invoke(group, [name, GO_ON[name]] if name in GO_ON else [name], config=project)
