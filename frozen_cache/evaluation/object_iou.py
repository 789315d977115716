"""The IoU of an object with the mask of its matched query: over all pixels, near the edge and off it; means by size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from frozen_cache.masks.boundary import common_window, edge_distance

EDGE = 0.02
"""Half width of the band along an object's edge, by the diagonal of its matched box."""
SMALL, LARGE = 32.0**2, 96.0**2
"""COCO's sizes: areas in pixels below, between, and from."""


@dataclass(frozen=True)
class ObjectIou:
    """The mask of an object's matched query, compared with the object."""

    image_id: int
    annotation_id: int
    area: float
    """Of the object, in pixels."""
    iou: float
    """In 0..1."""
    near_edge: float = float("nan")
    """IoU over the pixels within `EDGE` of the box's diagonal of the object's edge; nan where there are none."""
    off_edge: float = float("nan")
    """IoU over all others."""


def compare_object(annotation: dict[str, Any], rle: dict[str, Any], box: list[float]) -> ObjectIou:
    """An object and a mask of the same image.

    Args:
        annotation: of COCO, with a compressed RLE.
        rle: the mask's.
        box: xyxy in pixels, of the matched query.
    """
    truth = annotation["segmentation"]
    (true, found), _ = common_window([truth, rle])
    near = edge_distance(true) <= EDGE * math.hypot(box[2] - box[0], box[3] - box[1])
    return ObjectIou(
        image_id=annotation["image_id"],
        annotation_id=annotation["id"],
        area=annotation["area"],
        iou=float(coco_mask.iou([rle], [truth], [0])[0, 0]),
        near_edge=_iou(true & near, found & near),
        off_edge=_iou(true & ~near, found & ~near),
    )


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else float("nan")


def mean_iou_by_size(objects: list[ObjectIou]) -> dict[str, float | None]:
    """`all`, `s`, `m`, `l` (COCO's sizes) -> mean IoU in 0..1; None where there is no object."""
    return _mean_by_size(objects, [entry.iou for entry in objects])


def edge_iou_by_size(objects: list[ObjectIou]) -> dict[str, dict[str, float | None]]:
    """`near_edge`, `off_edge` -> mean IoU by COCO's sizes, as `mean_iou_by_size`, over the objects that have one."""
    return {
        "near_edge": _mean_by_size(objects, [entry.near_edge for entry in objects]),
        "off_edge": _mean_by_size(objects, [entry.off_edge for entry in objects]),
    }


def _mean_by_size(objects: list[ObjectIou], values: list[float]) -> dict[str, float | None]:
    pairs = [(entry.area, value) for entry, value in zip(objects, values, strict=True) if not math.isnan(value)]
    parts = {
        "all": pairs,
        "s": [pair for pair in pairs if pair[0] < SMALL],
        "m": [pair for pair in pairs if SMALL <= pair[0] < LARGE],
        "l": [pair for pair in pairs if pair[0] >= LARGE],
    }
    return {
        name: round(sum(value for _, value in part) / len(part), 6) if part else None for name, part in parts.items()
    }
