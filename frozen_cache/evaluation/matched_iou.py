"""Mean IoU of the masks in the boxes that matching gave to the objects: steadier than AP where images are few."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pycocotools import mask as coco_mask

from frozen_cache.boxes import to_pixels
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.view import CachedView
from frozen_cache.evaluation.segmenters import Segmentation, Segmenter
from frozen_cache.masks.rle import paste_rles

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


def matched_iou(reader: CacheReader, segmenter: Segmenter) -> float:
    """Mean over all objects with a matched query, in all plain views, of the IoU of its mask with the object, in 0..1.

    Class scores play no part, so it measures masks alone; nan where nothing is matched.
    """
    layer = segmenter.encoder_layer
    layers = () if layer is None else (layer,)
    found: list[ObjectIou] = []
    for at, (_, number) in enumerate(reader.views):
        if number == 0:
            view = reader.read(at, encoder_layers=layers, c1=layer is not None, dtype=torch.float32)
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
    rles = paste_rles(masks, to_pixels(boxes, size), size)
    return [
        ObjectIou(
            image_id=view.image_id,
            annotation_id=int(view.truth.annotation_ids[index]),
            area=float(view.truth.areas[index]),
            iou=float(coco_mask.iou([rle], [view.truth.masks[index]], [0])[0, 0]),
        )
        for rle, index in zip(rles, objects, strict=True)
    ]


def mean_iou_by_size(objects: list[ObjectIou]) -> dict[str, float | None]:
    """`all`, `s`, `m`, `l` (COCO's sizes) -> mean IoU in 0..1; None where there is no object."""
    parts = {
        "all": objects,
        "s": [entry for entry in objects if entry.area < SMALL],
        "m": [entry for entry in objects if SMALL <= entry.area < LARGE],
        "l": [entry for entry in objects if entry.area >= LARGE],
    }
    return {
        name: round(sum(entry.iou for entry in part) / len(part), 6) if part else None for name, part in parts.items()
    }
