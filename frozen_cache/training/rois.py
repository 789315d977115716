"""Choice of the boxes that the head trains on, from one cached view."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_convert, box_iou

from frozen_cache.boxes import jittered, to_unit
from frozen_cache.cache.view import CachedView
from frozen_cache.training.config import RoiConfig


@dataclass(frozen=True)
class TrainingRois:
    """n boxes of one view, each with the query that segments it and the object that it should show."""

    rows: Tensor
    """(n,) int64 row of the view's queries."""
    boxes: Tensor
    """(n, 4) cxcywh in 0..1 of the view."""
    objects: Tensor
    """(n,) int64 index into the view's ground truth."""


def training_rois(view: CachedView, config: RoiConfig, *, generator: torch.Generator) -> TrainingRois:
    """All boxes that `config` asks for; a random draw of them where there are more than `max_per_image`."""
    usable = torch.from_numpy(~view.truth.crowd & (view.truth.areas > 0))
    truth_boxes = to_unit(torch.from_numpy(view.truth.boxes).float(), view.transform.crop_size)
    match = torch.from_numpy(view.truth.match)
    matched = (usable & (match >= 0)).nonzero().flatten()
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    if config.matched:
        parts.append((match[matched], view.boxes[match[matched]], matched))
    if config.overlapping_iou is not None and usable.any():
        objects = usable.nonzero().flatten()
        iou = box_iou(_xyxy(view.boxes[: view.selected]), _xyxy(truth_boxes[objects]))
        best, at = iou.max(dim=1)
        rows = (best >= config.overlapping_iou).nonzero().flatten()
        parts.append((rows, view.boxes[rows], objects[at[rows]]))
    if config.ground_truth:
        parts.append((match[matched], truth_boxes[matched], matched))
    if config.jitter > 0:
        moved = jittered(truth_boxes[matched], amount=config.jitter, generator=generator)
        parts.append((match[matched], moved, matched))
    rows, boxes, objects = (torch.cat(part) for part in zip(*parts, strict=True)) if parts else _nothing()
    # A box without an inside has no mask; a detector gives such boxes for things it does not believe in.
    kept = (boxes[:, 2:] > 0).all(dim=1).nonzero().flatten()
    if config.max_per_image is not None and len(kept) > config.max_per_image:
        kept = kept[torch.randperm(len(kept), generator=generator)[: config.max_per_image]]
    return TrainingRois(rows=rows[kept], boxes=boxes[kept], objects=objects[kept])


def _xyxy(boxes_cxcywh: Tensor) -> Tensor:
    return box_convert(boxes_cxcywh, "cxcywh", "xyxy")


def _nothing() -> tuple[Tensor, Tensor, Tensor]:
    return torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
