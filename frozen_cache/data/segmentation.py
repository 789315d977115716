"""COCO segmentations (polygons, uncompressed and compressed RLE) as compressed RLE."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from frozen_cache.data.rle import check_run_lengths, rle_run_lengths


def check_segmentation(segmentation: Any, *, height: int, width: int) -> None:
    """ValueError, saying what is wrong, unless `segmentation` is a mask of an image of height x width pixels.

    A mask of no pixels is one: an empty RLE, a polygon of one or two points.
    """
    if isinstance(segmentation, list):
        for polygon in segmentation:
            _check_polygon(polygon, height=height, width=width)
    elif isinstance(segmentation, dict):
        _check_rle(segmentation, height=height, width=width)
    else:
        raise ValueError(f"its segmentation is a {type(segmentation).__name__}, neither polygons nor an RLE")


def segmentation_to_rle(segmentation: Any, *, height: int, width: int) -> dict[str, Any]:
    """Compressed RLE {"size": [height, width], "counts": bytes} of a segmentation that `check_segmentation` passed."""
    if isinstance(segmentation, list):
        # pycocotools would take two points for the four numbers of a box.
        polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
        if not polygons:
            return _empty_rle(height, width)
        return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    counts = segmentation["counts"]
    if not counts:
        return _empty_rle(height, width)
    if isinstance(counts, list):
        return coco_mask.frPyObjects(segmentation, height, width)
    return {"size": [height, width], "counts": counts.encode("ascii") if isinstance(counts, str) else counts}


def far_outside(height: int, width: int) -> int:
    """Beyond which coordinate, in pixels, no object of an image of that size can be meant to lie."""
    return 10 * max(height, width) + 10


def _empty_rle(height: int, width: int) -> dict[str, Any]:
    return coco_mask.frPyObjects({"size": [height, width], "counts": [height * width]}, height, width)


def _check_polygon(polygon: Any, *, height: int, width: int) -> None:
    if not isinstance(polygon, list) or len(polygon) % 2:
        raise ValueError("a polygon of its segmentation is not a flat list of x, y pairs: [[x, y, x, y ...], ...]")
    if not polygon:
        return
    points = _as_floats(polygon) if all(type(value) in (int, float) for value in polygon) else np.full(1, np.nan)
    if not np.isfinite(points).all():
        raise ValueError("a polygon of its segmentation holds something that is not a number")
    if np.abs(points).max() > far_outside(height, width):
        raise ValueError(f"a polygon of its segmentation lies far outside the image of {height} x {width} pixels")


def _as_floats(numbers: list[int | float]) -> np.ndarray:
    """Whole numbers that no float holds become NaN."""
    try:
        return np.asarray(numbers, dtype=np.float64)
    except OverflowError:
        return np.full(1, np.nan)


def _check_rle(rle: dict[str, Any], *, height: int, width: int) -> None:
    size, counts = rle.get("size"), rle.get("counts")
    if not isinstance(size, list | tuple) or list(size) != [height, width]:
        raise ValueError(f"its RLE has the size {size}, the image is [{height}, {width}]")
    if isinstance(counts, list):
        if not all(type(count) is int for count in counts):
            raise ValueError("its RLE has counts that are not whole numbers")
        if any(abs(count) > height * width for count in counts):
            raise ValueError("a run of its RLE is longer than the image")
        runs = np.asarray(counts, dtype=np.int64)
    elif isinstance(counts, str | bytes):
        try:
            runs = rle_run_lengths(counts.encode("ascii") if isinstance(counts, str) else counts)
        except UnicodeEncodeError:
            raise ValueError("not a compressed RLE string") from None
    else:
        raise ValueError("its RLE has no counts")
    if len(runs):
        check_run_lengths(runs, height, width)
