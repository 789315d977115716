"""Hungarian matching against the lineage's own figures, and against the formula in numpy."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torchvision.ops import box_convert, generalized_box_iou

from frozen_cache.matching import generalised_iou, match_queries


def test_matches_as_the_lineage_does_on_the_parity_case(oracles: dict) -> None:
    case = oracles["match"]
    for scores, boxes, target, (queries, objects) in zip(
        case["logits"].sigmoid(), case["boxes"], case["targets"], case["idx"], strict=True
    ):
        match = match_queries(scores, boxes, target["labels"], target["boxes"])
        assert match[objects].tolist() == queries.tolist()


def test_prefers_the_query_with_the_right_class_where_boxes_are_equal() -> None:
    scores = torch.tensor([[0.9, 0.1], [0.1, 0.8], [0.5, 0.5]])
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2]] * 3)
    truth = torch.tensor([[0.5, 0.5, 0.2, 0.2]] * 2)
    for focal in (True, False):
        assert match_queries(scores, boxes, torch.tensor([1, 0]), truth, focal=focal).tolist() == [1, 0]


def test_prefers_the_nearer_box_where_classes_are_equal() -> None:
    scores = torch.full((3, 1), 0.5)
    boxes = torch.tensor([[0.2, 0.2, 0.1, 0.1], [0.8, 0.8, 0.1, 0.1], [0.5, 0.5, 0.1, 0.1]])
    truth = torch.tensor([[0.79, 0.8, 0.1, 0.1], [0.22, 0.2, 0.1, 0.1]])
    assert match_queries(scores, boxes, torch.tensor([0, 0]), truth).tolist() == [1, 0]


def test_objects_beyond_the_number_of_queries_stay_unmatched() -> None:
    truth = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1]])
    match = match_queries(torch.tensor([[0.5]]), truth[:1], torch.tensor([0, 0]), truth)
    assert match.tolist() == [0, -1]


def test_no_objects_give_no_matches() -> None:
    empty = match_queries(torch.rand(3, 2), torch.rand(3, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
    assert empty.shape == (0,)


def test_scores_of_exactly_zero_and_one_are_matched_without_nan() -> None:
    scores = torch.tensor([[0.0], [1.0]])
    boxes = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.5, 0.5, 0.2, 0.2]])
    assert match_queries(scores, boxes, torch.tensor([0]), boxes[1:]).tolist() == [1]


def test_generalised_iou_is_one_for_equal_and_negative_for_distant_boxes() -> None:
    boxes = torch.tensor([[0.2, 0.2, 0.2, 0.2], [0.8, 0.8, 0.2, 0.2]])
    values = generalised_iou(boxes, boxes)
    assert torch.allclose(values.diag(), torch.ones(2))
    assert values[0, 1] == pytest.approx(-(0.64 - 0.08) / 0.64)


def numpy_cost(scores: np.ndarray, boxes: np.ndarray, columns: np.ndarray, truth: np.ndarray, *, focal: bool):
    """The cost of every query (row) for every object (column), number by number from the papers' formula."""
    cost = np.zeros((len(boxes), len(truth)))
    for q, (cx, cy, w, h) in enumerate(boxes):
        for g, (tx, ty, tw, th) in enumerate(truth):
            p = scores[q, columns[g]]
            focal_cost = 0.25 * (1 - p) ** 2 * -np.log(p) - 0.75 * p**2 * -np.log(1 - p)
            l1 = abs(cx - tx) + abs(cy - ty) + abs(w - tw) + abs(h - th)
            spans = [
                (centre - size / 2, centre + size / 2, other - extent / 2, other + extent / 2)
                for centre, size, other, extent in ((cx, w, tx, tw), (cy, h, ty, th))
            ]
            inner = np.prod([max(0.0, min(b, d) - max(a, c)) for a, b, c, d in spans])
            hull = np.prod([max(b, d) - min(a, c) for a, b, c, d in spans])
            union = w * h + tw * th - inner
            giou = inner / union - (hull - union) / hull
            cost[q, g] = (2 * focal_cost if focal else -p) + 5 * l1 - 2 * giou
    return cost


@pytest.mark.parametrize("focal", [True, False])
def test_the_assignment_is_the_cheapest_of_the_formula_s_costs(focal: bool) -> None:
    rng = np.random.default_rng(0)
    for queries, objects in [(9, 4), (12, 7), (6, 6), (3, 5)] * 15:
        scores = rng.uniform(0.01, 0.99, (queries, 5)) ** rng.uniform(0.3, 3)
        boxes = np.concatenate([rng.uniform(0.35, 0.65, (queries, 2)), rng.uniform(0.05, 0.5, (queries, 2))], 1)
        truth = np.concatenate([rng.uniform(0.35, 0.65, (objects, 2)), rng.uniform(0.05, 0.5, (objects, 2))], 1)
        columns = rng.integers(0, 5, objects)
        expected = np.full(objects, -1)
        rows, places = linear_sum_assignment(numpy_cost(scores, boxes, columns, truth, focal=focal))
        expected[places] = rows
        given = [torch.from_numpy(values) for values in (scores, boxes, columns, truth)]
        assert match_queries(*given, focal=focal).tolist() == expected.tolist()


def test_generalised_iou_is_torchvision_s() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(20, 4, generator=generator), torch.rand(9, 4, generator=generator)
    expected = generalized_box_iou(box_convert(first, "cxcywh", "xyxy"), box_convert(second, "cxcywh", "xyxy"))
    torch.testing.assert_close(generalised_iou(first, second), expected)


def test_boxes_without_an_inside_give_numbers() -> None:
    empty = torch.tensor([[0.5, 0.5, 0.0, 0.0]])
    assert generalised_iou(empty, empty).tolist() == [[0.0]]


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_an_object_is_matched_also_where_every_score_is_at_its_limit(score: float) -> None:
    boxes = torch.tensor([[0.2, 0.2, 0.1, 0.1], [0.8, 0.8, 0.1, 0.1]])
    assert match_queries(torch.full((2, 1), score), boxes, torch.tensor([0]), boxes[1:]).tolist() == [1]
