"""Where an export or pictures go: a folder that one process holds, and that holds nothing but these, whole."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from frozen_cache.durable import flush_file, flush_tree
from frozen_cache.errors import UserError
from frozen_cache.ownership import Ownership, content_names

ASIDE = ".new"
"""Folder in the target in which files are made, then put into place; one that is there is a dead process's."""


@contextmanager
def hold_out(out: Path, names: Sequence[str], *, overwrite: bool | None) -> Iterator[Ownership]:
    """Hold `out`, made where it is missing; what lies there stays as it is.

    What a process left that died as it put its files into place is no hindrance: the folder aside is there still, and
    the last name is missing.

    Args:
        names: of the files and folders that an export writes, in the order in which they are put into place.
        overwrite: an earlier export may lie there; None where the command has no such option.

    Raises:
        UserError: another process holds the folder, it cannot be written, or it holds something else.
    """
    with Ownership(out) as owner:
        found = set(content_names(out))
        there = found - {ASIDE}
        if others := sorted(there - set(names)):
            raise UserError(f"--out {out} exists and is not empty ({others[0]}): choose another path")
        if there and not overwrite and (ASIDE not in found or names[-1] in there):
            add = "choose another path" if overwrite is None else "add --overwrite, or choose another path"
            raise UserError(f"--out {out} is not empty, it holds what this command writes: {add}")
        shutil.rmtree(out / ASIDE, ignore_errors=True)
        try:
            yield owner
        finally:
            shutil.rmtree(out / ASIDE, ignore_errors=True)


def put_into_place(out: Path, names: Sequence[str]) -> None:
    """Move `names` from the folder aside into `out`, in the place of what is there; the last of them makes it whole."""
    flush_tree(out / ASIDE)
    remove_names(out, names)
    for name in names:
        (out / ASIDE / name).rename(out / name)
        flush_file(out)


def remove_names(out: Path, names: Sequence[str]) -> None:
    """Remove an earlier export, beginning with the last of its names."""
    for name in reversed(names):
        path = out / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
