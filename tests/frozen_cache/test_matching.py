"""Hungarian matching against the lineage's own figures."""

import pytest
import torch

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
