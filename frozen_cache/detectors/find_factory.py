"""Finding a detector's factory in a Python file by reading it: the file is never run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

USUAL_NAME = "detector"
LARGEST_FILE = 1 << 20
"""In bytes; what loads a model is shorter."""


def find_factory(folder: Path) -> tuple[Path, str] | None:
    """(file, function) of the first factory in the Python files of a folder, as `--detector FILE.py:FUNCTION` takes it.

    A factory can be called without arguments and is named `detector` or returns a pair (model, image processor).
    """
    for file in sorted(folder.glob("*.py")):
        if (name := _factory_in(file)) is not None:
            return file, name
    return None


def _factory_in(file: Path) -> str | None:
    try:
        if file.stat().st_size > LARGEST_FILE:
            return None
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):  # not a file that Python reads
        return None
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and _needs_nothing(node)]
    usual = [node.name for node in functions if node.name == USUAL_NAME]
    pairs = [node.name for node in functions if not node.name.startswith("_") and any(map(_is_pair, _returned(node)))]
    return next(iter([*usual, *pairs]), None)


def _needs_nothing(function: ast.FunctionDef) -> bool:
    """Whether it can be called without arguments."""
    known = function.args
    without = len(known.posonlyargs) + len(known.args) - len(known.defaults)
    return without == 0 and all(default is not None for default in known.kw_defaults)


def _returned(node: ast.AST) -> Iterator[ast.expr | None]:
    """What a function returns, those inside it left aside."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Return):
            yield child.value
        elif not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield from _returned(child)


def _is_pair(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Tuple) and len(value.elts) == 2
