"""Mean IoU over matched boxes."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from frozen_cache.evaluation.evaluate import evaluate_cache
from frozen_cache.evaluation.matched_iou import matched_iou, view_object_ious
from frozen_cache.evaluation.object_iou import ObjectIou, edge_iou_by_size, mean_iou_by_size
from frozen_cache.evaluation.segmenters import BoxSegmenter, Segmentation


class OneView:
    """A reader of a single view."""

    def __init__(self, view):
        self.view, self.views = view, [(view.image_id, 0), (view.image_id, 1)]
        self.attributes = SimpleNamespace(categories=[{"id": 7, "name": "a"}, {"id": 9, "name": "b"}])

    def read(self, index, **options):
        assert index == 0, "only plain views count"
        return self.view


def with_object(view, *, match: int):
    """The object is the left half of the detection's box."""
    mask = np.zeros((64, 80), dtype=np.uint8)
    mask[24:40, 30:40] = 1
    truth = replace(
        view.truth,
        masks=[coco_mask.encode(np.asfortranarray(mask))],
        boxes=np.array([[30.0, 24, 40, 40]]),
        categories=np.array([1]),
        crowd=np.array([False]),
        match=np.array([match]),
        areas=np.array([160.0]),
        annotation_ids=np.array([1]),
    )
    return replace(view, truth=truth)


def test_it_is_the_iou_of_the_matched_box_s_mask(view):
    assert matched_iou(OneView(with_object(view, match=0)), BoxSegmenter()) == pytest.approx(0.5)


def test_objects_without_a_match_do_not_count(view):
    assert math.isnan(matched_iou(OneView(with_object(view, match=-1)), BoxSegmenter()))


def test_masks_that_are_there_already_are_not_made_again(view):
    segmenter = HalfMask()
    [found] = evaluate_cache(OneView(with_object(view, match=0)), segmenter, object_ious=True).objects
    assert len(segmenter.seen) == 1
    assert (found.image_id, found.annotation_id, found.area) == (1, 1, 160.0)
    assert found.iou == pytest.approx(1.0)


def test_near_the_edge_and_off_it_are_measured_apart(view):
    """The object is the left half of the box, 16 x 10 pixels; the mask is all of the box, 16 x 20. The band is 0.51
    pixels wide to each side (2 % of the diagonal of 25.6): one pixel of the object, one beyond its edge."""
    [found] = view_object_ious(with_object(view, match=0), BoxSegmenter())
    inner = 14 * 8
    assert found.near_edge == pytest.approx((160 - inner) / (160 - inner + 16))
    assert found.off_edge == pytest.approx(inner / (inner + 320 - 160 - 16))
    table = edge_iou_by_size([found])
    assert table["near_edge"]["all"] == table["near_edge"]["s"] == pytest.approx(found.near_edge)
    assert table["off_edge"]["l"] is None


def test_an_object_without_a_pixel_off_its_edge_has_no_say_there(view):
    thin = np.zeros((64, 80), dtype=np.uint8)
    thin[30:32, 35:39] = 1
    truth = replace(with_object(view, match=0).truth, masks=[coco_mask.encode(np.asfortranarray(thin))])
    tight = replace(view, truth=truth, boxes=torch.tensor([[37 / 80, 31 / 64, 4 / 80, 2 / 64]]))
    [found] = view_object_ious(replace(tight), BoxSegmenter())
    assert found.iou == found.near_edge == 1.0 or math.isnan(found.near_edge)
    assert edge_iou_by_size([found])["off_edge"]["all"] in (None, 1.0)


def test_the_mean_by_size_follows_coco_s_limits():
    sizes = [(32**2 - 1, 0.1), (32**2, 0.2), (96**2 - 1, 0.4), (96**2, 0.9)]
    objects = [ObjectIou(image_id=1, annotation_id=1, area=area, iou=iou) for area, iou in sizes]
    assert mean_iou_by_size(objects) == {"all": 0.4, "s": 0.1, "m": pytest.approx(0.3), "l": 0.9}
    assert mean_iou_by_size([]) == {"all": None, "s": None, "m": None, "l": None}


class HalfMask:
    """Masks the left half of each box; it remembers the rows that it was given."""

    encoder_layer, device, zooms = 4, None, False

    def __init__(self):
        self.seen = []

    def __call__(self, view):
        self.seen.append(view)
        masks = torch.zeros(view.selected, 64, 64)
        masks[:, :, :32] = 1
        return Segmentation(masks=masks, boxes=view.boxes[: view.selected], scores=view.scores[: view.selected])


def test_each_object_is_compared_with_the_mask_of_its_own_query(view):
    """Also where that is a row behind the detections, and in any order."""
    boxes = torch.tensor([[0.5, 0.5, 0.25, 0.25], [0.25, 0.5, 0.5, 0.5], [0.75, 0.25, 0.5, 0.5]])
    masks = [np.zeros((64, 80), dtype=np.uint8) for _ in range(3)]
    masks[0][0:32, 40:60] = 1  # the left half of the third box
    masks[1][24:40, 30:50] = 1  # the whole of the first: its left half has IoU 1/2
    masks[2][:] = 1
    truth = replace(
        view.truth,
        masks=[coco_mask.encode(np.asfortranarray(mask)) for mask in masks],
        boxes=np.array([[40.0, 0, 60, 32], [30, 24, 50, 40], [0, 0, 80, 64]]),
        categories=np.array([1, 0, 1]),
        crowd=np.zeros(3, dtype=bool),
        match=np.array([2, 0, -1]),
        areas=np.array([640.0, 320, 5120], dtype=np.float32),
        annotation_ids=np.array([1, 2, 3]),
    )
    view = replace(
        view,
        selected=1,
        queries=torch.arange(3.0)[:, None].expand(3, 8),
        boxes=boxes,
        scores=torch.tensor([0.9, 0.5, 0.1]),
        labels=torch.tensor([1, 0, 1]),
        truth=truth,
    )
    segmenter = HalfMask()
    assert matched_iou(OneView(view), segmenter) == pytest.approx((1 + 0.5) / 2)
    [seen] = segmenter.seen
    assert seen.selected == 2
    assert torch.equal(seen.boxes, boxes[[2, 0]])
    assert seen.queries[:, 0].tolist() == [2, 0]
    assert seen.scores.tolist() == pytest.approx([0.1, 0.9])
    assert seen.labels.tolist() == [1, 1]


@pytest.mark.parametrize(("alone", "selected"), [(False, [1, 2]), (True, [3])])
def test_queries_that_are_not_selected_are_segmented_besides_and_keep_their_objects(view, alone, selected):
    """With the others where a mask depends on its query alone."""
    boxes = torch.tensor([[0.5, 0.5, 0.25, 0.25], [0.25, 0.5, 0.5, 0.5], [0.75, 0.25, 0.5, 0.5]])
    masks = [np.zeros((64, 80), dtype=np.uint8) for _ in range(3)]
    masks[0][0:32, 40:60] = 1  # the left half of the third box
    masks[1][16:48, 0:40] = 1  # the whole of the second: its left half has IoU 1/2
    masks[2][24:40, 30:36] = 1  # part of the left half of the first
    truth = replace(
        view.truth,
        masks=[coco_mask.encode(np.asfortranarray(mask)) for mask in masks],
        boxes=np.array([[40.0, 0, 60, 32], [0, 16, 40, 48], [30, 24, 36, 40]]),
        categories=np.array([1, 0, 1]),
        crowd=np.zeros(3, dtype=bool),
        match=np.array([2, 1, 0]),
        areas=np.array([640.0, 1280, 96], dtype=np.float32),
        annotation_ids=np.array([1, 2, 3]),
    )
    view = replace(
        view, selected=1, queries=torch.ones(3, 8), boxes=boxes, scores=torch.tensor([0.9, 0.5, 0.1]),
        labels=torch.tensor([1, 0, 1]), truth=truth,
    )  # fmt: skip
    segmenter = HalfMask()
    segmenter.mask_depends_on_query_alone = alone
    found = evaluate_cache(OneView(view), segmenter, object_ious=True)
    assert [entry.iou for entry in found.objects] == pytest.approx([1.0, 0.5, 0.6])
    assert [seen.selected for seen in segmenter.seen] == selected
    assert len(found.verdicts[0].detections) == 1, "they are no detections"
