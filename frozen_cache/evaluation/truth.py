"""The ground truth of a cached view, as COCO has it."""

from __future__ import annotations

from typing import Any

import torch
from torchvision.ops import box_convert

from frozen_cache.cache.attributes import CacheAttributes
from frozen_cache.cache.view import CachedView
from frozen_cache.errors import UserError


def refuse_without_masks(attributes: CacheAttributes, name: object) -> None:
    """UserError where masks would be compared with the boxes of objects that have no mask."""
    without = attributes.data.counts.without_masks
    if without:
        raise UserError(
            f"{name} has {without:,} objects without masks, so the AP of masks cannot be measured on it: evaluate "
            "where all objects have masks"
        )


def truth_annotations(view: CachedView, categories: list[int]) -> list[dict[str, Any]]:
    """The view's ground truth as COCO annotations, under its own annotation ids.

    Args:
        categories: id of each of the cache's categories.
    """
    boxes = box_convert(torch.from_numpy(view.truth.boxes).double(), "xyxy", "xywh").tolist()
    return [
        {
            "id": int(view.truth.annotation_ids[at]),
            "image_id": view.image_id,
            "category_id": categories[int(view.truth.categories[at])],
            "bbox": boxes[at],
            "area": float(view.truth.areas[at]),
            "iscrowd": int(view.truth.crowd[at]),
            "segmentation": view.truth.masks[at],
        }
        for at in range(len(boxes))
    ]
