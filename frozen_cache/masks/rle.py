"""Masks as COCO run lengths, made from the box's window without ever holding the whole image."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from torch import Tensor

from frozen_cache.masks.paste import paste_window


def paste_rles(masks: Tensor, boxes: Tensor, size: tuple[int, int], *, threshold: float = 0.5) -> list[dict[str, Any]]:
    """Paste masks into an image, as compressed RLEs whose counts are text, as COCO result files hold them.

    Args:
        masks: (N, R, R) probabilities.
        boxes: (N, 4) xyxy in pixels.
        size: (height, width) of the image.
        threshold: from which probability a pixel belongs to the mask.
    """
    found = []
    for mask, box in zip(masks.detach().float().cpu().numpy(), boxes.tolist(), strict=True):
        window, top, left = paste_window(mask, box, size)
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
    columns = np.zeros((window.shape[1], window.shape[0] + 2), dtype=np.int8)
    columns[:, 1:-1] = window.T
    change = np.diff(columns, axis=1)
    column, start = np.nonzero(change == 1)
    _, stop = np.nonzero(change == -1)
    offset = (left + column) * height + top
    starts, stops = offset + start, offset + stop
    # A run that fills a column to its foot goes on at the head of the next.
    apart = starts[1:] != stops[:-1]
    starts, stops = starts[np.append(True, apart)[: len(starts)]], stops[np.append(apart, True)[: len(stops)]]
    edges = np.stack([starts, stops], axis=1).ravel()
    counts = np.diff(edges, prepend=0, append=height * width)
    if len(edges) and counts[-1] == 0:
        counts = counts[:-1]
    rle = coco_mask.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode()}
