"""What messages promise: each option that one names is there, so that nobody is sent to one that is not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import typer

import frozen_cache
from frozen_cache.cli.main import app

PACKAGE = Path(frozen_cache.__file__).parent
OPTION = re.compile(r"(?<![\w/-])--[a-z][a-z0-9-]*[a-z0-9]")
GENERAL = {"--config", "--debug", "--help", "--no-progress", "--progress", "--quiet"}
"""Taken from the command line before the commands see it."""
OF_OTHERS = {"--nproc-per-node", "--porcelain", "--short", "--s0", "--s1"}
"""Of torchrun and git; names of colours in a page."""
PROGRAMS = {"train_detector.py"}
"""Files that are programs of their own, with options of their own."""


def options(command: typer.core.TyperCommand | typer.core.TyperGroup) -> Iterator[str]:
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    for inner in getattr(command, "commands", {}).values():
        yield from options(inner)


def texts(file: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of the strings of a file that are no docstrings, parts of one string joined."""
    tree = ast.parse(file.read_text())
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield (
                node.lineno,
                "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values),
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node.lineno, node.value


def test_options_that_messages_name_exist() -> None:
    known = {*options(typer.main.get_command(app)), *GENERAL, *OF_OTHERS}
    lost = {
        f"{file.relative_to(PACKAGE)}:{line} {option}"
        for folder in (PACKAGE, PACKAGE / "cli", PACKAGE / "stages")  # these two may be links
        for file in folder.rglob("*.py")
        if file.name not in PROGRAMS
        for line, text in texts(file)
        for option in OPTION.findall(text)
        if option not in known
    }
    assert sorted(lost) == []
