"""What goes wrong, by kind: each detection and each object of an image gets one word for what became of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

THRESHOLD = 0.3
"""Detections of a lower score are not looked at."""
GOOD_IOU, NEAR_IOU = 0.5, 0.1

DETECTION_KINDS = ("right", "bad mask", "double", "wrong class", "bad box", "nothing there")
"""right: class and mask (IoU >= 0.5). bad mask: class and box, not the mask. double: of an object that a better one has
found. wrong class: mask or box of an object of another class. bad box: class, but the box is off (IoU 0.1 to 0.5)."""
OBJECT_KINDS = ("found", "bad mask", "wrong class", "bad box", "missed")
"""found, or the best that any detection made of it; missed where none came near."""


@dataclass(frozen=True)
class Judged:
    """What became of one detection, or of one object."""

    index: int
    """Its place in the list that was given."""
    kind: str
    partner: int | None
    """Place of the object that a detection was taken for, or of the detection that an object owes its word to."""
    iou: float
    """Of the two masks; 0 without a partner."""
    score: float = 0.0
    """Of a detection."""


@dataclass(frozen=True)
class ImageVerdict:
    """One image, judged."""

    image_id: int
    detections: list[Judged]
    """Of those above the threshold, by falling score; what lies in a crowd region is left out."""
    objects: list[Judged]
    """Of all but crowds."""
    confusion: list[tuple[int | None, int | None]]
    """(category of the object, category of the detection); None for a detection of nothing, or for an object missed."""

    @property
    def mean_iou(self) -> float | None:
        """Mean over the objects of the IoU with their detection of the same class; None without objects."""
        if not self.objects:
            return None
        return sum(thing.iou if thing.kind in ("found", "bad mask") else 0.0 for thing in self.objects) / len(
            self.objects
        )


def judge_image(
    image_id: int, found: list[dict[str, Any]], truth: list[dict[str, Any]], *, threshold: float = THRESHOLD
) -> ImageVerdict:
    """Sort the detections of one image into DETECTION_KINDS and its objects into OBJECT_KINDS.

    Args:
        found: COCO results with segmentation RLE; `bbox` (xywh) where it is not that of the mask.
        truth: COCO annotations with segmentation RLE and `bbox`; crowds excuse detections and are nobody's object.
    """
    kept = sorted(
        (at for at in range(len(found)) if found[at]["score"] >= threshold), key=lambda at: -found[at]["score"]
    )
    things = [at for at in range(len(truth)) if not truth[at]["iscrowd"]]
    mask_iou, box_iou = _ious([found[at] for at in kept], [truth[at] for at in things])
    same = np.array(
        [[found[d]["category_id"] == truth[g]["category_id"] for g in things] for d in kept], dtype=bool
    ).reshape(len(kept), len(things))
    claimed = _claims(np.where(same, mask_iou, 0.0))
    ignored = _in_crowds([found[at] for at in kept], [thing for thing in truth if thing["iscrowd"]])
    detections: list[Judged] = []
    missed: tuple[str, int | None, float] = ("missed", None, 0.0)
    verdict = dict.fromkeys(range(len(things)), missed)
    for row, at in enumerate(kept):
        kind, column = _kind(row, claimed, same, mask_iou, box_iou)
        if kind not in ("right", "double") and ignored[row]:
            continue
        iou = 0.0 if column is None else float(mask_iou[row, column])
        partner = None if column is None else things[column]
        detections.append(Judged(at, kind, partner, iou, score=found[at]["score"]))
        word = "found" if kind == "right" else kind
        if column is not None and word in OBJECT_KINDS:
            old = verdict[column]
            if (OBJECT_KINDS.index(word), -iou) < (OBJECT_KINDS.index(old[0]), -old[2]):
                verdict[column] = (word, at, iou)
    return ImageVerdict(
        image_id=image_id,
        detections=detections,
        objects=[Judged(things[column], *values) for column, values in verdict.items()],
        confusion=_confusion(kept, things, found, truth, same, mask_iou, ignored),
    )


def count_kinds(verdicts: list[ImageVerdict]) -> dict[str, dict[str, int]]:
    """How many detections and objects of each kind, every kind named."""
    detections = Counter(judged.kind for verdict in verdicts for judged in verdict.detections)
    objects = Counter(judged.kind for verdict in verdicts for judged in verdict.objects)
    return {
        "objects": {kind: objects[kind] for kind in OBJECT_KINDS},
        "detections": {kind: detections[kind] for kind in DETECTION_KINDS},
    }


def _kind(
    row: int, claimed: dict[int, int], same: np.ndarray, mask_iou: np.ndarray, box_iou: np.ndarray
) -> tuple[str, int | None]:
    """The word for a detection and the object that it is about."""
    if row in claimed:
        return "right", claimed[row]
    taken = set(claimed.values())
    own, own_box = np.where(same[row], mask_iou[row], 0), np.where(same[row], box_iou[row], 0)
    if own.max(initial=0) >= GOOD_IOU:
        return "double", int(own.argmax())
    if own_box.max(initial=0) >= GOOD_IOU:
        column = int(own_box.argmax())
        return ("double" if column in taken else "bad mask"), column
    other = np.where(same[row], 0, np.maximum(mask_iou[row], box_iou[row]))
    if other.max(initial=0) >= GOOD_IOU:
        return "wrong class", int(other.argmax())
    if own_box.max(initial=0) >= NEAR_IOU:
        return "bad box", int(own_box.argmax())
    return "nothing there", None


def _claims(iou: np.ndarray) -> dict[int, int]:
    """Detection -> object: by falling score, each takes the free object of the highest IoU, if that is good."""
    claimed: dict[int, int] = {}
    free = np.ones(iou.shape[1], dtype=bool)
    for row in range(iou.shape[0]):
        left = np.where(free, iou[row], 0)
        if left.max(initial=0) >= GOOD_IOU:
            claimed[row] = int(left.argmax())
            free[claimed[row]] = False
    return claimed


def _confusion(
    kept: list[int],
    things: list[int],
    found: list[dict[str, Any]],
    truth: list[dict[str, Any]],
    same: np.ndarray,
    mask_iou: np.ndarray,
    ignored: np.ndarray,
) -> list[tuple[int | None, int | None]]:
    # An object of the detection's own class goes before one of another.
    claimed = _claims(np.where(mask_iou >= GOOD_IOU, mask_iou + same, 0.0))
    pairs: list[tuple[int | None, int | None]] = []
    for row, at in enumerate(kept):
        if row in claimed:
            pairs.append((truth[things[claimed[row]]]["category_id"], found[at]["category_id"]))
        elif not ignored[row]:
            pairs.append((None, found[at]["category_id"]))
    missed = set(range(len(things))) - set(claimed.values())
    return pairs + [(truth[things[column]]["category_id"], None) for column in sorted(missed)]


def _ious(found: list[dict[str, Any]], truth: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """(D, G) IoU of the masks and of the boxes."""
    shape = (len(found), len(truth))
    if 0 in shape:
        return np.zeros(shape), np.zeros(shape)
    plain = [0] * len(truth)
    masks = coco_mask.iou([f["segmentation"] for f in found], [t["segmentation"] for t in truth], plain)
    boxes = [f["bbox"] if "bbox" in f else coco_mask.toBbox(f["segmentation"]).tolist() for f in found]
    return np.asarray(masks).reshape(shape), np.asarray(
        coco_mask.iou(np.array(boxes, dtype=float), np.array([t["bbox"] for t in truth], dtype=float), plain)
    ).reshape(shape)


def _in_crowds(found: list[dict[str, Any]], crowds: list[dict[str, Any]]) -> np.ndarray:
    """(D,) bool: half of the detection's mask lies in a crowd region of its class."""
    inside = np.zeros(len(found), dtype=bool)
    if found and crowds:
        share = coco_mask.iou(
            [f["segmentation"] for f in found], [c["segmentation"] for c in crowds], [1] * len(crowds)
        )
        same = np.array([[f["category_id"] == c["category_id"] for c in crowds] for f in found])
        inside = ((np.asarray(share).reshape(same.shape) >= GOOD_IOU) & same).any(axis=1)
    return inside
