"""Pasting R x R masks into the image (detectron2's `paste_masks_in_image`), each within its own box only."""

from __future__ import annotations

import numpy as np

from frozen_cache.masks.guided import guided
from frozen_cache.masks.window import paste_weights, pixel_span


def paste_window(
    mask: np.ndarray, box: list[float], size: tuple[int, int], guide: np.ndarray | None = None
) -> tuple[np.ndarray, int, int]:
    """The part of the image that a mask touches.

    Args:
        mask: (R, R) float32 probabilities.
        box: x0, y0, x1, y1 in pixels; may leave the image.
        size: (height, width) of the image.
        guide: (3, height, width) uint8: the image, whose edges the mask is to take over (`guided`); None leaves it.

    Returns:
        (h, w) float32 probabilities, and y, x of the window's first pixel. Empty where the box is outside.
    """
    x0, y0, x1, y1 = box
    top, bottom = pixel_span(y0, y1, size[0])
    left, right = pixel_span(x0, x1, size[1])
    rows = paste_weights(top, bottom, y0, y1, mask.shape[0])
    columns = paste_weights(left, right, x0, x1, mask.shape[1])
    window = rows @ mask @ columns.T
    return (window if guide is None else guided(window, guide[:, top:bottom, left:right])), top, left


def paste_masks(
    masks: np.ndarray,
    boxes: np.ndarray,
    size: tuple[int, int],
    *,
    threshold: float | None = 0.5,
    guide: np.ndarray | None = None,
) -> np.ndarray:
    """Paste masks into full images. For N large images this is large; `paste_rles` needs no such thing.

    Args:
        masks: (N, R, R) float32 probabilities.
        boxes: (N, 4) xyxy in pixels.
        size: (height, width) of the image.
        threshold: from which probability a pixel belongs to the mask; None for the probabilities themselves.
        guide: as in `paste_window`.

    Returns:
        (N, height, width) bool, or float32 without a threshold.
    """
    out = np.zeros((len(masks), *size), dtype=bool if threshold is not None else np.float32)
    for index, (mask, box) in enumerate(zip(masks, boxes.tolist(), strict=True)):
        window, top, left = paste_window(mask, box, size, guide)
        part = window if threshold is None else window >= threshold
        out[index, top : top + window.shape[0], left : left + window.shape[1]] = part
    return out
