"""Ground truth for the mask loss: an object's mask within a box, as R x R (detectron2's `crop_and_resize`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from frozen_cache.masks.window import crop_weights


def crop_window(mask: np.ndarray, box: list[float], side: int) -> np.ndarray:
    """RoIAlign (aligned, adaptive sampling) of one mask: the share of each bin that is inside.

    Args:
        mask: (H, W) bool or uint8 of the whole image.
        box: x0, y0, x1, y1 in pixels; may leave the image.
        side: R.

    Returns:
        (R, R) float32 in 0..1.
    """
    rows, top = crop_weights(box[1], box[3], side, mask.shape[0])
    columns, left = crop_weights(box[0], box[2], side, mask.shape[1])
    window = mask[top : top + rows.shape[1], left : left + columns.shape[1]].astype(np.float32)
    return rows @ window @ columns.T


def crop_masks(masks: list[dict[str, Any]], *, objects: Tensor, boxes: Tensor, side: int, soft: bool = False) -> Tensor:
    """Targets of N boxes. Each object's RLE is decoded once, however many boxes show it.

    Args:
        masks: compressed RLEs of an image's objects.
        objects: (N,) int64 index into `masks`.
        boxes: (N, 4) xyxy in pixels of the masks.
        side: R.
        soft: the share of each bin that is inside; else 1 where that is at least 0.5.

    Returns:
        (N, R, R) float32.
    """
    out = np.zeros((len(boxes), side, side), dtype=np.float32)
    corners, owner = boxes.tolist(), objects.numpy()
    for index in np.unique(owner):
        mask = coco_mask.decode(masks[index])
        for row in np.flatnonzero(owner == index):
            out[row] = crop_window(mask, corners[row], side)
    targets = torch.from_numpy(out)
    return targets if soft else (targets >= 0.5).float()
