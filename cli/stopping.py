"""What Ctrl-C leaves behind, and the exact command that goes on or begins again."""

from __future__ import annotations

import shlex
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from types import FrameType
from typing import Any

from frozen_cache.errors import FrozenCacheError, StoppedError

SEGMENTS = "finished segments are kept"
KEPT = {
    "demo": "finished parts are kept",
    "run": "finished parts are kept",
    "extract-features": SEGMENTS,
    "train-head": "checkpoints are safe",
    "ablate": "finished variants are kept",
    "convert": "finished files are kept",
    "cache repair": SEGMENTS,
    "cache copy": SEGMENTS,
    "cache relabel": SEGMENTS,
    "cache subset": SEGMENTS,
    "cache merge": SEGMENTS,
}
"""Command -> what is safe, for those that go on where they were; all others begin again."""
REPLACING = ("predict",)
"""Commands that leave files which only `--overwrite` lets them replace."""


def stoppable(name: str, command: Callable[..., Any]) -> Callable[..., Any]:
    """`command`, with Ctrl-C as a StoppedError that says what is safe.

    typer, which calls it, would make a silent exit code of Ctrl-C, and `run` would go on with its next part. Libraries
    make other errors of it while they are imported, so what fails after it was stopped, too.
    """

    @wraps(command)
    def stops(*arguments: Any, **options: Any) -> Any:
        stopped = StoppedError(f"stopped at once; {KEPT.get(name, 'nothing of it is finished')}")
        with _noted() as noted:
            try:
                return command(*arguments, **options)
            except KeyboardInterrupt:
                raise stopped from None
            except FrozenCacheError:
                raise
            except Exception:
                if noted:
                    raise stopped from None
                raise

    return stops


@contextmanager
def _noted() -> Iterator[list[int]]:
    """Within, a list of the SIGINTs that came; they raise KeyboardInterrupt as ever."""
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        signal.default_int_handler(number, frame)

    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield noted
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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
