"""What is asked of predict, checked before torch is imported: what to segment, where to, in which forms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from frozen_cache.errors import UserError
from frozen_cache.inference.inputs import InputFile, find_inputs
from frozen_cache.inference.outputs import KINDS
from frozen_cache.inference.video import need_video
from frozen_cache.ownership import content_names

MARKER = "predict.json"
RESULTS = ("segm_results.json", "bbox_results.json", "images.json")


def check_request(*, inputs: Sequence[str], out: Path, save: Sequence[str], overwrite: bool) -> list[InputFile]:
    """The files to segment.

    Raises:
        UserError: an input that names nothing, an unknown kind in `save`, an `out` that is not ours to write into,
            videos without PyAV.
    """
    for kind in save:
        if kind not in KINDS:
            raise UserError(f"--save {kind}: give one of {', '.join(KINDS)}")
    files = find_inputs(inputs, apart_from=out)
    if any(file.is_video for file in files):
        need_video()
    check_out(out, overwrite=overwrite)
    return files


def check_out(out: Path, *, overwrite: bool) -> None:
    """UserError where `out` is not ours to write into."""
    if out.is_file():
        raise UserError(f"--out {out} exists and is a file: choose another path")
    names = content_names(out)
    known = {MARKER, *RESULTS, *KINDS}
    foreign = [name for name in names if name not in known]
    if foreign or (names and MARKER not in names):
        raise UserError(f"--out {out} exists and holds other things ({(foreign or names)[0]}): choose another path")
    if names and not overwrite:
        raise UserError(f"--out {out} holds results already: add --overwrite, or choose another path")
