"""The oracle ladder: each rung puts right what it says, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from frozen_cache.evaluation.ladder import (
    AS_IT_IS,
    EDGES,
    INTERIOR,
    RANKED,
    ROI_MASKS,
    RUNGS,
    TRUE_BOXES,
    TRUE_MASKS,
    ladder_results,
)
from frozen_cache.evaluation.segmenters import Segmentation

SIZE = (64, 80)


class LeftHalf:
    """The left half of each box, one score for all."""

    encoder_layer = None

    def __call__(self, view):
        masks = torch.zeros(view.selected, 64, 64)
        masks[:, :, :32] = 1
        return Segmentation(masks=masks, boxes=view.boxes[: view.selected], scores=view.scores[: view.selected])


def disc(y: float, x: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


@pytest.fixture
def seen(view):
    """Two objects of class 1 and a crowd of it; a detection on each object, one of another class, one in the crowd."""
    masks = [disc(32, 24, 14), disc(20, 62, 12), disc(52, 64, 9)]
    boxes = [[10.0, 18, 38, 46], [50.0, 8, 74, 32], [55.0, 43, 73, 61]]
    truth = replace(
        view.truth,
        masks=[coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks],
        boxes=np.array(boxes, dtype=np.float32),
        categories=np.array([1, 1, 1]),
        crowd=np.array([False, False, True]),
        areas=np.array([mask.sum() for mask in masks], dtype=np.float32),
        annotation_ids=np.array([1, 2, 3]),
        match=np.array([0, 1, -1]),
    )
    found = torch.tensor([[8.0, 18, 40, 46], [50.0, 8, 70, 32], [10.0, 18, 38, 46], [55.0, 43, 73, 61]])
    cxcywh = torch.cat([(found[:, :2] + found[:, 2:]) / 2, found[:, 2:] - found[:, :2]], dim=1)
    boxes = cxcywh / torch.tensor([80.0, 64, 80, 64])
    seen = replace(
        view,
        selected=4,
        queries=torch.ones(4, 8),
        boxes=boxes,
        scores=torch.tensor([0.9, 0.8, 0.7, 0.6]),
        labels=torch.tensor([1, 1, 0, 1]),
        truth=truth,
    )
    return seen, masks


@pytest.fixture
def rungs(seen):
    view, masks = seen
    found = ladder_results(view, LeftHalf(), LeftHalf()(view), [7, 9])
    return found, masks


def decoded(entry) -> np.ndarray:
    return coco_mask.decode(entry["segmentation"]).astype(bool)


def inside(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    box = np.zeros(SIZE, dtype=bool)
    box[y0:y1, x0:x1] = True
    return box


BOXES = [inside(8, 18, 40, 46), inside(50, 8, 70, 32)]


def test_every_rung_names_the_same_detections(rungs) -> None:
    found, _ = rungs
    assert tuple(found) == RUNGS
    for entries in found.values():
        assert [entry["category_id"] for entry in entries] == [9, 9, 7, 9]
        assert all(entry["image_id"] == 1 for entry in entries)


def test_what_overlaps_no_object_of_its_class_stays_as_it_is(rungs) -> None:
    found, _ = rungs
    for rung, entries in found.items():
        for row in (2, 3):
            assert entries[row]["segmentation"] == found[AS_IT_IS][row]["segmentation"], rung


def test_ranking_takes_the_true_iou_for_the_one_that_a_head_predicts(rungs) -> None:
    found, masks = rungs
    for row in (0, 1):
        ours = decoded(found[AS_IT_IS][row])
        iou = (ours & masks[row]).sum() / (ours | masks[row]).sum()
        assert found[RANKED][row]["score"] == pytest.approx([0.9, 0.8][row] * iou)
        assert found[RANKED][row]["segmentation"] == found[AS_IT_IS][row]["segmentation"]
    assert [entry["score"] for entry in found[RANKED][2:]] == [0, 0]
    for rung in set(RUNGS) - {RANKED}:
        assert [entry["score"] for entry in found[rung]] == pytest.approx([0.9, 0.8, 0.7, 0.6]), rung


def test_true_masks_are_held_to_the_box(rungs) -> None:
    found, masks = rungs
    for row in (0, 1):
        assert (decoded(found[TRUE_MASKS][row]) == (masks[row] & BOXES[row])).all()
    assert (masks[1] & ~BOXES[1]).any()


def test_edges_and_interior_share_the_box_between_them(rungs) -> None:
    """Each pixel of a box is true on one of the two rungs and ours on the other, by its distance from the edge."""
    found, masks = rungs
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    centres, radii = [(32, 24), (20, 62)], [14, 12]
    for row in (0, 1):
        edges, interior, ours = (decoded(found[rung][row]) for rung in (EDGES, INTERIOR, AS_IT_IS))
        from_edge = np.abs(np.hypot(rows - centres[row][0], columns - centres[row][1]) - radii[row])
        true = masks[row]
        near, far = (from_edge < 0.4) & BOXES[row], (from_edge > 2.2) & BOXES[row]  # the band: 0.85 and 0.62 pixels
        assert (edges[near] == true[near]).all() and (interior[near] == ours[near]).all()
        assert (edges[far] == ours[far]).all() and (interior[far] == true[far]).all()
        for made in (edges, interior):
            assert ((made == true) | (made == ours)).all() and not (made & ~BOXES[row] & ~ours).any()
        assert (edges != ours).any() and (interior != ours).any()


def test_cells_lose_less_the_finer_they_are(seen) -> None:
    view, masks = seen
    masks[0] &= np.arange(SIZE[1]) % 3 > 0  # stripes of two pixels, a pixel apart
    rles = [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
    view = replace(view, truth=replace(view.truth, masks=rles))
    found = ladder_results(view, LeftHalf(), LeftHalf()(view), [7, 9])
    lost = {side: int((decoded(found[rung][0]) != (masks[0] & BOXES[0])).sum()) for side, rung in ROI_MASKS.items()}
    assert lost[64] <= lost[32] < lost[16] < masks[0].sum()


def test_in_true_boxes_the_segmenter_itself_makes_the_masks(rungs) -> None:
    found, _ = rungs
    assert (decoded(found[TRUE_BOXES][0]) == inside(10, 18, 24, 46)).all()
    assert (decoded(found[TRUE_BOXES][1]) == inside(50, 8, 62, 32)).all()
