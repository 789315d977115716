"""Mean IoU of the masks in the boxes that matching gave to the objects: steadier than AP where images are few."""

from __future__ import annotations

from dataclasses import replace

import torch
from pycocotools import mask as coco_mask

from frozen_cache.boxes import to_pixels
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.view import CachedView
from frozen_cache.evaluation.segmenters import Segmenter
from frozen_cache.masks.rle import paste_rles


def matched_iou(reader: CacheReader, segmenter: Segmenter) -> float:
    """Mean over all objects with a matched query, in all plain views, of the IoU of its mask with the object, in 0..1.

    Class scores play no part, so it measures masks alone; nan where nothing is matched.
    """
    layer = segmenter.encoder_layer
    layers = () if layer is None else (layer,)
    found: list[float] = []
    for at, (_, number) in enumerate(reader.views):
        if number == 0:
            view = reader.read(at, encoder_layers=layers, c1=layer is not None, dtype=torch.float32)
            found += _ious(view, segmenter)
    return sum(found) / len(found) if found else float("nan")


def _ious(view: CachedView, segmenter: Segmenter) -> list[float]:
    objects = (view.truth.match >= 0).nonzero()[0]
    if len(objects) == 0:
        return []
    rows = torch.from_numpy(view.truth.match[objects])
    matched = replace(
        view,
        selected=len(rows),
        queries=view.queries[rows],
        boxes=view.boxes[rows],
        scores=view.scores[rows],
        labels=view.labels[rows],
    )
    masks = segmenter(matched)
    size = view.transform.crop_size
    rles = paste_rles(masks.masks, to_pixels(masks.boxes, size), size)
    return [
        float(coco_mask.iou([rle], [view.truth.masks[index]], [0])[0, 0])
        for rle, index in zip(rles, objects, strict=True)
    ]
