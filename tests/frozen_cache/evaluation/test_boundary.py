"""Boundary AP: pycocotools with IoUs that are put together plainly."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from frozen_cache.evaluation.boundary import boundary_iou
from frozen_cache.evaluation.coco import coco_metrics
from frozen_cache.evaluation.matching import coco_in_memory
from frozen_cache.masks.boundary import boundary, boundary_width

SIZE = (200, 200)
THRESHOLDS = np.linspace(0.5, 0.95, 10)


def square(top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


def encoded(mask: np.ndarray) -> dict:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def truth(masks: list[np.ndarray], crowd: int = 0):
    return coco_in_memory(
        {
            "images": [{"id": 1, "height": SIZE[0], "width": SIZE[1]}],
            "categories": [{"id": 5, "name": "thing"}],
            "annotations": [
                {"image_id": 1, "category_id": 5, "segmentation": encoded(mask), "iscrowd": crowd}
                | {"area": float(mask.sum()), "bbox": coco_mask.toBbox(encoded(mask)).tolist()}
                for mask in masks
            ],
        }
    )


def result(mask: np.ndarray, score: float) -> dict:
    rle = encoded(mask)
    return {"image_id": 1, "category_id": 5, "segmentation": rle | {"counts": rle["counts"].decode()}, "score": score}


def both(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """IoU of two masks, and of their boundary regions."""
    width = boundary_width(SIZE)
    regions = boundary(one, width), boundary(other, width)
    return tuple(float((a & b).sum() / (a | b).sum()) for a, b in ((one, other), regions))


def test_a_pair_counts_by_the_smaller_of_its_two_ious() -> None:
    object_, found = square(20, 20, 120), square(23, 21, 120)
    mask_iou, edge_iou = both(object_, found)
    assert mask_iou > 0.9 > 0.75 > edge_iou > 0.5
    assert boundary_iou(encoded(object_), encoded(found)) == pytest.approx(edge_iou)
    metrics = coco_metrics(truth([object_]), [result(found, 0.9)], "boundary")
    passed = sum(edge_iou >= threshold for threshold in THRESHOLDS)
    assert metrics["AP"] == pytest.approx(passed / 10)
    assert coco_metrics(truth([object_]), [result(found, 0.9)], "segm")["AP"] >= 0.9


def test_a_mask_with_a_good_edge_and_a_hole_is_held_to_its_mask_iou() -> None:
    object_ = square(20, 20, 120)
    found = object_.copy()
    found[38:122, 38:122] = False
    mask_iou, edge_iou = both(object_, found)
    assert 0.5 < mask_iou < 0.55 < edge_iou
    passed = sum(mask_iou >= threshold for threshold in THRESHOLDS)
    assert coco_metrics(truth([object_]), [result(found, 0.9)], "boundary")["AP"] == pytest.approx(passed / 10)


def test_each_detection_has_its_own_region_in_whatever_order_they_come() -> None:
    objects = [square(5, 5, 60), square(100, 100, 90)]
    found = [result(objects[1], 0.2), result(objects[0], 0.9), result(square(70, 5, 20), 0.5)]
    assert coco_metrics(truth(objects), found, "boundary")["AP50"] == pytest.approx(
        coco_metrics(truth(objects), found, "segm")["AP50"]
    )
    assert coco_metrics(truth(objects), found[:2], "boundary")["AP"] == pytest.approx(1.0)


def test_detections_in_a_crowd_are_excused_by_their_masks() -> None:
    both_kinds = truth([square(5, 5, 60)])
    crowd = truth([square(100, 100, 90)], crowd=1).dataset["annotations"]
    together = coco_in_memory({**both_kinds.dataset, "annotations": [*both_kinds.dataset["annotations"], *crowd]})
    found = [result(square(5, 5, 60), 0.5), result(square(110, 110, 30), 0.9)]
    assert coco_metrics(together, found, "boundary")["AP"] == pytest.approx(1.0)
    assert coco_metrics(together, [], "boundary")["AP"] == 0.0
