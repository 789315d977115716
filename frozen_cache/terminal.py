"""Lines for the terminal that stdout is: as wide as it, whole where it is none (a pipe, a file)."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence

LEAST = 40
"""Columns: narrower terminals get lines of this width."""
GAP = "  "


def terminal_width() -> int | None:
    """Columns of the terminal that stdout is; None where it is no terminal."""
    return max(LEAST, shutil.get_terminal_size().columns) if sys.stdout.isatty() else None


def folded(line: str, *, indent: int) -> list[str]:
    """A line in pieces for the terminal, broken between words; those after the first are indented. Whole elsewhere."""
    width = terminal_width()
    if width is None or len(line) <= width:
        return [line]
    return textwrap.wrap(line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def table_lines(rows: Sequence[Sequence[str]], *, width: int | None) -> list[str]:
    """Rows of cells in columns two spaces apart. Where that is too wide, long first cells get lines of their own."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    room = sum(widths[1:]) + len(GAP) * len(widths[1:])
    first = widths[0] if width is None else min(widths[0], max(len(rows[0][0]), width - room))
    lines = []
    for name, *cells in rows:
        if len(name) > first:
            lines.append(name)
            name = ""
        parts = [name.ljust(first), *(cell.ljust(each) for cell, each in zip(cells, widths[1:], strict=True))]
        lines.append(GAP.join(parts).rstrip())
    return lines
