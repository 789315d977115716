"""The files below a folder, through links as well: data sets are often links into another disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def folders_below(folder: Path) -> Iterator[Path]:
    """The folder itself and all below it, by name; each real folder once, so that links in a circle end."""
    seen: set[str] = set()
    for root, names, _ in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            names.clear()
            continue
        seen.add(real)
        names.sort()
        yield Path(root)


def files_below(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """Files with one of the suffixes (lower case), folder by folder, by name."""
    for each in folders_below(folder):
        yield from sorted(path for path in each.iterdir() if path.suffix.lower() in suffixes and path.is_file())
