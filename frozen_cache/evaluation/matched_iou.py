"""Mean IoU of the masks in the boxes that matching gave to the objects: steadier than AP where images are few."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

from frozen_cache.boxes import to_pixels
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.view import CachedView
from frozen_cache.evaluation.segmenters import Segmentation, Segmenter
from frozen_cache.masks.boundary import common_window, edge_distance
from frozen_cache.masks.rle import paste_rles

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


def matched_iou(reader: CacheReader, segmenter: Segmenter) -> float:
    """Mean over all objects with a matched query, in all plain views, of the IoU of its mask with the object, in 0..1.

    Class scores play no part, so it measures masks alone; nan where nothing is matched.
    """
    layer = segmenter.encoder_layer
    layers = () if layer is None else (layer,)
    found: list[ObjectIou] = []
    for at, (_, number) in enumerate(reader.views):
        if number == 0:
            view = reader.read(at, encoder_layers=layers, c1=layer is not None, device=segmenter.device)
            found += view_object_ious(view, segmenter)
    return sum(entry.iou for entry in found) / len(found) if found else float("nan")


def view_object_ious(
    view: CachedView, segmenter: Segmenter, segmentation: Segmentation | None = None
) -> list[ObjectIou]:
    """The objects of a view that have a matched query.

    Args:
        segmentation: what the segmenter made of the view's selected pairs: used where it holds all that is asked for,
            so that nothing is segmented twice.
    """
    objects = (view.truth.match >= 0).nonzero()[0]
    if len(objects) == 0:
        return []
    rows = torch.from_numpy(view.truth.match[objects])
    if segmentation is not None and int(rows.max()) < view.selected:
        masks, boxes = segmentation.masks[rows], segmentation.boxes[rows]
    else:
        matched = view.take(rows)
        found = segmenter(matched)
        masks, boxes = found.masks, found.boxes
    size = view.transform.crop_size
    pixels = to_pixels(boxes, size)
    return [
        _compared(view, int(index), rle, EDGE * math.hypot(box[2] - box[0], box[3] - box[1]))
        for rle, box, index in zip(paste_rles(masks.numpy(), pixels.numpy(), size), pixels.tolist(), objects, strict=True)
    ]


def _compared(view: CachedView, index: int, rle: dict[str, Any], band: float) -> ObjectIou:
    truth = view.truth.masks[index]
    (true, found), _ = common_window([truth, rle])
    near = edge_distance(true) <= band
    return ObjectIou(
        image_id=view.image_id,
        annotation_id=int(view.truth.annotation_ids[index]),
        area=float(view.truth.areas[index]),
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
