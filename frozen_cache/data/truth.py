"""The ground truth of a view: boxes and masks cropped and mirrored with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from frozen_cache.data.annotation import CocoAnnotation, boxes_xyxy
from frozen_cache.data.coco import CocoImage
from frozen_cache.data.supervision import Kind, Point, Supervision
from frozen_cache.data.view import ViewTransform


@dataclass(frozen=True)
class GroundTruth:
    """The G annotated objects of one view, in pixels of its crop frame (original resolution, after crop and flip)."""

    boxes: np.ndarray
    """(G, 4) float32 xyxy, in pixels of the crop frame: the annotation's box (checked against its mask) for a plain
    view, else the mask's."""
    categories: np.ndarray
    """(G,) int64 index into the cache's categories."""
    crowd: np.ndarray
    """(G,) bool."""
    areas: np.ndarray
    """(G,) float32, in pixels: the annotation's area (checked against its mask) for a plain view, else the mask's."""
    masks: list[dict[str, Any]]
    """G compressed RLEs as pycocotools takes them: {"size": [h, w], "counts": bytes}."""
    annotation_ids: np.ndarray
    """(G,) int64, the annotation ids of the data set."""
    match: np.ndarray
    """(G,) int64 row of the view's arrays that Hungarian matching gave the object; -1 for crowds and unmatched ones."""
    supervision: Supervision | None = None
    """Which objects have masks, and what is known of the others; None where all have."""

    @classmethod
    def none(cls) -> GroundTruth:
        """Of an image that nobody has annotated: G is 0."""
        return cls(
            boxes=np.zeros((0, 4), dtype=np.float32),
            categories=np.zeros(0, dtype=np.int64),
            crowd=np.zeros(0, dtype=bool),
            areas=np.zeros(0, dtype=np.float32),
            masks=[],
            annotation_ids=np.zeros(0, dtype=np.int64),
            match=np.zeros(0, dtype=np.int64),
        )


def view_truth(image: CocoImage, view: ViewTransform, category_index: dict[int, int]) -> GroundTruth:
    """The objects of one view in its crop frame, none matched yet (`match` is -1).

    A plain view keeps every annotation with the box and area that it is used with. In others box and area come from
    the cropped mask, and objects of which nothing is left are dropped.

    Args:
        category_index: category id to index into the cache's categories.
    """
    if view.is_plain:
        return _truth(image.annotations, category_index)
    masks = [crop_rle(annotation.rle, view) for annotation in image.annotations]
    return truth_of_masks(image, masks, category_index, move=partial(_cropped_point, view=view))


def truth_of_masks(
    image: CocoImage,
    masks: list[dict[str, Any]],
    category_index: dict[int, int],
    *,
    move: Callable[[Point], Point | None],
) -> GroundTruth:
    """The objects of an image as their masks have become, none matched yet: boxes and areas are those of the masks.

    Args:
        masks: compressed RLEs, one for each annotation; an object whose mask is empty is dropped.
        category_index: category id to index into the cache's categories.
        move: gives an annotated point as it has become; None where it is gone.
    """
    changed = [
        replace(
            annotation,
            rle=rle,
            area=float(area),
            bbox=tuple(coco_mask.toBbox(rle).tolist()),
            points=tuple(moved for point in annotation.points if (moved := move(point)) is not None),
        )
        for annotation, rle in zip(image.annotations, masks, strict=True)
        if (area := coco_mask.area(rle)) > 0
    ]
    return _truth(changed, category_index)


def _truth(annotations: list[CocoAnnotation], category_index: dict[int, int]) -> GroundTruth:
    return GroundTruth(
        boxes=boxes_xyxy(annotations).astype(np.float32),
        categories=np.array([category_index[annotation.category_id] for annotation in annotations], dtype=np.int64),
        crowd=np.array([annotation.crowd for annotation in annotations], dtype=bool),
        areas=np.array([annotation.area for annotation in annotations], dtype=np.float32),
        masks=[annotation.rle for annotation in annotations],
        annotation_ids=np.array([annotation.id for annotation in annotations], dtype=np.int64),
        match=np.full(len(annotations), -1, dtype=np.int64),
        supervision=_supervision(annotations),
    )


def _supervision(annotations: list[CocoAnnotation]) -> Supervision | None:
    """None where all have masks. An object that has lost its points has its box left."""
    kinds = [
        Kind.BOX if annotation.kind == Kind.POINTS and not annotation.points else annotation.kind
        for annotation in annotations
    ]
    return Supervision.of(kinds, [annotation.points for annotation in annotations]) if any(kinds) else None


def _cropped_point(point: Point, *, view: ViewTransform) -> Point | None:
    """A point of the image in pixels of the view's crop frame; None where it is cut off."""
    x, y, label = point
    x0, y0, x1, y1 = view.crop
    if not (x0 <= x <= x1 and y0 <= y <= y1):
        return None
    return x1 - x if view.flip else x - x0, y - y0, label


def crop_rle(rle: dict[str, Any], view: ViewTransform) -> dict[str, Any]:
    """The compressed RLE of a mask of the original image, cropped and mirrored as the view is."""
    x0, y0, x1, y1 = view.crop
    mask = coco_mask.decode(rle)[y0:y1, x0:x1]
    return coco_mask.encode(np.asfortranarray(mask[:, ::-1] if view.flip else mask))


def mask_boxes(masks: list[dict[str, Any]]) -> np.ndarray:
    """(G, 4) float32 xyxy in pixels: the tight boxes of G compressed RLEs."""
    boxes = np.array([coco_mask.toBbox(mask) for mask in masks], dtype=np.float32).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
