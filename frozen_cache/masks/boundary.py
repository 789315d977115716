"""The boundary region of a mask (Boundary IoU, arXiv 2103.16562), and how far a mask's pixels are from its edge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from scipy import ndimage

from frozen_cache.masks.rle import window_rle

RATIO = 0.02
"""Width of the region by the image's diagonal, as published for COCO."""


def boundary_width(size: tuple[int, int], ratio: float = RATIO) -> int:
    """Pixels of the boundary region in an image of (height, width), at least 1."""
    return max(1, round(ratio * math.hypot(*size)))


def boundary(mask: np.ndarray, width: int) -> np.ndarray:
    """The pixels of a mask within `width` (chessboard) of its edge; beyond the array nothing is set.

    Args:
        mask: (H, W) bool.

    Returns:
        (H, W) bool.
    """
    inner = mask.astype(np.uint8)
    for axis in (0, 1):
        inner = ndimage.minimum_filter1d(inner, 2 * width + 1, axis=axis, mode="constant", cval=0)
    return mask & (inner == 0)


def boundary_rle(rle: dict[str, Any], ratio: float = RATIO) -> dict[str, Any]:
    """The boundary region of a compressed RLE, as one."""
    height, width = rle["size"]
    mask, top, left = rle_window(rle)
    return window_rle(boundary(mask, boundary_width((height, width), ratio)), top, left, (height, width))


def rle_window(rle: dict[str, Any]) -> tuple[np.ndarray, int, int]:
    """The part of the image that a compressed RLE covers, as bool, and y, x of its first pixel."""
    (mask,), (top, left) = common_window([rle])
    return mask, top, left


def common_window(rles: Sequence[dict[str, Any]]) -> tuple[list[np.ndarray], tuple[int, int]]:
    """The part of the image that compressed RLEs of one size cover together, each as bool, and y, x of its first
    pixel. A pixel is spared around it, so that an edge within the image is one within the window."""
    x, y, w, h = coco_mask.toBbox(coco_mask.merge(list(rles)))
    height, width = rles[0]["size"]
    rows = slice(max(0, int(y) - 1), min(height, int(y + h) + 1))
    columns = slice(max(0, int(x) - 1), min(width, int(x + w) + 1))
    return [coco_mask.decode(rle)[rows, columns].astype(bool) for rle in rles], (rows.start, columns.start)


def edge_distance(mask: np.ndarray) -> np.ndarray:
    """Distance of each pixel of (H, W) bool from the mask's edge, in pixels: from its centre to the nearest pixel of
    the other kind, less the half pixel that the edge lies before it. What is beyond the array is not the other kind."""
    if mask.all() or not mask.any():
        return np.full(mask.shape, np.inf)
    return np.where(mask, ndimage.distance_transform_edt(mask), ndimage.distance_transform_edt(~mask)) - 0.5
