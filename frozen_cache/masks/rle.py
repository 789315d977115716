"""Masks as COCO run lengths, made from the box's window without ever holding the whole image."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from frozen_cache.masks.paste import paste_window


def paste_rles(
    masks: np.ndarray,
    boxes: np.ndarray,
    size: tuple[int, int],
    *,
    threshold: float = 0.5,
    guide: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """Paste masks into an image, as compressed RLEs whose counts are text, as COCO result files hold them.

    Args:
        masks: (N, R, R) float32 probabilities.
        boxes: (N, 4) xyxy in pixels.
        size: (height, width) of the image.
        threshold: from which probability a pixel belongs to the mask.
        guide: (3, height, width) uint8: the image, whose edges the masks are to take over; None leaves them.
    """
    found = []
    for mask, box in zip(masks, boxes.tolist(), strict=True):
        window, top, left = paste_window(mask, box, size, guide)
        found.append(window_rle(window >= threshold, top, left, size))
    return found


def window_rle(window: np.ndarray, top: int, left: int, size: tuple[int, int]) -> dict[str, Any]:
    """The compressed RLE of an image that is empty but for a window.

    Args:
        window: (h, w) bool.
        top: row of the window's first pixel.
        left: its column.
        size: (height, width) of the image.
    """
    height, width = size
    rows = window.shape[0] + 1
    columns = np.zeros(window.shape[1] * rows + 1, dtype=bool)  # one by one, an empty pixel below each
    columns[1:].reshape(-1, rows)[:, :-1] = window.T
    place = np.flatnonzero(columns[1:] != columns[:-1])
    edges = left * height + top + place + place // rows * (height - rows)
    # A run that fills a column to its foot goes on at the head of the next.
    joined = np.flatnonzero(edges[1:] == edges[:-1])
    edges = np.delete(edges, np.concatenate([joined, joined + 1])) if len(joined) else edges
    counts = np.diff(edges, prepend=0, append=height * width)
    if len(edges) and counts[-1] == 0:
        counts = counts[:-1]
    rle = coco_mask.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode()}
