"""What `evaluate` and `visualize` segment with: a trained head or a baseline, and its name for the results."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from frozen_cache.cache.reader import CacheReader
from frozen_cache.device import pick_device
from frozen_cache.errors import UserError
from frozen_cache.evaluation.segmenters import BoxSegmenter, FeatureSegmenter, Segmenter
from frozen_cache.head.config import HeadConfig, resolve_encoder_layer
from frozen_cache.head.training_free import TrainingFree
from frozen_cache.training.run_directory import load_record
from frozen_cache.training.trained_head import check_fits, load_head, run_of

BASELINES: dict[str, dict[str, bool] | None] = {
    "training-free": {"roi_align": True, "c1": True},
    "training-free-no-c1": {"roi_align": True, "c1": False},
    "training-free-whole-image": {"roi_align": False, "c1": True},
    "training-free-whole-image-no-c1": {"roi_align": False, "c1": False},
    "box": None,
}
"""The rows of Table 1, as `TrainingFree` takes them, and the filled box."""


def check_choice(head: Path | None, baseline: str | None) -> None:
    """UserError unless exactly one of them is given, and is known."""
    if (head is None) == (baseline is None):
        raise UserError(f"give either --head RUN or --baseline NAME ({', '.join(BASELINES)})")
    if baseline is not None and baseline not in BASELINES:
        raise UserError(f"no baseline `{baseline}`: known are {', '.join(BASELINES)}")


def cache_for(head: Path | None, cache: Path) -> CacheReader:
    """The cache, its C1 and added maps at the scale at which the head was trained, where there is a head."""
    return CacheReader(cache, c1_scale=None if head is None else load_record(run_of(head)).backbone_scale)


def make_segmenter(
    reader: CacheReader, *, cache: Path, head: Path | None, baseline: str | None, device: str
) -> tuple[Segmenter, dict[str, Any]]:
    """The segmenter, and what to call it: `name`, and for a head its `file` and `sha256`."""
    chosen = pick_device(device)
    if head is not None:
        model, record, file = load_head(head)
        check_fits(record, reader, head=head, cache=cache)
        of = {"name": f"head {file}", "file": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        return FeatureSegmenter(model, encoder_layer=record.encoder_layer, device=chosen), of
    options = BASELINES[baseline or "box"]
    if options is None:
        return BoxSegmenter(), {"name": "baseline: filled boxes"}
    layer = resolve_encoder_layer(HeadConfig(), reader.attributes.detector.encoder_layers)
    free = TrainingFree(inputs=reader.head_inputs(layer), **options)
    note = "" if free.note is None else f"; {free.note}"
    segmenter = FeatureSegmenter(free, encoder_layer=layer, device=chosen)
    return segmenter, {"name": f"baseline: {baseline} (Eq. 1 to 4){note}"}
