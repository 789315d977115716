"""What Ctrl-C leaves behind, and the exact command that goes on or begins again."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from frozen_cache.errors import StoppedError

SEGMENTS = "finished segments are kept"
KEPT = {
    "demo": "finished parts are kept",
    "run": "finished parts are kept",
    "extract-features": SEGMENTS,
    "train-head": "checkpoints are safe",
    "ablate": "finished variants are kept",
    "cache repair": SEGMENTS,
    "cache copy": SEGMENTS,
    "cache relabel": SEGMENTS,
    "cache subset": SEGMENTS,
    "cache merge": SEGMENTS,
}
"""Command -> what is safe, for those that go on where they were; all others begin again."""
REPLACING = ("predict", "convert")
"""Commands that leave files which only `--overwrite` lets them replace."""


def stoppable(name: str, command: Callable[..., Any]) -> Callable[..., Any]:
    """`command`, with Ctrl-C as a StoppedError that says what is safe.

    typer, which calls it, would make a silent exit code of Ctrl-C, and `run` would go on with its next part.
    """

    @wraps(command)
    def stops(*arguments: Any, **options: Any) -> Any:
        try:
            return command(*arguments, **options)
        except KeyboardInterrupt:
            raise StoppedError(f"stopped at once; {KEPT.get(name, 'nothing of it is finished')}") from None

    return stops


def next_command(arguments: Sequence[str], *, rest: Sequence[str]) -> str:
    """What to type after a command was stopped.

    Args:
        arguments: of the command line.
        rest: those of them that are not general options, the command's name first.
    """
    name = next((name for name in (*KEPT, *REPLACING) if list(rest[: len(name.split())]) == name.split()), "")
    again = ["--overwrite"] if name in REPLACING and "--overwrite" not in arguments else []
    way = "go on" if name in KEPT else "begin again"
    return f"{way} with: {shlex.join(['frozen-cache', *arguments, *again])}"
