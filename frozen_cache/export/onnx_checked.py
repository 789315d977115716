"""`export_checked`: a graph that is known to give torch's results, of one size where its detector leaves no choice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from frozen_cache.detectors.input_rule import InputRule
from frozen_cache.export.onnx_check import OnnxDiffersError, check_onnx
from frozen_cache.export.onnx_file import GraphRecord, NoGraphError, export_onnx
from frozen_cache.inference.model import Model

ASKED = "--size"


def export_checked(
    *,
    model: Model,
    folder: Path,
    gather: bool = False,
    pasted: bool = False,
    size: tuple[int, int] | None = None,
    pictures: Sequence[Image.Image] = (),
) -> GraphRecord:
    """`export_onnx`, then `check_onnx`. Where height and width cannot be free, once more at one size; `fixed_because`
    of the record says why.

    Args:
        model: on the CPU.
        folder: is there already.
        gather: as in `export_onnx`.
        pasted: likewise.
        size: (height, width) in pixels to fix; None for free ones where that works, else `usual_size`.
        pictures: to check on, besides the demo's.

    Raises:
        UserError: what `export_onnx` raises.
        OnnxDiffersError: what `check_onnx` raises.
    """

    def attempt(size: tuple[int, int] | None, because: str | None) -> GraphRecord:
        record = export_onnx(model=model, folder=folder, gather=gather, pasted=pasted, size=size, because=because)
        return check_onnx(model=model, folder=folder, record=record, pictures=pictures)

    if size is not None or model.detector.spec.input.size is not None:
        return attempt(size, None if size is None else ASKED)
    try:
        return attempt(None, None)
    except (NoGraphError, OnnxDiffersError) as error:
        reason = str(error).replace(f"{folder}/", "")
    return attempt(usual_size(model.detector.spec.input), reason)


def usual_size(rule: InputRule, multiple: int = 32) -> tuple[int, int]:
    """(height, width) to which the rule brings a landscape picture of 4 to 3, in whole multiples."""
    height, width = rule.resized_size(height=3000, width=4000)
    return max(height // multiple, 1) * multiple, max(width // multiple, 1) * multiple
