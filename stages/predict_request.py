"""What is asked of predict, checked before torch is imported: what to segment, where to, in which forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from frozen_cache.errors import UserError
from frozen_cache.inference.inputs import InputFile, find_inputs
from frozen_cache.inference.outputs import KINDS
from frozen_cache.inference.video import need_video
from frozen_cache.ownership import content_names

MARKER = "predict.json"
RESULTS = ("segm_results.json", "bbox_results.json", "images.json")


@dataclass(frozen=True)
class PredictRequest:
    """Files to segment, and where their results go."""

    files: list[InputFile]
    out: Path
    kinds: list[str]
    """Of `KINDS`, each once."""
    overwrite: bool

    @property
    def has_videos(self) -> bool:
        """True where the number of pictures is not known."""
        return any(file.is_video for file in self.files)


def check_request(
    *, inputs: Sequence[str], out: Path, save: Sequence[str] = ("overlays",), overwrite: bool = False
) -> PredictRequest:
    """What to segment. Folders are looked through here, and only here.

    Args:
        inputs: image files, video files, folders, patterns.
        out: folder for the results.
        save: what else to write, of `KINDS`.
        overwrite: results of an earlier call in `out` may go.

    Raises:
        UserError: an input that names nothing, an unknown kind in `save`, an `out` that is not ours to write into,
            videos without PyAV.
    """
    for kind in save:
        if kind not in KINDS:
            raise UserError(f"--save {kind}: give one of {', '.join(KINDS)}")
    request = PredictRequest(
        files=find_inputs(inputs, apart_from=out), out=out, kinds=list(dict.fromkeys(save)), overwrite=overwrite
    )
    if request.has_videos:
        need_video()
    check_out(out, overwrite=overwrite)
    return request


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
