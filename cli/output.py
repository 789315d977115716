"""What commands print."""

from __future__ import annotations

from frozen_cache.printable import printable


def tell(text: str) -> None:
    """Write text to stdout, at once: a pipe that is closed and a disk that is full are found before the command ends.

    Names from data sets do nothing to the terminal.
    """
    print(printable(text), flush=True)
