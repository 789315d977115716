"""The masks that annotated boxes get in all views of an image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from frozen_cache.cache.view import CachedView
from frozen_cache.evaluation.object_masks import object_masks

from .test_averaging import CROP, VIEWS, KnowsTheImage, another, pair  # noqa: F401

IDS = [7, 5, 9]
BOXES = torch.tensor([[0.56, 0.51, 0.31, 0.21], [0.41, 0.56, 0.41, 0.31], [0.5, 0.4, 0.1, 0.2]])


def with_truth(view: CachedView, match: dict[int, int], categories: dict[int, int]) -> CachedView:
    truth = replace(
        view.truth,
        annotation_ids=np.array(list(match), dtype=np.int64),
        match=np.array(list(match.values()), dtype=np.int64),
        categories=np.array([categories[key] for key in match], dtype=np.int64),
    )
    return replace(view, truth=truth)


@pytest.mark.parametrize("scale", [1.0, 1.5])
@pytest.mark.parametrize(("crop", "flip"), VIEWS)
def test_the_annotated_boxes_are_segmented_by_their_matched_queries(pair, crop, flip, scale):  # noqa: F811
    """Row 0 is matched with object 5, row 1 with object 7; nothing with object 9."""
    categories = {5: 0, 7: 1, 9: 1}
    pair = replace(pair, queries=torch.tensor([[1.0] * 8, [0.5] * 8]))
    plain = with_truth(pair, {5: 0, 9: -1, 7: 1}, categories)
    other = with_truth(another(pair, 1, crop, flip=flip, order=[1, 0]), {7: 0, 5: 1, 9: -1}, categories)
    inner = KnowsTheImage(scale=scale)
    found = object_masks([plain, other], inner, ids=IDS, boxes=BOXES)
    assert found.places == [0, 1]
    expected = KnowsTheImage(scale=scale)(replace(pair, boxes=BOXES[:2]))
    torch.testing.assert_close(found.masks, expected.masks, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.boxes, expected.boxes)
    # 1 for the class; of the queries 0.5 and 1 in the plain view, 0.5 in the other.
    torch.testing.assert_close(found.scores, torch.tensor([0.5, 0.75]))
    assert [asked.labels.tolist() for asked in inner.asked] == [[1, 0], [1, 0]]


def test_a_view_without_the_object_does_not_count(pair):  # noqa: F811
    categories = {5: 0, 7: 1}
    plain = with_truth(pair, {5: 0}, categories)
    other = with_truth(another(pair, 1, CROP, flip=True, order=[0, 1]), {7: 1, 5: -1}, categories)
    found = object_masks([plain, other], KnowsTheImage(), ids=[5, 7], boxes=BOXES[:2])
    assert found.places == [0, 1]
    expected = KnowsTheImage()(replace(pair, boxes=BOXES[:2]))
    torch.testing.assert_close(found.masks[0], expected.masks[0])
    shown = found.masks[1] > 0
    torch.testing.assert_close(found.masks[1][shown], expected.masks[1][shown], atol=1e-5, rtol=0)
    nothing = object_masks([plain], KnowsTheImage(), ids=[9], boxes=BOXES[2:])
    assert nothing.places == [] and len(nothing.masks) == len(nothing.boxes) == len(nothing.scores) == 0
