"""From a detector's output to the rows that are stored."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from frozen_cache.cache.collect import LabelTable, collect_view
from frozen_cache.cache.view import CachedView
from frozen_cache.data.truth import GroundTruth
from frozen_cache.data.view import ViewTransform
from frozen_cache.detectors.output import DetectorOutput
from frozen_cache.errors import UserError

# Columns 0, 1, 2 carry labels 7, 8, 9; the data set knows 7 as its category 30 and 9 as its category 20.
TABLE = LabelTable.build(torch.tensor([7, 8, 9]), {7: 30, 9: 20}, [20, 30])
BOXES = [[0.1, 0.5, 0.1, 0.4], [0.5, 0.5, 0.2, 0.4], [0.9, 0.5, 0.1, 0.4]]
SCORES = [[0.5, 0.99, 0.4], [0.6, 0.9, 0.3], [0.05, 0.9, 0.1]]


def box_mask(box_xyxy: list[float]) -> dict[str, object]:
    """The RLE of a filled box in 100 x 200 pixels (height x width)."""
    x0, y0, x1, y1 = map(int, box_xyxy)
    mask = np.zeros((100, 200), dtype=np.uint8)
    mask[y0:y1, x0:x1] = 1
    return coco_mask.encode(np.asfortranarray(mask))


def collected(
    objects: list[tuple[list[float], int, bool]],
    *,
    top_k: int = 3,
    file_boxes: list[list[float]] | None = None,
    **changes: object,
) -> CachedView:
    """Objects are (xyxy in pixels of 100 x 200 (height x width), category index, crowd)."""
    output = DetectorOutput(
        queries=torch.arange(3.0)[None, :, None].expand(1, 3, 2),
        boxes=torch.tensor([BOXES]),
        scores=torch.tensor([SCORES]),
        labels=torch.tensor([7, 8, 9]),
        c1=None,
        encoder={1: [torch.zeros(1, 2, 3, 4)]},
    )
    truth = GroundTruth(
        boxes=np.array(file_boxes or [box for box, _, _ in objects], dtype=np.float32).reshape(-1, 4),
        categories=np.array([category for _, category, _ in objects], dtype=np.int64),
        crowd=np.array([crowd for _, _, crowd in objects], dtype=bool),
        areas=np.ones(len(objects), dtype=np.float32),
        masks=[box_mask(box) for box, _, _ in objects],
        annotation_ids=np.arange(len(objects)),
        match=np.full(len(objects), -1),
    )
    transform = ViewTransform(original_size=(100, 200), crop=(0, 0, 200, 100), resized_size=(50, 100))
    return collect_view(
        output, 0, image_id=5, view=0, transform=transform, truth=truth, table=TABLE, top_k=top_k,
        one_label_per_query=False, **changes,  # type: ignore[arg-type]
    )  # fmt: skip


def test_labels_and_categories_find_each_other() -> None:
    assert TABLE.category_of_column.tolist() == [1, -1, 0]
    assert TABLE.column_of_category.tolist() == [2, 0]


def test_the_best_pairs_of_known_labels_are_stored_by_falling_score() -> None:
    view = collected([])
    assert view.selected == 3
    assert view.scores.tolist() == pytest.approx([0.6, 0.5, 0.4])
    assert view.labels.tolist() == [1, 1, 0], "places among the categories"
    assert view.queries[:, 0].tolist() == [1, 0, 0]
    assert torch.equal(view.boxes, torch.tensor(BOXES)[[1, 0, 0]])


def test_a_matched_query_that_no_pair_has_stands_behind_them_with_its_object_s_category() -> None:
    right = [170.0, 30.0, 190.0, 70.0]
    view = collected([(right, 0, False)])
    assert (view.selected, len(view.queries)) == (3, 4)
    assert view.truth.match.tolist() == [3]
    assert (view.queries[3, 0].item(), view.labels[3].item()) == (2, 0)
    assert view.scores[3].item() == pytest.approx(0.1)


@pytest.mark.parametrize(("category", "row"), [(0, 2), (1, 1)])
def test_an_object_s_match_is_the_pair_of_its_own_category(category: int, row: int) -> None:
    left = [10.0, 30.0, 30.0, 70.0]
    assert collected([(left, category, False)]).truth.match.tolist() == [row]


def test_a_pair_of_another_category_serves_where_the_own_is_not_selected() -> None:
    left = [10.0, 30.0, 30.0, 70.0]
    view = collected([(left, 0, False)], top_k=2)
    assert (view.truth.match.tolist(), len(view.queries)) == ([1], 2)


def test_crowds_and_objects_without_extent_are_not_matched() -> None:
    left, flat = [10.0, 30.0, 30.0, 70.0], [10.0, 30.0, 30.0, 30.0]
    assert collected([(left, 1, True), (flat, 1, False), (left, 1, False)]).truth.match.tolist() == [-1, -1, 1]


def test_the_truth_is_matched_in_units_of_the_crop() -> None:
    # The three boxes differ in x alone: with width and height swapped the middle one would be the nearest.
    right = [170.0, 30.0, 190.0, 70.0]
    view = collected([(right, 1, False)])
    assert view.queries[view.truth.match[0], 0].item() == 2


def test_numbers_that_are_not_finite_are_refused_naming_image_and_what() -> None:
    BOXES[0][0], before = float("nan"), BOXES[0][0]
    try:
        with pytest.raises(UserError, match="image 5: the detector's boxes are not finite"):
            collected([])
    finally:
        BOXES[0][0] = before


def test_an_object_is_matched_by_its_mask_not_by_the_box_of_the_file() -> None:
    right = [170.0, 30.0, 190.0, 70.0]
    view = collected([(right, 1, False)], file_boxes=[[0.0, 0.0, 0.0, 0.0]])
    assert view.queries[view.truth.match[0], 0].item() == 2
