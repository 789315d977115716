"""Figures and names as the text of a table's cells."""

from __future__ import annotations

import re
from collections.abc import Sequence

PATH = re.compile(r"(?:[^\s,/]*/)+[^\s,/]+")
CHECKPOINT = re.compile(r"/(last|best)\.safetensors(?=$|[\s,])")


def percent(value: float | None) -> str:
    """0.1234 as `12.3`; a dash where there is nothing to measure."""
    return "–" if value is None or value < 0 else f"{100 * value:.1f}"


def ratio(mask: float, box: float) -> str:
    """mask / box with two digits."""
    return f"{mask / box:.2f}" if mask >= 0 and box > 0 else "–"


def short_names(names: Sequence[str], *, least: int = 1) -> list[str]:
    """The names with no more of their paths than tells them apart: a phone shows some 15 letters, and of a path the
    last folders say most. A run's checkpoint goes by the name of the run.

    Args:
        least: so many folders are kept in any case.
    """
    whole = [CHECKPOINT.sub("", name) for name in names]
    most = max((name.count("/") for name in whole), default=0) + 1
    for kept in range(least, most + 1):
        short = [_shortened(name, kept) for name in whole]
        if len(set(short)) == len(short):
            return short
    return list(names)


def _shortened(name: str, kept: int) -> str:
    return PATH.sub(lambda path: "/".join(path[0].split("/")[-kept:]), name)
