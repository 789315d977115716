"""Progress of long work: a bar on a terminal, a line now and then through a pipe, nothing at all unless asked.

The command line asks (`showing`); the library called from Python is silent.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

from tqdm import tqdm

from frozen_cache.printable import printable

Mode = Literal["off", "plain", "bar", "lines"]
"""Nothing; what is said (`say`) only; that and bars; that and a line now and then."""
SECONDS_BETWEEN_LINES = 20.0
LINE = "{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
_MODE: ContextVar[Mode] = ContextVar("progress", default="off")


@contextmanager
def showing(mode: Mode | None) -> Iterator[None]:
    """Show progress within the block; None for a bar where stderr is a terminal and lines where it is not."""
    token = _MODE.set(mode or ("bar" if sys.stderr.isatty() else "lines"))
    try:
        yield
    finally:
        _MODE.reset(token)


def progress_bar(
    *, desc: str, unit: str, total: int | None = None, initial: int = 0, shown: bool = True, **options: Any
) -> tqdm:
    """tqdm's bar of `total` units, on stderr, in the form that was asked for. TQDM_DISABLE is honoured.

    Args:
        shown: False for the processes whose progress is that of another one.
        options: further ones of tqdm: `leave`, `unit_scale`, `smoothing`.
    """
    mode = _MODE.get()
    if mode in ("off", "plain") or not shown or total == 0:
        options["disable"] = True
    kind = _Lines if mode == "lines" else tqdm
    return kind(desc=desc, unit=unit, total=total, initial=initial, **options)


def say(text: str) -> None:
    """One line on stderr, above the bars, where progress is shown."""
    if _MODE.get() != "off":
        tqdm.write(printable(text), file=sys.stderr)


class _Lines(tqdm):
    """Whole lines at long intervals instead of one that is written over, and one at the end of bars that stay."""

    _line_at = 0.0
    leave: bool | None

    def __init__(self, **options: Any) -> None:
        self._line_at = time.monotonic()
        super().__init__(**options)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Write a line if the last one is old enough; False, as there is never anything to take back."""
        if msg is None and self.n > self.initial and time.monotonic() - self._line_at >= SECONDS_BETWEEN_LINES:
            self._write_line()
        return False

    def clear(self, nolock: bool = False) -> None:
        """Lines stay."""

    def close(self) -> None:
        """A last line, for bars that are to stay."""
        if not self.disable and self.leave:
            self._write_line()
        self.leave = False
        super().close()

    def _write_line(self) -> None:
        self._line_at = time.monotonic()
        self.fp.write(self.format_meter(**self.format_dict | {"bar_format": LINE}) + "\n")
        self.fp.flush()
