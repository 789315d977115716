"""Pasting R x R masks into the image (detectron2's `paste_masks_in_image`), each within its own box only."""

from __future__ import annotations

import numpy as np

from frozen_cache.masks.window import paste_weights, pixel_span


def paste_window(mask: np.ndarray, box: list[float], size: tuple[int, int]) -> tuple[np.ndarray, int, int]:
    """The part of the image that a mask touches.

    Args:
        mask: (R, R) float32 probabilities.
        box: x0, y0, x1, y1 in pixels; may leave the image.
        size: (height, width) of the image.

    Returns:
        (h, w) float32 probabilities, and y, x of the window's first pixel. Empty where the box is outside.
    """
    x0, y0, x1, y1 = box
    top, bottom = pixel_span(y0, y1, size[0])
    left, right = pixel_span(x0, x1, size[1])
    rows = paste_weights(top, bottom, y0, y1, mask.shape[0])
    columns = paste_weights(left, right, x0, x1, mask.shape[1])
    return rows @ mask @ columns.T, top, left


def paste_masks(
    masks: np.ndarray, boxes: np.ndarray, size: tuple[int, int], *, threshold: float | None = 0.5
) -> np.ndarray:
    """Paste masks into full images. For N large images this is large; `paste_rles` needs no such thing.

    Args:
        masks: (N, R, R) float32 probabilities.
        boxes: (N, 4) xyxy in pixels.
        size: (height, width) of the image.
        threshold: from which probability a pixel belongs to the mask; None for the probabilities themselves.

    Returns:
        (N, height, width) bool, or float32 without a threshold.
    """
    out = np.zeros((len(masks), *size), dtype=bool if threshold is not None else np.float32)
    for index, (mask, box) in enumerate(zip(masks, boxes.tolist(), strict=True)):
        window, top, left = paste_window(mask, box, size)
        part = window if threshold is None else window >= threshold
        out[index, top : top + window.shape[0], left : left + window.shape[1]] = part
    return out
