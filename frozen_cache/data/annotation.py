"""One annotation of a COCO file, its mask believed and its other fields checked against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from frozen_cache.data.numbers import is_finite_number
from frozen_cache.data.segmentation import check_segmentation, far_outside, segmentation_to_rle
from frozen_cache.data.supervision import Kind, Point, filled_box, read_points

BOX_IOU = 0.7
"""From which IoU with the mask's box the file's box is believed."""
AREA_FACTOR = 2.0
"""Up to which factor from the mask's pixels the file's area is believed."""
CROWD_TEXT = {"0": False, "1": True, "false": False, "true": True}


@dataclass(frozen=True)
class CocoAnnotation:
    """One annotated object, as it is used."""

    id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    """x, y, width, height in pixels: the file's where it agrees with the mask, else the mask's."""
    area: float
    """In pixels: the file's where it agrees with the mask, else the mask's."""
    crowd: bool
    rle: dict[str, Any]
    """The mask, at least one pixel: compressed RLE {"size": [height, width], "counts": bytes}. The filled box of an
    object without one."""
    kind: Kind = Kind.MASK
    """The most that the file knows of it."""
    points: tuple[Point, ...] = ()
    """In and outside of an object without a mask."""


def boxes_xyxy(annotations: Sequence[CocoAnnotation]) -> np.ndarray:
    """(N, 4) float64 in pixels of the image."""
    boxes = np.array([annotation.bbox for annotation in annotations], dtype=np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


@dataclass(frozen=True)
class ReadAnnotation:
    """An annotation, and in what the file was not believed."""

    annotation: CocoAnnotation | None
    """None for a mask of no pixels."""
    repaired_box: bool = False
    repaired_area: bool = False
    repaired_crowd: bool = False


def read_annotation(entry: dict[str, Any], *, category_id: int, height: int, width: int) -> ReadAnnotation:
    """Read the fields of one entry whose ids are known to be good.

    Args:
        category_id: that it counts for.
        height, width: of its image in pixels.

    Raises:
        ValueError: it is malformed, and how.
    """
    crowd, repaired_crowd = _crowd(entry.get("iscrowd", 0))
    if entry.get("segmentation") in (None, []):
        weak = _without_mask(entry, category_id=category_id, height=height, width=width, crowd=crowd)
        return ReadAnnotation(weak, repaired_crowd=repaired_crowd)
    check_segmentation(entry["segmentation"], height=height, width=width)
    rle = segmentation_to_rle(entry["segmentation"], height=height, width=width)
    pixels = float(coco_mask.area(rle))
    if not pixels:
        return ReadAnnotation(None)
    mask_box = coco_mask.toBbox(rle).tolist()
    box = _box(entry.get("bbox"), mask_box)
    area = _area(entry.get("area"), pixels)
    annotation = CocoAnnotation(
        id=entry["id"],
        category_id=category_id,
        bbox=tuple(mask_box) if box is None else box,
        area=pixels if area is None else area,
        crowd=crowd,
        rle=rle,
    )
    return ReadAnnotation(annotation, box is None, area is None, repaired_crowd)


def _without_mask(entry: dict[str, Any], *, category_id: int, height: int, width: int, crowd: bool) -> CocoAnnotation:
    """An object of which the file has points or a box alone; its area is its box's."""
    points = read_points(entry, height=height, width=width)
    value = entry.get("bbox")
    if not isinstance(value, list | tuple) or len(value) != 4 or not all(is_finite_number(each) for each in value):
        raise ValueError("it has neither a segmentation nor a bbox of four numbers")
    x, y, box_width, box_height = (float(each) for each in value)
    if min(box_width, box_height) <= 0 or max(-x - box_width, x - width, -y - box_height, y - height) >= 0:
        raise ValueError("it has no segmentation, and its bbox has no part of the image in it")
    if max(map(abs, (x, y, box_width, box_height))) > far_outside(height, width):
        raise ValueError(
            f"it has no segmentation, and its bbox reaches far outside the image of {height} x {width} pixels"
        )
    rle = filled_box((x, y, box_width, box_height), height=height, width=width)
    return CocoAnnotation(
        id=entry["id"],
        category_id=category_id,
        bbox=(x, y, box_width, box_height),
        area=float(coco_mask.area(rle)),
        crowd=crowd,
        rle=rle,
        kind=Kind.POINTS if points else Kind.BOX,
        points=tuple(points),
    )


def _box(value: Any, mask_box: list[float]) -> tuple[float, float, float, float] | None:
    """The file's box, where it agrees with the mask's."""
    if not isinstance(value, list | tuple) or len(value) != 4 or not all(is_finite_number(each) for each in value):
        return None
    x, y, width, height = (float(each) for each in value)
    left, top, mask_width, mask_height = mask_box
    inner_width = min(x + width, left + mask_width) - max(x, left)
    inner_height = min(y + height, top + mask_height) - max(y, top)
    if min(width, height, inner_width, inner_height) <= 0:
        return None
    inner = inner_width * inner_height
    iou = inner / (width * height + mask_width * mask_height - inner)
    return (x, y, width, height) if iou >= BOX_IOU else None


def _area(value: Any, pixels: float) -> float | None:
    """The file's area, where it agrees with the mask's pixels."""
    if not is_finite_number(value) or not pixels / AREA_FACTOR <= value <= pixels * AREA_FACTOR:
        return None
    return float(value)


def _crowd(value: Any) -> tuple[bool, bool]:
    """Whether it is a crowd, and whether that had to be read as meant."""
    if value is None:
        return False, True
    if isinstance(value, str) and value.strip().lower() in CROWD_TEXT:
        return CROWD_TEXT[value.strip().lower()], True
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value), isinstance(value, bool)
    raise ValueError(f"its iscrowd is {value!r:.60}, neither 0 nor 1")
