"""The boxes that the head trains on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from frozen_cache.training.config import RoiConfig
from frozen_cache.training.rois import training_rois

BOXES = torch.tensor(
    [[0.2, 0.2, 0.2, 0.2], [0.22, 0.2, 0.2, 0.2], [0.6, 0.6, 0.2, 0.4], [0.9, 0.9, 0.0, 0.1], [0.62, 0.6, 0.2, 0.4]]
)
"""Rows 0 to 3 are detections, row 4 was only matched."""
NONE = {"matched": False}


def view() -> Any:
    """Objects: one matched to row 1, a crowd matched to row 0, one of no area, one without a match, one of row 4."""
    truth = SimpleNamespace(
        boxes=np.array(
            [[10, 5, 30, 15], [0, 0, 100, 50], [5, 5, 5, 5], [50, 20, 70, 40], [52, 20, 72, 40]], np.float32
        ),
        crowd=np.array([False, True, False, False, False]),
        areas=np.array([200.0, 5000, 0, 400, 400], np.float32),
        match=np.array([1, 0, 2, -1, 4]),
    )
    return SimpleNamespace(truth=truth, boxes=BOXES, selected=4, transform=SimpleNamespace(crop_size=(50, 100)))


def chosen(seed: int = 0, **options: Any) -> list[tuple[int, int, list[float]]]:
    """(row, object, box) of each."""
    found = training_rois(view(), RoiConfig(**options), generator=torch.Generator().manual_seed(seed))
    boxes = [[round(value, 4) for value in box] for box in found.boxes.tolist()]
    return list(zip(found.rows.tolist(), found.objects.tolist(), boxes, strict=True))


def test_the_paper_trains_on_the_boxes_of_matched_queries_and_never_on_crowds() -> None:
    assert chosen() == [(1, 0, [0.22, 0.2, 0.2, 0.2]), (4, 4, [0.62, 0.6, 0.2, 0.4])]


def test_ground_truth_boxes_go_with_the_matched_query() -> None:
    expected = [(1, 0, [0.2, 0.2, 0.2, 0.2]), (4, 4, [0.62, 0.6, 0.2, 0.4])]
    assert chosen(**NONE, ground_truth=True) == expected


@pytest.mark.parametrize(
    ("limit", "rows"), [(0.95, {0: 0, 2: 3}), (0.7, {0: 0, 1: 0, 2: 3}), (0.0, {0: 0, 1: 0, 2: 3})]
)
def test_detections_that_overlap_an_object_show_the_one_they_overlap_most(limit: float, rows: dict[int, int]) -> None:
    # Row 1 has IoU 0.818 with object 0; row 3 has no inside; row 4 is no detection; the crowd is none to overlap.
    assert {row: thing for row, thing, _ in chosen(**NONE, overlapping_iou=limit)} == rows


def test_jittered_boxes_are_ground_truth_boxes_moved_by_less_than_asked() -> None:
    found = chosen(**NONE, jitter=0.25)
    assert [(row, thing) for row, thing, _ in found] == [(1, 0), (4, 4)]
    for (_, _, box), (_, _, exact) in zip(found, chosen(**NONE, ground_truth=True), strict=True):
        assert box != exact
        assert all(
            abs(a - b) <= 0.25 * exact[2 + at % 2] + 1e-3 for at, (a, b) in enumerate(zip(box, exact, strict=True))
        )


def test_of_too_many_a_random_few_are_drawn() -> None:
    draws = [chosen(seed, ground_truth=True, max_per_image=2) for seed in range(20)]
    everything = chosen(ground_truth=True)
    assert all(len(draw) == 2 and all(each in everything for each in draw) for draw in draws)
    assert len({str(draw) for draw in draws}) > 4
