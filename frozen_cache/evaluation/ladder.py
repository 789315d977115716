"""The oracle ladder: mask AP with one thing put right at a time, so that one sees what costs most: the ranking, the
edges, what lies off the edges, the resolution of the RoI, or the boxes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torchvision.ops import box_convert, box_iou

from frozen_cache.boxes import to_pixels
from frozen_cache.cache.view import CachedView
from frozen_cache.evaluation.nameless import view_instances
from frozen_cache.evaluation.object_iou import EDGE
from frozen_cache.evaluation.segmenters import Segmentation, Segmenter
from frozen_cache.masks.boundary import edge_distance
from frozen_cache.masks.crop import crop_window
from frozen_cache.masks.paste import paste_window
from frozen_cache.masks.rle import window_rle
from frozen_cache.masks.window import pixel_span

ROI_SIDES = (16, 32, 64)
AS_IT_IS = "as it is"
RANKED = "ranked by class score times true IoU"
"""Eq. 12 with a mask scoring that is never wrong. By the IoU alone doubles would rank as high as what they double."""
EDGES = f"true within {100 * EDGE:g} % of the box's diagonal of the edge"
INTERIOR = "true everywhere else"
TRUE_BOXES = "our masks in the objects' true boxes"
TRUE_MASKS = "true masks in the boxes"
ROI_MASKS = {side: f"true masks at {side} x {side} cells in the boxes" for side in ROI_SIDES}
RUNGS = (AS_IT_IS, RANKED, EDGES, INTERIOR, TRUE_BOXES, *ROI_MASKS.values(), TRUE_MASKS)


@dataclass(frozen=True)
class _Pair:
    """A detection and the object of its class whose box overlaps its own the most."""

    row: int
    object: int


def ladder_results(
    view: CachedView, segmenter: Segmenter, segmentation: Segmentation, categories: list[int]
) -> dict[str, list[dict[str, Any]]]:
    """COCO mask results of one plain view for each of RUNGS.

    A detection that overlaps no object of its class stays as it is on every rung, at the end of the ranking where that
    is put right.
    """
    own = view_instances(view, segmentation, categories).to_coco(view.image_id, kind="segm")
    results = {rung: [dict(entry) for entry in own] for rung in RUNGS}
    pairs = list(_pairs(view, segmentation))
    for entry in results[RANKED]:
        entry["score"] = 0.0
    for pair in pairs:
        truth = view.truth.masks[pair.object]
        found = own[pair.row]["segmentation"]
        iou = coco_mask.iou([found], [truth], [0])[0, 0]
        results[RANKED][pair.row]["score"] = float(view.scores[pair.row] * iou)
        for rung, rle in _corrected(view, segmentation, pair, found).items():
            results[rung][pair.row]["segmentation"] = rle
    boxed = segmenter(_with_true_boxes(view, pairs))
    masks = view_instances(view, replace(boxed, scores=segmentation.scores), categories)
    for entry, there in zip(results[TRUE_BOXES], masks.to_coco(view.image_id, kind="segm"), strict=True):
        entry["segmentation"] = there["segmentation"]
    return results


def _pairs(view: CachedView, segmentation: Segmentation) -> Iterator[_Pair]:
    objects = np.flatnonzero(~view.truth.crowd)
    if not len(objects) or not view.selected:
        return
    size = view.transform.crop_size
    overlap = box_iou(to_pixels(view.boxes[: view.selected], size), torch.from_numpy(view.truth.boxes[objects]).float())
    same = view.labels[: view.selected, None] == torch.from_numpy(view.truth.categories[objects].astype(np.int64))
    best, which = (overlap * same).max(1)
    for row in (best > 0).nonzero()[:, 0].tolist():
        yield _Pair(row=row, object=int(objects[which[row]]))


def _corrected(
    view: CachedView, segmentation: Segmentation, pair: _Pair, found: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """The rungs that put a mask right within its box: each a compressed RLE."""
    size = view.transform.crop_size
    box = to_pixels(segmentation.boxes[pair.row : pair.row + 1], size)[0].tolist()
    (top, bottom), (left, right) = pixel_span(box[1], box[3], size[0]), pixel_span(box[0], box[2], size[1])
    whole = coco_mask.decode(view.truth.masks[pair.object]).astype(bool)
    band = EDGE * math.hypot(box[2] - box[0], box[3] - box[1])
    spare = math.ceil(band)
    above, before = max(0, top - spare), max(0, left - spare)  # the edge that is nearest may lie outside of the box
    distance = edge_distance(whole[above : bottom + spare, before : right + spare])
    distance = distance[top - above :, left - before :][: bottom - top, : right - left]
    true = whole[top:bottom, left:right]
    ours = coco_mask.decode(found)[top:bottom, left:right].astype(bool)
    inside = np.zeros_like(true)
    rows, columns = (slice(max(0, math.floor(box[at])), math.ceil(box[at + 2])) for at in (1, 0))
    inside[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = True
    near = (distance <= band) & inside
    far = ~near & inside
    made = {
        EDGES: np.where(near, true, ours),
        INTERIOR: np.where(far, true, ours),
        TRUE_MASKS: true & inside,
    }
    found_rles = {rung: window_rle(mask, top, left, size) for rung, mask in made.items()}
    for side, rung in ROI_MASKS.items():
        window, y, x = paste_window(crop_window(whole, box, side), box, size)
        found_rles[rung] = window_rle(window >= 0.5, y, x, size)
    return found_rles


def _with_true_boxes(view: CachedView, pairs: list[_Pair]) -> CachedView:
    """The view's selected pairs, each in the box of its object."""
    boxes = view.boxes[: view.selected].clone()
    height, width = view.transform.crop_size
    for pair in pairs:
        corners = torch.from_numpy(view.truth.boxes[pair.object]).float()
        boxes[pair.row] = box_convert(corners, "xyxy", "cxcywh") / torch.tensor([width, height, width, height])
    return replace(view.take(torch.arange(view.selected)), boxes=boxes)
