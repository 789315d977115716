"""Boundary AP (arXiv 2103.16562): COCO's AP with the smaller of mask IoU and boundary IoU."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from frozen_cache.masks.boundary import boundary_rle

LEAST_IOU = 0.5
"""COCO's lowest threshold: a pair below it is no match, whatever its boundary is like."""


def boundary_iou(one: dict[str, Any], other: dict[str, Any]) -> float:
    """IoU of the boundary regions of two compressed RLEs."""
    return float(coco_mask.iou([boundary_rle(one)], [boundary_rle(other)], [0])[0, 0])


class BoundaryEval(COCOeval):
    """COCOeval of masks (RLE), matched by min(mask IoU, boundary IoU); crowds by mask IoU."""

    def __init__(self, truth: COCO, found: COCO) -> None:
        super().__init__(truth, found, "segm")
        self._regions: dict[tuple[str, int], dict[str, Any]] = {}

    def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802, N803
        """(D, G) of one image and category, detections by falling score, as COCOeval has it."""
        ious = super().computeIoU(imgId, catId)
        objects, detections = self._gts[imgId, catId], self._dts[imgId, catId]
        if not len(objects) or not len(detections):
            return ious
        order = np.argsort([-entry["score"] for entry in detections], kind="mergesort")
        for row, column in np.argwhere(np.asarray(ious) >= LEAST_IOU):
            thing = objects[column]
            if not thing["iscrowd"]:
                pair = self._region("found", detections[order[row]]), self._region("truth", thing)
                ious[row, column] = min(ious[row, column], coco_mask.iou([pair[0]], [pair[1]], [0])[0, 0])
        return ious

    def _region(self, kind: str, annotation: dict[str, Any]) -> dict[str, Any]:
        key = kind, annotation["id"]
        if key not in self._regions:
            self._regions[key] = boundary_rle(annotation["segmentation"])
        return self._regions[key]
