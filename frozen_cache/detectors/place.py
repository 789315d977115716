"""Where `--detector` and `--weights` point, looked at without torch: a mistyped path costs no seconds."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from frozen_cache.detectors.names import FORMS, NAMES
from frozen_cache.errors import UserError

HUB_ID = re.compile(r"\w[\w.\-]*/\w[\w.\-]*")


def check_place(detector: str, weights: Path | None = None) -> None:
    """UserError where they surely name no detector: no file or folder is there, or no detector has the name.

    Args:
        detector: as `load_detector` takes it; only its form and the disk count.
    """
    file, _, _ = detector.rpartition(":")
    if detector.startswith("hf:"):
        source = detector[3:]
        folder = folder_of(source)
        if folder is not None and not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise UserError(
                f"{detector}: {folder} {what}; give a folder written by save_pretrained, or a hub id (org/name)"
            )
    elif file.endswith(".py"):
        if not Path(file).is_file():
            raise UserError(f"--detector: no such file {file}")
    elif detector.endswith(".py"):
        raise UserError(f"--detector {detector} lacks the factory's name; write {detector}:FACTORY")
    elif Path(detector).is_dir() and (Path(detector) / "config.json").is_file():
        raise UserError(f"--detector {detector} is a folder of a transformers model: write --detector hf:{detector}")
    elif not detector.strip():
        raise UserError(f"--detector is empty; give {FORMS}")
    elif detector not in NAMES:
        near = difflib.get_close_matches(detector, NAMES, n=3)
        advice = (
            f": did you mean {' or '.join(near)}? `frozen-cache detectors` lists all" if near else f"; give {FORMS}"
        )
        raise UserError(f"no detector is named {detector}{advice}")
    elif weights is None:
        raise UserError(f"--detector {detector} needs its checkpoint: add --weights FILE")
    elif not weights.is_file():
        raise UserError(f"--weights {weights}: no such file")


def folder_of(source: str) -> Path | None:
    """The folder behind `hf:SOURCE`; None for a hub id.

    Only what looks like a hub id, and whose first part is no folder here, is one: a mistyped path is never looked up.
    """
    folder = Path(source).expanduser()
    local = folder.exists() or not HUB_ID.fullmatch(source) or Path(folder.parts[0]).exists()
    return folder if local else None
