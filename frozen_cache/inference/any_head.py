"""A head without its detector, from a run of train-head or an exported folder: what reads a cache takes either."""

from __future__ import annotations

from pathlib import Path

from frozen_cache.export.head import exported_head_file, load_exported_head
from frozen_cache.export.manifest import exported_folder, read_record
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.training.run_directory import load_record
from frozen_cache.training.trained_head import HeadRecord, load_head, run_of


def head_record(path: Path, *, option: str = "--head") -> HeadRecord:
    """What is known of the head of a run directory, of a checkpoint in one, or of an exported folder.

    Raises:
        UserError: there is none, or its record is not understood.
    """
    folder = exported_folder(path)
    return load_record(run_of(path, option=option)) if folder is None else read_record(folder)


def any_head(path: Path) -> tuple[MaskHead, HeadRecord, Path]:
    """(the head in eval mode, what is known of it, the file of its weights). Errors as in `head_record`, and those of
    files that are not as they were written."""
    folder = exported_folder(path)
    if folder is None:
        return load_head(path)
    file, record = exported_head_file(folder), read_record(folder)
    return load_exported_head(folder, record), record, file
