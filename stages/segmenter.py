"""What `evaluate` and `visualize` segment with: trained heads or a baseline, and its name for the results."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from frozen_cache.cache.reader import CacheReader
from frozen_cache.device import pick_device
from frozen_cache.errors import UserError
from frozen_cache.evaluation.averaging import ViewsSegmenter, head_segmenter
from frozen_cache.evaluation.fused import FusedSegmenter
from frozen_cache.evaluation.guided import GuidedSegmenter
from frozen_cache.evaluation.prompted import PromptedSegmenter
from frozen_cache.evaluation.segmenters import BoxSegmenter, FeatureSegmenter, Segmenter
from frozen_cache.head.config import HeadConfig, resolve_encoder_layer
from frozen_cache.head.training_free import TrainingFree
from frozen_cache.inference.any_head import any_head, head_record
from frozen_cache.precision import half_type
from frozen_cache.prompted.model import load_prompted
from frozen_cache.remote import CachePath
from frozen_cache.report.photographs import Photographs
from frozen_cache.stages.baselines import BASELINES
from frozen_cache.training.trained_head import check_fits

TTA_NAME = ", test-time augmentation"


def all_heads(head: Path | Sequence[Path] | None) -> list[Path]:
    """None, one or several heads as a list."""
    return [] if head is None else [head] if isinstance(head, Path) else list(head)


def cache_for(heads: Sequence[Path], cache: CachePath) -> CacheReader:
    """The cache, its C1 and added maps at the scale at which the first head was trained, where there is one."""
    return CacheReader(cache, c1_scale=head_record(heads[0]).backbone_scale if heads else None)


def make_segmenter(
    reader: CacheReader,
    *,
    cache: CachePath,
    heads: Sequence[Path],
    baseline: str | None,
    device: str,
    roi_sizes: Sequence[int] = (),
    views: int = 1,
    tta: bool = False,
    guide: Photographs | None = None,
    prompter: str | None = None,
    pictures: Photographs | None = None,
    mixed_precision: str = "no",
) -> tuple[Segmenter, dict[str, Any]]:
    """The segmenter, and what to call it: `name`, and for heads their `file` and `sha256`.

    Args:
        heads: their masks are averaged.
        roi_sizes: so are those of each head at each of these sides of the RoI; none for its own.
        views: and those of so many cached views of each image.
        tta: and those of the views whose detections are fused: the segmenter reads `FusedViews`.
        guide: pictures whose edges the masks take over; None leaves them.
        prompter: with the baseline `prompted`: `hf:DIR_OR_HUB_ID` of the model.
        pictures: that it sees.
        mixed_precision: of heads: `no`, `bf16`, `fp16`, `auto`.
    """
    chosen = pick_device(device)
    segmenter: Segmenter
    if heads:
        segmenter, of = _of_heads(
            reader, cache=cache, heads=heads, device=chosen, roi_sizes=roi_sizes, asked=mixed_precision
        )
    else:
        if mixed_precision != "no":
            raise UserError("--mixed-precision is for heads: leave it out with --baseline")
        if roi_sizes:
            raise UserError("--roi-sizes is for heads: leave it out with --baseline")
        if prompter is not None and pictures is not None:
            if views != 1 or guide is not None:
                raise UserError("--views and --guided change masks of a head: leave them out with --baseline prompted")
            segmenter, of = _of_prompter(reader, prompter, pictures, chosen)
            of |= {"name": of["name"] + TTA_NAME, "tta": True} if tta else {}
            return segmenter, of
        segmenter, of = _of_baseline(reader, baseline or "box", chosen)
    if views < 1:
        raise UserError(f"--views {views}: give 1 or more")
    if tta and views > 1:
        raise UserError("--views averages masks in the plain view's boxes, --tta fuses the boxes too: leave one out")
    if tta and segmenter.encoder_layer is not None:
        segmenter = FusedSegmenter(segmenter)
    of |= {"name": of["name"] + TTA_NAME, "tta": True} if tta else {}
    if views > 1:
        segmenter = ViewsSegmenter(segmenter, reader, views=views)
        of["name"] += f", mean of {views} views"
    if guide is not None:
        segmenter = GuidedSegmenter(segmenter, guide.find)
        of["name"] += ", guided"
    return segmenter, of


def _of_heads(
    reader: CacheReader,
    *,
    cache: CachePath,
    heads: Sequence[Path],
    device: torch.device,
    roi_sizes: Sequence[int],
    asked: str,
) -> tuple[Segmenter, dict[str, Any]]:
    models, files, layers = [], [], {}
    for head in heads:
        model, record, file = any_head(head)
        check_fits(record, reader, head=head, cache=cache)
        layers[record.encoder_layer] = head
        models.append(model)
        files.append(file)
    if len(layers) > 1:
        (one, first), (other, second) = list(layers.items())[:2]
        raise UserError(
            f"{first} reads encoder layer {one}, {second} layer {other}: average heads that read the same one"
        )
    half = half_type(asked, device)
    segmenter = head_segmenter(models, encoder_layer=next(iter(layers)), device=device, roi_sizes=roi_sizes, half=half)
    sums = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    names = ", ".join(map(str, files))
    how = f", at RoI sizes {', '.join(map(str, roi_sizes))}" if roi_sizes else ""
    how += "" if half is None else f", in {str(half).removeprefix('torch.')}"
    return segmenter, {
        "name": (f"head {names}" if len(files) == 1 else f"mean of {len(files)} heads: {names}") + how,
        "file": names,
        "sha256": ", ".join(sums),
    }


def _of_prompter(
    reader: CacheReader, prompter: str, pictures: Photographs, device: torch.device
) -> tuple[Segmenter, dict[str, Any]]:
    model = load_prompted(prompter, device=device)
    images = [image for image, view in reader.views if view == 0]
    if lost := [image for image in images if not pictures.at_hand(image)]:
        raise UserError(
            f"--baseline prompted reads the pictures, and {len(lost)} of {len(images)} are not at hand, the first is "
            f"image {lost[0]}: give --images FOLDER"
        )
    name = f"baseline: {model.name} prompted with the boxes"
    return PromptedSegmenter(model, pictures.find), {"name": name, "sha256": model.sha256}


def _of_baseline(reader: CacheReader, baseline: str, device: torch.device) -> tuple[Segmenter, dict[str, Any]]:
    options = BASELINES[baseline]
    if options is None:
        return BoxSegmenter(), {"name": "baseline: filled boxes"}
    layer = resolve_encoder_layer(HeadConfig(), reader.attributes.detector.encoder_layers)
    free = TrainingFree(inputs=reader.head_inputs(layer), **options)
    note = "" if free.note is None else f"; {free.note}"
    segmenter = FeatureSegmenter(free, encoder_layer=layer, device=device)
    return segmenter, {"name": f"baseline: {baseline} (Eq. 1 to 4){note}"}
