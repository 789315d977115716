"""Whether the mask that a model gave to an annotated box is believed. The box is a person's, so it decides."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from pycocotools import mask as coco_mask
from torch import Tensor

from frozen_cache.data.annotation import CocoAnnotation
from frozen_cache.data.supervision import Kind, filled_box
from frozen_cache.masks.rle import window_rle

LEAST_IOU = 0.5
"""Predicted IoU below which a mask is refused, unless told otherwise."""
LEAST_INSIDE = 0.5
"""Part of a mask that must lie in its box."""
LEAST_BOX_IOU = 0.5
"""Of the mask's own box with the box that it was asked for."""
REFUSALS = {
    "unmatched": "no detection is matched with the object, so the head has no query for it",
    "unsure": "the model's own estimate of their IoU is low",
    "empty": "no pixel lies in the box",
    "outside": "most of the mask lies outside of the box",
    "part": "the mask covers a part of the box alone",
}
"""Why a mask is not believed -> in words."""


@dataclass(frozen=True)
class Answer:
    """What came of one box."""

    counts: str = ""
    """COCO's compressed run lengths of the mask, cut at the box; empty where it is refused."""
    refusal: str = ""
    """Of `REFUSALS`; empty where the mask is believed."""


def judged(logits: Tensor, iou: float, box: tuple[float, float, float, float], *, least_iou: float) -> Answer:
    """A model's answer: its mask, what lies outside of the box cut off, or why it is refused.

    Args:
        logits: (H, W) at the image's size; positive in the mask.
        iou: as the model predicts it.
        box: that was asked for: x, y, width, height in pixels.
        least_iou: refuse masks whose predicted IoU is lower.
    """
    height, width = logits.shape
    x, y, box_width, box_height = box
    left, top = min(max(math.floor(x), 0), width), min(max(math.floor(y), 0), height)
    right, bottom = min(max(math.ceil(x + box_width), 0), width), min(max(math.ceil(y + box_height), 0), height)
    mask = (logits > 0).numpy()
    window = mask[top:bottom, left:right]
    inside = int(window.sum())
    if not iou >= least_iou:  # nan, too
        return Answer(refusal="unsure")
    if not inside:
        return Answer(refusal="empty")
    if inside < LEAST_INSIDE * int(mask.sum()):
        return Answer(refusal="outside")
    own_height, own_width = (int(np.ptp(np.flatnonzero(window.any(axis)))) + 1 for axis in (1, 0))
    # The mask's box lies within the box.
    if own_height * own_width < LEAST_BOX_IOU * (right - left) * (bottom - top):
        return Answer(refusal="part")
    return Answer(counts=window_rle(window, top, left, (height, width))["counts"])


def answered(annotation: CocoAnnotation, answer: Answer) -> CocoAnnotation:
    """The annotation with what came of its box. The box stays; a mask that is refused leaves it, and the points that
    are known, alone."""
    if answer.refusal:
        if annotation.kind != Kind.MASK:
            return annotation
        height, width = annotation.rle["size"]
        rle = filled_box(annotation.bbox, height=height, width=width)
        return replace(annotation, rle=rle, area=float(coco_mask.area(rle)), kind=Kind.BOX)
    rle = {"size": annotation.rle["size"], "counts": answer.counts.encode("ascii")}
    return replace(annotation, rle=rle, area=float(coco_mask.area(rle)), kind=Kind.MASK, points=())
